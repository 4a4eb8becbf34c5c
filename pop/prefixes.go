package pop

import (
	"maps"
	"net/netip"

	"anyedge/internal/fleet"
)

// exceptions are the service prefixes that are announced unlike the others. Nil
// is none.
type exceptions map[netip.Prefix]Announcement

// except returns the exceptions that orders make from the announcement a, which
// follows from rule.
//
// The drain of a prefix de-prefers it where it would be announced, and withdraws
// nothing: the guard's leases count PoPs, so nobody could say whether another PoP
// still announces a prefix that this one takes back. An override beats the drain
// of a prefix. It withdraws one by force only, and announces one that the node
// de-prefers for the sake of room or of something remote; a node that is on its
// way out, or that cannot serve, takes all its prefixes along.
func except(a Announcement, rule Rule, o fleet.Orders) exceptions {
	ex := make(exceptions)
	if a == Announced {
		for _, d := range o.Prefixes {
			ex[d.Prefix] = Depreferred
		}
	}
	stays := rule == RuleHealthy || rule == RuleRoom || rule == RuleRemote || rule == RuleOverride
	for _, p := range o.PrefixOverrides {
		switch {
		case a == Withdrawn:
		case p.Action == fleet.ActionWithdraw:
			ex[p.Prefix] = Withdrawn
		case p.Action == fleet.ActionDepreference && a == Announced:
			ex[p.Prefix] = Depreferred
		case p.Action == fleet.ActionAnnounce && a == Announced:
			delete(ex, p.Prefix)
		case p.Action == fleet.ActionAnnounce && a == Depreferred && stays:
			ex[p.Prefix] = Announced
		}
	}
	if len(ex) == 0 {
		return nil
	}
	return ex
}

// of returns how a prefix is announced when the others are announced as a.
func (ex exceptions) of(p netip.Prefix, a Announcement) Announcement {
	if own, ok := ex[p]; ok {
		return own
	}
	return a
}

func (ex exceptions) equal(other exceptions) bool { return maps.Equal(ex, other) }
