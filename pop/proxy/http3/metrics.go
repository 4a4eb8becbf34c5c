package http3

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Results of a handshake; label values.
const (
	handshakeFull    = "full"
	handshakeResumed = "resumed"
	handshakeEarly   = "early" // resumed, and early data was taken
	handshakeFailed  = "failed"
)

// What became of a request in early data; label values.
const (
	earlyServed  = "served"
	earlyDelayed = "delayed" // until the handshake was complete
)

// Metrics are what fronts count. Several fronts may share them.
type Metrics struct {
	connections prometheus.Gauge
	handshakes  *prometheus.CounterVec // result
	early       *prometheus.CounterVec // result
	refusals    prometheus.Counter
	retries     prometheus.Counter
	migrations  prometheus.Counter
	floods      prometheus.Counter
}

// NewMetrics registers the metrics of fronts with reg; nil shows them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	name := func(s string) string { return "anyedge_proxy_http3_" + s }
	counter := func(s, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: name(s), Help: help}
	}
	m := &Metrics{
		connections: f.NewGauge(prometheus.GaugeOpts{
			Name: name("connections"), Help: "QUIC connections that are open.",
		}),
		handshakes: f.NewCounterVec(counter("handshakes_total", "QUIC handshakes, by how they ended."), []string{"result"}),
		early:      f.NewCounterVec(counter("early_requests_total", "Requests in early data, by what became of them."), []string{"result"}),
		refusals:   f.NewCounter(counter("refusals_total", "Packets of new clients that were answered with CONNECTION_REFUSED.")),
		retries:    f.NewCounter(counter("retries_total", "Packets of new clients that were answered with a Retry.")),
		migrations: f.NewCounter(counter("migrations_total", "Connections seen to go on from another client address.")),
		floods:     f.NewCounter(counter("floods_total", "Connections ended with H3_EXCESSIVE_LOAD because too many requests were reset.")),
	}
	for _, result := range []string{handshakeFull, handshakeResumed, handshakeEarly, handshakeFailed} {
		m.handshakes.WithLabelValues(result)
	}
	for _, result := range []string{earlyServed, earlyDelayed} {
		m.early.WithLabelValues(result)
	}
	return m
}
