package http1

import (
	"net"
	"sync/atomic"

	"anyedge/pop/proxy/tcp"
)

// tunnel is a connection that left HTTP, to a client or an origin. It
// implements [exchange.Tunnel] and [exchange.Socket].
type tunnel struct {
	net   net.Conn
	in    *reader     // what was read ahead; used by Read only
	empty atomic.Bool // nothing is left of it
}

func newTunnel(nc net.Conn, in *reader) *tunnel {
	t := &tunnel{net: nc, in: in}
	t.empty.Store(in.buffered() == 0)
	return t
}

// Read implements [io.Reader].
func (t *tunnel) Read(p []byte) (int, error) {
	if t.empty.Load() {
		return t.net.Read(p)
	}
	n := t.in.take(p)
	t.empty.Store(t.in.buffered() == 0)
	return n, nil
}

// Write implements [io.Writer].
func (t *tunnel) Write(p []byte) (int, error) { return t.net.Write(p) }

// Close implements [io.Closer].
func (t *tunnel) Close() error { return t.net.Close() }

// CloseWrite implements [exchange.Tunnel].
func (t *tunnel) CloseWrite() error {
	if half, ok := t.net.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return t.Close()
}

// TCP implements [exchange.Socket].
func (t *tunnel) TCP() *net.TCPConn {
	if !t.empty.Load() {
		return nil
	}
	switch c := t.net.(type) {
	case *tcp.Conn:
		return c.TCPConn
	case *net.TCPConn:
		return c
	}
	return nil
}
