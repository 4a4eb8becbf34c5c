package http1

import (
	"context"
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
// wraps [exchange.ErrConnect] if nothing was sent. r.Body is closed if the
// origin's response ends before it, or if sending failed.
//
// A kept connection that the origin turns out to have closed is replaced by a
// new one, once, if the request can be repeated: nothing of a response came,
// the method is idempotent (RFC 9110, 9.2.2) and there is no body.
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
		if !kept || t.silent || t.answered || ctx.Err() != nil || !repeatable(r) {
			t.free()
			return nil, err
		}
		t.in.release()
		l = nil
	}
}

// repeatable reports whether sending r again does no harm.
func repeatable(r *exchange.Request) bool {
	if r.Body != nil {
		return false
	}
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
