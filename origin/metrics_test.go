package origin

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
)

// series returns the value of every series, under name{label=value,…} with the
// labels in the order of their names.
func series(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		metrics := NewMetrics(reg)
		s := newScript()
		s.set(addr(2), errDown)
		p := NewPool(Config{Name: "api", Health: HealthConfig{Rise: 1, Fall: 1}}, quiet, metrics)
		p.check = s.check
		if err := p.Update(backends(1, 1)); err != nil {
			t.Fatal(err)
		}
		if got := series(t, reg); len(got) != 0 {
			t.Errorf("a pool that does not run shows %v", got)
		}
		stop := run(t, p)
		synctest.Wait()
		mustPick(t, p)
		mustPick(t, p).Done(errors.New("reset"))
		p.Pick(nil)
		if _, err := p.Pick([]netip.AddrPort{addr(1)}); err == nil {
			t.Error("picked an excluded backend")
		}

		got := series(t, reg)
		b1, b2 := "{backend=192.0.2.1:80,pool=api", "{backend=192.0.2.2:80,pool=api"
		for name, want := range map[string]float64{
			metricStarved + "{pool=api}":           1,
			metricState + b1 + ",state=healthy}":   1,
			metricState + b1 + ",state=unhealthy}": 0,
			metricState + b2 + ",state=unhealthy}": 1,
			metricState + b2 + ",state=unknown}":   0,
			metricPicks + b1 + "}":                 3,
			metricPicks + b2 + "}":                 0,
			metricFailures + b1 + "}":              1,
			metricInFlight + b1 + "}":              2,
			metricChecks + b1 + ",result=pass}":    1,
			metricChecks + b2 + ",result=fail}":    1,
			metricCheckDuration + b1 + "}":         0,
			metricWarm + b1 + "}":                  0,
			metricDials + b1 + ",result=new}":      0,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s = %v (present %v), want %v", name, v, ok, want)
			}
		}

		if err := p.Update(backends(1)); err != nil {
			t.Fatal(err)
		}
		for name := range series(t, reg) {
			if strings.Contains(name, "192.0.2.2") {
				t.Errorf("%s is left after the backend's removal", name)
			}
		}
		stop()
		if got := series(t, reg); len(got) != 0 {
			t.Errorf("after Run %v is left", got)
		}
	})
}

// Of two pools of one name the newer is shown, whichever ends first.
func TestMetricsOfTwoPoolsOfOneName(t *testing.T) {
	reg := prometheus.NewRegistry()
	metrics := NewMetrics(reg)
	old := NewPool(Config{Name: "api"}, quiet, metrics)
	next := NewPool(Config{Name: "api"}, quiet, metrics)
	next.Pick(nil)
	metrics.add(old)
	metrics.add(next)
	metrics.remove(old)
	if got := series(t, reg)[metricStarved+"{pool=api}"]; got != 1 {
		t.Errorf("starved picks %v, want the newer pool's 1", got)
	}
	metrics.remove(next)
	if got := series(t, reg); len(got) != 0 {
		t.Errorf("%v is left", got)
	}
}
