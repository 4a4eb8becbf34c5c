package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"anyedge/pop/termination"
)

// Results of a handshake and of a connection's admission; label values.
const (
	handshakeFull    = "full"
	handshakeResumed = "resumed"
	handshakeFailed  = "failed"

	admitted = "admitted"
	refused  = "refused" // the ceiling is reached
	crowded  = "crowded" // the client's address has too many
)

// Results of one try of a backend; label values.
const (
	tryOK            = "ok"
	tryConnectFailed = "connect_failed"
	tryTimeout       = "timeout"
	tryRefused       = "refused" // the backend processed nothing
	tryFailed        = "failed"
	tryCanceled      = "canceled" // the client was to blame
)

type metrics struct {
	requests     *prometheus.CounterVec   // listener, protocol, class, outcome
	duration     *prometheus.HistogramVec // listener
	open         *prometheus.GaugeVec     // listener
	connections  *prometheus.CounterVec   // listener, result
	acceptErrors *prometheus.CounterVec   // listener
	handshakes   *prometheus.CounterVec   // listener, result
	tries        *prometheus.CounterVec   // pool, result
	retries      *prometheus.CounterVec   // pool, result of the try before
	hedges       *prometheus.CounterVec   // pool
	head         *prometheus.HistogramVec // pool
	received     *prometheus.CounterVec   // listener
	sent         *prometheus.CounterVec   // listener
	spliced      prometheus.Counter       // bytes of tunnels moved by the kernel
	copied       prometheus.Counter       // bytes of tunnels moved through memory
	generation   prometheus.Gauge
	draining     prometheus.Gauge
	measured     prometheus.Counter    // round-trip times
	tickets      *termination.Counters // shown as a counter by outcome
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "anyedge_proxy_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "anyedge_proxy_" + name, Help: help,
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "anyedge_proxy_" + name, Help: help})
	}
	tickets := new(termination.Counters)
	for _, outcome := range termination.Outcomes() {
		f.NewCounterFunc(prometheus.CounterOpts{
			Name: "anyedge_proxy_tickets_total", Help: "TLS session tickets given out and offered.",
			ConstLabels: prometheus.Labels{"outcome": outcome.String()},
		}, func() float64 { return float64(tickets.Tickets(outcome)) })
	}
	tunneled := counter("tunnel_bytes_total", "Bytes of tunnels in both directions, by how they were moved.", "how")
	return &metrics{
		spliced:      tunneled.WithLabelValues("splice"),
		copied:       tunneled.WithLabelValues("copy"),
		tickets:      tickets,
		requests:     counter("requests_total", "Exchanges that are over.", "listener", "protocol", "class", "outcome"),
		duration:     histogram("request_duration_seconds", "From a request's head to the end of its response, tunnels left out.", "listener"),
		open:         f.NewGaugeVec(prometheus.GaugeOpts{Name: "anyedge_proxy_connections_open", Help: "Client connections that are open."}, []string{"listener"}),
		connections:  counter("connections_total", "Client connections accepted from the kernel.", "listener", "result"),
		acceptErrors: counter("accept_errors_total", "Accepts that failed, such as for want of descriptors.", "listener"),
		handshakes:   counter("handshakes_total", "TLS handshakes with clients.", "listener", "result"),
		tries:        counter("upstream_tries_total", "Requests sent to a backend, or tried to.", "pool", "result"),
		retries:      counter("upstream_retries_total", "Requests sent to another backend, by what the try before came to.", "pool", "result"),
		hedges:       counter("upstream_hedges_total", "Requests sent to a second backend because the first kept silent.", "pool"),
		head:         histogram("upstream_head_seconds", "From a request's head to the origin's response head.", "pool"),
		received:     counter("received_body_bytes_total", "Request bodies taken from clients.", "listener"),
		sent:         counter("sent_body_bytes_total", "Response bodies taken from origins for clients.", "listener"),
		generation:   gauge("snapshot_generation", "Generation of the snapshot in force."),
		draining:     gauge("draining", "1 while clients are asked to go."),
		measured: f.NewCounter(prometheus.CounterOpts{
			Name: "anyedge_proxy_rtt_samples_total", Help: "Round-trip times of client connections reported to the agent."}),
	}
}

// forgetListener drops the series of a listener that is gone.
func (m *metrics) forgetListener(name string) {
	gone := prometheus.Labels{"listener": name}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.requests, m.duration, m.connections, m.acceptErrors, m.handshakes, m.received, m.sent} {
		v.DeletePartialMatch(gone)
	}
}

// forgetPool drops the series of a pool that is gone.
func (m *metrics) forgetPool(name string) {
	gone := prometheus.Labels{"pool": name}
	m.tries.DeletePartialMatch(gone)
	m.retries.DeletePartialMatch(gone)
	m.hedges.DeletePartialMatch(gone)
	m.head.DeletePartialMatch(gone)
}

// statusClass maps a status code to a label value; 0 is no response.
func statusClass(status int) string {
	switch status / 100 {
	case 1:
		return "1xx"
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	case 5:
		return "5xx"
	}
	return "none"
}
