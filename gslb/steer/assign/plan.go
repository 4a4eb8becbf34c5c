package assign

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"time"

	"anyedge/internal/cidr"
)

// Plan says which PoPs a client network is given.
type Plan struct {
	// Pops are the PoPs of the problem and what the plan does to them. The caller
	// must not change them.
	Pops []Load
	// Level is the share of ceilings that the plan fills at most: the target, or
	// what total demand makes necessary. Above 1 the ceilings do not suffice.
	Level float64
	// Cost is the mean cost of a unit of demand. Gap is by how much it may exceed
	// that of the best division of all, regardless of where clients were; it is a
	// proven bound. With hysteresis or held moves it is not near zero.
	Cost, Gap time.Duration
	// Unplaced is the demand of clients that no open PoP may have.
	Unplaced float64
	// Moved says what left its PoP against the plan before.
	Moved Moved

	clients []Client
	rows    [][]int32
	// homes are the indices of the clients' PoPs, -1 for none; clients that are
	// divided are in shares instead.
	homes  []int32
	shares map[int32][]Fraction
	single [][]Fraction // by PoP
}

// Load is a PoP and what a plan gives it.
type Load struct {
	Pop
	// Demand is that of its clients; Room what they may have at most.
	Demand, Room float64
	// Price is what one more unit of room would save. It is 0 while there is room.
	Price time.Duration
}

// Utilization is the share of the ceiling in use; +Inf if there is no ceiling
// and there is demand.
func (l Load) Utilization() float64 {
	if l.Demand == 0 {
		return 0
	}
	return l.Demand / l.Ceiling
}

// Moved is demand that changed its PoP.
type Moved struct {
	// Lost is that of PoPs that are out or gone, Planned all other, and Held what
	// would have moved but for the cap on moves.
	Lost, Planned, Held float64
}

// Len returns the number of clients.
func (p *Plan) Len() int { return len(p.clients) }

// Fractions returns the shares of client i, the greatest first; none if no open
// PoP may have it. The caller must not change them.
func (p *Plan) Fractions(i int) []Fraction {
	if shares, ok := p.shares[int32(i)]; ok {
		return shares
	}
	if p.homes[i] < 0 {
		return nil
	}
	return p.single[p.homes[i]]
}

// All yields every client with its shares, in the order of prefixes.
func (p *Plan) All() iter.Seq2[cidr.Prefix, []Fraction] {
	return func(yield func(cidr.Prefix, []Fraction) bool) {
		for i, c := range p.clients {
			if !yield(c.Prefix, p.Fractions(i)) {
				return
			}
		}
	}
}

// index returns for each PoP of the plan its index among pops, -1 if it is not
// there or out.
func (p *Plan) index(pops []Pop) []int32 {
	if p == nil {
		return nil
	}
	known := make([]int32, len(p.Pops))
	for i, old := range p.Pops {
		known[i] = int32(slices.IndexFunc(pops, func(now Pop) bool { return now.Name == old.Name && !now.Out }))
	}
	return known
}

// plan makes the plan of a solved problem.
func (s *solver) plan() *Plan {
	p := &Plan{Level: s.level, clients: s.Clients, rows: s.Rows}
	s.first = resized(s.first, len(s.Clients))
	p.fill(len(s.Pops), s.grants, s.first)
	load := make([]int64, len(s.Pops))
	cost := 0.0
	for i := range s.grants {
		g := &s.grants[i]
		demand := float64(g.units) / s.scale
		if g.to < 0 {
			p.Unplaced += demand
			continue
		}
		load[g.to] += g.units
		cost += float64(g.units) * float64(s.Rows[s.Clients[g.client].Row][g.to])
		switch {
		case g.lost:
			p.Moved.Lost += demand
		case g.from >= 0 && g.from != g.to:
			p.Moved.Planned += demand
		}
	}
	p.Moved.Held = float64(s.held) / s.scale
	for i, pop := range s.Pops {
		p.Pops = append(p.Pops, Load{
			Pop: pop, Demand: float64(load[i]) / s.scale, Room: float64(s.flow.room[i]) / s.scale,
			Price: time.Duration(s.flow.price[i]) * time.Microsecond,
		})
	}
	if s.total > 0 {
		p.Cost = time.Duration(cost / float64(s.total) * 1000)
		p.Gap = time.Duration(max(0, cost-s.bound()) / float64(s.total) * 1000)
	}
	return p
}

// fill sets the PoPs of all clients. first is scratch, one for each.
func (p *Plan) fill(pops int, grants []grant, first []int64) {
	p.single = make([][]Fraction, pops)
	for i := range p.single {
		p.single[i] = []Fraction{{i, 1}}
	}
	p.homes = make([]int32, len(p.clients))
	for i := range p.homes {
		p.homes[i] = -1
	}
	units := make(map[int32]map[int32]int64)
	for i := range grants {
		g := &grants[i]
		switch home := p.homes[g.client]; {
		case g.to < 0:
		case home < 0:
			p.homes[g.client], first[g.client] = g.to, g.units // units of what homes says
		case home == g.to && units[g.client] == nil:
			first[g.client] += g.units
		default:
			if units[g.client] == nil {
				units[g.client] = map[int32]int64{home: first[g.client]}
			}
			units[g.client][g.to] += g.units
		}
	}
	p.shares = make(map[int32][]Fraction)
	for client, by := range units {
		total := int64(0)
		for _, u := range by {
			total += u
		}
		var shares []Fraction
		for pop, u := range by {
			if u > 0 {
				shares = append(shares, Fraction{int(pop), float64(u) / float64(total)})
			}
		}
		slices.SortFunc(shares, func(a, b Fraction) int {
			return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Pop, b.Pop))
		})
		if len(shares) == 1 {
			p.homes[client] = int32(shares[0].Pop)
		} else if len(shares) > 1 {
			p.shares[client] = shares
		}
	}
}

// bound returns a lower bound of the cost of all placed units, by weak duality:
// no division costs less than if each client paid the least of cost and price,
// and the PoPs got their prices back for the room they have.
func (s *solver) bound() float64 {
	load := resized(s.byRow, len(s.Rows))
	clear(load)
	for i := range s.grants {
		if g := &s.grants[i]; g.to >= 0 {
			load[s.Clients[g.client].Row] += g.units
		}
	}
	bound := 0.0
	for i, row := range s.Rows {
		if load[i] == 0 {
			continue
		}
		least := math.Inf(1)
		for j, cost := range row {
			if cost != Never && !s.Pops[j].Out {
				least = min(least, float64(int64(cost)+s.flow.price[j]))
			}
		}
		bound += float64(load[i]) * least
	}
	for j, price := range s.flow.price {
		// A PoP that is stuck above its room cannot do with less.
		bound -= float64(price) * float64(max(s.flow.room[j], s.flow.load[j]))
	}
	return bound
}
