// Package guard decides whether a PoP may withdraw its anycast route.
//
// A withdrawal moves a PoP's traffic onto the others. If they are gone too, or
// have no room, or all turned unhealthy for one shared reason, withdrawing
// makes an incident into an outage. So a PoP asks first, and when refused it
// stays announced, less attractive.
//
// Two kinds of evidence meet here. Reports say how nodes were a moment ago.
// Leases are newer: a node asks for one before it withdraws, the document of
// leases is written by compare-and-swap, and it names who was granted one and
// who was refused. So whoever asks sees everybody who asked before, however old
// the reports are, and no node in the document counts as one that serves.
//
// The package does no I/O and reads no clock. The caller reads the fleet's
// reports and leases, asks [Decide] inside the compare-and-swap that records
// the outcome, and keeps a [Tracker] of who turned unhealthy when.
package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"anyedge/pop/headroom"
)

// Policy is the operator's bounds.
type Policy struct {
	MinPops int           // other serving PoPs that must remain, 0 or more
	MaxOut  int           // PoPs that may be withdrawn at once, 1 or more
	Share   float64       // of the fleet that may turn unhealthy within Window, 0 to 1
	Window  time.Duration // the span that Share looks at
}

// Node is one node's latest fresh report. Nodes whose report is stale or gone
// are left out by the caller: what is not known to serve does not serve.
type Node struct {
	Name, Pop string
	// Healthy is the node's own verdict.
	Healthy bool
	// Serving is true while the node is healthy, announced (not
	// de-preferred) and not being drained.
	Serving bool
	// Standby is true while another node of its PoP has the service addresses
	// (VRRP). If it serves, it takes over all of that node's clients alone. Its
	// room is of no use to other PoPs: their clients come to the node that has the
	// addresses.
	Standby bool
	// Usage is its load against its ceilings.
	Usage []headroom.Usage
}

// Lease is another node's entry in the document of leases.
type Lease struct {
	Node, Pop string
	// Out is true for a node that may be withdrawn, false for one that asked
	// and was refused: it stays announced, but it wants to go.
	Out bool
	// Planned is true for an operator's doing, which is no sign of sickness.
	Planned bool
	// Recent is true while reports may not yet show where its load went, and
	// at least for Policy.Window.
	Recent bool
	// Usage is the load that it had when it asked.
	Usage []headroom.Usage
}

// Request is one node asking to withdraw.
type Request struct {
	Node, Pop string
	// Planned is true for an operator's doing: see [Lease.Planned].
	Planned bool
	// Gone is true for a node that is withdrawn already and only says so.
	Gone bool
	// Recent is true for a node that turned unhealthy within the window.
	Recent bool
	Usage  []headroom.Usage // the load that would move
	Nodes  []Node           // the fleet; the asking node may be among them
	Leases []Lease          // of all other nodes
	Sick   []string         // PoPs that turned unhealthy within the window
	Known  []string         // PoPs of the fleet, the sick ones among them
	Freeze *Freeze          // as recorded; nil if the fleet is not frozen
	// Plan is what is planned for the loss of this PoP; nil if nothing is.
	Plan *Plan
}

// Freeze is the finding that too much of the fleet turned unhealthy together.
// While it stands no PoP may withdraw. It is recorded with the leases, so that
// it holds for every node, also for one that was started after it happened.
type Freeze struct {
	Pops  []string // that turned unhealthy, in order
	Known int      // PoPs of the fleet at that time
}

// Ruling is the answer to a request.
type Ruling struct {
	// Refusal is nil when the request is granted.
	Refusal *Refusal
	// Freeze is what is to be recorded from now on: that of the request if
	// nothing changed, nil if the fleet is not frozen, or not any more.
	Freeze *Freeze
	// Figures are what it rests on.
	Figures Figures
}

// Figures are what a ruling rests on, for those who ask why. PoPs are counted
// without the asking one.
type Figures struct {
	Serving  int      `json:"serving"`        // PoPs with a serving node
	Out      []string `json:"out,omitempty"`  // PoPs that are out by lease
	Siblings int      `json:"siblings"`       // other serving nodes of the same PoP
	Sick     []string `json:"sick,omitempty"` // PoPs that turned unhealthy within the window
	Known    int      `json:"known"`          // PoPs of the fleet, with the asking one
	// Load is what would have to find room, by resource: the asking node's, and
	// what left others a moment ago, those of its PoP only if it has siblings.
	Load map[string]float64 `json:"load,omitempty"`
	// Plan is what is planned for the loss of this PoP, whether it counts or not.
	Plan *Plan `json:"plan,omitempty"`
}

