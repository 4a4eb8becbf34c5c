package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/configs"
	"anyedge/pop/proxy/exchange"
	"anyedge/pop/proxy/http1"
	"anyedge/pop/proxy/http2"
	"anyedge/pop/termination"
)

// reserve is how many connections from this machine itself are admitted beyond
// the ceiling. The agent's probes are among them: a node that is full must not
// look as if it were dead, or its load would fall upon the others.
const reserve = 16

// The pauses after a failed accept.
const (
	acceptPause    = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// listener serves the connections of one socket.
type listener struct {
	worker  *Worker
	name    string
	socket  net.Listener
	face    atomic.Pointer[face] // what new connections meet; never nil once the listener is in use
	started bool                 // guarded by Worker.mu
}

// face is what a snapshot says of a listener. It is never mutated.
type face struct {
	config configs.Listener
	tls    *tls.Config // nil in clear text
	codec  *codec
}

// codec serves connections of one listener for as long as its config stays the
// same.
type codec struct {
	h1          *http1.Front
	h2          *http2.Front
	listener    *listener
	metrics     *listenerMetrics
	config      configs.Listener
	stale       atomic.Bool // the listener has another codec now, or is gone
	connections atomic.Int64
}

func newCodec(l *listener, config configs.Listener) *codec {
	c := &codec{listener: l, config: config, metrics: newListenerMetrics(l.worker.metrics, l.name)}
	t := config.Timeouts
	c.h1 = http1.NewFront(http1.FrontConfig{
		Handler:        c.serve,
		HeaderTimeout:  t.Header.Std(),
		IdleTimeout:    t.Idle.Std(),
		BodyIdle:       t.BodyIdle.Std(),
		MaxHeaderBytes: int(config.Limits.HeaderBytes),
	})
	c.h2 = http2.NewFront(http2.FrontConfig{
		Handler:        c.serve,
		Log:            l.worker.log.With("listener", l.name),
		HeaderTimeout:  t.Header.Std(),
		IdleTimeout:    t.Idle.Std(),
		BodyIdle:       t.BodyIdle.Std(),
		MaxHeaderBytes: int(config.Limits.HeaderBytes),
		Metrics:        l.worker.floods,
	})
	return c
}

// dismiss ends what is idle, and asks the rest to go.
func (c *codec) dismiss() {
	c.h2.Drain()
	c.h1.CloseIdle()
}

// trusts reports whether a peer is a hop of ours.
func (c *codec) trusts(peer netip.Addr) bool {
	for _, prefix := range c.config.TrustedHops {
		if prefix.Contains(peer) {
			return true
		}
	}
	return false
}

// tlsConfig is the terminator's config with the listener's protocols.
func tlsConfig(l configs.Listener, t *termination.Terminator) *tls.Config {
	if l.Clear {
		return nil
	}
	cfg := t.TLSConfig().Clone()
	// Small first records would mean several writes for one response.
	cfg.DynamicRecordSizingDisabled = true
	cfg.NextProtos = nil
	if slices.Contains(l.Protocols, protocolH2) {
		cfg.NextProtos = append(cfg.NextProtos, "h2")
	}
	if slices.Contains(l.Protocols, protocolH1) {
		cfg.NextProtos = append(cfg.NextProtos, "http/1.1")
	}
	return cfg
}

// accept serves connections until the socket is closed.
func (l *listener) accept(r *run) {
	m := l.worker.metrics
	pause := time.Duration(0)
	for {
		conn, err := l.socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Most often no descriptor is free. Pausing leaves the processor
			// to those whose end frees some.
			m.acceptErrors.WithLabelValues(l.name).Inc()
			if pause == 0 {
				l.worker.log.Warn("accept fails, pausing between tries", "listener", l.name, "error", err)
			}
			pause = min(max(2*pause, acceptPause), acceptPauseMax)
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-r.ctx.Done():
				timer.Stop()
				return
			}
			continue
		}
		pause = 0
		if !l.worker.admit(conn) {
			m.connections.WithLabelValues(l.name, refused).Inc()
			continue
		}
		m.connections.WithLabelValues(l.name, admitted).Inc()
		r.tasks.Go(func() { l.serve(r.ctx, conn) })
	}
}

// admit registers a connection, or closes it if the ceiling is reached: a
// client that is told at once can try elsewhere, one left in the queue cannot.
func (w *Worker) admit(conn net.Conn) bool {
	limit := w.state.Load().maxConnections
	if local(conn) {
		limit += reserve
	}
	if w.conns.add(conn, limit) {
		return true
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) // leave nothing behind in the kernel
	}
	conn.Close()
	return false
}

