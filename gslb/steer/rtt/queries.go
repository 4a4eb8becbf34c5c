package rtt

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Query is how often a network asked the DNS and was sent to a PoP.
type Query struct {
	Prefix netip.Prefix
	Pop    string
	// Weight is in queries, decayed; above 0.
	Weight float64
}

// QueryCounter counts what a DNS node was asked by client network: by the client
// subnet that a query told, else by the address that it came from. Each query
// counts half as much after every half-life. It is for one goroutine.
//
// Queries tell networks apart and not clients, so there is no K to keep to. What is
// published instead names only networks from which many came, see Snapshot.
type QueryCounter struct {
	halfLife time.Duration
	most     int // networks and PoPs
	cells    map[queryKey]float64
	at       time.Time // what cells are as of
}

type queryKey struct {
	prefix netip.Prefix
	pop    string
}

// NewQueryCounter returns an empty counter of at most so many networks, each once
// for every PoP that it is sent to.
func NewQueryCounter(halfLife time.Duration, most int) *QueryCounter {
	return &QueryCounter{halfLife: halfLife, most: max(16, most), cells: make(map[queryKey]float64)}
}

// Add counts so many queries of a client. Those that say nothing about a place are
// ignored.
func (c *QueryCounter) Add(client netip.Prefix, pop string, queries float64) {
	network, ok := levelOf(client)
	if !ok || pop == "" || len(pop) > maxName || !(queries > 0) {
		return
	}
	key := queryKey{network, pop}
	if _, known := c.cells[key]; !known && len(c.cells) >= c.most {
		c.shrink()
	}
	c.cells[key] += queries
}

// levelOf returns the longest network that may be published around a client.
func levelOf(client netip.Prefix) (netip.Prefix, bool) {
	a := client.Addr().Unmap().WithZone("")
	if !client.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() {
		return netip.Prefix{}, false
	}
	bits := client.Bits()
	if client.Addr().Is4In6() {
		bits -= 96
	}
	for _, length := range lengths[familyOf(a)] {
		if length <= bits {
			p, err := a.Prefix(length)
			return p, err == nil
		}
	}
	return netip.Prefix{}, false
}

// shrink drops the lightest eighth.
func (c *QueryCounter) shrink() {
	weights := make([]float64, 0, len(c.cells))
	for _, w := range c.cells {
		weights = append(weights, w)
	}
	slices.Sort(weights)
	drop := len(weights)/8 + 1
	limit := weights[drop-1]
	for key, w := range c.cells {
		if w <= limit && drop > 0 {
			delete(c.cells, key)
			drop--
		}
	}
}

// QuerySnapshot is what a DNS node has counted, as it may be published.
type QuerySnapshot struct {
	// At is when it was made; weights are as of then.
	At       time.Time
	HalfLife time.Duration
	// Queries are sorted by prefix and PoP.
	Queries []Query
}

// Snapshot returns what was counted, and lets what counts little by now go.
// Networks with a lower weight than least are merged upward, as those of few clients
// are in a Collector's.
func (c *QueryCounter) Snapshot(now time.Time, least float64) QuerySnapshot {
	keep := 1.0
	if d := now.Sub(c.at); d > 0 && !c.at.IsZero() {
		keep = math.Exp2(-float64(d) / float64(c.halfLife))
	}
	c.at = now
	s := QuerySnapshot{At: now, HalfLife: c.halfLife}
	for key, w := range c.cells {
		if w *= keep; w < MinWeight {
			delete(c.cells, key)
			continue
		}
		c.cells[key] = w
		s.Queries = append(s.Queries, Query{key.prefix, key.pop, w})
	}
	return s.coarser(least)
}

func compareQueries(a, b Query) int {
	return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Pop, b.Pop))
}

// coarser merges what is lighter than least upward, by PoP. Queries need not be in
// order.
func (s QuerySnapshot) coarser(least float64) QuerySnapshot {
	all := slices.Clone(s.Queries)
	slices.SortFunc(all, func(a, b Query) int { return cmp.Compare(a.Pop, b.Pop) })
	s.Queries = make([]Query, 0, len(all))
	var networks []network
	for len(all) > 0 {
		pop, n := all[0].Pop, 0
		networks = networks[:0]
		for ; n < len(all) && all[n].Pop == pop; n++ {
			networks = append(networks, network{all[n].Prefix, cell{weight: all[n].Weight}})
		}
		for _, at := range fold(networks, func(at *cell) bool { return at.weight >= least }) {
			s.Queries = append(s.Queries, Query{at.Prefix, pop, at.weight})
		}
		all = all[n:]
	}
	slices.SortFunc(s.Queries, compareQueries)
	return s
}

// The encoding, in the terms of that of a Snapshot:
//
//	version (1), seconds since 1970, half-life in seconds,
//	number of PoPs, each with the length of its name and name,
//	for IPv4 and then IPv6: number of entries, entries in order
//
// An entry is the distance of its network from the one before, a byte with the
// weight, off by 5 % at most, and the index of its PoP times 8 plus that of its
// length.
const (
	queriesVersion = 1
	queriesStep    = 0.1 // the logarithm between two codes of a weight
	maxPops        = 1024
)

// Encode appends the encoding to b, at most limit bytes of it, at least 1024. So
// that it fits, networks with few queries are merged upward, and left out with more
// PoPs than there is room for.
func (s QuerySnapshot) Encode(b []byte, limit int) ([]byte, error) {
	if s.HalfLife < time.Second || s.At.Unix() < 0 || limit < smallest {
		return nil, fmt.Errorf("query snapshot: a half-life of %v at %v in %d bytes cannot be encoded", s.HalfLife, s.At, limit)
	}
	least := MinWeight
	for {
		if encoded, ok := s.encode(b); ok && len(encoded)-len(b) <= limit {
			return encoded, nil
		}
		lightest := math.Inf(1)
		for _, q := range s.Queries {
			lightest = min(lightest, q.Weight)
		}
		least = 2 * max(least, lightest)
		s = s.coarser(least)
	}
}

