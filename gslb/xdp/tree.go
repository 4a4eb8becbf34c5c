package xdp

import (
	"iter"
	"net/netip"
	"slices"

	"anyedge/gslb/steer"
)

// A tree maps the addresses of one family to decisions. A node has a child for
// each value of four bits and takes 64 octets. Children are nodes, by their number
// from the image's start in units of their size, or leaves.
const (
	nodeSize  = 64
	leafBit   = 1 << 31
	depthAt   = 23
	undecided = 1<<depthAt - 1
)

// leaf is a decision for a prefix of so many bits, which is the answer's scope.
func leaf(depth int, decision uint32) uint32 { return leafBit | uint32(depth)<<depthAt | decision }

// decisionOf is a decision of package steer in the image.
func decisionOf(decision int) uint32 {
	if decision < 0 || decision >= undecided {
		return undecided
	}
	return uint32(decision)
}

// node makes room for a node and returns its number.
func (m *image) node() uint32 {
	if m.nodes%pageSize == 0 {
		m.nodes = m.page()
	}
	m.nodes += nodeSize
	return uint32(m.nodes/nodeSize - 1)
}

// tree writes the tree of prefixes that are disjoint and cover everything. It
// returns the root.
func (m *image) tree(regions iter.Seq2[netip.Prefix, int]) (root uint32) {
	root = leaf(0, undecided)
	for p, decision := range regions {
		value := leaf(p.Bits(), decisionOf(decision))
		if p.Bits() == 0 {
			return value
		}
		if root&leafBit != 0 {
			root = m.node()
		}
		at, address := root, p.Addr().AsSlice()
		for depth := 0; ; depth += 4 {
			octet := address[depth/8]
			if depth%8 == 0 {
				octet >>= 4
			}
			child := int(octet & 15)
			if left := p.Bits() - depth; left <= 4 { // it ends in this node
				for i := range 1 << (4 - left) {
					m.setChild(at, child+i, value)
				}
				break
			}
			next := m.child(at, child)
			if next == 0 { // the root's page is never the image's first
				next = m.node()
				m.setChild(at, child, next)
			}
			at = next
		}
	}
	return root
}

func (m *image) child(node uint32, i int) uint32 {
	return native.Uint32(m.octets[int(node)*nodeSize+4*i:])
}

func (m *image) setChild(node uint32, i int, value uint32) {
	native.PutUint32(m.octets[int(node)*nodeSize+4*i:], value)
}

// exempt writes the tree of the networks without rate limit, whose decision is 1.
func (m *image) exempt(f steer.Family, networks []netip.Prefix) (root uint32) {
	var mine []netip.Prefix
	for _, p := range networks {
		if p.Addr().Is4() == (f == steer.IPv4) {
			mine = append(mine, p.Masked())
		}
	}
	all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if f == steer.IPv4 {
		all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return m.tree(func(yield func(netip.Prefix, int) bool) { split(all, mine, yield) })
}

// split yields the parts of a prefix that lie in one of the networks, as 1, and
// those that lie in none, as 0.
func split(p netip.Prefix, networks []netip.Prefix, yield func(netip.Prefix, int) bool) bool {
	around := func(n netip.Prefix) bool { return n.Bits() <= p.Bits() && n.Contains(p.Addr()) }
	switch {
	case slices.ContainsFunc(networks, around):
		return yield(p, 1)
	case !slices.ContainsFunc(networks, p.Overlaps):
		return yield(p, 0)
	}
	octets := p.Addr().AsSlice()
	octets[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	upper, _ := netip.AddrFromSlice(octets)
	return split(netip.PrefixFrom(p.Addr(), p.Bits()+1), networks, yield) &&
		split(netip.PrefixFrom(upper, p.Bits()+1), networks, yield)
}