// local reports whether a connection comes from this machine.
func local(conn net.Conn) bool {
	remote := unmap(conn.RemoteAddr()).Addr()
	return remote.IsLoopback() || remote == unmap(conn.LocalAddr()).Addr()
}

// serve serves one connection until it ends.
func (l *listener) serve(ctx context.Context, conn net.Conn) {
	w, f := l.worker, l.face.Load()
	open := w.metrics.open.WithLabelValues(l.name)
	open.Inc()
	f.codec.connections.Add(1)
	defer func() {
		conn.Close()
		f.codec.connections.Add(-1)
		open.Dec()
		w.conns.remove(conn)
	}()

	info := &exchange.Conn{Client: unmap(conn.RemoteAddr()), Local: unmap(conn.LocalAddr())}
	ready, early, err := l.begin(ctx, conn, f, info)
	if err != nil {
		w.log.Debug("connection did not come to a request", "listener", l.name, "client", info.Client, "error", err)
		return
	}
	if !info.HTTP2 {
		f.codec.h1.ServeConn(ctx, ready, early, info)
		return
	}
	if len(early) > 0 {
		ready = &peeked{Conn: ready, head: early}
	}
	f.codec.h2.ServeConn(ctx, ready, info)
}

// begin brings a connection to its first request, and info to what is known by
// then. early are bytes that were read from it.
func (l *listener) begin(ctx context.Context, conn net.Conn, f *face, info *exchange.Conn) (ready net.Conn, early []byte, err error) {
	if f.tls == nil {
		early, err = detect(conn, f, info)
		return conn, early, err
	}
	ready, err = l.handshake(ctx, conn, f, info)
	return ready, nil, err
}

// handshake terminates TLS.
func (l *listener) handshake(ctx context.Context, conn net.Conn, f *face, info *exchange.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.Timeouts.Handshake.Std())
	defer cancel()
	secure := tls.Server(conn, f.tls)
	handshakes := l.worker.metrics.handshakes
	if err := secure.HandshakeContext(ctx); err != nil {
		handshakes.WithLabelValues(l.name, handshakeFailed).Inc()
		return nil, err
	}
	state := secure.ConnectionState()
	result := handshakeFull
	if state.DidResume {
		result = handshakeResumed
	}
	handshakes.WithLabelValues(l.name, result).Inc()
	info.TLS = &exchange.TLS{
		Version:    tls.VersionName(state.Version),
		Cipher:     tls.CipherSuiteName(state.CipherSuite),
		ServerName: state.ServerName,
		Resumed:    state.DidResume,
	}
	info.HTTP2 = state.NegotiatedProtocol == "h2"
	if !info.HTTP2 && !slices.Contains(f.config.Protocols, protocolH1) {
		return nil, errors.New("no protocol was agreed on") // the client did not use ALPN
	}
	return secure, nil
}

// prefaceStart begins HTTP/2 with prior knowledge (RFC 9113, 3.4), and is no
// method of HTTP/1.1.
const prefaceStart = "PRI "

// detect finds out what a client speaks in clear text. It returns what it has
// read.
func detect(conn net.Conn, f *face, info *exchange.Conn) ([]byte, error) {
	h1 := slices.Contains(f.config.Protocols, protocolH1)
	info.HTTP2 = slices.Contains(f.config.Protocols, protocolH2)
	if !h1 || !info.HTTP2 {
		return nil, nil
	}
	conn.SetReadDeadline(time.Now().Add(f.config.Timeouts.Header.Std()))
	head := make([]byte, len(prefaceStart))
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	conn.SetReadDeadline(time.Time{})
	info.HTTP2 = string(head) == prefaceStart
	return head, nil
}

// peeked is a connection whose first bytes were looked at.
type peeked struct {
	net.Conn
	head []byte // not read yet
}

// Read implements [net.Conn].
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// conns are the client connections that are open.
type conns struct {
	mu    sync.Mutex
	open  map[net.Conn]struct{}
	quiet chan struct{} // has a value after the last one has ended
}

// add returns false if limit connections are open.
func (c *conns) add(conn net.Conn, limit int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if int64(len(c.open)) >= limit {
		return false
	}
	c.open[conn] = struct{}{}
	return true
}

func (c *conns) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
	if len(c.open) == 0 {
		select {
		case c.quiet <- struct{}{}:
		default:
		}
	}
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// closeAll closes them; each is removed by the task that serves it.
func (c *conns) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
}

// unmap returns a TCP address with IPv4 in its own form.
func unmap(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
