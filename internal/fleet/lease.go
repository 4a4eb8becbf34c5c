package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Leases live in one document, so that one compare-and-swap decides between all
// nodes that want one; and each is alive only while the holder key of its node
// is bound to the same session, so that a node that dies gives its lease back
// without anybody's help. The holder key is written first: a lease in the
// document whose holder key is missing is dead, and whoever comes next leaves
// it out. A holder key without a lease in the document means nothing.

// giveBackTimeout bounds the clearing up after a failed acquisition.
const giveBackTimeout = time.Second

// AcquireLease gets a lease for l.Node, or finds that the node holds one under
// this session already. Session of l is filled in here.
//
// decide is asked with the View and the leases of all other nodes that are
// alive at this moment; its error refuses the lease and is returned, wrapped.
// It may be called several times, and its last answer counts: nil means that no
// other lease was given between the reading it saw and the writing.
//
// A node acquires and releases one lease at a time.
//
// AcquireLease returns nil only if the lease was held a moment ago, and it ends
// with the session. With an error, a lease that this call may have written
// has been given back, or, when the store could not be reached, goes on
// counting against others until the session ends or ReleaseLease is called.
func (f *Fleet) AcquireLease(ctx context.Context, s Session, l Lease, decide func(*View, Leases) error) error {
	if err := l.validate(); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	held := false
	err := f.retry(ctx, func() (bool, error) {
		var err error
		held, err = f.holds(ctx, l.Node, s)
		return err == nil || errors.Is(err, errDamaged), err
	})
	if held || err != nil {
		return wrapLease(err)
	}

	l.Session = s
	proof, err := encode(l) // for operators; what counts is the session
	if err == nil {
		err = f.bind(ctx, prefixHolders+l.Node, proof, s)
	}
	if err == nil {
		err = f.retry(ctx, func() (bool, error) { return f.tryLease(ctx, l, decide) })
	}
	if err != nil {
		f.giveBack(ctx, l)
	}
	return wrapLease(err)
}

func wrapLease(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("lease: %w", err)
}

// holds reports whether node has a lease that is alive under s.
func (f *Fleet) holds(ctx context.Context, node string, s Session) (bool, error) {
	leases, _, err := f.readLeases(ctx)
	if err != nil {
		return false, err
	}
	for _, l := range leases.Holders {
		if l.Node == node && l.Session == s {
			return f.alive(ctx, l)
		}
	}
	return false, nil
}

// tryLease is one round of reading, deciding and writing. After a round whose
// writing got no answer, the next one writes the same again: if it was written,
// that changes nothing.
func (f *Fleet) tryLease(ctx context.Context, l Lease, decide func(*View, Leases) error) (done bool, err error) {
	leases, index, err := f.readLeases(ctx)
	if err != nil {
		return errors.Is(err, errDamaged), err
	}
	others, err := f.othersAlive(ctx, leases, l.Node)
	if err != nil {
		return false, err
	}
	if err := decide(f.View(), Leases{Holders: slices.Clone(others)}); err != nil {
		return true, fmt.Errorf("refused: %w", err)
	}
	others = append(others, l)
	slices.SortFunc(others, func(a, b Lease) int { return strings.Compare(a.Node, b.Node) })
	value, err := encode(Leases{Holders: others})
	if err != nil {
		return true, err
	}
	if _, err := f.store.CompareAndSwap(ctx, keyLeases, value, index); err != nil {
		return false, err
	}
	// The session may have ended while this node was held up. Then others have
	// stopped counting the lease.
	ok, err := f.alive(ctx, l)
	if err == nil && !ok {
		err = ErrSession
	}
	return err == nil || errors.Is(err, ErrSession), err
}

// errDamaged says that the document of leases cannot be read. Nobody gets a
// lease until an operator deletes it: to take it for empty could let the whole
// fleet withdraw.
var errDamaged = errors.New("the document of leases is damaged")

func (f *Fleet) readLeases(ctx context.Context) (Leases, uint64, error) {
	e, err := f.store.Get(ctx, keyLeases)
	if errors.Is(err, ErrNotFound) {
		return Leases{}, 0, nil
	}
	if err != nil {
		return Leases{}, 0, err
	}
	leases, err := decodeLeases(e.Value)
	if err != nil {
		return Leases{}, 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return leases, e.Index, nil
}

// othersAlive returns the leases that are alive, without that of node.
func (f *Fleet) othersAlive(ctx context.Context, leases Leases, node string) ([]Lease, error) {
	var others []Lease
	for _, l := range leases.Holders {
		if l.Node == node {
			continue
		}
		ok, err := f.alive(ctx, l)
		if err != nil {
			return nil, err
		}
		if ok {
			others = append(others, l)
		}
	}
	return others, nil
}

// alive asks the store whether l counts. The document must have been read before.
func (f *Fleet) alive(ctx context.Context, l Lease) (bool, error) {
	e, err := f.store.Get(ctx, prefixHolders+l.Node)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && l.heldBy(e), err
}

// heldBy reports whether the holder key proves that l is alive.
func (l *Lease) heldBy(holder Entry) bool {
	return holder.Session == l.Session && l.Session != ""
}

// giveBack deletes the holder key of a lease that was not acquired, even when
// the caller has run out of time. Whatever reached the document is dead then.
func (f *Fleet) giveBack(ctx context.Context, l Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	e, err := f.store.Get(ctx, prefixHolders+l.Node)
	if err == nil && l.heldBy(e) {
		_, err = f.store.CompareAndSwap(ctx, e.Key, nil, e.Index)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		f.log.Warn("a lease that was not acquired could not be given back", "node", l.Node, "error", err)
	}
}

// ReleaseLease gives node's lease back, whichever session holds it. To release
// one that is not held succeeds.
func (f *Fleet) ReleaseLease(ctx context.Context, node string) error {
	if err := checkName("node", node); err != nil {
		return err
	}
	// Either half alone ends the lease: what is left of the other is dead.
	document := f.update(ctx, keyLeases, func(old []byte) ([]byte, error) {
		if old == nil {
			return nil, nil
		}
		leases, err := decodeLeases(old)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		kept := slices.DeleteFunc(leases.Holders, func(l Lease) bool { return l.Node == node })
		if len(kept) == len(leases.Holders) {
			return old, nil
		}
		return encode(Leases{Holders: kept})
	})
	holder := f.update(ctx, prefixHolders+node, func([]byte) ([]byte, error) { return nil, nil })
	if document == nil || holder == nil {
		return nil
	}
	return wrapLease(errors.Join(document, holder))
}
