package pop

import (
	"context"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
)

// route decides how a node announces its service prefixes. It is the pure part
// of the controller: what it knows is handed to it with the time, and its only
// way to the outside, the lease, never blocks. The same code runs in a fleet
// simulated on virtual time.
//
// It is owned by the controller's goroutine.
type route struct {
	drain drain
	lease *lease

	announced Announcement
	reason    string
	since     time.Time // of announced
	except    exceptions
	draining  bool         // de-preferred, and a drain goes on
	wish      Announcement // of the rules, before the guard was asked
	rule      Rule         // behind the wish
	wanted    time.Time    // since when it has been wished to withdraw; zero while it is not
}

// facts are what a node knows about itself and the fleet at one instant.
type facts struct {
	verdict     health.State
	why         string // the verdict's reason
	serves      bool   // every check passes now, though the verdict may still be held down
	remote      string // trouble with something remote
	full        string // a resource at its shed mark
	connections int64  // client connections of the worker
	pace        configs.Drain
	fleet       fleetView
}

// fleetView is what a node needs to know of the fleet.
type fleetView struct {
	connected bool
	frozen    bool          // as last known: too much of the fleet turned unhealthy together
	orders    fleet.Orders  // what operators ask of this node
	listed    bool          // the document of leases has this node
	session   fleet.Session // empty while there is none
	asked     *GuardAsk     // the last question to the guard; nil if there was none
}

// step advances the drain and returns what to announce now, as far as the guard
// permits it.
func (r *route) step(ctx context.Context, now time.Time, f facts) decision {
	order := f.fleet.orders.Override
	held := order != nil && order.Action != fleet.ActionWithdraw // the drain waits for its end
	df := drainFacts{requested: f.fleet.orders.Drain != nil && !held, connections: f.connections}
	if r.announced == Withdrawn {
		df.withdrawn = r.since
	}
	r.drain.step(now, f.pace, df)
	r.lease.under(f.fleet.session, f.fleet.connected)
	d := decide(situation{
		verdict: f.verdict,
		why:     f.why,
		serves:  f.serves,
		order:   order,
		drain:   r.drain.stage,
		remote:  f.remote,
		full:    f.full,
		current: r.announced,
	})
	r.wish, r.rule = d.want, d.rule
	switch {
	case d.want != Withdrawn:
		r.wanted = time.Time{}
	case f.verdict == health.Unhealthy || r.drain.stage != DrainNone || d.rule == RuleOverride:
		if r.wanted.IsZero() {
			r.wanted = now
		}
		d = r.permit(ctx, now, f.fleet, d)
	}
	return d
}

// permit turns the wish to withdraw into what the guard permits.
func (r *route) permit(ctx context.Context, now time.Time, view fleetView, d decision) decision {
	p := plea{reason: d.reason, planned: !d.urgent, since: r.wanted}
	if d.forced && r.announced != Withdrawn {
		return d // by the next step it is out, and the record says so
	}
	if r.announced == Withdrawn {
		// Already out, or never in: the record only lets the others know.
		if view.connected {
			p.gone = r.lease.answer.permission != granted || r.lease.asked.gone
			r.lease.ask(ctx, now, p)
		}
		return d
	}
	answer := unknown
	if view.connected {
		answer = r.lease.ask(ctx, now, p)
	}
	stay := func(why string) decision {
		return decision{want: Depreferred, rule: d.rule, reason: d.reason + "; " + why}
	}
	switch {
	case answer == granted:
		return d
	case answer == refused:
		return stay(r.lease.answer.refusal.Error())
	case answer == busy:
		return stay("not withdrawn yet: the fleet store answers too late")
	case answer == wait:
		return decision{want: r.announced, rule: d.rule, reason: r.reason}
	case d.urgent && !view.frozen:
		d.reason += "; fleet store out of reach"
		return d
	case d.urgent:
		return stay("not withdrawn: fleet store out of reach, and the fleet was frozen")
	}
	return stay("not withdrawn: fleet store out of reach")
}

// follow takes the decision, and what orders make different for some prefixes,
// as what is announced now, and reports whether that is a change. That a drain
// begins while the route is de-preferred anyway is one.
func (r *route) follow(now time.Time, d decision, ex exceptions) bool {
	r.reason = d.reason
	changed := d.want != r.announced
	if changed {
		r.announced, r.since = d.want, now
	}
	draining := d.want == Depreferred && r.drain.stage != DrainNone && r.drain.stage != ""
	changed = changed || !ex.equal(r.except) || draining != r.draining
	r.except, r.draining = ex, draining
	return changed
}

// settle gives the lease back when the route is up again, or was not taken back
// after all. It comes after the announcement: while a route may still be gone,
// it has to count.
func (r *route) settle(ctx context.Context, now time.Time, listed bool) {
	if r.wanted.IsZero() {
		r.lease.giveBack(ctx, now, listed)
	}
}
