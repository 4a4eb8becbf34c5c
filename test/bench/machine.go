package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"

	"anyedge/test/bench/rig"
)

// versionTimeout bounds the question for one tool's version.
const versionTimeout = 5 * time.Second

// machine says what was measured where: the facts without which no figure of
// the table means anything.
func machine(ctx context.Context, o options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, %s. Rounds: %d, of %s each, in turns. Measured on %s.\n",
		processor(), runtime.NumCPU(), kernel(), o.Rounds, o.Length, time.Now().UTC().Format(time.DateOnly))
	tools := []struct {
		name string
		args []string
	}{
		{o.Binary, []string{"version"}},
		{"haproxy", []string{"-v"}},
		{"nginx", []string{"-v"}},
		{"caddy", []string{"version"}},
		{"wrk", []string{"-v"}},
		{"h2load", []string{"--version"}},
	}
	var versions []string
	for _, t := range tools {
		versions = append(versions, version(ctx, t.name, t.args))
	}
	fmt.Fprintf(&b, "%s.\n", strings.Join(versions, ", "))
	return b.String()
}

var dotted = regexp.MustCompile(`\d+(\.\d+)+\S*`)

// version asks a tool for its version: the first line of what it says if that
// names the tool, else the first dotted number.
func version(ctx context.Context, name string, args []string) string {
	path, err := rig.Find(name)
	if err != nil {
		return name + " is not installed"
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	// Some say it on standard error or with a status of 1: what counts is the text.
	out, _ := exec.CommandContext(ctx, path, args...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	if strings.HasPrefix(line, "anyedge ") {
		return line
	}
	if v := dotted.FindString(line); v != "" {
		return name + " " + v
	}
	return name + " of unknown version"
}

// processor is the name of the first processor.
func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range bytes.Lines(data) {
			if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(name)) == "model name" {
				return string(bytes.TrimSpace(value))
			}
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + string(bytes.TrimSpace(data))
}
