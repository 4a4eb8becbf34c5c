package vrrp

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Names of the metrics of this package. All are labelled by interface, vrid and
// family.
const (
	metricState          = "anyedge_vrrp_state"
	metricTransitions    = "anyedge_vrrp_transitions_total"
	metricPriority       = "anyedge_vrrp_priority"
	metricHolding        = "anyedge_vrrp_addresses_held"
	metricAdvertisements = "anyedge_vrrp_advertisements_total"
	metricDiscards       = "anyedge_vrrp_discards_total"
	metricMismatches     = "anyedge_vrrp_mismatches_total"
	metricAnnouncements  = "anyedge_vrrp_announcements_total"
	metricFailures       = "anyedge_vrrp_failures_total"
)

// The parts that fail, the values of a label.
const (
	failSend     = "send"
	failAnnounce = "announce"
	failAddress  = "address"
	failLink     = "link"
)

// metrics are those of one virtual router.
type metrics struct {
	state         map[State]prometheus.Gauge   // 1 for the present one
	transitions   map[State]prometheus.Counter // by what the state became
	priority      prometheus.Gauge             // in effect
	holding       prometheus.Gauge
	sent          prometheus.Counter
	received      prometheus.Counter // valid ones
	discarded     map[discard]prometheus.Counter
	mismatches    map[string]prometheus.Counter // valid ones that differ from the config
	announcements prometheus.Counter
	failures      map[string]prometheus.Counter
}

// newMetrics registers with reg, which may be nil. Virtual routers share what
// one registry has, so that a router may be made anew after a config change.
func newMetrics(reg prometheus.Registerer, identity prometheus.Labels) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"interface", "vrid", "family"}, labels...))
		return register(reg, v).MustCurryWith(identity)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"interface", "vrid", "family"}, labels...))
		return register(reg, v).MustCurryWith(identity)
	}
	state := gauge(metricState, "1 for the state that the virtual router is in.", "state")
	transitions := counter(metricTransitions, "Changes of the state, by what it became.", "state")
	advertisements := counter(metricAdvertisements, "Valid advertisements of the virtual router.", "direction")
	discarded := counter(metricDiscards, "Received VRRP packets that were dropped, by the first check that failed.", "reason")
	mismatches := counter(metricMismatches, "Valid advertisements that differ from the configuration.", "field")
	failures := counter(metricFailures, "Failed operations; each is tried again.", "operation")
	m := &metrics{
		state: make(map[State]prometheus.Gauge), transitions: make(map[State]prometheus.Counter),
		priority:      gauge(metricPriority, "The priority in effect.").WithLabelValues(),
		holding:       gauge(metricHolding, "1 while the virtual addresses are on the interface.").WithLabelValues(),
		sent:          advertisements.WithLabelValues("sent"),
		received:      advertisements.WithLabelValues("received"),
		discarded:     make(map[discard]prometheus.Counter),
		mismatches:    make(map[string]prometheus.Counter),
		announcements: counter(metricAnnouncements, "Gratuitous ARP requests or unsolicited Neighbor Advertisements sent.").WithLabelValues(),
		failures:      make(map[string]prometheus.Counter),
	}
	for _, s := range States() {
		m.state[s], m.transitions[s] = state.WithLabelValues(string(s)), transitions.WithLabelValues(string(s))
	}
	for _, d := range discards() {
		m.discarded[d] = discarded.WithLabelValues(string(d))
	}
	for _, f := range []string{"interval", "addresses"} {
		m.mismatches[f] = mismatches.WithLabelValues(f)
	}
	for _, f := range []string{failSend, failAnnounce, failAddress, failLink} {
		m.failures[f] = failures.WithLabelValues(f)
	}
	return m
}

// register registers c, or returns what is registered already.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		return already.ExistingCollector.(C)
	}
	if err != nil {
		panic(err)
	}
	return c
}

// show sets the gauges of a status.
func (m *metrics) show(s Status) {
	for state, g := range m.state {
		g.Set(truth(state == s.State))
	}
	m.priority.Set(float64(s.Priority))
	m.holding.Set(truth(s.Holding))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
