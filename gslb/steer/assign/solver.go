package assign

import (
	"cmp"
	"math"
	"slices"
)

// Solver solves one problem after another, each in the memory of the one before.
// The zero Solver is ready for use. It is for one goroutine.
type Solver struct{ last solver }

// Solve is [Solve].
func (s *Solver) Solve(p Problem, prev *Plan) (*Plan, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	p.Target = cmp.Or(p.Target, DefaultTarget)
	p.MoveCap = cmp.Or(p.MoveCap, DefaultMoveCap)
	p.Classes = cmp.Or(p.Classes, DefaultClasses)
	s.last.begin(&p, prev)
	s.last.solve()
	return s.last.plan(), nil
}

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
	flow   flow
	// grants say where pieces go, in the order of classes too; class i has
	// grants[granted[i]:granted[i+1]].
	grants  []grant
	granted []int32
	held    int64 // units that the cap on moves kept

	// Scratch, which is large for a million clients: of sort, solve, plan.fill,
	// grant and lose.
	unsorted []piece
	of, next []int32
	index    map[classKey]int32
	classes  []flowClass
	rows     classifier
	byRow    []int64
	first    []int64
	members  []grant
	moved    []grant
	has      []int64
	trial    flow
	shifts   []Shift
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

func (s *solver) begin(p *Problem, prev *Plan) {
	s.Problem, s.total, s.held = p, 0, 0
	total := 0.0
	for _, c := range p.Clients {
		total += c.Demand
	}
	s.scale = 1
	if total > 0 {
		s.scale = resolution / total
	}
	s.cut(prev)
	for _, piece := range s.pieces {
		s.total += piece.units
	}
}

// units converts a demand or a ceiling; what is above 0 stays so.
func (s *solver) units(demand float64) int64 {
	if demand <= 0 {
		return 0
	}
	return int64(max(1, min(math.Round(demand*s.scale), math.MaxInt64/4096)))
}

// cut makes pieces of the clients, by where they are in the plan before.
func (s *solver) cut(prev *Plan) {
	pieces := slices.Grow(s.pieces[:0], len(s.Clients))
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
	s.pieces = pieces
}

// classKey is what the members of a class have in common.
type classKey struct{ row, home int32 }

// sort returns the classes of the flow, one for each class of rows and each PoP
// that members have now, and orders the pieces by them.
func (s *solver) sort(rowClass []int32, costs [][]int32) []flowClass {
	if s.index == nil {
		s.index = make(map[classKey]int32)
	}
	clear(s.index)
	classes := s.classes[:0]
	s.of = resized(s.of, len(s.pieces))
	for i, p := range s.pieces {
		k := classKey{rowClass[s.Clients[p.client].Row], p.home}
		class, known := s.index[k]
		if !known {
			class = int32(len(classes))
			s.index[k] = class
			classes = append(classes, flowClass{costs: costs[k.row], home: int(p.home), bonus: max(1, s.Hysteresis.Microseconds())})
		}
		classes[class].units += p.units
		s.of[i] = class
	}
	s.starts = resized(s.starts, len(classes)+1)
	clear(s.starts)
	for _, class := range s.of {
		s.starts[class+1]++
	}
	for i := range classes {
		s.starts[i+1] += s.starts[i]
	}
	s.next = append(s.next[:0], s.starts...)
	s.unsorted, s.pieces = s.pieces, resized(s.unsorted, len(s.pieces))
	for i, p := range s.unsorted {
		s.pieces[s.next[s.of[i]]] = p
		s.next[s.of[i]]++
	}
	s.classes = classes
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
	demand := resized(s.byRow, len(s.Rows))
	clear(demand)
	for _, piece := range s.pieces {
		demand[s.Clients[piece.client].Row] += piece.units
	}
	s.byRow = demand
	exact := s.rows.equal(s.Rows, demand, s.Classes)
	prices := make([]int64, len(s.Pops))
	for range passes {
		if !exact {
			s.rows.alike(s.Rows, demand, prices, s.Classes)
		}
		s.level = s.settle(&s.flow, s.sort(s.rows.class, s.rows.costs), closed)
		if exact {
			break
		}
		copy(prices, s.flow.price)
	}
	s.grant()
	s.hold()
}

// settle solves for given closed PoPs and returns the level it was done at. When
// the target leaves load stuck, because some networks may have few PoPs only,
// whole ceilings are used.
func (s *solver) settle(f *flow, classes []flowClass, closed []bool) (level float64) {
	level = max(s.Target, s.fill(closed))
	f.begin(classes, s.rooms(level, closed), closed)
	if f.settle() > 0 && level < 1 {
		level = 1
		f.begin(classes, s.rooms(level, closed), closed)
		f.settle()
	}
	return level
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
