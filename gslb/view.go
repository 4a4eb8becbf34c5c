package gslb

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// view is everything that a query is answered from. It is never changed.
type view struct {
	zones map[name]*zone
	table *steer.Table
	over  overlay
	// aliased are the addresses at apexes that are aliases, as far as they are
	// known.
	aliased map[name]*resolved
	// entries are the packed answers of the fast path: those of zoneEntries, which
	// steering has no part in, with the others put over them.
	entries, zoneEntries entries

	identity
}

// identity is what a view answers that is neither zone nor steering.
type identity struct {
	nsid    []byte  // RFC 5001; nil to not give one
	cookies cookies // nil to ignore cookies
	idle    time.Duration
}

// newView joins zones and steering, or says which steered names cannot be
// joined. A nil table steers nothing; aliased is what is known of the targets of
// aliases. What is packed in last, which may be nil,
// and still right is taken from there: while PoPs only come and go, nothing is
// packed anew.
func newView(zones map[name]*zone, table *steer.Table, aliased map[name]*resolved, last *view) (*view, error) {
	v, err := join(zones, table, aliased)
	if err != nil {
		return nil, err
	}
	if last != nil && maps.Equal(zones, last.zones) {
		v.zoneEntries = last.zoneEntries
		if slices.Equal(table.Names(), last.table.Names()) && maps.Equal(v.aliased, last.aliased) {
			v.entries = last.entries
			return v, nil
		}
	} else {
		v.zoneEntries = packZones(&view{zones: zones})
	}
	v.entries = maps.Clone(v.zoneEntries)
	maps.Copy(v.entries, packSteered(v))
	return v, nil
}

// join joins zones and steering without what is packed.
func join(zones map[name]*zone, table *steer.Table, aliased map[name]*resolved) (*view, error) {
	v := &view{zones: zones, table: table, over: make(overlay), aliased: make(map[name]*resolved)}
	var errs []error
	for _, steered := range table.Names() {
		if err := v.steer(steered); err != nil {
			errs = append(errs, fmt.Errorf("steered name %s: %w", steered, err))
		}
	}
	for _, z := range zones {
		if z.signer != nil && !z.unavailable {
			if err := z.signer.fits(z); err != nil {
				errs = append(errs, fmt.Errorf("zone %s: %w", z.name, err))
			}
		}
		if z.alias == "" || z.unavailable {
			continue
		}
		if err := z.unsignable(); err != nil {
			errs = append(errs, fmt.Errorf("zone %s: an alias: %w", z.name, err))
			continue
		}
		if err := v.alias(z, aliased); err != nil {
			errs = append(errs, fmt.Errorf("zone %s: %w", z.name, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return v, nil
}

// steer puts a steered name over its zone.
func (v *view) steer(steered string) error {
	n, err := parseName(steered)
	if err != nil {
		return err
	}
	z := v.zoneOf(n)
	if z == nil {
		return errors.New("lies in none of the zones")
	}
	if z.unavailable {
		return nil // it is steered when the zone has come
	}
	if err := z.unsignable(); err != nil {
		return err
	}
	// Search without the overlay, which does not change where zones are cut.
	switch m := z.find(n, nil, false); m.outcome {
	case delegated:
		return fmt.Errorf("%s is delegated in %s", m.owner, z.source)
	case redirected:
		return fmt.Errorf("%s has a DNAME in %s", m.owner, z.source)
	}
	if z.nodes[n].get(dns.TypeCNAME) != nil {
		return fmt.Errorf("it has a CNAME in %s", z.source)
	}
	for _, above := range n.below(z.name) {
		if _, exists := v.over[above]; !exists {
			v.over[above] = ""
		}
	}
	v.over[n] = steered
	return nil
}

// zoneOf returns the zone that a name is in, nil if it is in none.
func (v *view) zoneOf(n name) *zone {
	for {
		if z := v.zones[n]; z != nil {
			return z
		}
		if len(n) == 1 {
			return nil
		}
		n = n.parent()
	}
}

// zoneFor is zoneOf for a question. DS records of a zone are in its parent's
// (RFC 4035 section 3.1.4.1), if that is here too.
func (v *view) zoneFor(n name, qtype uint16) *zone {
	z := v.zoneOf(n)
	if z != nil && qtype == dns.TypeDS && z.name == n && len(n) > 1 {
		if parent := v.zoneOf(n.parent()); parent != nil {
			return parent
		}
	}
	return z
}

func (i *identity) set(nsid string, secrets []CookieSecret) {
	i.nsid = nil
	if nsid != "" {
		i.nsid = []byte(nsid)
	}
	if len(secrets) > 0 {
		i.cookies = secrets
	}
}
