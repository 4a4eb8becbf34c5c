package pop

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/health"
)

var (
	simSeeds = flag.Uint64("fleet-seeds", 0, "how many fleets to simulate; 0: a few hundred, fewer with -short")
	simSeed  = flag.Int64("fleet-seed", -1, "the `seed` of one fleet to simulate and to tell about")
)

// belief is how long after the truth has changed a node may still act on an
// older report: its age, what a slow reader adds, and the look around.
const belief = simTTL + 4*time.Second + 2*simReports

// Whatever happens to a fleet, in whatever order, what DESIGN calls invariants
// one to four holds at every change of a route:
//
//   - only a node that cannot serve, or that an operator drains or overrides,
//     withdraws, and only force does so without a lease;
//   - what cannot serve is announced by force only, but for what was refused;
//   - never are more than max_out PoPs out by lease, as the document has it;
//   - whoever goes by lease leaves min_pops others that serve, or did when they
//     were last heard of, and room for all clients;
//   - nobody goes by lease while the fleet is frozen, and never do more PoPs go
//     for failures within the window than the share allows;
//   - without the store only a node that cannot serve goes;
//   - a plan of who goes where, right or wrong, lets nobody go who could not go
//     without it, and one that is stale holds nobody back.
//
// And a fleet whose troubles have ended is announced as a whole soon, with
// nothing left on record.
func TestFleetUnderRandomFailures(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 40
	}
	if *simSeeds > 0 {
		seeds = *simSeeds
	}
	first, last := uint64(0), seeds
	if *simSeed >= 0 {
		first, last = uint64(*simSeed), uint64(*simSeed)+1
	}
	sealer, err := fleet.ParseKeys([]byte(sealingKey))
	if err != nil {
		t.Fatal(err)
	}
	reached := make(map[string]int)
	for seed := first; seed < last; seed++ {
		rng := rand.New(rand.NewPCG(seed, 4))
		pops := 2 + rng.IntN(9)
		if seed%40 == 0 {
			pops = 50
		}
		f := newSimFleet(rng, pops, sealer)
		if *simSeed >= 0 {
			f.tell = t.Logf
		}
		f.live()
		for what, times := range f.tally {
			reached[what] += times
		}
		if len(f.problems) > 0 {
			t.Fatalf("seed %d, %d PoPs:\n%s\n%s", seed, pops, strings.Join(f.problems[:min(len(f.problems), 10)], "\n"), f)
		}
	}
	t.Logf("seeds %d to %d: %v", first, last-1, reached)
	if *simSeed >= 0 {
		return
	}
	for _, what := range []string{
		"granted", "went without the store", "drained", "frozen",
		"override to announce", "override to depreference", "override to withdraw", "forced out", "forced up",
		"refused shared_cause", "refused too_many_out", "refused too_few_left", "refused no_headroom", "refused plan_overload",
		"plan fresh", "plan stale", "no plan",
	} {
		if reached[what] < int(seeds)/10 {
			t.Errorf("%s: %d times in %d fleets: the walks prove little", what, reached[what], seeds)
		}
	}
}

// live is the life of a fleet: peace, troubles, and peace again.
func (f *simFleet) live() {
	f.store.flaky = !f.oneIn(4)
	f.runUntil(f.now.Add(10 * time.Second))
	f.plans.pick(f.rng)
	troubles, network := f.pickTroubles()
	f.reliable = !network && !f.store.flaky
	for end := f.now.Add(40*time.Second + f.upTo(40*time.Second)); f.now.Before(end) && len(f.problems) == 0; {
		troubles[f.rng.IntN(len(troubles))]()
		f.runUntil(f.now.Add(f.upTo(5 * time.Second)))
	}
	f.heal()
	well := "not looked at"
	for end := f.now.Add(3 * time.Minute); well != "" && f.now.Before(end); well = f.unwell() {
		f.runUntil(f.now.Add(time.Second))
	}
	if well != "" {
		f.fail("troubles have ended, but %s", well)
	}
	for _, c := range slices.Clone(f.store.open) {
		c.abandon()
	}
}

