// Package tcp reads and writes TCP sockets at less cost than package net.
//
// The scheduler of Go is told of each system call of package net, in case it
// blocks, and has a thread that looks for such calls all the time. The sockets
// of package net never block: a call that could not go on returns, and the
// network poller tells when to try again. So the calls here are raw ones, made
// through [syscall.RawConn], and nothing looks out for them. On a busy worker
// that is a tenth of the processor's time.
//
// # Concurrency
//
// One goroutine may read a [Conn] and another may write it at the same time, as
// crypto/tls and the codecs do. All other methods may be called by anybody at
// any time, as those of a [net.TCPConn].
package tcp

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a TCP connection.
type Conn struct {
	*net.TCPConn
	raw syscall.RawConn

	// The state of the present Read, and of the present Write.
	in   transfer
	out  transfer
	read func(fd uintptr) bool
	send func(fd uintptr) bool
}

// transfer is what system calls move, or have moved.
type transfer struct {
	p   []byte
	n   int
	err error
}

// New returns c for reading and writing at less cost. c is not to be read and
// written by itself at the same time.
func New(c *net.TCPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	t := &Conn{TCPConn: c, raw: raw}
	t.read, t.send = t.readFrom, t.sendTo
	return t, nil
}

// Raw returns the socket.
func (c *Conn) Raw() syscall.RawConn { return c.raw }

// Read implements [io.Reader].
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in = transfer{p: p}
	err := c.raw.Read(c.read)
	return c.got(err)
}

// got is the end of a Read.
func (c *Conn) got(err error) (int, error) {
	in := c.in
	c.in = transfer{}
	switch {
	case in.err != nil:
		return 0, c.failed("read", in.err)
	case err != nil:
		return 0, err
	case in.n == 0:
		return 0, io.EOF
	}
	return in.n, nil
}

func (c *Conn) readFrom(fd uintptr) bool {
	in := &c.in
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&in.p[0])), uintptr(len(in.p)), 0, 0, 0)
		switch errno {
		case 0:
			in.n = int(n)
			return true
		case syscall.EAGAIN:
			return false
		case syscall.EINTR:
		default:
			in.err = os.NewSyscallError("recvfrom", errno)
			return true
		}
	}
}

// Write implements [io.Writer].
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.out = transfer{p: p}
	err := c.raw.Write(c.send)
	out := c.out
	c.out = transfer{}
	if out.err != nil {
		err = c.failed("write", out.err)
	}
	return out.n, err
}

func (c *Conn) sendTo(fd uintptr) bool {
	out := &c.out
	for {
		n, errno := send(fd, out.p[out.n:])
		switch errno {
		case 0:
			if out.n += n; out.n == len(out.p) {
				return true
			}
		case syscall.EAGAIN:
			return false
		default:
			out.err = os.NewSyscallError("sendto", errno)
			return true
		}
	}
}

func send(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

// failed makes an error what package net would have made of it.
func (c *Conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
