package dnssec

import (
	"errors"
	"fmt"
	"time"
)

// Policy says what keys a zone is to have, and how long each step takes to reach
// everybody. The nodes of a fleet share it.
type Policy struct {
	// Algorithm of new keys.
	Algorithm uint8
	// Split has the zone signed by a ZSK, whose DNSKEY record a KSK signs; else one
	// CSK does both.
	Split bool
	// ZoneLifetime is how long a ZSK signs. 0: until it is rolled by hand.
	ZoneLifetime time.Duration
	// EntryLifetime is how long a KSK or CSK serves once the parent has its DS
	// record. 0: until it is rolled by hand.
	EntryLifetime time.Duration
	// Propagation is how long it takes at most until every node has a ring, and how
	// much two clocks may differ. Above 0.
	Propagation time.Duration
	// KeyTTL is the TTL of DNSKEY, CDS and CDNSKEY records, in whole seconds. Above 0.
	KeyTTL time.Duration
	// MaxTTL is the longest TTL in the zone, that of negative answers included.
	MaxTTL time.Duration
	// ParentTTL is the TTL of the zone's DS records.
	ParentTTL time.Duration
	// ParentPropagation is how long it takes at most until all servers of the parent
	// have a change of them.
	ParentPropagation time.Duration
}

// Validate says what is wrong with p, or returns nil.
func (p Policy) Validate() error {
	var errs []error
	if p.Algorithm != ECDSAP256SHA256 && p.Algorithm != Ed25519 {
		errs = append(errs, fmt.Errorf("algorithm %d is not supported", p.Algorithm))
	}
	if p.Propagation <= 0 || p.KeyTTL <= 0 || p.KeyTTL%time.Second != 0 {
		errs = append(errs, errors.New("propagation and the TTL of keys must be above 0, the TTL in whole seconds"))
	}
	if p.MaxTTL < 0 || p.ParentTTL < 0 || p.ParentPropagation < 0 || p.ZoneLifetime < 0 || p.EntryLifetime < 0 {
		errs = append(errs, errors.New("a negative duration"))
	}
	if least := p.Rollover(); p.Split && p.ZoneLifetime > 0 && p.ZoneLifetime < least {
		errs = append(errs, fmt.Errorf("a ZSK lifetime of %v: rolling one takes %v", p.ZoneLifetime, least))
	}
	return errors.Join(errs...)
}

// Rollover is how long the rollover of a ZSK takes.
func (p Policy) Rollover() time.Duration { return p.settle(p.KeyTTL) + p.settle(p.MaxTTL) }

// settle is how long after a change, by the clock of any node, no cache can have
// what was before it by the clock of any other: until all nodes have changed, and
// what they gave just before has run out.
func (p Policy) settle(ttl time.Duration) time.Duration { return 2*p.Propagation + ttl }
