// Package http1 speaks HTTP/1.1 and HTTP/1.0 (RFC 9110, RFC 9112): the [Front]
// turns client connections into exchanges, the [Back] sends an exchange's
// request to an origin.
//
// It is strict. What two recipients could read differently is refused, from
// clients with a status of 400 and up, from origins with an error; either way
// the connection ends. Every message is written anew, never copied through,
// and field lines keep order and spelling.
//
// # Memory
//
// Heads are parsed where they were read, into strings that share the buffer's
// memory; so what a request or response refers to is valid as [exchange]
// says, and no longer. A kept connection makes no garbage. One that is idle
// for a second holds no buffer.
//
// # Concurrency
//
// All methods of Front and Back may be called by several goroutines at once. A
// connection to a client is served on one goroutine, the exchange with the
// origin included. Only a request's body that is not at hand yet is sent by a
// goroutine of its own, and only an origin that keeps the worker waiting makes
// one that looks out for the client's hanging up. Both are joined before the
// exchange is over. A connection that has been idle for a second has no
// goroutine.
package http1

import (
	"cmp"
	"context"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
	"anyedge/pop/proxy/tcp"
)

// FrontConfig says how a front serves. The first five fields are required; of
// the others 0 is no bound.
type FrontConfig struct {
	Handler        exchange.Handler
	HeaderTimeout  time.Duration // to read a request's head, the first wait on a connection included
	IdleTimeout    time.Duration // to wait for the next request
	BodyIdle       time.Duration // to wait for the next piece of a body, in either direction
	MaxHeaderBytes int           // of a request's head, and of its trailers

	// MaxHeaderFields bounds the field lines of a request's head, which is
	// refused with 431 beyond, and of its trailers, which are malformed then.
	MaxHeaderFields int
	// MaxURIBytes bounds a request's path and query; beyond is 414.
	MaxURIBytes int
	// BodyRate is the least average pace of a request's body of declared length,
	// in bytes per second, measured from five seconds on. Only time in which the
	// client is waited for counts. A slower body ends as one that stays out for
	// BodyIdle.
	BodyRate int64

	// Lot is where idle connections wait. If it is nil, or does not take one,
	// they wait on their goroutine.
	Lot *tcp.Lot
}

// Front serves client connections.
type Front struct {
	config FrontConfig
	limits limits
	going  atomic.Bool // CloseIdle was called

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// NewFront returns a front that serves no connection yet.
func NewFront(config FrontConfig) *Front {
	most := limits{fields: cmp.Or(config.MaxHeaderFields, math.MaxInt), uri: cmp.Or(config.MaxURIBytes, math.MaxInt)}
	return &Front{config: config, limits: most, conns: make(map[*conn]struct{})}
}

// ServeConn serves one connection and takes it over. It calls ended when the
// connection has ended and every exchange on it is over. That may be after it
// has returned: an idle connection waits in the lot, and goes on on another
// goroutine. early are bytes that were read from it before. The connection ends
// with the run of the lot, and with a lot nobody else may close it before.
//
// The exchanges' contexts end with ctx, and when the client is gone: when its
// connection was reset, or it has ended its sending direction and nothing was
// sent to it for two seconds. So a client that half-closes behind its request
// gets a response that moves on, and one that has closed its connection does not
// keep an origin busy.
func (f *Front) ServeConn(ctx context.Context, nc net.Conn, early []byte, info *exchange.Conn, ended func()) {
	c := newConn(f, nc, info, ctx)
	c.ended = ended
	f.mu.Lock()
	f.conns[c] = struct{}{}
	f.mu.Unlock()
	if len(early) > 0 {
		c.in.makeRoom()
		c.in.w = copy(c.in.buf.Bytes, early)
	}
	c.serve(c.await())
}

// end is the end of a connection.
func (f *Front) end(c *conn) {
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
	c.in.release()
	c.net.Close()
	c.ended()
}

// CloseIdle closes connections between two requests, now and in future. New
// connections are closed at once.
func (f *Front) CloseIdle() {
	f.going.Store(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		if c.state.CompareAndSwap(connIdle, connGone) {
			c.net.SetReadDeadline(past)
			if c.spot != nil {
				c.spot.Leave()
			}
		}
	}
}
