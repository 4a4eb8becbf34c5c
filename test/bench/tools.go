package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"anyedge/internal/daemon"
	"anyedge/test/bench/rig"
)

// Connections of the load generators.
const (
	wrkConnections = 64
	h2Connections  = 16
	h2Streams      = 16
)

// toolGrace is how much longer than asked a load generator may run.
const toolGrace = 20 * time.Second

// side is the address of a proxy that a load goes to.
type side bool

const (
	overClear side = false
	overTLS   side = true
)

func (s side) url(p *rig.Process, path string) string {
	if s == overTLS {
		return "https://" + p.TLS.String() + path
	}
	return "http://" + p.Clear.String() + path
}

// wrk generates HTTP/1.1 over kept connections, or one per request.
func wrk(s side, path string, reconnect bool) generator {
	return func(ctx context.Context, _ *bench, p *rig.Process, length time.Duration) (load, error) {
		args := []string{
			"--threads", "2", "--connections", strconv.Itoa(wrkConnections),
			"--duration", strconv.Itoa(int(length.Seconds())) + "s", "--timeout", "5s", "--latency",
		}
		if reconnect {
			args = append(args, "--header", "Connection: close")
		}
		out, err := tool(ctx, length+toolGrace, "wrk", append(args, s.url(p, path))...)
		if err != nil {
			return load{}, err
		}
		return parseWrk(out)
	}
}

var (
	wrkDone     = regexp.MustCompile(`(\d+) requests in ([\d.]+[a-z]+)`)
	wrkLatency  = regexp.MustCompile(`(?m)^ +(50|99)% +([\d.]+[a-z]+)$`)
	wrkFailures = regexp.MustCompile(`(?m)^ *(Socket errors|Non-2xx).*$`)
)

// parseWrk reads the report of wrk.
func parseWrk(out []byte) (load, error) {
	if bad := wrkFailures.Find(out); bad != nil {
		return load{}, fmt.Errorf("wrk: %s", bytes.TrimSpace(bad))
	}
	done := wrkDone.FindSubmatch(out)
	if done == nil {
		return load{}, fmt.Errorf("wrk did not report requests:\n%s", out)
	}
	var l load
	var errs [4]error
	l.done, errs[0] = strconv.Atoi(string(done[1]))
	l.took, errs[1] = time.ParseDuration(string(done[2]))
	for _, m := range wrkLatency.FindAllSubmatch(out, -1) {
		if string(m[1]) == "50" {
			l.p50, errs[2] = time.ParseDuration(string(m[2]))
		} else {
			l.p99, errs[3] = time.ParseDuration(string(m[2]))
		}
	}
	return l, errors.Join(errs[:]...)
}

// h2load generates HTTP/2 over TLS. Its report has no percentiles, so they come
// from its log of every request.
func h2load(ctx context.Context, b *bench, p *rig.Process, length time.Duration) (load, error) {
	log := filepath.Join(b.dir, "h2load.log")
	defer os.Remove(log)
	out, err := tool(ctx, length+toolGrace, "h2load",
		"--clients", strconv.Itoa(h2Connections), "--max-concurrent-streams", strconv.Itoa(h2Streams),
		"--threads", "1", "--duration", strconv.Itoa(int(length.Seconds())), "--log-file", log,
		overTLS.url(p, rig.SmallPath))
	if err != nil {
		return load{}, err
	}
	l, err := parseH2load(out)
	if err != nil {
		return load{}, err
	}
	f, err := os.Open(log)
	if err != nil {
		return load{}, err
	}
	defer f.Close()
	times, err := parseH2loadLog(f)
	l.p50, l.p99 = percentile(times, 50), percentile(times, 99)
	return l, err
}

var (
	h2Took = regexp.MustCompile(`(?m)^finished in ([\d.]+[a-z]+),`)
	h2Done = regexp.MustCompile(`(?m)^requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$`)
)

// parseH2load reads the report of h2load, without the percentiles.
func parseH2load(out []byte) (load, error) {
	took, done := h2Took.FindSubmatch(out), h2Done.FindSubmatch(out)
	if took == nil || done == nil {
		return load{}, fmt.Errorf("h2load did not report requests:\n%s", out)
	}
	for _, bad := range done[2:] {
		if string(bad) != "0" {
			return load{}, fmt.Errorf("h2load: %s", done[0])
		}
	}
	var l load
	var errs [2]error
	l.done, errs[0] = strconv.Atoi(string(done[1]))
	l.took, errs[1] = time.ParseDuration(string(took[1]))
	return l, errors.Join(errs[:]...)
}

// parseH2loadLog reads the times of requests from h2load's log: a line of start
// time, status and microseconds for each.
func parseH2loadLog(r io.Reader) ([]time.Duration, error) {
	var times []time.Duration
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			return nil, fmt.Errorf("h2load log: %q", lines.Text())
		}
		us, err := strconv.Atoi(fields[2])
		if err != nil {
			return nil, fmt.Errorf("h2load log: %w", err)
		}
		times = append(times, time.Duration(us)*time.Microsecond)
	}
	return times, lines.Err()
}

// tool runs a load generator and returns its output. It is ended when it runs
// longer than the limit, or ctx ends.
func tool(ctx context.Context, limit time.Duration, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	path, err := rig.Find(name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	child, err := daemon.Start(cmd)
	if err != nil {
		return nil, err
	}
	select {
	case <-child.Done():
	case <-ctx.Done():
		child.Stop(ctx) // which has ended: no grace
		return nil, fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	if exit := child.Wait(); !exit.Success() {
		return nil, fmt.Errorf("%s: %s\n%s", name, exit, out.Bytes())
	}
	return out.Bytes(), nil
}
