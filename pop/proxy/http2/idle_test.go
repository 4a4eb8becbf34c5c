//go:build !race

package http2

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// maxIdle is what a parked connection in clear text may hold, in bytes: both
// sockets, the goroutine that waits, and an HPACK table with a browser's fields.
const maxIdle = 16 << 10

// What connections hold on which a few requests were served some time ago.
func TestIdleMemory(t *testing.T) {
	for _, test := range []struct {
		name   string
		secure bool
	}{{"clear", false}, {"TLS", true}} {
		t.Run(test.name, func(t *testing.T) {
			const conns = 200
			closeAll(idleConns(t, conns, test.secure)) // leaves the runtime with all goroutines it needs
			time.Sleep(2 * linger)
			before := footprint()
			clients := idleConns(t, conns, test.secure)
			n := (footprint() - before) / conns
			t.Logf("%d bytes for each idle connection", n)
			if !test.secure && n > maxIdle {
				t.Errorf("%d bytes for each idle connection, want %d at most", n, maxIdle)
			}
			runtime.KeepAlive(clients)
		})
	}
}

// footprint is what the process holds after all garbage is gone, and stacks have
// shrunk.
func footprint() int64 {
	var m runtime.MemStats
	for range 4 {
		debug.FreeOSMemory()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// idleConns serves n connections that become idle, and returns the clients' ends.
func idleConns(t *testing.T, n int, secure bool) []net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := NewFront(config(testServer))
	certificate, pool := certificate()
	var tasks sync.WaitGroup
	clients := make([]net.Conn, n)
	t.Cleanup(func() {
		l.Close()
		closeAll(clients)
		tasks.Wait()
	})
	for i := range clients {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = nc
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		tasks.Go(func() {
			info := &exchange.Conn{HTTP2: true}
			if secure {
				server := tls.Server(accepted, certificate)
				// As the listener does: a front reads with deadlines of its own.
				if server.Handshake() != nil {
					return // which the client sees
				}
				accepted = server
			}
			front.ServeConn(context.Background(), accepted, info)
		})
		if secure {
			nc = tls.Client(nc, &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h2"}})
		}
		browse(t, nc)
	}
	for buffers.Lent() > 0 || working(front) {
		time.Sleep(10 * time.Millisecond)
	}
	return clients
}

func closeAll(clients []net.Conn) {
	for _, nc := range clients {
		if nc != nil {
			nc.Close()
		}
	}
}

// working reports whether connections keep goroutines for their next requests.
func working(front *Front) bool {
	for _, c := range front.open() {
		c.mu.Lock()
		n := len(c.parked) + c.active
		c.mu.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}

// browse makes requests with the fields of a browser, one after the other.
func browse(t *testing.T, nc net.Conn) {
	p := &peer{nc: nc, framer: h2.NewFramer(nc, nc)}
	p.hpack = hpack.NewEncoder(&p.block)
	io.WriteString(nc, h2.ClientPreface)
	p.framer.WriteSettings()
	for id := uint32(1); id < 10; id += 2 {
		p.request(id, "/bytes?1000", true,
			"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
			"accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
			"accept-language", "en-US,en;q=0.5", "accept-encoding", "gzip, deflate, br, zstd")
		for ended := false; !ended; {
			f, err := p.framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			ended = f.Header().Type == h2.FrameData && f.Header().Flags.Has(h2.FlagDataEndStream)
		}
	}
}
