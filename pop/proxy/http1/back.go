package http1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"anyedge/pop/proxy/exchange"
)

const (
	// maxResponseHead bounds an origin's response head, and its trailers, in
	// bytes.
	maxResponseHead = 256 << 10
	// maxInterim bounds the interim responses to one request.
	maxInterim = 32
	// continueTimeout is the wait for an origin's 100 (Continue).
	continueTimeout = time.Second
)

// Dial connects to an origin. The connection is ready for HTTP/1.1: TLS, if
// any, is done.
type Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

// Back sends requests to origins and keeps their connections.
type Back struct {
	dial Dial
	idle idle
}

// NewBack returns a back that connects with dial.
func NewBack(dial Dial) *Back {
	return &Back{dial: dial}
}

// Run closes idle connections that are old or dead until ctx ends, then all of
// them, and keeps none from then on. It returns nil.
func (b *Back) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.idle.stop()
			return nil
		case <-tick.C:
			b.idle.sweep(time.Now())
		}
	}
}

// Adopt takes over a connection that somebody else has dialled, as Dial does,
// and keeps it for a later request to that origin. It is closed if it is not
// kept: after Run has ended, or when there are enough.
func (b *Back) Adopt(to netip.AddrPort, conn net.Conn) {
	b.idle.put(to, b.idle.newLink(conn), time.Now())
}

// CloseIdle closes the connections that no request uses; those in use are
// closed when their response ends.
func (b *Back) CloseIdle() { b.idle.flush() }

// RoundTrip sends r to the origin and returns its response head; the body
// follows, and must be closed even if it is empty. inform is called for each
// interim response but 100 and 101, before RoundTrip returns; its fields are
// valid until it does.
//
// The end of ctx ends the whole exchange, body included, but not a tunnel; it
// may be noticed a moment later. So do r.HeadWait and r.BodyWait. The error
// wraps [exchange.ErrConnect] if nothing was sent and the body not touched, and
// [exchange.ErrUnanswered] if the connection broke before any byte of a response
// came. r.Body is closed if its sending has begun and is not finished when the
// response ends or there is an error; a body that was not touched is not closed.
//
// A kept connection that the origin turns out to have closed is replaced by a
// new one, once. Nothing of a response may have come, and the body, if there is
// one, must be untouched: what was read of it is gone. If anything of the
// request was sent, the method must also be idempotent (RFC 9110, 9.2.2, and RFC
// 9112, 9.3.1); a request of which nothing was sent is not repeated by that.
func (b *Back) RoundTrip(ctx context.Context, to netip.AddrPort, r *exchange.Request, inform func(status int, fields exchange.Fields)) (*exchange.Response, error) {
	t := trips.Get().(*trip)
	t.back, t.ctx, t.request, t.to, t.inform = b, ctx, r, to, inform
	l := b.idle.take(to, time.Now())
	for {
		kept := l != nil
		if !kept {
			conn, err := b.dial(ctx, to)
			if err != nil {
				t.free()
				return nil, fmt.Errorf("%w: %w", exchange.ErrConnect, err)
			}
			l = b.idle.newLink(conn)
		}
		err := t.try(l)
		if err == nil {
			return &t.response, nil
		}
		t.abandon()
		if !kept || ctx.Err() != nil || !t.repeatable(err) {
			t.free()
			return nil, err
		}
		t.in.release()
		l = nil
	}
}

// repeatable reports whether a request that failed with err, and was abandoned,
// can be sent again without harm.
func (t *trip) repeatable(err error) bool {
	if errors.Is(err, exchange.ErrConnect) {
		return true
	}
	return errors.Is(err, exchange.ErrUnanswered) && !t.touched && idempotent(t.request.Method)
}

// idempotent reports whether repeating a request does what the first did (RFC
// 9110, 9.2.2).
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
