package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ScopeFleet is the scope of an [Override] of every node; its name is FleetName.
const (
	ScopeFleet = "fleet"
	FleetName  = "fleet"
)

// What [Override].Action can be.
const (
	ActionAnnounce     = "announce"
	ActionDepreference = "depreference"
	ActionWithdraw     = "withdraw"
)

// MaxOverride bounds how long an override lasts: one that is forgotten must not
// outlive the week.
const MaxOverride = 7 * 24 * time.Hour

// Override is an operator's word on how routes are announced, in place of what
// the nodes would decide, until a time that is always given.
//
// It beats a drain, which beats the node's own verdict. Without Force it stays
// within what keeps the service up: a withdrawal still needs the guard, and what
// cannot serve is not announced. With Force it does not.
type Override struct {
	Scope string `json:"scope"` // ScopeNode, ScopePop, ScopeRegion or ScopeFleet
	Name  string `json:"name"`
	// Prefix limits the override to one service prefix. It may only be announced
	// or de-preferred, or withdrawn with Force: the guard's leases count PoPs, so
	// they cannot speak for one prefix.
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Action string       `json:"action"` // ActionAnnounce, ActionDepreference or ActionWithdraw
	Force  bool         `json:"force,omitempty"`
	By     string       `json:"by"`
	Reason string       `json:"reason"`
	At     time.Time    `json:"at"`
	Until  time.Time    `json:"until"` // by the clock of whoever reads it
}

// Active reports whether o holds at now.
func (o Override) Active(now time.Time) bool { return now.Before(o.Until) }

// Validate says what is wrong with o, or returns nil.
func (o Override) Validate() error {
	errs := []error{o.checkKey(), checkOneOf("action", o.Action, ActionAnnounce, ActionDepreference, ActionWithdraw)}
	for what, text := range map[string]string{"by": o.By, "reason": o.Reason} {
		if text == "" {
			errs = append(errs, fmt.Errorf("%s: an override says who and why", what))
		}
		errs = append(errs, checkText(what, text))
	}
	errs = append(errs, checkSpan(o.At, o.Until))
	withdraw, prefix := o.Action == ActionWithdraw, o.Prefix.IsValid()
	switch {
	case prefix && withdraw && !o.Force:
		errs = append(errs, errors.New("force: the guard counts PoPs and cannot tell whether others announce one prefix; to withdraw one takes force"))
	case prefix && o.Force && !withdraw:
		errs = append(errs, errors.New("force: for one prefix only a withdrawal is forced; force the node's announcement"))
	case o.Scope == ScopeFleet && withdraw && o.Force:
		errs = append(errs, errors.New("force: the whole fleet is not withdrawn by force; name a region, a PoP or a node"))
	}
	return errors.Join(errs...)
}

// checkSpan checks when an override begins and ends.
func checkSpan(at, until time.Time) error {
	switch span := until.Sub(at); {
	case until.IsZero() || at.IsZero():
		return errors.New("until: an override has a begin and an end")
	case span <= 0:
		return errors.New("until: the end is not after the begin")
	case span > MaxOverride:
		return fmt.Errorf("until: %s is longer than %s", span, MaxOverride)
	}
	return nil
}

// checkKey checks what an override is found by.
func (o Override) checkKey() error {
	errs := []error{
		checkOneOf("scope", o.Scope, ScopeNode, ScopePop, ScopeRegion, ScopeFleet),
		checkName("name", o.Name),
		checkPrefix("prefix", o.Prefix),
	}
	if o.Scope == ScopeFleet && o.Name != FleetName {
		errs = append(errs, fmt.Errorf("name: that of the whole fleet is %q", FleetName))
	}
	return errors.Join(errs...)
}

func overrideKey(o Override) string {
	key := prefixOverrides + o.Scope + "/" + o.Name
	if o.Prefix.IsValid() {
		key += "/" + prefixName(o.Prefix)
	}
	return key
}

// SetOverride writes an override in place of the one for the same scope, name and
// prefix.
func (f *Fleet) SetOverride(ctx context.Context, o Override) error {
	if err := o.Validate(); err != nil {
		return fmt.Errorf("override: %w", err)
	}
	value, err := encode(o)
	if err != nil {
		return fmt.Errorf("override: %w", err)
	}
	return f.update(ctx, overrideKey(o), func([]byte) ([]byte, error) { return value, nil })
}

// ClearOverride takes the override for the scope, name and prefix of o away. To
// clear one that is not there succeeds.
func (f *Fleet) ClearOverride(ctx context.Context, o Override) error {
	if err := o.checkKey(); err != nil {
		return fmt.Errorf("override: %w", err)
	}
	return f.update(ctx, overrideKey(o), func([]byte) ([]byte, error) { return nil, nil })
}

func decodeOverride(key string, value []byte) (Override, error) {
	var o Override
	if err := json.Unmarshal(value, &o); err != nil {
		return Override{}, err
	}
	if err := o.Validate(); err != nil {
		return Override{}, err
	}
	if overrideKey(o) != key {
		return Override{}, fmt.Errorf("%s %.80q, prefix %q under the key %q", o.Scope, o.Name, o.Prefix, key)
	}
	return o, nil
}

func compareOverrides(a, b Override) int {
	return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Name, b.Name), comparePrefixes(a.Prefix, b.Prefix))
}

// override returns the one that counts at now for scopes, the narrowest first,
// and those of prefixes, one for each.
func (v *View) override(scopes []scope, now time.Time) (whole *Override, prefixes []Override) {
	for _, at := range append(scopes, scope{ScopeFleet, FleetName}) {
		for _, o := range v.Overrides {
			if o.Scope != at.kind || o.Name != at.name || !o.Active(now) {
				continue
			}
			switch {
			case !o.Prefix.IsValid() && whole == nil:
				whole = &o
			case o.Prefix.IsValid() && !slices.ContainsFunc(prefixes, func(p Override) bool { return p.Prefix == o.Prefix }):
				prefixes = append(prefixes, o)
			}
		}
	}
	slices.SortFunc(prefixes, func(a, b Override) int { return comparePrefixes(a.Prefix, b.Prefix) })
	return whole, prefixes
}
