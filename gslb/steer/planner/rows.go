package planner

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/assign"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/cidr"
)

const (
	// step is the logarithm between two round-trip times that are told apart, and
	// grid the degrees between two places.
	step = 0.02
	grid = 0.5
	// entries bounds all rows together: 128 MiB.
	entries = 1 << 25
	// earth is the mean radius in km.
	earth = 6371
)

// rows makes the rows of costs of networks, one for all that are alike. From one
// turn to the next most stay what they are, and are the same memory: tables that are
// still in force have them too, so nothing is ever written over. What is kept has few
// pointers, so that the garbage collector passes a million rows by.
//
// The zero value is ready for use.
type rows struct {
	pops  []Pop        // that lines are of
	at    [][3]float64 // of PoPs, on the unit sphere
	index map[[2]uint64]int32
	lines []line
	slabs [][]int32 // costs of lines, slab of them each
	seeds [2]maphash.Seed
	turn  uint32 // counts the calls of fill

	// Of one call of fill:
	in         Input
	coarse     int // how often step and grid were doubled
	step, grid float64
	all        [][]int32
	km         map[[2]int16][]float64 // by cell of the grid
	known      []rtt.Measure
	key        []byte
}

// line is a row that is known by what it was made from, and its number in the turn
// that asked for it last.
type line struct {
	turn   uint32
	number int32
}

const (
	// slab is how many rows are allocated at a time.
	slab = 256
	// stale is how many rows beyond half of those in use are kept in case that they
	// are asked for again.
	stale = 4 * slab
)

// of returns the rows of networks, which are sorted.
func (r *rows) of(in Input, networks []netip.Prefix) ([]steer.Measured, [][]int32) {
	r.in = in
	defer func() { r.in, r.all, r.km = Input{}, nil, nil }() // not to be kept for a turn
	if r.index == nil || !slices.EqualFunc(r.pops, in.Pops, samePlace) || len(r.lines) > limitOf(in.Pops)+stale {
		r.forget(in.Pops)
	}
	places := located(networks, in.Clients)
	list := make([]steer.Measured, len(networks))
	for r.coarse, r.step, r.grid = 0, step, grid; !r.fill(list, networks, places, limitOf(in.Pops)); r.coarse++ {
		r.step, r.grid = 2*r.step, min(90, 2*r.grid)
	}
	all := r.all
	if len(r.lines) > len(all)+len(all)/2+stale {
		r.forget(in.Pops) // rather than to keep whole slabs for the sake of a few rows
	}
	return list, all
}

// limitOf is how many rows there may be with so many PoPs.
func limitOf(pops []Pop) int { return entries / max(1, len(pops)) }

func samePlace(a, b Pop) bool { return a.Lat == b.Lat && a.Lon == b.Lon && a.Anycast == b.Anycast }

