package dnssec

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"time"
)

// What an operator's wish to change a ring can meet.
var (
	// ErrBusy says that a rollover of those keys is under way already, or must not
	// begin yet.
	ErrBusy = errors.New("a rollover is under way")
	// ErrNoKey says that there is no such key.
	ErrNoKey = errors.New("no such key")
)

// Advance returns the ring of zone with all that is to be decided at now, and
// whether that made a difference. A ring without keys gets its first ones. parent
// is what was found to be the zone's DS records at its parent just now, by each who
// was asked; nil if nobody was. It is called from time to time, at Until at the
// latest, and may be called at any time.
//
// On error the ring is returned as it was.
func (r Ring) Advance(now time.Time, zone string, p Policy, parent [][]DS, rand io.Reader) (next Ring, changed bool, err error) {
	if len(r.Keys) == 0 {
		return r.change(now, zone, p, func(w *work) error { return w.begin(rand) })
	}
	return r.change(now, zone, p, func(w *work) error {
		w.prune()
		w.observe(parent)
		if !w.Leaving.IsZero() {
			return nil
		}
		w.retime()
		if what, due := w.due(); due {
			return w.roll(what, rand)
		}
		return nil
	})
}

// Roll begins a rollover by hand of the key of a role: of both, if the zone has a
// CSK or is to have another algorithm. The error is ErrBusy if it must wait.
func (r Ring) Roll(now time.Time, p Policy, role Role, rand io.Reader) (Ring, error) {
	next, _, err := r.change(now, r.Zone, p, func(w *work) error {
		what := tracks{zone: role != KSK, entry: role != ZSK}
		if zone, _ := w.current(); zone.Role == CSK || w.otherKind() {
			what = tracks{true, true}
		}
		if !w.mayRoll(what) {
			return fmt.Errorf("%s: %w", role, ErrBusy)
		}
		return w.roll(what, rand)
	})
	return next, err
}

// Confirm notes by hand that the parent has the DS record of the key with a tag,
// and that of no other.
func (r Ring) Confirm(now time.Time, p Policy, tag uint16) (Ring, error) {
	next, _, err := r.change(now, r.Zone, p, func(w *work) error {
		at := w.phase(now).parent
		if at < 0 || w.Keys[at].Tag() != tag || !w.Leaving.IsZero() {
			return fmt.Errorf("the zone does not ask for a DS record of %d now: %w", tag, ErrNoKey)
		}
		w.secure(at)
		return nil
	})
	return next, err
}

// Leave begins to make the zone unsigned, once its parent has no DS records of it.
func (r Ring) Leave(now time.Time, p Policy) (Ring, error) {
	next, _, err := r.change(now, r.Zone, p, func(w *work) error {
		if w.Leaving.IsZero() {
			w.Leaving = now
		}
		return nil
	})
	return next, err
}

// Stay ends what Leave began. A zone that has become unsigned is signed anew, with
// other keys, and so is one that is about to become it.
func (r Ring) Stay(now time.Time, p Policy, rand io.Reader) (Ring, error) {
	next, _, err := r.change(now, r.Zone, p, func(w *work) error {
		late := ended(w.Unsigned, now.Add(p.Propagation)) // for some node, perhaps
		if at := w.phase(now).parent; at >= 0 && !w.Unsigned.IsZero() {
			w.Keys[at].Secured = time.Time{} // the parent was seen without its DS record
		}
		w.Leaving, w.Unsigned = time.Time{}, time.Time{}
		if !late {
			return nil
		}
		w.Keys = nil
		return w.begin(rand)
	})
	return next, err
}

// work is a ring that is being changed.
type work struct {
	Ring
	now time.Time
	p   Policy
}

// change applies do to a copy of r.
func (r Ring) change(now time.Time, zone string, p Policy, do func(*work) error) (Ring, bool, error) {
	now = now.UTC().Round(0) // as other hosts see it
	if err := p.Validate(); err != nil {
		return r, false, fmt.Errorf("dnssec policy: %w", err)
	}
	w := &work{Ring: r, now: now, p: p}
	w.Keys = slices.Clone(r.Keys)
	if len(r.Keys) == 0 {
		w.Version, w.Zone = version, zone
	} else if err := r.Validate(); err != nil {
		return r, false, err
	}
	if err := do(w); err != nil {
		return r, false, err
	}
	if reflect.DeepEqual(w.Ring, r) {
		return r, false, nil
	}
	w.Generation++
	if err := w.Validate(); err != nil {
		return r, false, err
	}
	return w.Ring, true, nil
}

