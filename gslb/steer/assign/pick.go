package assign

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"net/netip"
)

// Pick returns the PoP of one subnet of a divided network: the index of one of
// the fractions, by weighted rendezvous hashing of the subnet and the names of
// the PoPs. It depends on nothing else, so all nodes agree without talking, and
// a subnet changes its PoP only if its own loses share or another one gains.
func Pick(fractions []Fraction, pops []Load, subnet netip.Prefix) int {
	if len(fractions) == 1 {
		return 0
	}
	bytes := subnet.Masked().Addr().As16()
	seed := binary.BigEndian.Uint64(bytes[:8]) ^ spread(binary.BigEndian.Uint64(bytes[8:])+uint64(subnet.Bits()))
	winner, best := 0, math.Inf(1)
	for i, f := range fractions {
		h := fnv.New64a()
		h.Write([]byte(pops[f.Pop].Name))
		// The 53 highest bits and a half are in the open interval (0, 1).
		uniform := (float64(spread(spread(seed)^h.Sum64())>>11) + 0.5) / (1 << 53)
		if time := -math.Log(uniform) / f.Share; time < best {
			winner, best = i, time
		}
	}
	return winner
}

// spread is the finalizer of Steele, Lea and Flood's SplitMix generator.
func spread(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
