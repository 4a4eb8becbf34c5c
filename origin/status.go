package origin

import (
	"time"

	"anyedge/internal/health"
)

// Status is a pool at one moment, for people and for a successor's [Pool.Seed].
type Status struct {
	Name    string `json:"name"`
	Balance string `json:"balance"`
	// Usable is how many backends may be picked.
	Usable int `json:"usable"`
	// Starved counts the picks that found no backend.
	Starved uint64 `json:"starved"`
	// Backends are in the order of the set; never nil.
	Backends []BackendStatus `json:"backends"`
}

// BackendStatus is one backend at one moment. Counters start when the address
// joins the set.
type BackendStatus struct {
	Backend
	State health.State `json:"state"`
	// Since is when State began.
	Since time.Time `json:"since"`
	// CheckedAt is the start of the newest check; absent before the first.
	CheckedAt time.Time `json:"checked_at,omitzero"`
	// CheckError is why the newest check failed; empty when it passed.
	CheckError string `json:"check_error,omitempty"`
	InFlight   int64  `json:"in_flight"`
	Picks      uint64 `json:"picks"`
	Failures   uint64 `json:"failures"`
	// Warm is how many idle connections are ready.
	Warm int `json:"warm"`
}

// Status returns a copy of what the pool knows. The parts of it are read one
// after the other, so that counters may be a few requests apart.
func (p *Pool) Status() Status {
	s := p.current.Load()
	status := Status{
		Name:     p.name,
		Balance:  p.config.Load().Balance,
		Usable:   len(s.usable.choices),
		Starved:  p.starved.Load(),
		Backends: make([]BackendStatus, 0, len(s.all)),
	}
	for _, c := range s.all {
		m, judged := c.member, c.member.judged.Load()
		status.Backends = append(status.Backends, BackendStatus{
			Backend:    c.backend,
			State:      judged.state,
			Since:      judged.since,
			CheckedAt:  judged.at,
			CheckError: judged.err,
			InFlight:   m.inFlight.Load(),
			Picks:      m.picks.Load(),
			Failures:   m.failures.Load(),
			Warm:       m.warm.len(),
		})
	}
	return status
}
