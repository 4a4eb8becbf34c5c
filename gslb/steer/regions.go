package steer

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"time"
)

// Undecided stands for no index of Decisions.Addrs: the lot, the subnet within a
// region, or both, have a say.
const Undecided = -1

// Decisions are what a name answers in one family, as far as that can be told
// ahead of the queries. They are the table's own: callers must not change them.
type Decisions struct {
	// Addrs are the addresses that there are to give, in sets.
	Addrs [][]netip.Addr
	// Nowhere is the index of what is given to clients that do not say where they
	// are, or Undecided. With nil Regions that goes for all clients, and the scope
	// is 0.
	Nowhere int
	// Regions say what clients get.
	Regions *Regions
}

// Regions divide the address space by decision. They are immutable.
type Regions struct {
	tries   *tries
	choices int
}

// Decisions returns the decisions of a name in canonical form for a family, and
// the TTL of its answers; nil if the name is not a steered one. Names that decide
// alike share them, and their Regions more widely.
func (t *Table) Decisions(name string, f Family) (*Decisions, time.Duration) {
	if t == nil || t.names[name] == nil || f >= families {
		return nil, 0
	}
	n := t.names[name]
	return &n.families[f].decisions, n.ttl
}

// ahead returns the decisions of a verdict.
func (v *verdict) ahead() (d Decisions) {
	if v.always != nil {
		d.Addrs = [][]netip.Addr{v.always.addrs}
		return d
	}
	for _, c := range v.choices {
		d.Addrs = append(d.Addrs, c.addrs)
	}
	d.Nowhere = Undecided
	if len(v.lot) == 1 {
		d.Nowhere = int(v.lot[0].candidate)
	}
	if v.tries != nil {
		d.Regions = &v.tries.regions
	}
	return d
}

// All yields the widest prefixes with one decision each: disjoint, in order of
// address, and together all of a client family. The decision is an index of
// Decisions.Addrs or Undecided. The length of a prefix is the scope of the replies
// to its clients.
func (r *Regions) All(client Family) iter.Seq2[netip.Prefix, int] {
	return func(yield func(netip.Prefix, int) bool) {
		if r == nil || client >= families {
			return
		}
		r.walk(client, r.tries.of[client].root, 0, [2]uint64{}, yield)
	}
}

// walk yields what is under a node at a depth, whose addresses begin with high.
func (r *Regions) walk(client Family, node int32, depth int, address [2]uint64, yield func(netip.Prefix, int) bool) bool {
	if node < 0 {
		decision := int(^node)
		if decision >= r.choices {
			decision = Undecided
		}
		return yield(prefixOf(client, address, depth), decision)
	}
	children := r.tries.of[client].nodes[node]
	one := address
	one[depth/64] |= 1 << (63 - depth%64)
	return r.walk(client, children[0], depth+1, address, yield) && r.walk(client, children[1], depth+1, one, yield)
}

// prefixOf is the inverse of how trie.lookup reads an address.
func prefixOf(f Family, address [2]uint64, length int) netip.Prefix {
	var octets [16]byte
	binary.BigEndian.PutUint64(octets[:8], address[0])
	binary.BigEndian.PutUint64(octets[8:], address[1])
	if f == IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(octets[:4])), length)
	}
	return netip.PrefixFrom(netip.AddrFrom16(octets), length)
}
