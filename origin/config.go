package origin

import (
	"cmp"
	"crypto/tls"
	"time"
)

// Values of [Config.Balance].
const (
	RoundRobin   = "round_robin"
	LeastRequest = "least_request"
)

// Values of [HealthConfig.Type].
const (
	CheckHTTP = "http"
	CheckTCP  = "tcp"
)

// Config says how a pool picks, checks and connects. Zero fields mean the
// documented defaults. Values are not validated here: they come from a config
// that was.
type Config struct {
	// Name labels metrics and log lines. It does not change in the life of a
	// pool.
	Name string
	// Balance is [RoundRobin] (default) or [LeastRequest].
	Balance string
	// Health is the active check of every backend.
	Health HealthConfig
	// Warm is how many idle connections are kept ready per healthy backend.
	// Default none.
	Warm int
	// ConnectTimeout bounds one dial, TLS handshake included. Default 2s.
	ConnectTimeout time.Duration
	// HTTP2 says that backends speak HTTP/2 and nothing else, in clear text with
	// prior knowledge; http checks speak it then.
	HTTP2 bool
	// TLS speaks TLS to the backends; it must hold a ServerName. nil: clear
	// text. It is used as it is, never changed, and compared by pointer.
	TLS *tls.Config
}

// HealthConfig is the active check of a backend.
type HealthConfig struct {
	// Type is [CheckHTTP] (default when Path is set) or [CheckTCP] (default
	// otherwise).
	Type string
	// Path is requested by the http check, query included; any 2xx passes.
	// Default "/".
	Path string
	// Host is the Host field of the http check. Default: the address.
	Host string
	// Interval between the starts of two checks of one backend. Default 2s.
	Interval time.Duration
	// Timeout of one check. Default 1s.
	Timeout time.Duration
	// Rise is how many passes in a row make a backend healthy. Default 2.
	Rise int
	// Fall is how many failures in a row make it unhealthy. Default 3.
	Fall int
}

// withDefaults returns a copy of c with its defaults filled in.
func (c Config) withDefaults() *Config {
	c.Balance = cmp.Or(c.Balance, RoundRobin)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 2*time.Second)
	if c.Health.Type == "" {
		c.Health.Type = CheckTCP
		if c.Health.Path != "" {
			c.Health.Type = CheckHTTP
		}
	}
	c.Health.Path = cmp.Or(c.Health.Path, "/")
	c.Health.Interval = cmp.Or(c.Health.Interval, 2*time.Second)
	c.Health.Timeout = cmp.Or(c.Health.Timeout, time.Second)
	c.Health.Rise = cmp.Or(c.Health.Rise, 2)
	c.Health.Fall = cmp.Or(c.Health.Fall, 3)
	return &c
}
