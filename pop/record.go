package pop

import (
	"math"
	"reflect"
	"slices"
	"sync"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/pop/guard"
)

// recordLength is how many decisions are remembered.
const recordLength = 128

// Decision is one decision about the route with all that went into it. A decision
// is recorded when something in it differs from the one before; figures that
// change all the time, such as a load, are those of that moment.
type Decision struct {
	Number uint64    `json:"number"` // grows by one with each
	At     time.Time `json:"at"`

	// Announced is what came of it, and Wanted what it would have been without
	// the guard.
	Announced Announcement `json:"announced"`
	Wanted    Announcement `json:"wanted"`
	Rule      Rule         `json:"rule"`
	Reason    string       `json:"reason"`
	// Prefixes are those that are announced unlike the others.
	Prefixes exceptions `json:"prefixes,omitempty"`
	// SpeakerError is why the speaker did not take the announcement at once; it
	// goes on trying. Empty if it did, or was not told anything new.
	SpeakerError string `json:"speaker_error,omitempty"`

	// What went into it.
	Health health.Verdict `json:"health"`
	Remote string         `json:"remote,omitempty"` // trouble with something remote
	Room   string         `json:"room,omitempty"`   // a resource at its shed mark
	// Shed is the percent of new requests refused for lack of room.
	Shed  int         `json:"shed,omitempty"`
	Drain DrainStatus `json:"drain"`
	// Overrides are those in force for this node, that of all of it first.
	Overrides []fleet.Override `json:"overrides,omitempty"`
	Guard     GuardDecision    `json:"guard"`
	// FleetConnected and FleetFrozen are as the node knew them.
	FleetConnected bool `json:"fleet_connected"`
	FleetFrozen    bool `json:"fleet_frozen"`
}

// GuardDecision is the guard's part in a decision.
type GuardDecision struct {
	// Answer is not_asked, waiting, granted, refused, busy or unreachable.
	Answer string `json:"answer"`
	// Asked is the last question, and what it was ruled on; nil if there was
	// none since the node last wanted to stay.
	Asked *GuardAsk `json:"asked,omitempty"`
}

// GuardAsk is one question to the guard.
type GuardAsk struct {
	At      time.Time     `json:"at"`
	Reason  string        `json:"reason"`
	Planned bool          `json:"planned"` // by an operator
	Gone    bool          `json:"gone"`    // withdrawn already, and only said so
	Recent  bool          `json:"recent"`  // unhealthy since less than the window
	Policy  GuardPolicy   `json:"policy"`
	Figures guard.Figures `json:"figures"`
	Cause   guard.Cause   `json:"cause,omitempty"`  // the rule that refused
	Detail  string        `json:"detail,omitempty"` // on what figures it refused
	Frozen  []string      `json:"frozen,omitempty"` // PoPs of a freeze
}

// GuardPolicy is the policy of a question, with its units.
type GuardPolicy struct {
	MinPops int     `json:"min_pops"`
	MaxOut  int     `json:"max_out"`
	Share   float64 `json:"share"` // 0 to 1
	Window  string  `json:"window"`
}

func newGuardAsk(now time.Time, p guard.Policy, r guard.Request, why plea, g guard.Ruling) *GuardAsk {
	a := &GuardAsk{
		At: now, Reason: why.reason, Planned: r.Planned, Gone: r.Gone, Recent: r.Recent,
		Policy:  GuardPolicy{p.MinPops, p.MaxOut, p.Share, p.Window.String()},
		Figures: g.Figures,
	}
	if g.Refusal != nil {
		a.Cause, a.Detail = g.Refusal.Cause, g.Refusal.Detail
	}
	if g.Freeze != nil {
		a.Frozen = g.Freeze.Pops
	}
	return a
}

// String names a permission as decisions do.
func (p permission) String() string {
	return [...]string{wait: "waiting", granted: "granted", refused: "refused", busy: "busy", unknown: "unreachable"}[p]
}

// record is the ring of the newest decisions. It is safe for concurrent use.
type record struct {
	mu   sync.Mutex
	list []Decision // in order
}

// add records d if something changed, and numbers it.
func (r *record) add(d Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.list); n > 0 {
		last := &r.list[n-1]
		if last.same(&d) {
			return
		}
		d.Number = last.Number
	}
	d.Number++
	if len(r.list) == recordLength {
		r.list = slices.Delete(r.list, 0, 1)
	}
	r.list = append(r.list, d)
}

// newest returns the newest decisions, the oldest first, at most n.
func (r *record) newest(n int) []Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list[max(0, len(r.list)-n):])
}

// same reports whether two decisions differ in nothing but figures, times and
// words.
func (d *Decision) same(o *Decision) bool {
	cause := func(a *GuardAsk) guard.Cause {
		if a == nil {
			return ""
		}
		return a.Cause
	}
	checks := func(a, b health.CheckStatus) bool { return a.Name == b.Name && a.State == b.State }
	return d.Announced == o.Announced && d.Wanted == o.Wanted && d.Rule == o.Rule && d.Prefixes.equal(o.Prefixes) &&
		d.SpeakerError == o.SpeakerError && d.Health.State == o.Health.State &&
		slices.EqualFunc(d.Health.Checks, o.Health.Checks, checks) &&
		d.Remote == o.Remote && (d.Room == "") == (o.Room == "") && (d.Shed == 0) == (o.Shed == 0) &&
		d.Drain.Stage == o.Drain.Stage && reflect.DeepEqual(d.Drain.Request, o.Drain.Request) &&
		slices.Equal(d.Drain.Prefixes, o.Drain.Prefixes) &&
		slices.Equal(d.Overrides, o.Overrides) &&
		d.Guard.Answer == o.Guard.Answer && cause(d.Guard.Asked) == cause(o.Guard.Asked) &&
		d.FleetConnected == o.FleetConnected && d.FleetFrozen == o.FleetFrozen
}

// decision puts a step of the controller on record.
func (c *controller) decision(now time.Time, v health.Verdict, view fleetView) Decision {
	d := Decision{
		At: now, Announced: c.route.announced, Wanted: c.route.wish, Rule: c.route.rule, Reason: c.route.reason,
		Prefixes: c.route.except, SpeakerError: c.refused,
		Health: v, Remote: c.remote, Room: c.room,
		Overrides:      overridesOf(view.orders),
		Shed:           int(math.Round(c.shed.percent)),
		Drain:          drainStatus(c.route.drain, view.orders),
		Guard:          GuardDecision{Answer: "not_asked"},
		FleetConnected: view.connected, FleetFrozen: view.frozen,
	}
	if !c.route.wanted.IsZero() {
		d.Guard.Answer = c.route.lease.answer.permission.String()
		if a := view.asked; a != nil && !a.At.Before(c.route.wanted) {
			d.Guard.Asked = a
		}
		if !view.connected && c.route.lease.answer.permission != granted {
			d.Guard.Answer = unknown.String()
		}
	}
	return d
}
