package gslb

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Names of the metrics.
const (
	metricQueries     = "anyedge_gslb_queries_total"
	metricSteered     = "anyedge_gslb_steered_answers_total"
	metricTruncated   = "anyedge_gslb_truncated_answers_total"
	metricDropped     = "anyedge_gslb_dropped_total"
	metricPanics      = "anyedge_gslb_panics_total"
	metricConnections = "anyedge_gslb_tcp_connections"
	metricTransfers   = "anyedge_gslb_zone_transfers_total"
	metricSent        = "anyedge_gslb_zone_transfers_sent_total"
	metricUpdates     = "anyedge_gslb_updates_total"
	metricTableAge    = "anyedge_gslb_table_age_seconds"
	metricRingAge     = "anyedge_gslb_dnssec_ring_age_seconds"
	metricWaiting     = "anyedge_gslb_dnssec_waiting"
	metricKeyErrors   = "anyedge_gslb_dnssec_errors_total"
	metricZonesAge    = "anyedge_gslb_zones_age_seconds"
	metricSignatures  = "anyedge_gslb_signatures_total"
	metricSignHits    = "anyedge_gslb_signature_cache_hits_total"
	metricSignErrors  = "anyedge_gslb_signing_errors_total"
	metricExpiry      = "anyedge_gslb_presigned_expiry_timestamp_seconds"
)

// Values of the label "reason" of metricDropped.
const (
	dropMessage    = "message"    // too short, or a response
	dropConnection = "connection" // over a bound on connections
	dropWrite      = "write"      // the answer could not be sent
	dropRate       = "rate"       // over the limit of the rate of answers
)

type metrics struct {
	queries     *prometheus.CounterVec
	steered     *prometheus.CounterVec
	truncated   prometheus.Counter
	dropped     *prometheus.CounterVec
	panics      prometheus.Counter
	connections prometheus.Gauge
	updates     *prometheus.CounterVec
	transfers   *prometheus.CounterVec
	sent        *prometheus.CounterVec
	ringAge     *prometheus.GaugeVec
	waiting     *prometheus.GaugeVec
	keyErrors   *prometheus.CounterVec
	expiry      *prometheus.GaugeVec

	signatures, signatureHits, signatureErrors prometheus.Counter

	// When the table and the zones were last replaced, in Unix nanoseconds.
	tableAt, zonesAt atomic.Int64
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: name, Help: help}
	}
	m := &metrics{
		queries: f.NewCounterVec(counter(metricQueries,
			"Queries answered. Types that are asked seldom count as other, unreadable ones as none."),
			[]string{"transport", "qtype", "rcode"}),
		steered: f.NewCounterVec(counter(metricSteered,
			"PoPs given in answers for steered names, by what decided; pop is none if there was no address to give."),
			[]string{"pop", "reason"}),
		truncated: f.NewCounter(counter(metricTruncated,
			"Answers that did not fit into UDP, or were over the rate limit.")),
		dropped: f.NewCounterVec(counter(metricDropped,
			"Messages and connections that got no answer."), []string{"reason"}),
		panics: f.NewCounter(counter(metricPanics,
			"Queries that ended in a fault of the server.")),
		connections: f.NewGauge(prometheus.GaugeOpts{Name: metricConnections,
			Help: "Open TCP connections."}),
		transfers: f.NewCounterVec(counter(metricTransfers,
			"Copies of zones taken from their primaries, and attempts to that failed."), []string{"result"}),
		sent: f.NewCounterVec(counter(metricSent,
			"Requests for zones, or for changes of them, by what became of them; bad_signature counts all signed messages."), []string{"result"}),
		ringAge: f.NewGaugeVec(prometheus.GaugeOpts{Name: metricRingAge,
			Help: "Time since the fleet's store was last seen to have the ring of keys that a zone is signed by."}, []string{"zone"}),
		waiting: f.NewGaugeVec(prometheus.GaugeOpts{Name: metricWaiting,
			Help: "1 while the keys of a zone wait for its parent, or for the fleet's store, else 0."}, []string{"zone"}),
		keyErrors: f.NewCounterVec(counter(metricKeyErrors,
			"Rings of keys that could not be taken, written, kept in their file or put into force."), []string{"zone"}),
		updates: f.NewCounterVec(counter(metricUpdates,
			"Configs read again, steering tables, sets of zones and keys of zones handed in; rejected ones changed nothing."),
			[]string{"kind", "result"}),
		signatures: f.NewCounter(counter(metricSignatures,
			"Signatures made.")),
		signatureHits: f.NewCounter(counter(metricSignHits,
			"Signatures that had been made before. Packed answers have theirs in them and do not count.")),
		signatureErrors: f.NewCounter(counter(metricSignErrors,
			"Signatures that could not be made.")),
		expiry: f.NewGaugeVec(prometheus.GaugeOpts{Name: metricExpiry,
			Help: "When the first signature expires of a zone that comes signed, in Unix seconds."}, []string{"zone"}),
	}
	age := func(name, help string, at *atomic.Int64) {
		at.Store(time.Now().UnixNano())
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			return time.Since(time.Unix(0, at.Load())).Seconds()
		})
	}
	age(metricTableAge, "Time since the steering table was last replaced, at first since the start.", &m.tableAt)
	age(metricZonesAge, "Time since the zones were last loaded.", &m.zonesAt)
	return m
}

