package vrrp

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"anyedge/test/lab/netns"
)

// Event is a failure of the first node.
type Event string

// The events.
const (
	Hang     Event = "worker hangs"    // the worker is stopped; the agent lives
	Kill     Event = "agent SIGKILL"   // or keepalived, with all its processes
	Drain    Event = "drain"           // by an operator
	PowerOff Event = "host power-off"  // from one instant to the next
	Stop     Event = "stopped by TERM" // as by a service manager
)

// Events lists what can be played on a node that runs d.
func Events(d Daemon) []Event {
	if d == Keepalived {
		return []Event{Kill, PowerOff, Stop}
	}
	return []Event{Hang, Kill, Drain, PowerOff, Stop}
}

// Takeover is what clients saw of one event over one family.
type Takeover struct {
	// Served is from the event to the end of the first request that the second
	// node served.
	Served time.Duration
	// Gap is the longest time in which no request was served.
	Gap time.Duration
	// Failed counts requests that failed.
	Failed int
}

const (
	// enough requests in a row show that a node serves.
	enough = 10
	// settle is how long the client is watched on afterwards.
	settle = 300 * time.Millisecond
)

// Play plays an event, undoes it when the second node serves the client, and
// returns when all is well again. Both families are measured at the same time.
func (l *LAN) Play(ctx context.Context, e Event) (map[Family]Takeover, error) {
	if !slices.Contains(Events(l.options.First), e) {
		return nil, fmt.Errorf("%s cannot be played on %s", e, l.options.First)
	}
	seen, err := l.watch(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	if err := l.undo(ctx, e); err != nil {
		return nil, fmt.Errorf("undo %s: %w", e, err)
	}
	return seen, l.Settled(ctx)
}

// watch plays an event while the client sends.
func (l *LAN) watch(ctx context.Context, e Event) (map[Family]Takeover, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sending, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	loads := make(map[Family]*load)
	begin := time.Now()
	for _, f := range Families() {
		loads[f] = newLoad(f)
		wg.Go(func() { loads[f].run(sending) })
	}
	for _, load := range loads {
		if _, err := load.served(ctx, first, begin, enough); err != nil {
			return nil, err
		}
	}
	at, err := l.play(ctx, e)
	if err != nil {
		return nil, err
	}
	seen := make(map[Family]Takeover)
	for f, load := range loads {
		served, err := load.served(ctx, second, at, enough)
		if err != nil {
			return nil, err
		}
		seen[f] = Takeover{Served: served.Sub(at)}
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	stop()
	wg.Wait()
	for f, load := range loads {
		t := seen[f]
		t.Gap, t.Failed = load.gap(at)
		seen[f] = t
	}
	return seen, nil
}

func (l *LAN) play(ctx context.Context, e Event) (time.Time, error) {
	switch e {
	case Hang:
		return l.signal(first, "proxy", syscall.SIGSTOP)
	case Kill:
		return l.signal(first, "pop", syscall.SIGKILL)
	case Stop:
		return l.signal(first, "pop", syscall.SIGTERM)
	case Drain:
		at := time.Now()
		_, err := space(first).Run(ctx, l.options.Binary, "drain")
		return at, err
	}
	at := time.Now()
	if err := space(first).IP(ctx, "link set dev eth0 down"); err != nil {
		return at, err
	}
	return at, netns.Kill(ctx, space(first))
}

func (l *LAN) undo(ctx context.Context, e Event) error {
	switch e {
	case Hang: // the agent has put another worker in its place
		return nil
	case Drain:
		_, err := space(first).Run(ctx, l.options.Binary, "undrain")
		return err
	case PowerOff:
		if err := space(first).IP(ctx, "link set dev eth0 up"); err != nil {
			return err
		}
	}
	return l.start(ctx, first)
}
