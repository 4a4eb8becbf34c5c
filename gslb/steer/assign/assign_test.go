package assign

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/internal/cidr"
)

// spherical makes a problem with places on a sphere: pops of unequal size, and
// clients of very unequal demand that cluster around some of them. Ceilings are
// spare times what all demand comes to.
func spherical(seed uint64, pops, rows, clients int, spare float64) Problem {
	r := rand.New(rand.NewPCG(seed, 7))
	point := func() [3]float64 {
		x, y, z := r.NormFloat64(), r.NormFloat64(), r.NormFloat64()
		n := math.Sqrt(x*x + y*y + z*z)
		return [3]float64{x / n, y / n, z / n}
	}
	p := Problem{Target: 0.9, MoveCap: 1}
	at := make([][3]float64, pops)
	size, sum := make([]float64, pops), 0.0
	for j := range at {
		at[j], size[j] = point(), 0.5+r.Float64()
		sum += size[j]
	}
	for range rows {
		c := point()
		if r.IntN(2) == 0 { // half of all places are near the first tenth of PoPs
			c = at[r.IntN(1+pops/10)]
		}
		row := make([]int32, pops)
		for j := range row {
			dot := c[0]*at[j][0] + c[1]*at[j][1] + c[2]*at[j][2]
			row[j] = int32(1000 + 100000*math.Acos(max(-1, min(1, dot)))*(1+0.4*r.Float64()))
		}
		p.Rows = append(p.Rows, row)
	}
	total := 0.0
	for i := range clients {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 1<<24+uint32(i)<<8)
		c := Client{Prefix: cidr.From(netip.PrefixFrom(netip.AddrFrom4(b), 24)), Demand: math.Exp(2 * r.NormFloat64()), Row: int32(r.IntN(rows))}
		total += c.Demand
		p.Clients = append(p.Clients, c)
	}
	for j := range at {
		p.Pops = append(p.Pops, Pop{Name: fmt.Sprintf("p%02d", j), Ceiling: spare * total * size[j] / sum})
	}
	return p
}

