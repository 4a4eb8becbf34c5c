package gslb

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"anyedge/configs"
	"anyedge/gslb/steer"
	"anyedge/gslb/steer/planner"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/fleet"
)

const (
	// replanPause is the least time between two plans.
	replanPause = time.Second
	// publishTimeout bounds publishing a plan.
	publishTimeout = 5 * time.Second
)

// planning is a Node's making of plans, off the path of queries. It has one
// goroutine, and hands what it makes to the steering table.
type planning struct {
	node    *Node
	planner *planner.Planner
	m       *planMetrics
	wake    chan struct{} // of capacity 1: PoPs came or went, or measurements
	sources atomic.Int64  // nodes whose measurements the last plan had

	// Of the goroutine:
	cfg     *configs.GSLB // that planner has
	mode    planner.Mode
	failing bool // to publish
}

func newPlanning(n *Node, m *planMetrics) *planning {
	return &planning{node: n, planner: planner.New(plannerConfig(n.cfg)), m: m, wake: make(chan struct{}, 1), cfg: n.cfg, mode: planner.None}
}

func plannerConfig(cfg *configs.GSLB) planner.Config {
	s := cfg.Steering
	return planner.Config{
		Target: s.TargetLoad.Fraction(), Hysteresis: s.Hysteresis.Std(), MoveCap: s.MoveCap.Fraction(),
		Interval: s.Interval.Std(), ShedFrom: s.ShedFrom.Fraction(), ShedTo: s.ShedTo.Fraction(),
	}
}

// changed has a plan made before its time.
func (p *planning) changed() {
	select {
	case p.wake <- struct{}{}:
	default: // it is known already
	}
}

// heard has a plan made when more or fewer nodes measure than the last one knew.
func (p *planning) heard(view *fleet.View) {
	if int64(len(view.RTT)) != p.sources.Load() {
		p.changed()
	}
}

