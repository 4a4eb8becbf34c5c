package proxy

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/pop/proxy/exchange"
)

// listenerMetrics are a listener's own series, looked up once.
type listenerMetrics struct {
	all            *metrics
	name           string
	duration       prometheus.Observer
	received, sent prometheus.Counter
	good           [4][6]atomic.Pointer[series] // by protocol and class, of exchanges that went well
}

// series is a counter behind a pointer.
type series struct{ prometheus.Counter }

func newListenerMetrics(m *metrics, name string) *listenerMetrics {
	return &listenerMetrics{
		all: m, name: name,
		duration: m.duration.WithLabelValues(name),
		received: m.received.WithLabelValues(name),
		sent:     m.sent.WithLabelValues(name),
	}
}

// request returns the counter of exchanges that ended as x did.
func (m *listenerMetrics) request(x *exchange.Exchange) prometheus.Counter {
	protocol, class := 0, x.Status/100
	switch x.Request.Protocol {
	case exchange.HTTP11:
		protocol = 1
	case exchange.HTTP2:
		protocol = 2
	case exchange.HTTP3:
		protocol = 3
	}
	if x.Outcome != exchange.OutcomeOK || class > 5 {
		return m.find(x)
	}
	known := &m.good[protocol][class]
	s := known.Load()
	if s == nil {
		s = &series{m.find(x)}
		known.Store(s)
	}
	return s
}

func (m *listenerMetrics) find(x *exchange.Exchange) prometheus.Counter {
	return m.all.requests.WithLabelValues(m.name, string(x.Request.Protocol), statusClass(x.Status), string(x.Outcome))
}
