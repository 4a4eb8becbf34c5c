// Package http3 serves HTTP/3 (RFC 9114) to clients and makes exchanges of
// their streams, WebSocket (RFC 9220) and CONNECT included.
//
// QUIC (RFC 9000) is quic-go's: packets, loss recovery, congestion control,
// flow control, migration and the TLS handshake. The frames and rules of HTTP/3
// are this package's own, because quic-go's http3 hands requests to net/http:
// the order of field lines is lost in its header map, and it takes some
// malformed requests that must be refused. Header blocks use QPACK's static
// table only, in both directions (RFC 9204): no request waits for another, and
// a connection keeps no table. Server push and datagrams do not exist here;
// priority signals are ignored.
//
// # Requests in early data
//
// A client that was here before may send requests along with its first packet
// (0-RTT). Whoever recorded that packet can send it again, to this node or any
// other that has the ticket keys, for as long as the ticket is good: a day at
// most, and usually as long as the ring keeps its key. No node remembers which
// packets it has seen; on an anycast address that would take a store shared by
// all. So replays happen, and nothing that matters may depend on them (RFC 8470,
// 3): only GET, HEAD, OPTIONS and TRACE without a body are handled at once, with
// [exchange.Request].Early set, so that the origin is told by Early-Data and
// can answer 425. Everything else waits until the handshake is complete, which
// a replay never reaches. Early data is declined when the session is of another
// trust domain or server name, when its key is gone, and when our limits have
// become tighter than those the client remembers (RFC 9114, 7.2.4.2).
//
// # Addresses
//
// A connection survives a change of the client's address, whether a NAT did it
// or the client; quic-go validates the new path. Requests that begin
// afterwards have an [exchange.Conn] of their own with the new address. While
// many handshakes are under way, clients have to prove their address first by
// a Retry (RFC 9000, 8.1.2).
//
// # Memory
//
// A request has a buffer only while its head is read or its response is sent;
// bodies of requests wait in quic-go, within the windows. An idle connection
// has none. It costs some 70 kB nevertheless, with the stacks of its five to
// seven goroutines, nearly all of it QUIC's state.
//
// # Refusals
//
// A malformed request resets its stream with H3_MESSAGE_ERROR (RFC 9114,
// 4.1.2) and never becomes an exchange. One that is well formed but not to be
// served becomes one with a [exchange.Refusal]; the connection goes on.
//
// # Concurrency
//
// All methods of [Front] may be called by several goroutines at once. Each
// connection has a goroutine that accepts requests, one for each of the
// client's one-way streams, and one for each request; [Front.Serve] joins all
// of them.
package http3

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"anyedge/pop/proxy/exchange"
)

const (
	// streamWindow and connWindow are how much of requests' bodies may be on
	// its way or unread, in bytes.
	streamWindow = 256 << 10
	connWindow   = 1 << 20
	// maxOneWay is how many one-way streams a client may open in all: three
	// that HTTP/3 needs, and some of unknown types (RFC 9114, 6.2).
	maxOneWay = 16
)

// ConnectionIDLength is the length of the connection IDs that clients send to
// us, in bytes.
const ConnectionIDLength = 8

// FrontConfig says how a front serves. All fields but the last four are
// required.
type FrontConfig struct {
	Handler exchange.Handler // must not panic
	Log     *slog.Logger     // gets why connections ended, at debug level
	// TLS returns the config for a new connection. It is called for each; ALPN
	// and the minimum version are set by the front. It is not mutated.
	TLS func() *tls.Config

	HandshakeTimeout time.Duration // from the first packet to the end of the handshake
	HeaderTimeout    time.Duration // to read a request's head
	// IdleTimeout is how long a connection may be without a request, and with
	// one, without a sign of life. Clients that wait send PINGs.
	IdleTimeout time.Duration
	BodyIdle    time.Duration // to wait for the next piece of a body, in either direction

	MaxHeaderBytes  int // of a request's head, counted as RFC 9114, 4.2.2 does
	MaxHeaderFields int // lines of a request's head
	MaxURIBytes     int // of :path
	MaxStreams      int // requests under way on one connection
	// BodyRate is the least pace of a request body of declared length, in bytes
	// per second on average, from five seconds after its begin. Time in which
	// nobody reads the body does not count. 0 is no bound.
	BodyRate int64
	// RetryAbove is how many handshakes may be under way before new clients have
	// to prove their address. That costs them a round trip, and early data.
	RetryAbove int

	// ResetKey makes stateless resets (RFC 9000, 10.3). A worker that has the
	// key of the one before it tells that one's clients at once that their
	// connections are gone. It must not serve beside a worker with the same key
	// that gets packets of the same connections: it would end them.
	ResetKey [32]byte
	// TokenKey seals the tokens by which clients prove their address. Nodes with
	// the same key take each other's.
	TokenKey [32]byte

	// Admit is asked before a connection from an address is taken on; the
	// address may be forged still. If ok is false, the client gets
	// CONNECTION_REFUSED, once for each packet of its first flight. Otherwise release is called once when the connection
	// is gone. Nil admits all.
	Admit func(netip.Addr) (release func(), ok bool)
	// Ended is told of each connection that comes to its end after its handshake
	// was over: from where it came last, its smoothed RTT (RFC 9002, 5.3), 0 if
	// there is none, and how long it lasted. Nil is told nothing.
	Ended func(client netip.Addr, rtt, lasted time.Duration)
	// ConnectionID fills in an ID for a connection, by which packets for it can
	// be steered to this worker when the client's address has changed. IDs must
	// be unique and tell observers nothing. Nil draws them at random.
	ConnectionID func(id *[ConnectionIDLength]byte)
	Metrics      *Metrics // nil shows them nowhere
}

