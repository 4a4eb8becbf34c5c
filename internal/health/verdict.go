package health

import (
	"fmt"
	"strings"
	"time"
)

// Verdict is what a [Judge] holds at one instant.
type Verdict struct {
	State State `json:"state"`
	// Since is when State began; zero while it never changed.
	Since time.Time `json:"since,omitzero"`
	// Reason says why, for humans: the checks that are not healthy and their
	// details, in the order of the checks.
	Reason string `json:"reason"`
	// HoldUntil is the end of the hold-down in force; zero if there is none.
	HoldUntil time.Time `json:"hold_until,omitzero"`
	// Next is the earliest time at which the verdict may change without a new
	// observation; zero if it never does. Until then it stays the same.
	Next time.Time `json:"next,omitzero"`
	// Checks are in the order in which they were set.
	Checks []CheckStatus `json:"checks"`
}

// CheckStatus is the state of one check.
type CheckStatus struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// Since is when State began; zero for a check that never decided.
	Since time.Time `json:"since,omitzero"`
	// Observed is when the latest result came; zero if there was none.
	Observed time.Time `json:"observed,omitzero"`
	// Detail is the latest result's, but an unhealthy check keeps that of its
	// latest failure.
	Detail string `json:"detail,omitempty"`
}

// Verdict returns the verdict at now.
func (j *Judge) Verdict(now time.Time) Verdict {
	now = j.advance(now)
	v := Verdict{
		State:  j.state,
		Since:  j.since,
		Reason: j.reason(now),
		Next:   j.next(now),
		Checks: make([]CheckStatus, 0, len(j.checks)),
	}
	if until := j.holdUntil(); now.Before(until) {
		v.HoldUntil = until
	}
	for _, c := range j.checks {
		v.Checks = append(v.Checks, c.status(now, j.cfg.Stale))
	}
	return v
}

func (j *Judge) reason(now time.Time) string {
	evidence := j.weighed(now)
	switch {
	case j.state == Unhealthy && evidence != Unhealthy:
		return fmt.Sprintf("held down for %s after: %s", j.hold, j.cause)
	case j.state == Healthy:
		return "every check passes"
	case len(j.checks) == 0:
		return "there is no check"
	}
	return j.reasons(now, evidence)
}

// reasons joins why the checks in the given state are in it.
func (j *Judge) reasons(now time.Time, state State) string {
	var all []string
	for _, c := range j.checks {
		if c.state(now, j.cfg.Stale) == state {
			all = append(all, c.name+": "+c.why(now, j.cfg.Stale))
		}
	}
	return strings.Join(all, "; ")
}

// check is one input of a Judge.
type check struct {
	name     string
	counter  Counter
	since    time.Time // since when counter has its state; zero while it never decided
	observed time.Time // the latest result; zero if there was none
	detail   string
}

// observe counts one result. After a silence it starts anew.
func (c *check) observe(now time.Time, stale time.Duration, ok bool, detail string) {
	if c.stale(now, stale) {
		c.since = c.status(now, stale).Since
		c.counter.Reset()
	}
	c.observed = now
	state, changed := c.counter.Observe(ok)
	if changed {
		c.since = now
	}
	if !ok || state != Unhealthy {
		c.detail = detail
	}
}

func (c *check) state(now time.Time, stale time.Duration) State {
	if c.stale(now, stale) {
		return Unknown
	}
	return c.counter.State()
}

func (c *check) stale(now time.Time, stale time.Duration) bool {
	at := c.staleAt(stale)
	return !at.IsZero() && !now.Before(at)
}

// staleAt is when the latest result stops counting, zero if never.
func (c *check) staleAt(stale time.Duration) time.Time {
	if stale < 0 || c.observed.IsZero() {
		return time.Time{}
	}
	return c.observed.Add(stale)
}

func (c *check) status(now time.Time, stale time.Duration) CheckStatus {
	s := CheckStatus{Name: c.name, State: c.state(now, stale), Since: c.since, Observed: c.observed, Detail: c.detail}
	if c.stale(now, stale) && c.counter.State() != Unknown {
		s.Since = c.staleAt(stale)
	}
	return s
}

// why says why the check is not healthy.
func (c *check) why(now time.Time, stale time.Duration) string {
	switch {
	case c.observed.IsZero():
		return "no result yet"
	case c.stale(now, stale):
		return fmt.Sprintf("no result for %s", stale)
	case c.counter.State() == Unknown:
		return "too few results in a row"
	case c.detail == "":
		return "failed"
	}
	return c.detail
}
