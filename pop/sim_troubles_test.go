package pop

import (
	"errors"
	"slices"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/pop/guard"
)

// pickTroubles returns the kinds of trouble that a fleet has. Some fleets have
// only those of which everybody is told, so that what is checked there is exact;
// network says whether nodes lose the store.
func (f *simFleet) pickTroubles() (troubles []func(), network bool) {
	any := func() *simNode { return f.nodes[f.rng.IntN(len(f.nodes))] }
	told := []func(){
		func() { f.breaks(any()) },
		func() { f.breaks(any()) },
		f.breakTogether,
		func() { f.drainFor(any(), f.upTo(time.Minute)) },
		f.drainTogether,
		func() { f.override(any(), f.upTo(time.Minute)) },
		func() { f.override(any(), f.upTo(time.Minute)) },
		f.overrideTogether,
	}
	load := func() {
		n := any()
		n.ceiling, n.demand = 40+100*f.rng.Float64(), 10+60*f.rng.Float64()
		f.changes = append(f.changes, f.now)
	}
	remote := func() {
		n := any()
		n.remote = !n.remote
		n.step()
	}
	dies := func() { f.restart(any(), time.Second+f.upTo(30*time.Second)) }
	cut := func() { f.cut(f.upTo(40*time.Second), any()) }
	cutMany := func() {
		share := f.rng.Float64()
		f.cut(f.upTo(40*time.Second), f.sample(share)...)
	}
	gone := func() {
		f.store.gone = true
		f.after(f.upTo(30*time.Second), func() { f.store.gone = false })
	}
	switch f.rng.IntN(4) {
	case 0:
		return told, false
	case 1:
		return append(told, load, remote), false
	case 2:
		return append(told, dies, dies, remote), false
	}
	return append(told, load, remote, dies, dies, cut, cut, cutMany, gone), true
}

// sample returns about such a share of the nodes.
func (f *simFleet) sample(share float64) []*simNode {
	var some []*simNode
	for _, n := range f.nodes {
		if f.rng.Float64() < share {
			some = append(some, n)
		}
	}
	return some
}

// breaks makes a node unfit to serve, and fit again after a while.
func (f *simFleet) breaks(n *simNode) {
	if !n.alive || n.verdict == health.Unhealthy {
		return
	}
	n.verdict = health.Unhealthy
	n.step()
	life := n.life
	f.after(time.Second+f.upTo(time.Minute), func() {
		if n.alive && n.life == life {
			n.verdict = health.Healthy
			n.step()
		}
	})
}

// breakTogether breaks a share of the fleet within a few seconds.
func (f *simFleet) breakTogether() {
	within := f.upTo(5 * time.Second)
	for _, n := range f.sample(f.rng.Float64()) {
		f.after(f.upTo(within), func() { f.breaks(n) })
	}
}

func (f *simFleet) drainFor(n *simNode, d time.Duration) {
	f.drains[n.name] = true
	n.step()
	f.after(d, func() { delete(f.drains, n.name); n.step() })
}

// override is an operator who overrules a node for a while, seldom by force.
func (f *simFleet) override(n *simNode, d time.Duration) {
	actions := []string{fleet.ActionAnnounce, fleet.ActionDepreference, fleet.ActionWithdraw}
	o := fleet.Override{
		Scope: fleet.ScopeNode, Name: n.name, Action: actions[f.rng.IntN(3)], Force: f.oneIn(4),
		By: "test", Reason: "test", At: f.now, Until: f.now.Add(d),
	}
	f.orders[n.name] = o
	n.step()
	f.after(d, n.step) // it has ended by the clock
}

// overrideTogether is an operator who overrules a region.
func (f *simFleet) overrideTogether() {
	d := f.upTo(time.Minute)
	for _, n := range f.sample(f.rng.Float64() / 2) {
		f.override(n, d)
	}
}

// drainTogether is an operator who drains a region.
func (f *simFleet) drainTogether() {
	d := f.upTo(time.Minute)
	for _, n := range f.sample(f.rng.Float64() / 2) {
		f.drainFor(n, d)
	}
}

// restart has an agent die and another take its place.
func (f *simFleet) restart(n *simNode, after time.Duration) {
	if !n.alive {
		return
	}
	n.die()
	f.after(after, func() { f.revive(n) })
}

func (f *simFleet) revive(n *simNode) {
	if n.alive {
		return
	}
	f.changes = append(f.changes, f.now)
	n.start(health.Unknown)
	life := n.life
	f.after(simRecovery, func() {
		if n.alive && n.life == life && n.verdict == health.Unknown {
			n.verdict = health.Healthy
			n.step()
		}
	})
}

// cut takes the network between nodes and the store away for a while.
func (f *simFleet) cut(d time.Duration, nodes ...*simNode) {
	for _, n := range nodes {
		n.cutOff = true
	}
	f.after(d, func() {
		for _, n := range nodes {
			n.cutOff = false
		}
	})
}

// heal ends all troubles. What was planned to end by itself later does no harm.
func (f *simFleet) heal() {
	f.store.gone, f.store.flaky = false, false
	clear(f.drains)
	clear(f.orders)
	for _, n := range f.nodes {
		n.cutOff, n.remote = false, false
		if !n.alive {
			f.revive(n)
		} else {
			n.verdict = health.Healthy
		}
	}
	for _, n := range f.nodes {
		n.step()
	}
}

// count notes an answer of the store.
func (f *simFleet) count(err error) {
	var refusal *guard.Refusal
	if errors.As(err, &refusal) {
		f.tally["refused "+string(refusal.Cause)]++
	}
}

// within reports whether one of the times is no longer ago than d.
func (f *simFleet) within(times []time.Time, d time.Duration) bool {
	return slices.ContainsFunc(times, func(at time.Time) bool { return f.now.Sub(at) <= d })
}