// tracks are what a rollover replaces. A CSK is on both.
type tracks struct{ zone, entry bool }

func isZone(k *RingKey) bool  { return k.isZone() }
func isEntry(k *RingKey) bool { return k.isEntry() }

// alive returns the keys of a kind that are not gone.
func (w *work) alive(kind func(*RingKey) bool) []int {
	var at []int
	for i := range w.Keys {
		if kind(&w.Keys[i]) && !w.Keys[i].gone(w.now) {
			at = append(at, i)
		}
	}
	return at
}

// current returns the newest keys that sign the zone, and its keys.
func (w *work) current() (zone, entry *RingKey) {
	for i := range w.Keys {
		if w.Keys[i].isZone() {
			zone = &w.Keys[i]
		}
		if w.Keys[i].isEntry() {
			entry = &w.Keys[i]
		}
	}
	return zone, entry
}

// otherKind reports whether the policy wants keys of another kind than there are.
func (w *work) otherKind() bool {
	zone, entry := w.current()
	return zone.Algorithm != w.p.Algorithm || entry.Algorithm != w.p.Algorithm || (entry.Role == KSK) != w.p.Split
}

// mayRoll reports whether no rollover is under way that what would disturb.
func (w *work) mayRoll(what tracks) bool {
	return w.Leaving.IsZero() && !w.now.Before(w.Calm) &&
		(!what.zone || len(w.alive(isZone)) == 1) && (!what.entry || len(w.alive(isEntry)) == 1)
}

// due returns what is to be rolled now.
func (w *work) due() (what tracks, due bool) {
	zone, entry := w.current()
	switch {
	case w.otherKind():
		what = tracks{true, true}
	case lived(entry.Secured, w.p.EntryLifetime, w.now):
		what = tracks{zone: entry.Role == CSK, entry: true}
	case zone.Role == ZSK && lived(zone.Active, w.p.ZoneLifetime, w.now):
		what = tracks{zone: true}
	default:
		return what, false
	}
	return what, w.mayRoll(what)
}

// lived reports whether a lifetime that began at from is over; one of 0 never is.
func lived(from time.Time, lifetime time.Duration, now time.Time) bool {
	return lifetime > 0 && !from.IsZero() && !now.Before(from.Add(lifetime))
}

// ttls are the longest TTLs of keys and of the zone that may be in caches.
func (w *work) ttls() (keys, zone time.Duration) {
	return max(w.KeyTTL, w.p.KeyTTL), max(w.MaxTTL, w.p.MaxTTL)
}

// begin makes the first keys. They sign at once: no validator looks before the
// parent has a DS record, and that is not asked for before every unsigned answer
// has left the caches.
func (w *work) begin(rand io.Reader) error {
	offered := w.now.Add(w.p.settle(max(w.ttls())))
	w.KeyTTL, w.MaxTTL = w.p.KeyTTL, w.p.MaxTTL
	return w.add(rand, tracks{true, true}, RingKey{Published: w.now, Active: w.now, Offered: offered})
}

// add makes the keys of tracks, with the times of like.
func (w *work) add(rand io.Reader, what tracks, like RingKey) error {
	roles := []Role{CSK}
	switch {
	case !what.entry:
		roles = []Role{ZSK}
	case !what.zone:
		roles = []Role{KSK}
	case w.p.Split:
		roles = []Role{KSK, ZSK}
	}
	for _, role := range roles {
		k := like
		k.Role, k.Algorithm, k.Created = role, w.p.Algorithm, w.now
		if role == KSK {
			k.Active = time.Time{}
		}
		if role == ZSK {
			k.Offered = time.Time{}
		}
		if err := w.generate(&k, rand); err != nil {
			return err
		}
		w.Keys = append(w.Keys, k)
	}
	return nil
}

