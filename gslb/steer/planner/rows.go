package planner

import (
	"encoding/binary"
	"math"
	"net/netip"
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

// rows makes the rows of costs of networks, one for all that are alike.
type rows struct {
	in    Input
	step  float64
	grid  float64
	index map[string]int32
	all   [][]int32
	km    map[[2]int16][]float64 // by cell of the grid
	at    [][3]float64           // of PoPs, on the unit sphere

	key    []byte
	known  []rtt.Measure
	memory []int32 // for rows to come
}

func newRows(in Input) *rows {
	r := &rows{in: in, step: step, grid: grid}
	for _, p := range in.Pops {
		r.at = append(r.at, onSphere(p.Lat, p.Lon))
	}
	return r
}

// rowsOf returns the measured networks and their rows.
func rowsOf(in Input) ([]steer.Measured, [][]int32) {
	return newRows(in).of(in.Measured.Networks())
}

// of returns the rows of networks, which are sorted.
func (r *rows) of(networks []netip.Prefix) ([]steer.Measured, [][]int32) {
	places := located(networks, r.in.Clients)
	limit := entries / max(1, len(r.in.Pops))
	for {
		r.index, r.all, r.km = make(map[string]int32), nil, make(map[[2]int16][]float64)
		list := make([]steer.Measured, 0, len(networks))
		for i, network := range networks {
			list = append(list, steer.Measured{Prefix: cidr.From(network), Row: r.row(network, places[i])})
			if len(r.all) > limit && r.step < 8 {
				break
			}
		}
		if len(list) == len(networks) {
			return list, r.all
		}
		r.step, r.grid = 2*r.step, min(90, 2*r.grid)
	}
}

// row returns the index of the row of a network that is at the place of an entry of
// the map, or below 0 at none.
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
	r.key = binary.AppendVarint(binary.AppendVarint(r.key[:0], int64(cell[0])), int64(cell[1]))
	for i := range r.known {
		m := &r.known[i]
		code := math.Round(math.Log(float64(m.RTT.Microseconds())) / r.step)
		m.RTT = time.Duration(math.Exp(code*r.step)) * time.Microsecond
		r.key = binary.AppendVarint(binary.AppendVarint(r.key, int64(m.Pop)), int64(code))
	}
	if at, ok := r.index[string(r.key)]; ok {
		return at
	}
	if pops := len(r.in.Pops); len(r.memory) < pops {
		r.memory = make([]int32, 256*pops)
	}
	costs := r.memory[:len(r.in.Pops):len(r.in.Pops)]
	r.memory = r.memory[len(costs):]
	rtt.Costs(costs, r.distances(cell), r.known)
	for i, p := range r.in.Pops {
		if p.Anycast {
			costs[i] = assign.Never
		}
	}
	at := int32(len(r.all))
	r.index[string(r.key)] = at
	r.all = append(r.all, costs)
	return at
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
