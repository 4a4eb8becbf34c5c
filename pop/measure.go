package pop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"anyedge/configs"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/fleet"
	"anyedge/pop/proxy"
)

const (
	// rttEvery is the pace at which round-trip times are published.
	rttEvery = time.Minute
	// rttKeep is how long the fleet keeps those of a node that has gone: four
	// half-lives, after which they count little.
	rttKeep = 4 * rtt.DefaultHalfLife
	// rttTimeout bounds publishing them.
	rttTimeout = 10 * time.Second
	// rttQueue is how many messages of the worker wait while they are published.
	// One comes each second.
	rttQueue = 16
)

// measurer gathers the round-trip times and the requests that workers report, and
// publishes what may be known of them. Nothing waits for it: it has a session of its
// own with the fleet store, and what comes too fast is dropped.
//
// That session lasts for an hour. So the times outlive a restart of the agent,
// whose next process goes on from them, and nothing is kept of a node that is gone
// for good.
type measurer struct {
	fleet     *fleet.Fleet
	store     fleet.Store
	node      configs.Node
	log       *slog.Logger
	metrics   *measureMetrics
	collector *rtt.Collector
	queue     chan proxy.RTTs

	// Owned by Run.
	session   fleet.Session // empty while there is none
	earlier   rtt.Snapshot  // of an earlier process; zero if there is none
	published bool          // by this process
	failing   bool
}

func newMeasurer(f *fleet.Fleet, store fleet.Store, cfg *configs.Pop, log *slog.Logger, reg prometheus.Registerer) *measurer {
	return &measurer{
		fleet: f, store: store, node: cfg.Node, log: log, metrics: newMeasureMetrics(reg),
		collector: rtt.NewCollector(rtt.Config{K: cfg.Measure.MinClients}),
		queue:     make(chan proxy.RTTs, rttQueue),
	}
}

func (m *measurer) String() string { return "rtt" }

// take takes a worker's report. It does not block.
func (m *measurer) take(r proxy.RTTs) {
	m.metrics.dropped.Add(float64(r.Dropped))
	select {
	case m.queue <- r:
	default:
		for range r.All() {
			m.metrics.dropped.Inc()
		}
	}
}

// Run gathers and publishes until ctx ends. What was published stays.
func (m *measurer) Run(ctx context.Context) error {
	ticker := time.NewTicker(rttEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-m.queue:
			m.gather(time.Now(), r)
		case <-ticker.C:
			m.told(ctx, m.publish(ctx, time.Now()))
		}
	}
}

func (m *measurer) gather(now time.Time, r proxy.RTTs) {
	for one := range r.All() {
		m.collector.Add(now, one.Client, one.RTT, one.Connections)
		m.metrics.samples.Inc()
	}
	for client, requests := range r.Requests() {
		m.collector.AddRequests(now, client, requests)
	}
	m.metrics.networks.Set(float64(m.collector.Len()))
}

// told logs when publishing begins or ceases to fail.
func (m *measurer) told(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.metrics.publications.WithLabelValues("failed").Inc()
	}
	if (err != nil) == m.failing {
		return
	}
	if m.failing = err != nil; m.failing {
		m.log.Warn("round-trip times not published, retrying", "error", err)
	} else {
		m.log.Info("round-trip times published")
	}
}

// publish writes what may be known now, from the first time on that there is
// something.
func (m *measurer) publish(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, rttTimeout)
	defer cancel()
	if !m.published {
		m.resume(ctx)
	}
	s := m.collector.Snapshot(now, m.node.Pop).With(m.earlier)
	if len(s.Entries) == 0 && !m.published {
		return nil
	}
	data, err := s.Encode(nil, fleet.MaxRTT)
	if err != nil {
		return err
	}
	session, err := m.liveSession(ctx)
	if err != nil {
		return err
	}
	err = m.fleet.PublishRTT(ctx, session, fleet.RTT{Node: m.node.Name, Pop: m.node.Pop, At: now, Data: data})
	if errors.Is(err, fleet.ErrSession) {
		m.session = ""
	}
	if err != nil {
		return err
	}
	m.published = true
	m.metrics.publications.WithLabelValues("ok").Inc()
	m.metrics.bytes.Set(float64(len(data)))
	m.metrics.named.Set(float64(len(s.Entries)))
	return nil
}

// resume reads what an earlier process of this node has published. If that cannot
// be had, this one begins with nothing.
func (m *measurer) resume(ctx context.Context) {
	r, err := m.fleet.RTT(ctx, m.node.Name)
	if errors.Is(err, fleet.ErrNotFound) {
		return
	}
	var s rtt.Snapshot
	if err == nil {
		s, err = rtt.Decode(r.Data)
	}
	if err != nil {
		m.log.Debug("round-trip times of an earlier process not read", "error", err)
		return
	}
	m.earlier = s
}

// liveSession returns the session, renewed, or a new one.
func (m *measurer) liveSession(ctx context.Context) (fleet.Session, error) {
	if m.session != "" {
		err := m.store.RenewSession(ctx, m.session)
		if err == nil || !errors.Is(err, fleet.ErrSession) {
			return m.session, err
		}
	}
	s, err := m.store.NewSession(ctx, m.node.Name+" rtt", rttKeep)
	if err != nil {
		return "", fmt.Errorf("session: %w", err)
	}
	m.session = s
	return s, nil
}

// measureMetrics are the measurer's own.
type measureMetrics struct {
	samples      prometheus.Counter
	dropped      prometheus.Counter
	networks     prometheus.Gauge
	named        prometheus.Gauge
	bytes        prometheus.Gauge
	publications *prometheus.CounterVec // by result
}

func newMeasureMetrics(reg prometheus.Registerer) *measureMetrics {
	auto := promauto.With(reg)
	m := &measureMetrics{
		samples: auto.NewCounter(prometheus.CounterOpts{
			Name: "anyedge_rtt_samples_total", Help: "Round-trip times of client connections that workers reported."}),
		dropped: auto.NewCounter(prometheus.CounterOpts{
			Name: "anyedge_rtt_dropped_samples_total", Help: "Round-trip times that there was no room or no time for."}),
		networks: auto.NewGauge(prometheus.GaugeOpts{
			Name: "anyedge_rtt_networks", Help: "Client networks that a round-trip time is kept of."}),
		named: auto.NewGauge(prometheus.GaugeOpts{
			Name: "anyedge_rtt_published_networks", Help: "Networks in the last publication, small ones put together."}),
		bytes: auto.NewGauge(prometheus.GaugeOpts{
			Name: "anyedge_rtt_published_bytes", Help: "Size of the last publication."}),
		publications: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "anyedge_rtt_publications_total", Help: "Tries to publish round-trip times, by result."}, []string{"result"}),
	}
	for _, result := range []string{"ok", "failed"} {
		m.publications.WithLabelValues(result)
	}
	return m
}