// forget begins anew, for these PoPs.
func (r *rows) forget(pops []Pop) {
	*r = rows{in: r.in, pops: slices.Clone(pops), index: make(map[[2]uint64]int32), seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for _, p := range pops {
		r.at = append(r.at, onSphere(p.Lat, p.Lon))
	}
}

// fill fills the list in, unless that takes too many rows and could do with fewer.
func (r *rows) fill(list []steer.Measured, networks []netip.Prefix, places []int32, limit int) bool {
	r.turn++
	r.km = make(map[[2]int16][]float64)
	r.all = make([][]int32, 0, min(len(r.lines)+len(r.lines)/16, len(networks)))
	for i, network := range networks {
		list[i] = steer.Measured{Prefix: cidr.From(network), Row: r.row(network, places[i])}
		if len(r.all) > limit && r.step < 8 {
			return false
		}
	}
	return true
}

// row returns the number of the row of a network that is at the place of an entry of
// the map, or below 0 at none. Rows are told apart by 128 bits of hash.
func (r *rows) row(network netip.Prefix, place int32) int32 {
	r.known = r.in.Measured.Lookup(r.known[:0], network)
	lat, lon := 0.0, 0.0
	if place >= 0 {
		lat, lon = r.in.Clients[place].Lat, r.in.Clients[place].Lon
	} else if len(r.known) > 0 {
		best := r.known[0]
		for _, m := range r.known {
			if m.RTT < best.RTT || m.RTT == best.RTT && m.Pop < best.Pop {
				best = m
			}
		}
		lat, lon = r.in.Pops[best.Pop].Lat, r.in.Pops[best.Pop].Lon
	}
	cell := [2]int16{int16(math.Round(lat / r.grid)), int16(math.Round(lon / r.grid))}
	r.key = binary.AppendVarint(binary.AppendVarint(append(r.key[:0], byte(r.coarse)), int64(cell[0])), int64(cell[1]))
	for i := range r.known {
		m := &r.known[i]
		code := math.Round(math.Log(float64(m.RTT.Microseconds())) / r.step)
		m.RTT = time.Duration(math.Exp(code*r.step)) * time.Microsecond
		r.key = binary.AppendVarint(binary.AppendVarint(r.key, int64(m.Pop)), int64(code))
	}
	sum := [2]uint64{maphash.Bytes(r.seeds[0], r.key), maphash.Bytes(r.seeds[1], r.key)}
	at, ok := r.index[sum]
	if !ok {
		at = r.add(cell)
		r.index[sum] = at
	}
	l := &r.lines[at]
	if l.turn != r.turn {
		l.turn, l.number = r.turn, int32(len(r.all))
		r.all = append(r.all, r.costs(at))
	}
	return l.number
}

// add makes the row of a network in a cell of the grid, with the measures in known.
func (r *rows) add(cell [2]int16) int32 {
	at := len(r.lines)
	r.lines = append(r.lines, line{})
	if at%slab == 0 {
		r.slabs = append(r.slabs, make([]int32, slab*len(r.pops)))
	}
	costs := r.costs(int32(at))
	rtt.Costs(costs, r.distances(cell), r.known)
	for i, p := range r.pops {
		if p.Anycast {
			costs[i] = assign.Never
		}
	}
	return int32(at)
}

// costs is the memory of a line.
func (r *rows) costs(at int32) []int32 {
	pops := len(r.pops)
	from := int(at) % slab * pops
	return r.slabs[at/slab][from : from+pops : from+pops]
}

// distances returns the km from a cell of the grid to each PoP.
func (r *rows) distances(cell [2]int16) []float64 {
	if km := r.km[cell]; km != nil {
		return km
	}
	here := onSphere(float64(cell[0])*r.grid, float64(cell[1])*r.grid)
	km := make([]float64, len(r.at))
	for i, at := range r.at {
		x, y, z := here[0]-at[0], here[1]-at[1], here[2]-at[2]
		km[i] = 2 * earth * math.Asin(min(1, math.Sqrt(x*x+y*y+z*z)/2))
	}
	r.km[cell] = km
	return km
}

func onSphere(lat, lon float64) [3]float64 {
	phi, lambda := lat*math.Pi/180, lon*math.Pi/180
	return [3]float64{math.Cos(phi) * math.Cos(lambda), math.Cos(phi) * math.Sin(lambda), math.Sin(phi)}
}

// located returns for each network, which are sorted, the index of the client
// network it lies in, the longest, or else of the first one inside it; -1 if there
// is neither.
func located(networks []netip.Prefix, clients []steer.Client) []int32 {
	found := make([]int32, len(networks))
	var around []int32 // nested client networks, the widest first
	leave := func(a netip.Addr) {
		for len(around) > 0 && !clients[around[len(around)-1]].Prefix.Contains(a) {
			around = around[:len(around)-1]
		}
	}
	next := 0
	for i, network := range networks {
		here := cidr.From(network)
		for ; next < len(clients) && clients[next].Prefix.Compare(here) <= 0; next++ {
			leave(clients[next].Prefix.Addr())
			around = append(around, int32(next))
		}
		leave(network.Addr())
		switch {
		case len(around) > 0:
			found[i] = around[len(around)-1]
		case next < len(clients) && network.Contains(clients[next].Prefix.Addr()):
			found[i] = int32(next)
		default:
			found[i] = -1
		}
	}
	return found
}
