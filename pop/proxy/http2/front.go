// Package http2 speaks HTTP/2 (RFC 9113): the [Front] makes exchanges of the
// streams on client connections, the [Back] sends an exchange's request to an
// origin. Both know WebSocket (RFC 8441).
//
// Connections, streams, flow control and limits are its own; frames are parsed
// by x/net's Framer and header blocks decoded by its HPACK decoder. Server push
// and the h2c upgrade of HTTP/1.1 do not exist here (RFC 9113 did away with the
// one and its use in practice with the other); priority signals are read and
// ignored.
//
// # A connection
//
// What both ends have in common is a conn, made of frames, windows and streams;
// what one of them does alone is its side: a frontConn or a link. A stream is
// used by a turn (a client's request) or a trip (one to an origin).
//
// One goroutine reads frames, at the front the caller of [Front.ServeConn], and
// never waits for the peer to take anything. Frames to the peer are appended to
// one buffer; whoever finds no writer at work becomes the writer, lets others
// who are about to append do so, and writes all of it at once. A body's bytes
// are held only within its flow control window, and the window is opened as they
// are read.
//
// At the front each stream's handler runs on a goroutine that the connection
// reuses. To an origin the handler's goroutine sends the request itself, and
// then waits for the reader; only a request's body that is not at hand yet is
// sent by a goroutine of its own, which is joined before the exchange is over.
//
// A connection on which nothing came for a quarter of a second gives back its
// buffers and handler goroutines; it then holds its state, its HPACK table and
// the stack of the goroutine that reads.
//
// # Refusals
//
// A malformed message resets its stream (RFC 9113, 8.1.1): a request never
// becomes an exchange, a response an error. A request that is well formed but
// not to be served (no authority, an unknown expectation, a head or a URI beyond
// the limit) becomes an exchange with a [exchange.Refusal]; other than the
// exchange package says, the connection goes on after it. A peer that makes work
// out of proportion to what it asks for, or is asked for, is cut off with
// ENHANCE_YOUR_CALM, see [Flood].
//
// # Concurrency
//
// All methods of [Front] and [Back] may be called by several goroutines at once.
// Nothing outlives the call to ServeConn, or to Run, that it belongs to.
// Everything that reader, exchanges and writer share is guarded by the
// connection's one mutex.
package http2

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"anyedge/pop/proxy/exchange"
)

// FrontConfig says how a front serves. All fields but BodyRate and Metrics are
// required.
type FrontConfig struct {
	Handler         exchange.Handler // must not panic
	Log             *slog.Logger     // gets why connections ended, at debug level
	HeaderTimeout   time.Duration    // to read a request's head, and for a ping to come back
	IdleTimeout     time.Duration    // to wait for the next request; with streams open, for a sign of life
	BodyIdle        time.Duration    // to wait for the next piece of a body, in either direction
	MaxStreams      int              // that a client may have open on a connection
	MaxHeaderBytes  int              // of a request's head, counted as RFC 9113, 6.5.2 does
	MaxHeaderFields int              // field lines of a request's head, and of its trailers; beyond it is 431
	MaxURIBytes     int              // of a request's path and query; beyond it is 414
	// BodyRate is the least average pace of a request's body of declared length,
	// in bytes per second; 0 is no bound. It counts over the time for which the
	// handler has waited for the client, from five seconds on.
	BodyRate int64
	Metrics  *Metrics // nil shows them nowhere
}

// Front serves client connections with HTTP/2.
type Front struct {
	config FrontConfig
	turns  sync.Pool // of *turn without a body, whose handlers have returned

	mu      sync.Mutex
	conns   map[*frontConn]struct{}
	closing bool // CloseIdle was called
}

// NewFront returns a front that serves no connection yet.
func NewFront(config FrontConfig) *Front {
	if config.Metrics == nil {
		config.Metrics = NewMetrics(nil)
	}
	return &Front{config: config, conns: make(map[*frontConn]struct{})}
}

// ServeConn serves one connection, takes it over, and returns when it has ended
// and every exchange on it is over. The exchanges' contexts end with ctx, and
// no further exchange begins; the connection then ends when they do, or when nc
// is closed.
func (f *Front) ServeConn(ctx context.Context, nc net.Conn, info *exchange.Conn) {
	c := newFrontConn(ctx, f, nc, info)
	f.mu.Lock()
	f.conns[c] = struct{}{}
	closing := f.closing
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.conns, c)
	}()
	if closing {
		c.goAway()
	}
	defer context.AfterFunc(ctx, c.goAway)()
	c.serve()
}

// Drain asks the clients of all connections to go, without losing a request
// that is already on its way (RFC 9113, 6.8): first with a GOAWAY that refuses
// nothing, and once a ping has come back, or HeaderTimeout has passed, with one
// that names the last stream. Streams are served to the end. Later connections
// are served as before.
func (f *Front) Drain() {
	for _, c := range f.open() {
		c.drain()
	}
}

// CloseIdle closes connections on which no request is under way, now and in
// future, as soon as that is so. Their clients are told by a GOAWAY.
func (f *Front) CloseIdle() {
	f.mu.Lock()
	f.closing = true
	f.mu.Unlock()
	for _, c := range f.open() {
		c.goAway()
	}
}

func (f *Front) open() []*frontConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := make([]*frontConn, 0, len(f.conns))
	for c := range f.conns {
		open = append(open, c)
	}
	return open
}
