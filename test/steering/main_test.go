package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWritesATableAndAPlot(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if err := run([]string{"--pops", "5", "--clients", "100", "--outages", "2", "--out", dir}, &out); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "steering.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| anycast only |", "| capacity-aware |", "steering.svg", "2 failures: fra 19:30 to 21:00"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	plot, err := os.ReadFile(filepath.Join(dir, "steering.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for dec := xml.NewDecoder(bytes.NewReader(plot)); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is not XML: %v", err)
		}
	}
}

func TestRefusesBadFlags(t *testing.T) {
	for _, args := range [][]string{{"--outages", "0"}, {"--pops", "99"}, {"extra"}} {
		if err := run(append(args, "--out", t.TempDir()), io.Discard); err == nil {
			t.Errorf("%v accepted", args)
		}
	}
}
