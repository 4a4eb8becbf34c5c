package dnssec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"
)

// version is the ring format that this code writes and reads.
const version = 1

// Role is what a key signs.
type Role string

// The roles.
const (
	CSK Role = "csk" // everything
	KSK Role = "ksk" // the DNSKEY, CDS and CDNSKEY records
	ZSK Role = "zsk" // the rest
)

// Ring is the keys of a zone. Its JSON form has the private keys in it and is to
// be sealed wherever it is stored. The zero Ring has no keys.
type Ring struct {
	// Version is the ring's format. A node that does not know it must keep the ring
	// it has.
	Version int `json:"version"`
	// Zone is the apex in lower case, without the final dot.
	Zone string `json:"zone"`
	// Generation grows with every change.
	Generation uint64 `json:"generation"`
	// Keys are in the order of their making.
	Keys []RingKey `json:"keys"`
	// KeyTTL and MaxTTL are those of the policy that are in force, in nanoseconds.
	// They change only while no rollover is under way, and none begins before Calm,
	// when the ones before have run out everywhere.
	KeyTTL time.Duration `json:"key_ttl"`
	MaxTTL time.Duration `json:"max_ttl"`
	Calm   time.Time     `json:"calm,omitzero"`
	// Leaving is since when the zone asks its parent to take its DS records away;
	// zero if it does not.
	Leaving time.Time `json:"leaving,omitzero"`
	// Unsigned is when the zone ceases to be signed: set when the parent was seen
	// without DS records.
	Unsigned time.Time `json:"unsigned,omitzero"`
}

// RingKey is one key and the times of its life. A time that is zero is not known
// yet, or is none of the role's.
type RingKey struct {
	Role      Role   `json:"role"`
	Algorithm uint8  `json:"algorithm"`
	Public    []byte `json:"public"` // as in a DNSKEY record
	Secret    Secret `json:"secret"`

	Created   time.Time `json:"created"`
	Published time.Time `json:"published"` // in the DNSKEY records; a KSK or CSK signs them then
	// Active is when a ZSK or CSK begins to sign the zone's records. Before Published
	// only when the algorithm is new.
	Active time.Time `json:"active,omitzero"`
	// Offered is when the zone begins to ask for a DS record of a KSK or CSK.
	Offered time.Time `json:"offered,omitzero"`
	// Secured is when the parent was first seen with its DS record, and with that of
	// no other key of the ring.
	Secured time.Time `json:"secured,omitzero"`
	Retired time.Time `json:"retired,omitzero"` // signs the zone's records no more
	Removed time.Time `json:"removed,omitzero"` // out of the DNSKEY records
}

func (k *RingKey) isEntry() bool { return k.Role != ZSK }
func (k *RingKey) isZone() bool  { return k.Role != KSK }

func (k *RingKey) flags() uint16 {
	if k.isEntry() {
		return SecureEntryPoint
	}
	return ZoneKey
}

// Tag returns the key tag.
func (k *RingKey) Tag() uint16 { return tag(k.flags(), k.Algorithm, k.Public) }

// gone reports whether k does nothing any more.
func (k *RingKey) gone(now time.Time) bool {
	return ended(k.Removed, now) && (!k.isZone() || ended(k.Retired, now))
}

