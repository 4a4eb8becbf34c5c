package http1

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
	"anyedge/pop/proxy/tcp"
)

// The states of a client's connection, for CloseIdle.
const (
	connBusy int32 = iota // reads or serves a request
	connIdle              // waits for one
	connGone              // is to end
)

const (
	// linger is how long an idle connection keeps its buffer, in case that the
	// next request comes soon.
	linger = time.Second
	// drainTimeout and drainBytes bound what is read of a connection that we
	// end while its client may still be sending. Closing it at once would make
	// a reset, which may destroy the answer on its way.
	drainTimeout = time.Second
	drainBytes   = 256 << 10
)

// conn is a client's connection. It is small, because many of them are idle:
// what a request needs is in a turn.
type conn struct {
	front *Front
	net   net.Conn
	tcp   *net.TCPConn    // the socket below; nil if there is none
	raw   syscall.RawConn // of tcp
	info  *exchange.Conn
	base  context.Context
	in    reader
	read  alarm
	write alarm
	ended func()
	state atomic.Int32
	began bool      // the first request has come
	spot  *tcp.Spot // guarded by front.mu; nil before the first time in the lot
}

func newConn(f *Front, nc net.Conn, info *exchange.Conn, base context.Context) *conn {
	c := &conn{
		front: f, net: nc, info: info, base: base,
		read: alarm{conn: nc}, write: alarm{conn: nc, write: true},
	}
	c.in.src = nc
	c.tcp, c.raw = socket(nc)
	return c
}

// socket returns the TCP socket below a connection; nil if there is none.
func socket(nc net.Conn) (*net.TCPConn, syscall.RawConn) {
	if secure, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = secure.NetConn()
	}
	switch c := nc.(type) {
	case *tcp.Conn:
		return c.TCPConn, c.Raw()
	case *net.TCPConn:
		if raw, err := c.SyscallConn(); err == nil {
			return c, raw
		}
	}
	return nil, nil
}

// serve serves requests until the connection is to end, or waits in the lot. came
// is nil if a request has begun.
func (c *conn) serve(came error) {
	for came == nil {
		t := turns.Get().(*turn)
		keep := t.serve(c)
		t.clean()
		turns.Put(t)
		if !keep {
			break
		}
		c.in.recycle()
		came = c.await()
	}
	if came != errParked { // else c may be served by another goroutine by now
		c.front.end(c)
	}
}

// resume goes on after the wait in the lot.
func (c *conn) resume(ready bool) {
	came := errGoing
	if ready {
		c.read.set(time.Now().Add(c.front.config.HeaderTimeout))
		came = c.fill()
	}
	c.serve(came)
}

var (
	errParked = errors.New("the connection waits in the lot")
	errGoing  = errors.New("the connection is to end")
)

// await waits for the first byte of the next request.
func (c *conn) await() error {
	if c.in.buffered() > 0 { // sent ahead
		if c.front.going.Load() && c.began {
			return errGoing
		}
		return nil
	}
	c.state.Store(connIdle)
	if c.front.going.Load() {
		return errGoing
	}
	wait := c.front.config.IdleTimeout
	if !c.began {
		wait = c.front.config.HeaderTimeout
	}
	now := time.Now()
	c.read.arm(now, min(linger, wait))
	err := c.fill()
	if !isTimeout(err) || c.state.Load() != connIdle {
		return err
	}
	c.in.release()
	if c.enterLot(wait) {
		return errParked
	}
	c.read.set(now.Add(wait))
	if c.state.Load() != connIdle { // CloseIdle may have come before
		return errGoing
	}
	if err := c.park(); err != nil {
		return err
	}
	return c.fill()
}

// fill reads the beginning of the next request.
func (c *conn) fill() error {
	err := c.in.fill()
	if err == nil && !c.state.CompareAndSwap(connIdle, connBusy) {
		err = errGoing
	}
	c.began = c.began || err == nil
	return err
}

// enterLot leaves c to the lot, if that takes it. Then c is not the caller's any
// more.
func (c *conn) enterLot(wait time.Duration) bool {
	lot := c.front.config.Lot
	if lot == nil || c.raw == nil {
		return false
	}
	c.front.mu.Lock()
	defer c.front.mu.Unlock()
	if c.state.Load() != connIdle { // CloseIdle came before
		return false
	}
	c.spot = lot.Park(c.raw, wait, c.resume)
	return c.spot != nil
}

// park waits until there is something to read, without memory to read it to.
func (c *conn) park() error {
	if c.raw == nil {
		return nil
	}
	return c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		for {
			_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
}

// head reads a request's head. The wait for its first byte is over.
func (c *conn) head() ([]byte, error) {
	limit := c.front.config.MaxHeaderBytes
	head, err := c.in.sectionAtHand(limit)
	if head == nil && err == nil {
		c.read.set(time.Now().Add(c.front.config.HeaderTimeout))
		head, err = c.in.section(limit)
	}
	if err == nil && len(head) == 2 {
		// One empty line before a request is forgiven (RFC 9112, 2.2).
		head, err = c.in.section(limit)
		if err == nil && len(head) == 2 {
			return nil, errNewline
		}
	}
	return head, err
}

// sinceSent returns how long ago something was sent to the client, by the
// kernel's record.
func (c *conn) sinceSent() time.Duration {
	var info *unix.TCPInfo
	c.raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if info == nil {
		return time.Hour
	}
	return time.Duration(info.Last_data_sent) * time.Millisecond
}

// drain ends a connection on which the client may still be sending.
func (c *conn) drain() {
	if half, ok := c.net.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	c.read.set(time.Now().Add(drainTimeout))
	b := buffers.Take(buffers.PieceSize)
	defer buffers.Give(b)
	for n := 0; n < drainBytes; {
		m, err := c.net.Read(b.Bytes)
		if err != nil {
			return
		}
		n += m
	}
}

// abort ends a connection in the middle of a message: on TLS without the
// closure alert. A message that the connection's end would complete needs a
// reset, which may destroy what is on its way.
func (c *conn) abort(reset bool) {
	if c.tcp == nil {
		c.net.Close()
		return
	}
	if reset {
		c.tcp.SetLinger(0)
	}
	c.tcp.Close()
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
