// Failover plays every failure of a node many times in the lab, behind an FRR
// and behind a BIRD router, and prints how long who took to notice: the node's
// agent, the cable, the router's kernel, and a client that opens connections at
// a steady pace. Bars are compared and printed as met or missed; with one
// missed, or with a run that went another way than it must, the exit status is
// 1. It needs root, as package edge says.
//
//	go run ./test/lab/failover --runs 20 --out table.md
//	go run ./test/lab/failover --runs 3 --only drain,hang
//
// A lab of each kind of router is up at the same time. One is measured while the
// other recovers from what was done to it, so that measurements do not overlap;
// what has a bar in milliseconds is measured while the other rests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"anyedge/test/lab/edge"
	"anyedge/test/lab/topology"
	"anyedge/test/lab/vrrp"
)

func main() { edge.Main("failover", run) }

// bench is one call of the command.
type bench struct {
	options edge.Options
	runs    int
	events  []event
	log     *slog.Logger
	turns   *turns

	mu      sync.Mutex
	results map[key][]outcome

	takeovers []vrrp.Row
}

// key names a row of the table.
type key struct {
	event  string
	daemon topology.Daemon
}

// outcome is one run of an event.
type outcome struct {
	edge.Failover
	wrong error // what was not as it must be
}

var daemons = []topology.Daemon{topology.FRR, topology.BIRD}

const (
	node, client = "fra-1", "paris"
	// calmLimit bounds the wait until a lab is as it was before an event.
	calmLimit = 30 * time.Second
	// downLimit bounds the end of a lab.
	downLimit = 20 * time.Second
)

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	b := &bench{results: make(map[key][]outcome), turns: newTurns()}
	flags := flag.NewFlagSet("failover", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.StringVar(&b.options.Binary, "anyedge", "bin/anyedge", "the product")
	flags.StringVar(&b.options.Consul, "consul", ".cache/consul", "a Consul server")
	flags.IntVar(&b.runs, "runs", 20, "of each event behind each router")
	only := flags.String("only", "", "names of events, with commas between them; empty: all")
	file := flags.String("out", "", "also write the table to this file")
	verbose := flags.Bool("v", false, "log every run")
	flags.Usage = func() {
		fmt.Fprintln(errOut, "usage: failover [flags]; the events:")
		for _, e := range events {
			fmt.Fprintf(errOut, "  %-18s %s\n", e.name, e.title)
		}
		fmt.Fprintf(errOut, "  %-18s takeovers in a PoP of two nodes without a router\n", vrrpName)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || b.runs < 1 {
		return errors.New("at least one run, and no arguments")
	}
	events, withVRRP, err := choose(*only)
	if err != nil {
		return err
	}
	b.events = events
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelInfo
	}
	b.log = slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))
	start := time.Now()
	if len(b.events) > 0 {
		err = b.run(ctx)
	}
	if err == nil && withVRRP {
		err = b.takeOver(ctx)
	}
	table := renderAll(b)
	fmt.Fprintf(out, "%s\n%d runs each, %s\n", table, b.runs, time.Since(start).Round(time.Second))
	if *file != "" {
		err = errors.Join(err, os.WriteFile(*file, []byte(table), 0o644))
	}
	return errors.Join(err, judge(b.events, b.results), judgeTakeovers(b.takeovers))
}

// vrrpName names the takeovers of a PoP without a router in a list of events.
const vrrpName = "vrrp"

// choose returns the events of a list of names, in the order of the table, and
// whether the takeovers are among them.
func choose(only string) (chosen []event, takeovers bool, err error) {
	if only == "" {
		return events, true, nil
	}
	names := make(map[string]bool)
	for name := range strings.SplitSeq(only, ",") {
		names[name] = true
	}
	for _, e := range events {
		if names[e.name] {
			chosen = append(chosen, e)
			delete(names, e.name)
		}
	}
	takeovers = names[vrrpName]
	delete(names, vrrpName)
	for name := range names {
		return nil, false, fmt.Errorf("there is no event %q", name)
	}
	return chosen, takeovers, nil
}

func renderAll(b *bench) string {
	var table string
	if len(b.events) > 0 {
		table = render(b.events, b.results)
	}
	return table + renderTakeovers(b.takeovers)
}

// run measures behind both kinds of router, first with BFD, then without.
func (b *bench) run(ctx context.Context) error {
	for _, hold := range []bool{false, true} {
		some := slices.DeleteFunc(slices.Clone(b.events), func(e event) bool { return e.hold != hold })
		if len(some) == 0 {
			continue
		}
		if err := b.behindBoth(ctx, some, hold); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) behindBoth(ctx context.Context, some []event, hold bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, d := range daemons {
		wg.Go(func() {
			if err := b.behind(ctx, d, some, hold); err != nil {
				cancel(fmt.Errorf("behind %s: %w", d, err))
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// behind brings up a lab whose first PoP has such a router, plays some events in
// it, and takes it away.
func (b *bench) behind(ctx context.Context, d topology.Daemon, some []event, hold bool) (err error) {
	o := b.options
	o.Prefix, o.Topology, o.Log = "aefail-"+string(d)+"-", lab(d, hold), b.log.With("router", d)
	release, err := edge.Claim(o.Prefix)
	if err != nil {
		return err
	}
	defer release()
	done, err := edge.StartReaper(o.Prefix)
	if err != nil {
		return err
	}
	defer done()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
		defer cancel()
		err = errors.Join(err, edge.Down(ctx, o.Prefix))
	}()
	calm := b.turns.recovers()
	l, err := edge.Up(ctx, o)
	calm()
	if err != nil {
		return err
	}
	// Event by event in every round, so that a minute in which the machine is
	// busy with something else falls on all of them.
	for i := range b.runs {
		for _, e := range some {
			if err := b.play(ctx, l, d, e); err != nil {
				return fmt.Errorf("%s, run %d: %w", e.name, i+1, err)
			}
		}
	}
	return nil
}

// lab is three PoPs of one node, so that a node's failure is its PoP's; what
// happens happens to the first.
func lab(d topology.Daemon, hold bool) topology.Topology {
	t := topology.Default()
	for i := range t.Pops {
		t.Pops[i].Nodes = 1
	}
	t.Pops[0].Router = d
	if !hold {
		t.BFD = topology.DefaultBFD
	}
	return t
}

// measure measures one event. The lab recovers until calm is called.
func (b *bench) measure(ctx context.Context, l *edge.Lab, e event) (f edge.Failover, calm func(), err error) {
	measure := func() { f, err = l.Measure(ctx, e.drill(l)) }
	if e.passive {
		calm = b.turns.recovers()
		measure()
	} else {
		calm = b.turns.measure(e.alone, measure)
	}
	return f, calm, err
}

// play measures one event and waits until the lab has recovered.
func (b *bench) play(ctx context.Context, l *edge.Lab, d topology.Daemon, e event) error {
	f, calm, err := b.measure(ctx, l, e)
	defer calm()
	if e.undo != nil {
		err = errors.Join(err, e.undo(ctx, l))
	}
	if err != nil {
		return err
	}
	o := outcome{f, e.holds(f)}
	b.log.Info("measured", "event", e.name, "router", d, "failover", f, "wrong", o.wrong)
	b.mu.Lock()
	k := key{e.name, d}
	b.results[k] = append(b.results[k], o)
	b.mu.Unlock()
	if e.stays {
		return nil
	}
	return l.AwaitCalm(ctx, node, client, false, calmLimit)
}
