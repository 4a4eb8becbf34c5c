package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"anyedge/test/bench/rig"
	"anyedge/test/lab/dns"
)

// driver is anyedge that answers in the network driver, behind a veth pair. Its
// cost is the time of the program there, by the kernel's own statistics, and that
// of the process, which has the queries that the program passes on.
const driver = "anyedge-xdp"

// statistics has the kernel time programs, which costs each run a little.
const statistics = "/proc/sys/kernel/bpf_stats_enabled"

// measureDriver is measure for the driver.
func (w *world) measureDriver(ctx context.Context, length time.Duration) (r result, err error) {
	before, err := os.ReadFile(statistics)
	if err != nil {
		return r, err
	}
	if err := os.WriteFile(statistics, []byte("1"), 0); err != nil {
		return r, err
	}
	defer os.WriteFile(statistics, before, 0)
	dir := filepath.Join(w.dir, driver)
	l, err := dns.Up(ctx, "xdp-bench-", dir, w.binary)
	if err != nil {
		return r, err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		err = errors.Join(err, l.Down(ending))
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(dir, "log")) // without it there is the error
			err = fmt.Errorf("%w\n%s", err, log)
		}
	}()
	if err := l.Start(); err != nil {
		return r, err
	}
	if !dns.Await(ctx, startTimeout, func() bool {
		m, err := l.Metrics(ctx)
		return err == nil && m["anyedge_dns_xdp_attached"] == 1 && m["anyedge_dns_xdp_image_bytes"] > 0
	}) {
		return r, errors.New("it does not answer in the driver")
	}
	p, err := l.Process()
	if err != nil {
		return r, err
	}
	run := func(ctx context.Context, argv ...string) ([]byte, error) { return l.Client.Run(ctx, argv...) }
	if _, err := w.load(ctx, dns.Server4, run, warmUp); err != nil {
		return r, err
	}
	processBefore, programBefore, err := cost(p.PID)
	if err != nil {
		return r, err
	}
	load, err := w.load(ctx, dns.Server4, run, length)
	if err != nil {
		return r, err
	}
	processAfter, programAfter, err := cost(p.PID)
	if err != nil {
		return r, err
	}
	spent := processAfter - processBefore + programAfter - programBefore
	return result{
		rate: float64(load.answered) / load.took.Seconds(),
		cost: float64(spent) / float64(time.Microsecond) / float64(load.answered),
		lost: load.lost,
	}, nil
}

// cost returns the CPU time of a process, and of the program that it has in the
// kernel.
func cost(pid int) (process, program time.Duration, err error) {
	if process, err = rig.CPU(pid); err != nil {
		return 0, 0, err
	}
	folder := filepath.Join("/proc", strconv.Itoa(pid), "fdinfo")
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		info, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			continue // it was closed meanwhile
		}
		for line := range strings.Lines(string(info)) {
			if key, value, _ := strings.Cut(line, ":"); key == "run_time_ns" {
				n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				return process, time.Duration(n), err
			}
		}
	}
	return 0, 0, errors.New("it has no program in the kernel")
}
