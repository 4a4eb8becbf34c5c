package world

import (
	"math"
	"math/rand/v2"
	"time"

	"anyedge/gslb/steer/assign"
	"anyedge/internal/cidr"
)

// Steering is a way of giving clients PoPs.
type Steering uint8

// The ways. Optimum is no way but a bound: every client at the PoP with the
// least true latency, known at once, whatever the ceilings.
const (
	Anycast Steering = iota
	Nearest
	Latency
	Capacity
	Optimum
	Steerings // their number
)

// String returns the way as tables have it.
func (s Steering) String() string {
	return [...]string{"anycast only", "nearest", "measured latency", "capacity-aware", "latency optimum"}[s]
}

// steerer does one Steering through a day.
type steerer struct {
	*World
	kind Steering
	// rows are the costs as measured: noisy, and estimated where nothing is.
	rows  [][]int32
	r     *rand.Rand
	homes []int // by place, for all but Capacity
	plan  *assign.Plan
	moved float64 // demand that changed its PoP by plan, and by all
}

// What the capacity-aware steering is run with.
const (
	target     = 0.85
	hysteresis = 3 * time.Millisecond
	every      = 2 // minutes between solves
	late       = 2 // minutes by which its knowledge of demand lags
	demandErr  = 0.05
	rttErr     = 0.05
	unmeasured = 0.1 // share of pairs without a measurement
)

func newSteerer(w *World, kind Steering, seed uint64) *steerer {
	s := &steerer{World: w, kind: kind, r: rand.New(rand.NewPCG(seed, 1)), homes: make([]int, len(w.Places))}
	// All ways have the same measurements.
	m := rand.New(rand.NewPCG(seed, 2))
	for i := range w.Places {
		p := &w.Places[i]
		row := make([]int32, len(p.RTT))
		for j, rtt := range p.RTT {
			rtt *= math.Exp(rttErr * m.NormFloat64())
			if m.Float64() < unmeasured {
				rtt = 0.5 + 1.35*p.km[j]/100
			}
			row[j] = int32(rtt * 1000)
		}
		s.rows = append(s.rows, row)
	}
	return s
}

// steer is called each minute with the PoPs known to be out and whether that
// changed.
func (s *steerer) steer(minute int, out []bool, changed bool) error {
	if s.kind == Capacity {
		if changed || minute%every == 0 {
			return s.solve(minute, out)
		}
		return nil
	}
	if !changed {
		return nil
	}
	for i := range s.Places {
		p := &s.Places[i]
		switch s.kind {
		case Anycast:
			s.homes[i] = least(p.km, out) // should all that routing prefers be out
			for _, j := range p.anycast {
				if !out[j] {
					s.homes[i] = j
					break
				}
			}
		case Nearest:
			s.homes[i] = least(p.km, out)
		case Optimum:
			s.homes[i] = least(p.RTT, out)
		case Latency:
			best := int32(math.MaxInt32)
			for j, rtt := range s.rows[i] {
				if !out[j] && rtt < best {
					s.homes[i], best = j, rtt
				}
			}
		}
	}
	return nil
}

// solve makes a plan from demand as it was known some minutes ago.
func (s *steerer) solve(minute int, out []bool) error {
	p := assign.Problem{Rows: s.rows, Target: target, Hysteresis: hysteresis}
	for j, pop := range s.Pops {
		p.Pops = append(p.Pops, assign.Pop{Name: pop.Name, Ceiling: pop.Ceiling, Out: out[j]})
	}
	activity := s.activity((minute - late + Day) % Day)
	for _, c := range s.Clients {
		d := c.weight * activity[c.Place] * math.Exp(demandErr*s.r.NormFloat64())
		p.Clients = append(p.Clients, assign.Client{Prefix: cidr.From(c.Prefix), Demand: d, Row: int32(c.Place)})
	}
	plan, err := assign.Solve(p, s.plan)
	if err != nil {
		return err
	}
	s.plan = plan
	s.moved += plan.Moved.Planned
	return nil
}

// each calls yield for the PoPs of a client and its shares of it.
func (s *steerer) each(client int, yield func(pop int, share float64)) {
	if s.kind != Capacity {
		yield(s.homes[s.Clients[client].Place], 1)
		return
	}
	for _, f := range s.plan.Fractions(client) {
		yield(f.Pop, f.Share)
	}
}
