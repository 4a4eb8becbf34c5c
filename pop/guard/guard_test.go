package guard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"anyedge/pop/headroom"
)

func usage(used float64) []headroom.Usage {
	return []headroom.Usage{{Resource: "connections", Used: used, Ceiling: 100}}
}

func node(pop string, serving bool, used float64) Node {
	return Node{Name: pop + "-1", Pop: pop, Healthy: serving, Serving: serving, Usage: usage(used)}
}

// standby is a node that serves as soon as another one of its PoP does not.
func standby(name string, used float64) Node {
	return Node{Name: name, Pop: name[:3], Healthy: true, Serving: true, Standby: true, Usage: usage(used)}
}

// fleetOf is a fleet of healthy PoPs of one node each, at 10 % of their ceilings.
func fleetOf(pops ...string) []Node {
	var nodes []Node
	for _, pop := range pops {
		nodes = append(nodes, node(pop, true, 10))
	}
	return nodes
}

func lease(pop string, out bool) Lease { return Lease{Node: pop + "-1", Pop: pop, Out: out} }

// recent is a lease that was asked for within the window, with a load.
func recent(pop string, out bool, used float64) Lease {
	return Lease{Node: pop + "-1", Pop: pop, Out: out, Recent: true, Usage: usage(used)}
}

var three = []string{"fra", "iad", "sin"}

func plan(fresh bool, utilization float64, holds bool) *Plan {
	return &Plan{By: "ns-1", Fresh: fresh, Worst: "iad", Utilization: utilization, Holds: holds}
}

