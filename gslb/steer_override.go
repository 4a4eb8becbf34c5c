package gslb

import (
	"context"
	"slices"
	"time"

	"anyedge/gslb/steer"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

// Actor is who does something to a node, by their own account, and the address it
// comes from.
type Actor struct{ By, From string }

// Overrides returns the overrides of steering that are in force.
func (n *Node) Overrides() []fleet.SteerOverride {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(n.fleet.View().SteerOverrides), func(o fleet.SteerOverride) bool { return !o.Active(now) })
}

// SetOverride puts an override of steering in force on all DNS nodes for a time.
func (n *Node) SetOverride(ctx context.Context, who Actor, o fleet.SteerOverride, span time.Duration) error {
	o.By, o.At = who.By, time.Now()
	o.Until = o.At.Add(span)
	return n.audited(who, audit.SteerOverride, o, n.fleet.SetSteerOverride(ctx, o))
}

// ClearOverride ends the override with the names and PoPs of o.
func (n *Node) ClearOverride(ctx context.Context, who Actor, o fleet.SteerOverride) error {
	return n.audited(who, audit.ClearSteerOverride, o, n.fleet.ClearSteerOverride(ctx, o))
}

// audited records what came of an act, and returns it.
func (n *Node) audited(who Actor, act audit.Act, o fleet.SteerOverride, err error) error {
	e := audit.Entry{At: time.Now(), Act: act, By: who.By, From: who.From, On: o.Names, What: tableOverride(o).String(), Until: o.Until}
	if err != nil {
		e.Error = err.Error()
	}
	n.audit.Record(e)
	return err
}

// Audit returns the newest acts of operators on this node, the oldest first, at
// most so many.
func (n *Node) Audit(most int) []audit.Entry { return n.audit.Entries(most) }

// steerOverrides are those in force as a table takes them.
func steerOverrides(view *fleet.View, now time.Time) (list []steer.Override) {
	for _, o := range view.SteerOverrides {
		if o.Active(now) {
			list = append(list, tableOverride(o))
		}
	}
	return list
}

func tableOverride(o fleet.SteerOverride) steer.Override {
	why := o.Reason
	if o.By != "" {
		why += ", " + o.By
	}
	return steer.Override{Names: o.Names, Pops: o.Pops, Only: o.Only, Until: o.Until, Why: why}
}