// unwell says what is left of troubles, empty when nothing is.
func (f *simFleet) unwell() string {
	for _, n := range f.nodes {
		if n.onWire != Announced {
			return fmt.Sprintf("%s is %s: %s", n.name, n.onWire, n.route.reason)
		}
	}
	if l := f.leases(); len(l.Holders)+len(l.Waiting) > 0 || l.Freeze != nil {
		return fmt.Sprintf("on record are %+v", l)
	}
	return ""
}

// changed checks a route that has just changed.
func (f *simFleet) changed(n *simNode, view *fleet.View) {
	f.tell("%8.2fs %s %s: %s", f.age(), n.name, n.onWire, n.route.reason)
	order, overridden := f.orders[n.name], n.route.rule == RuleOverride
	forced := overridden && order.Force
	if overridden {
		f.tally["override to "+order.Action]++
	}
	if n.onWire == Announced && n.verdict == health.Unhealthy && !forced {
		f.fail("%s announced itself while it could not serve", n.name)
	}
	if n.onWire == Announced && forced && n.verdict == health.Unhealthy {
		f.tally["forced up"]++
	}
	if n.onWire != Withdrawn {
		if n.route.lease.answer.permission != refused { // nobody was told where the load goes
			f.changes = append(f.changes, f.now)
		}
		return
	}
	drained := n.route.drain.stage != DrainNone && n.route.drain.stage != DrainDeprefer
	if overridden && order.Action != fleet.ActionWithdraw {
		f.fail("%s withdrew by an override to %s", n.name, order.Action)
	}
	if forced {
		f.tally["forced out"]++
		n.quit()
		n.byLease = false
		return
	}
	if n.verdict != health.Unhealthy && !drained && !overridden {
		f.fail("%s withdrew while %s and drain %s", n.name, n.verdict, n.route.drain.stage)
	}
	if n.route.lease.answer.permission != granted {
		f.tally["went without the store"]++
		switch {
		case f.reliable:
			f.fail("%s withdrew without a lease from a store that always answers: %s", n.name, n.route.reason)
		case n.verdict != health.Unhealthy:
			f.fail("%s withdrew without a lease while it could serve", n.name)
		case view.Connected && n.route.lease.answer.permission == refused:
			f.fail("%s withdrew although it was refused", n.name)
		case view.Leases.Freeze != nil:
			f.fail("%s withdrew without a lease from a fleet that it knew to be frozen", n.name)
		}
		n.quit()
		n.byLease = false
		return
	}
	n.byLease, n.failed = true, !drained && !overridden
	f.tally["granted"]++
	if drained {
		f.tally["drained"]++
	}
	f.problems = append(f.problems, n.doubts...)
	f.checkShare(n)
}

// doubts returns what is wrong with a lease that was just written: whoever goes
// by lease has to leave enough behind.
func (f *simFleet) doubts(n *simNode, doc fleet.Leases) (doubts []string) {
	listed := make(map[string]bool)
	for _, h := range slices.Concat(doc.Holders, doc.Waiting) {
		listed[h.Node] = true
	}
	remain := make(map[string]bool)
	room, need := 0.0, 0.0
	for _, o := range f.nodes {
		need += o.demand
		if o != n && !listed[o.name] && !o.served.IsZero() && f.now.Sub(o.served) <= belief {
			remain[o.pop] = true
			room += 0.9 * o.ceiling
		}
	}
	if remain[n.pop] {
		return nil // its PoP goes on
	}
	if f.plans.refuses(f.now, n.pop) && !n.connected.IsZero() && f.now.Sub(n.connected) > belief {
		doubts = append(doubts, fmt.Sprintf("%s went by lease against a plan that everybody knows", n.name))
	}
	if len(remain) < f.policy.MinPops {
		doubts = append(doubts, fmt.Sprintf("%s went by lease and left %d PoPs, min_pops is %d", n.name, len(remain), f.policy.MinPops))
	}
	// De-preferred before, its load has moved already.
	if n.onWire == Announced && !f.within(f.changes, 2*belief) && len(remain) > 0 && need > room*1.001 {
		doubts = append(doubts, fmt.Sprintf("%s went by lease and left room for %.0f, clients need %.0f", n.name, room, need))
	}
	return doubts
}