func TestDecide(t *testing.T) {
	policy := Policy{MinPops: 1, MaxOut: 1, Share: 0.34, Window: 30 * time.Second}
	loose := Policy{MinPops: 2, MaxOut: 3, Share: 1, Window: 30 * time.Second}
	planned := recent("iad", true, 0)
	planned.Planned = true
	for _, tc := range []struct {
		name   string
		policy Policy
		req    Request
		want   Cause // empty: granted
	}{
		{"one of three", policy, Request{Recent: true, Usage: usage(10), Nodes: fleetOf(three...), Sick: []string{"fra"}, Known: three}, ""},
		{"another is out", policy, Request{Nodes: fleetOf(three...), Leases: []Lease{lease("iad", true)}}, TooManyOut},
		{"another wants to go", policy, Request{Nodes: fleetOf(three...), Leases: []Lease{lease("iad", false)}}, ""},
		{"the last one", policy, Request{Nodes: []Node{node("fra", true, 1), node("iad", false, 0)}, Known: three}, TooFewLeft},
		{"alone", policy, Request{Nodes: fleetOf("fra"), Known: three[:1]}, TooFewLeft},
		{"alone, allowed", Policy{MinPops: 0, MaxOut: 1, Share: 0.34}, Request{Nodes: fleetOf("fra"), Known: three[:1]}, ""},
		{"gone already, the record says so", policy, Request{Gone: true, Nodes: fleetOf("fra"), Leases: []Lease{lease("iad", true)}}, ""},

		{"who holds a lease serves no more, whatever its report says", loose,
			Request{Nodes: fleetOf(three...), Leases: []Lease{lease("iad", true)}}, TooFewLeft},
		{"who was refused one serves no more either", loose,
			Request{Nodes: fleetOf(three...), Leases: []Lease{lease("iad", false)}}, TooFewLeft},
		{"enough others", loose, Request{Nodes: fleetOf("fra", "iad", "sin", "gru"), Leases: []Lease{lease("iad", true)}}, ""},

		{"two of three at once", policy, Request{Recent: true, Nodes: fleetOf(three...), Sick: []string{"fra", "iad"}, Known: three}, SharedCause},
		{"the other's report is not here yet, its wish is", policy,
			Request{Recent: true, Nodes: fleetOf(three...), Leases: []Lease{recent("iad", false, 0)}, Known: three}, SharedCause},
		{"the other was long ago", policy,
			Request{Recent: true, Nodes: fleetOf(three...), Leases: []Lease{lease("iad", false)}, Known: three}, ""},
		{"the asking one was long ago", policy,
			Request{Nodes: fleetOf(three...), Leases: []Lease{recent("iad", false, 0)}, Known: three}, ""},
		{"planned work is no cause", policy,
			Request{Recent: true, Nodes: fleetOf("fra", "iad", "sin"), Leases: []Lease{planned}, Known: three}, TooManyOut},
		{"one of two is no shared cause", policy, Request{Recent: true, Nodes: fleetOf("fra", "iad"), Sick: []string{"fra"}, Known: three[:2]}, ""},
		{"frozen, and nothing got better", policy,
			Request{Nodes: fleetOf("fra", "gru"), Known: three, Freeze: &Freeze{Pops: []string{"iad", "sin"}, Known: 3}}, SharedCause},
		{"frozen, and one is healthy again", policy,
			Request{Nodes: fleetOf("fra", "gru", "iad"), Known: three, Freeze: &Freeze{Pops: []string{"iad", "sin"}, Known: 3}}, ""},
		{"frozen for planned work too", policy,
			Request{Planned: true, Nodes: fleetOf("fra", "gru"), Known: three, Freeze: &Freeze{Pops: []string{"iad", "sin"}, Known: 3}}, SharedCause},

		{"no room elsewhere", policy, Request{Usage: usage(80), Nodes: []Node{node("iad", true, 70), node("sin", true, 70)}}, NoHeadroom},
		{"room in sum", policy, Request{Usage: usage(80), Nodes: []Node{node("iad", true, 40), node("sin", true, 40)}}, ""},
		{"room taken by who left a moment ago", Policy{MinPops: 1, MaxOut: 2, Share: 1},
			Request{Usage: usage(80), Nodes: []Node{node("iad", true, 40), node("sin", true, 40)}, Leases: []Lease{recent("gru", true, 30)}}, NoHeadroom},
		{"room taken by who left long ago shows in reports", Policy{MinPops: 1, MaxOut: 2, Share: 1},
			Request{Usage: usage(80), Nodes: []Node{node("iad", true, 40), node("sin", true, 40)}, Leases: []Lease{{Node: "gru-1", Pop: "gru", Out: true, Usage: usage(30)}}}, ""},

		{"the plan holds", policy, Request{Usage: usage(10), Nodes: fleetOf(three...), Plan: plan(true, 0.85, true)}, ""},
		{"the plan overloads another", policy, Request{Usage: usage(10), Nodes: fleetOf(three...), Plan: plan(true, 1.1, false)}, PlanOverload},
		{"the plan fills another beyond the shed mark", policy, Request{Usage: usage(10), Nodes: fleetOf(three...), Plan: plan(true, 0.91, true)}, PlanOverload},
		{"the plan has no place for some", policy, Request{Usage: usage(10), Nodes: fleetOf(three...), Plan: plan(true, 0.5, false)}, PlanOverload},
		{"a plan that does not count", policy, Request{Usage: usage(10), Nodes: fleetOf(three...), Plan: plan(false, 1.1, false)}, ""},
		{"a plan that holds makes no room", policy,
			Request{Usage: usage(80), Nodes: []Node{node("iad", true, 70), node("sin", true, 70)}, Plan: plan(true, 0.5, true)}, NoHeadroom},
		{"a plan that holds lets no second one out", policy,
			Request{Nodes: fleetOf(three...), Leases: []Lease{lease("iad", true)}, Plan: plan(true, 0.5, true)}, TooManyOut},
		{"the plan is for the loss of the PoP, not of one node", policy, Request{Usage: usage(10),
			Nodes: []Node{{Name: "fra-2", Pop: "fra", Serving: true, Usage: usage(10)}}, Plan: plan(true, 2, false)}, ""},
		{"what is gone is gone, whatever the plan", policy, Request{Gone: true, Nodes: fleetOf(three...), Plan: plan(true, 2, false)}, ""},

		{"sibling takes over although another PoP is out", policy, Request{Usage: usage(10),
			Nodes: []Node{{Name: "fra-2", Pop: "fra", Serving: true, Usage: usage(10)}}, Leases: []Lease{lease("iad", true)}}, ""},
		{"sibling that holds a lease is none", policy, Request{Usage: usage(10),
			Nodes:  []Node{{Name: "fra-2", Pop: "fra", Serving: true, Usage: usage(10)}},
			Leases: []Lease{{Node: "fra-2", Pop: "fra", Out: true}, lease("iad", true)}}, TooManyOut},
		{"sibling without room", policy, Request{Usage: usage(60),
			Nodes: []Node{{Name: "fra-2", Pop: "fra", Serving: true, Usage: usage(60)}, node("iad", true, 0)}}, NoHeadroom},
		{"a Backup takes over although another PoP is out", policy, Request{Usage: usage(60),
			Nodes: []Node{standby("fra-2", 10)}, Leases: []Lease{lease("iad", true)}}, ""},
		{"one Backup takes over, not two", policy, Request{Usage: usage(60),
			Nodes: []Node{standby("fra-2", 0), standby("fra-3", 50)}}, NoHeadroom},
		{"a Backup goes: its load is none", policy, Request{
			Nodes: []Node{{Name: "fra-2", Pop: "fra", Serving: true, Usage: usage(95)}, standby("fra-3", 0)}}, ""},
		{"a Backup elsewhere is no room", policy, Request{Usage: usage(60),
			Nodes: []Node{node("iad", true, 50), standby("iad-2", 0)}}, NoHeadroom},
		{"a Backup elsewhere is a PoP that serves", loose, Request{
			Nodes: []Node{node("iad", true, 0), standby("sin-2", 0)}}, ""},
		{"a PoP of which one node went is not out", policy, Request{
			Nodes:  []Node{node("iad", true, 0), {Name: "iad-2", Pop: "iad", Healthy: true, Serving: true}},
			Leases: []Lease{lease("iad", true)}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.req.Node, tc.req.Pop = "fra-1", "fra"
			r := Decide(tc.policy, tc.req).Refusal
			switch {
			case tc.want == "" && r != nil:
				t.Errorf("refused: %v", r)
			case tc.want != "" && r == nil:
				t.Errorf("granted, want %s", tc.want)
			case tc.want != "" && (r.Cause != tc.want || r.Detail == ""):
				t.Errorf("refused for %s (%q), want %s", r.Cause, r.Detail, tc.want)
			}
		})
	}
}

