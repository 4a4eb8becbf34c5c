package assign

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// loop plays a Shedder against clients: their demand is no longer that of the
// plan, they follow answers over one TTL, and reports are late and noisy.
type loop struct {
	demand []float64 // the true one
	delay  int       // of reports, in TTLs
	noise  float64
}

// run returns for each TTL the utilization of all PoPs and the share of demand
// that the answers moved.
func (l loop) run(t *testing.T, p Problem, plan *Plan, low, high float64, steps int) (load [][]float64, moved []float64) {
	const ttl = time.Minute
	s, err := NewShedder(plan, low, high, ttl)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	total := 0.0
	for _, d := range l.demand {
		total += d
	}
	shares := func(p *Plan) [][]float64 {
		all := make([][]float64, p.Len())
		for i := range all {
			all[i] = make([]float64, len(p.Pops))
			for _, f := range p.Fractions(i) {
				all[i][f.Pop] += f.Share
			}
		}
		return all
	}
	now := time.Unix(1e9, 0)
	emitted := shares(plan)
	for step := range steps {
		now = now.Add(ttl)
		if past := step - 1 - l.delay; past >= 0 {
			for j, u := range load[past] {
				s.Observe(p.Pops[j].Name, now.Add(-time.Duration(1+l.delay)*ttl), u*(1+l.noise*r.NormFloat64()))
			}
		}
		next := shares(s.Shed(now))
		u, change := make([]float64, len(p.Pops)), 0.0
		for i, d := range l.demand {
			for j := range u {
				// At the start of this TTL clients still follow the answers before.
				u[j] += d * emitted[i][j] / p.Pops[j].Ceiling
				change += d * max(0, next[i][j]-emitted[i][j])
			}
		}
		load, moved = append(load, u), append(moved, change/total)
		emitted = next
	}
	return load, moved
}

func TestSheddingSettlesHoweverLateReportsAre(t *testing.T) {
	p := spherical(8, 10, 200, 2000, 1.6)
	p.Target = 0.75
	plan := mustSolve(t, p, nil)
	// The clients of the two fullest PoPs ask for a half more than was known.
	var busy [2]int
	for j, l := range plan.Pops {
		if l.Utilization() > plan.Pops[busy[0]].Utilization() {
			busy = [2]int{j, busy[0]}
		}
	}
	demand := make([]float64, len(p.Clients))
	for i, c := range p.Clients {
		demand[i] = c.Demand
		if home := plan.Fractions(i)[0].Pop; home == busy[0] || home == busy[1] {
			demand[i] *= 1.5
		}
	}
	const low, high, steps = 0.8, 1, 120
	for _, delay := range []int{0, 1, 5, 15} {
		t.Run(fmt.Sprintf("%d TTLs late", delay), func(t *testing.T) {
			load, moved := loop{demand, delay, 0}.run(t, p, plan, low, high, steps)
			if load[0][busy[0]] < high {
				t.Fatalf("utilization %.3f at first: nothing to shed", load[0][busy[0]])
			}
			settled := 20 + 2*delay
			for step := settled; step < steps; step++ {
				if moved[step] > 1e-4 {
					t.Fatalf("TTL %d: %.4f of demand still moves", step, moved[step])
				}
				for j, u := range load[step] {
					if u > high {
						t.Fatalf("TTL %d: %s at %.3f", step, p.Pops[j].Name, u)
					}
				}
			}
			if u := load[steps-1][busy[0]]; u < low {
				t.Errorf("%.3f is left of a PoP that shed, below the low mark", u)
			}
		})
		t.Run(fmt.Sprintf("%d TTLs late, with noise", delay), func(t *testing.T) {
			load, moved := loop{demand, delay, 0.03}.run(t, p, plan, low, high, steps)
			for step := 20 + 2*delay; step < steps; step++ {
				if moved[step] > 0.04 {
					t.Fatalf("TTL %d: noise of 3 %% moves %.4f of demand", step, moved[step])
				}
				for j, u := range load[step] {
					if u > high*1.05 {
						t.Fatalf("TTL %d: %s at %.3f", step, p.Pops[j].Name, u)
					}
				}
			}
		})
	}
}

func TestShedderWithoutReportsKeepsThePlan(t *testing.T) {
	p := spherical(9, 6, 50, 300, 2)
	p.Target = 0.7
	plan := mustSolve(t, p, nil)
	s, err := NewShedder(plan, 0.8, 1, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s.Observe("nobody", time.Unix(1, 0), 5)
	shed := s.Shed(time.Unix(2, 0))
	for i := range p.Clients {
		if a, b := plan.Fractions(i), shed.Fractions(i); len(a) != len(b) || a[0] != b[0] {
			t.Fatalf("client %d had %v, has %v", i, a, b)
		}
	}
}

func TestShedderRefusesMarksWithoutSense(t *testing.T) {
	plan := mustSolve(t, spherical(9, 2, 2, 2, 2), nil)
	for _, marks := range [][2]float64{{0, 1}, {1, 1}, {0.9, 0.8}} {
		if _, err := NewShedder(plan, marks[0], marks[1], time.Minute); err == nil {
			t.Errorf("marks %v accepted", marks)
		}
	}
}
