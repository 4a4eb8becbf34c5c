package rtt

import (
	"cmp"
	"net/netip"
	"slices"
)

// lengths are the prefix lengths of a snapshot for IPv4 and IPv6, longest first.
var lengths = [2][]int{{24, 20, 16, 12, 8}, {48, 40, 32, 24, 16}}

// familyOf is the index of an address's family among lengths.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// network is a cell with its network.
type network struct {
	netip.Prefix
	cell
}

// fold keeps the networks whose cells keep reports true for and merges the others
// upward, level by level. What is not to be kept at the widest level is dropped. The
// result is sorted; the order of networks, each of which is there once, is lost.
func fold(networks []network, keep func(*cell) bool) []network {
	slices.SortFunc(networks, func(a, b network) int {
		return cmp.Or(cmp.Compare(familyOf(a.Addr()), familyOf(b.Addr())), cmp.Compare(b.Bits(), a.Bits()), a.Compare(b.Prefix))
	})
	kept := make([]network, 0, len(networks))
	for family, levels := range lengths {
		var here, up []network // of a level, and what goes to the next one
		for i, length := range levels {
			n := 0
			for n < len(networks) && networks[n].Bits() == length && familyOf(networks[n].Addr()) == family {
				n++
			}
			here = merge(here[:0], up, networks[:n])
			networks, up = networks[n:], up[:0]
			for k := range here {
				at := &here[k]
				if keep(&at.cell) {
					kept = append(kept, *at)
				} else if i+1 < len(levels) {
					at.Prefix, _ = at.Addr().Prefix(levels[i+1])
					up = add(up, *at)
				}
			}
		}
	}
	slices.SortFunc(kept, func(a, b network) int { return a.Compare(b.Prefix) })
	return kept
}

// merge appends two sorted lists to dst. What both have becomes one.
func merge(dst, a, b []network) []network {
	dst = slices.Grow(dst, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].Compare(b[0].Prefix) <= 0 {
			dst, a = add(dst, a[0]), a[1:]
		} else {
			dst, b = add(dst, b[0]), b[1:]
		}
	}
	for _, rest := range [2][]network{a, b} {
		for _, at := range rest {
			dst = add(dst, at)
		}
	}
	return dst
}

// add appends a network, or puts it into the last one if that is the same.
func add(list []network, at network) []network {
	if last := len(list) - 1; last >= 0 && list[last].Prefix == at.Prefix {
		into := &list[last]
		into.add(at.log, at.weight, at.requests)
		into.now, into.before = into.now|at.now, into.before|at.before
		return list
	}
	return append(list, at)
}
