package gslb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"anyedge/gslb/dnssec"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

// ZoneKeysStatus is how a signed zone's keys are.
type ZoneKeysStatus struct {
	dnssec.Status
	// InForce is the generation of the ring that answers are signed by; 0 for none.
	InForce uint64 `json:"in_force"`
	// Current is when the fleet's store was last seen to have this ring.
	Current time.Time `json:"current"`
	// Error is why the newest look at the keys did not do what was due; empty if it
	// did.
	Error string `json:"error,omitempty"`
	// Parent are the DS records at the parent, of each resolver that was asked.
	Parent [][]string `json:"parent"`
	// ParentAt is when they were asked; zero if never. ParentError is why some have
	// no answer.
	ParentAt    time.Time `json:"parent_at,omitzero"`
	ParentError string    `json:"parent_error,omitempty"`
}

// Keys returns how the keys of the signed zones are, by zone.
func (n *Node) Keys() []ZoneKeysStatus {
	now := time.Now()
	n.keys.mu.Lock()
	defer n.keys.mu.Unlock()
	list := []ZoneKeysStatus{}
	for _, z := range n.keys.zones {
		s := ZoneKeysStatus{Status: z.ring.Status(now), InForce: z.inForce, Current: z.current, Error: z.trouble, ParentAt: z.parent.at}
		s.Zone = z.name
		if s.Generation == 0 {
			s.Waiting = "for keys from the fleet's store"
		}
		for _, answer := range z.parent.answers {
			records := []string{}
			for _, ds := range answer {
				records = append(records, ds.String())
			}
			s.Parent = append(s.Parent, records)
		}
		if z.parent.err != nil {
			s.ParentError = z.parent.err.Error()
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b ZoneKeysStatus) int { return strings.Compare(a.Zone, b.Zone) })
	return list
}

// validZoneKeys says what is wrong with a ring that the fleet's store has.
func validZoneKeys(zone string, ring []byte) error {
	_, err := dnssec.ParseRing(zone, ring)
	return err
}

// RollKeys begins the rollover of the key of a role: "csk", "ksk" or "zsk".
func (n *Node) RollKeys(ctx context.Context, who audit.Actor, zone string, role dnssec.Role) error {
	return n.changeKeys(ctx, who, "roll "+string(role), zone, func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) {
		return r.Roll(now, p, role, rand.Reader)
	})
}

// ConfirmDS notes that the parent has the DS record of the key with a tag, and that
// of no other.
func (n *Node) ConfirmDS(ctx context.Context, who audit.Actor, zone string, tag uint16) error {
	return n.changeKeys(ctx, who, "seen", zone, func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) {
		return r.Confirm(now, p, tag)
	})
}

// Unsign begins to make a zone unsigned.
func (n *Node) Unsign(ctx context.Context, who audit.Actor, zone string) error {
	return n.changeKeys(ctx, who, "unsign", zone, func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) {
		return r.Leave(now, p)
	})
}

// StaySigned ends what Unsign began; a zone that is unsigned gets new keys.
func (n *Node) StaySigned(ctx context.Context, who audit.Actor, zone string) error {
	return n.changeKeys(ctx, who, "sign", zone, func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) {
		return r.Stay(now, p, rand.Reader)
	})
}

// changeKeys applies an operator's change and records it.
func (n *Node) changeKeys(ctx context.Context, who audit.Actor, act, zone string, do func(dnssec.Ring, dnssec.Policy, time.Time) (dnssec.Ring, error)) error {
	err := n.keys.change(ctx, zone, do)
	if errors.Is(err, fleet.ErrNotFound) {
		err = fmt.Errorf("zone %s: %w: it has no keys yet", canonical(zone), ErrNotSigned)
	}
	return n.audit.Done(who, audit.Entry{Act: audit.DNSSECKeys, On: "zone " + canonical(zone), What: act}, err)
}
