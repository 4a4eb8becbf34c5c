// Package guard decides whether a PoP may withdraw its anycast route.
//
// A withdrawal moves a PoP's traffic onto the others. If they are gone too, or
// have no room, or all turned unhealthy for one shared reason, withdrawing
// makes an incident into an outage. So a PoP asks first, and when refused it
// stays announced, less attractive.
//
// The package does no I/O and reads no clock. The caller reads the fleet's
// reports and leases, asks [Decide] inside the compare-and-swap that records
// the lease, and keeps a [Tracker] of who turned unhealthy when.
package guard

import (
	"fmt"
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
	// Serving is true while the node is healthy, announced (not
	// de-preferred) and not being drained.
	Serving bool
	// Usage is its load against its ceilings.
	Usage []headroom.Usage
}

// Request is one node asking to withdraw.
type Request struct {
	Node, Pop string
	Usage     []headroom.Usage // the load that would move
	Nodes     []Node           // the fleet; the asking node may be among them
	Out       []string         // PoPs that hold a withdraw lease
	Sick      int              // PoPs that turned unhealthy within the window
	Known     int              // PoPs of the fleet, the sick ones among them
}

// Cause is the rule that refused. It is a closed set, fit for a metric label.
type Cause string

// The rules, in the order in which they are asked.
const (
	SharedCause Cause = "shared_cause" // too much of the fleet turned unhealthy together
	TooManyOut  Cause = "too_many_out" // MaxOut is reached
	TooFewLeft  Cause = "too_few_left" // fewer than MinPops would remain
	NoHeadroom  Cause = "no_headroom"  // the remaining PoPs cannot carry the load
)

// Causes lists every cause.
func Causes() []Cause { return []Cause{SharedCause, TooManyOut, TooFewLeft, NoHeadroom} }

// Refusal is the error of a request that was not granted.
type Refusal struct {
	Cause  Cause
	Detail string
}

// Error says which rule refused and on what figures.
func (r *Refusal) Error() string { return "withdraw refused: " + r.Detail }

// Decide returns nil when the request may be granted, else a [*Refusal].
//
// A node whose PoP keeps other serving nodes takes no PoP out, so only the
// headroom rule applies to it, and the load moves inside the PoP.
func Decide(p Policy, r Request) error {
	var siblings, others [][]headroom.Usage
	serving := make(map[string]bool)
	for _, n := range r.Nodes {
		switch {
		case n.Name == r.Node || !n.Serving:
		case n.Pop == r.Pop:
			siblings = append(siblings, n.Usage)
		default:
			serving[n.Pop] = true
			others = append(others, n.Usage)
		}
	}
	remaining := others
	if len(siblings) > 0 {
		remaining = siblings
	} else if err := decidePop(p, r, serving); err != nil {
		return err
	}
	if len(remaining) == 0 { // MinPops is 0: the operator allows an empty fleet
		return nil
	}
	if ok, short := headroom.Fits(r.Usage, remaining); !ok {
		return &Refusal{NoHeadroom, fmt.Sprintf("the remaining nodes cannot carry the load: %s", short)}
	}
	return nil
}

// decidePop applies the rules of a PoP going out as a whole.
func decidePop(p Policy, r Request, serving map[string]bool) error {
	if r.Known > 1 && float64(r.Sick) > p.Share*float64(r.Known) && r.Sick > 1 {
		return &Refusal{SharedCause, fmt.Sprintf("%d of %d PoPs turned unhealthy within %s, over %.0f%%: the cause is shared",
			r.Sick, r.Known, p.Window, 100*p.Share)}
	}
	out := slices.Compact(slices.Sorted(slices.Values(r.Out)))
	out = slices.DeleteFunc(out, func(pop string) bool { return pop == r.Pop })
	if len(out) >= p.MaxOut {
		return &Refusal{TooManyOut, fmt.Sprintf("%s already out, max_out is %d", strings.Join(out, ", "), p.MaxOut)}
	}
	if len(serving) < p.MinPops {
		return &Refusal{TooFewLeft, fmt.Sprintf("%d other PoPs serve, min_pops is %d", len(serving), p.MinPops)}
	}
	return nil
}
