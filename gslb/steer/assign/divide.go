package assign

import (
	"cmp"
	"slices"
)

// grant tells the pieces of each class where to go.
func (s *solver) grant() {
	s.grants = slices.Grow(s.grants[:0], len(s.pieces))
	s.granted = append(slices.Grow(s.granted[:0], len(s.starts)), 0)
	for i := range s.flow.classes {
		members := s.members[:0]
		for _, p := range s.pieces[s.starts[i]:s.starts[i+1]] {
			members = append(members, grant{client: p.client, from: p.home, to: p.home, units: p.units, lost: p.lost})
		}
		s.members = members
		s.grants = s.divide(s.grants, members, i, &s.flow)
		s.granted = append(s.granted, int32(len(s.grants)))
	}
	for i := range s.grants {
		s.grants[i].goal = s.grants[i].to
	}
}

// divide appends to out the grants that turn what the members of a class have
// into what the class has in f. Those who lose least by it are moved; about one
// member for each PoP that gains is cut in two.
func (s *solver) divide(out, members []grant, class int, f *flow) []grant {
	c := &f.classes[class]
	if len(c.at) <= 1 {
		to := int32(f.cheapest(c))
		if len(c.at) == 1 {
			to = int32(c.at[0].pop)
		}
		for _, g := range members {
			g.to = to
			out = append(out, g)
		}
		return out
	}
	gains := s.gains(members, c)
	rest := int32(gains[len(gains)-1].pop)
	out, moving := s.release(out, members, c, f, rest)
	for i, gain := range gains {
		to, last := int32(gain.pop), i == len(gains)-1
		if !last {
			s.byRegret(moving, rest, to)
		}
		for len(moving) > 0 && (last || gain.units > 0) {
			g := moving[0]
			if !last && g.units > gain.units {
				g.units = gain.units
				moving[0].units -= g.units
			} else {
				moving = moving[1:]
			}
			gain.units -= g.units
			g.to = to
			out = append(out, g)
		}
	}
	return out
}

// gains returns by how much each PoP of a class gains or, below zero, loses, the
// one that gains most last.
func (s *solver) gains(members []grant, c *flowClass) []portion {
	s.has = resized(s.has, len(s.Pops))
	clear(s.has)
	for _, g := range members {
		if g.to >= 0 {
			s.has[g.to] += g.units
		}
	}
	gains := slices.Clone(c.at)
	for i := range gains {
		gains[i].units -= s.has[gains[i].pop]
	}
	slices.SortFunc(gains, func(a, b portion) int {
		return cmp.Or(cmp.Compare(a.units, b.units), cmp.Compare(a.pop, b.pop))
	})
	return gains
}

// release appends to out the members that stay where they are, and returns those
// that have to leave, the ones that lose least by going to rest.
func (s *solver) release(out, members []grant, c *flowClass, f *flow, rest int32) (stay, moving []grant) {
	slices.SortStableFunc(members, func(a, b grant) int {
		return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(s.regret(a.client, a.to, rest), s.regret(b.client, b.to, rest)))
	})
	for len(members) > 0 {
		from := members[0].to
		end := slices.IndexFunc(members, func(g grant) bool { return g.to != from })
		if end < 0 {
			end = len(members)
		}
		mine := members[:end]
		members = members[end:]
		if from < 0 || f.closed[from] {
			moving = append(moving, mine...)
			continue
		}
		excess := -c.has(int(from))
		for _, g := range mine {
			excess += g.units
		}
		for _, g := range mine {
			leave := max(0, min(excess, g.units))
			excess -= leave
			if leave < g.units || g.units == 0 {
				kept := g
				kept.units -= leave
				out = append(out, kept)
			}
			if leave > 0 {
				g.units = leave
				moving = append(moving, g)
			}
		}
	}
	return out, moving
}

// byRegret orders grants by what their clients lose when they go to one PoP and
// not to another.
func (s *solver) byRegret(grants []grant, from, to int32) {
	slices.SortStableFunc(grants, func(a, b grant) int {
		return cmp.Compare(s.regret(a.client, from, to), s.regret(b.client, from, to))
	})
}

// regret is what a client loses, in µs for each unit, when it is moved between
// PoPs; one that has none loses the cost.
func (s *solver) regret(client, from, to int32) int64 {
	row := s.Rows[s.Clients[client].Row]
	if from < 0 {
		return int64(row[to])
	}
	return int64(row[to]) - int64(row[from])
}
