package pop

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"anyedge/bgp"
	"anyedge/bgp/bfd"
	"anyedge/configs"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/internal/tickets"
	"anyedge/origin"
	"anyedge/pop/headroom"
	"anyedge/pop/vrrp"
)

// Status is what "anyedge status" and GET /v1/status show of a node.
type Status struct {
	Node   string `json:"node"`
	Pop    string `json:"pop"`
	Region string `json:"region"`

	Health       health.Verdict     `json:"health"`
	Announcement AnnouncementStatus `json:"announcement"`
	Guard        GuardStatus        `json:"guard"`
	Drain        DrainStatus        `json:"drain"`
	// Overrides are those in force for this node, that of all of it first.
	Overrides []fleet.Override `json:"overrides,omitempty"`
	Worker    WorkerStatus     `json:"worker"`
	Config    ConfigStatus     `json:"config"`
	Fleet     FleetStatus      `json:"fleet"`
}

// AnnouncementStatus is how the service prefixes are announced, and why.
type AnnouncementStatus struct {
	State  Announcement `json:"state"`
	Reason string       `json:"reason"`
	Since  time.Time    `json:"since"`
	// Standby is set while another node of the PoP has the virtual addresses.
	Standby bool `json:"standby,omitempty"`
}

// GuardStatus is how far a withdrawal has come with the fleet.
type GuardStatus struct {
	LeaseHeld bool `json:"lease_held"`
	// Refused is why a withdrawal is refused now; empty when none is.
	Refused string `json:"refused,omitempty"`
	// Cause is the rule that refused: see package guard.
	Cause string `json:"cause,omitempty"`
}

// DrainStatus is how far a drain has come.
type DrainStatus struct {
	Stage DrainStage `json:"stage"`
	Since time.Time  `json:"since"`
	// Request is the drain that applies to this node, if one does.
	Request *fleet.Drain `json:"request,omitempty"`
	// Prefixes are the drains of single prefixes.
	Prefixes []fleet.Drain `json:"prefixes,omitempty"`
}

func drainStatus(d drain, o fleet.Orders) DrainStatus {
	return DrainStatus{d.stage, d.since, o.Drain, o.Prefixes}
}

// overridesOf lists the overrides of orders, that of all of the node first.
func overridesOf(o fleet.Orders) []fleet.Override {
	if o.Override == nil {
		return o.PrefixOverrides
	}
	return slices.Concat([]fleet.Override{*o.Override}, o.PrefixOverrides)
}

// WorkerStatus is the worker process as the agent sees it.
type WorkerStatus struct {
	PID   int  `json:"pid"`
	Ready bool `json:"ready"`
	// Silence is how long ago its last vitals came.
	Silence     string `json:"silence,omitempty"`
	Crashes     int    `json:"recent_crashes"`
	LastExit    string `json:"last_exit,omitempty"`
	Generation  uint64 `json:"generation"`
	Draining    bool   `json:"draining"`
	Connections int64  `json:"connections"`
	Requests    uint64 `json:"requests"`
	// Shed is the percent of new requests that it refuses for lack of room.
	Shed  int              `json:"shed,omitempty"`
	Usage []headroom.Usage `json:"usage"`
}

// FleetStatus is the fleet store as this node sees it.
type FleetStatus struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Nodes     int       `json:"nodes"`
	// Rejected are values in the store that do not decode; the last good ones
	// are in force.
	Rejected []string `json:"rejected,omitempty"`
}

// Routes is what GET /v1/routes shows.
type Routes struct {
	Announcement AnnouncementStatus `json:"announcement"`
	// Routes is every service prefix towards every neighbor.
	Routes []bgp.Route `json:"routes,omitempty"`
	// Blackholes are in force, by address.
	Blackholes []Blackhole   `json:"blackholes,omitempty"`
	BGP        *bgp.Status   `json:"bgp,omitempty"`
	BFD        []bfd.Status  `json:"bfd,omitempty"`
	VRRP       []vrrp.Status `json:"vrrp,omitempty"`
}

// Tickets is what GET /v1/tickets shows: never a key.
type Tickets struct {
	Rotate      string              `json:"rotate"`
	Propagation string              `json:"propagation"`
	Keys        []tickets.KeyStatus `json:"keys"`
}

// Pools is what GET /v1/pools shows.
type Pools struct {
	Pools []origin.Status `json:"pools"`
}

