package dnssec

import (
	"fmt"
	"slices"
	"time"
)

// Status is a ring without its secrets, for operators.
type Status struct {
	Zone       string `json:"zone"`
	Generation uint64 `json:"generation"`
	// Signed is false for a zone that has become unsigned, and for one without keys.
	Signed bool        `json:"signed"`
	Keys   []KeyStatus `json:"keys"`
	// DS are the DS records that the parent is to have: of keys that the zone asks
	// for by CDS records now. None while the parent must not have any yet.
	DS []string `json:"ds"`
	// Next is what happens by itself, soonest first.
	Next []Event `json:"next"`
	// Waiting is what the zone waits for somebody else to do; empty if for nothing.
	Waiting string `json:"waiting,omitempty"`
}

// KeyStatus is a key without its secret.
type KeyStatus struct {
	Tag       uint16    `json:"tag"`
	Role      Role      `json:"role"`
	Algorithm uint8     `json:"algorithm"`
	State     string    `json:"state"`
	Created   time.Time `json:"created"`
	// DS is the key's DS record, whether the parent is to have it or not; empty for
	// a ZSK.
	DS string `json:"ds,omitempty"`
}

// Event is something that happens at a time.
type Event struct {
	At   time.Time `json:"at"`
	Kind EventKind `json:"kind"`
	What string    `json:"what"` // in words
}

// EventKind is a kind of event.
type EventKind string

// The kinds of events.
const (
	Publishing EventKind = "publishing" // of a DNSKEY record
	Activating EventKind = "activating" // a key begins to sign the zone
	Offering   EventKind = "offering"   // the parent is asked for a DS record
	Retiring   EventKind = "retiring"   // a key signs the zone no more
	Removing   EventKind = "removing"   // of a DNSKEY record
	Unsigning  EventKind = "unsigning"  // the zone becomes unsigned
)

// Status returns what a ring is at now.
func (r Ring) Status(now time.Time) Status {
	p := r.phase(now)
	s := Status{Zone: r.Zone, Generation: r.Generation, Signed: len(r.Keys) > 0 && !ended(r.Unsigned, now)}
	newest := -1
	for i := range r.Keys {
		k := &r.Keys[i]
		if k.isEntry() {
			newest = i
		}
		each := KeyStatus{Tag: k.Tag(), Role: k.Role, Algorithm: k.Algorithm, State: r.state(i, now, p), Created: k.Created}
		if ds, err := k.DS(r.Zone); err == nil && k.isEntry() {
			each.DS = ds.String()
		}
		s.Keys = append(s.Keys, each)
		for _, e := range []Event{
			{k.Published, Publishing, "is published"},
			{k.Active, Activating, "signs the zone"},
			{k.Offered, Offering, "is asked of the parent"},
			{k.Retired, Retiring, "signs the zone no more"},
			{k.Removed, Removing, "is published no more"},
		} {
			if e.At.After(now) && (e.Kind != Offering || r.Leaving.IsZero()) {
				e.What = fmt.Sprintf("%s %d %s", k.Role, k.Tag(), e.What)
				s.Next = append(s.Next, e)
			}
		}
	}
	if r.Unsigned.After(now) {
		s.Next = append(s.Next, Event{r.Unsigned, Unsigning, "the zone becomes unsigned"})
	}
	slices.SortStableFunc(s.Next, func(a, b Event) int { return a.At.Compare(b.At) })
	switch {
	case !s.Signed:
	case !r.Leaving.IsZero():
		if r.Unsigned.IsZero() {
			s.Waiting = "for the parent to take all DS records of the zone away"
		}
	case p.parent >= 0:
		s.DS = []string{s.Keys[p.parent].DS}
		if p.parent == newest && r.Keys[newest].Secured.IsZero() {
			s.Waiting = fmt.Sprintf("for the parent to have the DS record of %s %d, and of no other key", r.Keys[newest].Role, s.Keys[newest].Tag)
		}
	}
	return s
}

// state says what the i-th key is doing, in the words of RFC 7583 section 3.1 where
// it has one.
func (r Ring) state(i int, now time.Time, p phase) string {
	k := &r.Keys[i]
	published, signs := slices.Contains(p.published, i), slices.Contains(p.zone, i)
	switch {
	case ended(r.Unsigned, now), k.gone(now):
		return "removed"
	case !published && signs && !ended(k.Removed, now):
		return "signs, not published yet"
	case !published:
		return "signs until no cache has its DNSKEY"
	case k.Role == ZSK && signs:
		return "active"
	case k.Role == ZSK && ended(k.Retired, now):
		return "retired"
	case k.Role == ZSK, p.parent < i:
		return "published"
	case p.parent > i && k.Removed.IsZero():
		return "active until the parent has the DS of the next"
	case p.parent > i:
		return "retired"
	case k.Secured.IsZero():
		return "ready, waits for its DS"
	}
	return "active"
}
