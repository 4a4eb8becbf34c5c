package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// MaxPlanPops is how many PoPs a [Plan] may have.
	MaxPlanPops = 1024
	// MaxUtilization is the greatest utilization that a [Plan] names. What has
	// demand and no ceiling has it.
	MaxUtilization = 1e6
	// planLife is for how many intervals a plan counts.
	planLife = 3
)

// Plan is what the DNS nodes' division of clients among PoPs comes to, now and
// after the loss of each PoP. Every DNS node makes the same one from what all of
// them know; one of them publishes it.
type Plan struct {
	By string    `json:"by"` // the DNS node
	At time.Time `json:"at"` // when it was made, by that node's clock
	// Interval is the time from one plan to the next, in seconds, 1 to 3600.
	Interval int `json:"interval_seconds"`
	// Unit is what demand and ceilings were counted in; for operators.
	Unit string    `json:"unit"`
	Pops []PlanPop `json:"pops"` // one for each PoP, at most MaxPlanPops
}

// PlanPop is a PoP in a plan.
type PlanPop struct {
	Pop string `json:"pop"`
	// Utilization is the demand that the plan gives it over its ceiling, 0 to
	// MaxUtilization.
	Utilization float64 `json:"utilization"`
	// Lost is what the loss of the PoP would come to; nil if it has no clients to
	// lose because it takes none.
	Lost *PlanLoss `json:"lost,omitempty"`
}

// PlanLoss is what a division without one PoP comes to.
type PlanLoss struct {
	// Worst is the fullest of the other PoPs then, empty if none is used, and
	// Utilization its demand over its ceiling, 0 to MaxUtilization.
	Worst       string  `json:"worst,omitempty"`
	Utilization float64 `json:"utilization"`
	// Holds is true if all clients find a PoP and no PoP exceeds its ceiling.
	Holds bool `json:"holds"`
}

func (p *Plan) validate() error {
	errs := []error{
		checkName("by", p.By),
		checkRange("interval_seconds", float64(p.Interval), 1, 3600),
		checkText("unit", p.Unit),
	}
	if len(p.Pops) > MaxPlanPops {
		errs = append(errs, fmt.Errorf("pops: %d, more than %d", len(p.Pops), MaxPlanPops))
	}
	seen := make(map[string]bool, len(p.Pops))
	for i, pop := range p.Pops {
		at := fmt.Sprintf("pops[%d]", i)
		errs = append(errs, checkName(at+".pop", pop.Pop), checkRange(at+".utilization", pop.Utilization, 0, MaxUtilization))
		if seen[pop.Pop] {
			errs = append(errs, fmt.Errorf("%s.pop: %q again", at, pop.Pop))
		}
		seen[pop.Pop] = true
		if l := pop.Lost; l != nil {
			errs = append(errs, checkRange(at+".lost.utilization", l.Utilization, 0, MaxUtilization))
			if l.Worst != "" {
				errs = append(errs, checkName(at+".lost.worst", l.Worst))
			}
		}
	}
	return errors.Join(errs...)
}

// Without returns what the plan says about the loss of a PoP; nil if nothing.
func (p *Plan) Without(pop string) *PlanLoss {
	for i := range p.Pops {
		if p.Pops[i].Pop == pop {
			return p.Pops[i].Lost
		}
	}
	return nil
}

// PublishPlan writes p, unless another node's plan is in force: then it does
// nothing and returns false. So the node that publishes goes on to, and the plan
// does not swing between two that know different things; and when it falls silent
// for the life of its plan, one of the others takes its place. Silence is judged
// by this Fleet's View and its own clock, so Run must be running.
func (f *Fleet) PublishPlan(ctx context.Context, p Plan) (published bool, err error) {
	if err := p.validate(); err != nil {
		return false, fmt.Errorf("plan: %w", err)
	}
	value, err := encode(p)
	if err != nil {
		return false, fmt.Errorf("plan: %w", err)
	}
	view, now := f.View(), time.Now()
	if view.Plan != nil && view.Plan.By != p.By && !view.planAbandoned(now) {
		return false, nil
	}
	err = f.update(ctx, keyPlan, func(old []byte) ([]byte, error) {
		standing, err := decodePlan(old)
		if old == nil || err != nil || standing.By == p.By {
			return value, nil
		}
		if seen := view.Plan; seen == nil || seen.By != standing.By || !seen.At.Equal(standing.At) {
			return nil, ErrConflict // another node was faster
		}
		return value, nil
	})
	if errors.Is(err, ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("plan: %w", err)
	}
	return true, nil
}

// PlanAge returns how long ago, by this reader's clock, the plan last changed, and
// whether it counts: whether that is less than three of its intervals. A plan that
// was read when the store was reached may be of any age, so it counts only from
// its first change after that.
func (v *View) PlanAge(now time.Time) (age time.Duration, fresh bool) {
	if v.Plan == nil {
		return 0, false
	}
	age = now.Sub(v.PlanSeen)
	return age, v.Connected && v.PlanSeen.After(v.ConnectedSince) && age <= v.Plan.life()
}

// planAbandoned reports whether the publisher of the plan has been silent for the
// life of its plan while the store was there to be written.
func (v *View) planAbandoned(now time.Time) bool {
	since := v.PlanSeen
	if since.Before(v.ConnectedSince) {
		since = v.ConnectedSince
	}
	return v.Connected && now.Sub(since) > v.Plan.life()
}

func (p *Plan) life() time.Duration { return planLife * time.Duration(p.Interval) * time.Second }

func decodePlan(value []byte) (Plan, error) {
	var p Plan
	if err := json.Unmarshal(value, &p); err != nil {
		return Plan{}, err
	}
	return p, p.validate()
}

// planPart fills in what comes from keyPlan.
func planPart(v *View, list []kept) {
	v.Plan, v.PlanSeen = nil, time.Time{}
	for _, item := range list {
		if p, ok := item.good.(Plan); ok {
			v.Plan, v.PlanSeen = &p, item.at
		}
	}
}
