package gslb

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// serveTCP accepts connections until ctx is done, and joins them.
func (s *Server) serveTCP(ctx context.Context, listener *net.TCPListener, gate *gate) error {
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
			s.serveConn(ctx, conn, from)
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

// serveConn answers the queries of a connection, one after the other (RFC 7766
// section 6.2.1), until it ends, goes idle, or ctx is done.
func (s *Server) serveConn(ctx context.Context, conn *net.TCPConn, from netip.Addr) {
	defer conn.Close()
	// mu keeps a later deadline from undoing the one that ends the connection.
	var mu sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	buf := make([]byte, 512) // most queries are far smaller, few larger
	for {
		mu.Lock()
		if ctx.Err() == nil {
			// One deadline for all of a query, so that it cannot come in drops.
			conn.SetReadDeadline(time.Now().Add(s.cfg.IdleTimeout))
		}
		mu.Unlock()
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint16(buf))
		msg := slices.Grow(buf[:0], length)[:length]
		if _, err := io.ReadFull(conn, msg); err != nil {
			return
		}
		answer := s.answer(msg, from)
		if answer == nil {
			return // who sends no queries has no use for a connection
		}
		framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer))), answer...)
		conn.SetWriteDeadline(time.Now().Add(s.cfg.IdleTimeout))
		if _, err := conn.Write(framed); err != nil {
			s.m.dropped.WithLabelValues(dropWrite).Inc()
			return
		}
	}
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
