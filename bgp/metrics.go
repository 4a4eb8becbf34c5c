package bgp

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"anyedge/bgp/shield"
)

// Names of the metrics of this package.
const (
	metricSessionUp      = "anyedge_bgp_session_up"
	metricSessions       = "anyedge_bgp_sessions_total"
	metricMessages       = "anyedge_bgp_messages_total"
	metricRefusedUpdates = "anyedge_bgp_refused_updates_total"
	metricAdjRIBOut      = "anyedge_bgp_adj_rib_out_prefixes"
	metricDesired        = "anyedge_bgp_desired_prefixes"
	metricApplyFailures  = "anyedge_bgp_apply_failures_total"
	metricPathFailures   = "anyedge_bgp_path_failures_total"
)

type metrics struct {
	sessionUp     *prometheus.GaugeVec
	sessions      *prometheus.CounterVec
	messages      *prometheus.CounterVec
	refused       *prometheus.CounterVec
	adjRIBOut     *prometheus.GaugeVec
	desired       prometheus.Gauge
	applyFailures prometheus.Counter
	pathFailures  *prometheus.CounterVec
}

// newMetrics registers with reg; a nil reg leaves them unregistered.
func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	byNeighbor := []string{"neighbor"}
	return &metrics{
		sessionUp: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricSessionUp,
			Help: "1 while the session with the neighbor is Established, else 0.",
		}, byNeighbor),
		sessions: f.NewCounterVec(prometheus.CounterOpts{
			Name: metricSessions,
			Help: "Sessions that reached Established.",
		}, byNeighbor),
		messages: f.NewCounterVec(prometheus.CounterOpts{
			Name: metricMessages,
			Help: "BGP messages exchanged with the neighbor, refused ones included.",
		}, []string{"neighbor", "direction", "type"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: metricRefusedUpdates,
			Help: "UPDATE messages of the neighbor that the shield dropped.",
		}, byNeighbor),
		adjRIBOut: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricAdjRIBOut,
			Help: "Prefixes announced to the neighbor in the current session.",
		}, byNeighbor),
		desired: f.NewGauge(prometheus.GaugeOpts{
			Name: metricDesired,
			Help: "Prefixes that should be announced.",
		}),
		applyFailures: f.NewCounter(prometheus.CounterOpts{
			Name: metricApplyFailures,
			Help: "Failed attempts to bring a local RIB to the desired set; each is tried again.",
		}),
		pathFailures: f.NewCounterVec(prometheus.CounterOpts{
			Name: metricPathFailures,
			Help: "Failures of the path to the neighbor that BFD reported; each ends a session.",
		}, byNeighbor),
	}
}

// neighborMetrics are the metrics of one neighbor.
type neighborMetrics struct {
	up, announced     prometheus.Gauge
	sessions, refused prometheus.Counter
	pathFailures      prometheus.Counter
	applyFailures     prometheus.Counter // of all neighbors
	received, sent    map[shield.Type]prometheus.Counter
}

func (m *metrics) neighbor(address netip.Addr) neighborMetrics {
	label := address.String()
	n := neighborMetrics{
		up:        m.sessionUp.WithLabelValues(label),
		announced: m.adjRIBOut.WithLabelValues(label),
		sessions:  m.sessions.WithLabelValues(label),
		refused:   m.refused.WithLabelValues(label),

		pathFailures:  m.pathFailures.WithLabelValues(label),
		applyFailures: m.applyFailures,

		received: make(map[shield.Type]prometheus.Counter),
		sent:     make(map[shield.Type]prometheus.Counter),
	}
	for _, t := range shield.Types {
		n.received[t] = m.messages.WithLabelValues(label, "received", t.String())
		n.sent[t] = m.messages.WithLabelValues(label, "sent", t.String())
	}
	return n
}

// forget drops what is known of a neighbor that is gone.
func (m *metrics) forget(address netip.Addr) {
	label := prometheus.Labels{"neighbor": address.String()}
	for _, v := range []*prometheus.MetricVec{
		m.sessionUp.MetricVec, m.sessions.MetricVec, m.messages.MetricVec,
		m.refused.MetricVec, m.adjRIBOut.MetricVec, m.pathFailures.MetricVec,
	} {
		v.DeletePartialMatch(label)
	}
}
