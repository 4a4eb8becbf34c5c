package pop

import (
	"context"
	"slices"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
)

// simNode is a node of the fleet.
type simNode struct {
	sim    *simFleet
	reader *simReader
	name   string
	pop    string

	// The truth.
	alive   bool
	cutOff  bool
	verdict health.State
	remote  bool         // an origin pool of it is down
	onWire  Announcement // what its neighbors have
	byLease bool         // it last went with one
	failed  bool         // and that for a failure
	doubts  []string     // about its newest lease
	fit     time.Time    // when it last could serve
	served  time.Time    // when it last was announced and healthy
	demand  float64      // of clients who are nearest to it
	ceiling float64

	// The agent.
	route     route
	census    census
	session   fleet.Session
	left      fleet.Session // what an earlier life left behind
	connected time.Time     // since when
	lost      time.Time     // since when not
	without   time.Time     // when it last found the store out of reach
	reported  Announcement
	calls     []*simCall
	life      int // of how many
	sequence  uint64
	reports   *fleet.Report // as the store has it

	reportedBy fleet.Session // the session that reports is bound to
}

// start begins a life of the agent.
func (n *simNode) start(v health.State) {
	f := n.sim
	n.alive, n.verdict, n.onWire, n.reported = true, v, Withdrawn, ""
	n.connected, n.lost = time.Time{}, f.now
	n.left, n.session = n.session, ""
	n.life++
	n.census = census{node: configs.Node{Name: n.name, Pop: n.pop}, policy: f.policy, ttl: simTTL, leases: make(map[leaseID]time.Time)}
	n.route = route{announced: Withdrawn, since: f.now, lease: newLease(n)}
	n.route.lease.spawn = func(call func()) {
		n.spawn(call, func() { n.step() })
	}
	n.look(n.life)
}

func (n *simNode) spawn(call, done func()) {
	var c *simCall
	ended := false
	c = n.sim.store.spawn(n.reaches, call, func() {
		ended = true
		n.calls = slices.DeleteFunc(n.calls, func(o *simCall) bool { return o == c })
		done()
	})
	if !ended {
		n.calls = append(n.calls, c)
	}
}

// reaches reports whether the node can reach the store.
func (n *simNode) reaches() bool { return !n.cutOff }

// die ends the life of the agent: its neighbors drop the route.
func (n *simNode) die() {
	n.alive, n.onWire = false, Withdrawn
	for _, c := range n.calls {
		c.abandon()
	}
	n.calls = nil
	n.quit()
}

// quit notes that the node went, or may have gone, without being asked for.
func (n *simNode) quit() {
	n.sim.changes = append(n.sim.changes, n.sim.now)
}

// look is the node's regular look around, as long as it lives.
func (n *simNode) look(life int) {
	f := n.sim
	if !n.alive || n.life != life {
		return
	}
	reached := n.reaches() && !f.store.gone
	switch {
	case !reached:
		if !n.connected.IsZero() {
			n.connected, n.lost = time.Time{}, f.now
		}
		n.without = f.now
	case n.connected.IsZero() && n.reader.read.After(n.without):
		n.connected = f.now
	}
	if reached {
		if n.left != "" {
			f.end(n.left)
			n.left = ""
		}
		if f.store.sessions[n.session].IsZero() {
			n.session = f.store.newSession(n.name)
		}
		f.store.sessions[n.session] = f.now.Add(sessionTTL)
		view := n.view()
		if n.census.thawed(f.now, view) {
			frozen := *view.Leases.Freeze
			n.spawn(func() { _ = f.fleet.Thaw(context.Background(), frozen) }, func() {})
		}
	}
	n.step()
	n.report()
	f.after(simReports, func() { n.look(life) })
}

