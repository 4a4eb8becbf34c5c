package assign

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"anyedge/internal/cidr"
)

// exact solves a small problem with whole demands and ceilings the slow and
// obvious way: a graph with a source, the clients, the PoPs and a sink, and
// augmentations of one unit along the cheapest path, found by Bellman and Ford's
// algorithm. It returns the least cost, and false if not all demand fits.
func exact(p Problem) (cost int64, ok bool) {
	type edge struct{ to, room, cost, back int }
	clients, pops := len(p.Clients), len(p.Pops)
	graph := make([][]edge, 2+clients+pops)
	link := func(a, b, room, cost int) {
		graph[a] = append(graph[a], edge{b, room, cost, len(graph[b])})
		graph[b] = append(graph[b], edge{a, 0, -cost, len(graph[a]) - 1})
	}
	demand := 0
	for i, c := range p.Clients {
		demand += int(c.Demand)
		link(0, 2+i, int(c.Demand), 0)
		for j, cost := range p.Rows[c.Row] {
			if cost != Never && !p.Pops[j].Out {
				link(2+i, 2+clients+j, int(c.Demand), int(cost))
			}
		}
	}
	for j, pop := range p.Pops {
		link(2+clients+j, 1, int(pop.Ceiling), 0)
	}
	for range demand {
		distance := make([]int, len(graph))
		type step struct{ node, edge int }
		by := make([]step, len(graph))
		for i := range distance {
			distance[i] = math.MaxInt / 2
		}
		distance[0] = 0
		for again := true; again; {
			again = false
			for a := range graph {
				for k, e := range graph[a] {
					if e.room > 0 && distance[a]+e.cost < distance[e.to] {
						distance[e.to], by[e.to], again = distance[a]+e.cost, step{a, k}, true
					}
				}
			}
		}
		if distance[1] >= math.MaxInt/4 {
			return 0, false
		}
		cost += int64(distance[1])
		for at := 1; at != 0; at = by[at].node {
			e := &graph[by[at].node][by[at].edge]
			e.room--
			graph[at][e.back].room++
		}
	}
	return cost, true
}

// small makes a random problem for the oracle.
func small(r *rand.Rand) Problem {
	p := Problem{Target: 1, MoveCap: 1}
	for j := range 2 + r.IntN(4) {
		p.Pops = append(p.Pops, Pop{Name: string(rune('a' + j)), Ceiling: float64(r.IntN(25)), Out: r.IntN(8) == 0})
	}
	for range 1 + r.IntN(8) {
		row := make([]int32, len(p.Pops))
		for j := range row {
			row[j] = int32(r.IntN(20)) * 1000
			if r.IntN(8) == 0 {
				row[j] = Never
			}
		}
		p.Rows = append(p.Rows, row)
	}
	for i := range 1 + r.IntN(12) {
		p.Clients = append(p.Clients, Client{
			Prefix: cidr.From(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)),
			Demand: float64(r.IntN(8)), Row: int32(r.IntN(len(p.Rows))),
		})
	}
	return p
}

func TestCostIsThatOfAnExactSolver(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	feasible := 0
	var solver Solver // for all of them
	for range 3000 {
		p := small(r)
		want, ok := exact(p)
		if !ok {
			continue
		}
		feasible++
		plan, err := solver.Solve(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		audit(t, p, plan)
		total := 0.0
		for _, c := range p.Clients {
			total += c.Demand
		}
		if total == 0 {
			continue
		}
		wantMean := time.Duration(float64(want) / total * 1000)
		if d := plan.Cost - wantMean; d.Abs() > time.Microsecond {
			t.Fatalf("mean cost %v, exact solver %v\n%+v", plan.Cost, wantMean, p)
		}
		if plan.Gap > time.Microsecond {
			t.Fatalf("the optimum has a gap of %v", plan.Gap)
		}
		if plan.Level > 1+1e-9 {
			t.Fatalf("level %v for a problem that fits", plan.Level)
		}
		// The loss of each PoP is the same problem with it out.
		for _, l := range solver.Losses(100) {
			without := p
			without.Pops = append([]Pop(nil), p.Pops...)
			for j := range without.Pops {
				if without.Pops[j].Name == l.Pop {
					without.Pops[j].Out = true
				}
			}
			least, fits := exact(without)
			if fits != (l.Verdict != Overload) {
				t.Fatalf("without %s: %v, exact solver fits: %v\n%+v", l.Pop, l.Verdict, fits, p)
			}
			if got := float64(plan.Cost.Nanoseconds())/1000 + l.AddedCost; fits && math.Abs(got-float64(least)/total) > 2 {
				t.Fatalf("without %s: mean cost %v µs, exact solver %v", l.Pop, got, float64(least)/total)
			}
		}
	}
	if feasible < 500 {
		t.Fatalf("only %d of the problems could be solved", feasible)
	}
}

// audit checks what every plan must be, by its public face alone.
func audit(t *testing.T, p Problem, plan *Plan) {
	t.Helper()
	if plan.Len() != len(p.Clients) || len(plan.Pops) != len(p.Pops) {
		t.Fatalf("%d clients and %d pops in the plan", plan.Len(), len(plan.Pops))
	}
	load := make([]float64, len(p.Pops))
	i, unplaced := 0, 0.0
	for prefix, fractions := range plan.All() {
		c := p.Clients[i]
		if prefix != c.Prefix {
			t.Fatalf("client %d is %v, want %v", i, prefix, c.Prefix)
		}
		i++
		sum := 0.0
		for _, f := range fractions {
			if f.Share <= 0 || p.Pops[f.Pop].Out || p.Rows[c.Row][f.Pop] == Never {
				t.Fatalf("%v has %+v of pop %+v", prefix, f, p.Pops[f.Pop])
			}
			sum += f.Share
			load[f.Pop] += f.Share * c.Demand
		}
		switch {
		case fractions == nil:
			unplaced += c.Demand
			for j, cost := range p.Rows[c.Row] {
				if cost != Never && !p.Pops[j].Out {
					t.Fatalf("%v has no pop, and may have %s", prefix, p.Pops[j].Name)
				}
			}
		case math.Abs(sum-1) > 1e-9:
			t.Fatalf("%v has shares of %v together", prefix, sum)
		}
	}
	const rounding = 1e-6
	if math.Abs(unplaced-plan.Unplaced) > rounding*(1+unplaced) {
		t.Errorf("unplaced %v, plan says %v", unplaced, plan.Unplaced)
	}
	for j := range load {
		if math.Abs(load[j]-plan.Pops[j].Demand) > rounding*(1+load[j]) {
			t.Errorf("pop %s carries %v, plan says %v", p.Pops[j].Name, load[j], plan.Pops[j].Demand)
		}
	}
}
