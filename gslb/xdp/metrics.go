package xdp

import (
	"sync"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Names of the metrics.
const (
	metricQueries    = "anyedge_dns_xdp_queries_total"
	metricAttached   = "anyedge_dns_xdp_attached"
	metricImageBytes = "anyedge_dns_xdp_image_bytes"
)

// outcome is what became of a query, as the program counts.
type outcome uint32

const (
	answered outcome = iota
	stale
	shape
	option
	checksum
	unknownName
	noAnswer
	signature
	size
	limited
	noRoom
	fault
	outcomes
)

// outcomeNames are values of the label "outcome". All but answered and fault were
// passed to the sockets.
var outcomeNames = [outcomes]string{
	"answered", "stale", "shape", "option", "checksum", "name", "answer", "signature", "size", "limit", "room", "fault",
}

type metrics struct {
	attached, imageBytes prometheus.Gauge

	mu     sync.Mutex
	counts *ebpf.Map         // nil while the program is not loaded
	last   [outcomes]float64 // what was counted when it was read last
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		attached: f.NewGauge(prometheus.GaugeOpts{Name: metricAttached,
			Help: "Whether the XDP program is at its interface."}),
		imageBytes: f.NewGauge(prometheus.GaugeOpts{Name: metricImageBytes,
			Help: "Size of the table that the XDP program answers from; 0 if it has none."}),
	}
	for o := range outcomes {
		f.NewCounterFunc(prometheus.CounterOpts{Name: metricQueries,
			Help:        "Packets to the server that the XDP program saw: answered, or why they went to the sockets.",
			ConstLabels: prometheus.Labels{"outcome": outcomeNames[o]},
		}, func() float64 { return m.count(o) })
	}
	return m
}

// read says which map has the counters; nil if it is about to go.
func (m *metrics) read(counts *ebpf.Map) {
	if counts == nil {
		for o := range outcomes {
			m.count(o)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts = counts
}

func (m *metrics) count(o outcome) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts == nil {
		return m.last[o]
	}
	var each []uint64 // by core
	if err := m.counts.Lookup(uint32(o), &each); err == nil {
		m.last[o] = 0
		for _, n := range each {
			m.last[o] += float64(n)
		}
	}
	return m.last[o]
}
