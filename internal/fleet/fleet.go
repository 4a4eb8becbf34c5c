package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Keys of the store; the package comment has the table.
const (
	prefixReports        = "reports/"
	prefixState          = "state/"
	prefixDrains         = prefixState + "drains/"
	prefixPrefixDrains   = prefixState + "prefix-drains/"
	prefixOverrides      = prefixState + "overrides/"
	prefixSteerOverrides = prefixState + "steer-overrides/"
	prefixHolders        = prefixState + "holders/"
	prefixInventory      = prefixState + "inventory/"
	keyLeases            = prefixState + "leases"
	keyRing              = prefixState + "ring"
	keyRollout           = prefixState + "rollout"
	prefixDocuments      = "documents/"
	prefixRTT            = "rtt/"
	prefixQueries        = "queries/"
	keyPlan              = "plan"
	prefixZoneKeys       = "dnssec/"
)

// A write that got no answer, or met another writer, is tried again this often,
// with jittered pauses that add up to about a second and a half.
const (
	writeTries = 8
	writePause = 15 * time.Millisecond // the first; each is twice the one before
)

// Config makes a [Fleet].
type Config struct {
	// Store keeps the values. Required.
	Store Store
	// Sealer seals the rings. It may be nil only if Store is a *Memory, whose
	// values never leave the process.
	Sealer *Sealer
	// ValidRing says what is wrong with a ring in clear; nil accepts all. Its
	// error must not repeat what is secret.
	ValidRing func(ring []byte) error
	// ValidRollout says what is wrong with a rollout; nil accepts all.
	ValidRollout func(rollout []byte) error
	// ValidZoneKeys says what is wrong with the ring of a zone's DNSSEC keys in
	// clear; its error must not repeat what is secret. Nil leaves [View].ZoneKeys
	// empty: only those who sign zones read their keys.
	ValidZoneKeys func(zone string, ring []byte) error
	// FollowRTT fills in [View].RTT and Queries: much to read, of which only DNS
	// nodes have a use.
	FollowRTT bool
	// Pause waits between two tries of a write for about as long as it is told,
	// or until ctx is done, and returns ctx's error then. Default: by the
	// clock, jittered. A simulation on virtual time has its own.
	Pause func(ctx context.Context, d time.Duration) error
	// Log gets transitions and rejected values. Default: none is written.
	Log *slog.Logger
	// Metrics registers the package's metrics; nil leaves them unregistered.
	Metrics prometheus.Registerer
}

// Fleet gives the values of a [Store] their types, and keeps a [View] of them.
//
// Its writing methods validate first, then go on until the write is known to
// have happened, to have been refused, or ctx is done; a write that was done
// but whose answer was lost is recognised and not done again. After some tries
// they give up with the store's last error. They work whether Run does or not.
type Fleet struct {
	store        Store
	sealer       *Sealer
	validRing    func([]byte) error
	validRollout func([]byte) error
	validKeys    func(string, []byte) error // nil: zones' keys are not followed
	followRTT    bool
	pause        func(context.Context, time.Duration) error
	log          *slog.Logger
	metrics      *metrics
	sequence     atomic.Uint64
	view         atomic.Pointer[View] // never nil; replaced by the keeper only
}

// New returns a Fleet. Its View knows nothing before Run.
func New(cfg Config) (*Fleet, error) {
	if cfg.Store == nil {
		return nil, errors.New("fleet: a store is required")
	}
	if _, private := cfg.Store.(*Memory); cfg.Sealer == nil && !private {
		return nil, errors.New("fleet: keys to seal secrets are required with a shared store")
	}
	f := &Fleet{
		store:        cfg.Store,
		sealer:       cfg.Sealer,
		validRing:    cfg.ValidRing,
		validRollout: cfg.ValidRollout,
		validKeys:    cfg.ValidZoneKeys,
		followRTT:    cfg.FollowRTT,
		pause:        cfg.Pause,
		log:          cfg.Log,
		metrics:      newMetrics(cfg.Metrics),
	}
	if f.validRollout == nil {
		f.validRollout = func([]byte) error { return nil }
	}
	if f.validRing == nil {
		f.validRing = func([]byte) error { return nil }
	}
	if f.pause == nil {
		f.pause = func(ctx context.Context, d time.Duration) error { return sleep(ctx, jitter(d)) }
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.sequence.Store(rand.Uint64() >> 12) // a restarted node does not repeat the number it left
	f.view.Store(&View{LostSince: time.Now(), changed: make(chan struct{})})
	return f, nil
}

// View returns what is known now. It never returns nil.
func (f *Fleet) View() *View { return f.view.Load() }

// PutReport writes a node's report, bound to the node's session. The error is
// [ErrSession] if the session has ended, and [ErrConflict] if another session
// holds the node's report: another node of that name, or this one before a
// restart (see [Fleet.TakeOver]).
func (f *Fleet) PutReport(ctx context.Context, s Session, r Report) error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	r.Sequence = f.sequence.Add(1)
	value, err := encode(r)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return f.bind(ctx, prefixReports+r.Node, value, s)
}

// TakeOver ends the session that holds the report of node, if one does, and
// with it the report and the lease that an earlier process of the same node
// left behind. A node calls it once when it starts, before its first report.
func (f *Fleet) TakeOver(ctx context.Context, node string) error {
	if err := checkName("node", node); err != nil {
		return err
	}
	return f.endHolder(ctx, prefixReports+node)
}

