package tickets

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"
)

// version is the ring format that this code writes and reads.
const version = 1

// Ring is a set of keys in the order of their activation. Its JSON form has the
// secrets in it and is to be sealed wherever it is stored. The zero Ring has no
// keys; it neither encrypts nor decrypts.
type Ring struct {
	// Version is the ring's format. A node that does not know it must keep
	// the ring it has.
	Version int   `json:"version"`
	Keys    []Key `json:"keys"`
}

// New returns the first ring of a fleet: one key that is current from now on,
// and the next. Secrets are read from rand.
func New(now time.Time, s Schedule, rand io.Reader) (Ring, error) {
	if err := s.Validate(); err != nil {
		return Ring{}, fmt.Errorf("ticket schedule: %w", err)
	}
	current, err := generate(rand, now)
	if err != nil {
		return Ring{}, err
	}
	next, _, err := Ring{Version: version, Keys: []Key{current}}.Advance(now, s, rand)
	return next, err
}

// Due returns when Advance next has work: now if it has already. It may be asked
// again whenever the ring or the schedule changed.
func (r Ring) Due(now time.Time, s Schedule) time.Time {
	s = s.withDefaults()
	due := now
	for _, k := range r.Keys {
		if k.ActivatesAt.After(due.Add(s.horizon())) {
			break
		}
		if k.ActivatesAt.After(due) {
			due = k.ActivatesAt
		}
	}
	return due
}

// Advance returns the ring with a next key published and expired keys erased,
// and whether that made a difference: there is work once per rotation, when the
// key that was next has become current. The next key keeps to the pace of the
// current one, but activates no sooner than 2·Propagation from now; so after an
// outage of any length the last known key stays current until every node can
// have the new one.
//
// On error the ring is returned as it was. Advance refuses a ring or a schedule
// that does not validate.
func (r Ring) Advance(now time.Time, s Schedule, rand io.Reader) (next Ring, changed bool, err error) {
	if err := errors.Join(r.Validate(), s.Validate()); err != nil {
		return r, false, fmt.Errorf("advance ticket ring: %w", err)
	}
	s = s.withDefaults()
	if r.Due(now, s).After(now) {
		return r, false, nil
	}
	next = Ring{Version: version, Keys: r.unexpired(now, s)}
	current := next.active(now)
	if current < 0 {
		// Every key lies far ahead: they were made by a clock that was wrong.
		// All nodes use the oldest one, so that becomes official.
		current = 0
		next.Keys[0].ActivatesAt = wall(now)
	}
	activates := next.Keys[current].ActivatesAt.Add(s.Rotate)
	if soonest := now.Add(2 * s.Propagation); activates.Before(soonest) {
		activates = soonest
	}
	k, err := generate(rand, activates)
	if err != nil {
		return r, false, err
	}
	at, _ := slices.BinarySearchFunc(next.Keys, k, byActivation)
	next.Keys = slices.Insert(next.Keys, at, k)
	if err := next.Validate(); err != nil { // the source of randomness repeats itself
		return r, false, fmt.Errorf("advance ticket ring: %w", err)
	}
	return next, true, nil
}

// unexpired returns a copy of the keys without those that ceased to encrypt
// longer ago than they are kept. A key ceases to encrypt when its successor
// activates.
func (r Ring) unexpired(now time.Time, s Schedule) []Key {
	first := 0
	for first+1 < len(r.Keys) && !now.Before(r.Keys[first+1].ActivatesAt.Add(s.retention())) {
		first++
	}
	return slices.Clone(r.Keys[first:])
}

// Encrypting returns the current key: the one that activated last. A node whose
// clock is behind every key uses the oldest one, because that is the key which
// all others have had for longest. It reports false only for a ring without
// keys.
func (r Ring) Encrypting(now time.Time) (Key, bool) {
	if len(r.Keys) == 0 {
		return Key{}, false
	}
	return r.Keys[max(r.active(now), 0)], true
}

// Decrypting returns every key: the current one first, then what is to come,
// soonest first, then the past ones, newest first. The result is the caller's.
func (r Ring) Decrypting(now time.Time) []Key {
	if len(r.Keys) == 0 {
		return nil
	}
	current := max(r.active(now), 0)
	keys := slices.Clone(r.Keys[current:])
	for _, k := range slices.Backward(r.Keys[:current]) {
		keys = append(keys, k)
	}
	return keys
}

// active returns the index of the key that activated last, -1 if none has.
func (r Ring) active(now time.Time) int {
	after := slices.IndexFunc(r.Keys, func(k Key) bool { return k.ActivatesAt.After(now) })
	if after < 0 {
		after = len(r.Keys)
	}
	return after - 1
}

// Validate returns every reason why r is not a ring that a node may adopt. The
// errors show no secret.
func (r Ring) Validate() error {
	var errs []error
	if r.Version != version {
		errs = append(errs, fmt.Errorf("ticket ring of version %d, want %d", r.Version, version))
	}
	if len(r.Keys) == 0 {
		errs = append(errs, errors.New("ticket ring without keys"))
	}
	seen := make(map[ID]bool)
	for i, k := range r.Keys {
		switch {
		case k.ID == ID{}:
			errs = append(errs, fmt.Errorf("keys[%d]: no id", i))
		case seen[k.ID]:
			errs = append(errs, fmt.Errorf("keys[%d]: id %s twice", i, k.ID))
		case k.Secret == Secret{}:
			errs = append(errs, fmt.Errorf("keys[%d]: no secret", i))
		case k.ActivatesAt.IsZero():
			errs = append(errs, fmt.Errorf("keys[%d]: no activation", i))
		case i > 0 && byActivation(r.Keys[i-1], k) >= 0:
			errs = append(errs, fmt.Errorf("keys[%d]: activates no later than the key before", i))
		}
		seen[k.ID] = true
	}
	return errors.Join(errs...)
}

func byActivation(a, b Key) int { return a.ActivatesAt.Compare(b.ActivatesAt) }

// Role is what a key does at some time.
type Role string

// The roles.
const (
	Previous Role = "previous" // decrypts what it sealed before
	Current  Role = "current"  // encrypts and decrypts
	Next     Role = "next"     // decrypts, because other clocks may be ahead
)

// KeyStatus is a key without its secret.
type KeyStatus struct {
	ID          ID        `json:"id"`
	Role        Role      `json:"role"`
	ActivatesAt time.Time `json:"activates_at"`
}

// Status returns the keys in the order of their activation, without secrets.
func (r Ring) Status(now time.Time) []KeyStatus {
	current := max(r.active(now), 0)
	all := make([]KeyStatus, 0, len(r.Keys))
	for i, k := range r.Keys {
		role := Current
		switch {
		case i < current:
			role = Previous
		case i > current:
			role = Next
		}
		all = append(all, KeyStatus{ID: k.ID, Role: role, ActivatesAt: k.ActivatesAt})
	}
	return all
}

// Format implements [fmt.Formatter]: every verb prints the keys without secrets.
func (r Ring) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "ticket ring %v", r.Keys)
}

// LogValue implements [slog.LogValuer], without secrets.
func (r Ring) LogValue() slog.Value {
	ids := make([]string, 0, len(r.Keys))
	for _, k := range r.Keys {
		ids = append(ids, k.ID.String())
	}
	return slog.GroupValue(slog.Int("version", r.Version), slog.Any("keys", ids))
}
