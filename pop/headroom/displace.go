package headroom

import (
	"fmt"
	"maps"
	"slices"
)

// Shortfall is the resource of which displaced load lacks most. The zero value
// means that nothing is lacking.
type Shortfall struct {
	Resource string  `json:"resource,omitempty"`
	Needed   float64 `json:"needed,omitempty"` // by the displaced load
	Free     float64 `json:"free,omitempty"`   // below the shed mark, in all that remains
}

// String says what is lacking, for humans.
func (s Shortfall) String() string {
	if s.Resource == "" {
		return "nothing is lacking"
	}
	return fmt.Sprintf("%s: %.4g needed, %.4g free below %.0f%%", s.Resource, s.Needed, s.Free, 100*ShedAt)
}

// Fits reports whether what remains can take the displaced load on top of its
// own, and if not, what it lacks most, in proportion to the need.
//
// For each resource the remaining nodes offer what they have free below the
// shed mark; one that is beyond it offers nothing, and neither does one that
// does not list the resource. The sum is what routing could reach at best:
// anycast moves a client to the next PoP, not to the emptiest one.
func Fits(displaced []Usage, remaining [][]Usage) (bool, Shortfall) {
	free := make(map[string]float64)
	for _, node := range remaining {
		for _, u := range node {
			free[u.Resource] += u.free()
		}
	}
	need := make(map[string]float64)
	for _, u := range displaced {
		need[u.Resource] += max(u.Used, 0)
	}
	return fits(need, free)
}

// fits is Fits of sums by resource.
func fits(need, free map[string]float64) (bool, Shortfall) {
	var short Shortfall
	for _, r := range slices.Sorted(maps.Keys(need)) {
		s := Shortfall{Resource: r, Needed: need[r], Free: free[r]}
		// Cross-multiplied, because Free may be zero.
		if s.Needed > s.Free && (short.Resource == "" || s.Needed*short.Free > short.Needed*s.Free) {
			short = s
		}
	}
	return short.Resource == "", short
}

// Loss is what the loss of one PoP would do to the others.
type Loss struct {
	Pop string `json:"pop"`
	// Resource is the fullest one afterwards; empty if none is used.
	Resource string `json:"resource,omitempty"`
	// Utilization of Resource afterwards: the lost PoP's use and the others',
	// over the others' ceilings.
	Utilization float64 `json:"utilization"`
	// Level is Shed if the load does not fit (see [Fits]), else that of
	// Utilization.
	Level Level `json:"level"`
	// Shortfall says what is lacking; zero if the load fits.
	Shortfall Shortfall `json:"shortfall,omitzero"`
}

// NMinusOne answers for every PoP what its loss would do, in the order of their
// names. A PoP's usage lists those of all its nodes; a resource may occur in it
// many times.
func NMinusOne(pops map[string][]Usage) []Loss {
	names := slices.Sorted(maps.Keys(pops)) // sums in one order are the same each time
	own, all := make(map[string]sums, len(pops)), newSums()
	for _, pop := range names {
		own[pop] = newSums()
		for _, u := range pops[pop] {
			own[pop].add(u)
			all.add(u)
		}
	}
	losses := make([]Loss, 0, len(pops))
	for _, lost := range names {
		l, free := Loss{Pop: lost, Level: OK}, make(map[string]float64)
		for _, r := range slices.Sorted(maps.Keys(all.used)) {
			u := Usage{Resource: r, Used: all.used[r], Ceiling: all.ceiling[r] - own[lost].ceiling[r]}
			if u.Utilization() > l.Utilization {
				l.Resource, l.Utilization, l.Level = r, u.Utilization(), LevelOf(u)
			}
			free[r] = all.free[r] - own[lost].free[r]
		}
		if ok, short := fits(own[lost].used, free); !ok {
			l.Level, l.Shortfall = Shed, short
		}
		losses = append(losses, l)
	}
	return losses
}

// sums are of uses, ceilings and what is free below the shed mark, by resource.
type sums struct{ used, ceiling, free map[string]float64 }

func newSums() sums {
	return sums{make(map[string]float64), make(map[string]float64), make(map[string]float64)}
}

func (s sums) add(u Usage) {
	s.used[u.Resource] += max(u.Used, 0)
	s.ceiling[u.Resource] += max(u.Ceiling, 0)
	s.free[u.Resource] += u.free()
}
