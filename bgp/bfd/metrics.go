package bfd

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Names of the metrics of this package.
const (
	metricSessionState = "anyedge_bfd_session_state"
	metricTransitions  = "anyedge_bfd_transitions_total"
	metricFailures     = "anyedge_bfd_failures_total"
	metricPackets      = "anyedge_bfd_packets_total"
	metricDropped      = "anyedge_bfd_dropped_packets_total"
	metricStray        = "anyedge_bfd_stray_packets_total"
	metricKernel       = "anyedge_bfd_kernel_dropped_packets_total"
	metricSendErrors   = "anyedge_bfd_send_errors_total"
	metricMargin       = "anyedge_bfd_detect_margin_ratio"
	metricRestarts     = "anyedge_bfd_engine_restarts_total"
	metricRealtime     = "anyedge_bfd_engine_realtime"
)

type metrics struct {
	state       *prometheus.GaugeVec
	transitions *prometheus.CounterVec
	failures    *prometheus.CounterVec
	packets     *prometheus.CounterVec
	dropped     *prometheus.CounterVec
	stray       *prometheus.CounterVec
	kernel      prometheus.Counter
	sendErrors  *prometheus.CounterVec
	margin      *prometheus.HistogramVec
	restarts    prometheus.Counter
	realtime    prometheus.Gauge
}

// newMetrics registers with reg; a nil reg leaves them unregistered.
func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		state: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricSessionState,
			Help: "State of the session as RFC 5880 numbers it: 0 AdminDown, 1 Down, 2 Init, 3 Up.",
		}, []string{"neighbor"}),
		transitions: counter(metricTransitions, "Changes of state that were seen, by the state entered.", "neighbor", "to"),
		failures:    counter(metricFailures, "Times a session left Up without an operator of either side.", "neighbor"),
		packets:     counter(metricPackets, "Packets accepted from and sent to the neighbor.", "neighbor", "direction"),
		dropped:     counter(metricDropped, "Discarded packets of the neighbor.", "neighbor", "reason"),
		stray:       counter(metricStray, "Discarded packets that belong to no neighbor.", "reason"),
		kernel: f.NewCounter(prometheus.CounterOpts{
			Name: metricKernel,
			Help: "Packets dropped before they were read: TTL or hop limit other than 255, or a full buffer.",
		}),
		sendErrors: counter(metricSendErrors, "Packets to the neighbor that the kernel did not take.", "neighbor"),
		margin: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    metricMargin,
			Help:    "Share of the detection time that was left when a packet came, the least of each second.",
			Buckets: []float64{0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1},
		}, []string{"neighbor"}),
		restarts: f.NewCounter(prometheus.CounterOpts{
			Name: metricRestarts,
			Help: "Times the engine process ended by itself and was started again.",
		}),
		realtime: f.NewGauge(prometheus.GaugeOpts{
			Name: metricRealtime,
			Help: "1 while the engine runs with real-time priority, else 0.",
		}),
	}
}

// observe adds what has happened between two reports of one session.
func (m *metrics) observe(old, new *Status) {
	name := new.Peer.String()
	m.state.WithLabelValues(name).Set(float64(new.State))
	if old.State != new.State {
		m.transitions.WithLabelValues(name, new.State.String()).Inc()
	}
	m.failures.WithLabelValues(name).Add(float64(new.Failures - old.Failures))
	m.packets.WithLabelValues(name, "received").Add(float64(new.PacketsIn - old.PacketsIn))
	m.packets.WithLabelValues(name, "sent").Add(float64(new.PacketsOut - old.PacketsOut))
	m.sendErrors.WithLabelValues(name).Add(float64(new.SendErrors - old.SendErrors))
	for reason, n := range new.Drops {
		m.dropped.WithLabelValues(name, reason).Add(float64(n - old.Drops[reason]))
	}
	if new.DetectMargin >= 0 && new.DetectionTime > 0 {
		m.margin.WithLabelValues(name).Observe(float64(new.DetectMargin) / float64(new.DetectionTime))
	}
}

func (m *metrics) observeStrays(old, new *stray) {
	for reason, n := range new.Drops {
		m.stray.WithLabelValues(reason).Add(float64(n - old.Drops[reason]))
	}
	m.kernel.Add(float64(new.Kernel - old.Kernel))
}

// forget removes the metrics of a neighbor that is not watched any more.
func (m *metrics) forget(neighbor netip.Addr) {
	labels := prometheus.Labels{"neighbor": neighbor.String()}
	m.state.DeletePartialMatch(labels)
	m.margin.DeletePartialMatch(labels)
	for _, c := range []*prometheus.CounterVec{m.transitions, m.failures, m.packets, m.dropped, m.sendErrors} {
		c.DeletePartialMatch(labels)
	}
}
