package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"anyedge/pop/proxy/http3"
)

// retryAbove is how many QUIC handshakes may be under way before new clients
// have to prove their address: enough for bursts, and little memory for forged
// ones.
const retryAbove = 256

// quicListener serves HTTP/3 on the UDP socket of a listener.
type quicListener struct {
	front   *http3.Front
	packets *net.UDPConn
	stop    context.CancelFunc // nil until started; Worker.mu guards it
}

func newQUICListener(l *listener, packets *net.UDPConn, keys QUICKeys, c *codec) *quicListener {
	return &quicListener{front: http3.NewFront(l.frontConfig(keys, c)), packets: packets}
}

// frontConfig is what a codec is for HTTP/3.
func (l *listener) frontConfig(keys QUICKeys, c *codec) http3.FrontConfig {
	t, limits := c.config.Timeouts, c.config.Limits
	return http3.FrontConfig{
		Handler:          c.serve,
		Log:              l.worker.log.With("listener", l.name),
		TLS:              func() *tls.Config { return l.face.Load().tls },
		HandshakeTimeout: t.Handshake.Std(),
		HeaderTimeout:    t.Header.Std(),
		IdleTimeout:      t.Idle.Std(),
		BodyIdle:         t.BodyIdle.Std(),
		MaxHeaderBytes:   int(limits.HeaderBytes),
		MaxHeaderFields:  limits.HeaderFields,
		MaxURIBytes:      int(limits.URIBytes),
		MaxStreams:       limits.Streams,
		BodyRate:         int64(limits.BodyRate),
		RetryAbove:       retryAbove,
		ResetKey:         keys.Reset,
		TokenKey:         keys.Token,
		Admit:            func(client netip.Addr) (func(), bool) { return l.admitGuest(c, client) },
		Ended: func(client netip.Addr, rtt, lasted time.Duration) {
			if client != c.config.Address.Addr().Unmap() {
				l.worker.rtts.ended(client, c.config.TrustedHops, rtt, lasted)
			}
		},
		Metrics: l.worker.quic,
	}
}

// admitGuest counts a QUIC connection, or refuses it if a ceiling is reached.
func (l *listener) admitGuest(c *codec, client netip.Addr) (release func(), ok bool) {
	w := l.worker
	g, result := w.admitGuest(client.Unmap(), c.config)
	w.metrics.connections.WithLabelValues(l.name, result).Inc()
	if result != admitted {
		return nil, false
	}
	open := w.metrics.open.WithLabelValues(l.name)
	open.Inc()
	c.connections.Add(1)
	return func() {
		c.connections.Add(-1)
		open.Dec()
		w.conns.remove(g)
	}, true
}

// start serves until ctx ends. Worker.mu is held.
func (q *quicListener) start(l *listener, r *run) {
	ctx, stop := context.WithCancel(r.ctx)
	q.stop = stop
	r.tasks.Go(func() {
		defer stop()
		if err := q.front.Serve(ctx, q.packets); err != nil {
			l.worker.log.Error("HTTP/3 ended", "listener", l.name, "error", err)
		}
	})
}

// retire ends it: at once for whoever is idle, for the others within patience.
// Worker.mu is held.
func (q *quicListener) retire(patience time.Duration) {
	if q.stop == nil {
		q.packets.Close()
		return
	}
	q.front.CloseIdle()
	time.AfterFunc(patience, q.stop)
}
