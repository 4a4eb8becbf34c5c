package gslb

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// serveTCP accepts connections until ctx is done, and joins them. With a TLS
// config they are those of DNS over TLS (RFC 7858).
func (s *Server) serveTCP(ctx context.Context, listener *net.TCPListener, gate *gate, config *tls.Config) error {
	return s.accept(ctx, listener, gate, func(ctx context.Context, tcp *net.TCPConn, from netip.Addr) {
		var conn net.Conn = tcp
		if config != nil {
			conn = tls.Server(tcp, config)
		}
		s.serveConn(ctx, conn, from, config != nil)
	})
}

// accept hands connections to serve, each in a goroutine of its own, until ctx is
// done, and joins those.
func (s *Server) accept(ctx context.Context, listener *net.TCPListener, gate *gate, serve func(context.Context, *net.TCPConn, netip.Addr)) error {
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := listener.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, syscall.ECONNABORTED):
			continue
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			// Connections that end will make room; UDP goes on meanwhile.
			s.m.dropped.WithLabelValues(dropConnection).Inc()
			pause(ctx, 100*time.Millisecond)
			continue
		case err != nil:
			return err
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
		if !gate.enter(from) {
			s.m.dropped.WithLabelValues(dropConnection).Inc()
			conn.Close()
			continue
		}
		s.m.connections.Inc()
		conns.Go(func() {
			defer s.m.connections.Dec()
			defer gate.leave(from)
			serve(ctx, conn, from)
		})
	}
}

// pause waits, or returns early when ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// pipeline bounds the queries of one connection that are answered at a time.
const pipeline = 32

// serveConn answers the queries of a connection, encrypted if it is one of TLS,
// until it ends, goes idle, or ctx is done. Queries are answered as they come and
// answers sent as they are ready, so that a long one, such as a zone transfer,
// holds up no other (RFC 7766 section 6.2.1).
func (s *Server) serveConn(ctx context.Context, conn net.Conn, from netip.Addr, encrypted bool) {
	defer conn.Close()
	ctx, end := context.WithCancel(ctx)
	defer end()
	// mu keeps a later deadline from undoing the one that ends the connection.
	var mu sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	w := stream{conn: conn, timeout: s.cfg.IdleTimeout}
	room := make(chan struct{}, pipeline)
	var answers sync.WaitGroup
	defer answers.Wait()
	in := bufio.NewReaderSize(conn, 512) // most queries are far smaller, few larger
	for {
		mu.Lock()
		if ctx.Err() == nil {
			// One deadline for all of a query, so that it cannot come in drops.
			conn.SetReadDeadline(time.Now().Add(s.cfg.IdleTimeout))
		}
		mu.Unlock()
		var length [2]byte
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return
		}
		msg := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(in, msg); err != nil {
			return
		}
		room <- struct{}{}
		answers.Go(func() {
			defer func() { <-room }()
			req := request{msg: msg, from: from, tcp: true, encrypted: encrypted}
			if answer := s.answer(req, w.write); answer == nil {
				end() // who sends no queries has no use for a connection
			} else if err := w.write(answer); err != nil {
				s.m.dropped.WithLabelValues(dropWrite).Inc()
			}
		})
	}
}

// stream writes the messages of a connection, one whole after the other. Any
// number of goroutines may write.
type stream struct {
	conn    net.Conn
	timeout time.Duration

	mu     sync.Mutex
	failed error // of an earlier message, after which none can follow
}

func (w *stream) write(msg []byte) error {
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))), msg...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return w.failed
	}
	w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
	if _, w.failed = w.conn.Write(framed); w.failed != nil {
		w.conn.Close()
	}
	return w.failed
}

// gate bounds the connections, together and of each client address, so that one
// client cannot keep the others out.
type gate struct {
	max, maxEach int

	mu   sync.Mutex
	in   int
	each map[netip.Addr]int
}

func newGate(max int) *gate {
	return &gate{max: max, maxEach: (max + 7) / 8, each: make(map[netip.Addr]int)}
}

// enter reports whether there is room for one more. Clients are told apart by
// address, of IPv6 by the first 64 bits, because all of those are one client's.
func (g *gate) enter(from netip.Addr) bool {
	key := gateKey(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in >= g.max || g.each[key] >= g.maxEach {
		return false
	}
	g.in++
	g.each[key]++
	return true
}

func (g *gate) leave(from netip.Addr) {
	key := gateKey(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in--
	if g.each[key]--; g.each[key] == 0 {
		delete(g.each, key)
	}
}

func gateKey(from netip.Addr) netip.Addr {
	if from.Is6() {
		p, _ := from.Prefix(64)
		return p.Addr()
	}
	return from
}