func mustSolve(t testing.TB, p Problem, prev *Plan) *Plan {
	t.Helper()
	plan, err := Solve(p, prev)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// losses returns the losses of the plan of a problem, too.
func losses(t testing.TB, p Problem, limit int) (*Plan, []Loss) {
	t.Helper()
	var s Solver
	plan, err := s.Solve(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plan, s.Losses(limit)
}

func TestCeilingsHoldAndTheGapIsProven(t *testing.T) {
	for seed := range uint64(5) {
		p := spherical(seed, 20, 4000, 6000, 1.4)
		plan := mustSolve(t, p, nil)
		audit(t, p, plan)
		full := 0
		for _, l := range plan.Pops {
			if l.Utilization() > 0.9+1e-6 {
				t.Errorf("%s at %.3f of its ceiling, target 0.9", l.Name, l.Utilization())
			}
			if l.Price > 0 {
				full++
			}
		}
		if full < 2 {
			t.Errorf("%d PoPs are full; the problem does not test much", full)
		}
		if plan.Gap > time.Microsecond {
			t.Errorf("gap %v with a class for each row", plan.Gap)
		}
		if divided := len(plan.shares); divided > len(p.Pops) {
			t.Errorf("%d clients are divided among %d PoPs", divided, len(p.Pops))
		}

		p.Classes = 1000
		coarse := mustSolve(t, p, nil)
		audit(t, p, coarse)
		if coarse.Gap > plan.Cost/10 {
			t.Errorf("gap %v with 1000 classes for 4000 rows, cost %v", coarse.Gap, plan.Cost)
		}
		if above := coarse.Cost - plan.Cost; above < 0 || above > coarse.Gap {
			t.Errorf("cost is %v above the optimum, the gap says at most %v", above, coarse.Gap)
		}
	}
}

func TestOverloadIsSharedAlike(t *testing.T) {
	p := spherical(1, 10, 100, 1000, 0.8)
	plan, lost := losses(t, p, 5)
	audit(t, p, plan)
	for _, l := range plan.Pops {
		if math.Abs(l.Utilization()-1/0.8) > 1e-6 {
			t.Errorf("%s at %.3f of its ceiling, want all at %.3f", l.Name, l.Utilization(), 1/0.8)
		}
	}
	for _, l := range lost {
		if l.Verdict != Overload || l.Utilization < 1.25 {
			t.Errorf("without %s: %v, worst %.3f", l.Pop, l.Verdict, l.Utilization)
		}
	}
}

func TestSolvingAgainMovesNothing(t *testing.T) {
	p := spherical(2, 20, 300, 2000, 1.3)
	p.Hysteresis = 2 * time.Millisecond
	first := mustSolve(t, p, nil)
	again := mustSolve(t, p, first)
	if moved := again.Moved.Planned / total(p); moved > 1e-6 {
		t.Errorf("%.6f of demand moved although nothing changed", moved)
	}
	for i := range p.Clients {
		a, b := first.Fractions(i), again.Fractions(i)
		if !slices.EqualFunc(a, b, func(x, y Fraction) bool { return x.Pop == y.Pop && math.Abs(x.Share-y.Share) < 1e-6 }) {
			t.Fatalf("client %d had %v, has %v", i, a, b)
		}
	}
}

func total(p Problem) (sum float64) {
	for _, c := range p.Clients {
		sum += c.Demand
	}
	return sum
}

func TestGainBelowTheHysteresisMovesNobody(t *testing.T) {
	p := Problem{
		Pops:    []Pop{{Name: "a", Ceiling: 10}, {Name: "b", Ceiling: 10}},
		Rows:    [][]int32{{10_000, 12_000}},
		Clients: []Client{{cidr.MustParse("192.0.2.0/24"), 1, 0}},
		MoveCap: 1, Hysteresis: 3 * time.Millisecond,
	}
	plan := mustSolve(t, p, nil)
	for _, step := range []struct {
		costs []int32
		want  string
	}{
		{[]int32{12_000, 10_000}, "a"}, // gains 2 ms
		{[]int32{14_000, 10_000}, "b"}, // gains 4 ms
		{[]int32{8_000, 10_000}, "b"},
		{[]int32{10_000, Never}, "a"}, // forbidden is no matter of gain
	} {
		p.Rows = [][]int32{step.costs}
		plan = mustSolve(t, p, plan)
		if got := plan.Pops[plan.Fractions(0)[0].Pop].Name; got != step.want {
			t.Fatalf("costs %v: at %s, want %s", step.costs, got, step.want)
		}
	}
}

func TestMovesOfChoiceAreCapped(t *testing.T) {
	p := spherical(3, 10, 200, 4000, 2)
	plan := mustSolve(t, p, nil)
	// The map of costs turns round, so that everybody would rather be elsewhere.
	turned := p
	turned.Rows = nil
	for _, row := range p.Rows {
		row = slices.Clone(row)
		slices.Reverse(row)
		turned.Rows = append(turned.Rows, row)
	}
	turned.MoveCap = 0.1
	all, solves := total(p), 0
	for ; solves < 100; solves++ {
		next := mustSolve(t, turned, plan)
		audit(t, turned, next)
		if next.Moved.Planned > 0.1*all*1.001 {
			t.Fatalf("solve %d moved %.3f of demand", solves, next.Moved.Planned/all)
		}
		for _, l := range next.Pops {
			if l.Utilization() > 1 {
				t.Fatalf("solve %d: %s at %.3f", solves, l.Name, l.Utilization())
			}
		}
		if plan = next; testing.Verbose() {
			t.Log(next.Moved, next.Gap, next.Cost)
		}
		if next.Moved.Planned < 1e-4*all {
			break
		}
	}
	if solves < 8 || solves > 30 {
		t.Errorf("settled after %d solves of at most a tenth of demand each", solves)
	}
	// Held moves need room, so a remainder may never find the best place.
	if plan.Gap > plan.Cost/50 {
		t.Errorf("settled with a gap of %v, cost %v", plan.Gap, plan.Cost)
	}
}

func TestReliefAndLossAreNotCapped(t *testing.T) {
	p := spherical(4, 10, 200, 4000, 1.5)
	p.MoveCap = 0.001
	plan := mustSolve(t, p, nil)
	busiest := 0
	for j, l := range plan.Pops {
		if l.Demand > plan.Pops[busiest].Demand {
			busiest = j
		}
	}
	lost := plan.Pops[busiest].Demand
	out := p
	out.Pops = slices.Clone(p.Pops)
	out.Pops[busiest].Out = true
	next := mustSolve(t, out, plan)
	audit(t, out, next)
	if math.Abs(next.Moved.Lost-lost) > 1e-6*lost {
		t.Errorf("%v of demand had to leave, %v did", lost, next.Moved.Lost)
	}
	for _, l := range next.Pops {
		if l.Utilization() > 1+1e-6 {
			t.Errorf("%s at %.3f after a loss that the others can bear", l.Name, l.Utilization())
		}
	}
	// A PoP whose ceiling falls must be relieved at once, too.
	low := p
	low.Pops = slices.Clone(p.Pops)
	low.Pops[busiest].Ceiling = lost * 0.9
	next = mustSolve(t, low, plan)
	if u := next.Pops[busiest].Utilization(); u > 1+1e-6 {
		t.Errorf("at %.3f of a ceiling that fell", u)
	}
}

func TestPopsAndClientsComeAndGo(t *testing.T) {
	p := spherical(5, 8, 100, 500, 2)
	plan := mustSolve(t, p, nil)
	q := spherical(5, 8, 100, 600, 2)
	q.Clients = q.Clients[50:]
	slices.Reverse(q.Pops)
	for _, row := range q.Rows {
		slices.Reverse(row)
	}
	q.Pops[3].Name = "new"
	next := mustSolve(t, q, plan)
	audit(t, q, next)
	if next.Moved.Lost == 0 {
		t.Error("nobody left the PoP that is gone")
	}
}

func TestLossesAreBoundedAndAddUp(t *testing.T) {
	p := spherical(6, 12, 300, 3000, 1.5)
	plan, short := losses(t, p, 4)
	_, long := losses(t, p, 1<<20)
	for i, l := range short {
		if len(l.Routes) > 4 || len(l.Clients) > 4 {
			t.Fatalf("%d routes, %d clients listed", len(l.Routes), len(l.Clients))
		}
		if l.Displaced < plan.Pops[i].Demand*(1-1e-6) {
			t.Errorf("without %s: %v displaced, it had %v", l.Pop, l.Displaced, plan.Pops[i].Demand)
		}
		for _, full := range long[i : i+1] {
			sum, left := 0.0, 0.0
			for _, r := range full.Routes {
				sum += r.Demand
				if r.From == l.Pop {
					left += r.Demand
				}
			}
			if math.Abs(sum-l.Displaced) > 1e-6*sum || math.Abs(left-plan.Pops[i].Demand) > 1e-6*left {
				t.Errorf("without %s: routes carry %v of %v, %v of it from there", l.Pop, sum, l.Displaced, left)
			}
		}
	}
}

// What a Solver has solved before changes nothing but where its memory comes from.
func TestSolverForgets(t *testing.T) {
	var s Solver
	if s.Losses(1) != nil {
		t.Error("losses of no plan")
	}
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 9))
		p := spherical(seed, 2+r.IntN(20), 1+r.IntN(400), 1+r.IntN(1500), 0.9+r.Float64())
		p.Classes, p.Hysteresis = len(p.Pops)+r.IntN(200), time.Millisecond
		var fresh Solver
		var plans [2]*Plan
		for range 3 { // from nothing, then with hysteresis, then with a PoP out
			for i, solver := range []*Solver{&s, &fresh} {
				var err error
				if plans[i], err = solver.Solve(p, plans[i]); err != nil {
					t.Fatal(err)
				}
				audit(t, p, plans[i])
			}
			if !reflect.DeepEqual(plans[0], plans[1]) {
				t.Fatalf("seed %d: plans differ by what was solved before", seed)
			}
			if a, b := s.Losses(9), fresh.Losses(9); !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d: losses differ by what was solved before:\n%+v\n%+v", seed, a, b)
			}
			p.Pops = slices.Clone(p.Pops)
			p.Pops[r.IntN(len(p.Pops))].Out = true
			fresh = Solver{}
		}
	}
}