// Cause is the rule that refused. It is a closed set, fit for a metric label.
type Cause string

// The rules, in the order in which they are asked.
const (
	SharedCause Cause = "shared_cause" // too much of the fleet turned unhealthy together
	TooManyOut  Cause = "too_many_out" // MaxOut is reached
	TooFewLeft  Cause = "too_few_left" // fewer than MinPops would remain
	NoHeadroom  Cause = "no_headroom"  // the remaining PoPs cannot carry the load
	// PlanOverload: by the plan, the clients of this PoP would overload another.
	PlanOverload Cause = "plan_overload"
)

// Causes lists every cause.
func Causes() []Cause { return []Cause{SharedCause, TooManyOut, TooFewLeft, NoHeadroom, PlanOverload} }

// Refusal is the error of a request that was not granted.
type Refusal struct {
	Cause  Cause
	Detail string
}

// Error says which rule refused and on what figures.
func (r *Refusal) Error() string { return "withdraw refused: " + r.Detail }

// Decide rules on a request.
//
// A node whose PoP keeps other serving nodes takes no PoP out, so only the
// headroom rule applies to it, and the load moves inside the PoP: onto all of
// those nodes, or if they stand by, onto one of them, which may be any. A node
// that is gone already is granted what it took, so that others count it.
//
// A [Plan] is asked last, when all other rules have granted that a PoP goes out.
func Decide(p Policy, r Request) Ruling {
	s := look(r)
	ruling := p.decide(r, s, p.freeze(r, s))
	ruling.Figures = Figures{
		Serving: len(s.serving), Out: s.out, Siblings: len(s.siblings),
		Sick: r.Sick, Known: len(s.known), Load: make(map[string]float64), Plan: r.Plan,
	}
	for _, u := range s.load(r) {
		ruling.Figures.Load[u.Resource] += u.Used
	}
	return ruling
}

func (p Policy) decide(r Request, s survey, freeze *Freeze) Ruling {
	if r.Gone {
		return Ruling{Freeze: freeze}
	}
	load := s.load(r)
	if len(s.siblings) > 0 {
		if s.standby {
			for _, n := range s.siblings {
				if refusal := p.fits(load, [][]headroom.Usage{n}); refusal != nil {
					return Ruling{Refusal: refusal, Freeze: freeze}
				}
			}
			return Ruling{Freeze: freeze}
		}
		return Ruling{Refusal: p.fits(load, s.siblings), Freeze: freeze}
	}
	if refusal := p.refuses(r, s, freeze); refusal != nil {
		return Ruling{Refusal: refusal, Freeze: freeze}
	}
	if len(s.serving) == 0 { // MinPops is 0: the operator allows an empty fleet
		return Ruling{Freeze: freeze}
	}
	refusal := p.fits(load, s.others)
	if refusal == nil {
		refusal = r.Plan.refuses()
	}
	return Ruling{Refusal: refusal, Freeze: freeze}
}

// fits refuses when the remaining nodes cannot carry the load.
func (p Policy) fits(load []headroom.Usage, remaining [][]headroom.Usage) *Refusal {
	if ok, short := headroom.Fits(load, remaining); !ok {
		return &Refusal{NoHeadroom, fmt.Sprintf("the remaining nodes cannot carry the load: %s", short)}
	}
	return nil
}

// refuses applies the rules of a PoP going out as a whole.
func (p Policy) refuses(r Request, s survey, freeze *Freeze) *Refusal {
	if freeze != nil {
		return &Refusal{SharedCause, fmt.Sprintf("%d of %d PoPs turned unhealthy within %s, over %.0f%%: the cause is shared, the fleet is frozen",
			len(freeze.Pops), freeze.Known, p.Window, 100*p.Share)}
	}
	if len(s.out) >= p.MaxOut {
		return &Refusal{TooManyOut, fmt.Sprintf("%s already out, max_out is %d", strings.Join(s.out, ", "), p.MaxOut)}
	}
	if len(s.serving) < p.MinPops {
		return &Refusal{TooFewLeft, fmt.Sprintf("%d other PoPs serve, min_pops is %d", len(s.serving), p.MinPops)}
	}
	return nil
}

