package gslb

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"anyedge/configs"
	"anyedge/gslb/dnssec"
	"anyedge/internal/fleet"
)

const (
	// keysPace is how often the rings are looked at when nothing happens.
	keysPace = 30 * time.Second
	// writeTime is how long the store may take for all rings that are due.
	writeTime = 5 * time.Second
	// changeTries is how often an operator's change is tried when other nodes are
	// faster.
	changeTries = 4
)

// keyKeeper keeps the keys of signed zones. It follows their rings in the fleet's
// store, does what is due in them, and gives the server the keys of the moment.
//
// A ring in force is given up only for a later generation of it: one that the store
// has lost, cannot be opened or is older changes nothing, and is put back where it is
// missing or older. A ring that cannot be read is never replaced by another: its keys
// may be those that the parent points to.
type keyKeeper struct {
	fleet   *fleet.Fleet
	sign    func(zone string, keys *dnssec.KeySet) error
	log     *slog.Logger
	m       *metrics
	shared  bool          // the store outlives this process
	changed chan struct{} // of capacity 1: there is something to look at

	mu    sync.Mutex // guards the rest
	zones map[string]*signedZone
}

// signedZone is what is known of the keys of a zone.
type signedZone struct {
	name   string // in lower case, without the final dot
	policy dnssec.Policy
	file   string // that keeps the ring; "" for none

	ring    dnssec.Ring // the last good one; the zero one for none
	saved   uint64      // its generation in the file
	current time.Time   // when the store last had it
	index   uint64      // of what the store has

	inForce uint64    // the generation that the server has keys of
	until   time.Time // when those change; zero for not by themselves

	parent sighting
	// trouble is the last error of the newest look at the keys; empty without one.
	trouble string
}

// newKeyKeeper returns the keeper of the config's signed zones, with the rings of
// their files.
func newKeyKeeper(cfg *configs.GSLB, f *fleet.Fleet, s *Server, log *slog.Logger) (*keyKeeper, error) {
	k := &keyKeeper{
		fleet: f, sign: s.Sign, log: log, m: s.m, shared: cfg.Fleet.Consul != nil,
		changed: make(chan struct{}, 1), zones: make(map[string]*signedZone),
	}
	zones, err := k.plan(cfg)
	if err != nil {
		return nil, err
	}
	k.zones = zones
	return k, nil
}

// canonical is a zone's name as rings have it.
func canonical(zone string) string { return strings.ToLower(strings.TrimSuffix(zone, ".")) }

// policyOf returns what a config wants of a zone's keys. It was validated.
func policyOf(c *configs.ZoneDNSSEC) dnssec.Policy {
	p := dnssec.Policy{
		Algorithm:         dnssec.ECDSAP256SHA256,
		Split:             c.Keys == "ksk_zsk",
		ZoneLifetime:      cmp.Or(c.ZSKLifetime, new(configs.Duration)).Std(),
		EntryLifetime:     c.KSKLifetime.Std(),
		Propagation:       c.Propagation.Std(),
		KeyTTL:            defaultKeyTTL,
		MaxTTL:            c.MaxTTL.Std(),
		ParentTTL:         c.ParentDSTTL.Std(),
		ParentPropagation: c.ParentPropagation.Std(),
	}
	if c.Algorithm == "ed25519" {
		p.Algorithm = dnssec.Ed25519
	}
	return p
}

// signingOf says how the server signs a zone whose keys are kept here.
func signingOf(c *configs.ZoneDNSSEC) Signing {
	if c == nil {
		return Signing{}
	}
	s := Signing{Await: true, MaxTTL: c.MaxTTL.Std()}
	if c.Denial == "nsec3" {
		s.Denial = NSEC3
	}
	return s
}

// plan returns the signed zones of a config. What is known of those that are there
// already goes on. It refuses to leave a zone unsigned whose parent may have DS
// records: every validator would find it bogus.
func (k *keyKeeper) plan(cfg *configs.GSLB) (map[string]*signedZone, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	zones, now := make(map[string]*signedZone), time.Now()
	served := make(map[string]bool)
	for i := range cfg.Zones {
		name, c := canonical(cfg.Zones[i].Name), cfg.Zones[i].DNSSEC
		served[name] = true
		if c == nil {
			continue
		}
		z := &signedZone{name: name, current: now}
		if before := k.zones[name]; before != nil {
			*z = *before
		}
		z.policy = policyOf(c)
		if err := z.policy.Validate(); err != nil {
			return nil, fmt.Errorf("zones[%d].dnssec: %w", i, err)
		}
		if z.file != c.KeyFile {
			z.file, z.saved = c.KeyFile, 0
			if err := k.load(z); err != nil {
				return nil, fmt.Errorf("zones[%d].dnssec.key_file: %w", i, err)
			}
		}
		zones[name] = z
	}
	for name, z := range k.zones {
		if zones[name] == nil && served[name] && z.ring.Status(now).Signed {
			return nil, fmt.Errorf(`zone %s: is signed, and validators may know; before dnssec goes from its config, "anyedge dnssec unsign" has to have ended`, name)
		}
	}
	return zones, nil
}

