package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"anyedge/test/lab/edge"
	"anyedge/test/lab/topology"
)

// event is something that happens to the node, and what must come of it.
type event struct {
	name, title string
	play        func(context.Context, *edge.Lab) (time.Time, error)
	// undo takes it back; nil: it passes by itself.
	undo func(context.Context, *edge.Lab) error
	// stays: the next event begins with what this one leaves.
	stays bool
	// hold: there is no BFD, only the hold time tells. Such events are played in
	// labs of their own.
	hold bool
	// passive: nothing is expected to happen, so the other lab need not wait.
	passive bool
	// alone: it is measured in milliseconds, while the other lab is calm.
	alone bool
	// busy has the client send, beside the usual, so many requests over kept
	// connections that it comes to 500 a second, and repeat what broke.
	busy bool
	// until says whether there is no more to see; nil: the client has moved.
	until func(edge.Failover) bool
	// holds says what is wrong with a run, or nil.
	holds func(edge.Failover) error
	bars  []bar
}

// settled is how long a client must have been served elsewhere without a
// failure to count as moved.
const settled = 300 * time.Millisecond

// requestTimeout bounds a request of the client, and so the wait for those that
// are lost.
const requestTimeout = 1500 * time.Millisecond

func (e event) drill(l *edge.Lab) edge.Drill {
	d := edge.Drill{
		Node: node, Client: client, Rate: 100, Timeout: requestTimeout,
		Event: func(ctx context.Context) (time.Time, error) { return e.play(ctx, l) },
		Until: e.until, Limit: 10 * time.Second,
	}
	if e.busy {
		d.Repeat, d.Kept, d.KeptRate, d.Timeout = true, 20, 400, 5*time.Second
	}
	if d.Until == nil {
		d.Until = func(f edge.Failover) bool { return f.Standing(f.Moved, settled) }
	}
	return d
}

// events are the rows of the table.
var events = []event{
	{
		name: "verdict", title: "health verdict: requests through the service address fail",
		play:  func(ctx context.Context, l *edge.Lab) (time.Time, error) { return l.Refuse(ctx, node, false) },
		undo:  func(ctx context.Context, l *edge.Lab) error { return l.Admit(ctx, node) },
		alone: true, holds: withdrawn, bars: []bar{updateSoon},
	},
	{
		name: "hang", title: "worker hangs",
		play:  func(_ context.Context, l *edge.Lab) (time.Time, error) { return l.HangWorker(node) },
		alone: true, holds: withdrawn, bars: []bar{updateSoon},
	},
	{
		name: "kill-agent", title: "agent SIGKILL",
		play: func(_ context.Context, l *edge.Lab) (time.Time, error) { return l.KillAgent(node) },
		undo: startAgain, holds: moved, bars: []bar{movedWithin(time.Second)},
	},
	{
		name: "power-off", title: "host power-off, BFD 3 × 50 ms",
		play: powerOff, undo: powerOn, holds: moved, bars: []bar{movedWithin(time.Second)},
	},
	{
		name: "lose-from", title: "silent loss of what the node sends, BFD",
		play: func(ctx context.Context, l *edge.Lab) (time.Time, error) { return l.Lose(ctx, nodeEnd(l)) },
		undo: func(ctx context.Context, l *edge.Lab) error { return l.Mend(ctx, nodeEnd(l)) }, holds: moved,
	},
	{
		name: "lose-to", title: "silent loss of what the node is sent, BFD",
		play: func(ctx context.Context, l *edge.Lab) (time.Time, error) { return l.Lose(ctx, switchEnd(l)) },
		undo: func(ctx context.Context, l *edge.Lab) error { return l.Mend(ctx, switchEnd(l)) }, holds: moved,
	},
	{
		name: "drain", title: "drain, 500 requests/s",
		play: func(ctx context.Context, l *edge.Lab) (time.Time, error) { return l.Drain(ctx, node) },
		undo: func(ctx context.Context, l *edge.Lab) error {
			_, err := l.Undrain(ctx, node)
			return err
		},
		busy: true,
		// Past the withdrawal the lab's drain waits for a second and asks clients to go.
		until: func(f edge.Failover) bool {
			return f.Standing(f.Moved, settled) && f.Standing(f.Gone, 1500*time.Millisecond)
		},
		holds: drained, bars: []bar{noneFailed},
	},
	{
		name: "consul-stops", title: "Consul stopped for 3 s",
		play:  func(_ context.Context, l *edge.Lab) (time.Time, error) { return l.StopConsul() },
		stays: true, passive: true,
		// Longer than a report of a node counts in the lab.
		until: func(f edge.Failover) bool { return time.Since(f.At) >= 3*time.Second }, holds: untouched,
	},
	{
		name: "consul-continues", title: "and continued",
		play:    func(_ context.Context, l *edge.Lab) (time.Time, error) { return l.ContinueConsul() },
		passive: true,
		until:   func(f edge.Failover) bool { return time.Since(f.At) >= time.Second }, holds: untouched,
	},
	{
		name: "flap", title: "upstream session flap",
		play:  func(ctx context.Context, l *edge.Lab) (time.Time, error) { return l.FlapSession(ctx, node) },
		until: func(f edge.Failover) bool { return !f.Back.IsZero() && f.Standing(f.Returned, settled) }, holds: returned,
	},
	{
		name: "power-off-hold", title: "host power-off, no BFD, hold time 3 s",
		play: powerOff, undo: powerOn, hold: true, holds: moved,
	},
}

