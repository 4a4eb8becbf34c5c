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
// without anybody's help. Both are written in one step: a lease in the document
// whose holder key is missing is dead, and whoever comes next leaves it out. A holder key without a lease in the document means nothing.
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
	a := acquisition{fleet: f, lease: l, holder: Binding{prefixHolders + l.Node, proof, s}, decide: decide}
	err = f.retry(ctx, func() (bool, error) { return a.try(ctx) })
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
	holder   Binding
	decide   func(*View, Leases) Ruling
	tried    bool  // what the View shows
	answered bool  // the store has answered
	refused  error // by the last decision
}

// try is one round of deciding and writing. After a round whose writing got no
// answer, the next one decides anew: what was written then is this node's own
// entry, and does not count.
//
// Every question to the store delays a withdrawal. So the first try takes the
// document from the View, which shows document and holders as they were at one
// time, a moment ago; that nobody has written since is for the swap to say. A
// refusal by what may be over is no answer.
func (a *acquisition) try(ctx context.Context) (done bool, err error) {
	if view := a.fleet.View(); !a.tried && view.Connected && !view.damaged {
		a.tried = true
		value, err := a.propose(view.Leases)
		if err == nil && a.refused == nil {
			err = a.write(ctx, value, view.leasesIndex)
			if !errors.Is(err, ErrConflict) {
				return err == nil || errors.Is(err, ErrSession), err
			}
		}
	}
	document, index, err := a.fleet.readLeases(ctx)
	if err != nil {
		return errors.Is(err, errDamaged), err
	}
	a.answered = true
	if document, err = a.fleet.living(ctx, document, a.lease); err != nil {
		return false, err
	}
	value, err := a.propose(document)
	if err != nil || value == nil {
		return true, err
	}
	err = a.write(ctx, value, index)
	return err == nil || errors.Is(err, ErrSession), err
}

// propose decides on a document without dead entries, and returns the one to
// write, nil if there is nothing to write.
func (a *acquisition) propose(document Leases) ([]byte, error) {
	mine := a.lease
	if i := indexOf(document.Waiting, mine); i >= 0 {
		mine.At = document.Waiting[i].At
	}
	other := func(l Lease) bool { return l.Node != mine.Node }
	next := Leases{Holders: filter(document.Holders, other), Waiting: filter(document.Waiting, other), Freeze: document.Freeze}
	ruling := a.decide(a.fleet.View(), next.clone())
	a.refused, next.Freeze = ruling.Refused, ruling.Freeze
	if a.refused == nil {
		next.Holders = insert(next.Holders, mine)
		return encode(next)
	}
	if i := indexOf(document.Waiting, mine); i >= 0 {
		mine.Usage = document.Waiting[i].Usage // a wish that goes on is not written again for every figure
	}
	if next.Waiting = insert(next.Waiting, mine); len(next.Waiting) > maxWaiting {
		return nil, nil
	}
	return encode(next)
}

// write puts the document in place of the one with the given index, together
// with the proof that this node is alive.
func (a *acquisition) write(ctx context.Context, value []byte, index uint64) error {
	err := a.fleet.store.BindAndSwap(ctx, a.holder, keyLeases, value, index)
	a.answered = a.answered || err == nil || errors.Is(err, ErrConflict)
	return err
}

// filter returns what keep is true of; never nil.
func filter(list []Lease, keep func(Lease) bool) []Lease {
	kept := []Lease{}
	for _, l := range list {
		if keep(l) {
			kept = append(kept, l)
		}
	}
	return kept
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

// living returns the document, which was read before, without the entries of
// others that are dead, and with those of mine that are under its session.
func (f *Fleet) living(ctx context.Context, document Leases, mine Lease) (Leases, error) {
	other := func(l Lease) bool { return l.Node != mine.Node }
	var holders []Entry
	if slices.ContainsFunc(document.Holders, other) || slices.ContainsFunc(document.Waiting, other) {
		var err error
		if holders, _, err = f.store.List(ctx, prefixHolders); err != nil {
			return Leases{}, err
		}
	}
	alive := func(l Lease) bool {
		if !other(l) {
			return l.Session == mine.Session
		}
		i, ok := slices.BinarySearchFunc(holders, prefixHolders+l.Node, func(e Entry, key string) int { return strings.Compare(e.Key, key) })
		return ok && l.heldBy(holders[i])
	}
	document.Holders, document.Waiting = filter(document.Holders, alive), filter(document.Waiting, alive)
	return document, nil
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
