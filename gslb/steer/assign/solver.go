package assign

import (
	"math"
	"slices"
)

// solver turns a problem into integers, has the flow solved, and tells the
// networks of each class where to go.
type solver struct {
	*Problem
	scale float64 // units for one of demand
	total int64   // units of all clients
	level float64 // of the ceilings that may be used

	// pieces are the clients, those that were divided once for each share, in
	// the order of their classes: class i has pieces[starts[i]:starts[i+1]].
	pieces []piece
	starts []int32
	flow   *flow
	// grants say where pieces go, in the order of classes too; class i has
	// grants[granted[i]:granted[i+1]].
	grants  []grant
	granted []int32
	held    int64 // units that the cap on moves kept
}

// piece is a client, or one share of it.
type piece struct {
	client int32
	home   int32 // the PoP it has, -1 if none that is open
	units  int64
	lost   bool // it had a PoP that is not open any more
}

// grant gives a piece, or a part of it, a PoP; -1 if it cannot have any.
type grant struct {
	client   int32
	from, to int32
	units    int64
	lost     bool
	goal     int32 // to, before the cap on moves
}

// resolution is how many units all demand is cut into.
const resolution = 1 << 42

func newSolver(p *Problem, prev *Plan) *solver {
	s := &solver{Problem: p}
	total := 0.0
	for _, c := range p.Clients {
		total += c.Demand
	}
	s.scale = 1
	if total > 0 {
		s.scale = resolution / total
	}
	s.pieces = s.cut(prev)
	for _, piece := range s.pieces {
		s.total += piece.units
	}
	return s
}

// units converts a demand or a ceiling; what is above 0 stays so.
func (s *solver) units(demand float64) int64 {
	if demand <= 0 {
		return 0
	}
	return int64(max(1, min(math.Round(demand*s.scale), math.MaxInt64/4096)))
}

// cut makes pieces of the clients, by where they are in the plan before.
func (s *solver) cut(prev *Plan) []piece {
	pieces := make([]piece, 0, len(s.Clients))
	known := prev.index(s.Pops)
	at := 0
	for i, c := range s.Clients {
		units := s.units(c.Demand)
		for prev != nil && at < len(prev.clients) && prev.clients[at].Prefix.Compare(c.Prefix) < 0 {
			at++
		}
		if prev == nil || at == len(prev.clients) || prev.clients[at].Prefix != c.Prefix || prev.Fractions(at) == nil {
			pieces = append(pieces, piece{client: int32(i), home: -1, units: units})
			continue
		}
		shares := prev.Fractions(at)
		rest := units
		for k, f := range shares {
			p := piece{client: int32(i), home: known[f.Pop], units: rest}
			if k < len(shares)-1 {
				p.units = min(rest, int64(float64(units)*f.Share))
			}
			p.lost = p.home < 0
			rest -= p.units
			if p.units > 0 || k == 0 {
				pieces = append(pieces, p)
			}
		}
	}
	return pieces
}

// sort returns the classes of the flow, one for each class of rows and each PoP
// that members have now, and orders the pieces by them.
func (s *solver) sort(rowClass []int32, costs [][]int32) []flowClass {
	type key struct{ row, home int32 }
	index := make(map[key]int32)
	var classes []flowClass
	of := make([]int32, len(s.pieces))
	for i, p := range s.pieces {
		k := key{rowClass[s.Clients[p.client].Row], p.home}
		class, known := index[k]
		if !known {
			class = int32(len(classes))
			index[k] = class
			classes = append(classes, flowClass{costs: costs[k.row], home: int(p.home), bonus: max(1, s.Hysteresis.Microseconds())})
		}
		classes[class].units += p.units
		of[i] = class
	}
	s.starts = make([]int32, len(classes)+1)
	for _, class := range of {
		s.starts[class+1]++
	}
	for i := range classes {
		s.starts[i+1] += s.starts[i]
	}
	next := slices.Clone(s.starts)
	sorted := make([]piece, len(s.pieces))
	for i, p := range s.pieces {
		sorted[next[of[i]]] = p
		next[of[i]]++
	}
	s.pieces = sorted
	return classes
}

// passes bounds how often classes are made again for better prices.
const passes = 3

// solve divides the classes at the least level that it takes. Prices tell which
// choices matter to whom, so unless every row has a class of its own, classes are
// made anew for the prices found.
func (s *solver) solve() {
	closed := make([]bool, len(s.Pops))
	for i, p := range s.Pops {
		closed[i] = p.Out
	}
	demand := make([]int64, len(s.Rows))
	for _, piece := range s.pieces {
		demand[s.Clients[piece.client].Row] += piece.units
	}
	prices := make([]int64, len(s.Pops))
	for range passes {
		class, costs, exact := classRows(s.Rows, demand, prices, s.Classes)
		s.flow, s.level = s.settle(s.sort(class, costs), closed)
		if prices = s.flow.price; exact {
			break
		}
	}
	s.grant()
	s.hold()
}

// settle solves for given closed PoPs and returns the level it was done at. When
// the target leaves load stuck, because some networks may have few PoPs only,
// whole ceilings are used.
func (s *solver) settle(classes []flowClass, closed []bool) (*flow, float64) {
	fill := s.fill(closed)
	level := max(s.Target, fill)
	f := newFlow(classes, s.rooms(level, closed), closed)
	if f.settle() > 0 && level < 1 {
		level = 1
		f = newFlow(classes, s.rooms(level, closed), closed)
		f.settle()
	}
	return f, level
}

// fill is the share of the open PoPs' ceilings that all demand takes.
func (s *solver) fill(closed []bool) float64 {
	ceilings := 0.0
	for i, p := range s.Pops {
		if !closed[i] {
			ceilings += float64(s.units(p.Ceiling))
		}
	}
	if ceilings == 0 {
		return 1
	}
	return float64(s.total) / ceilings
}

// rooms is what PoPs may carry at a level, rounded up so that rounding never
// makes a feasible problem infeasible.
func (s *solver) rooms(level float64, closed []bool) []int64 {
	rooms := make([]int64, len(s.Pops))
	for i, p := range s.Pops {
		if units := s.units(p.Ceiling); units > 0 && !closed[i] {
			rooms[i] = int64(level*float64(units)) + 1
		}
	}
	return rooms
}