// run makes a plan each interval by the clock, so that all DNS nodes do at the
// same time, and between when something came or went.
func (p *planning) run(ctx context.Context) {
	interval := p.node.config().Steering.Interval.Std()
	last := time.Now().Truncate(interval) // turn
	for {
		// Not for longer than an interval, should the clock be set back meanwhile.
		timer := time.NewTimer(min(interval, time.Until(last.Add(interval))))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-p.wake:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		interval = p.node.config().Steering.Interval.Std()
		at := now.Truncate(interval)
		turn := at.After(last) || now.Before(last.Add(-interval))
		if turn {
			last = at
		}
		p.step(ctx, now, turn)
		pause := time.NewTimer(replanPause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// step makes the next plan, puts it in force and publishes it.
func (p *planning) step(ctx context.Context, now time.Time, turn bool) {
	n := p.node
	cfg, clients := n.sources()
	if cfg != p.cfg {
		p.planner.Reset(plannerConfig(cfg))
		p.cfg = cfg
	}
	view := n.fleet.View()
	p.sources.Store(int64(len(view.RTT)))
	if !slices.ContainsFunc(cfg.Names, func(c configs.SteeredName) bool { return c.Measured() }) {
		n.adopt(nil)
		p.m.forget()
		p.planner, p.mode = planner.New(plannerConfig(cfg)), planner.None // without all that the last one kept
		return
	}
	in := planInput(cfg, view, now)
	in.Clients = clients
	var outcome *planner.Outcome
	var err error
	background(func() {
		if slices.ContainsFunc(cfg.Names, func(c configs.SteeredName) bool { return c.Planned() }) {
			outcome, err = p.planner.Step(in, turn)
		} else {
			outcome = p.planner.Rows(in)
		}
	})
	if err != nil {
		n.log.Error("no plan made, the last one stays", "error", err)
		return
	}
	if outcome.Mode != p.mode {
		n.log.Info("steering plan changed its mode", "mode", string(outcome.Mode), "before", string(p.mode), "known_load", outcome.Known)
		p.mode = outcome.Mode
	}
	if !n.adopt(outcome) {
		return
	}
	p.m.set(outcome, time.Since(now), reportOf(cfg, outcome))
	p.publish(ctx, cfg, outcome)
}

// publish tells the fleet what a plan comes to, if it is made of measured demand:
// those who guard the fleet go by it.
func (p *planning) publish(ctx context.Context, cfg *configs.GSLB, o *planner.Outcome) {
	if o.Mode != planner.Solved {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err := p.node.fleet.PublishPlan(ctx, fleetPlan(cfg, o))
	if (err != nil) != p.failing {
		if p.failing = err != nil; p.failing {
			p.node.log.Warn("plan not published, retrying with the next", "error", err)
		} else {
			p.node.log.Info("plan published")
		}
	}
}

// fleetPlan is what the fleet is told of a plan.
func fleetPlan(cfg *configs.GSLB, o *planner.Outcome) fleet.Plan {
	plan := fleet.Plan{By: cfg.Node.Name, At: o.At, Interval: int(cfg.Steering.Interval.Std() / time.Second), Unit: planUnit}
	r := reportOf(cfg, o)
	for i := range r.Pops {
		pop := fleet.PlanPop{Pop: r.Pops[i].Name, Utilization: min(r.Pops[i].Utilization, fleet.MaxUtilization)}
		if l := r.Pops[i].Lost; l != nil {
			pop.Lost = &fleet.PlanLoss{Worst: l.Worst, Utilization: min(l.Utilization, fleet.MaxUtilization), Holds: l.Holds}
		}
		plan.Pops = append(plan.Pops, pop)
	}
	return plan
}

// planInput is what a plan is made from now, but for the map of clients.
func planInput(cfg *configs.GSLB, view *fleet.View, now time.Time) planner.Input {
	in := planner.Input{Now: now}
	states := steerPops(cfg, view, now)
	names := make([]string, len(cfg.Pops))
	anyUp := slices.ContainsFunc(states, func(p steer.Pop) bool { return p.State == steer.Up && !p.Drained })
	for i, c := range cfg.Pops {
		names[i] = c.Name
		pop := planner.Pop{Name: c.Name, Lat: c.Latitude, Lon: c.Longitude, Anycast: c.Anycast}
		// As the table does: unknown PoPs are for when none is known to be up.
		pop.Open = !states[i].Drained && (states[i].State == steer.Up || states[i].State == steer.Unknown && !anyUp)
		if !c.Anycast {
			pop.Load, pop.Ceiling, pop.At = popLoad(c.Name, view, now)
		}
		in.Pops = append(in.Pops, pop)
	}
	var snapshots []rtt.Snapshot
	for _, r := range view.RTT {
		if now.Sub(r.At) > cfg.Steering.RTTMaxAge.Std() {
			continue
		}
		if s, err := rtt.Decode(r.Data); err == nil { // else another version's
			snapshots = append(snapshots, s)
		}
	}
	in.Measured = rtt.Merge(now, names, snapshots)
	var queries []rtt.QuerySnapshot
	for _, q := range view.Queries {
		if now.Sub(q.At) > cfg.Steering.RTTMaxAge.Std() {
			continue
		}
		if s, err := rtt.DecodeQueries(q.Data); err == nil {
			queries = append(queries, s)
		}
	}
	in.Queries = rtt.MergeQueries(now, names, queries)
	return in
}

// popLoad sums up what the nodes of a PoP carry and could carry. A node whose
// ceiling is not known can carry what it does. What a drained node could carry is
// not for clients.
func popLoad(pop string, view *fleet.View, now time.Time) (load, ceiling float64, at time.Time) {
	known := false
	for _, r := range view.Reports {
		if r.Pop != pop || r.Standby {
			continue
		}
		l, c := r.Load()
		load += l
		if r.At.After(at) {
			at = r.At
		}
		if _, drained := view.Drained(r.Node, r.Pop, r.Region, now); !drained && r.State != fleet.StateUnhealthy {
			known = known || c > 0
			if c == 0 {
				c = l
			}
			ceiling += c
		}
	}
	if !known {
		ceiling = 0
	}
	return load, ceiling, at
}
