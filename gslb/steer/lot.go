package steer

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"net/netip"
)

// A lot draws one of several candidates in proportion to their weights.
//
// It runs a race: each runner finishes after an exponentially distributed time
// whose rate is its weight, and the first one wins. The time depends on nothing
// but the random value and the runner itself, so leaving runners out does not
// change who wins among the others: the answers to A and AAAA agree as far as
// they can, and a PoP that fails moves only the clients it had.
type lot []runner

type runner struct {
	candidate int32
	seed      uint64
	weight    float64
}

// newLot returns the lot among candidates, of which there is at least one.
// Those without weight take part only if none has any, and then alike.
func newLot(candidates []candidate) lot {
	var l, weightless lot
	for i, c := range candidates {
		r := newRunner(i, c, float64(c.weight))
		if c.weight > 0 {
			l = append(l, r)
		} else {
			r.weight = 1
			weightless = append(weightless, r)
		}
	}
	if len(l) == 0 {
		return weightless
	}
	return l
}

func newRunner(index int, c candidate, weight float64) runner {
	h := fnv.New64a()
	h.Write([]byte(c.pop.Name))
	return runner{int32(index), h.Sum64(), weight}
}

// subnetOf returns the length of the subnet that sticky answers are for, and the
// random value that stands for the one around an address.
func subnetOf(a netip.Addr) (length int, random uint64) {
	length = 48
	if a.Is4() {
		length = 24
	}
	p, _ := a.Prefix(length)
	b := p.Addr().As16()
	return length, mix(binary.BigEndian.Uint64(b[:8]) ^ mix(binary.BigEndian.Uint64(b[8:])))
}

// draw returns the winner's index among the candidates.
func (l lot) draw(random uint64) int32 {
	winner, best := l[0].candidate, math.Inf(1)
	if len(l) == 1 {
		return winner
	}
	for i := range l {
		// The 53 highest bits and a half are in the open interval (0, 1).
		uniform := (float64(mix(random^l[i].seed)>>11) + 0.5) / (1 << 53)
		if time := -math.Log(uniform) / l[i].weight; time < best {
			winner, best = l[i].candidate, time
		}
	}
	return winner
}

// mix spreads the bits of x, with two rounds of the finalizer of Steele, Lea
// and Flood's SplitMix generator, so that seeds and counters are independent.
func mix(x uint64) uint64 {
	for range 2 {
		x += 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}
