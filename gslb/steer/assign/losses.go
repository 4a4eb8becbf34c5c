package assign

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
)

// Verdict says how a fleet would bear a loss.
type Verdict string

// The verdicts.
const (
	// Fits: every PoP stays within the target.
	Fits Verdict = "fits"
	// Tight: every PoP stays within its ceiling, not all within the target.
	Tight Verdict = "tight"
	// Overload: some PoP would exceed its ceiling, or some clients have no PoP.
	Overload Verdict = "overload"
)

// Loss is what the solve without one PoP comes to.
type Loss struct {
	Pop     string  `json:"pop"`
	Verdict Verdict `json:"verdict"`
	// Worst is the fullest PoP afterwards, and Utilization its demand over its
	// ceiling; JSON has -1 for a PoP that has demand and no ceiling.
	Worst       string  `json:"worst,omitempty"`
	Utilization float64 `json:"utilization"`
	// Displaced is the demand that changes its PoP, of which Unplaced finds none.
	Displaced float64 `json:"displaced"`
	Unplaced  float64 `json:"unplaced,omitempty"`
	// AddedCost is by how many µs the mean cost of all demand rises.
	AddedCost float64 `json:"added_cost_us"`
	// Routes sum up what goes where, the most demand first.
	Routes []Route `json:"routes,omitempty"`
	// Clients are the networks with most demand among those that move, Omitted
	// how many others move, and OmittedRoutes how many routes are not listed.
	Clients       []Shift `json:"clients,omitempty"`
	Omitted       int     `json:"omitted,omitempty"`
	OmittedRoutes int     `json:"omitted_routes,omitempty"`
}

// Route is the demand that goes from one PoP to another. To is empty for what
// finds no PoP.
type Route struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Demand  float64 `json:"demand"`
	Clients int     `json:"clients"` // networks, whole or in part
}

// Shift is a network, or the part of it, that goes from one PoP to another.
type Shift struct {
	Prefix netip.Prefix `json:"prefix"`
	From   string       `json:"from"`
	To     string       `json:"to"`
	Demand float64      `json:"demand"`
}

// Losses answers for every open PoP what the plan that was solved last would be
// without it, in the order of Pops: not only where its own clients go but whom they
// push on. Each answer lists no more than limit routes and limit clients. It starts
// from the optimum of the plan, so a loss costs little more than its own moves. Before
// the first plan there are none.
func (s *Solver) Losses(limit int) []Loss {
	if s.last.Problem == nil {
		return nil
	}
	var losses []Loss
	for i, pop := range s.last.Pops {
		if !pop.Out {
			losses = append(losses, s.last.lose(i, limit))
		}
	}
	return losses
}

// lose solves without one PoP.
func (s *solver) lose(lost, limit int) Loss {
	f := &s.trial
	f.without(lost, &s.flow)
	// More room for all changes every price, so then it starts from nothing.
	if s.fill(f.closed) > s.level || f.settle() > 0 {
		s.settle(f, f.classes, f.closed)
	}
	l := Loss{Pop: s.Pops[lost].Name, Verdict: Fits}
	for i, load := range f.load {
		if f.closed[i] || load == 0 {
			continue
		}
		u := float64(load) / float64(s.units(s.Pops[i].Ceiling))
		if u > l.Utilization {
			l.Worst, l.Utilization = s.Pops[i].Name, u
		}
	}
	l.add(s, f, limit)
	const rounding = 1e-6
	switch {
	case l.Unplaced > 0 || l.Utilization > 1+rounding:
		l.Verdict = Overload
	case l.Utilization > s.Target+rounding:
		l.Verdict = Tight
	}
	if math.IsInf(l.Utilization, 1) {
		l.Utilization = -1
	}
	return l
}

// add lists what moves between the optimum of the plan and f.
func (l *Loss) add(s *solver, f *flow, limit int) {
	routes := make(map[[2]int32]*Route)
	shifts := s.shifts[:0]
	cost, count := 0.0, 0
	for i := range f.classes {
		if slices.Equal(f.classes[i].at, s.flow.classes[i].at) && len(f.classes[i].at) > 0 {
			continue
		}
		s.members = append(s.members[:0], s.grants[s.granted[i]:s.granted[i+1]]...)
		for k := range s.members {
			g := &s.members[k]
			g.from, g.to = g.goal, g.goal
		}
		s.moved = s.divide(s.moved[:0], s.members, i, f)
		for _, g := range s.moved {
			if g.from == g.to || g.from < 0 {
				continue
			}
			to, demand := "", float64(g.units)/s.scale
			if g.to >= 0 && !f.closed[g.to] {
				to = s.Pops[g.to].Name
				cost += float64(s.regret(g.client, g.from, g.to)) * float64(g.units)
			} else {
				l.Unplaced += demand
			}
			l.Displaced += demand
			r := routes[[2]int32{g.from, g.to}]
			if r == nil {
				r = &Route{From: s.Pops[g.from].Name, To: to}
				routes[[2]int32{g.from, g.to}] = r
			}
			r.Demand += demand
			r.Clients++
			count++
			shifts = append(shifts, Shift{s.Clients[g.client].Prefix.Netip(), r.From, to, demand})
			if len(shifts) >= 4*(limit+256) { // sorting few of many at a time
				shifts = largest(shifts, limit)
			}
		}
	}
	if s.total > 0 {
		l.AddedCost = cost / float64(s.total)
	}
	for _, r := range routes {
		l.Routes = append(l.Routes, *r)
	}
	slices.SortFunc(l.Routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(b.Demand, a.Demand), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	l.OmittedRoutes = max(0, len(l.Routes)-limit)
	l.Routes = l.Routes[:len(l.Routes)-l.OmittedRoutes]
	s.shifts = shifts
	l.Clients = slices.Clone(largest(shifts, limit))
	l.Omitted = count - len(l.Clients)
}

// largest returns the limit shifts of most demand in their order.
func largest(shifts []Shift, limit int) []Shift {
	slices.SortFunc(shifts, func(a, b Shift) int {
		return cmp.Or(cmp.Compare(b.Demand, a.Demand), a.Prefix.Compare(b.Prefix), cmp.Compare(a.To, b.To))
	})
	return shifts[:min(len(shifts), limit)]
}