// view is what the node sees.
func (n *simNode) view() *fleet.View {
	v := *n.reader.view
	v.Connected, v.ConnectedSince, v.LostSince = !n.connected.IsZero(), n.connected, n.lost
	if n.sim.drains[n.name] {
		v.Drains = []fleet.Drain{{Scope: fleet.ScopeNode, Name: n.name}}
	}
	if o, ok := n.sim.orders[n.name]; ok {
		v.Overrides = []fleet.Override{o}
	}
	return &v
}

// report writes the node's report, which takes a moment.
func (n *simNode) report() {
	f := n.sim
	if !n.reaches() || f.store.gone {
		return
	}
	n.sequence++
	n.reported = n.route.announced
	r := &fleet.Report{
		Node: n.name, Pop: n.pop, State: n.verdict.String(), Announcement: string(n.reported),
		Draining: n.route.drain.stage != DrainNone && n.route.drain.stage != "",
		Usage:    []fleet.Usage{{Resource: "connections", Used: f.load(n), Ceiling: n.ceiling}}, Sequence: n.sequence,
	}
	session := n.session
	f.after(f.upTo(100*time.Millisecond), func() {
		if !f.store.sessions[session].IsZero() && (n.reports == nil || n.reports.Sequence < r.Sequence) {
			n.reports, n.reportedBy = r, session
		}
	})
}

// step has the node decide, and its neighbors hear of it.
func (n *simNode) step() {
	f := n.sim
	if !n.alive {
		return
	}
	select {
	case a := <-n.route.lease.answers:
		n.route.lease.take(a)
	default:
	}
	view := n.view()
	n.census.observe(f.now, view)
	var facts facts
	facts.verdict, facts.why, facts.serves, facts.pace = n.verdict, "test", n.verdict == health.Healthy, simPace
	if n.remote {
		facts.remote = "pool"
	}
	facts.fleet = fleetView{
		connected: view.Connected, frozen: view.Leases.Freeze != nil, orders: view.Orders(n.name, n.pop, "", f.now), session: n.session,
		listed: slices.ContainsFunc(slices.Concat(view.Leases.Holders, view.Leases.Waiting), func(l fleet.Lease) bool { return l.Node == n.name }),
	}
	ctx := context.Background()
	d := n.route.step(ctx, f.now, facts)
	if n.route.follow(f.now, d, nil) {
		n.onWire = d.want
		f.changed(n, view)
	}
	if n.verdict == health.Healthy {
		n.fit = f.now
		if n.onWire == Announced {
			n.served = f.now
		}
	}
	n.route.settle(ctx, f.now, facts.fleet.listed)
	if n.reported != n.route.announced {
		n.report()
	}
}

// acquire implements [leaser].
func (n *simNode) acquire(ctx context.Context, p plea) error {
	f, l := n.sim, n.lease(p)
	err := f.fleet.AcquireLease(ctx, n.session, l, func(_ *fleet.View, others fleet.Leases) fleet.Ruling {
		view := n.view()
		ruling, _ := n.census.rule(f.now, view, others, p, usage(l.Usage))
		f.checkPlan(n, view, ruling, func(unplanned *fleet.View) fleet.Ruling {
			ruling, _ := n.census.rule(f.now, unplanned, others, p, usage(l.Usage))
			return ruling
		})
		return ruling
	})
	f.count(err)
	return err
}

// update implements [leaser].
func (n *simNode) update(ctx context.Context, p plea) error {
	return n.sim.fleet.UpdateLease(ctx, n.session, n.lease(p))
}

func (n *simNode) lease(p plea) fleet.Lease {
	return fleet.Lease{
		Node: n.name, Pop: n.pop, Reason: p.reason, At: n.sim.now, Planned: p.planned, Gone: p.gone,
		Usage: []fleet.Usage{{Resource: "connections", Used: n.sim.load(n), Ceiling: n.ceiling}},
	}
}

// release implements [leaser].
func (n *simNode) release(ctx context.Context) error { return n.sim.fleet.ReleaseLease(ctx, n.name) }
