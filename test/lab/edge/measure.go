package edge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"anyedge/pop"
	"anyedge/test/lab/topology"
	"anyedge/test/lab/watch"
)

// Failover is one event, and when who noticed. A time is zero when that did not
// happen, or not within the time given.
type Failover struct {
	// At is when the event happened.
	At time.Time
	// Decided is when the node's agent wanted the route less attractive or gone.
	Decided time.Time
	// Update is when the first UPDATE that says so was on the node's cable: a
	// withdrawal, or an announcement that replaces the one before.
	Update time.Time
	// Gone is when the kernel of the PoP's router no longer had the node as a
	// next hop of the service prefix.
	Gone time.Time
	// LastPacket is the last that a client sent to the old PoP after the event.
	LastPacket time.Time
	// Served is the end of the first request that another PoP served.
	Served time.Time
	// Results are the requests from the event on.
	Results Results
}

// String is the times in milliseconds after the event.
func (f Failover) String() string {
	since := func(at time.Time) string {
		if at.IsZero() {
			return "-"
		}
		return fmt.Sprintf("%.1f", float64(at.Sub(f.At).Microseconds())/1000)
	}
	return fmt.Sprintf("decided %s, update %s, gone %s, last packet %s, served elsewhere %s, last failing began %.1f ms; %s",
		since(f.Decided), since(f.Update), since(f.Gone), since(f.LastPacket), since(f.Served),
		float64(f.Results.Recovery(f.At).Microseconds())/1000, f.Results)
}

// Drill is how to measure a failover: what happens, to a node that is alone in
// its PoP, and which client looks on.
type Drill struct {
	Node   string
	Client string
	V6     bool
	Rate   int // new connections a second
	// Event plays what happens, and says when it did.
	Event func(context.Context) (time.Time, error)
	// Settle is how long to look on after the client is served elsewhere.
	Settle time.Duration
	// Limit bounds the wait for that.
	Limit time.Duration
}

// lead is how long the client sends before the event.
const lead = 500 * time.Millisecond

// Measure plays a drill. The error says that something could not be measured; a
// client that nobody serves is a result.
func (l *Lab) Measure(ctx context.Context, d Drill) (f Failover, err error) {
	node := l.Plan.Machine(d.Node)
	if node == nil || node.Role != topology.Node || len(l.Plan.Of(topology.Node, node.Pop)) != 1 {
		return f, fmt.Errorf("%s is no node that is alone in its PoP", d.Node)
	}
	router := l.Plan.Router(node.Pop)
	service := netip.AddrPortFrom(l.Plan.ServiceAddress(d.V6), topology.PortHTTPS)
	prefix := l.Plan.Prefix(d.V6)
	fib, err := watch.OpenFIB(l.Space(router.Name))
	if err != nil {
		return f, err
	}
	wire, err := watch.OpenWire(l.Space(router.Name), router.Uplink().Interface)
	if err != nil {
		return f, err
	}
	flows, err := watch.OpenFlows(l.Space(router.Name), l.Plan.Pop(node.Pop).Core, service)
	if err != nil {
		return f, err
	}
	load := l.NewLoad(d.Client, d.V6, d.Rate, 5*time.Second)
	decided := decision{lab: l, node: d.Node}

	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, run := range []func(context.Context) error{fib.Run, wire.Run, flows.Run, decided.run, load.Run} {
		wg.Go(func() {
			if e := run(running); e != nil {
				mu.Lock()
				defer mu.Unlock()
				err = errors.Join(err, e)
			}
		})
	}
	f, e := l.drill(ctx, d, node.Pop)
	stop()
	wg.Wait()
	if err = errors.Join(err, e); err != nil {
		return f, err
	}

	f.Results = load.Results().After(f.At)
	f.Served, _ = f.Results.FirstServed(func(a Answer) bool { return a.Pop != node.Pop })
	f.Decided = decided.at
	own, hop := node.Address(false), node.Address(d.V6)
	for _, m := range wire.Messages.All() {
		if f.Update.IsZero() && m.At.After(f.At) && m.From == own && (m.Withdraws(prefix) || m.Announces(prefix)) {
			f.Update = m.At
		}
	}
	for _, c := range fib.Changes.All() {
		if f.Gone.IsZero() && c.At.After(f.At) && c.Prefix == prefix && !slices.Contains(c.NextHops, hop) {
			f.Gone = c.At
		}
	}
	for _, p := range flows.Packets.All() {
		if p.At.After(f.At) {
			f.LastPacket = p.At
		}
	}
	return f, nil
}

// drill plays the event and waits until the client is served by another PoP, or
// the limit.
func (l *Lab) drill(ctx context.Context, d Drill, old string) (f Failover, err error) {
	if err := pause(ctx, lead); err != nil {
		return f, err
	}
	if f.At, err = d.Event(ctx); err != nil {
		return f, fmt.Errorf("play the event: %w", err)
	}
	var others []string
	for _, p := range l.Plan.Pops {
		if p.Name != old {
			others = append(others, p.Name)
		}
	}
	if _, err := l.AwaitServed(ctx, d.Client, d.V6, d.Limit, others...); err != nil && ctx.Err() != nil {
		return f, err
	}
	return f, pause(ctx, d.Settle)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// decision asks a node's agent when it stopped to announce as before.
type decision struct {
	lab  *Lab
	node string
	at   time.Time
}

func (d *decision) run(ctx context.Context) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		// An agent that does not answer has decided nothing that can be known.
		s, err := d.lab.Status(ctx, d.node)
		if err == nil && s.Announcement.State != pop.Announced {
			d.at = s.Announcement.Since
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