// generate gives k a key pair with a tag that no other key has: a validator tells
// keys apart by it.
func (w *work) generate(k *RingKey, rand io.Reader) (err error) {
	for range 16 {
		if k.Secret, k.Public, err = generateSecret(rand, k.Algorithm); err != nil {
			return err
		}
		if !slices.ContainsFunc(w.Keys, func(o RingKey) bool { return o.Tag() == k.Tag() }) {
			return nil
		}
	}
	return errors.New("generate dnssec key: every one has the tag of another")
}

// roll begins the rollover of what. Nothing else must be under way on its tracks.
func (w *work) roll(what tracks, rand io.Reader) error {
	zone, entry := w.current()
	keyTTL, maxTTL := w.ttls()
	old := w.p.Algorithm != zone.Algorithm
	k := RingKey{Published: w.now}
	if old {
		// Signatures first: where a DNSKEY record of an algorithm is, its signatures
		// are to be everywhere (RFC 6781 section 4.1.4).
		k.Active, k.Published = w.now, w.now.Add(w.p.settle(maxTTL))
	}
	known := k.Published.Add(w.p.settle(keyTTL)) // by every cache
	if !old {
		k.Active = known
	}
	k.Offered = latest(known, entry.Offered)
	if what.zone && !old {
		zone.Retired = k.Active
		if zone.Role == ZSK {
			zone.Removed = zone.Retired.Add(w.p.settle(maxTTL))
		}
	}
	return w.add(rand, what, k)
}

// observe goes on with what waits for the parent.
func (w *work) observe(parent [][]DS) {
	if len(parent) == 0 {
		return
	}
	at := w.phase(w.now).parent
	seen := w.see(parent, at)
	switch {
	case !w.Leaving.IsZero() && !seen.bare && w.Unsigned.After(w.now):
		w.Unsigned = time.Time{}
	case !w.Leaving.IsZero():
		if seen.bare && w.Unsigned.IsZero() {
			w.Unsigned = w.now.Add(w.gone())
		}
	case seen.secure:
		w.secure(at)
	case at >= 0 && !w.Keys[at].Secured.IsZero():
		w.unsecure(at)
	}
}

// gone is how long after the parent was seen without a DS record no cache has it.
func (w *work) gone() time.Duration { return w.p.settle(w.p.ParentTTL + w.p.ParentPropagation) }

// secure notes that the parent has the DS record of one key only, and lets those
// that it replaces go.
func (w *work) secure(at int) {
	entry := &w.Keys[at]
	if !entry.Secured.IsZero() {
		return
	}
	entry.Secured = w.now
	keyTTL, maxTTL := w.ttls()
	removed := w.now.Add(w.gone())
	for i := range w.Keys[:at] {
		k := &w.Keys[i]
		switch {
		case !k.Removed.IsZero(): // it has been let go before
		case k.Algorithm != entry.Algorithm:
			// Signatures last: they stay while a cache has the DNSKEY record.
			k.Removed = removed
			if k.isZone() {
				k.Retired = removed.Add(w.p.settle(keyTTL))
			}
		case k.isEntry():
			k.Removed = removed
			if k.isZone() {
				k.Removed = latest(removed, k.Retired.Add(w.p.settle(maxTTL)))
			}
		}
	}
}

// unsecure takes back what secure did, as far as it has not happened: the parent
// has changed its mind.
func (w *work) unsecure(at int) {
	entry := &w.Keys[at]
	for i := range w.Keys[:at] {
		k := &w.Keys[i]
		if !k.Removed.After(w.now) || k.Algorithm == entry.Algorithm && !k.isEntry() {
			continue
		}
		k.Removed, entry.Secured = time.Time{}, time.Time{}
		if k.Algorithm != entry.Algorithm {
			k.Retired = time.Time{}
		}
	}
}

// prune erases keys that are gone by every clock.
func (w *work) prune() {
	before := w.now.Add(-2 * w.p.Propagation)
	w.Keys = slices.DeleteFunc(w.Keys, func(k RingKey) bool { return k.gone(before) })
}

// retime takes the policy's TTLs over while no rollover is under way.
func (w *work) retime() {
	if w.KeyTTL == w.p.KeyTTL && w.MaxTTL == w.p.MaxTTL || !w.mayRoll(tracks{true, true}) {
		return
	}
	w.Calm = w.now.Add(w.p.settle(max(w.ttls())))
	w.KeyTTL, w.MaxTTL = w.p.KeyTTL, w.p.MaxTTL
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
