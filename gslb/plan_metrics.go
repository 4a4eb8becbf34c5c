package gslb

import (
	"sync/atomic"
	"time"

	"anyedge/gslb/steer/assign"
	"anyedge/gslb/steer/planner"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// planMetrics are of the plan in force.
type planMetrics struct {
	mode, known, networks       prometheus.Gauge
	asked                       prometheus.Gauge
	level, cost, gap            prometheus.Gauge
	moved, held                 prometheus.Gauge
	utilization                 *prometheus.GaugeVec // by pop
	lossUtilization, lossBreaks *prometheus.GaugeVec // by the pop that is lost
	solve                       prometheus.Histogram

	at atomic.Int64 // of the last plan, Unix nanoseconds; 0 before
}

func newPlanMetrics(reg prometheus.Registerer) *planMetrics {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	byPop := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"pop"})
	}
	m := &planMetrics{
		mode:            gauge("anyedge_steer_mode", "How the plan came about: 0 none, 1 solved from measured demand, 2 shedding by load."),
		known:           gauge("anyedge_steer_known_load_ratio", "Share of the fleet's load that measurements account for."),
		networks:        gauge("anyedge_steer_networks", "Client networks that the plan gives a PoP."),
		asked:           gauge("anyedge_steer_asked_ratio", "Share of demand that only queries tell of."),
		level:           gauge("anyedge_steer_level_ratio", "Share of ceilings that the plan fills at most; above 1 they do not suffice."),
		cost:            gauge("anyedge_steer_cost_seconds", "Mean round-trip time of demand under the plan."),
		gap:             gauge("anyedge_steer_gap_seconds", "By how much the cost may exceed the least one possible."),
		moved:           gauge("anyedge_steer_moved_ratio", "Share of demand that the last plan moved by choice."),
		held:            gauge("anyedge_steer_held_ratio", "Share of demand that the cap on moves kept where it was."),
		utilization:     byPop("anyedge_steer_utilization_ratio", "Share of a PoP's ceiling that the plan uses."),
		lossUtilization: byPop("anyedge_steer_loss_utilization_ratio", "Utilization of the fullest PoP if this one were lost."),
		lossBreaks:      byPop("anyedge_steer_loss_overload", "1 if the loss of this PoP would overload another, or leave clients without one."),
		solve: f.NewHistogram(prometheus.HistogramOpts{Name: "anyedge_steer_solve_seconds", Help: "Time to make a plan and its losses, and the table of it.",
			Buckets: []float64{.001, .01, .05, .1, .25, .5, 1, 2, 5, 10, 30}}),
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "anyedge_steer_plan_age_seconds", Help: "Time since the last plan was made from measured demand; 0 without one."}, func() float64 {
		if at := m.at.Load(); at != 0 {
			return time.Since(time.Unix(0, at)).Seconds()
		}
		return 0
	})
	return m
}

// set takes an outcome that took so long to make.
func (m *planMetrics) set(o *planner.Outcome, took time.Duration, r PlanReport) {
	for i, mode := range planner.Modes() {
		if mode == o.Mode {
			m.mode.Set(float64(i))
		}
	}
	m.solve.Observe(took.Seconds())
	switch o.Mode {
	case planner.Solved:
		m.at.Store(o.Solved.UnixNano())
	case planner.None: // there is no plan that could be old
		m.at.Store(0)
	}
	m.show(r)
}

// forget shows that there is no plan, because no name asks for one.
func (m *planMetrics) forget() {
	m.mode.Set(0)
	m.at.Store(0)
	m.show(PlanReport{})
}

func (m *planMetrics) show(r PlanReport) {
	m.known.Set(r.Known)
	m.networks.Set(float64(r.Networks))
	m.asked.Set(ratio(r.Asked, r.Demand))
	m.level.Set(r.Level)
	m.cost.Set(r.Cost / 1000)
	m.gap.Set(r.Gap / 1000)
	m.moved.Set(ratio(r.Moved.Planned, r.Demand))
	m.held.Set(ratio(r.Moved.Held, r.Demand))
	m.utilization.Reset()
	m.lossUtilization.Reset()
	m.lossBreaks.Reset()
	for _, p := range r.Pops {
		m.utilization.WithLabelValues(p.Name).Set(p.Utilization)
		if p.Lost == nil {
			continue
		}
		breaks := 0.0
		if p.Lost.Verdict == assign.Overload {
			breaks = 1
		}
		m.lossUtilization.WithLabelValues(p.Name).Set(p.Lost.Utilization)
		m.lossBreaks.WithLabelValues(p.Name).Set(breaks)
	}
}

func ratio(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return part / whole
}
