package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"anyedge/configs"
	"anyedge/pop/proxy/exchange"
	"anyedge/pop/proxy/http1"
	"anyedge/pop/proxy/http2"
	"anyedge/pop/proxy/tcp"
	"anyedge/pop/termination"
)

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
	door    net.Listener         // on loopback: see Worker.AddDoor; nil without
	face    atomic.Pointer[face] // what new connections meet; never nil once the listener is in use
	started bool                 // guarded by Worker.mu
	h3      *quicListener        // nil without HTTP/3; guarded by Worker.mu
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
	altSvc      string      // offers HTTP/3; empty without
	stale       atomic.Bool // the listener has another codec now, or is gone
	connections atomic.Int64
}

func newCodec(l *listener, config configs.Listener) *codec {
	c := &codec{listener: l, config: config, metrics: newListenerMetrics(l.worker.metrics, l.name)}
	if slices.Contains(config.Protocols, protocolH3) {
		c.altSvc = fmt.Sprintf(`h3=":%d"; ma=86400`, config.Address.Port())
	}
	t, limits := config.Timeouts, config.Limits
	c.h1 = http1.NewFront(http1.FrontConfig{
		Handler:        c.serve,
		HeaderTimeout:  t.Header.Std(),
		IdleTimeout:    t.Idle.Std(),
		BodyIdle:       t.BodyIdle.Std(),
		MaxHeaderBytes: int(limits.HeaderBytes),

		MaxHeaderFields: limits.HeaderFields,
		MaxURIBytes:     int(limits.URIBytes),
		BodyRate:        int64(limits.BodyRate),
		Lot:             l.worker.lot,
	})
	c.h2 = http2.NewFront(http2.FrontConfig{
		Handler:        c.serve,
		Log:            l.worker.log.With("listener", l.name),
		HeaderTimeout:  t.Header.Std(),
		IdleTimeout:    t.Idle.Std(),
		BodyIdle:       t.BodyIdle.Std(),
		MaxHeaderBytes: int(limits.HeaderBytes),
		Metrics:        l.worker.floods,

		MaxHeaderFields: limits.HeaderFields,
		MaxURIBytes:     int(limits.URIBytes),
		MaxStreams:      limits.Streams,
		BodyRate:        int64(limits.BodyRate),
	})
	return c
}

// dismiss ends what is idle, and asks the rest to go.
func (c *codec) dismiss() {
	c.h2.Drain()
	c.h1.CloseIdle()
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

// start accepts on the socket and, for as long as that goes on, at the door.
func (l *listener) start(r *run) {
	r.accepts.Go(func() {
		if l.door != nil {
			r.accepts.Go(func() { l.accept(r, l.door) })
			defer l.door.Close()
		}
		l.accept(r, l.socket)
	})
}

func (l *listener) close() {
	l.socket.Close()
	if l.door != nil {
		l.door.Close()
	}
}

// accept serves connections until the socket is closed.
func (l *listener) accept(r *run, socket net.Listener) {
	m := l.worker.metrics
	pause := time.Duration(0)
	for {
		conn, err := socket.Accept()
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
		if result := l.worker.admit(conn, l.face.Load().config); result != admitted {
			m.connections.WithLabelValues(l.name, result).Inc()
			continue
		}
		m.connections.WithLabelValues(l.name, admitted).Inc()
		r.tasks.Add(1)
		go l.serve(r, conn)
	}
}

// serve serves one connection until it ends, or is left to the lot. It is one of
// r's tasks, of which it takes its leave.
func (l *listener) serve(r *run, conn net.Conn) {
	w, f := l.worker, l.face.Load()
	open := w.metrics.open.WithLabelValues(l.name)
	open.Inc()
	f.codec.connections.Add(1)
	ended := func() {
		conn.Close()
		f.codec.connections.Add(-1)
		open.Dec()
		w.conns.remove(conn)
		r.tasks.Done()
	}

	info := &exchange.Conn{Client: unmap(conn.RemoteAddr()), Local: unmap(conn.LocalAddr())}
	ready, early, err := l.begin(r.ctx, cheap(conn), f, info)
	if err == nil {
		w.rtts.begun(conn, f.config.TrustedHops)
	}
	switch {
	case err != nil:
		w.log.Debug("connection did not come to a request", "listener", l.name, "client", info.Client, "error", err)
		ended()
	case !info.HTTP2:
		f.codec.h1.ServeConn(r.ctx, ready, early, info, ended)
	default:
		if len(early) > 0 {
			ready = &peeked{Conn: ready, head: early}
		}
		f.codec.h2.ServeConn(r.ctx, ready, info)
		ended()
	}
}

// cheap returns conn for reading and writing at less cost.
func cheap(conn net.Conn) net.Conn {
	if c, ok := conn.(*net.TCPConn); ok {
		if t, err := tcp.New(c); err == nil {
			return t
		}
	}
	return conn
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

// CloseWrite ends our direction, as [net.TCPConn.CloseWrite] does.
func (p *peeked) CloseWrite() error {
	half, ok := p.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// unmap returns an address of TCP or UDP with IPv4 in its own form.
func unmap(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
