package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"anyedge/origin"
	"anyedge/pop/proxy/exchange"
	"anyedge/pop/proxy/http1"
	"anyedge/pop/proxy/http2"
)

// back sends requests to backends.
type back interface {
	RoundTrip(ctx context.Context, to netip.AddrPort, r *exchange.Request, inform func(status int, fields exchange.Fields)) (*exchange.Response, error)
}

// backs are the ways to a pool's backends.
type backs struct {
	pool  *origin.Pool
	h1    *http1.Back
	h2    *http2.Back
	agree agree
	auto  atomic.Bool // agree is in use
}

func newBacks(pool *origin.Pool, log *slog.Logger) *backs {
	b := &backs{pool: pool}
	b.h1 = http1.NewBack(func(ctx context.Context, to netip.AddrPort) (net.Conn, error) { return b.dial(ctx, to, protocolH1) })
	b.h2 = http2.NewBack(http2.BackConfig{
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) { return b.dial(ctx, to, protocolH2) },
		Log:  log,
	})
	b.agree.backs = b
	return b
}

// by returns the back for a protocol as in [configs.Pool].
func (b *backs) by(protocol string) back {
	switch protocol {
	case protocolH2:
		return b.h2
	case protocolAuto:
		return &b.agree
	}
	return b.h1
}

// run keeps the connections until ctx ends.
func (b *backs) run(ctx context.Context) {
	var tasks sync.WaitGroup
	tasks.Go(func() { b.h1.Run(ctx) }) // returns nil
	b.h2.Run(ctx)                      // likewise
	tasks.Wait()
}

// closeIdle closes what no request uses, and lets none of it in that is in use.
func (b *backs) closeIdle() {
	b.h1.CloseIdle()
	b.h2.CloseIdle()
	b.agree.known.Clear()
}

// otherProtocol is the error of a dial whose handshake agreed on something
// else than was wanted.
type otherProtocol struct{ agreed string }

func (e *otherProtocol) Error() string {
	return fmt.Sprintf("the backend agreed to %s only", e.agreed)
}

// dial connects for one of the codecs. A connection on which the other protocol
// was agreed on goes to the codec that speaks it.
func (b *backs) dial(ctx context.Context, to netip.AddrPort, want string) (net.Conn, error) {
	conn, err := b.pool.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return cheap(conn), nil // spoken as the config says
	}
	agreed := protocolH1
	if secure.ConnectionState().NegotiatedProtocol == "h2" {
		agreed = protocolH2
	}
	if agreed == want {
		return conn, nil
	}
	switch {
	case !b.auto.Load():
		conn.Close()
	case agreed == protocolH2:
		b.h2.Adopt(to, conn)
	default:
		b.h1.Adopt(to, conn)
	}
	return nil, &otherProtocol{agreed}
}

// agree speaks to each backend what it has agreed to by ALPN (RFC 7301).
type agree struct {
	backs *backs
	known sync.Map // netip.AddrPort -> protocol
}

// RoundTrip implements [back].
func (a *agree) RoundTrip(ctx context.Context, to netip.AddrPort, r *exchange.Request, inform func(status int, fields exchange.Fields)) (*exchange.Response, error) {
	protocol := protocolH2
	if known, ok := a.known.Load(to); ok {
		protocol = known.(string)
	}
	res, err := a.backs.by(protocol).RoundTrip(ctx, to, r, inform)
	var other *otherProtocol
	if !errors.As(err, &other) {
		return res, err
	}
	// Nothing was sent. The connection waits at the other codec.
	a.known.Store(to, other.agreed)
	return a.backs.by(other.agreed).RoundTrip(ctx, to, r, inform)
}
