package origin

import (
	"cmp"
	"net/netip"
	"slices"
)

// maxSlots bounds a schedule's length, and so its memory and the time to build
// it. A set whose weights need a longer cycle gets shares that are right to
// about one part in maxSlots of the whole.
const maxSlots = 1 << 14

// schedule is one cycle of weighted turns over the usable backends. It is never
// changed after [newSchedule], so both policies pick from it with no lock: round
// robin takes the slot of a shared turn counter, one atomic addition per pick,
// and least request takes two random slots.
//
// The usual smooth weighted round robin changes every backend's credit at every
// pick, which needs a lock that all cores share and time linear in the number
// of backends. Here the same spreading is done once per change of the set.
type schedule struct {
	choices []choice
	slots   []int32 // indexes of choices, in the order of their turns
}

// choice is a backend as the current set has it, and the state it keeps.
type choice struct {
	backend Backend
	member  *member
}

func newSchedule(choices []choice) schedule {
	weights := make([]int, len(choices))
	for i, c := range choices {
		weights[i] = c.backend.Weight
	}
	return schedule{choices: choices, slots: interleave(reduce(weights, maxSlots))}
}

// interleave returns a cycle in which index i has exactly weights[i] turns,
// spread evenly: its k-th turn, from zero, is due at (2k+1)/(2·weights[i]) of
// the cycle. Equal times go by index.
func interleave(weights []int) []int32 {
	type turn struct{ nth, weight, index int }
	var turns []turn
	for i, w := range weights {
		for k := range w {
			turns = append(turns, turn{2*k + 1, w, i})
		}
	}
	slices.SortFunc(turns, func(a, b turn) int {
		return cmp.Or(cmp.Compare(a.nth*b.weight, b.nth*a.weight), cmp.Compare(a.index, b.index))
	})
	slots := make([]int32, len(turns))
	for i, t := range turns {
		slots[i] = int32(t.index)
	}
	return slots
}

// reduce divides the weights, all at least 1, by their greatest common divisor,
// and scales them down when their sum is still above limit. No weight falls
// below 1.
func reduce(weights []int, limit int) []int {
	divisor, sum := 0, 0
	for _, w := range weights {
		for a, b := divisor, w; ; a, b = b, a%b {
			if b == 0 {
				divisor = a
				break
			}
		}
		sum += w
	}
	out := make([]int, len(weights))
	for i, w := range weights {
		if sum/divisor > limit {
			out[i] = max(1, (w*limit+sum/2)/sum)
		} else {
			out[i] = w / divisor
		}
	}
	return out
}

// at returns the choice of the first slot from turn on, around the cycle, whose
// backend is not excluded and not other; nil when there is none.
func (s *schedule) at(turn uint64, exclude []netip.AddrPort, other *choice) *choice {
	n := uint64(len(s.slots))
	for i := range n {
		c := &s.choices[s.slots[(turn+i)%n]]
		if c != other && !slices.Contains(exclude, c.backend.Address) {
			return c
		}
	}
	return nil
}

// lesser picks by the power of two choices: of two slots' backends, the one
// with fewer requests in flight per weight, the first when they are level. Slots
// drawn evenly make draws in proportion to weight, so weights hold without load
// too. nil when every backend is excluded.
func (s *schedule) lesser(first, second uint64, exclude []netip.AddrPort) *choice {
	a := s.at(first, exclude, nil)
	if a == nil {
		return nil
	}
	b := s.at(second, exclude, a)
	if b == nil {
		return a
	}
	if a.member.inFlight.Load()*int64(b.backend.Weight) > b.member.inFlight.Load()*int64(a.backend.Weight) {
		return b
	}
	return a
}
