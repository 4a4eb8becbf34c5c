package origin

import (
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/internal/health"
)

// Names of the metrics. All but the first have the labels pool and backend.
const (
	metricStarved       = "anyedge_origin_starved_picks_total"         // pool
	metricState         = "anyedge_origin_backend_state"               // state
	metricPicks         = "anyedge_origin_picks_total"                 //
	metricFailures      = "anyedge_origin_failures_total"              //
	metricInFlight      = "anyedge_origin_in_flight_requests"          //
	metricChecks        = "anyedge_origin_checks_total"                // result: pass, fail
	metricCheckDuration = "anyedge_origin_last_check_duration_seconds" //
	metricWarm          = "anyedge_origin_warm_connections"            //
	metricDials         = "anyedge_origin_dials_total"                 // result: warm, new, failed
)

// Metrics shows the pools that run. It reads what the pools count anyway, so it
// costs nothing per request, and a backend that leaves its set leaves the
// metrics with it.
type Metrics struct {
	starved, state, picks, failures, inFlight *prometheus.Desc
	checks, checkDuration, warm, dials        *prometheus.Desc

	mu    sync.Mutex
	pools map[string]*Pool // by name; of two of one name, the one that started last
}

// NewMetrics registers the metrics of all pools with reg; nil shows them nowhere.
// One registry takes one.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"pool"}, labels...), nil)
	}
	m := &Metrics{
		starved:       desc(metricStarved, "Requests for which a pool had no usable backend."),
		state:         desc(metricState, "1 for the state that the backend is in.", "backend", "state"),
		picks:         desc(metricPicks, "Requests given to the backend.", "backend"),
		failures:      desc(metricFailures, "Requests that the backend failed.", "backend"),
		inFlight:      desc(metricInFlight, "Requests that the backend is serving.", "backend"),
		checks:        desc(metricChecks, "Active checks of the backend.", "backend", "result"),
		checkDuration: desc(metricCheckDuration, "Duration of the newest active check.", "backend"),
		warm:          desc(metricWarm, "Idle connections ready for the backend.", "backend"),
		dials:         desc(metricDials, "Connections asked for, by where they came from.", "backend", "result"),
		pools:         make(map[string]*Pool),
	}
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

func (m *Metrics) add(p *Pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pools[p.name] = p
}

func (m *Metrics) remove(p *Pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pools[p.name] == p {
		delete(m.pools, p.name)
	}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.starved, m.state, m.picks, m.failures, m.inFlight, m.checks, m.checkDuration, m.warm, m.dials,
	} {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	pools := slices.Collect(maps.Values(m.pools))
	m.mu.Unlock()
	for _, p := range pools {
		counter(out, m.starved, p.starved.Load(), p.name)
		for _, c := range p.current.Load().all {
			m.collectMember(out, p.name, c.member)
		}
	}
}

func (m *Metrics) collectMember(out chan<- prometheus.Metric, pool string, b *member) {
	judged, backend := b.judged.Load(), b.address.String()
	for _, s := range health.States() {
		in := 0.0
		if s == judged.state {
			in = 1
		}
		gauge(out, m.state, in, pool, backend, s.String())
	}
	counter(out, m.picks, b.picks.Load(), pool, backend)
	counter(out, m.failures, b.failures.Load(), pool, backend)
	gauge(out, m.inFlight, float64(b.inFlight.Load()), pool, backend)
	counter(out, m.checks, b.checksPassed.Load(), pool, backend, "pass")
	counter(out, m.checks, b.checksFailed.Load(), pool, backend, "fail")
	gauge(out, m.checkDuration, judged.took.Seconds(), pool, backend)
	gauge(out, m.warm, float64(b.warm.len()), pool, backend)
	counter(out, m.dials, b.dialsWarm.Load(), pool, backend, "warm")
	counter(out, m.dials, b.dialsNew.Load(), pool, backend, "new")
	counter(out, m.dials, b.dialsFailed.Load(), pool, backend, "failed")
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}
