// Package http2 serves HTTP/2 (RFC 9113) to clients and makes exchanges of
// their streams, WebSocket included (RFC 8441).
//
// Connections, streams, flow control and limits are its own; frames are parsed
// by x/net's Framer and header blocks decoded by its HPACK decoder. Server push
// and the h2c upgrade of HTTP/1.1 do not exist here (RFC 9113 did away with the
// one and its use in practice with the other); priority signals are read and
// ignored.
//
// # A connection
//
// One goroutine, the caller of [Front.ServeConn], reads frames and never waits
// for the client to take anything. Each stream's handler runs on a goroutine
// that the connection reuses. Frames to the client are appended to one buffer;
// whoever finds no writer at work becomes the writer, lets others who are about
// to append do so, and writes all of it at once. A body's bytes are held only
// within its flow control window, and the window is opened as the handler reads.
//
// A connection on which nothing came for a quarter of a second gives back its buffers and
// handler goroutines; it then holds its state, its HPACK table and the stack of
// the goroutine that reads.
//
// # Refusals
//
// A malformed request resets its stream (RFC 9113, 8.1.1) and never becomes an
// exchange. One that is well formed but not to be served (no authority, an
// unknown expectation, a head beyond the limit) becomes one with a
// [exchange.Refusal]; other than the exchange package says, the connection goes
// on after it. A client that
// makes work out of proportion to its requests is cut off with
// ENHANCE_YOUR_CALM, see [Flood].
//
// # Concurrency
//
// All methods of [Front] may be called by several goroutines at once. Nothing
// outlives the call to ServeConn that started it. Everything that reader,
// handlers and writer share is guarded by the connection's one mutex.
package http2

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"anyedge/pop/proxy/exchange"
)

// FrontConfig says how a front serves. All fields but Metrics are required.
type FrontConfig struct {
	Handler         exchange.Handler // must not panic
	Log             *slog.Logger     // gets why connections ended, at debug level
	HeaderTimeout   time.Duration    // to read a request's head, and for a ping to come back
	IdleTimeout     time.Duration    // to wait for the next request; with streams open, for a sign of life
	BodyIdle        time.Duration    // to wait for the next piece of a body, in either direction
	BodyRate        int64            // least average of a request's body of declared length, see below, in bytes per second
	MaxStreams      int              // that a client may have open on a connection
	MaxHeaderBytes  int              // of a request's head, counted as RFC 9113, 6.5.2 does
	MaxHeaderFields int              // field lines of a request's head, and of its trailers
	MaxURIBytes     int              // of a request's path and query
	Metrics         *Metrics         // nil shows them nowhere
}

// What a front takes for fields of its config that are zero.
const (
	defaultStreams      = 128
	defaultHeaderFields = 1 << 20
	defaultURIBytes     = 1 << 20
)

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
	config.MaxStreams = cmp.Or(config.MaxStreams, defaultStreams)
	config.MaxHeaderFields = cmp.Or(config.MaxHeaderFields, defaultHeaderFields)
	config.MaxURIBytes = cmp.Or(config.MaxURIBytes, defaultURIBytes)
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
