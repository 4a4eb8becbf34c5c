package gslb

import (
	"context"
	"net"
	"runtime"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// maxDatagram is more than any query has. What is longer is cut and then
// malformed.
const maxDatagram = 4096

// serveUDP answers what comes to a socket, until ctx is done.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	group, ctx := errgroup.WithContext(ctx)
	// A deadline and not Close ends the reads, so that answers can still be sent.
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error { return s.readUDP(ctx, conn) })
	}
	return group.Wait()
}

// readUDP is one of a socket's readers. It answers a query before it reads the
// next: nothing in an answer waits.
func (s *Server) readUDP(ctx context.Context, conn *net.UDPConn) error {
	buf := make([]byte, maxDatagram)
	for {
		n, session, err := dns.ReadFromSessionUDP(conn, buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		from := session.RemoteAddr().(*net.UDPAddr).AddrPort().Addr()
		answer := s.answer(buf[:n], from, false)
		if answer == nil {
			continue
		}
		if _, err := dns.WriteToSessionUDP(conn, answer, session); err != nil {
			s.m.dropped.WithLabelValues(dropWrite).Inc()
		}
	}
}
