package http1

import (
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"anyedge/pop/proxy/exchange"
)

// tunnel is a connection that left HTTP, to a client or an origin. It
// implements [exchange.Tunnel] and [exchange.Socket].
type tunnel struct {
	net   net.Conn
	tcp   *net.TCPConn // the socket below; nil if there is none
	in    *reader      // what was read ahead; used by Read only
	empty atomic.Bool  // nothing is left of it
	ended atomic.Bool  // CloseWrite went well
}

// NewTunnel makes a tunnel of a connection that no HTTP was spoken on. It takes
// the connection over. The tunnel is an [exchange.Socket] too.
func NewTunnel(nc net.Conn) exchange.Tunnel { return newTunnel(nc, new(reader)) }

func newTunnel(nc net.Conn, in *reader) *tunnel {
	t := &tunnel{net: nc, in: in}
	t.tcp, _ = socket(nc)
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

// Close implements [io.Closer]. Without a CloseWrite before, the other end sees
// a reset, and on TLS no closure alert: what it got is not complete.
func (t *tunnel) Close() error {
	if t.tcp != nil && !t.ended.Load() {
		t.tcp.SetLinger(0)
		t.tcp.Close()
	}
	return t.net.Close()
}

// CloseWrite implements [exchange.Tunnel].
func (t *tunnel) CloseWrite() error {
	half, ok := t.net.(interface{ CloseWrite() error })
	if !ok {
		return t.Close()
	}
	t.ended.Store(true) // before the other end can answer it
	err := half.CloseWrite()
	if err != nil {
		t.ended.Store(false)
	}
	return err
}

// TCP implements [exchange.Socket].
func (t *tunnel) TCP() *net.TCPConn {
	// Bytes in TLS records are not moved by the kernel.
	if _, secure := t.net.(interface{ NetConn() net.Conn }); secure || !t.empty.Load() {
		return nil
	}
	return t.tcp
}

// Reset implements [exchange.Socket]. After our own end it does not matter, and
// that may come while the state is asked for.
func (t *tunnel) Reset() bool {
	return t.tcp != nil && wasReset(t.tcp) && !t.ended.Load()
}

// wasReset reports whether a connection that looked as if the peer had ended its
// direction was reset, if we have not ended ours. The kernel tells of a reset
// once, and whoever writes may be told what the reader waits for: to the reader
// it is an orderly end then. The kernel's record of the connection's state tells
// everybody.
func wasReset(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	var info *unix.TCPInfo
	err = raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return err != nil || info == nil || info.State == unix.BPF_TCP_CLOSE
}
