package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"anyedge/internal/health"
	"anyedge/pop"
	"anyedge/test/lab/topology"
	"anyedge/test/lab/watch"
)

// Drill is how to measure a failover: what happens, to a node that is alone in
// its PoP, and which client looks on.
type Drill struct {
	Node   string
	Client string
	V6     bool
	// Rate is how many requests the client sends a second over new
	// connections, and KeptRate how many it sends beside that over Kept
	// connections that it keeps.
	Rate, Kept, KeptRate int
	// Repeat has the client repeat what broke: see [Load.Repeat].
	Repeat bool
	// Timeout bounds each request. Default 5s.
	Timeout time.Duration
	// Event plays what happens, and says when it did.
	Event func(context.Context) (time.Time, error)
	// Until says, of what was seen so far, whether there is nothing more to
	// wait for. Default: that a request was served elsewhere.
	Until func(Failover) bool
	// Settle is how long to look on after that.
	Settle time.Duration
	// Limit bounds the wait for it.
	Limit time.Duration
}

// lead is how long the client sends before the event.
const lead = 300 * time.Millisecond

// look is the pause between two looks at what was seen so far.
const look = 100 * time.Millisecond

// Measure plays a drill. The error says that something could not be measured; a
// client that nobody serves is a result.
func (l *Lab) Measure(ctx context.Context, d Drill) (f Failover, err error) {
	m, err := l.newMeasurement(d)
	if err != nil {
		return f, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	witnesses := []func(context.Context) error{m.fib.Run, m.core.Run, m.wire.Run, m.flows.Run, m.agent.run, m.load.Run}
	if d.Kept > 0 {
		witnesses = append(witnesses, m.kept.Run)
	}
	for _, run := range witnesses {
		wg.Go(func() {
			if e := run(running); e != nil {
				mu.Lock()
				defer mu.Unlock()
				err = errors.Join(err, e)
			}
		})
	}
	at, e := m.play(ctx, d)
	stop()
	wg.Wait()
	return m.seen(at), errors.Join(err, e)
}

// measurement is the witnesses of a drill.
type measurement struct {
	node      *topology.Machine
	prefix    netip.Prefix
	hop       netip.Addr
	fib, core *watch.FIB // of the PoP's router, and of the client's
	wire      *watch.Wire
	flows     *watch.Flows
	agent     *witness
	load      *Load
	kept      *Load
}

func (l *Lab) newMeasurement(d Drill) (*measurement, error) {
	node := l.Plan.Machine(d.Node)
	if node == nil || node.Role != topology.Node || len(l.Plan.Of(topology.Node, node.Pop)) != 1 {
		return nil, fmt.Errorf("%s is no node that is alone in its PoP", d.Node)
	}
	core, err := l.core(d.Client)
	if err != nil {
		return nil, err
	}
	router := l.Plan.Router(node.Pop)
	service := netip.AddrPortFrom(l.Plan.ServiceAddress(d.V6), topology.PortHTTPS)
	timeout := cmp.Or(d.Timeout, 5*time.Second)
	m := &measurement{
		node: node, prefix: l.Plan.Prefix(d.V6), hop: node.Address(d.V6),
		agent: &witness{lab: l, node: d.Node},
		load:  l.NewLoad(d.Client, d.V6, d.Rate, timeout),
		kept:  l.NewLoad(d.Client, d.V6, d.KeptRate, timeout),
	}
	m.load.Repeat, m.kept.Repeat, m.kept.Connections = d.Repeat, d.Repeat, d.Kept
	space := l.Space(router.Name)
	if m.fib, err = watch.OpenFIB(space); err != nil {
		return nil, err
	}
	if m.core, err = watch.OpenFIB(l.Space(core.Name)); err == nil {
		m.wire, err = watch.OpenWire(space, router.Uplink().Interface)
	}
	if err == nil {
		m.flows, err = watch.OpenFlows(space, l.Plan.Pop(node.Pop).Core, service)
	}
	return m, err
}

// play plays the event and waits until there is nothing more to wait for, or
// the limit.
func (m *measurement) play(ctx context.Context, d Drill) (at time.Time, err error) {
	if err := pause(ctx, lead); err != nil {
		return at, err
	}
	if at, err = d.Event(ctx); err != nil {
		return at, fmt.Errorf("play the event: %w", err)
	}
	until := d.Until
	if until == nil {
		until = func(f Failover) bool { return !f.Served.IsZero() }
	}
	for !until(m.seen(at)) && time.Since(at) < d.Limit {
		if err := pause(ctx, look); err != nil {
			return at, err
		}
	}
	return at, pause(ctx, d.Settle)
}

// seen puts together what all have noted since the event.
func (m *measurement) seen(at time.Time) Failover {
	f := Failover{At: at}
	f.read(m.load.Results(), m.kept.Results(), m.node.Pop)
	f.Verdict, f.Decided, f.Why = m.agent.said()
	own := m.node.Address(false)
	for _, w := range m.wire.Messages.All() {
		if f.Update.IsZero() && w.At.After(at) && w.From == own && (w.Withdraws(m.prefix) || w.Announces(m.prefix)) {
			f.Update = w.At
		}
	}
	for _, c := range m.fib.Changes.All() {
		if c.At.Before(at) || c.Prefix != m.prefix {
			continue
		}
		switch there := slices.Contains(c.NextHops, m.hop); {
		case f.Gone.IsZero() && !there:
			f.Gone = c.At
		case !f.Gone.IsZero() && f.Back.IsZero() && there:
			f.Back = c.At
		}
	}
	for _, c := range m.core.Changes.All() {
		if c.At.After(at) && c.Prefix == m.prefix {
			f.Turned = append(f.Turned, c.At)
		}
	}
	for _, p := range m.flows.Packets.All() {
		if p.At.After(at) {
			f.LastPacket = p.At
		}
	}
	return f
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// witness asks a node's agent when it found itself unhealthy, and when it
// stopped to announce as before.
type witness struct {
	lab  *Lab
	node string

	mu               sync.Mutex
	verdict, decided time.Time
	why              string
}

func (w *witness) run(ctx context.Context) error {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		// An agent that does not answer has decided nothing that can be known.
		if s, err := w.lab.Status(ctx, w.node); err == nil {
			w.hear(s)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *witness) hear(s pop.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.verdict.IsZero() && s.Health.State == health.Unhealthy {
		w.verdict = s.Health.Since
	}
	if w.decided.IsZero() && s.Announcement.State != pop.Announced {
		w.decided, w.why = s.Announcement.Since, s.Announcement.Reason
	}
}

func (w *witness) said() (verdict, decided time.Time, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.verdict, w.decided, w.why
}