// freeze returns what is to be recorded. A freeze that stands goes on until
// enough of its PoPs are seen healthy again: that they fell silent, or that the
// window has passed, is no sign of it.
func (p Policy) freeze(r Request, s survey) *Freeze {
	sick := slices.Clone(r.Sick)
	for _, l := range r.Leases {
		if l.Recent && !l.Planned && !s.healthy[l.Pop] {
			sick = append(sick, l.Pop)
		}
	}
	if r.Recent && !r.Planned && len(s.siblings) == 0 {
		sick = append(sick, r.Pop)
	}
	known := len(s.known)
	if f := r.Freeze; f != nil && p.shared(f.still(s.healthy), f.Known) {
		sick = append(sick, f.Pops...)
		known = max(known, f.Known)
	}
	slices.Sort(sick)
	sick = slices.Compact(sick)
	if !p.shared(len(sick), known) {
		return nil
	}
	if f := r.Freeze; f != nil && slices.Equal(sick, f.Pops) {
		return f
	}
	return &Freeze{Pops: sick, Known: known}
}

// shared reports whether so many sick PoPs of so many are too many for chance.
// One alone is never: in a fleet of two it would be half of all.
func (p Policy) shared(sick, known int) bool {
	return sick > 1 && float64(sick) > p.Share*float64(known)
}

// still counts the PoPs of f that are not healthy again.
func (f *Freeze) still(healthy map[string]bool) int {
	n := 0
	for _, pop := range f.Pops {
		if !healthy[pop] {
			n++
		}
	}
	return n
}

// Over reports whether a recorded freeze has ended: whether the nodes, and the
// leases of all of them, show that few enough of its PoPs are still sick.
func (p Policy) Over(f *Freeze, nodes []Node, leases []Lease) bool {
	return !p.shared(f.still(look(Request{Nodes: nodes, Leases: leases}).healthy), f.Known)
}

// survey is what reports and leases say together.
type survey struct {
	siblings     [][]headroom.Usage // other serving nodes of the asking PoP
	standby      bool               // one of the siblings stands by
	others       [][]headroom.Usage // serving nodes of other PoPs that have clients
	serving      map[string]bool    // other PoPs with a serving node
	healthy      map[string]bool    // PoPs with a healthy node that does not want to go for its own sake
	known        map[string]bool    // PoPs
	out          []string           // other PoPs that are out by lease, in order
	moving       []headroom.Usage   // load that left other PoPs, or this one, a moment ago
	movingInside []headroom.Usage   // load that left nodes of this PoP a moment ago
}

// load is what would have to find room: inside the PoP if nodes of it serve on.
func (s *survey) load(r Request) []headroom.Usage {
	if len(s.siblings) > 0 {
		return slices.Concat(r.Usage, s.movingInside)
	}
	return slices.Concat(r.Usage, s.moving)
}

func look(r Request) survey {
	s := survey{serving: make(map[string]bool), healthy: make(map[string]bool), known: make(map[string]bool)}
	leases := make(map[string]Lease, len(r.Leases))
	for _, l := range r.Leases {
		leases[l.Node] = l
		s.known[l.Pop] = true
	}
	for _, pop := range slices.Concat(r.Known, r.Sick, []string{r.Pop}) {
		s.known[pop] = true
	}
	for _, n := range r.Nodes {
		s.known[n.Pop] = true
		if n.Name == r.Node {
			continue
		}
		l, leaving := leases[n.Name]
		s.healthy[n.Pop] = s.healthy[n.Pop] || n.Healthy && (!leaving || l.Planned)
		switch {
		case leaving || !n.Serving:
		case n.Pop == r.Pop:
			s.siblings = append(s.siblings, n.Usage)
			s.standby = s.standby || n.Standby
		default:
			s.serving[n.Pop] = true
			if !n.Standby {
				s.others = append(s.others, n.Usage)
			}
		}
	}
	delete(s.known, "")
	out := make(map[string]bool)
	for _, l := range r.Leases {
		if l.Out && l.Pop != r.Pop && !s.serving[l.Pop] {
			out[l.Pop] = true
		}
		if !l.Recent || s.serving[l.Pop] { // it has moved, or stays inside its PoP
			continue
		}
		s.moving = append(s.moving, l.Usage...)
		if l.Pop == r.Pop {
			s.movingInside = append(s.movingInside, l.Usage...)
		}
	}
	s.out = slices.Sorted(maps.Keys(out))
	return s
}
