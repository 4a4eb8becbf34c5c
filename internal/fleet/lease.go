package fleet

import (
	"bytes"
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
//
// A request that is refused is written too: the node goes on announcing, but
// whoever asks next knows that it wants to go, long before a report says so.

// maxWaiting bounds the wishes on record, and with them the document's size. Past
// it a refusal is an answer all the same.
const maxWaiting = 200

// giveBackTimeout bounds the clearing up after a failed acquisition.
const giveBackTimeout = time.Second

// Ruling is the answer to a request for a lease.
type Ruling struct {
	Refused error // nil grants the lease
	// Freeze is what the document says of a freeze from now on.
	Freeze *Freeze
}

// AcquireLease gets a lease for l.Node. Session of l is filled in here, and At is
// that of the first of several requests in a row.
//
// decide is asked with the View and with the document, without the entries of
// l.Node and of nodes that are gone. Its refusal is recorded, and returned
// wrapped. It may be called several times, and its last answer counts: nobody
// else has been given a lease, or refused one, between the reading it saw and
// the writing.
//
// A node acquires, updates and releases one lease at a time.
//
// AcquireLease returns nil only if the lease was held a moment ago, and it ends
// with the session. The error is [ErrSession] if that has ended, and [ErrBusy]
// if the store answers, but not in time, or other nodes that ask were always
// faster. With any other error but a refusal, a lease that this call may have
// written has been given back, or, when the store could not be
// reached, goes on counting against others until the session ends or
// ReleaseLease is called.
func (f *Fleet) AcquireLease(ctx context.Context, s Session, l Lease, decide func(*View, Leases) Ruling) error {
	if err := l.validate(); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	l.Session = s
	proof, err := encode(holderProof{l.Node, l.Pop, s})
	if err != nil {
		return wrapLease(err)
	}
	// The holder key has to be there before the document is written, but not
	// before it is read: every question to the store delays a withdrawal.
	a := acquisition{fleet: f, lease: l, decide: decide}
	var bound error
	wait := f.beside(func() { bound = f.bind(ctx, prefixHolders+l.Node, proof, s) })
	a.holder = func() error { wait(); return bound }
	err = f.retry(ctx, func() (bool, error) { return a.try(ctx) })
	if e := a.bound(); e != nil {
		err, a.refused = e, nil
	}
	switch {
	case err == nil && a.refused == nil:
	case errors.Is(err, ErrSession):
		f.giveBack(ctx, l)
	case a.refused != nil: // also when others were faster to write, and it is not on record
		err = fmt.Errorf("refused: %w", a.refused)
	case a.answered && (errors.Is(err, ErrConflict) || errors.Is(err, context.DeadlineExceeded)):
		err = ErrBusy // whatever was written is decided anew when the caller asks again
	default:
		f.giveBack(ctx, l)
	}
	return wrapLease(err)
}

// UpdateLease brings the record of a lease up to date that the node holds under
// s. The error is [ErrConflict] if it is not on record.
func (f *Fleet) UpdateLease(ctx context.Context, s Session, l Lease) error {
	if err := l.validate(); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	l.Session = s
	found := false
	err := f.updateLeases(ctx, func(doc *Leases) {
		i := indexOf(doc.Holders, l)
		if found = i >= 0; found {
			l.At = doc.Holders[i].At
			doc.Holders[i] = l
		}
	})
	if err == nil && !found {
		err = ErrConflict
	}
	return wrapLease(err)
}

func wrapLease(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("lease: %w", err)
}

// acquisition is one call of AcquireLease.
type acquisition struct {
	fleet    *Fleet
	lease    Lease
	decide   func(*View, Leases) Ruling
	holder   func() error // waits for the outcome of binding the holder key; nil once bound has it
	unbound  error        // that outcome
	answered bool         // the store has bound the holder key
	refused  error        // by the last decision
}

// bound waits until the holder key is bound, or not.
func (a *acquisition) bound() error {
	if a.holder != nil {
		a.unbound = a.holder()
		a.holder, a.answered = nil, a.unbound == nil
	}
	return a.unbound
}

// try is one round of reading, deciding and writing. After a round whose
// writing got no answer, the next one decides anew: what was written then is
// this node's own entry, and does not count.
func (a *acquisition) try(ctx context.Context) (done bool, err error) {
	f, mine := a.fleet, a.lease
	a.refused = nil
	document, index, err := f.readLeases(ctx)
	if err != nil {
		return errors.Is(err, errDamaged), err
	}
	next, err := f.others(ctx, document, mine.Node)
	if err != nil {
		return false, err
	}
	ruling := a.decide(f.View(), next.clone())
	a.refused, next.Freeze = ruling.Refused, ruling.Freeze
	if i := indexOf(document.Waiting, mine); i >= 0 {
		mine.At = document.Waiting[i].At
		if a.refused != nil { // a wish that goes on is not written again for every figure
			mine.Usage = document.Waiting[i].Usage
		}
	}
	if a.refused == nil {
		next.Holders = insert(next.Holders, mine)
	} else if next.Waiting = insert(next.Waiting, mine); len(next.Waiting) > maxWaiting {
		return true, nil
	}
	value, err := encode(next)
	if err != nil {
		return true, err
	}
	if err := a.bound(); err != nil {
		return true, err
	}
	if was, err := encode(document); err != nil || !bytes.Equal(was, value) {
		if _, err := f.store.CompareAndSwap(ctx, keyLeases, value, index); err != nil {
			return false, err
		}
	}
	// The session may have ended while this node was held up. Then others have
	// stopped counting the lease.
	ok, err := f.alive(ctx, mine)
	if err == nil && !ok {
		err = ErrSession
	}
	return err == nil || errors.Is(err, ErrSession), err
}

func (l Leases) clone() Leases {
	l.Holders, l.Waiting = slices.Clone(l.Holders), slices.Clone(l.Waiting)
	return l
}

// indexOf finds the entry of l's node under l's session.
func indexOf(list []Lease, l Lease) int {
	return slices.IndexFunc(list, func(o Lease) bool { return o.Node == l.Node && o.Session == l.Session })
}

// insert adds l to list, which is in order of node and has none of its node.
func insert(list []Lease, l Lease) []Lease {
	i, _ := slices.BinarySearchFunc(list, l.Node, func(o Lease, node string) int { return strings.Compare(o.Node, node) })
	return slices.Insert(list, i, l)
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

// others returns the document, which was read before, without the entries of
// node and those that are dead.
func (f *Fleet) others(ctx context.Context, leases Leases, node string) (Leases, error) {
	next := Leases{Holders: []Lease{}, Freeze: leases.Freeze}
	other := func(l Lease) bool { return l.Node != node }
	if !slices.ContainsFunc(leases.Holders, other) && !slices.ContainsFunc(leases.Waiting, other) {
		return next, nil
	}
	holders, _, err := f.store.List(ctx, prefixHolders)
	if err != nil {
		return Leases{}, err
	}
	alive := func(l Lease) bool {
		i, ok := slices.BinarySearchFunc(holders, prefixHolders+l.Node, func(e Entry, key string) int { return strings.Compare(e.Key, key) })
		return ok && l.heldBy(holders[i])
	}
	for _, l := range leases.Holders {
		if other(l) && alive(l) {
			next.Holders = append(next.Holders, l)
		}
	}
	for _, l := range leases.Waiting {
		if other(l) && alive(l) {
			next.Waiting = append(next.Waiting, l)
		}
	}
	return next, nil
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

// ReleaseLease gives node's lease back, or its wish for one, whichever session
// it stands under. To release what is not there succeeds.
func (f *Fleet) ReleaseLease(ctx context.Context, node string) error {
	if err := checkName("node", node); err != nil {
		return err
	}
	// Either half alone ends the lease: what is left of the other is dead.
	other := func(l Lease) bool { return l.Node == node }
	document := f.updateLeases(ctx, func(l *Leases) {
		l.Holders = slices.DeleteFunc(l.Holders, other)
		l.Waiting = slices.DeleteFunc(l.Waiting, other)
	})
	holder := f.update(ctx, prefixHolders+node, func([]byte) ([]byte, error) { return nil, nil })
	if document == nil || holder == nil {
		return nil
	}
	return wrapLease(errors.Join(document, holder))
}

// Thaw ends the freeze that found says, if that is the one recorded.
func (f *Fleet) Thaw(ctx context.Context, found Freeze) error {
	return wrapLease(f.updateLeases(ctx, func(l *Leases) {
		if l.Freeze != nil && l.Freeze.At.Equal(found.At) && l.Freeze.By == found.By && slices.Equal(l.Freeze.Pops, found.Pops) {
			l.Freeze = nil
		}
	}))
}

// updateLeases changes the document, if there is one.
func (f *Fleet) updateLeases(ctx context.Context, change func(*Leases)) error {
	return f.update(ctx, keyLeases, func(old []byte) ([]byte, error) {
		if old == nil {
			return nil, nil
		}
		leases, err := decodeLeases(old)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		change(&leases)
		return encode(leases)
	})
}
