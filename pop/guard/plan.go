package guard

import (
	"fmt"

	"anyedge/pop/headroom"
)

// Plan is what the DNS nodes' plan of who goes where says about the loss of the
// asking PoP.
//
// It knows what the sum of free room does not: which PoPs the displaced clients
// would go to. But its makers see the fleet from further away, know nothing of
// leases, and can be silent or wrong. So a plan can only add a refusal: one that
// holds grants nothing that the other rules refuse, and one that does not count,
// or is not there, changes nothing.
type Plan struct {
	By  string  `json:"by"`          // who made it
	Age float64 `json:"age_seconds"` // since it last changed, as the asking node saw it
	// Fresh is true if it counts.
	Fresh bool `json:"fresh"`
	// Worst is the PoP that would be the fullest, empty if there is none, and
	// Utilization its load over its ceiling.
	Worst       string  `json:"worst,omitempty"`
	Utilization float64 `json:"utilization"`
	// Holds is false if some clients would find no PoP, or one would exceed its
	// ceiling.
	Holds bool `json:"holds"`
}

// refuses refuses if the loss would fill another PoP beyond the shed mark. A nil
// Plan refuses nothing.
func (p *Plan) refuses() *Refusal {
	switch {
	case p == nil || !p.Fresh || p.Holds && p.Utilization <= headroom.ShedAt:
		return nil
	case p.Worst == "" || p.Utilization <= headroom.ShedAt:
		return &Refusal{PlanOverload, fmt.Sprintf("by the plan of %s some clients would find no PoP", p.By)}
	}
	return &Refusal{PlanOverload, fmt.Sprintf("by the plan of %s %s would be at %.0f%% of its ceiling, over %.0f%%",
		p.By, p.Worst, 100*p.Utilization, 100*headroom.ShedAt)}
}