// A freeze is recorded once, grows with the sickness, outlives the window and
// ends with the evidence of health.
func TestFreeze(t *testing.T) {
	policy := Policy{MinPops: 1, MaxOut: 3, Share: 0.34, Window: 30 * time.Second}
	known := []string{"fra", "gru", "iad", "nrt", "sin"}
	ask := func(f *Freeze, req Request) Ruling {
		req.Node, req.Pop, req.Known, req.Freeze = "fra-1", "fra", known, f
		return Decide(policy, req)
	}
	first := ask(nil, Request{Recent: true, Nodes: fleetOf("nrt", "sin"), Sick: []string{"gru"}})
	if f := first.Freeze; f == nil || !slices.Equal(f.Pops, []string{"fra", "gru"}) || f.Known != 5 || first.Refusal == nil {
		t.Fatalf("%+v", first)
	}
	if again := ask(first.Freeze, Request{Recent: true, Nodes: fleetOf("nrt", "sin"), Sick: []string{"gru"}}); again.Freeze != first.Freeze {
		t.Errorf("nothing changed, but %+v is recorded anew", again.Freeze)
	}
	more := ask(first.Freeze, Request{Recent: true, Nodes: fleetOf("nrt"), Sick: []string{"sin"}})
	if f := more.Freeze; f == nil || !slices.Equal(f.Pops, []string{"fra", "gru", "sin"}) {
		t.Errorf("%+v", more.Freeze)
	}
	if later := ask(first.Freeze, Request{Nodes: fleetOf("nrt", "sin")}); later.Freeze != first.Freeze || later.Refusal == nil {
		t.Errorf("after the window: %+v", later)
	}
	if gone := ask(first.Freeze, Request{Gone: true, Nodes: fleetOf("nrt", "sin")}); gone.Freeze != first.Freeze || gone.Refusal != nil {
		t.Errorf("a node that is gone: %+v", gone)
	}
	wants := []Lease{lease("gru", false)}
	if sick := ask(first.Freeze, Request{Nodes: fleetOf("nrt", "sin", "gru"), Leases: wants}); sick.Freeze == nil {
		t.Error("ended by an old report of a node that wants to go")
	}
	if policy.Over(first.Freeze, fleetOf("nrt", "sin"), nil) {
		t.Error("over because nobody is heard of")
	}
	if !policy.Over(first.Freeze, fleetOf("gru"), nil) {
		t.Error("not over although one of two PoPs is healthy again")
	}
}