// Status returns the node's status. Before the first decision most of it is
// empty.
func (a *Agent) Status() Status {
	n, view, now := a.started.Node, a.fleet.View(), time.Now()
	s := Status{
		Node: n.Name, Pop: n.Pop, Region: n.Region,
		Announcement: AnnouncementStatus{State: Withdrawn, Reason: "starting", Since: now},
		Drain:        DrainStatus{Stage: DrainNone},
		Config:       *a.conf.status.Load(),
		Fleet:        FleetStatus{Connected: view.Connected, Since: view.LostSince, Nodes: len(view.Reports), Rejected: view.Rejected},
	}
	if view.Connected {
		s.Fleet.Since = view.ConnectedSince
	}
	st := a.state.Load()
	if st == nil {
		return s
	}
	s.Health = st.Verdict
	s.Announcement = AnnouncementStatus{st.Announced, st.Reason, st.Since, st.Standby}
	s.Guard.LeaseHeld = st.Lease.permission == granted
	if r := st.Lease.refusal; r != nil {
		s.Guard.Refused, s.Guard.Cause = r.Detail, string(r.Cause)
	}
	s.Drain, s.Overrides = drainStatus(st.Drain, st.Orders), overridesOf(st.Orders)
	w := st.Worker
	s.Worker = WorkerStatus{PID: w.pid, Ready: w.ready(), Crashes: len(w.crashes), LastExit: w.exited}
	if v := w.vitals; v != nil {
		s.Worker.Silence = now.Sub(w.heard).Round(time.Millisecond).String()
		s.Worker.Generation, s.Worker.Draining = v.Generation, v.Draining
		s.Worker.Connections, s.Worker.Requests, s.Worker.Usage = v.Connections, v.Requests, v.Usage
		s.Worker.Shed = v.Shed
	}
	return s
}

// Healthy reports whether the node can serve, for a load balancer or a start
// script that asks.
func (a *Agent) Healthy() bool {
	st := a.state.Load()
	return st != nil && st.Verdict.State == health.Healthy
}

// Routes returns what should be announced, and what is, to whom.
func (a *Agent) Routes() Routes {
	r := Routes{Announcement: a.Status().Announcement}
	if a.upstreams != nil {
		s := a.upstreams.speaker.Status()
		r.Routes, r.BGP, r.BFD = a.upstreams.speaker.Routes(), &s, a.upstreams.paths.Status()
		r.Blackholes = a.Blackholes()
	}
	if a.virtual != nil {
		r.VRRP = a.virtual.status()
	}
	return r
}

// Pools returns the worker's pools as its last vitals had them.
func (a *Agent) Pools() Pools {
	p := Pools{Pools: []origin.Status{}}
	if st := a.state.Load(); st != nil && st.Worker.vitals != nil {
		p.Pools = st.Worker.vitals.Pools
	}
	return p
}

// Tickets returns the ring of session ticket keys without the keys.
func (a *Agent) Tickets() Tickets {
	t := Tickets{
		Rotate:      a.rotator.schedule.Rotate.String(),
		Propagation: a.rotator.schedule.Propagation.String(),
		Keys:        []tickets.KeyStatus{},
	}
	if ring, err := decodeRing(a.fleet.View().Ring); err == nil && len(ring.Keys) > 0 {
		t.Keys = ring.Status(time.Now())
	}
	return t
}

// SetDrain asks for a node, a PoP or a region to be taken out of service, for so
// long, or with 0 until the drain is cleared.
func (a *Agent) SetDrain(ctx context.Context, who audit.Actor, d fleet.Drain, span time.Duration) error {
	d.By, d.At = who.By, time.Now()
	if span > 0 {
		d.Until = d.At.Add(span)
	}
	e := audit.Entry{Act: audit.Drain, On: target(d.Scope, d.Name, d.Prefix), What: d.Reason, Until: d.Until}
	return a.audit.Done(who, e, a.fleet.SetDrain(ctx, d))
}

// ClearDrain takes such a wish back: that for the scope, name and prefix of d.
func (a *Agent) ClearDrain(ctx context.Context, who audit.Actor, d fleet.Drain) error {
	var err error
	if d.Prefix.IsValid() {
		err = a.fleet.ClearPrefixDrain(ctx, d.Scope, d.Name, d.Prefix)
	} else {
		err = a.fleet.ClearDrain(ctx, d.Scope, d.Name)
	}
	return a.audit.Done(who, audit.Entry{Act: audit.Undrain, On: target(d.Scope, d.Name, d.Prefix)}, err)
}

// Drains returns every drain that the fleet knows of, those of prefixes last.
func (a *Agent) Drains() []fleet.Drain {
	view := a.fleet.View()
	return slices.Concat(view.Drains, view.PrefixDrains)
}

// Node returns who the node is.
func (a *Agent) Node() configs.Node { return a.started.Node }

// gatherTimeout bounds the wait for the worker's metrics.
const gatherTimeout = time.Second

// Gather implements [prometheus.Gatherer]: the agent's metrics and, while a
// worker answers, the worker's.
func (a *Agent) Gather() ([]*dto.MetricFamily, error) {
	return prometheus.Gatherers{a.registry, prometheus.GathererFunc(a.gatherWorker)}.Gather()
}

func (a *Agent) gatherWorker() ([]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), gatherTimeout,
		fmt.Errorf("worker did not answer within %s", gatherTimeout))
	defer cancel()
	families, err := a.supervisor.gather(ctx)
	if err != nil {
		// Without the worker's metrics the agent's are needed more than ever.
		a.log.Warn("worker metrics are missing from this scrape", "error", err)
		return nil, nil
	}
	return families, nil
}