// count records a response.
func (m *metrics) count(req request, out response) {
	if out.msg == nil {
		m.dropped.WithLabelValues(dropMessage).Inc()
		return
	}
	m.queries.WithLabelValues(req.transport(), qtypeLabel(out), rcodeLabel(out.rcode)).Inc()
	if out.truncated {
		m.truncated.Inc()
	}
	if out.steered == nil {
		return
	}
	reason := out.steered.Reason.String()
	if len(out.steered.Addrs) == 0 {
		m.steered.WithLabelValues("none", reason).Inc()
		return
	}
	for _, pop := range out.steered.Pops {
		m.steered.WithLabelValues(pop, reason).Inc()
	}
}

// keysSeen records how the keys of a zone are.
func (m *metrics) keysSeen(z *signedZone, now time.Time) {
	waiting := 0.0
	if z.ring.Generation == 0 || z.ring.Status(now).Waiting != "" {
		waiting = 1
	}
	m.waiting.WithLabelValues(z.name).Set(waiting)
	m.ringAge.WithLabelValues(z.name).Set(now.Sub(z.current).Seconds())
}

// forgetKeys takes a zone that is not signed any more out of the metrics.
func (m *metrics) forgetKeys(zone string) {
	m.waiting.DeleteLabelValues(zone)
	m.ringAge.DeleteLabelValues(zone)
	m.keyErrors.DeleteLabelValues(zone)
}

// updated records that a table, a set of zones or keys were handed in, and at
// at, unless that is nil, when.
func (m *metrics) updated(kind string, at *atomic.Int64, err error) {
	if err != nil {
		m.updates.WithLabelValues(kind, "rejected").Inc()
		return
	}
	m.updates.WithLabelValues(kind, "ok").Inc()
	if at != nil {
		at.Store(time.Now().UnixNano())
	}
}

// qtypeLabel bounds the label: a client can ask for 65536 types.
func qtypeLabel(out response) string {
	if !out.asked {
		return "none"
	}
	if label, ok := qtypeLabels[out.qtype]; ok {
		return label
	}
	return "other"
}

// qtypeLabels are the types that are counted apart.
var qtypeLabels = map[uint16]string{
	dns.TypeA: "a", dns.TypeAAAA: "aaaa", dns.TypeHTTPS: "https", dns.TypeNS: "ns", dns.TypeSOA: "soa", dns.TypeMX: "mx",
	dns.TypeTXT: "txt", dns.TypeCNAME: "cname", dns.TypeDS: "ds", dns.TypeDNSKEY: "dnskey", dns.TypeANY: "any",
}

// rcodeLabel is one of the few codes that the server gives.
func rcodeLabel(rcode int) string {
	if rcode == dns.RcodeBadVers {
		return "badvers" // the library's table calls the number BADSIG
	}
	return strings.ToLower(dns.RcodeToString[rcode])
}
