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
	all := make([]Loss, 0, len(pops))
	names := slices.Sorted(maps.Keys(pops)) // sums in one order are the same each time
	for _, lost := range names {
		var remaining [][]Usage
		after := make(map[string]Usage)
		for _, pop := range names {
			if pop != lost {
				remaining = append(remaining, pops[pop])
			}
			for _, u := range pops[pop] {
				sum := after[u.Resource]
				sum.Used += max(u.Used, 0)
				if pop != lost {
					sum.Ceiling += max(u.Ceiling, 0)
				}
				after[u.Resource] = sum
			}
		}
		l := Loss{Pop: lost, Level: OK}
		for _, r := range slices.Sorted(maps.Keys(after)) {
			if u := after[r]; u.Utilization() > l.Utilization {
				l.Resource, l.Utilization, l.Level = r, u.Utilization(), LevelOf(u)
			}
		}
		fits, short := Fits(pops[lost], remaining)
		if !fits {
			l.Level, l.Shortfall = Shed, short
		}
		all = append(all, l)
	}
	return all
}
