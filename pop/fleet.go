package pop

import (
	"time"

	"anyedge/internal/fleet"
	"anyedge/pop/headroom"
)

// Fleet is what GET /v1/fleet shows: the fleet as this node sees it.
type Fleet struct {
	Connected bool       `json:"connected"`
	Nodes     []Reported `json:"nodes"` // by name
	// Losses say for each PoP that serves what its loss would do by the reports
	// alone: whether the others have room for all that it has, wherever its clients
	// would go. They are by PoP.
	Losses []headroom.Loss `json:"losses"`
	// Plan is the DNS nodes' plan, which knows where they would go; nil if there is
	// none. The guard heeds both.
	Plan *FleetPlan `json:"plan,omitempty"`
}

// FleetPlan is a plan and how old it is.
type FleetPlan struct {
	fleet.Plan
	AgeSeconds float64 `json:"age_seconds"` // since it last changed, as this node saw it
	// Fresh is true while the plan counts: see [fleet.View.PlanAge].
	Fresh bool `json:"fresh"`
}

// Reported is a node's report.
type Reported struct {
	fleet.Report
	// Fresh is true while the report counts: see [fleet.View.Fresh].
	Fresh bool `json:"fresh"`
}

// Fleet returns what this node knows of the fleet.
func (a *Agent) Fleet() Fleet {
	return fleetIn(a.fleet.View(), time.Now(), a.started.Fleet.ReportTTL.Std())
}

// fleetIn returns what a View shows; ttl is the age at which a report no longer
// counts.
func fleetIn(view *fleet.View, now time.Time, ttl time.Duration) Fleet {
	f := Fleet{Connected: view.Connected, Nodes: []Reported{}}
	serving := make(map[string][]headroom.Usage)
	for _, s := range view.Reports {
		r := Reported{s.Report, view.Fresh(s, now, ttl)}
		f.Nodes = append(f.Nodes, r)
		// The room of a node that stands by is of no use to other PoPs.
		if r.Fresh && r.serving() && !r.Standby {
			serving[r.Pop] = append(serving[r.Pop], usage(r.Usage)...)
		}
	}
	f.Losses = headroom.NMinusOne(serving)
	if view.Plan != nil {
		age, fresh := view.PlanAge(now)
		f.Plan = &FleetPlan{*view.Plan, age.Seconds(), fresh}
	}
	return f
}

// serving reports whether the node is healthy, announced and not being drained.
func (r *Reported) serving() bool {
	return r.State == fleet.StateHealthy && r.Announcement == fleet.Announced && !r.Draining
}
