package rtt

import (
	"math"
	"net/netip"
	"time"
)

// MinWeight is the weight, in connections, below which a mean is forgotten.
const MinWeight = 0.5

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

func (e *Entry) network() network {
	return network{e.Prefix, cell{log: math.Log(float64(e.RTT) / 1000), weight: e.Weight, requests: e.Requests}}
}

// With returns s with what an earlier process of the same node published, decayed
// by the time between the two: a node that starts again does not forget. Entries
// of both stay what may be published.
func (s Snapshot) With(earlier Snapshot) Snapshot {
	if earlier.Pop != s.Pop || earlier.HalfLife <= 0 {
		return s
	}
	now, before := make([]network, len(s.Entries)), make([]network, 0, len(earlier.Entries))
	for i, e := range s.Entries {
		now[i] = e.network()
	}
	decay := math.Exp2(-max(0, float64(s.At.Sub(earlier.At))) / float64(earlier.HalfLife))
	for _, e := range earlier.Entries {
		if e.Weight, e.Requests = e.Weight*decay, e.Requests*decay; e.Weight >= MinWeight {
			before = append(before, e.network())
		}
	}
	s.Entries = entriesOf(merge(nil, now, before))
	return s
}

// coarser returns the snapshot with all entries below a weight merged upward.
func (s Snapshot) coarser(weight float64) Snapshot {
	networks := make([]network, len(s.Entries))
	for i, e := range s.Entries {
		networks[i] = e.network()
	}
	s.Entries = entriesOf(fold(networks, func(at *cell) bool { return at.weight >= weight }))
	return s
}

func entriesOf(networks []network) []Entry {
	entries := make([]Entry, len(networks))
	for i, n := range networks {
		entries[i] = Entry{n.Prefix, time.Duration(math.Exp(n.log) * 1000), n.weight, n.requests}
	}
	return entries
}
