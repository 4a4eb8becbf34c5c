package fleet

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Names of the package's metrics.
const (
	metricConnected   = "anyedge_fleet_connected"
	metricDisconnects = "anyedge_fleet_disconnects_total"
	metricRejected    = "anyedge_fleet_rejected_values_total"
	metricViewAge     = "anyedge_fleet_view_age_seconds"
	metricRetries     = "anyedge_fleet_write_retries_total"
)

type metrics struct {
	connected   prometheus.Gauge
	disconnects prometheus.Counter
	rejected    *prometheus.CounterVec // kind: one of kinds
	retries     prometheus.Counter
	contact     atomic.Pointer[time.Time] // the last time the store answered
}

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	m := &metrics{
		connected: factory.NewGauge(prometheus.GaugeOpts{
			Name: metricConnected,
			Help: "1 while the fleet store answers and the view is current, else 0.",
		}),
		disconnects: factory.NewCounter(prometheus.CounterOpts{
			Name: metricDisconnects,
			Help: "Times the fleet store was lost.",
		}),
		rejected: factory.NewCounterVec(prometheus.CounterOpts{
			Name: metricRejected,
			Help: "Values of the fleet store that were not valid; the last good ones stay in use.",
		}, []string{"kind"}),
		retries: factory.NewCounter(prometheus.CounterOpts{
			Name: metricRetries,
			Help: "Writes to the fleet store tried again after a conflict or without an answer.",
		}),
	}
	now := time.Now()
	m.contact.Store(&now)
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: metricViewAge,
		Help: "Seconds since the fleet store last answered, or since the start if it never did.",
	}, func() float64 { return time.Since(*m.contact.Load()).Seconds() })
	for _, kind := range kinds {
		m.rejected.WithLabelValues(kind)
	}
	return m
}
