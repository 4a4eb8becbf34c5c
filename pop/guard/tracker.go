package guard

import (
	"slices"
	"time"
)

// roster is how long a PoP that is no longer heard of still counts as part of
// the fleet.
const roster = time.Hour

// Tracker remembers which PoPs turned unhealthy when, by this process's own
// clock, so that no clocks of different hosts are compared.
//
// A Tracker is not safe for concurrent use.
type Tracker struct {
	pops map[string]*sighting
}

type sighting struct {
	healthy bool
	turned  time.Time // when it last turned unhealthy; zero if never seen to
	heard   time.Time // when it was last healthy or heard of
}

// Observe takes the present state of every PoP: healthy when at least one of
// its nodes is. A PoP that was seen healthy and is missing now turned
// unhealthy. One that a node drains on purpose should be left as healthy:
// planned work is no shared cause.
func (t *Tracker) Observe(now time.Time, healthy map[string]bool) {
	if t.pops == nil {
		t.pops = make(map[string]*sighting)
	}
	for pop, ok := range healthy {
		s := t.pops[pop]
		if s == nil {
			s = &sighting{healthy: ok}
			t.pops[pop] = s
		}
		s.heard = now
		s.set(now, ok)
	}
	for pop, s := range t.pops {
		if _, ok := healthy[pop]; ok {
			continue
		}
		s.set(now, false)
		if now.Sub(s.heard) > roster {
			delete(t.pops, pop)
		}
	}
}

func (s *sighting) set(now time.Time, healthy bool) {
	if s.healthy && !healthy {
		s.turned = now
	}
	s.healthy = healthy
}

// Pops returns the PoPs that turned unhealthy within the window before now and
// still are, and all PoPs that are known, both in order.
func (t *Tracker) Pops(now time.Time, window time.Duration) (sick, known []string) {
	for pop, s := range t.pops {
		known = append(known, pop)
		if !s.healthy && !s.turned.IsZero() && now.Sub(s.turned) <= window {
			sick = append(sick, pop)
		}
	}
	slices.Sort(sick)
	slices.Sort(known)
	return sick, known
}