// Front serves clients with HTTP/3.
type Front struct {
	config      atomic.Pointer[FrontConfig] // of new connections; never mutated after Store
	metrics     *Metrics
	handshaking atomic.Int64 // handshakes under way

	mu      sync.Mutex
	conns   map[*conn]struct{}
	closing bool // CloseIdle was called
}

// NewFront returns a front that serves nobody yet.
func NewFront(config FrontConfig) *Front {
	f := &Front{metrics: config.Metrics, conns: make(map[*conn]struct{})}
	if f.metrics == nil {
		f.metrics = NewMetrics(nil)
	}
	f.Update(config)
	return f
}

// Update has later connections served as config says, while those that are open
// keep what they began with. Keys, IDs and metrics stay what they were when
// Serve was called.
func (f *Front) Update(config FrontConfig) {
	config.Metrics = f.metrics
	if config.Admit == nil {
		config.Admit = func(netip.Addr) (func(), bool) { return func() {}, true }
	}
	if config.Ended == nil {
		config.Ended = func(netip.Addr, time.Duration, time.Duration) {}
	}
	f.config.Store(&config)
}

// Serve serves the clients of one UDP socket, and takes it over. A
// [net.UDPConn] is needed for migration between local addresses, ECN and
// segmentation offload. It returns when ctx has ended, with nil, or the socket
// has failed, with an error that wraps [net.ErrClosed]; all that it started has
// ended then. The contexts of exchanges end with ctx. It may be called for
// several sockets.
func (f *Front) Serve(ctx context.Context, socket net.PacketConn) error {
	defer socket.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var peers sync.WaitGroup // connections as quic-go has them
	config := f.config.Load()
	resetKey, tokenKey := quic.StatelessResetKey(config.ResetKey), quic.TokenGeneratorKey(config.TokenKey)
	transport := &quic.Transport{
		Conn:               socket,
		ConnectionIDLength: ConnectionIDLength,
		StatelessResetKey:  &resetKey,
		TokenGeneratorKey:  &tokenKey,
		VerifySourceAddress: func(net.Addr) bool {
			if f.handshaking.Load() <= int64(f.config.Load().RetryAbove) {
				return false
			}
			f.metrics.retries.Inc()
			return true
		},
		ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			return f.admit(ctx, info, &peers)
		},
	}
	if config.ConnectionID != nil {
		transport.ConnectionIDGenerator = connectionIDs(config.ConnectionID)
	}
	defer peers.Wait()
	listener, err := transport.ListenEarly(f.tlsConfig(), &quic.Config{
		Allow0RTT: true,
		GetConfigForClient: func(*quic.ClientInfo) (*quic.Config, error) {
			return f.config.Load().quic(), nil
		},
	})
	if err != nil {
		transport.Close()
		return fmt.Errorf("listen for QUIC: %w", err)
	}
	defer transport.Close()

	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		// After Close this returns what was queued, then an error.
		qc, err := listener.Accept(context.Background())
		if err == nil {
			tasks.Go(func() { f.serve(ctx, qc) })
			continue
		}
		if ctx.Err() == nil {
			return fmt.Errorf("accept QUIC connections: %w", err)
		}
		return nil
	}
}

// serve serves one connection to its end.
func (f *Front) serve(ctx context.Context, qc *quic.Conn) {
	c := newConn(ctx, qc)
	defer c.cancel()
	if err := c.greet(); err != nil {
		qc.CloseWithError(codeStreamCreation, "no control stream")
		return
	}
	f.mu.Lock()
	f.conns[c] = struct{}{}
	closing := f.closing
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.conns, c)
	}()
	f.metrics.connections.Inc()
	defer f.metrics.connections.Dec()
	if closing {
		c.goAway()
	}
	c.serve()
}

func (c *FrontConfig) quic() *quic.Config {
	return &quic.Config{
		// quic-go gives up when nothing came for this long, and in any case after
		// twice as long.
		HandshakeIdleTimeout:           max(c.HandshakeTimeout/2, time.Millisecond),
		MaxIdleTimeout:                 c.IdleTimeout + linger, // after GOAWAY, see expire
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: connWindow,
		MaxConnectionReceiveWindow:     connWindow,
		MaxIncomingStreams:             int64(c.MaxStreams),
		MaxIncomingUniStreams:          maxOneWay,
		// A request that was reset counts until its handler has returned, so
		// resets do not make more work than MaxStreams allows.
		RequireStreamCreditRelease: true,
		Allow0RTT:                  true,
	}
}

// Drain asks the clients of all connections to go, without losing a request
// that is already on its way (RFC 9114, 5.2): first with a GOAWAY that refuses
// nothing, and a little later with one that names the last request. Requests
// are served to the end. Later connections are served as before.
func (f *Front) Drain() {
	for _, c := range f.open() {
		c.drain()
	}
}

// CloseIdle closes connections on which no request is under way, now and in
// future, as soon as that is so. Their clients are told by a GOAWAY. New
// connections are refused, so that their clients turn to TCP.
func (f *Front) CloseIdle() {
	f.mu.Lock()
	f.closing = true
	f.mu.Unlock()
	for _, c := range f.open() {
		c.goAway()
	}
}

func (f *Front) open() []*conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := make([]*conn, 0, len(f.conns))
	for c := range f.conns {
		open = append(open, c)
	}
	return open
}

// connectionIDs implements [quic.ConnectionIDGenerator].
type connectionIDs func(id *[ConnectionIDLength]byte)

func (fill connectionIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [ConnectionIDLength]byte
	fill(&id)
	return quic.ConnectionIDFromBytes(id[:]), nil
}

func (connectionIDs) ConnectionIDLen() int { return ConnectionIDLength }
