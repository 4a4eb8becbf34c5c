package rollout

import (
	"errors"
	"fmt"
	"slices"
)

// ErrState says that an operator's wish does not fit the rollout's phase.
var ErrState = errors.New("not possible now")

// Start returns the rollout that follows prev, nil if it is the first. Of next
// it takes what an operator decides: Steps, Soak, Take, By, Note and At.
func Start(prev *Rollout, next Rollout) (Rollout, error) {
	next.Generation, next.Phase, next.Past = 1, Running, nil
	next.Turn, next.Open, next.Aborted, next.Reason = 0, false, false, ""
	if prev != nil {
		if !prev.Phase.Final() {
			return Rollout{}, fmt.Errorf("%w: rollout %d is %s", ErrState, prev.Generation, prev.Phase)
		}
		next.Generation = prev.Generation + 1
		next.Past = append([]Outcome{{prev.Generation, prev.Phase}}, prev.Past...)
		next.Past = next.Past[:min(len(next.Past), maxPast)]
	}
	return next, next.Validate()
}

// Pause keeps every PoP where it is. Trouble still turns the rollout back.
func Pause(r Rollout, by string) (Rollout, error) {
	return r.become(Paused, "paused by "+by, Running)
}

// Resume ends a pause.
func Resume(r Rollout) (Rollout, error) { return r.become(Running, "", Paused) }

// Abort sends every node that took the generation back.
func Abort(r Rollout, by string) (Rollout, error) {
	r.Aborted = true
	return r.become(Returning, "aborted by "+by, Running, Paused)
}

func (r Rollout) become(p Phase, reason string, from ...Phase) (Rollout, error) {
	if !slices.Contains(from, r.Phase) {
		return Rollout{}, fmt.Errorf("%w: rollout %d is %s", ErrState, r.Generation, r.Phase)
	}
	r.Phase, r.Reason = p, shorten(reason)
	return r, nil
}

// shorten cuts text to what a Rollout may hold.
func shorten(s string) string {
	if len(s) <= maxText {
		return s
	}
	return s[:maxText]
}
