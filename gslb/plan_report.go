package gslb

import (
	"fmt"
	"math"
	"slices"
	"time"

	"anyedge/configs"
	"anyedge/gslb/steer/assign"
	"anyedge/gslb/steer/planner"
	"anyedge/internal/fleet"
)

// planUnit is what demand and ceilings are counted in: those of a PoP in its own
// connections, and what is of the whole fleet in those of the fleet's mean, as
// connections at one PoP may be more work than at another.
const planUnit = "open connections"

// PlanReport is what the plan in force is and what it comes to.
type PlanReport struct {
	Mode    string `json:"mode"`    // none, solved or shedding
	Summary string `json:"summary"` // the mode in words
	// At is when the plan was last looked at, Solved when it was made.
	At     time.Time `json:"at,omitzero"`
	Solved time.Time `json:"solved,omitzero"`
	Unit   string    `json:"unit"` // of demand, load and room

	Interval int `json:"interval_seconds"`
	// Target is the share of ceilings to be filled, Level the share that is: the
	// target, or what demand makes necessary.
	Target float64 `json:"target"`
	Level  float64 `json:"level"`
	// Known is the share of the load that measurements account for.
	Known    float64 `json:"known"`
	Networks int     `json:"networks"` // that are given a PoP
	Demand   float64 `json:"demand"`
	Asked    float64 `json:"asked"`    // the part of it that only queries tell of
	Unplaced float64 `json:"unplaced"` // that no PoP may have
	// Cost is the mean round-trip time of demand, Gap by how much it may exceed the
	// best one possible.
	Cost float64 `json:"cost_ms"`
	Gap  float64 `json:"gap_ms"`
	// Moved is demand that changed its PoP in the last solve: as it had lost it, by
	// choice, and what the cap held back.
	Moved PlanMoved `json:"moved"`
	Pops  []PlanPop `json:"pops"`
}

// PlanMoved is demand that moves.
type PlanMoved struct {
	Lost    float64 `json:"lost"`
	Planned float64 `json:"planned"`
	Held    float64 `json:"held"`
}

// PlanPop is a PoP in a plan.
type PlanPop struct {
	Name string `json:"name"`
	Open bool   `json:"open"` // clients may be sent there
	// Load is what its nodes report, Background the part of it that no network
	// accounts for, and Demand what the plan gives it.
	Load       float64 `json:"load"`
	Background float64 `json:"background"`
	Demand     float64 `json:"demand"`
	Room       float64 `json:"room"`    // for Demand
	Ceiling    float64 `json:"ceiling"` // 0 if not known
	// Utilization is background and demand over the ceiling.
	Utilization float64 `json:"utilization"`
	// Price is by how much one more unit of room would shorten the sum of
	// round-trip times.
	Price float64 `json:"price_ms"`
	// Lost is what the loss of this PoP comes to; nil if it takes no clients, or if
	// demand is not known.
	Lost *LostPop `json:"lost,omitempty"`
}

// LostPop is what the loss of a PoP comes to.
type LostPop struct {
	assign.Loss
	// Holds is false if a PoP would exceed its ceiling, or clients find none.
	Holds bool `json:"holds"`
}

// From is the demand that leaves the lost PoP itself.
func (l *LostPop) From() (demand float64) {
	for _, r := range l.Routes {
		if r.From == l.Pop {
			demand += r.Demand
		}
	}
	return demand
}

// Plan reports the plan in force.
func (n *Node) Plan() PlanReport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.outcome == nil {
		return PlanReport{Mode: string(planner.None), Summary: "no name has policy latency or capacity, or the first plan is still to come", Unit: planUnit, Pops: []PlanPop{}}
	}
	return reportOf(n.cfg, n.outcome)
}

// reportOf puts an outcome into figures.
func reportOf(cfg *configs.GSLB, o *planner.Outcome) PlanReport {
	r := PlanReport{
		Mode: string(o.Mode), Summary: summary(o), At: o.At, Solved: o.Solved, Unit: planUnit,
		Interval: int(cfg.Steering.Interval.Std() / time.Second), Target: cfg.Steering.TargetLoad.Fraction(),
		Known: o.Known, Networks: len(o.Assigned), Pops: []PlanPop{},
	}
	for i, l := range o.Loads {
		if l.Anycast {
			continue
		}
		p := PlanPop{Name: l.Name, Open: l.Open, Load: l.Load, Ceiling: l.Ceiling}
		if o.Plan != nil && !o.ByMap {
			given, heavy := o.Plan.Pops[i], o.Heaviness[i]
			p.Demand, p.Room, p.Price = given.Demand/heavy, given.Room/heavy, ms(given.Price)
			r.Demand += given.Demand
			if o.Mode == planner.Solved {
				p.Background = o.Background[i]
				p.Ceiling = given.Ceiling/heavy + p.Background
			}
		}
		p.Utilization = utilization(p.Demand+p.Background, p.Ceiling)
		if o.ByMap || o.Mode == planner.Shedding {
			p.Utilization = utilization(p.Load, p.Ceiling)
		}
		r.Pops = append(r.Pops, p)
	}
	if o.Plan == nil || o.ByMap {
		return r
	}
	plan := o.Plan
	r.Asked = o.Asked
	r.Level, r.Unplaced, r.Cost, r.Gap = plan.Level, plan.Unplaced, ms(plan.Cost), ms(plan.Gap)
	r.Moved = PlanMoved{plan.Moved.Lost, plan.Moved.Planned, plan.Moved.Held}
	for _, l := range o.Losses {
		lost := &LostPop{Loss: l, Holds: l.Verdict != assign.Overload}
		if worst := r.pop(l.Worst); worst != nil { // over the whole ceiling, as all here
			room := worst.Ceiling - worst.Background
			lost.Utilization = utilization(l.Utilization*room+worst.Background, worst.Ceiling)
			if l.Utilization < 0 {
				lost.Utilization = fleet.MaxUtilization
			}
		}
		if p := r.pop(l.Pop); p != nil {
			p.Lost = lost
		}
	}
	return r
}

func (r *PlanReport) pop(name string) *PlanPop {
	if i := slices.IndexFunc(r.Pops, func(p PlanPop) bool { return p.Name == name }); i >= 0 {
		return &r.Pops[i]
	}
	return nil
}

// utilization is load over ceiling, finite for JSON.
func utilization(load, ceiling float64) float64 {
	switch {
	case load <= 0:
		return 0
	case ceiling <= 0:
		return fleet.MaxUtilization
	}
	return min(load/ceiling, fleet.MaxUtilization)
}

// summary says in words how a plan came about.
func summary(o *planner.Outcome) string {
	switch {
	case o.Mode == planner.None:
		return "no plan: neither measurements nor a map of clients and the load of PoPs"
	case o.Mode == planner.Solved:
		return fmt.Sprintf("solved at %s from measured demand, %.0f %% of the load", o.Solved.UTC().Format(time.TimeOnly), 100*o.Known)
	case o.ByMap:
		return "shedding by load over the map of clients: nothing is measured"
	}
	return fmt.Sprintf("shedding by load over the plan of %s: measurements account for %.0f %% of the load", o.Solved.UTC().Format(time.TimeOnly), 100*o.Known)
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/1e4) / 100 }