func TestMalformedProblems(t *testing.T) {
	good := func() Problem {
		return Problem{
			Pops:    []Pop{{Name: "a", Ceiling: 1}, {Name: "b", Ceiling: 1}},
			Rows:    [][]int32{{1, 2}},
			Clients: []Client{{cidr.MustParse("192.0.2.0/24"), 1, 0}},
		}
	}
	for _, test := range []struct {
		damage func(*Problem)
		want   string
	}{
		{func(p *Problem) { p.Pops = nil }, "pops: 0 of them"},
		{func(p *Problem) { p.Pops[1].Name = "a" }, `pops[1]: name "a"`},
		{func(p *Problem) { p.Pops[0].Ceiling = math.NaN() }, "pops[0]: NaN is not a ceiling"},
		{func(p *Problem) { p.Rows[0] = p.Rows[0][:1] }, "rows[0]: 1 costs for 2 pops"},
		{func(p *Problem) { p.Rows[0][1] = -1 }, "rows[0][1]: -1"},
		{func(p *Problem) { p.Clients[0].Row = 1 }, "there is no row 1"},
		{func(p *Problem) { p.Clients[0].Demand = -1 }, "-1 is not a demand"},
		{func(p *Problem) { p.Clients = append(p.Clients, p.Clients[0]) }, "clients[1]: prefix 192.0.2.0/24 is not above"},
		{func(p *Problem) { p.Clients[0].Prefix = cidr.MustParse("192.0.2.1/24") }, "canonical"},
		{func(p *Problem) { p.Target = 2 }, "target: 2"},
		{func(p *Problem) { p.MoveCap = math.NaN() }, "move cap: NaN"},
		{func(p *Problem) { p.Hysteresis = time.Hour }, "hysteresis: 1h"},
		{func(p *Problem) { p.Classes = 1 }, "classes: 1"},
	} {
		p := good()
		test.damage(&p)
		if _, err := Solve(p, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want one with %q", err, test.want)
		}
	}
	if _, err := Solve(good(), nil); err != nil {
		t.Error(err)
	}
}

func BenchmarkSolve(b *testing.B) {
	p := spherical(1, 50, 30000, 1_000_000, 1.4)
	p.MoveCap = DefaultMoveCap
	plan := mustSolve(b, p, nil)
	p.Hysteresis = 2 * time.Millisecond
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			mustSolve(b, p, nil)
		}
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			mustSolve(b, p, plan)
		}
	})
	b.Run("turns", func(b *testing.B) { // in one memory
		var s Solver
		for b.Loop() {
			if _, err := s.Solve(p, plan); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("losses", func(b *testing.B) {
		var s Solver
		if _, err := s.Solve(p, plan); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			s.Losses(100)
		}
	})
}
