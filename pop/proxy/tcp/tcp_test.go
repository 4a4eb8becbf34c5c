package tcp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair returns the two ends of a connection.
func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	c, err := New(near.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	// No test waits for ever.
	for _, end := range []net.Conn{c, far} {
		if err := end.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return c, far.(*net.TCPConn)
}

// Bytes arrive whole and in order, also when the kernel takes a few at a time
// and the other end is slow.
func TestReadAndWrite(t *testing.T) {
	c, far := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(far, far) // an echo
		done <- errors.Join(err, far.CloseWrite())
	}()
	go func() {
		n, err := c.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		done <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes, %v, want %d as they were sent", len(got), err, len(sent))
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(c *Conn, far *net.TCPConn) error
		do    func(c *Conn) (int, error)
		want  error
	}{
		{"read after the end", func(_ *Conn, far *net.TCPConn) error { return far.Close() }, read, io.EOF},
		{"read past the deadline", func(c *Conn, _ *net.TCPConn) error { return c.SetReadDeadline(time.Unix(1, 0)) }, read, os.ErrDeadlineExceeded},
		{"write past the deadline", func(c *Conn, _ *net.TCPConn) error { return c.SetWriteDeadline(time.Unix(1, 0)) }, write, os.ErrDeadlineExceeded},
		{"read of a closed one", func(c *Conn, _ *net.TCPConn) error { return c.Close() }, read, net.ErrClosed},
		{"write to a closed one", func(c *Conn, _ *net.TCPConn) error { return c.Close() }, write, net.ErrClosed},
		{"read after a reset", reset, read, syscall.ECONNRESET},
		{"write to an ended direction", func(c *Conn, _ *net.TCPConn) error { return c.CloseWrite() }, write, syscall.EPIPE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, far := pair(t)
			if err := tt.spoil(c, far); err != nil {
				t.Fatal(err)
			}
			n, err := tt.do(c)
			if n != 0 || !errors.Is(err, tt.want) {
				t.Errorf("%d, %v, want 0, %v", n, err, tt.want)
			}
			// Callers such as crypto/tls ask whether an error is of the network.
			if _, ok := errors.AsType[net.Error](err); !ok && tt.want != io.EOF {
				t.Errorf("%v is no net.Error", err)
			}
		})
	}
}

func read(c *Conn) (int, error)  { return c.Read(make([]byte, 10)) }
func write(c *Conn) (int, error) { return c.Write(make([]byte, 10)) }

func reset(_ *Conn, far *net.TCPConn) error {
	return errors.Join(far.SetLinger(0), far.Close())
}

func TestEmptyReadAndWriteDoNothing(t *testing.T) {
	c, _ := pair(t)
	for _, do := range []func([]byte) (int, error){c.Read, c.Write} {
		if n, err := do(nil); n != 0 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
}

func TestReadAndWriteAllocateNothing(t *testing.T) {
	c, far := pair(t)
	b := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := far.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
