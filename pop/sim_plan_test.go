package pop

import (
	"math/rand/v2"
	"slices"
	"time"

	"anyedge/internal/fleet"
	"anyedge/pop/headroom"
)

// simPlanEvery is the pace of plans.
const simPlanEvery = 5 * time.Second

// simPlans is what a DNS node publishes about the loss of each PoP: nothing, what
// is true, or whatever comes to its mind; and now and then it is silent.
type simPlans struct {
	published *fleet.Plan
	none      bool    // there is no DNS node
	wrong     float64 // the share of what it says that is made up
	silent    float64 // how often it leaves a plan out
	at        time.Time
	against   map[string]time.Time // since when it has said, without a pause, that a PoP must stay
}

// pick chooses what kind of DNS node a fleet has.
func (p *simPlans) pick(rng *rand.Rand) {
	p.none = rng.IntN(4) == 0
	p.wrong = []float64{0, 0, 0.3, 1}[rng.IntN(4)]
	p.silent = []float64{0, 0.3, 0.9}[rng.IntN(3)]
	p.against = make(map[string]time.Time)
}

// refuses reports whether everybody knows a plan by which a PoP must stay, and
// nobody can take it for stale.
func (p *simPlans) refuses(now time.Time, pop string) bool {
	since, ok := p.against[pop]
	return ok && now.Sub(since) > belief && now.Sub(p.at) <= simPlanEvery
}

// planAgain publishes a plan, again and again.
func (f *simFleet) planAgain() {
	f.after(simPlanEvery, f.planAgain)
	p := &f.plans
	if p.none || p.against == nil || f.store.gone || f.rng.Float64() < p.silent {
		clear(p.against) // known or not, it may be stale by now
		return
	}
	next := &fleet.Plan{By: "ns-1", At: f.now, Interval: int(simPlanEvery.Seconds())}
	var demand, ceiling float64
	for _, n := range f.nodes {
		demand += n.demand
		if n.onWire == Announced {
			ceiling += n.ceiling
		}
	}
	for _, n := range f.nodes {
		if slices.ContainsFunc(next.Pops, func(o fleet.PlanPop) bool { return o.Pop == n.pop }) {
			continue
		}
		loss := f.loss(n.pop, demand, ceiling)
		if f.rng.Float64() < p.wrong {
			loss = &fleet.PlanLoss{Worst: "p00", Utilization: 2 * f.rng.Float64(), Holds: f.oneIn(2)}
		}
		if f.oneIn(10) {
			loss = nil
		}
		next.Pops = append(next.Pops, fleet.PlanPop{Pop: n.pop, Lost: loss})
		if loss == nil || loss.Holds && loss.Utilization <= headroom.ShedAt {
			delete(p.against, n.pop)
		} else if p.against[n.pop].IsZero() {
			p.against[n.pop] = f.now
		}
	}
	p.published, p.at = next, f.now
}

// loss is the truth about the loss of a PoP.
func (f *simFleet) loss(pop string, demand, ceiling float64) *fleet.PlanLoss {
	for _, n := range f.nodes {
		if n.pop == pop && n.onWire == Announced {
			ceiling -= n.ceiling
		}
	}
	if ceiling <= 0 {
		return &fleet.PlanLoss{}
	}
	return &fleet.PlanLoss{Worst: "others", Utilization: demand / ceiling, Holds: demand <= ceiling}
}

// checkPlan checks that a plan makes nothing easier, and a stale one nothing
// harder, given a ruling and how to rule on another view.
func (f *simFleet) checkPlan(n *simNode, view *fleet.View, ruling fleet.Ruling, rule func(*fleet.View) fleet.Ruling) {
	unplanned := *view
	unplanned.Plan = nil
	without := rule(&unplanned)
	_, fresh := view.PlanAge(f.now)
	switch {
	case view.Plan == nil:
		f.tally["no plan"]++
	case fresh:
		f.tally["plan fresh"]++
	default:
		f.tally["plan stale"]++
	}
	if without.Refused != nil && ruling.Refused == nil {
		f.fail("%s may go because of a plan, without which it is refused: %v", n.name, without.Refused)
	}
	if !fresh && (without.Refused == nil) != (ruling.Refused == nil) {
		f.fail("a plan that does not count changes what %s may: %v, without it %v", n.name, ruling.Refused, without.Refused)
	}
}
