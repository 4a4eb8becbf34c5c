package guard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"anyedge/pop/headroom"
)

func usage(used float64) []headroom.Usage {
	return []headroom.Usage{{Resource: "connections", Used: used, Ceiling: 100}}
}

func node(pop string, serving bool, used float64) Node {
	return Node{Name: pop + "-1", Pop: pop, Serving: serving, Usage: usage(used)}
}

func TestDecide(t *testing.T) {
	policy := Policy{MinPops: 1, MaxOut: 1, Share: 0.34, Window: 30 * time.Second}
	three := []Node{node("fra", true, 10), node("iad", true, 10), node("sin", true, 10)}
	for _, tc := range []struct {
		name   string
		policy Policy
		req    Request
		want   Cause // empty: granted
	}{
		{"one of three", policy, Request{Node: "fra-1", Pop: "fra", Usage: usage(10), Nodes: three, Sick: 1, Known: 3}, ""},
		{"another is out", policy, Request{Node: "fra-1", Pop: "fra", Nodes: three, Out: []string{"iad"}, Known: 3}, TooManyOut},
		{"asking again while out", policy, Request{Node: "fra-1", Pop: "fra", Nodes: three, Out: []string{"fra"}, Known: 3}, ""},
		{"the last one", policy, Request{Node: "sin-1", Pop: "sin", Nodes: []Node{node("fra", false, 0), node("sin", true, 1)}, Known: 3}, TooFewLeft},
		{"alone", policy, Request{Node: "fra-1", Pop: "fra", Nodes: three[:1], Known: 1}, TooFewLeft},
		{"alone, allowed", Policy{MinPops: 0, MaxOut: 1, Share: 0.34}, Request{Node: "fra-1", Pop: "fra", Nodes: three[:1], Known: 1}, ""},
		{"two of three at once", policy, Request{Node: "fra-1", Pop: "fra", Nodes: three[1:], Sick: 2, Known: 3}, SharedCause},
		{"one of two is no shared cause", policy, Request{Node: "fra-1", Pop: "fra", Nodes: three[:2], Sick: 1, Known: 2}, ""},
		{"no room elsewhere", policy, Request{Node: "fra-1", Pop: "fra", Usage: usage(80),
			Nodes: []Node{node("iad", true, 70), node("sin", true, 70)}, Known: 3}, NoHeadroom},
		{"room in sum", policy, Request{Node: "fra-1", Pop: "fra", Usage: usage(80),
			Nodes: []Node{node("iad", true, 40), node("sin", true, 40)}, Known: 3}, ""},
		{"sibling takes over although another PoP is out", policy, Request{Node: "fra-1", Pop: "fra", Usage: usage(10),
			Nodes: []Node{{Name: "fra-2", Pop: "fra", Serving: true, Usage: usage(10)}}, Out: []string{"iad"}, Known: 2}, ""},
		{"sibling without room", policy, Request{Node: "fra-1", Pop: "fra", Usage: usage(60),
			Nodes: []Node{{Name: "fra-2", Pop: "fra", Serving: true, Usage: usage(60)}, node("iad", true, 0)}, Known: 2}, NoHeadroom},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Decide(tc.policy, tc.req)
			var r *Refusal
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.want != "" && !errors.As(err, &r):
				t.Errorf("granted, want %s", tc.want)
			case tc.want != "" && (r.Cause != tc.want || r.Detail == ""):
				t.Errorf("refused for %s (%q), want %s", r.Cause, r.Detail, tc.want)
			}
		})
	}
}

// Whatever the fleet looks like, a grant never leaves fewer serving PoPs than
// the policy asks for, and never lets more PoPs out.
func TestGrantsKeepTheFleetServing(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		policy := Policy{MinPops: 1 + rng.IntN(3), MaxOut: 1 + rng.IntN(3), Share: rng.Float64(), Window: time.Minute}
		var req Request
		others := make(map[string]bool)
		pops := 1 + rng.IntN(8)
		for p := range pops {
			pop := fmt.Sprint("pop", p)
			for n := range 1 + rng.IntN(3) {
				serving := rng.IntN(3) > 0
				req.Nodes = append(req.Nodes, Node{Name: fmt.Sprint(pop, "-", n), Pop: pop, Serving: serving, Usage: usage(50 * rng.Float64())})
				if serving && p > 0 {
					others[pop] = true
				}
			}
			if rng.IntN(6) == 0 {
				req.Out = append(req.Out, pop)
			}
		}
		req.Node, req.Pop, req.Known, req.Sick = "pop0-0", "pop0", pops, rng.IntN(pops+1)
		sibling := false
		for _, n := range req.Nodes {
			sibling = sibling || n.Pop == "pop0" && n.Name != req.Node && n.Serving
		}
		if Decide(policy, req) != nil || sibling {
			continue
		}
		out := 0
		for _, p := range req.Out {
			if p != "pop0" {
				out++
			}
		}
		if len(others) < policy.MinPops || out >= policy.MaxOut {
			t.Fatalf("seed %d: granted with %d others serving (min %d) and %d out (max %d)",
				seed, len(others), policy.MinPops, out, policy.MaxOut)
		}
	}
}

func TestTracker(t *testing.T) {
	var tr Tracker
	t0 := time.Unix(1000, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	check := func(s, wantSick, wantKnown int) {
		t.Helper()
		if sick, known := tr.Sick(at(s), 30*time.Second); sick != wantSick || known != wantKnown {
			t.Errorf("at %ds: %d of %d sick, want %d of %d", s, sick, known, wantSick, wantKnown)
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
