package lab

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// relay plays the Internet for TCP: it takes connections to the anycast
// address and carries each to the PoP that the upstream router's best path
// names at that moment. The PoP sees the client's own source address.
//
// A connection stays with its PoP until it ends. On the real Internet a moved
// route moves live connections too; that is what draining in order is for.
type relay struct {
	listen netip.AddrPort
	port   uint16                    // of the PoPs' listeners
	best   func() (netip.Addr, bool) // next hop of the best path
	log    *slog.Logger

	served   atomic.Int64 // connections carried
	unrouted atomic.Int64 // connections closed for want of a route or an answer
}

// dialTimeout bounds the connection to a PoP.
const dialTimeout = 3 * time.Second

func (r *relay) String() string { return "relay " + r.listen.String() }

// Run serves until ctx ends, then cuts what is left.
func (r *relay) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", r.listen.String())
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what is carried ends with the relay, whatever ends it
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		wg.Go(func() { r.carry(ctx, c.(*net.TCPConn)) })
	}
}

// carry joins one client to its PoP.
func (r *relay) carry(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	hop, ok := r.best()
	if !ok {
		r.unrouted.Add(1)
		client.SetLinger(0) // as an ICMP unreachable would: fail at once
		return
	}
	d := net.Dialer{Timeout: dialTimeout}
	if source := client.RemoteAddr().(*net.TCPAddr); source.IP.IsLoopback() {
		d.LocalAddr = &net.TCPAddr{IP: source.IP}
	}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(hop, r.port).String())
	if err != nil {
		r.unrouted.Add(1)
		r.log.Debug("pop not reached", "next_hop", hop, "error", err)
		client.SetLinger(0)
		return
	}
	pop := c.(*net.TCPConn)
	defer pop.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); pop.Close() })()
	r.served.Add(1)

	var wg sync.WaitGroup
	wg.Go(func() { forward(pop, client) })
	wg.Go(func() { forward(client, pop) })
	wg.Wait()
}

// forward copies one direction and passes on how it ended: a clean end as a
// half-close, a reset as a reset.
func forward(dst, src *net.TCPConn) {
	_, err := io.Copy(dst, src)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		dst.SetLinger(0)
		src.SetLinger(0)
		dst.Close()
		src.Close()
		return
	}
	dst.CloseWrite()
}