// load takes the ring of a zone's file, if it is a later one than the zone has. A
// file that is not a ring is an error if nobody else has the keys.
func (k *keyKeeper) load(z *signedZone) error {
	if z.file == "" {
		return nil
	}
	ring, err := readKeyFile(z.file, z.name)
	switch {
	case err != nil && k.shared:
		k.log.Error("key file not taken, the fleet has the keys", "zone", z.name, "error", err)
	case err != nil:
		return err
	case ring.Generation > z.ring.Generation:
		z.ring, z.saved = ring, ring.Generation
	}
	return nil
}

// set puts the zones that plan returned in place.
func (k *keyKeeper) set(zones map[string]*signedZone) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.zones {
		if zones[name] == nil {
			k.m.forgetKeys(name)
			// The error is that the zone is served no more.
			_ = k.sign(name, nil)
		}
	}
	for name, z := range zones {
		if now := k.zones[name]; now != nil && now.ring.Generation > z.ring.Generation { // since plan
			z.ring, z.current, z.index = now.ring, now.current, now.index
		}
		z.inForce, z.until = 0, time.Time{} // the server may have read it anew
	}
	k.zones = zones
	k.wake()
}

func (k *keyKeeper) wake() {
	select {
	case k.changed <- struct{}{}:
	default: // somebody is about to look
	}
}

