package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/configs"
	"anyedge/origin"
)

// upstream is a pool of backends with the connections to them. It lives as
// long as snapshots name it, and its state survives them.
type upstream struct {
	name   string
	pool   *origin.Pool
	backs  *backs
	budget budget
	config atomic.Pointer[configs.Pool] // never mutated after Store
	ca     string                       // of tls, in PEM
	tls    *tls.Config
	stop   context.CancelFunc // nil until started

	// The pool's own series; nil until the first apply, before any request.
	head prometheus.Observer
	ok   prometheus.Counter
}

func newUpstream(name string, log *slog.Logger, metrics *origin.Metrics) *upstream {
	pool := origin.NewPool(origin.Config{Name: name}, log, metrics)
	return &upstream{name: name, pool: pool, backs: newBacks(pool, log.With("pool", name))}
}

// protocol, firstByte and idle are what the config says.
func (u *upstream) protocol() string         { return u.config.Load().Protocol }
func (u *upstream) firstByte() time.Duration { return u.config.Load().FirstByteTimeout.Std() }
func (u *upstream) idle() time.Duration      { return u.config.Load().IdleTimeout.Std() }

// poolChange is what one pool of a snapshot comes to. Making one changes
// nothing and finds every error; applying it cannot fail.
type poolChange struct {
	pool   Pool
	config origin.Config
}

// planPool checks one pool of a snapshot. u is nil if the pool is new.
func planPool(p Pool, u *upstream) (poolChange, error) {
	c := p.Config
	if min(c.FirstByteTimeout, c.IdleTimeout) <= 0 {
		return poolChange{}, errors.New("timeouts: not positive")
	}
	change := poolChange{pool: p, config: origin.Config{
		Name: c.Name, Balance: c.Balance, ConnectTimeout: c.ConnectTimeout.Std(), HTTP2: c.Protocol == protocolH2,
		Health: origin.HealthConfig{
			Type: c.Health.Type, Path: c.Health.Path, Host: c.Health.Host,
			Interval: c.Health.Interval.Std(), Timeout: c.Health.Timeout.Std(),
			Rise: c.Health.Rise, Fall: c.Health.Fall,
		},
	}}
	if c.Warm != nil {
		change.config.Warm = *c.Warm
	}
	var err error
	switch {
	case c.TLS == nil:
	case u != nil && u.tls != nil && u.ca == string(p.CA) && u.tls.ServerName == c.TLS.ServerName && u.protocol() == c.Protocol:
		change.config.TLS = u.tls // connections made with it stay good
	default:
		change.config.TLS, err = upstreamTLS(*c.TLS, p.CA, c.Protocol)
	}
	// A pool that is thrown away tells whether the set is valid.
	trial := origin.NewPool(origin.Config{}, slog.New(slog.DiscardHandler), nil)
	return change, errors.Join(err, trial.Update(p.Backends))
}

func upstreamTLS(c configs.PoolTLS, ca []byte, protocol string) (*tls.Config, error) {
	cfg := &tls.Config{
		ServerName: c.ServerName,
		MinVersion: tls.VersionTLS12,
		NextProtos: nextProtos[protocol],
		// Resumption saves most of the handshakes to an origin.
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if len(ca) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("tls: no certificate in the authorities' file")
		}
	}
	return cfg, nil
}

// nextProtos are offered to the backends of a pool (RFC 7301), by its protocol.
var nextProtos = map[string][]string{
	protocolH1:   {"http/1.1"},
	protocolH2:   {"h2"},
	protocolAuto: {"h2", "http/1.1"},
}

// apply puts a planned change in force.
func (u *upstream) apply(c poolChange, m *metrics) {
	if u.head == nil {
		u.head, u.ok = m.head.WithLabelValues(u.name), m.tries.WithLabelValues(u.name, tryOK)
	}
	if u.tls != c.config.TLS {
		u.tls, u.ca = c.config.TLS, string(c.pool.CA)
		defer u.backs.closeIdle() // made with the old one
	}
	u.config.Store(&c.pool.Config)
	u.backs.auto.Store(c.pool.Config.Protocol == protocolAuto)
	u.pool.SetConfig(c.config)
	if u.stop == nil {
		u.pool.Seed(c.pool.States)
	}
	if err := u.pool.Update(c.pool.Backends); err != nil {
		panic(fmt.Sprintf("proxy: a planned set of backends was refused: %v", err))
	}
}

// run keeps the pool and its connections until ctx ends.
func (u *upstream) run(ctx context.Context) {
	var tasks sync.WaitGroup
	tasks.Go(func() { u.backs.run(ctx) })
	u.pool.Run(ctx) // returns nil
	tasks.Wait()
}
