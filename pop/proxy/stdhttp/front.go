// Package stdhttp serves HTTP/2 to clients over net/http. It is the only package
// below pop/proxy that imports net/http.
//
// What net/http costs the exchange: field lines come sorted by name and with
// canonical names, request trailers go on only if the client announced them,
// and requests that net/http refuses itself never become exchanges.
//
// # Concurrency
//
// All methods of [Front] may be called by several goroutines at once. It starts
// nothing that outlives the calls into it.
package stdhttp

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
)

// FrontConfig says how a front serves. All fields are required.
type FrontConfig struct {
	Handler        exchange.Handler
	Log            *slog.Logger  // gets what net/http logs, at debug level
	HeaderTimeout  time.Duration // to read a request's head
	IdleTimeout    time.Duration // to wait for the next request
	BodyIdle       time.Duration // to wait for the next piece of a body, in either direction
	MaxHeaderBytes int           // of a request's head
}

// Front serves client connections with HTTP/2.
type Front struct {
	config FrontConfig
	// h2 is replaced by each Drain, because net/http can only ask all
	// connections of a server to go, and only once.
	h2    atomic.Pointer[http.Server]
	conns sync.Map // net.Conn -> *served, for net/http's connection hook
}

// NewFront returns a front that serves no connection yet.
func NewFront(config FrontConfig) *Front {
	f := &Front{config: config}
	f.h2.Store(f.newH2())
	return f
}

func (f *Front) newH2() *http.Server {
	s := &http.Server{
		Handler:                      http.HandlerFunc(f.serve),
		ReadHeaderTimeout:            f.config.HeaderTimeout,
		IdleTimeout:                  f.config.IdleTimeout,
		MaxHeaderBytes:               f.config.MaxHeaderBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is the origin's to answer
		ErrorLog:                     slog.NewLogLogger(f.config.Log.Handler(), slog.LevelDebug),
		Protocols:                    new(http.Protocols),
		BaseContext:                  func(l net.Listener) context.Context { return l.(*listener).ctx },
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				if s, ok := f.conns.Load(c); ok {
					s.(*served).end()
				}
			}
		},
		HTTP2: &http.HTTP2Config{
			// A peer that is gone without a word is noticed by a ping.
			SendPingTimeout:  f.config.IdleTimeout,
			PingTimeout:      f.config.HeaderTimeout,
			WriteByteTimeout: f.config.BodyIdle,
		},
	}
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

type servedKey struct{}

// ServeConn serves one connection, takes it over, and returns when it has ended
// and every exchange on it is over. The exchanges' contexts end with ctx; the
// connection then ends when they do, or when its underlying connection is
// closed. TLS needs a *tls.Conn.
func (f *Front) ServeConn(ctx context.Context, conn net.Conn, info *exchange.Conn) {
	defer conn.Close()
	c := &served{conn: conn, info: info, done: make(chan struct{}), idle: make(chan struct{})}
	c.ctx = context.WithValue(ctx, servedKey{}, c)
	f.conns.Store(conn, c)
	defer f.conns.Delete(conn)

	for !c.accepted.Load() {
		// Always returns an error; a server that Drain has shut down has a successor.
		f.h2.Load().Serve(&listener{served: c, closed: make(chan struct{})})
	}
	<-c.done
	c.join()
}

// stopped is a context that has ended: with it, Shutdown begins to shut down
// and does not wait.
var stopped = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Drain asks the clients of all HTTP/2 connections to go (GOAWAY, RFC 9113,
// 6.8); their streams are served to the end. Later connections are served as
// before.
func (f *Front) Drain() {
	f.h2.Swap(f.newH2()).Shutdown(stopped)
}

// listener offers one connection to net/http's server.
type listener struct {
	*served
	closing sync.Once
	closed  chan struct{}
}

// Accept returns the connection once, then blocks until it has ended or the
// server shuts down.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	if l.accepted.CompareAndSwap(false, true) {
		return l.conn, nil
	}
	select {
	case <-l.closed:
	case <-l.done:
	}
	return nil, net.ErrClosed
}

// Close lets Accept return; the connection goes on.
func (l *listener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return l.conn.LocalAddr() }

// served is a connection that net/http serves.
type served struct {
	conn     net.Conn
	info     *exchange.Conn
	ctx      context.Context
	accepted atomic.Bool
	ending   sync.Once
	done     chan struct{} // closed when net/http is done with the connection

	mu        sync.Mutex
	exchanges int
	joined    bool
	idle      chan struct{} // closed when joined is set and exchanges is 0
}

func (c *served) end() { c.ending.Do(func() { close(c.done) }) }

// enter begins an exchange. It returns false once the connection has ended.
func (c *served) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joined {
		return false
	}
	c.exchanges++
	return true
}

func (c *served) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exchanges--
	if c.joined && c.exchanges == 0 {
		close(c.idle)
	}
}

// join lets no new exchange begin and waits for those under way: HTTP/2
// streams may outlive their connection until they notice.
func (c *served) join() {
	c.mu.Lock()
	c.joined = true
	if c.exchanges == 0 {
		close(c.idle)
	}
	c.mu.Unlock()
	<-c.idle
}
