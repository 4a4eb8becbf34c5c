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
	// leaseRetry is the pause before a lease is asked for, or given back, again.
	leaseRetry = time.Second
)

// leaser asks the fleet for leave to withdraw. Both methods may block until
// ctx ends and may have had their effect although they return an error.
type leaser interface {
	// acquire returns nil when the lease is ours, a [*guard.Refusal] when the
	// guard says no, [fleet.ErrSession] when the node has to get another
	// session first, and any other error when the store did not answer.
	acquire(ctx context.Context, reason string) error
	// release gives the lease back; giving back what is not held is fine.
	release(ctx context.Context) error
}

// permission is the answer to "may we withdraw now?".
type permission int

const (
	wait    permission = iota // the answer is under way
	granted                   // the lease is held
	refused                   // the guard says no
	unknown                   // the store does not answer
)

// lease follows one node's withdraw lease without ever blocking its caller.
// It is owned by the controller's goroutine; the store is asked in another.
type lease struct {
	store   leaser
	answers chan leaseAnswer // capacity 1: at most one call is under way

	session    fleet.Session // empty while there is none
	ended      fleet.Session // the store said of it that it has ended
	calling    bool
	called     time.Time
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
	return &lease{store: store, answers: make(chan leaseAnswer, 1)}
}

// ask returns what is known now, and asks the store when it is time to. The
// answer arrives on answers and goes to [lease.take].
func (l *lease) ask(ctx context.Context, now time.Time, reason string) permission {
	select {
	case a := <-l.answers: // one that has come goes before the time that has passed
		l.take(a)
	default:
	}
	switch {
	case l.answer.permission == granted:
		return granted
	case l.answer.permission != wait:
		l.unanswered = time.Time{}
	case l.unanswered.IsZero():
		l.unanswered = now
	}
	if !l.calling && l.session != "" && (l.answer.permission == wait || now.Sub(l.called) >= leaseRetry) {
		l.owed = true
		l.call(ctx, now, func(ctx context.Context) leaseAnswer {
			return leaseAnswer{err: l.store.acquire(ctx, reason)}
		})
	}
	if l.answer.permission == wait && now.Sub(l.unanswered) >= leaseTimeout {
		return unknown
	}
	return l.answer.permission
}

// giveBack returns the lease once the node no longer needs it. It is called
// again and again, and does nothing when nothing is owed.
func (l *lease) giveBack(ctx context.Context, now time.Time) {
	l.answer, l.unanswered = leaseStatus{}, time.Time{}
	if !l.owed || l.calling || now.Sub(l.called) < leaseRetry {
		return
	}
	l.call(ctx, now, func(ctx context.Context) leaseAnswer {
		return leaseAnswer{released: true, err: l.store.release(ctx)}
	})
}

// under tells which session the node has now. A lease ends with the session
// that it was asked for under.
func (l *lease) under(s fleet.Session) {
	if s == l.ended {
		s = ""
	}
	if s != l.session {
		l.session, l.answer = s, leaseStatus{}
	}
}

func (l *lease) call(ctx context.Context, now time.Time, f func(context.Context) leaseAnswer) {
	l.calling, l.called = true, now
	session := l.session
	go func() {
		ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
		defer cancel()
		a := f(ctx)
		a.session = session
		l.answers <- a
	}()
}

// take records an answer from answers.
func (l *lease) take(a leaseAnswer) {
	l.calling = false
	var refusal *guard.Refusal
	switch {
	case a.released:
		l.owed = a.err != nil
	case errors.Is(a.err, fleet.ErrSession):
		l.ended = a.session
	case a.session != l.session:
		// The lease, if this is one, has ended with its session.
	case a.err == nil:
		l.answer = leaseStatus{permission: granted}
	case errors.As(a.err, &refusal):
		l.answer = leaseStatus{refused, refusal}
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