func (s QuerySnapshot) encode(b []byte) ([]byte, bool) {
	var pops []string
	for _, q := range s.Queries {
		if at, known := slices.BinarySearch(pops, q.Pop); !known {
			pops = slices.Insert(pops, at, q.Pop)
		}
	}
	if len(pops) > maxPops || len(s.Queries) > maxEntries {
		return nil, false
	}
	b = binary.AppendUvarint(append(b, queriesVersion), uint64(s.At.Unix()))
	b = binary.AppendUvarint(b, uint64(s.HalfLife/time.Second))
	b = binary.AppendUvarint(b, uint64(len(pops)))
	for _, pop := range pops {
		b = append(append(b, byte(len(pop))), pop...)
	}
	v6 := slices.IndexFunc(s.Queries, func(q Query) bool { return q.Prefix.Addr().Is6() })
	if v6 < 0 {
		v6 = len(s.Queries)
	}
	for family, queries := range [2][]Query{s.Queries[:v6], s.Queries[v6:]} {
		b = binary.AppendUvarint(b, uint64(len(queries)))
		last := uint64(0)
		for _, q := range queries {
			n := number(q.Prefix.Addr())
			b = binary.AppendUvarint(b, n-last)
			last = n
			pop, _ := slices.BinarySearch(pops, q.Pop)
			code := min(255, max(0, math.Round(math.Log(q.Weight/MinWeight)/queriesStep)))
			b = binary.AppendUvarint(append(b, byte(code)), uint64(pop<<3|slices.Index(lengths[family], q.Prefix.Bits())))
		}
	}
	return b, true
}

// DecodeQueries reads what Encode has written, and trusts it as little as Decode
// does.
func DecodeQueries(b []byte) (QuerySnapshot, error) {
	d := decoder{b: b}
	if d.byte() != queriesVersion {
		d.fail("unknown version")
	}
	s := QuerySnapshot{At: time.Unix(int64(d.uvarint(1<<40)), 0)}
	s.HalfLife = time.Duration(d.uvarint(1<<20)) * time.Second
	if s.HalfLife == 0 {
		d.fail("no half-life")
	}
	pops := make([]string, d.uvarint(maxPops))
	for i := range pops {
		if pops[i] = string(d.bytes(int(d.byte()))); pops[i] == "" || i > 0 && pops[i-1] >= pops[i] {
			d.fail("PoPs are not in order")
		}
	}
	for family := range lengths {
		d.queries(&s, family, pops)
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("more after its end")
	}
	if d.err != nil {
		return QuerySnapshot{}, fmt.Errorf("query snapshot: %w", d.err)
	}
	return s, nil
}

func (d *decoder) queries(s *QuerySnapshot, family int, pops []string) {
	const leastSize = 3
	count := d.uvarint(maxEntries)
	if count > uint64(len(d.b)/leastSize) {
		d.fail("ends too early")
		return
	}
	s.Queries = slices.Grow(s.Queries, int(count))
	units := uint64(1) << lengths[family][0]
	at := uint64(0)
	for range count {
		at += d.uvarint(units)
		code, kind := d.byte(), d.uvarint(maxPops<<3)
		pop, length := int(kind>>3), int(kind&7)
		if d.err == nil && (at >= units || length >= len(lengths[family]) || pop >= len(pops)) {
			d.fail("a network is out of range")
		}
		if d.err != nil {
			return
		}
		q := Query{netip.PrefixFrom(address(at, family), lengths[family][length]), pops[pop], MinWeight * math.Exp(float64(code)*queriesStep)}
		if q.Prefix != q.Prefix.Masked() || len(s.Queries) > 0 && compareQueries(s.Queries[len(s.Queries)-1], q) >= 0 {
			d.fail("networks are not in order")
			return
		}
		s.Queries = append(s.Queries, q)
	}
}

// QueryTable holds what all DNS nodes were asked, sorted by prefix and PoP.
type QueryTable []Asked

// Asked is how often a network asked and was sent to a PoP.
type Asked struct {
	Prefix netip.Prefix
	Pop    int // index of the names given to MergeQueries
	// Weight is in queries, decayed.
	Weight float64
}

// MergeQueries adds snapshots up, decayed to now. PoPs are the names that an index
// refers to; queries that were answered with others are ignored.
func MergeQueries(now time.Time, pops []string, snapshots []QuerySnapshot) QueryTable {
	index, count := make(map[string]int, len(pops)), 0
	for i, pop := range pops {
		index[pop] = i
	}
	for _, s := range snapshots {
		count += len(s.Queries)
	}
	all := make(QueryTable, 0, count)
	for _, s := range snapshots {
		if s.HalfLife <= 0 {
			continue
		}
		decay := math.Exp2(-max(0, float64(now.Sub(s.At))) / float64(s.HalfLife))
		for _, q := range s.Queries {
			if pop, known := index[q.Pop]; known && q.Weight*decay >= MinWeight {
				all = append(all, Asked{q.Prefix, pop, q.Weight * decay})
			}
		}
	}
	order := func(a, b Asked) int { return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Pop, b.Pop)) }
	slices.SortStableFunc(all, order)
	merged := all[:0]
	for _, q := range all {
		if last := len(merged) - 1; last >= 0 && order(merged[last], q) == 0 {
			merged[last].Weight += q.Weight
			continue
		}
		merged = append(merged, q)
	}
	return merged
}
