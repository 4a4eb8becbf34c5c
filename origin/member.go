package origin

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"anyedge/internal/health"
)

// member is what a pool keeps of one address while it is in the set.
type member struct {
	address netip.AddrPort

	inFlight atomic.Int64
	picks    atomic.Uint64
	failures atomic.Uint64 // picks that ended with an error

	checksPassed atomic.Uint64
	checksFailed atomic.Uint64
	judged       atomic.Pointer[judgement] // never nil; stored by the checking task, and by seed before it

	warm        warm
	dialsWarm   atomic.Uint64 // Dial calls answered by a warm connection
	dialsNew    atomic.Uint64
	dialsFailed atomic.Uint64

	reconfigured chan struct{}      // the checking task looks at the interval again
	stop         context.CancelFunc // ends the tasks; nil before they started; guarded by Pool.mu
}

// judgement is what the checks say of a backend. Never mutated after Store.
type judgement struct {
	state health.State
	since time.Time // of state
	at    time.Time // start of the newest check; zero before the first
	took  time.Duration
	err   string // why the newest check failed
}

func newMember(address netip.AddrPort, state health.State) *member {
	m := &member{address: address, reconfigured: make(chan struct{}, 1)}
	m.warm.wake = make(chan struct{}, 1)
	m.judged.Store(&judgement{since: time.Now()})
	m.seed(state)
	return m
}

// seed sets the state of a member that has never been checked.
func (m *member) seed(state health.State) {
	if old := m.judged.Load(); old.at.IsZero() && state != health.Unknown {
		m.judged.Store(&judgement{state: state, since: time.Now()})
	}
}

// retire ends the tasks of a member that left the set, without waiting for them,
// and closes its warm connections.
func (m *member) retire() {
	if m.stop != nil {
		m.stop()
	}
	m.warm.hold(0)
}

// signal wakes a receiver that need not see every signal; c has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
