package pop

import (
	"context"
	"errors"
	"time"

	"anyedge/internal/fleet"
	"anyedge/pop/guard"
)

const (
	// leaseTimeout bounds the wait for the fleet store when a withdrawal asks
	// for its lease.
	leaseTimeout = time.Second
	// leaseCall bounds one question to the store, so that what became of it is
	// known before leaseTimeout.
	leaseCall = 800 * time.Millisecond
	// leaseRetry is the pause before a lease is asked for, or given back, again.
	leaseRetry = time.Second
)

// leaser asks the fleet for leave to withdraw. Its methods may block until
// ctx ends and may have had their effect although they return an error.
type leaser interface {
	// acquire returns nil when the lease is ours, a [*guard.Refusal] when the
	// guard says no, [fleet.ErrBusy] when the store answers, but too late, [fleet.ErrSession] when the node has to get another
	// session first, and any other error when the store did not answer.
	acquire(ctx context.Context, p plea) error
	// update brings the record of a lease that is held up to date. The error
	// is [fleet.ErrConflict] when it is not on record any more.
	update(ctx context.Context, p plea) error
	// release gives the lease, or the wish for it, back; giving back what is
	// not there is fine.
	release(ctx context.Context) error
}

// permission is the answer to "may we withdraw now?".
type permission int

const (
	wait    permission = iota // the answer is under way
	granted                   // the lease is held
	refused                   // the guard says no
	busy                      // the store answers, but too late
	unknown                   // the store does not answer
)

// lease follows one node's withdraw lease without ever blocking its caller.
// It is owned by the controller's goroutine; the store is asked in another.
type lease struct {
	store   leaser
	answers chan leaseAnswer // capacity 1: at most one call is under way
	spawn   func(func())     // runs a call beside the caller

	session    fleet.Session // empty while there is none
	ended      fleet.Session // the store said of it that it has ended
	calling    bool
	called     time.Time
	asked      plea      // of the last call
	moot       bool      // the wish behind the call under way has ended
	unanswered time.Time // since when it is wanted and there is no answer; zero while there is
	answer     leaseStatus
	owed       bool // it may be recorded as ours, so it must be given back
}

// leaseStatus is the last answer.
type leaseStatus struct {
	permission permission
	refusal    *guard.Refusal // set when refused
}

type leaseAnswer struct {
	session  fleet.Session // of the time of asking
	released bool
	err      error
}

func newLease(store leaser) *lease {
	return &lease{store: store, answers: make(chan leaseAnswer, 1), spawn: func(f func()) { go f() }}
}

// ask returns what is known now, and asks the store when it is time to. The
// answer arrives on answers and goes to [lease.take]. A lease that is held is
// asked for again when there is another reason for it, which the record should
// have.
func (l *lease) ask(ctx context.Context, now time.Time, p plea) permission {
	select {
	case a := <-l.answers: // one that has come goes before the time that has passed
		l.take(a)
	default:
	}
	current := l.answer.permission == granted && l.asked == p
	switch {
	case l.answer.permission != wait:
		l.unanswered = time.Time{}
	case l.unanswered.IsZero():
		l.unanswered = now
	}
	if !l.calling && l.session != "" && !current && (l.answer.permission == wait || now.Sub(l.called) >= leaseRetry) {
		l.owed, l.asked = true, p
		ask := l.store.acquire
		if l.answer.permission == granted {
			ask = l.store.update
		}
		l.call(ctx, now, func(ctx context.Context) leaseAnswer { return leaseAnswer{err: ask(ctx, p)} })
	}
	if l.answer.permission == wait && now.Sub(l.unanswered) >= leaseTimeout {
		return unknown
	}
	return l.answer.permission
}

// giveBack returns the lease once the node no longer needs it. It is called
// again and again, and does nothing when nothing is owed. A node that the fleet
// still has on record owes, whatever it remembers: a write may have come late.
func (l *lease) giveBack(ctx context.Context, now time.Time, listed bool) {
	l.answer, l.unanswered, l.moot = leaseStatus{}, time.Time{}, l.calling
	l.owed = l.owed || listed
	if !l.owed || l.calling || now.Sub(l.called) < leaseRetry {
		return
	}
	l.call(ctx, now, func(ctx context.Context) leaseAnswer {
		return leaseAnswer{released: true, err: l.store.release(ctx)}
	})
}

// under tells which session the node has now, and whether the store is within
// reach. A lease ends with the session that it was asked for under, and any
// other answer lapses with the store.
func (l *lease) under(s fleet.Session, connected bool) {
	if s == l.ended {
		s = ""
	}
	if s != l.session || !connected && l.answer.permission != granted {
		l.session, l.answer = s, leaseStatus{}
	}
}

func (l *lease) call(ctx context.Context, now time.Time, f func(context.Context) leaseAnswer) {
	l.calling, l.called = true, now
	session := l.session
	l.spawn(func() {
		ctx, cancel := context.WithTimeout(ctx, leaseCall)
		defer cancel()
		a := f(ctx)
		a.session = session
		l.answers <- a
	})
}

// take records an answer from answers.
func (l *lease) take(a leaseAnswer) {
	moot := l.moot
	l.calling, l.moot = false, false
	var refusal *guard.Refusal
	switch {
	case a.released:
		l.owed = a.err != nil
	case errors.Is(a.err, fleet.ErrSession):
		l.ended = a.session
	case a.session != l.session, moot:
		// The lease, if this is one, has ended with its session, or was given
		// for another reason than there is now.
	case l.answer.permission == granted: // it is the record that was to be brought up to date
		if errors.Is(a.err, fleet.ErrConflict) {
			l.answer = leaseStatus{}
		}
	case a.err == nil:
		l.answer = leaseStatus{permission: granted}
	case errors.As(a.err, &refusal):
		l.answer = leaseStatus{refused, refusal}
	case errors.Is(a.err, fleet.ErrBusy):
		l.answer = leaseStatus{permission: busy}
	default:
		l.answer = leaseStatus{permission: unknown}
	}
}

// settle waits for a call under way, so that its goroutine is not left behind.
func (l *lease) settle() {
	if l.calling {
		l.take(<-l.answers)
	}
}