// checkShare checks that failures that go together are not followed for long.
func (f *simFleet) checkShare(n *simNode) {
	if n.verdict != health.Unhealthy {
		return
	}
	sick := make(map[string]bool)
	for _, o := range f.nodes {
		if o.alive && o.failed && o.verdict == health.Unhealthy && f.now.Sub(o.route.since) < f.policy.Window-2*simReports {
			sick[o.pop] = true
		}
	}
	for _, o := range f.nodes {
		if !o.alive || !o.byLease || !o.failed || o.onWire != Withdrawn || o.verdict == health.Healthy {
			// Its PoP goes on, or did not ask, or is out on purpose.
			delete(sick, o.pop)
		}
	}
	if len(sick) > 1 && float64(len(sick)) > f.policy.Share*float64(f.pops()) {
		f.fail("%d of %d PoPs went within the window, the share is %.0f%%", len(sick), f.pops(), 100*f.policy.Share)
	}
}

// checkThaw checks that a freeze ends only when its PoPs are healthy again.
func (f *simFleet) checkThaw(freeze fleet.Freeze) {
	sick := len(freeze.Pops)
	for _, pop := range freeze.Pops {
		if slices.ContainsFunc(f.nodes, func(n *simNode) bool { return n.pop == pop && !n.fit.IsZero() && f.now.Sub(n.fit) <= belief }) {
			sick--
		}
	}
	if sick > 1 && float64(sick) > f.policy.Share*float64(freeze.Known) {
		f.fail("thawed while %d of %d PoPs are sick: %+v", sick, freeze.Known, freeze)
	}
}

// leasesWritten checks every new state of the document of leases.
func (f *simFleet) leasesWritten(before, after fleet.Entry) {
	if after.Key != "state/leases" || after.Value == nil {
		return
	}
	old, now := f.decode(before), f.decode(after)
	f.tell("%8.2fs on record: %s", f.age(), after.Value)
	switch {
	case now.Freeze != nil && old.Freeze == nil:
		f.tally["frozen"]++
	case now.Freeze == nil && old.Freeze != nil:
		f.checkThaw(*old.Freeze)
	}
	// A PoP is out by lease when all its nodes may go, whether they have yet or
	// not. Those that went without asking are nobody's grant.
	granted := make(map[string]bool)
	for _, l := range f.leases().Holders {
		granted[l.Node] = !l.Gone
	}
	stays := make(map[string]bool)
	for _, n := range f.nodes {
		if !granted[n.name] {
			stays[n.pop] = true
		}
	}
	out := f.pops() - len(stays)
	if out > f.policy.MaxOut {
		f.fail("%d PoPs are out by lease, max_out is %d", out, f.policy.MaxOut)
	}
	for _, l := range now.Holders {
		isNew := !slices.ContainsFunc(old.Holders, func(o fleet.Lease) bool { return o.Node == l.Node && o.Session == l.Session && o.At.Equal(l.At) })
		if isNew && !l.Gone {
			n := f.nodes[slices.IndexFunc(f.nodes, func(n *simNode) bool { return n.name == l.Node })]
			n.doubts = f.doubts(n, f.leases())
		}
		if isNew && !l.Gone && now.Freeze != nil && !stays[l.Pop] {
			f.fail("%s got a lease from a frozen fleet", l.Node)
		}
	}
}

func (f *simFleet) pops() int {
	pops := make(map[string]bool)
	for _, n := range f.nodes {
		pops[n.pop] = true
	}
	return len(pops)
}
