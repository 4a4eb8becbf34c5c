//go:build !race

package proxy

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// keptRequest and keptResponse are like what browsers and origins send.
const (
	keptRequest = "GET /a/path?with=query HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test/1.0\r\nAccept: text/html\r\n" +
		"Accept-Encoding: gzip, br\r\nCookie: session=0123456789\r\n\r\n"
	keptResponse = "HTTP/1.1 200 OK\r\nServer: test\r\nDate: Sun, 01 Nov 2026 00:00:00 GMT\r\nContent-Type: text/html\r\n" +
		"Content-Length: 5\r\nETag: \"x\"\r\n\r\nhello"
)

// serveKept starts an origin that answers every piece it reads.
func serveKept(t testing.TB) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					conn.Write(keptAnswer)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		tasks.Wait()
	})
	return unmap(l.Addr())
}

var keptBytes, keptAnswer = []byte(keptRequest), []byte(keptResponse)

// kept is a client's connection to an edge whose origin makes no garbage.
type kept struct {
	conn net.Conn
	buf  []byte
	n    int // bytes of one response
}

func newKept(t testing.TB) *kept {
	e := newEdge(t, serveKept(t))
	e.mustApply(func(s *Snapshot) { s.LogRequests = false })
	k := &kept{conn: e.dial(clear1).Conn, buf: make([]byte, 4096)}
	k.conn.SetDeadline(time.Time{})
	io.WriteString(k.conn, keptRequest)
	for !bytes.HasSuffix(k.buf[:k.n], []byte("hello")) {
		n, err := k.conn.Read(k.buf[k.n:])
		if err != nil {
			t.Fatal(err)
		}
		k.n += n
	}
	return k
}

// get makes one request.
func (k *kept) get(t testing.TB) {
	if _, err := k.conn.Write(keptBytes); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(k.conn, k.buf[:k.n]); err != nil {
		t.Fatal(err)
	}
}

// The race detector makes pools forget at random, hence the build constraint.
//
// A request on kept connections to client and origin makes no garbage.
func TestKeptRequestAllocatesNothing(t *testing.T) {
	k := newKept(t)
	for range 100 {
		k.get(t)
	}
	if n := testing.AllocsPerRun(2000, func() { k.get(t) }); n > 0 {
		t.Errorf("%v allocations per request, want none", n)
	}
}

func BenchmarkKept(b *testing.B) {
	k := newKept(b)
	b.ReportAllocs()
	for b.Loop() {
		k.get(b)
	}
}
