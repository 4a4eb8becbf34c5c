// Package assign divides client networks among points of presence: each as
// near as it can be while no PoP carries more than it may.
//
// # The problem
//
// Every client network has a demand and a row of costs, one for each PoP: the
// latency it would see there. Every PoP has a ceiling. To give each network a
// PoP, or shares of several, at the least total cost with no PoP above its
// level is a transport problem, a kind of min-cost flow. The level is
// Problem.Target of the ceiling, or as much more as total demand makes
// necessary, for all PoPs alike.
//
// Networks are many and PoPs are few, and that decides the algorithm. Networks
// with like costs become one class. Every class starts at its cheapest PoP.
// Then load leaves PoPs that are too full along shortest augmenting paths, and
// those are found in the small graph of the PoPs alone: the weight of the edge
// from i to j is the least that moving some class from i to j costs, which a
// heap for each pair of PoPs knows. One augmentation takes O(P²) steps and
// settles at least one class, whatever the number of networks. Amounts and
// costs are integers, so the result is exact for the classes.
//
// The algorithm ends with a price for each PoP: what one more unit of room
// would save. By weak duality the prices prove a lower bound for the cost of
// any division of the networks themselves, classes or not. Plan.Gap is the
// distance to it, so that each plan carries its own proof.
//
// # Moving
//
// A network that has a PoP keeps it unless leaving gains more than
// Problem.Hysteresis, or a PoP would be too full; and moves of choice stop when
// they reach Problem.MoveCap of all demand in one solve. Moves that bring a PoP
// below its ceiling, or empty one that is out, are never held back.
//
// # Shares
//
// Few networks are divided: about one for each PoP that is full. The subnets of
// a divided network go to its PoPs by weighted rendezvous hashing, which is the
// steering table's part: a subnet stays where it is unless its own PoP's share
// shrinks or another's grows.
//
// # Concurrency
//
// A Plan is immutable. Solve runs on the caller's goroutine, keeps nothing and may
// run at the same time as anything else. A Solver, which keeps its memory for the
// next problem, and a Shedder are for one goroutine.
package assign

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"anyedge/internal/cidr"
)

// Never is the cost of a PoP that a client network must not be given.
const Never int32 = math.MaxInt32

// MaxCost is the greatest cost: about a quarter of an hour.
const MaxCost int32 = 1 << 30

// Defaults of Problem.
const (
	DefaultTarget  = 0.8
	DefaultMoveCap = 0.05
	DefaultClasses = 1 << 16
)

// Problem is the input of Solve.
type Problem struct {
	// Pops are the points of presence, at most 1024. Names are unique.
	Pops []Pop
	// Rows are the distinct vectors of costs. Each has an entry for each PoP, in
	// their order: microseconds from 0 to MaxCost, or Never. Networks at one
	// place share a row.
	Rows [][]int32
	// Clients are the client networks. Prefixes are masked, unique and sorted by
	// cidr.Prefix.Compare.
	Clients []Client
	// Target is the share of a ceiling to be used: above 0, at most 1. Zero means
	// DefaultTarget.
	Target float64
	// Hysteresis is what a client must gain for a move of choice.
	Hysteresis time.Duration
	// MoveCap is the share of all demand that may move by choice in one solve, so
	// the caller solves once per TTL. Zero means DefaultMoveCap; 1 is no cap.
	MoveCap float64
	// Classes is how many distinct rows the solver works on, at least one for
	// each PoP; with more rows, like ones are put together. Zero means
	// DefaultClasses.
	Classes int
}

// Pop is a point of presence.
type Pop struct {
	Name string
	// Ceiling is what it can carry, in the unit of Client.Demand.
	Ceiling float64
	// Out means that it takes no clients, and those it has must go.
	Out bool
}

// Client is a client network.
type Client struct {
	Prefix cidr.Prefix
	// Demand is what it asks for, in any unit that Pop.Ceiling shares; a mean
	// request rate, say. Without demand it still gets a PoP.
	Demand float64
	// Row is an index of Problem.Rows.
	Row int32
}

// Fraction is a PoP's share of a client network.
type Fraction struct {
	// Pop is an index of Plan.Pops.
	Pop int
	// Share is above 0; a network's shares add up to 1.
	Share float64
}

// check returns every error in a problem that would mislead the solver.
func (p *Problem) check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(p.Pops) == 0 || len(p.Pops) > 1024 {
		fail("pops: %d of them, not 1 to 1024", len(p.Pops))
	}
	names := make(map[string]bool)
	for i, pop := range p.Pops {
		if pop.Name == "" || names[pop.Name] {
			fail("pops[%d]: name %q is empty or used twice", i, pop.Name)
		}
		names[pop.Name] = true
		if !finite(pop.Ceiling) {
			fail("pops[%d]: %v is not a ceiling", i, pop.Ceiling)
		}
	}
	for i, row := range p.Rows {
		if len(row) != len(p.Pops) {
			fail("rows[%d]: %d costs for %d pops", i, len(row), len(p.Pops))
			break
		}
		if at := slices.IndexFunc(row, func(c int32) bool { return c < 0 || c > MaxCost && c != Never }); at >= 0 {
			fail("rows[%d][%d]: %d is not a cost", i, at, row[at])
			break
		}
	}
	for i, c := range p.Clients {
		switch {
		case !c.Prefix.IsValid() || c.Prefix != c.Prefix.Masked():
			fail("clients[%d]: prefix %v is not in its canonical form", i, c.Prefix)
		case i > 0 && p.Clients[i-1].Prefix.Compare(c.Prefix) >= 0:
			fail("clients[%d]: prefix %v is not above the one before", i, c.Prefix)
		case !finite(c.Demand):
			fail("clients[%d]: %v is not a demand", i, c.Demand)
		case c.Row < 0 || int(c.Row) >= len(p.Rows):
			fail("clients[%d]: there is no row %d", i, c.Row)
		default:
			continue
		}
		break
	}
	if !(p.Target >= 0 && p.Target <= 1) {
		fail("target: %v is not in 0 to 1", p.Target)
	}
	if !(p.MoveCap >= 0 && p.MoveCap <= 1) {
		fail("move cap: %v is not in 0 to 1", p.MoveCap)
	}
	if p.Hysteresis < 0 || p.Hysteresis > time.Minute {
		fail("hysteresis: %v is not in 0 to 1m", p.Hysteresis)
	}
	if p.Classes < 0 || p.Classes > 0 && p.Classes < len(p.Pops) {
		fail("classes: %d are too few for %d pops", p.Classes, len(p.Pops))
	}
	return errors.Join(errs...)
}

func finite(x float64) bool { return x >= 0 && !math.IsInf(x, 1) }

// Solve divides the clients of a problem. prev is the plan in force, from which
// clients move no more than they must; nil if there is none. PoPs and clients
// may have come and gone since.
//
// An error means that the problem is malformed; one that has no solution within
// the ceilings is solved with the least excess that all PoPs can share alike,
// see Plan.Pops.
func Solve(p Problem, prev *Plan) (*Plan, error) {
	return new(Solver).Solve(p, prev)
}