// Whatever the fleet looks like, a grant never leaves fewer serving PoPs than
// the policy asks for, never lets more PoPs out, and never is given in a freeze.
func TestGrantsKeepTheFleetServing(t *testing.T) {
	granted := 0
	for seed := range uint64(5000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		policy := Policy{MinPops: 1 + rng.IntN(3), MaxOut: 1 + rng.IntN(3), Share: rng.Float64(), Window: time.Minute}
		req := Request{Node: "pop0-0", Pop: "pop0", Recent: rng.IntN(2) == 0}
		serving, out := make(map[string]bool), make(map[string]bool)
		sibling := false
		for p := range 1 + rng.IntN(8) {
			pop := fmt.Sprint("pop", p)
			req.Known = append(req.Known, pop)
			if rng.IntN(8) == 0 {
				req.Sick = append(req.Sick, pop)
			}
			for n := range 1 + rng.IntN(3) {
				name, serves, leaves := fmt.Sprint(pop, "-", n), rng.IntN(3) > 0, rng.IntN(6) == 0
				req.Nodes = append(req.Nodes, Node{Name: name, Pop: pop, Healthy: serves, Serving: serves, Usage: usage(50 * rng.Float64())})
				if name == req.Node {
					continue
				}
				if leaves {
					req.Leases = append(req.Leases, Lease{Node: name, Pop: pop, Out: rng.IntN(2) == 0, Recent: rng.IntN(2) == 0})
					out[pop] = out[pop] || req.Leases[len(req.Leases)-1].Out
				}
				serving[pop] = serving[pop] || serves && !leaves
			}
		}
		sibling = serving["pop0"]
		r := Decide(policy, req)
		if r.Refusal != nil || sibling {
			continue
		}
		granted++
		left, gone := 0, 0
		for _, pop := range req.Known[1:] {
			if serving[pop] {
				left++
			} else if out[pop] {
				gone++
			}
		}
		if left < policy.MinPops || gone >= policy.MaxOut || r.Freeze != nil {
			t.Fatalf("seed %d: granted with %d others serving (min %d) and %d out (max %d), freeze %v",
				seed, left, policy.MinPops, gone, policy.MaxOut, r.Freeze)
		}
	}
	if granted < 500 {
		t.Errorf("only %d grants: that proves little", granted)
	}
}

func TestTracker(t *testing.T) {
	var tr Tracker
	t0 := time.Unix(1000, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	check := func(s, wantSick, wantKnown int) {
		t.Helper()
		if sick, known := tr.Pops(at(s), 30*time.Second); len(sick) != wantSick || len(known) != wantKnown {
			t.Errorf("at %ds: %v of %v sick, want %d of %d", s, sick, known, wantSick, wantKnown)
		}
	}
	tr.Observe(at(0), map[string]bool{"fra": true, "iad": true, "sin": false})
	check(0, 0, 3) // never seen healthy is not "turned unhealthy"
	tr.Observe(at(10), map[string]bool{"fra": false, "iad": true, "sin": true})
	check(10, 1, 3)
	tr.Observe(at(20), map[string]bool{"fra": false, "sin": true}) // iad is gone
	check(20, 2, 3)
	check(45, 1, 3) // fra's turn is out of the window
	tr.Observe(at(46), map[string]bool{"fra": true, "iad": true, "sin": true})
	check(46, 0, 3)
	tr.Observe(at(50), map[string]bool{"fra": true, "sin": true})
	tr.Observe(at(46+3601), map[string]bool{"fra": true, "sin": true})
	check(46+3601, 0, 2) // long gone: no longer part of the fleet
}

// The figures are those of the rule that was asked: what left other PoPs is
// nothing to the nodes that take over inside one.
func TestFiguresAreOfTheLoadThatMoves(t *testing.T) {
	r := Request{
		Node: "fra-1", Pop: "fra", Usage: usage(30), Nodes: fleetOf("fra", "iad", "sin"),
		Leases: []Lease{recent("lhr", true, 7)},
	}
	policy := Policy{MaxOut: 2, Share: 1}
	if got := Decide(policy, r).Figures.Load["connections"]; got != 37 {
		t.Errorf("a PoP goes out: %v", got)
	}
	sibling := node("fra", true, 10)
	sibling.Name = "fra-2"
	r.Nodes = append(r.Nodes, sibling)
	if got := Decide(policy, r).Figures.Load["connections"]; got != 30 {
		t.Errorf("a node goes out: %v", got)
	}
}
