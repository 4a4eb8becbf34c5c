package http2

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Flood is a kind of traffic that costs us more than it costs the peer, for
// which a connection was ended with ENHANCE_YOUR_CALM. It is a closed set, fit
// for a metric label.
type Flood string

// The floods.
const (
	FloodReset        Flood = "reset"         // requests begun and reset, by the client or by what it made us do (CVE-2023-44487, CVE-2025-8671)
	FloodSettings     Flood = "settings"      // SETTINGS to acknowledge
	FloodPing         Flood = "ping"          // PINGs to answer
	FloodEmpty        Flood = "empty"         // DATA or CONTINUATION without content
	FloodWindow       Flood = "window_update" // WINDOW_UPDATE far beyond what was sent
	FloodIgnored      Flood = "ignored"       // PRIORITY and unknown frames, which mean nothing here
	FloodContinuation Flood = "continuation"  // a header block in too many frames or bytes
	FloodHeaders      Flood = "headers"       // a header list far beyond the limit, such as an HPACK bomb
	FloodStall        Flood = "stall"         // responses asked for and then not taken
)

// allowance is how much of a flood's traffic a connection may send: burst at
// once, and then rate per second.
type allowance struct {
	flood       Flood
	burst, rate int32
}

// Kinds of traffic that are counted against an allowance.
const (
	countReset = iota
	countSettings
	countPing
	countEmpty
	countWindow
	countIgnored
	countStall
	counts
)

// allowances leave honest peers a wide margin: a browser that leaves a page
// resets all it asked for, gRPC pings with each round trip of DATA to measure
// it, and some peers open windows with each read of DATA. DATA that we send
// earns them more, see conn.appendDataLocked.
var allowances = [counts]allowance{
	countReset:    {FloodReset, 256, 32},
	countSettings: {FloodSettings, 32, 2},
	countPing:     {FloodPing, 256, 64},
	countEmpty:    {FloodEmpty, 64, 8},
	countWindow:   {FloodWindow, 1024, 128},
	countIgnored:  {FloodIgnored, 256, 32},
	countStall:    {FloodStall, 8, 0},
}

// floodError ends a connection with ENHANCE_YOUR_CALM.
type floodError Flood

func (e floodError) Error() string { return "flood of " + string(e) }

// budget is what is left of a connection's allowances. The zero value is full.
type budget [counts]struct {
	spent int32
	at    time.Duration // since the connection began, when spent was last brought up to date
}

// spend takes one from an allowance and returns a floodError if it is used up.
// now is the time since the connection began.
func (b *budget) spend(kind int, now time.Duration) error {
	a, c := &allowances[kind], &b[kind]
	if back := int64(now-c.at) * int64(a.rate) / int64(time.Second); back > 0 {
		c.spent = int32(max(0, int64(c.spent)-back))
		c.at = now
	}
	c.spent++
	if c.spent > a.burst {
		return floodError(a.flood)
	}
	return nil
}

// earn gives n back.
func (b *budget) earn(kind int, n int32) { b[kind].spent = max(0, b[kind].spent-n) }

// Metrics are what fronts count. Several fronts may share them.
type Metrics struct {
	floods *prometheus.CounterVec
}

// NewMetrics registers the metrics of fronts with reg; nil shows them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{floods: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "anyedge_http2_floods_total",
		Help: "Connections ended with ENHANCE_YOUR_CALM, by what they sent too much of.",
	}, []string{"kind"})}
	for _, a := range allowances {
		m.floods.WithLabelValues(string(a.flood))
	}
	m.floods.WithLabelValues(string(FloodContinuation))
	m.floods.WithLabelValues(string(FloodHeaders))
	return m
}