// endHolder ends the session that holds a key, if one does, and so deletes the
// key.
func (f *Fleet) endHolder(ctx context.Context, key string) error {
	return f.retry(ctx, func() (bool, error) {
		e, err := f.store.Get(ctx, key)
		switch {
		case errors.Is(err, ErrNotFound):
			return true, nil
		case err != nil:
			return false, err
		}
		err = f.store.EndSession(ctx, e.Session)
		return err == nil, err
	})
}

// SetDrain writes a drain in place of the one for the same scope, name and
// prefix.
func (f *Fleet) SetDrain(ctx context.Context, d Drain) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	value, err := encode(d)
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return f.update(ctx, drainKey(d), func([]byte) ([]byte, error) { return value, nil })
}

// ClearDrain takes a drain away. To clear one that is not there succeeds.
func (f *Fleet) ClearDrain(ctx context.Context, scope, name string) error {
	d := Drain{Scope: scope, Name: name}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return f.update(ctx, drainKey(d), func([]byte) ([]byte, error) { return nil, nil })
}

// SetInventory writes the whole set of a pool's backends; none is a valid set.
func (f *Fleet) SetInventory(ctx context.Context, pool string, set []Backend) error {
	if err := checkName("pool", pool); err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	set, err := normalize(set)
	if err != nil {
		return fmt.Errorf("inventory of %s: %w", pool, err)
	}
	value, err := encode(inventory{set})
	if err != nil {
		return fmt.Errorf("inventory of %s: %w", pool, err)
	}
	return f.update(ctx, prefixInventory+pool, func([]byte) ([]byte, error) { return value, nil })
}

// Ring reads the ring of ticket keys in clear, and the prev to give to PutRing.
// The error is [ErrNotFound] if there is none. A ring that cannot be opened or is
// not valid is an error too; its index comes with it, for a caller that means
// to replace it.
func (f *Fleet) Ring(ctx context.Context) ([]byte, uint64, error) {
	e, err := f.store.Get(ctx, keyRing)
	if err != nil {
		return nil, 0, err
	}
	ring, err := f.openRing(e.Value)
	if err != nil {
		return nil, e.Index, fmt.Errorf("ring: %w", err)
	}
	return ring, e.Index, nil
}

// PutRing writes a ring in place of the one with index prev, or the first one
// with prev 0, and returns its index. The error is [ErrConflict] if another
// node was faster.
func (f *Fleet) PutRing(ctx context.Context, ring []byte, prev uint64) (uint64, error) {
	if err := f.validRing(ring); err != nil {
		return 0, fmt.Errorf("ring: %w", err)
	}
	return f.putSealed(ctx, keyRing, ring, prev)
}

// putSealed writes a secret in place of the one with index prev.
func (f *Fleet) putSealed(ctx context.Context, key string, secret []byte, prev uint64) (uint64, error) {
	// Sealed once: no two sealings are alike, so equal bytes in the store are
	// this call's own.
	value := bytes.Clone(secret)
	if f.sealer != nil {
		value = f.sealer.Seal(key, secret)
	}
	var index uint64
	err := f.retry(ctx, func() (bool, error) {
		var err error
		if index, err = f.store.CompareAndSwap(ctx, key, value, prev); err == nil {
			return true, nil
		}
		// A write without an answer may have happened, and a conflict may be
		// with this call's own earlier write.
		e, getErr := f.store.Get(ctx, key)
		if getErr == nil && bytes.Equal(e.Value, value) {
			index = e.Index
			return true, nil
		}
		known := getErr == nil || errors.Is(getErr, ErrNotFound)
		return known && errors.Is(err, ErrConflict), err
	})
	return index, err
}

func (f *Fleet) openRing(value []byte) ([]byte, error) {
	ring, err := f.open(keyRing, value)
	if err != nil {
		return nil, err
	}
	return ring, f.validRing(ring)
}

// open returns the secret of a sealed value.
func (f *Fleet) open(key string, value []byte) ([]byte, error) {
	if f.sealer == nil {
		return value, nil
	}
	return f.sealer.Open(key, value)
}

// bind is Store.Bind until it is answered. The same binding twice is one.
func (f *Fleet) bind(ctx context.Context, key string, value []byte, s Session) error {
	return f.retry(ctx, func() (bool, error) {
		err := f.store.Bind(ctx, key, value, s)
		return err == nil || errors.Is(err, ErrSession) || errors.Is(err, ErrConflict), err
	})
}

// update replaces the value of key by what change makes of it. Both are nil for
// no such key; an error of change ends the update. change is called again after
// a conflict, and after a write without an answer: then it must make of its own
// result the same result, by which that write is recognised.
func (f *Fleet) update(ctx context.Context, key string, change func(old []byte) ([]byte, error)) error {
	return f.retry(ctx, func() (bool, error) {
		e, err := f.store.Get(ctx, key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, err
		}
		value, err := change(e.Value)
		if err != nil {
			return true, err
		}
		if (value == nil) == (e.Index == 0) && bytes.Equal(value, e.Value) {
			return true, nil
		}
		_, err = f.store.CompareAndSwap(ctx, key, value, e.Index)
		return err == nil, err
	})
}

// retry calls try until it is done, with pauses in between.
func (f *Fleet) retry(ctx context.Context, try func() (done bool, err error)) error {
	pause := writePause
	for left := writeTries; ; left-- {
		done, err := try()
		if done || left == 1 {
			return err
		}
		f.metrics.retries.Inc()
		if f.pause(ctx, pause) != nil {
			return err
		}
		pause *= 2
	}
}

// sleep waits for d, or returns ctx's error when it is done first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// jitter returns between half of d and one and a half of it.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }
