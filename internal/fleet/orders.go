package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Orders are what operators ask of one node at one instant.
type Orders struct {
	// Drain takes the node out of service; nil if nobody asks for it.
	Drain *Drain `json:"drain,omitempty"`
	// Prefixes are the drains of single prefixes, one for each, by prefix.
	Prefixes []Drain `json:"prefixes,omitempty"`
	// Override is on all of the node; nil if there is none.
	Override *Override `json:"override,omitempty"`
	// PrefixOverrides are those on single prefixes, one for each, by prefix.
	PrefixOverrides []Override `json:"prefix_overrides,omitempty"`
}

// Leaving reports whether the node is asked not to be in normal service.
func (o Orders) Leaving() bool {
	if o.Override != nil {
		return o.Override.Action != ActionAnnounce
	}
	return o.Drain != nil
}

// None reports whether nobody asks for anything.
func (o Orders) None() bool {
	return o.Drain == nil && o.Override == nil && len(o.Prefixes)+len(o.PrefixOverrides) == 0
}

// scope is one of the names under which orders reach a node.
type scope struct{ kind, name string }

// scopesOf lists the scopes of a node of this name, PoP and region, the
// narrowest first.
func scopesOf(node, pop, region string) []scope {
	return []scope{{ScopeNode, node}, {ScopePop, pop}, {ScopeRegion, region}}
}

// Orders returns the orders in force at now for a node of this name, PoP and
// region. Of several of one kind the narrowest counts.
func (v *View) Orders(node, pop, region string, now time.Time) Orders {
	var o Orders
	if d, ok := v.drain(node, pop, region, now); ok {
		o.Drain = &d
	}
	for _, at := range scopesOf(node, pop, region) {
		for _, d := range v.PrefixDrains {
			same := func(p Drain) bool { return p.Prefix == d.Prefix }
			if d.Scope == at.kind && d.Name == at.name && d.Active(now) && !slices.ContainsFunc(o.Prefixes, same) {
				o.Prefixes = append(o.Prefixes, d)
			}
		}
	}
	slices.SortFunc(o.Prefixes, func(a, b Drain) int { return comparePrefixes(a.Prefix, b.Prefix) })
	o.Override, o.PrefixOverrides = v.override(scopesOf(node, pop, region), now)
	return o
}

// At returns what of o is in force at now.
func (o Orders) At(now time.Time) Orders {
	if o.Drain != nil && !o.Drain.Active(now) {
		o.Drain = nil
	}
	if o.Override != nil && !o.Override.Active(now) {
		o.Override = nil
	}
	o.Prefixes = slices.DeleteFunc(slices.Clone(o.Prefixes), func(d Drain) bool { return !d.Active(now) })
	o.PrefixOverrides = slices.DeleteFunc(slices.Clone(o.PrefixOverrides), func(p Override) bool { return !p.Active(now) })
	return o
}

// Or returns o, filled in where it says nothing with what other says.
func (o Orders) Or(other Orders) Orders {
	o.Drain, o.Override = cmp.Or(o.Drain, other.Drain), cmp.Or(o.Override, other.Override)
	o.PrefixOverrides = slices.Clone(o.PrefixOverrides)
	for _, p := range other.PrefixOverrides {
		if !slices.ContainsFunc(o.PrefixOverrides, func(q Override) bool { return q.Prefix == p.Prefix }) {
			o.PrefixOverrides = append(o.PrefixOverrides, p)
		}
	}
	slices.SortFunc(o.PrefixOverrides, func(a, b Override) int { return comparePrefixes(a.Prefix, b.Prefix) })
	o.Prefixes = slices.Clone(o.Prefixes)
	for _, d := range other.Prefixes {
		if !slices.ContainsFunc(o.Prefixes, func(p Drain) bool { return p.Prefix == d.Prefix }) {
			o.Prefixes = append(o.Prefixes, d)
		}
	}
	slices.SortFunc(o.Prefixes, func(a, b Drain) int { return comparePrefixes(a.Prefix, b.Prefix) })
	return o
}

// Validate says what is wrong with o, or returns nil.
func (o Orders) Validate() error {
	if o.Drain != nil {
		if err := o.Drain.Validate(); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
	}
	for i, d := range o.Prefixes {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("prefixes[%d]: %w", i, err)
		}
	}
	if o.Override != nil {
		if err := o.Override.Validate(); err != nil {
			return fmt.Errorf("override: %w", err)
		}
	}
	for i, p := range o.PrefixOverrides {
		if err := p.Validate(); err != nil {
			return fmt.Errorf("prefix_overrides[%d]: %w", i, err)
		}
	}
	return nil
}

// ClearPrefixDrain takes the drain of one prefix away. To clear one that is not
// there succeeds.
func (f *Fleet) ClearPrefixDrain(ctx context.Context, scope, name string, prefix netip.Prefix) error {
	d := Drain{Scope: scope, Name: name, Prefix: prefix}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return f.update(ctx, drainKey(d), func([]byte) ([]byte, error) { return nil, nil })
}

// drainKey is the key of a drain. One of a prefix has a key of another kind, so
// that a node of a version that does not know such drains passes it over: to
// take it for a drain of the whole would put the node out of service.
func drainKey(d Drain) string {
	if d.Prefix.IsValid() {
		return prefixPrefixDrains + d.Scope + "/" + d.Name + "/" + prefixName(d.Prefix)
	}
	return prefixDrains + d.Scope + "/" + d.Name
}

// prefixName writes a prefix as one part of a key.
func prefixName(p netip.Prefix) string { return strings.Replace(p.String(), "/", "_", 1) }

func checkPrefix(what string, p netip.Prefix) error {
	if p.IsValid() && p != p.Masked() {
		return fmt.Errorf("%s: %s has bits behind its length, %s has not", what, p, p.Masked())
	}
	return nil
}

func decodePrefixDrain(key string, value []byte) (Drain, error) {
	var d Drain
	if err := json.Unmarshal(value, &d); err != nil {
		return Drain{}, err
	}
	if err := d.Validate(); err != nil {
		return Drain{}, err
	}
	if !d.Prefix.IsValid() || drainKey(d) != key {
		return Drain{}, fmt.Errorf("%s %.80q, prefix %q under the key %q", d.Scope, d.Name, d.Prefix, key)
	}
	return d, nil
}

func comparePrefixDrains(a, b Drain) int {
	return cmp.Or(compareDrains(a, b), comparePrefixes(a.Prefix, b.Prefix))
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
