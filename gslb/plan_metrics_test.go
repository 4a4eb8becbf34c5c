package gslb

import (
	"testing"
	"time"

	"anyedge/gslb/steer/planner"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// The age of a plan that is not in force any more would grow for ever.
func TestMetricsForgetAPlan(t *testing.T) {
	solved := &planner.Outcome{Mode: planner.Solved, Solved: time.Now().Add(-time.Hour)}
	report := PlanReport{Level: 0.8, Pops: []PlanPop{{Name: "fra", Utilization: 0.5}}}
	for name, end := range map[string]func(*planMetrics){
		"no name is measured": (*planMetrics).forget,
		"no name is planned":  func(m *planMetrics) { m.set(&planner.Outcome{Mode: planner.None}, time.Second, PlanReport{}) },
	} {
		reg := prometheus.NewRegistry()
		m := newPlanMetrics(reg)
		m.set(solved, time.Second, report)
		if age := value(t, reg, "anyedge_steer_plan_age_seconds"); age < 3600 || testutil.ToFloat64(m.mode) != 1 {
			t.Errorf("%s: age %v, mode %v", name, age, testutil.ToFloat64(m.mode))
		}
		end(m)
		if age := value(t, reg, "anyedge_steer_plan_age_seconds"); age != 0 || testutil.ToFloat64(m.mode) != 0 || testutil.ToFloat64(m.level) != 0 {
			t.Errorf("%s: age %v, mode %v, level %v", name, age, testutil.ToFloat64(m.mode), testutil.ToFloat64(m.level))
		}
		if n := testutil.CollectAndCount(m.utilization); n != 0 {
			t.Errorf("%s: utilization of %d PoPs", name, n)
		}
	}
}
