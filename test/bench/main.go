// Bench compares anyedge as a proxy with HAProxy, nginx and Caddy, side by side
// on this machine: same origin, same certificate, same load.
//
//	go run ./test/bench [--rounds 3] [--seconds 4] [--only h1,tls] [--out FILE]
//
// Every measurement starts a fresh proxy, loads it and stops it. The proxies
// take turns, A B C D A B C D, so that a slow minute of the machine hits all of
// them; the table shows medians. The figure that counts is the CPU time of the
// proxy's own processes per request: on a machine that also runs the load and
// the origin, requests per second say more about the neighbours.
//
// All traffic stays on loopback. Whatever ends the program, short of SIGKILL,
// stops what it started.
//
// # Concurrency
//
// One measurement runs at a time. Load generators of this package start their
// own goroutines and join them before they return.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"anyedge/test/bench/rig"
	"anyedge/test/program"
)

func main() { program.Main("bench", run) }

// options are the flags.
type options struct {
	program.Comparison
	scenarios []scenario
	proxies   []rig.Kind
}

func parse(args []string, errOut io.Writer) (options, error) {
	var o options
	flags, parse := o.Flags("bench", "proxy in each scenario", 4, errOut)
	only := flags.String("only", "", "scenarios, separated by commas (default all): "+program.Names(scenarios, scenario.String))
	proxies := flags.String("proxies", "anyedge,haproxy,nginx,caddy", "who takes part")
	if err := parse(args); err != nil {
		return o, err
	}
	for name := range strings.SplitSeq(*proxies, ",") {
		o.proxies = append(o.proxies, rig.Kind(name))
	}
	var err error
	o.scenarios, err = program.Choose(*only, scenarios, scenario.String)
	return o, err
}

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	o, err := parse(args, errOut)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "anyedge-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r, err := rig.New(dir, o.Binary)
	if err != nil {
		return err
	}
	b := &bench{rig: r, dir: dir, length: o.Length, progress: errOut}
	results, err := b.all(ctx, o)
	if err != nil {
		return err
	}

	facts := machine(ctx, o)
	rows := table(o.scenarios, o.proxies, results)
	text, markdown := bytes.NewBufferString(facts+"\n"), new(bytes.Buffer)
	if err := writeText(text, rows); err != nil {
		return err
	}
	writeMarkdown(markdown, facts, rows)
	return program.Report(out, text.String(), o.Out, markdown.String())
}

// key names the measurements of one proxy in one scenario.
type key struct {
	scenario string
	proxy    rig.Kind
}

// bench runs measurements, one after the other.
type bench struct {
	rig      *rig.Rig
	dir      string // for what the load generators write
	length   time.Duration
	progress io.Writer
	idle     map[rig.Kind]cost // CPU time per second without load
}

// all runs every scenario, the proxies in turns.
func (b *bench) all(ctx context.Context, o options) (map[key][]result, error) {
	origin, err := b.rig.StartOrigin(ctx)
	if err != nil {
		return nil, err
	}
	defer origin.Stop()

	b.idle = make(map[rig.Kind]cost)
	for _, kind := range o.proxies {
		if err := b.prepare(ctx, kind, origin); err != nil {
			return nil, err
		}
	}
	results := make(map[key][]result)
	for _, s := range o.scenarios {
		for round := range o.Rounds {
			for _, kind := range o.proxies {
				res, err := b.once(ctx, s, kind, origin)
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", s.title, kind, err)
				}
				k := key{s.name, kind}
				results[k] = append(results[k], res)
				fmt.Fprintf(b.progress, "%-10s round %d  %-8s %s\n", s.name, round+1, kind, res.line(s))
			}
		}
	}
	return results, nil
}

// prepare proves that a proxy offers what all must and measures what it costs
// without load.
func (b *bench) prepare(ctx context.Context, kind rig.Kind, origin *rig.Process) error {
	p, err := b.rig.StartProxy(ctx, kind, origin.Clear)
	if err != nil {
		return err
	}
	defer p.Stop()
	if err := b.rig.Verify(ctx, p); err != nil {
		return err
	}
	const window = 3 * time.Second
	spent, err := during(p, func() error { return pause(ctx, window) })
	if err != nil {
		return err
	}
	b.idle[kind] = spent.over(window)
	return nil
}

// once is one measurement of a fresh proxy.
func (b *bench) once(ctx context.Context, s scenario, kind rig.Kind, origin *rig.Process) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, b.length+2*time.Minute)
	defer cancel()
	p, err := b.rig.StartProxy(ctx, kind, origin.Clear)
	if err != nil {
		return result{}, err
	}
	defer p.Stop()
	res, err := s.measure(ctx, b, p)
	return res, errors.Join(err, p.Alive())
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
