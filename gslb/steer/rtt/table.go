package rtt

import (
	"cmp"
	"iter"
	"math"
	"net/netip"
	"slices"
	"time"

	"anyedge/internal/cidr"
)

// Table holds what all nodes have measured.
type Table struct {
	pops  []string
	cells []measured // sorted by prefix and PoP
}

// measured is the mean RTT of a network to a PoP. There are many: without pointers
// they are no work for the garbage collector.
type measured struct {
	prefix   cidr.Prefix
	pop      int32
	log      float32
	weight   float32
	requests float32
}

// Merge puts snapshots together; those of one PoP, from several nodes, are
// averaged by their weights. Weights are decayed to now, and what is too light by
// then is left out: old snapshots do no harm. PoPs are the names that an
// index refers to; snapshots of others are ignored.
func Merge(now time.Time, pops []string, snapshots []Snapshot) *Table {
	entries := 0
	for _, s := range snapshots {
		entries += len(s.Entries)
	}
	t := &Table{pops: pops, cells: make([]measured, 0, entries)}
	for _, s := range snapshots {
		pop := slices.Index(pops, s.Pop)
		if pop < 0 || s.HalfLife <= 0 {
			continue
		}
		decay := math.Exp2(-max(0, float64(now.Sub(s.At))) / float64(s.HalfLife))
		for _, e := range s.Entries {
			if w := e.Weight * decay; w >= MinWeight {
				t.cells = append(t.cells, measured{
					cidr.From(e.Prefix), int32(pop), float32(math.Log(float64(e.RTT) / 1000)), float32(w), float32(e.Requests * decay)})
			}
		}
	}
	slices.SortFunc(t.cells, compare)
	merged := t.cells[:0]
	for _, c := range t.cells {
		if last := len(merged) - 1; last >= 0 && compare(merged[last], c) == 0 {
			m := &merged[last]
			m.weight += c.weight
			m.log += (c.log - m.log) * c.weight / m.weight
			m.requests += c.requests
			continue
		}
		merged = append(merged, c)
	}
	t.cells = merged
	return t
}

func compare(a, b measured) int {
	return cmp.Or(a.prefix.Compare(b.prefix), cmp.Compare(a.pop, b.pop))
}

// Pops returns the names that Measure.Pop refers to. The caller must not change
// them.
func (t *Table) Pops() []string { return t.pops }

// Networks returns the networks that anything is known about, sorted, each once.
func (t *Table) Networks() []netip.Prefix {
	count := 0
	for i := range t.cells {
		if t.first(i) {
			count++
		}
	}
	all := make([]netip.Prefix, 0, count)
	for i := range t.cells {
		if t.first(i) {
			all = append(all, t.cells[i].prefix.Netip())
		}
	}
	return all
}

// first reports whether a cell is the first one of its network.
func (t *Table) first(i int) bool { return i == 0 || t.cells[i].prefix != t.cells[i-1].prefix }

// All yields what is known, network by network in their order, and within one by
// PoP.
func (t *Table) All() iter.Seq[Measure] {
	return func(yield func(Measure) bool) {
		for i := range t.cells {
			if !yield(t.cells[i].measure()) {
				return
			}
		}
	}
}

func (c *measured) measure() Measure {
	return Measure{int(c.pop), time.Duration(math.Exp(float64(c.log)) * 1000), c.prefix.Netip(), float64(c.weight), float64(c.requests)}
}

// Measure is the RTT from a client to a PoP.
type Measure struct {
	Pop int // index of Table.Pops
	RTT time.Duration
	// Prefix is the network that it was measured for.
	Prefix netip.Prefix
	// Weight is in connections, decayed, and Requests are those that they made.
	Weight, Requests float64
}

// Lookup appends to dst what is known about a client: for each PoP the measure
// of the longest network around, the longest networks first.
func (t *Table) Lookup(dst []Measure, client netip.Prefix) []Measure {
	client = netip.PrefixFrom(client.Addr().Unmap(), client.Bits())
	if !client.IsValid() {
		return dst
	}
	family := 1
	if client.Addr().Is4() {
		family = 0
	}
	known := len(dst)
	for _, length := range lengths[family] {
		if length > client.Bits() {
			continue
		}
		around, _ := client.Addr().Prefix(length)
		network := cidr.From(around)
		at, _ := slices.BinarySearchFunc(t.cells, network, func(c measured, p cidr.Prefix) int { return c.prefix.Compare(p) })
		for ; at < len(t.cells) && t.cells[at].prefix == network; at++ {
			c := &t.cells[at]
			if slices.ContainsFunc(dst[known:], func(m Measure) bool { return m.Pop == int(c.pop) }) {
				continue
			}
			dst = append(dst, c.measure())
		}
	}
	return dst
}

// Costs fills costs, by PoP and in µs, with the RTTs from a client: those
// measured, and for other PoPs an estimate by distance, km on the great circle.
// The estimate is a round trip through fibre with a common detour, plus what the
// measured PoPs of the same client take beyond theirs, which is its last mile.
// A client without measures gets a usual last mile.
func Costs(costs []int32, km []float64, known []Measure) {
	const perKM, usual = 13.5, 8000 // µs
	excess, weight := 0.0, 0.0
	for _, m := range known {
		// A far PoP says little about the last mile.
		w := 1 / (500 + km[m.Pop])
		excess += w * (float64(m.RTT.Microseconds()) - perKM*km[m.Pop])
		weight += w
	}
	lastMile := float64(usual)
	if weight > 0 {
		lastMile = max(0, excess/weight)
	}
	for j := range costs {
		costs[j] = int32(lastMile + perKM*km[j])
	}
	for _, m := range known {
		costs[m.Pop] = int32(m.RTT.Microseconds())
	}
}
