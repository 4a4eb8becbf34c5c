package origin

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
)

// ErrNoBackend is returned by [Pool.Pick] when no backend may be used.
var ErrNoBackend = errors.New("no usable backend")

// Pick is a backend chosen for one request.
type Pick struct {
	choice *choice
	done   atomic.Bool
}

// Pick chooses the backend of one request, by the pool's policy, among the
// usable ones whose address is not in exclude, which is meant for the few that
// this request has tried before. It returns [ErrNoBackend] when none is left.
// The caller must call [Pick.Done]. Pick does not block.
func (p *Pool) Pick(exclude []netip.AddrPort) (*Pick, error) {
	// Small enough to be inlined, so that the Pick need not go on the heap.
	c := p.choose(exclude)
	if c == nil {
		return nil, ErrNoBackend
	}
	return &Pick{choice: c}, nil
}

// choose takes the next choice and counts it; nil when there is none.
func (p *Pool) choose(exclude []netip.AddrPort) *choice {
	s := p.current.Load()
	var c *choice
	if s.least {
		c = s.usable.lesser(randomTurn(), randomTurn(), exclude)
	} else {
		c = s.usable.at(p.turn.Add(1), exclude, nil)
	}
	if c == nil {
		p.starved.Add(1)
		return nil
	}
	c.member.inFlight.Add(1)
	c.member.picks.Add(1)
	return c
}

// Backend returns what was chosen.
func (pk *Pick) Backend() Backend { return pk.choice.backend }

// Done says that the request has ended, with the error that the backend is to
// blame for, or nil. Only the first call counts, so that a deferred call may
// stand behind an explicit one.
func (pk *Pick) Done(err error) {
	if pk.done.Swap(true) {
		return
	}
	m := pk.choice.member
	m.inFlight.Add(-1)
	if err != nil {
		m.failures.Add(1)
	}
}

// randomTurn returns a turn that is even over any schedule.
func randomTurn() uint64 { return rand.Uint64N(1 << 62) }
