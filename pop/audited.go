package pop

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

// Audit returns acts of operators on this node, the oldest first.
func (a *Agent) Audit(q audit.Query) []audit.Entry { return a.audit.Entries(q) }

// target names what a drain or an override is about.
func target(scope, name string, prefix netip.Prefix) string {
	if prefix.IsValid() {
		return scopeName(scope, name) + " " + prefix.String()
	}
	return scopeName(scope, name)
}

// SetOverride puts an override in force for so long. Who does it is who.By.
func (a *Agent) SetOverride(ctx context.Context, who audit.Actor, o fleet.Override, span time.Duration) error {
	o.By, o.At = who.By, time.Now()
	o.Until = o.At.Add(span)
	e := audit.Entry{Act: audit.Override, On: target(o.Scope, o.Name, o.Prefix), What: o.Action + ": " + o.Reason, Until: o.Until, Forced: o.Force}
	return a.audit.Done(who, e, a.fleet.SetOverride(ctx, o))
}

// ClearOverride ends the override for the scope, name and prefix of o.
func (a *Agent) ClearOverride(ctx context.Context, who audit.Actor, o fleet.Override) error {
	return a.audit.Done(who, audit.Entry{Act: audit.ClearOverride, On: target(o.Scope, o.Name, o.Prefix)}, a.fleet.ClearOverride(ctx, o))
}

// Overrides returns every override that is in force somewhere in the fleet.
func (a *Agent) Overrides() []fleet.Override {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(a.fleet.View().Overrides), func(o fleet.Override) bool { return !o.Active(now) })
}
