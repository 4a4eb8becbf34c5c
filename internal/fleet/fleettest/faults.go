package fleettest

import (
	"context"
	"errors"
	"sync"
	"time"

	"anyedge/internal/fleet"
)

// ErrFault is the error of a call that was made to fail.
var ErrFault = errors.New("injected fault")

// Fault is what happens to a call.
type Fault int

const (
	// None lets the call through.
	None Fault = iota
	// Lost fails the call; it has no effect.
	Lost
	// Persisted fails the call after it took effect: the answer was lost.
	Persisted
	// Hang blocks the call until its context is done; it has no effect.
	Hang
)

// Op names a method of a [fleet.Store].
type Op string

// The methods of a Store. Writes are those for which Write is true.
const (
	OpGet          Op = "get"
	OpList         Op = "list"
	OpWatch        Op = "watch"
	OpSwap         Op = "compare_and_swap"
	OpBind         Op = "bind"
	OpNewSession   Op = "new_session"
	OpRenewSession Op = "renew_session"
	OpEndSession   Op = "end_session"
)

// Write reports whether op changes the store.
func (op Op) Write() bool { return op != OpGet && op != OpList && op != OpWatch }

// Faults is a [fleet.Store] that passes calls on to another one, or not, as
// told. It is safe for concurrent use.
type Faults struct {
	mu     sync.Mutex
	store  fleet.Store
	decide func(Op, string) Fault
	calls  map[Op]int
	epoch  context.Context // until the faults change: then hanging calls fail
	end    context.CancelFunc
}

// NewFaults returns a store without faults.
func NewFaults(store fleet.Store) *Faults {
	f := &Faults{store: store, calls: make(map[Op]int)}
	f.epoch, f.end = context.WithCancel(context.Background())
	return f
}

// Set has decide say what happens to each call from now on, by its method and
// key, prefix or session; nil lets all through. Calls that hang, and calls of
// Watch that wait, fail now, as connections do when a server goes or comes.
// decide is called by one goroutine at a time.
func (f *Faults) Set(decide func(Op, string) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decide = decide
	f.end()
	f.epoch, f.end = context.WithCancel(context.Background())
}

// SetStore puts another store in place, as when a server lost its disk.
func (f *Faults) SetStore(store fleet.Store) {
	f.mu.Lock()
	f.store = store
	f.mu.Unlock()
}

// Calls returns how often op was called.
func (f *Faults) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// call runs one call under its fault.
func (f *Faults) call(ctx context.Context, op Op, key string, do func(context.Context, fleet.Store) error) error {
	f.mu.Lock()
	f.calls[op]++
	fault := None
	if f.decide != nil {
		fault = f.decide(op, key)
	}
	store, epoch := f.store, f.epoch
	f.mu.Unlock()

	switch fault {
	case Lost:
		return ErrFault
	case Hang:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-epoch.Done():
			return ErrFault
		}
	}
	if op == OpWatch {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(epoch, func() { cancel(ErrFault) })()
	}
	err := do(ctx, store)
	if fault == Persisted && err == nil || errors.Is(context.Cause(ctx), ErrFault) {
		return ErrFault
	}
	return err
}

// Get implements [fleet.Store].
func (f *Faults) Get(ctx context.Context, key string) (e fleet.Entry, err error) {
	err = f.call(ctx, OpGet, key, func(ctx context.Context, s fleet.Store) (err error) {
		e, err = s.Get(ctx, key)
		return err
	})
	return e, err
}

// List implements [fleet.Store].
func (f *Faults) List(ctx context.Context, prefix string) (list []fleet.Entry, index uint64, err error) {
	err = f.call(ctx, OpList, prefix, func(ctx context.Context, s fleet.Store) (err error) {
		list, index, err = s.List(ctx, prefix)
		return err
	})
	return list, index, err
}

// Watch implements [fleet.Store].
func (f *Faults) Watch(ctx context.Context, prefix string, after uint64) (list []fleet.Entry, index uint64, err error) {
	err = f.call(ctx, OpWatch, prefix, func(ctx context.Context, s fleet.Store) (err error) {
		list, index, err = s.Watch(ctx, prefix, after)
		return err
	})
	return list, index, err
}

// CompareAndSwap implements [fleet.Store].
func (f *Faults) CompareAndSwap(ctx context.Context, key string, value []byte, prev uint64) (index uint64, err error) {
	err = f.call(ctx, OpSwap, key, func(ctx context.Context, s fleet.Store) (err error) {
		index, err = s.CompareAndSwap(ctx, key, value, prev)
		return err
	})
	if err != nil {
		index = 0
	}
	return index, err
}

// Bind implements [fleet.Store].
func (f *Faults) Bind(ctx context.Context, key string, value []byte, session fleet.Session) error {
	return f.call(ctx, OpBind, key, func(ctx context.Context, s fleet.Store) error {
		return s.Bind(ctx, key, value, session)
	})
}

// BindAndSwap implements [fleet.Store]. It is a swap of key.
func (f *Faults) BindAndSwap(ctx context.Context, b fleet.Binding, key string, value []byte, prev uint64) error {
	return f.call(ctx, OpSwap, key, func(ctx context.Context, s fleet.Store) error {
		return s.BindAndSwap(ctx, b, key, value, prev)
	})
}

// NewSession implements [fleet.Store].
func (f *Faults) NewSession(ctx context.Context, name string, ttl time.Duration) (session fleet.Session, err error) {
	err = f.call(ctx, OpNewSession, name, func(ctx context.Context, s fleet.Store) (err error) {
		session, err = s.NewSession(ctx, name, ttl)
		return err
	})
	if err != nil {
		session = ""
	}
	return session, err
}

// RenewSession implements [fleet.Store].
func (f *Faults) RenewSession(ctx context.Context, session fleet.Session) error {
	return f.call(ctx, OpRenewSession, string(session), func(ctx context.Context, s fleet.Store) error {
		return s.RenewSession(ctx, session)
	})
}

// EndSession implements [fleet.Store].
func (f *Faults) EndSession(ctx context.Context, session fleet.Session) error {
	return f.call(ctx, OpEndSession, string(session), func(ctx context.Context, s fleet.Store) error {
		return s.EndSession(ctx, session)
	})
}
