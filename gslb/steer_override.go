package gslb

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"anyedge/gslb/steer"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

// Overrides returns the overrides of steering that are in force.
func (n *Node) Overrides() []fleet.SteerOverride {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(n.fleet.View().SteerOverrides), func(o fleet.SteerOverride) bool { return !o.Active(now) })
}

// SetOverride puts an override of steering in force on all DNS nodes for a time.
func (n *Node) SetOverride(ctx context.Context, who audit.Actor, o fleet.SteerOverride, span time.Duration) error {
	o.By, o.At = who.By, time.Now()
	o.Until = o.At.Add(span)
	return n.audit.Done(who, overridden(audit.SteerOverride, o), n.fleet.SetSteerOverride(ctx, o))
}

// Concerns returns an error if an override would change no answer of the config,
// because its patterns match no steered name, or none of the PoPs of those that they
// match: most likely it is misspelled.
func (n *Node) Concerns(o fleet.SteerOverride) error {
	var pops []string
	named := false
	for _, c := range steerNames(n.config()) {
		if matched, _ := path.Match(steer.Canonical(o.Names), steer.Canonical(c.Name)); !matched {
			continue
		}
		named = true
		for _, a := range c.Answers {
			if matched, _ := path.Match(o.Pops, a.Pop); matched {
				return nil
			}
			pops = append(pops, a.Pop)
		}
	}
	if !named {
		return fmt.Errorf("names: %q matches no steered name", o.Names)
	}
	slices.Sort(pops)
	return fmt.Errorf("pops: %q matches none of these names' PoPs, which are %s", o.Pops, strings.Join(slices.Compact(pops), ", "))
}

// ClearOverride ends the override with the names and PoPs of o.
func (n *Node) ClearOverride(ctx context.Context, who audit.Actor, o fleet.SteerOverride) error {
	return n.audit.Done(who, overridden(audit.ClearSteerOverride, o), n.fleet.ClearSteerOverride(ctx, o))
}

// overridden is the entry for an act that is about an override.
func overridden(act audit.Act, o fleet.SteerOverride) audit.Entry {
	return audit.Entry{Act: act, On: o.Names, What: tableOverride(o).String(), Until: o.Until}
}

// Audit returns acts of operators on this node, the oldest first.
func (n *Node) Audit(q audit.Query) []audit.Entry { return n.audit.Entries(q) }

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
