package rtt

import (
	"math"
	"net/netip"
	"slices"
	"time"
)

// MinWeight is the weight, in connections, below which a mean is forgotten.
const MinWeight = 0.5

// lengths are the prefix lengths of a snapshot for IPv4 and IPv6, longest first.
var lengths = [2][]int{{24, 20, 16, 12, 8}, {48, 40, 32, 24, 16}}

// Snapshot is what a node has measured, as it may be published.
type Snapshot struct {
	Pop string
	// At is when it was made; weights are as of then.
	At       time.Time
	HalfLife time.Duration
	// Entries are sorted by prefix, one for each.
	Entries []Entry
}

// Entry is the RTT of a network, without that of longer prefixes in the same
// snapshot.
type Entry struct {
	Prefix netip.Prefix
	RTT    time.Duration
	// Weight is in connections, decayed; above 0. One counts once, and again for each
	// minute that it is open.
	Weight float64
	// Requests are those that they made, decayed alike.
	Requests float64
}

func (e *Entry) cell() cell {
	return cell{log: math.Log(float64(e.RTT) / 1000), weight: e.Weight, requests: e.Requests}
}

// With returns s with what an earlier process of the same node published, decayed
// by the time between the two: a node that starts again does not forget. Entries
// of both stay what may be published.
func (s Snapshot) With(earlier Snapshot) Snapshot {
	if earlier.Pop != s.Pop || earlier.HalfLife <= 0 {
		return s
	}
	cells := make(map[netip.Prefix]cell, len(s.Entries)+len(earlier.Entries))
	for _, e := range s.Entries {
		cells[e.Prefix] = e.cell()
	}
	decay := math.Exp2(-max(0, float64(s.At.Sub(earlier.At))) / float64(earlier.HalfLife))
	for _, e := range earlier.Entries {
		if w := e.Weight * decay; w >= MinWeight {
			at := cells[e.Prefix]
			at.add(math.Log(float64(e.RTT)/1000), w, e.Requests*decay)
			cells[e.Prefix] = at
		}
	}
	s.Entries = entriesOf(cells)
	return s
}

// fold keeps the cells that keep reports true for and merges the others upward,
// level by level. What is not to be kept at the widest level is dropped.
func fold(cells map[netip.Prefix]cell, keep func(*cell) bool) map[netip.Prefix]cell {
	kept := make(map[netip.Prefix]cell)
	for _, levels := range lengths {
		for i, length := range levels {
			// In order, so that sums come out alike each time.
			for _, network := range networksAt(cells, length, levels[0] == 24) {
				at := cells[network]
				if keep(&at) {
					kept[network] = at
					continue
				}
				if i+1 == len(levels) {
					continue
				}
				wider, _ := network.Addr().Prefix(levels[i+1])
				up := cells[wider]
				up.add(at.log, at.weight, at.requests)
				up.now, up.before = up.now|at.now, up.before|at.before
				cells[wider] = up
			}
		}
	}
	return kept
}

func networksAt(cells map[netip.Prefix]cell, length int, v4 bool) (found []netip.Prefix) {
	for network := range cells {
		if network.Bits() == length && network.Addr().Is4() == v4 {
			found = append(found, network)
		}
	}
	slices.SortFunc(found, netip.Prefix.Compare)
	return found
}

func entriesOf(cells map[netip.Prefix]cell) []Entry {
	entries := make([]Entry, 0, len(cells))
	for network, at := range cells {
		entries = append(entries, Entry{network, time.Duration(math.Exp(at.log) * 1000), at.weight, at.requests})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return a.Prefix.Compare(b.Prefix) })
	return entries
}

// coarser returns the snapshot with all entries below a weight merged upward.
func (s Snapshot) coarser(weight float64) Snapshot {
	cells := make(map[netip.Prefix]cell, len(s.Entries))
	for _, e := range s.Entries {
		cells[e.Prefix] = e.cell()
	}
	s.Entries = entriesOf(fold(cells, func(at *cell) bool { return at.weight >= weight }))
	return s
}
