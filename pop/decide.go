package pop

import (
	"fmt"

	"anyedge/internal/fleet"
	"anyedge/internal/health"
)

// Announcement is how the service prefixes are announced.
type Announcement string

// The announcements, from the least to the most attractive.
const (
	Withdrawn   Announcement = "withdrawn"
	Depreferred Announcement = "depreferred"
	Announced   Announcement = "announced"
)

// Announcements lists every announcement.
func Announcements() []Announcement { return []Announcement{Withdrawn, Depreferred, Announced} }

// situation is what a node knows about itself and the fleet at one instant.
type situation struct {
	verdict health.State
	why     string          // the verdict's reason
	serves  bool            // every check passes now, though the verdict may still be held down
	order   *fleet.Override // an operator's word; nil if there is none
	drain   DrainStage      // how far a drain has come
	remote  string          // trouble with something remote, such as a pool with no usable backend
	full    string          // a resource at its shed mark
	current Announcement    // what is announced now
}

// Rule is what a decision follows from. It is a closed set.
type Rule string

// The rules, in the order in which they are asked.
const (
	RuleOverride     Rule = "override"      // an operator's word, for a while
	RuleLocalFailure Rule = "local_failure" // the node itself cannot serve
	RuleDrain        Rule = "drain"         // an operator takes it out of service
	RuleUnknown      Rule = "unknown"       // it is not known whether the node can serve
	RuleRoom         Rule = "no_room"       // a resource is at its shed mark
	RuleRemote       Rule = "remote"        // something remote is in trouble
	RuleHealthy      Rule = "healthy"
	RuleLifetime     Rule = "lifetime" // the agent starts or stops
)

// decision is what a node wants to announce.
type decision struct {
	want   Announcement
	rule   Rule
	reason string
	// urgent is set when the node itself cannot serve: the only reason to
	// withdraw without asking when the fleet store is out of reach.
	urgent bool
	// forced is set when an operator wants no guard to be asked.
	forced bool
}

// decide maps a situation to an announcement. It is the one place that says
// what may move the route:
//
//   - an operator's override, by force, does as it says;
//   - a local failure to serve withdraws;
//   - any other override does as it says, but announces nothing new of a node
//     that has not shown that it serves;
//   - a drain de-prefers, then withdraws;
//   - trouble elsewhere, and a lack of room, only de-prefer;
//   - not knowing changes nothing, and announces nothing new.
//
// A verdict that is unhealthy only because it is held down after earlier
// failures is anti-flap, not a failure to serve, and gives way to an override.
func decide(s situation) decision {
	if s.order != nil && s.order.Force {
		return ordered(s)
	}
	switch {
	case s.verdict == health.Unhealthy && (s.order == nil || s.order.Action == fleet.ActionWithdraw || !s.serves):
		return decision{want: Withdrawn, rule: RuleLocalFailure, reason: s.why, urgent: true}
	case s.order != nil:
		return ordered(s)
	case s.drain == DrainDeprefer && s.current != Withdrawn:
		return decision{want: Depreferred, rule: RuleDrain, reason: "drain: de-preferred"}
	case s.drain != DrainNone && s.drain != "":
		return decision{want: Withdrawn, rule: RuleDrain, reason: "drain"}
	case s.verdict == health.Unknown:
		return decision{want: s.current, rule: RuleUnknown, reason: "health unknown, nothing changes: " + s.why}
	case s.full != "":
		return decision{want: Depreferred, rule: RuleRoom, reason: "no room: " + s.full}
	case s.remote != "":
		return decision{want: Depreferred, rule: RuleRemote, reason: "remote trouble: " + s.remote}
	}
	return decision{want: Announced, rule: RuleHealthy, reason: "healthy"}
}

// ordered is what an override makes of a situation.
func ordered(s situation) decision {
	d := decision{rule: RuleOverride, reason: "override: " + s.order.Action, forced: s.order.Force}
	if s.order.Force {
		d.reason += " by force"
	}
	switch s.order.Action {
	case fleet.ActionAnnounce:
		d.want = Announced
	case fleet.ActionDepreference:
		d.want = Depreferred
	default:
		d.want = Withdrawn
	}
	if lower := s.current == Announced; d.forced || s.verdict != health.Unknown || d.want == Withdrawn || lower {
		return d
	}
	return decision{want: s.current, rule: RuleUnknown, reason: fmt.Sprintf("%s waits: health unknown: %s", d.reason, s.why)}
}
