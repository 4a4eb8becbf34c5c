package pop

import (
	"slices"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/pop/guard"
	"anyedge/pop/headroom"
)

const (
	// clockSkew is how far the clocks of two hosts may be apart before a lease
	// of long ago could be taken for a new one.
	clockSkew = time.Minute
	// freezeLimit ends a freeze whose PoPs never come back: by then they are
	// no longer part of the fleet.
	freezeLimit = time.Hour
)

// census puts what a node knows of the fleet into the guard's terms. It does no
// I/O and reads no clock, and is not safe for concurrent use.
type census struct {
	node   configs.Node
	policy guard.Policy
	ttl    time.Duration // age at which a report no longer counts

	tracker guard.Tracker
	leases  map[leaseID]time.Time // when each lease was first seen
}

// leaseID tells one request for a lease from the next of the same node.
type leaseID struct {
	node    string
	session fleet.Session
	at      int64
	waiting bool
}

// plea is why a node wants to withdraw.
type plea struct {
	reason  string
	planned bool      // by an operator
	gone    bool      // it is withdrawn already, and only lets the others know
	since   time.Time // when the reason began
}

func newCensus(cfg *configs.Pop) census {
	return census{
		node: cfg.Node,
		policy: guard.Policy{
			MinPops: *cfg.Guard.MinPops, MaxOut: cfg.Guard.MaxOut,
			Share: cfg.Guard.Share.Fraction(), Window: cfg.Guard.Window.Std(),
		},
		ttl:    cfg.Fleet.ReportTTL.Std(),
		leases: make(map[leaseID]time.Time),
	}
}

// observe takes in a View. While the store is out of reach nobody's health is
// known, and nothing is learned.
func (c *census) observe(now time.Time, view *fleet.View) {
	if !view.Connected {
		return
	}
	c.tracker.Observe(now, healthyPops(view, now, c.ttl))
	seen := make(map[leaseID]time.Time, len(c.leases))
	note := func(list []fleet.Lease, waiting bool) {
		for _, l := range list {
			id := leaseID{l.Node, l.Session, l.At.UnixNano(), waiting}
			seen[id] = now
			if first, ok := c.leases[id]; ok {
				seen[id] = first
			}
		}
	}
	note(view.Leases.Holders, false)
	note(view.Leases.Waiting, true)
	c.leases = seen
}

// healthyPops says of every PoP that is heard of whether a node of it can
// serve, or is out on purpose.
func healthyPops(view *fleet.View, now time.Time, ttl time.Duration) map[string]bool {
	pops := make(map[string]bool)
	for _, r := range view.Reports {
		fresh := view.Fresh(r, now, ttl)
		pops[r.Pop] = pops[r.Pop] || fresh && (r.State != fleet.StateUnhealthy || r.Draining)
	}
	return pops
}

// rule answers a plea, given the document of leases without this node's own, and
// says on what figures.
func (c *census) rule(now time.Time, view *fleet.View, others fleet.Leases, p plea, load []headroom.Usage) (fleet.Ruling, *GuardAsk) {
	req := c.request(now, view, others, p)
	req.Usage = load
	g := guard.Decide(c.policy, req)
	r := fleet.Ruling{Freeze: others.Freeze}
	if g.Refusal != nil { // never a nil pointer in an error
		r.Refused = g.Refusal
	}
	switch {
	case g.Freeze == nil:
		r.Freeze = nil
	case g.Freeze != req.Freeze:
		r.Freeze = &fleet.Freeze{Pops: g.Freeze.Pops, Known: g.Freeze.Known, By: c.node.Name, At: now}
	}
	return r, newGuardAsk(now, c.policy, req, p, g)
}

// request puts a plea, and the fleet as the view and the leases show it, into
// the guard's terms.
func (c *census) request(now time.Time, view *fleet.View, others fleet.Leases, p plea) guard.Request {
	req := guard.Request{
		Node: c.node.Name, Pop: c.node.Pop, Planned: p.planned, Gone: p.gone,
		Recent: now.Sub(p.since) <= c.policy.Window,
		Nodes:  c.nodes(now, view),
		Leases: slices.Concat(c.entries(now, others.Holders, true), c.entries(now, others.Waiting, false)),
	}
	if f := others.Freeze; f != nil && now.Sub(f.At) <= freezeLimit {
		req.Freeze = &guard.Freeze{Pops: f.Pops, Known: f.Known}
	}
	req.Sick, req.Known = c.tracker.Pops(now, c.policy.Window)
	req.Plan = c.plan(now, view)
	return req
}

// plan returns what is planned for the loss of this node's PoP; nil if nothing.
func (c *census) plan(now time.Time, view *fleet.View) *guard.Plan {
	if view.Plan == nil {
		return nil
	}
	loss := view.Plan.Without(c.node.Pop)
	if loss == nil {
		return nil
	}
	age, fresh := view.PlanAge(now)
	return &guard.Plan{
		By: view.Plan.By, Age: age.Seconds(), Fresh: fresh,
		Worst: loss.Worst, Utilization: loss.Utilization, Holds: loss.Holds,
	}
}

// nodes returns the nodes whose report counts. Here that takes more than
// elsewhere: what was read when the store was reached may be of any age, so a
// report counts only from its first change after that.
func (c *census) nodes(now time.Time, view *fleet.View) []guard.Node {
	var nodes []guard.Node
	for _, r := range view.Reports {
		if now.Sub(r.At) > c.ttl || !r.At.After(view.ConnectedSince) {
			continue
		}
		leaving := view.Orders(r.Node, r.Pop, r.Region, now).Leaving()
		nodes = append(nodes, guard.Node{
			Name: r.Node, Pop: r.Pop,
			Healthy: r.State == fleet.StateHealthy,
			Serving: r.State == fleet.StateHealthy && r.Announcement == fleet.Announced && !r.Draining && !leaving,
			Standby: r.Standby,
			Usage:   usage(r.Usage),
		})
	}
	return nodes
}

// entries puts leases into the guard's terms.
func (c *census) entries(now time.Time, list []fleet.Lease, out bool) []guard.Lease {
	span := max(c.policy.Window, 2*c.ttl)
	var entries []guard.Lease
	for _, l := range list {
		first, ok := c.leases[leaseID{l.Node, l.Session, l.At.UnixNano(), !out}]
		if !ok {
			first = now
		}
		entries = append(entries, guard.Lease{
			Node: l.Node, Pop: l.Pop, Out: out, Planned: l.Planned,
			Recent: now.Sub(first) <= span && now.Sub(l.At) <= span+clockSkew,
			Usage:  usage(l.Usage),
		})
	}
	return entries
}

// thawed reports whether the freeze that a View shows has ended.
func (c *census) thawed(now time.Time, view *fleet.View) bool {
	f := view.Leases.Freeze
	if f == nil || !view.Connected {
		return false
	}
	leases := slices.Concat(c.entries(now, view.Leases.Holders, true), c.entries(now, view.Leases.Waiting, false))
	return now.Sub(f.At) > freezeLimit || c.policy.Over(&guard.Freeze{Pops: f.Pops, Known: f.Known}, c.nodes(now, view), leases)
}

func usage(in []fleet.Usage) []headroom.Usage {
	out := make([]headroom.Usage, len(in))
	for i, u := range in {
		out[i] = headroom.Usage(u)
	}
	return out
}