// ended reports whether t is known and not after now.
func ended(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

// between reports whether from is known and now lies in [from, to).
func between(from, to, now time.Time) bool { return ended(from, now) && !ended(to, now) }

// phase is what the keys of a ring do at a time, by their place in Keys.
type phase struct {
	published, zone, entry []int
	parent                 int // the last key that is offered; -1 for none
	until                  time.Time
}

func (r Ring) phase(now time.Time) phase {
	p := phase{parent: -1}
	next := func(times ...time.Time) {
		for _, t := range times {
			if t.After(now) && (p.until.IsZero() || t.Before(p.until)) {
				p.until = t
			}
		}
	}
	for i := range r.Keys {
		k := &r.Keys[i]
		if between(k.Published, k.Removed, now) {
			p.published = append(p.published, i)
			if k.isEntry() {
				p.entry = append(p.entry, i)
			}
		}
		if k.isZone() && between(k.Active, k.Retired, now) {
			p.zone = append(p.zone, i)
		}
		if k.isEntry() && ended(k.Offered, now) {
			p.parent = i
		}
		next(k.Published, k.Active, k.Offered, k.Retired, k.Removed)
	}
	next(r.Leaving, r.Unsigned)
	return p
}

// At returns what the ring means at now: nil for a zone that is not signed, as one
// without keys and one that has become so. Call it again at Until, and when there
// is another ring. The ring is one that [ParseRing] or Advance returned.
func (r Ring) At(now time.Time) (*KeySet, error) {
	if len(r.Keys) == 0 || ended(r.Unsigned, now) {
		return nil, nil
	}
	keys := make([]*Key, len(r.Keys))
	for i := range r.Keys {
		k := &r.Keys[i]
		signer, public, err := signer(k.Secret, k.Algorithm)
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		keys[i] = &Key{Flags: k.flags(), Algorithm: k.Algorithm, Public: public, Signer: signer}
	}
	list := func(at []int) []*Key {
		chosen := make([]*Key, len(at))
		for i, at := range at {
			chosen[i] = keys[at]
		}
		slices.SortFunc(chosen, func(a, b *Key) int { return cmp.Compare(a.Tag(), b.Tag()) })
		return chosen
	}
	p := r.phase(now)
	set := &KeySet{
		Published: list(p.published), Zone: list(p.zone), Entry: list(p.entry),
		Delete: ended(r.Leaving, now), TTL: r.KeyTTL, Until: p.until,
	}
	if p.parent >= 0 && !set.Delete {
		set.Parent = list([]int{p.parent})
	}
	return set, nil
}

// ParseRing reads a ring's JSON form. The error says every reason why it is not a
// ring of zone that a node may adopt, and shows no secret.
func ParseRing(zone string, data []byte) (Ring, error) {
	var r Ring
	if err := json.Unmarshal(data, &r); err != nil {
		return Ring{}, fmt.Errorf("dnssec ring: %w", err)
	}
	errs := []error{r.Validate()}
	if r.Zone != zone {
		errs = append(errs, fmt.Errorf("dnssec ring of the zone %.80q", r.Zone))
	}
	for i, k := range r.Keys {
		_, public, err := signer(k.Secret, k.Algorithm)
		if err == nil && !bytes.Equal(public, k.Public) {
			err = errors.New("the private key is not that of the public one")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("keys[%d]: %w", i, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Ring{}, err
	}
	return r, nil
}

// Validate returns every reason why a validator could come to harm by r, whatever
// the time is. It does not look at the private keys. The errors show no secret.
func (r Ring) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.Version != version {
		problem("dnssec ring of version %d, want %d", r.Version, version)
	}
	if _, err := wireName(r.Zone); err != nil {
		errs = append(errs, err)
	}
	if r.KeyTTL <= 0 || r.MaxTTL < 0 {
		problem("dnssec ring with TTLs of %v and %v", r.KeyTTL, r.MaxTTL)
	}
	tags := make(map[uint16]bool)
	lastZone, lastEntry := -1, -1
	for i := range r.Keys {
		k := &r.Keys[i]
		switch {
		case k.Role != CSK && k.Role != KSK && k.Role != ZSK:
			problem("keys[%d]: no role %.20q", i, k.Role)
		case k.Published.IsZero() || k.isZone() == k.Active.IsZero() || k.isEntry() == k.Offered.IsZero():
			problem("keys[%d]: the times are not those of a %s", i, k.Role)
		case tags[k.Tag()]:
			problem("keys[%d]: the tag %d twice", i, k.Tag())
		}
		tags[k.Tag()] = true
		if k.isZone() {
			if lastZone >= 0 {
				if before := r.Keys[lastZone]; before.Retired.Before(k.Active) && !before.Retired.IsZero() {
					problem("keys[%d]: signs only after the one before has ceased to", i)
				}
			}
			lastZone = i
		}
		if k.isEntry() {
			lastEntry = i
		}
	}
	switch {
	case lastZone < 0 || lastEntry < 0:
		problem("dnssec ring without a key that signs the zone, or its keys")
	case !r.Keys[lastZone].Retired.IsZero() || !r.Keys[lastZone].Removed.IsZero() || !r.Keys[lastEntry].Removed.IsZero():
		problem("dnssec ring whose last keys go without others to come")
	}
	return errors.Join(errs...)
}

// Format implements [fmt.Formatter]: every verb prints the keys without secrets.
func (r Ring) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.LogValue().String()) }

// LogValue implements [slog.LogValuer], without secrets.
func (r Ring) LogValue() slog.Value {
	keys := make([]string, len(r.Keys))
	for i := range r.Keys {
		keys[i] = fmt.Sprintf("%s %d", r.Keys[i].Role, r.Keys[i].Tag())
	}
	return slog.GroupValue(slog.String("zone", r.Zone), slog.Uint64("generation", r.Generation), slog.Any("keys", keys))
}
