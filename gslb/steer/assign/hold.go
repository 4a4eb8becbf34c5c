package assign

import (
	"cmp"
	"slices"
)

// rounds bounds how often hold looks again whether a PoP has got room.
const rounds = 4

// hold takes back those moves that the cap leaves no room for.
//
// It starts from where clients are. Moves out of PoPs above their ceilings come
// first and are never held back, nor are those that they cause in turn: with all
// moves done no PoP is too full, so this ends. Then come moves out of PoPs above
// their level, then those that gain most, as long as there is room where they
// go; the next solve takes up the rest.
func (s *solver) hold() {
	movers := s.movers()
	if len(movers) == 0 {
		return
	}
	load := make([]int64, len(s.Pops))
	for _, g := range s.grants {
		switch {
		case g.from >= 0:
			load[g.from] += g.units
		case g.to >= 0:
			load[g.to] += g.units
		}
	}
	done := make([]bool, len(movers))
	apply := func(i int) {
		g := &s.grants[movers[i]]
		load[g.from] -= g.units
		load[g.to] += g.units
		done[i] = true
	}
	s.relieve(movers, load, done, apply)
	s.choose(movers, load, done, apply)
	for i, at := range movers {
		if !done[i] {
			s.held += s.grants[at].units
			s.grants[at].to = s.grants[at].from
		}
	}
}

// movers returns the grants that move from an open PoP to another one.
func (s *solver) movers() (movers []int32) {
	for i, g := range s.grants {
		if g.from >= 0 && g.to >= 0 && g.from != g.to {
			movers = append(movers, int32(i))
		}
	}
	return movers
}

// relieve applies the moves it takes to bring every PoP below its ceiling, those
// who lose least first.
func (s *solver) relieve(movers []int32, load []int64, done []bool, apply func(int)) {
	ceilings := s.rooms(max(1, s.level), s.flow.closed)
	over := false
	for i := range load {
		over = over || load[i] > ceilings[i]
	}
	if !over {
		return
	}
	from := make([][]int, len(load))
	for i, at := range movers {
		g := &s.grants[at]
		from[g.from] = append(from[g.from], i)
	}
	for _, list := range from {
		slices.SortStableFunc(list, func(a, b int) int {
			return cmp.Compare(s.loss(movers[a]), s.loss(movers[b]))
		})
	}
	for again := true; again; {
		again = false
		for i := range load {
			for load[i] > ceilings[i] && len(from[i]) > 0 {
				if next := from[i][0]; !done[next] {
					apply(next)
					again = true
				}
				from[i] = from[i][1:]
			}
		}
	}
}

// choose applies moves of choice up to the cap.
func (s *solver) choose(movers []int32, load []int64, done []bool, apply func(int)) {
	order := make([]int, len(movers))
	for i := range order {
		order[i] = i
	}
	room := s.flow.room
	full := make([]bool, len(load))
	for i := range load {
		full[i] = load[i] > room[i]
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &s.grants[movers[a]], &s.grants[movers[b]]
		if full[x.from] != full[y.from] {
			if full[x.from] {
				return -1
			}
			return 1
		}
		return cmp.Compare(s.loss(movers[a]), s.loss(movers[b]))
	})
	budget, used := int64(s.MoveCap*float64(s.total)), int64(0)
	for range rounds {
		moved := false
		for _, i := range order {
			g := &s.grants[movers[i]]
			switch {
			case done[i] || load[g.to]+g.units > room[g.to]:
			case used+g.units > budget && used > 0 && s.MoveCap < 1:
			default:
				apply(i)
				used += g.units
				moved = true
			}
		}
		if !moved {
			return
		}
	}
}

// loss is the regret of a grant's move.
func (s *solver) loss(at int32) int64 {
	g := &s.grants[at]
	return s.regret(g.client, g.from, g.to)
}
