package pop

import (
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

// drainTarget names what a drain is about.
func drainTarget(d fleet.Drain) string {
	if d.Prefix.IsValid() {
		return scopeName(d.Scope, d.Name) + " " + d.Prefix.String()
	}
	return scopeName(d.Scope, d.Name)
}