// run keeps the keys until ctx is done.
func (k *keyKeeper) run(ctx context.Context) {
	for {
		view := k.fleet.View()
		next := k.step(ctx, time.Now(), view)
		timer := time.NewTimer(min(keysPace, max(time.Until(next), time.Second)))
		select {
		case <-ctx.Done():
		case <-view.Changed():
		case <-k.changed:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// step does what is to be done for all zones at now, with a view of the fleet, and
// returns when it has something to do by itself again, an hour from now at the
// latest.
func (k *keyKeeper) step(ctx context.Context, now time.Time, view *fleet.View) time.Time {
	next, writes := k.look(now, view)
	// No lock is held: a store that does not answer holds up nobody else, and no key.
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	for _, w := range writes {
		if err := k.put(ctx, w); err != nil {
			k.mu.Lock()
			if z := k.zones[w.zone]; z != nil {
				k.failed(z, "dnssec ring not written", err)
			}
			k.mu.Unlock()
		}
	}
	return next
}

// ringWrite is a ring that is to take the place of the one with index prev in the
// store; 0 for none.
type ringWrite struct {
	zone string
	ring dnssec.Ring
	prev uint64
}

// look is step up to the writing, which it leaves to step.
func (k *keyKeeper) look(now time.Time, view *fleet.View) (next time.Time, writes []ringWrite) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next = now.Add(time.Hour)
	for _, name := range slices.Sorted(maps.Keys(k.zones)) {
		z := k.zones[name]
		z.trouble = ""
		if err := k.adopt(z, now, view); err != nil {
			k.failed(z, "dnssec ring not taken, the last one stays", err)
		}
		w, due, err := k.advance(z, now, view)
		if err != nil {
			k.failed(z, "dnssec ring not advanced", err)
		}
		if due {
			writes = append(writes, w)
		}
		if err := k.apply(z, now); err != nil {
			k.failed(z, "zone not signed with its keys, the last ones stay", err)
		}
		if !z.until.IsZero() && z.until.Before(next) {
			next = z.until
		}
		k.m.keysSeen(z, now)
	}
	return next, writes
}

func (k *keyKeeper) failed(z *signedZone, what string, err error) {
	z.trouble = what + ": " + err.Error()
	k.m.keyErrors.WithLabelValues(z.name).Inc()
	k.log.Error(what, "zone", z.name, "error", err)
}

// adopt takes the ring that the store has, if it is a later one, once it is on disk.
func (k *keyKeeper) adopt(z *signedZone, now time.Time, view *fleet.View) error {
	stored, ok := view.ZoneKeys[z.name]
	ring := z.ring
	if ok && stored.Index != z.index {
		later, err := dnssec.ParseRing(z.name, stored.Ring)
		if err != nil {
			return err
		}
		if later.Generation > ring.Generation {
			ring = later
		}
	}
	if ring.Generation == 0 {
		return nil
	}
	if z.file != "" && z.saved != ring.Generation {
		if err := writeKeyFile(z.file, ring); err != nil {
			if !k.shared {
				return fmt.Errorf("key file: %w", err)
			}
			k.failed(z, "key file not written", err)
		} else {
			z.saved = ring.Generation
		}
	}
	if ring.Generation != z.ring.Generation {
		k.log.Info("dnssec ring taken", "zone", z.name, "ring", ring)
	}
	z.ring = ring
	return nil
}

// advance returns the ring with what is due in it, or to put back into a store that
// has lost it, and whether that is to be written. It does nothing while the store is
// out of reach, or has what cannot be read.
func (k *keyKeeper) advance(z *signedZone, now time.Time, view *fleet.View) (w ringWrite, due bool, err error) {
	if !view.Connected || view.RejectsZoneKeys(z.name) {
		return w, false, nil
	}
	stored := view.ZoneKeys[z.name] // none has index 0
	older := stored.Index == 0
	if stored.Index != 0 {
		ring, err := dnssec.ParseRing(z.name, stored.Ring)
		if err != nil {
			return w, false, err
		}
		older = ring.Generation < z.ring.Generation
		if ring.Generation > z.ring.Generation {
			return w, false, nil // it could not be adopted
		}
	}
	w = ringWrite{z.name, z.ring, stored.Index}
	if older && z.ring.Generation > 0 {
		return w, true, nil
	}
	z.current, z.index = now, stored.Index
	w.ring, due, err = z.ring.Advance(now, z.name, z.policy, z.parent.news(now), rand.Reader)
	if err == nil && !due {
		z.parent.fresh = false // until here what it led to may have been lost to a faster node
	}
	return w, due, err
}

// put writes a ring. That another node was faster is no error: its ring will come.
func (k *keyKeeper) put(ctx context.Context, w ringWrite) error {
	data, err := json.Marshal(w.ring)
	if err != nil {
		return err
	}
	_, err = k.fleet.PutZoneKeys(ctx, w.zone, data, w.prev)
	if err == nil {
		k.log.Info("dnssec ring written", "zone", w.zone, "ring", w.ring)
	}
	if errors.Is(err, fleet.ErrConflict) {
		return nil
	}
	return err
}

// apply gives the server the keys of the moment.
func (k *keyKeeper) apply(z *signedZone, now time.Time) error {
	if z.ring.Generation == 0 || z.inForce == z.ring.Generation && (z.until.IsZero() || now.Before(z.until)) {
		return nil
	}
	set, err := z.ring.At(now)
	if err == nil {
		err = k.sign(z.name, set)
	}
	if err != nil {
		return err
	}
	z.inForce, z.until = z.ring.Generation, time.Time{}
	if set != nil {
		z.until = set.Until
	}
	k.log.Info("zone signed with its keys of the moment", "zone", z.name, "generation", z.inForce, "signed", set != nil, "until", z.until)
	return nil
}

// change applies an operator's wish to the ring of a zone: the store's, or this
// node's if the store has lost it or has an older one.
func (k *keyKeeper) change(ctx context.Context, zone string, do func(dnssec.Ring, dnssec.Policy, time.Time) (dnssec.Ring, error)) error {
	zone = canonical(zone)
	k.mu.Lock()
	z := k.zones[zone]
	if z == nil {
		k.mu.Unlock()
		return fmt.Errorf("zone %s: %w", zone, ErrNotSigned)
	}
	own, policy := z.ring, z.policy
	k.mu.Unlock()
	var err error
	for range changeTries {
		err = k.tryChange(ctx, zone, own, func(r dnssec.Ring) (dnssec.Ring, error) { return do(r, policy, time.Now()) })
		if !errors.Is(err, fleet.ErrConflict) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("zone %s: %w", zone, err)
	}
	return nil
}

// tryChange is change without a second try. The error is ErrConflict if another node
// was faster.
func (k *keyKeeper) tryChange(ctx context.Context, zone string, own dnssec.Ring, do func(dnssec.Ring) (dnssec.Ring, error)) error {
	stored, err := k.fleet.ZoneKeys(ctx, zone)
	if err != nil && (own.Generation == 0 || !errors.Is(err, fleet.ErrNotFound)) {
		return err
	}
	ring := own
	if err == nil {
		if ring, err = dnssec.ParseRing(zone, stored.Ring); err != nil {
			return err
		}
		if own.Generation > ring.Generation {
			ring = own
		}
	}
	next, err := do(ring)
	if err != nil || next.Generation == ring.Generation {
		return err
	}
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	_, err = k.fleet.PutZoneKeys(ctx, zone, data, stored.Index)
	return err
}

// ErrNotSigned says that a zone is none of those that a node signs.
var ErrNotSigned = errors.New("not signed here")
