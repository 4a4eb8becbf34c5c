package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"anyedge/test/bench/rig"
)

// scenario is one row group of the table.
type scenario struct {
	name  string // for --only
	title string
	unit  string  // of result.cost
	bar   float64 // the most that anyedge may cost, as a ratio to the best C proxy; 0: none is set
	// measure loads a fresh proxy and returns what it cost.
	measure func(ctx context.Context, b *bench, p *rig.Process) (result, error)
}

// result is one measurement.
type result struct {
	rate     float64       // requests or handshakes per second
	p50, p99 time.Duration // as the client saw them
	cost     float64       // µs of CPU per request, or bytes per connection
	agent    float64       // µs of CPU per request of anyedge's agent
}

// Units of cost.
const (
	perRequest    = "µs"
	perConnection = "B"
)

var scenarios = []scenario{
	{"h1", "H1 keep-alive, 1 kB", perRequest, 1.15, loaded(wrk(overClear, rig.SmallPath, false))},
	{"tls", "H1 over TLS, 1 kB", perRequest, 1.15, loaded(wrk(overTLS, rig.SmallPath, false))},
	{"h2", "H2 over TLS, 16 x 16 streams, 1 kB", perRequest, 1.25, loaded(h2load)},
	{"large", "H1 keep-alive, 64 kB", perRequest, 0, loaded(wrk(overClear, rig.LargePath, false))},
	{"connect", "new clear connection per request, 1 kB", perRequest, 0, loaded(wrk(overClear, rig.SmallPath, true))},
	{"handshake", "full TLS handshake", perRequest, 1, loaded(handshakes(false))},
	{"resume", "resumed TLS handshake", perRequest, 1, loaded(handshakes(true))},
	{"idle", fmt.Sprintf("%d idle TLS connections", idleConnections), perConnection, 1, idle},
}

// String is its name.
func (s scenario) String() string { return s.name }

// load is what a load generator did.
type load struct {
	done     int
	took     time.Duration
	p50, p99 time.Duration
}

// generator loads a proxy for the given time. It returns an error when anything
// but what was asked for came back: a figure with failures in it means nothing.
type generator func(ctx context.Context, b *bench, p *rig.Process, length time.Duration) (load, error)

// warmUp goes before every measurement under load.
const warmUp = time.Second

// loaded measures CPU time around a generator, after a warm-up by the same.
func loaded(g generator) func(context.Context, *bench, *rig.Process) (result, error) {
	return func(ctx context.Context, b *bench, p *rig.Process) (result, error) {
		if _, err := g(ctx, b, p, warmUp); err != nil {
			return result{}, fmt.Errorf("warm-up: %w", err)
		}
		var l load
		start := time.Now()
		spent, err := during(p, func() (err error) {
			l, err = g(ctx, b, p, b.length)
			return err
		})
		if err != nil {
			return result{}, err
		}
		if l.done == 0 {
			return result{}, errors.New("nothing was done")
		}
		elapsed := time.Since(start).Seconds()
		idle := b.idle[p.Kind]
		each := func(spent, idle time.Duration) float64 {
			return (float64(spent) - float64(idle)*elapsed) / float64(time.Microsecond) / float64(l.done)
		}
		return result{
			rate: float64(l.done) / l.took.Seconds(),
			p50:  l.p50, p99: l.p99,
			cost:  each(spent.cpu, idle.cpu),
			agent: each(spent.agent, idle.agent),
		}, nil
	}
}

// cost is CPU time: of the processes that carry traffic, and of the agent.
type cost struct{ cpu, agent time.Duration }

// over returns the cost per second.
func (c cost) over(d time.Duration) cost {
	per := func(spent time.Duration) time.Duration { return time.Duration(float64(spent) / d.Seconds()) }
	return cost{per(c.cpu), per(c.agent)}
}

// during returns what a proxy spends while f runs.
func during(p *rig.Process, f func() error) (cost, error) {
	before, err := p.Usage()
	if err != nil {
		return cost{}, err
	}
	if err := f(); err != nil {
		return cost{}, err
	}
	after, err := p.Usage()
	if err != nil {
		return cost{}, err
	}
	if !slices.Equal(before.Processes, after.Processes) {
		return cost{}, fmt.Errorf("processes changed from %v to %v", before.Processes, after.Processes)
	}
	return cost{after.CPU - before.CPU, after.Agent - before.Agent}, nil
}

// line is a result in words, for the progress.
func (r result) line(s scenario) string {
	if s.unit == perConnection {
		return fmt.Sprintf("%8.0f B per connection", r.cost)
	}
	return fmt.Sprintf("%8.0f/s %8.1f µs", r.rate, r.cost)
}

// percentile returns a percentile, 0 to 100, of samples that it sorts.
func percentile(samples []time.Duration, percent int) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	slices.Sort(samples)
	return samples[min(len(samples)*percent/100, len(samples)-1)]
}