func powerOff(ctx context.Context, l *edge.Lab) (time.Time, error) { return l.PowerOff(ctx, node) }

func powerOn(ctx context.Context, l *edge.Lab) error { return l.PowerOn(ctx, node) }

func nodeEnd(l *edge.Lab) topology.End { return l.Plan.Machine(node).Uplink() }

func switchEnd(l *edge.Lab) topology.End {
	end, _ := l.Plan.Peer(nodeEnd(l))
	return end
}

// startAgain starts a node whose agent is gone; its worker goes when it has
// drained.
func startAgain(ctx context.Context, l *edge.Lab) error {
	return l.Eventually(ctx, node+" starts again", calmLimit, func(context.Context) error { return l.Start(node) })
}

// moved: the route went, and the client with it.
func moved(f edge.Failover) error {
	var errs []error
	if f.Gone.IsZero() {
		errs = append(errs, errors.New("the route stayed"))
	}
	if f.Moved.IsZero() {
		errs = append(errs, errors.New("the client was not served elsewhere"))
	}
	return errors.Join(errs...)
}

// withdrawn: moved, because the agent said so.
func withdrawn(f edge.Failover) error {
	if f.Verdict.IsZero() || f.Update.IsZero() {
		return errors.Join(moved(f), fmt.Errorf("no verdict, or no UPDATE: %q", f.Why))
	}
	return moved(f)
}

// drained: moved, and the client saw nothing of it but its connections break
// while the path changed.
func drained(f edge.Failover) error {
	if n := len(f.CutOff()); n > 0 {
		return errors.Join(moved(f), fmt.Errorf("%d connections broke while no path changed, the first: %w", n, f.CutOff()[0].Broken))
	}
	return moved(f)
}

// untouched: nothing was said, no route changed, no request failed.
func untouched(f edge.Failover) error {
	switch {
	case !f.Update.IsZero():
		return errors.New("an UPDATE was sent")
	case !f.Gone.IsZero() || len(f.Turned) > 0:
		return errors.New("a route changed")
	case len(f.Results.Failed()) > 0:
		return fmt.Errorf("requests failed: %s", f.Results)
	}
	return nil
}

// returned: the route went and came back, and the client with it.
func returned(f edge.Failover) error {
	if f.Gone.IsZero() || f.Back.IsZero() || f.Returned.IsZero() {
		return errors.New("the route did not go, or did not come back")
	}
	return nil
}
