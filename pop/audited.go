package pop

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

// Actor is who an operator's act comes from.
type Actor struct {
	By   string // by their own account
	From string // an address, or "signal"
}

// audited records an act that has just been done, or has failed, and returns err.
func (a *Agent) audited(who Actor, e audit.Entry, err error) error {
	e.At, e.By, e.From = time.Now(), who.By, who.From
	if err != nil {
		e.Error = err.Error()
	}
	a.audit.Record(e)
	return err
}

// Audit returns the newest acts of operators on this node, the oldest first, at
// most n.
func (a *Agent) Audit(n int) []audit.Entry { return a.audit.Entries(n) }

// target names what a drain or an override is about.
func target(scope, name string, prefix netip.Prefix) string {
	if prefix.IsValid() {
		return scopeName(scope, name) + " " + prefix.String()
	}
	return scopeName(scope, name)
}

// SetOverride puts an override in force for so long. Who does it is who.By.
func (a *Agent) SetOverride(ctx context.Context, who Actor, o fleet.Override, span time.Duration) error {
	o.By, o.At = who.By, time.Now()
	o.Until = o.At.Add(span)
	e := audit.Entry{Act: audit.Override, On: target(o.Scope, o.Name, o.Prefix), What: o.Action + ": " + o.Reason, Until: o.Until, Forced: o.Force}
	return a.audited(who, e, a.fleet.SetOverride(ctx, o))
}

// ClearOverride ends the override for the scope, name and prefix of o.
func (a *Agent) ClearOverride(ctx context.Context, who Actor, o fleet.Override) error {
	return a.audited(who, audit.Entry{Act: audit.ClearOverride, On: target(o.Scope, o.Name, o.Prefix)}, a.fleet.ClearOverride(ctx, o))
}

// Overrides returns every override that is in force somewhere in the fleet.
func (a *Agent) Overrides() []fleet.Override {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(a.fleet.View().Overrides), func(o fleet.Override) bool { return !o.Active(now) })
}
