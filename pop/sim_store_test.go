package pop

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"anyedge/internal/fleet"
)

// clock is a loop of events on virtual time. Everything in a simulated fleet
// happens in its events, one after the other, so that a seed tells the whole
// story.
type clock struct {
	now   time.Time
	rng   *rand.Rand
	queue eventQueue
	count int
}

type event struct {
	at  time.Time
	seq int // events of one time happen in the order in which they were planned
	do  func()
}

func (c *clock) after(d time.Duration, do func()) {
	c.count++
	heap.Push(&c.queue, event{c.now.Add(d), c.count, do})
}

// runUntil lets everything happen that is due before end.
func (c *clock) runUntil(end time.Time) {
	for len(c.queue) > 0 && c.queue[0].at.Before(end) {
		e := heap.Pop(&c.queue).(event)
		c.now = e.at
		e.do()
	}
	c.now = end
}

// upTo returns a time from 0 to d.
func (c *clock) upTo(d time.Duration) time.Duration { return time.Duration(c.rng.Int64N(int64(d) + 1)) }

// oneIn is true once in n times.
func (c *clock) oneIn(n int) bool { return c.rng.IntN(n) == 0 }

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(e any)   { *q = append(*q, e.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

var errCutOff = errors.New("no answer")

// simStore is a fleet store on virtual time, with a network before it that
// loses, delays and repeats. The code of package fleet runs on it unchanged, as
// coroutines: a call to the store ends the turn of its coroutine until the event
// that brings the answer.
type simStore struct {
	*clock
	entries  map[string]fleet.Entry
	sessions map[fleet.Session]time.Time // until when
	index    uint64
	gone     bool // the store itself does not answer
	flaky    bool // the network misbehaves
	current  *simCall
	written  func(before, after fleet.Entry) // told of every write

	open []*simCall // calls that wait for an answer
}

// simCall is one coroutine, a call of a method of [fleet.Fleet] by a node.
type simCall struct {
	store    *simStore
	reach    func() bool     // whether the node can reach the store
	ctx      context.Context // of the questions; clearing up has another
	deadline time.Time       // of ctx
	yield    func(*simOp) bool
	next     func() (*simOp, bool)
	stop     func()
	done     func()
	over     bool // abandoned
}

// ask ends the turn of the coroutine until op has been performed.
func (c *simCall) ask(ctx context.Context, op *simOp) error {
	if c.ctx != ctx {
		c.ctx, c.deadline = ctx, c.store.now.Add(leaseCall)
	}
	if c.over || !c.store.now.Before(c.deadline) || !c.yield(op) {
		return context.DeadlineExceeded
	}
	return op.err
}

// simOp is one question to the store.
type simOp struct {
	pause  time.Duration // of a wait between two tries
	effect func() error
	err    error
}

// spawn runs f as a coroutine, and done when it has ended.
func (s *simStore) spawn(reach func() bool, f, done func()) *simCall {
	c := &simCall{store: s, reach: reach, done: done}
	c.next, c.stop = iter.Pull(func(yield func(*simOp) bool) {
		c.yield = yield
		f()
	})
	s.open = append(s.open, c)
	c.resume()
	return c
}

// abandon ends a coroutine whose process has died. What it asked for may yet
// happen.
func (c *simCall) abandon() {
	c.done = func() {}
	c.store.current, c.over = c, true
	c.stop()
	c.store.forget(c)
}

func (s *simStore) forget(c *simCall) {
	s.open = slices.DeleteFunc(s.open, func(o *simCall) bool { return o == c })
}

// resume gives the coroutine its turn.
func (c *simCall) resume() {
	c.store.current = c
	op, more := c.next()
	if !more {
		c.store.forget(c)
		c.done()
		return
	}
	c.perform(op)
}

// perform has an operation happen, or not, and its answer arrive, or not.
func (c *simCall) perform(op *simOp) {
	s := c.store
	left := max(c.deadline.Sub(s.now), 0)
	fail := func(after time.Duration) {
		op.err = errCutOff
		if after >= left {
			after, op.err = left, context.DeadlineExceeded
		}
		s.after(after, c.resumeIfOpen)
	}
	if op.effect == nil {
		if op.pause < left {
			s.after(op.pause, c.resumeIfOpen)
		} else {
			fail(left)
		}
		return
	}
	there := time.Millisecond + s.upTo(5*time.Millisecond)
	late := func(d time.Duration) { s.after(d, func() { _ = op.effect() }) }
	if !c.reach() || s.gone {
		fail([]time.Duration{there, left}[s.rng.IntN(2)])
		return
	}
	if s.flaky {
		switch s.rng.IntN(25) {
		case 0: // lost
			fail(left)
			return
		case 1: // the answer is lost
			late(there)
			fail([]time.Duration{2 * there, left}[s.rng.IntN(2)])
			return
		case 2: // late: happens when nobody expects it any more
			late(left + s.upTo(15*time.Second))
			fail(left)
			return
		case 3: // twice
			late(there + s.upTo(15*time.Second))
		case 4: // slow
			there = s.upTo(leaseTimeout)
		}
	}
	s.after(there, func() {
		err := op.effect()
		if s.now.Add(there).After(c.deadline) {
			left = max(c.deadline.Sub(s.now), 0)
			fail(left)
			return
		}
		s.after(there, func() { op.err = err; c.resumeIfOpen() })
	})
}

func (c *simCall) resumeIfOpen() {
	if slices.Contains(c.store.open, c) {
		c.resume()
	}
}

// do asks the store for the coroutine that has the turn.
func (s *simStore) do(ctx context.Context, effect func() error) error {
	return s.current.ask(ctx, &simOp{effect: effect})
}

// pause is the wait of package fleet between two tries.
func (s *simStore) pause(ctx context.Context, d time.Duration) error {
	return s.current.ask(ctx, &simOp{pause: d/2 + s.upTo(d)})
}

// Get implements [fleet.Store], as do the methods below.
func (s *simStore) Get(ctx context.Context, key string) (e fleet.Entry, err error) {
	err = s.do(ctx, func() error {
		var ok bool
		if e, ok = s.entries[key]; !ok {
			return fleet.ErrNotFound
		}
		return nil
	})
	return e, err
}

func (s *simStore) List(ctx context.Context, prefix string) (list []fleet.Entry, index uint64, err error) {
	err = s.do(ctx, func() error {
		list, index = nil, s.index
		for key, e := range s.entries {
			if strings.HasPrefix(key, prefix) {
				list = append(list, e)
			}
		}
		slices.SortFunc(list, func(a, b fleet.Entry) int { return strings.Compare(a.Key, b.Key) })
		return nil
	})
	return list, index, err
}

func (s *simStore) CompareAndSwap(ctx context.Context, key string, value []byte, prev uint64) (index uint64, err error) {
	err = s.do(ctx, func() error {
		old, ok := s.entries[key]
		switch {
		case value == nil && !ok:
			return nil
		case old.Index != prev:
			return fleet.ErrConflict
		case value == nil:
			s.remove(key)
			return nil
		}
		index = s.put(fleet.Entry{Key: key, Value: value, Session: old.Session})
		return nil
	})
	return index, err
}

func (s *simStore) Bind(ctx context.Context, key string, value []byte, session fleet.Session) error {
	return s.do(ctx, func() error {
		if s.sessions[session].IsZero() {
			return fleet.ErrSession
		}
		if old := s.entries[key]; old.Session != "" && old.Session != session {
			return fleet.ErrConflict
		}
		s.put(fleet.Entry{Key: key, Value: value, Session: session})
		return nil
	})
}

func (s *simStore) BindAndSwap(ctx context.Context, b fleet.Binding, key string, value []byte, prev uint64) error {
	return s.do(ctx, func() error {
		if s.sessions[b.Session].IsZero() {
			return fleet.ErrSession
		}
		old := s.entries[key]
		if held := s.entries[b.Key].Session; held != "" && held != b.Session || old.Index != prev {
			return fleet.ErrConflict
		}
		s.put(fleet.Entry{Key: b.Key, Value: b.Value, Session: b.Session})
		s.put(fleet.Entry{Key: key, Value: value, Session: old.Session})
		return nil
	})
}

func (s *simStore) put(e fleet.Entry) uint64 {
	old := s.entries[e.Key]
	if old.Index != 0 && old.Session == e.Session && bytes.Equal(old.Value, e.Value) {
		return old.Index
	}
	s.index++
	e.Index = s.index
	s.entries[e.Key] = e
	s.written(old, e)
	return e.Index
}

func (s *simStore) remove(key string) {
	old := s.entries[key]
	delete(s.entries, key)
	s.index++
	s.written(old, fleet.Entry{Key: key})
}

// newSession begins a session at once: how a node comes to one is not what is
// simulated here.
func (s *simStore) newSession(node string) fleet.Session {
	s.index++
	session := fleet.Session(fmt.Sprint(node, "/", s.index))
	s.sessions[session] = s.now.Add(sessionTTL)
	return session
}

func (s *simStore) endSession(session fleet.Session) {
	delete(s.sessions, session)
	for _, key := range s.keys() {
		if session != "" && s.entries[key].Session == session {
			s.remove(key)
		}
	}
}

func (s *simStore) keys() []string {
	keys := make([]string, 0, len(s.entries))
	for key := range s.entries {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

var errNotSimulated = errors.New("not simulated")

func (s *simStore) Watch(context.Context, string, uint64) ([]fleet.Entry, uint64, error) {
	return nil, 0, errNotSimulated
}

func (s *simStore) NewSession(context.Context, string, time.Duration) (fleet.Session, error) {
	return "", errNotSimulated
}

func (s *simStore) RenewSession(context.Context, fleet.Session) error { return errNotSimulated }
func (s *simStore) EndSession(context.Context, fleet.Session) error   { return errNotSimulated }
