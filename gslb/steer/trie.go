package steer

import (
	"net/netip"
	"slices"

	"anyedge/internal/cidr"
)

// A trie maps every address of one family to a decision. Inner nodes hold two
// children; a child that is negative is a leaf, the complement of its decision.
// No inner node has two equal leaves, so the depth of a leaf is the length of
// the widest prefix with its decision.
//
// Nodes are written once, children before parents.
type trie struct {
	nodes [][2]int32
	root  int32
}

// decided is a network with its decision.
type decided struct {
	cidr.Prefix
	decision int32
}

// newTrie builds the trie of networks, which are of one family, masked, unique
// and sorted by address and then length. Addresses in none get outside. The nodes
// are made in scratch first, so that the trie has no room to spare.
func newTrie(networks []decided, outside int32, scratch *[][2]int32) trie {
	t := trie{nodes: slices.Grow((*scratch)[:0], len(networks))}
	t.root = t.build(networks, 0, outside)
	*scratch = t.nodes
	t.nodes = slices.Clone(t.nodes)
	return t
}

// build returns the subtree at the given depth for the networks in it, which
// share their first depth bits. inherited is the decision of the nearest network
// around.
func (t *trie) build(networks []decided, depth int, inherited int32) int32 {
	if len(networks) > 0 && networks[0].Bits() == depth {
		inherited, networks = networks[0].decision, networks[1:]
	}
	if len(networks) == 0 {
		return ^inherited
	}
	split := firstOne(networks, depth)
	zero := t.build(networks[:split], depth+1, inherited)
	one := t.build(networks[split:], depth+1, inherited)
	if zero < 0 && zero == one {
		return zero
	}
	t.nodes = append(t.nodes, [2]int32{zero, one})
	return int32(len(t.nodes) - 1)
}

// firstOne returns the index of the first network whose bit at depth is one, by
// bisection: they are sorted and share the bits before.
func firstOne(networks []decided, depth int) int {
	low, high := 0, len(networks)
	for low < high {
		middle := int(uint(low+high) / 2)
		if networks[middle].Bit(depth) == 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// lookup returns the decision for an address of the trie's family and the
// length of the widest prefix around it that has the same decision.
func (t *trie) lookup(addr netip.Addr) (decision int32, length int) {
	high, low := cidr.Words(addr)
	n := t.root
	for n >= 0 {
		n = t.nodes[n][high>>63]
		high, low = high<<1|low>>63, low<<1
		length++
	}
	return ^n, length
}
