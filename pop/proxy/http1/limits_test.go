package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/pop/proxy/exchange"
)

// A body of declared length is held to a pace over the time in which its sender
// is waited for.
func TestBodyRate(t *testing.T) {
	const second = time.Second
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d", n) }
	for _, tt := range []struct {
		name    string
		framing string
		pieces  int // of the body
		size    int // of each; the rate is 1000
		pause   time.Duration
		consume time.Duration // by the handler, behind each Read
		slow    bool
		took    time.Duration // at the handler's last Read; an eighth more is as good
	}{
		{"fast enough", length(20_000), 20, 1000, 990 * time.Millisecond, 0, false, 19_800 * time.Millisecond},
		{"too slow", length(20_000), 40, 500, second, 0, true, 9 * second}, // 4500 bytes until 5 + 4.5 s
		{"silent", length(20_000), 1, 20_000, 60 * second, 0, true, 5 * second},
		{"in a lump, in time", length(20_000), 1, 20_000, 4900 * time.Millisecond, 0, false, 4900 * time.Millisecond},
		{"in lumps", length(60_000), 3, 20_000, 20 * second, 0, true, 5 * second},
		{"in lumps, in time", length(60_000), 12, 5000, 4900 * time.Millisecond, 0, false, 58_800 * time.Millisecond},
		{"silent behind a lump", length(20_000), 1, 10_000, 0, 0, true, 15 * second},
		{"slow because of the handler", length(20_000), 20, 1000, 500 * time.Millisecond, 10 * second, false, 0},
		{"of no declared length", "Transfer-Encoding: chunked", 20, 0, 20 * second, 0, false, 400 * second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got int
				var err error
				var took time.Duration
				config := testConfig(func(_ context.Context, x *exchange.Exchange) {
					began := time.Now()
					for buf := make([]byte, 32<<10); err == nil; {
						var n int
						n, err = x.Request.Body.Read(buf)
						got += n
						took = time.Since(began)
						time.Sleep(tt.consume)
					}
					answer(x, 200, "")
				})
				config.BodyIdle = 30 * second
				ours, theirs := net.Pipe()
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					io.WriteString(theirs, "POST / HTTP/1.1\r\nHost: a\r\n"+tt.framing+"\r\n\r\n")
					for range tt.pieces {
						time.Sleep(tt.pause)
						if tt.size == 0 {
							io.WriteString(theirs, "1\r\nx\r\n")
						} else {
							io.WriteString(theirs, strings.Repeat("x", tt.size))
						}
					}
					if tt.size == 0 {
						io.WriteString(theirs, "0\r\n\r\n")
					}
				}()
				go io.Copy(io.Discard, theirs)
				NewFront(config).ServeConn(t.Context(), ours, nil, &exchange.Conn{}, func() {})
				theirs.Close()
				<-gone
				want := io.EOF
				if tt.slow {
					want = os.ErrDeadlineExceeded
				}
				if !errors.Is(err, want) || took < tt.took || tt.took > 0 && took > tt.took+tt.took/8 {
					t.Errorf("%d bytes and %v after %s, want %v after %s", got, err, took, want, tt.took)
				}
			})
		})
	}
}

// CONNECT becomes a tunnel, from the first byte behind its head.
func TestConnect(t *testing.T) {
	for _, tt := range []struct{ request, authority, answer string }{
		{"CONNECT b.example:443 HTTP/1.1\r\nHost: a\r\n\r\n", "b.example:443", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n"},
		{"CONNECT [2001:db8::1]:65535 HTTP/1.1\r\nHost: [2001:db8::1]:65535\r\nConnection: close\r\n\r\n", "[2001:db8::1]:65535", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n"},
		{"CONNECT 192.0.2.1:1 HTTP/1.0\r\n\r\n", "192.0.2.1:1", "HTTP/1.0 200 OK\r\nX: y\r\n\r\n"},
	} {
		c := serveOne(t, func(_ context.Context, x *exchange.Exchange) {
			if r := x.Request; x.Refusal.Status != 0 || r.Method != "CONNECT" || r.Authority != tt.authority || r.Path != "" || r.Body != nil || r.Upgrade != "" {
				t.Errorf("%q became %+v, refusal %v", tt.request, r, x.Refusal)
			}
			tunnel, err := x.Client.Upgrade(exchange.Fields{{Name: "X", Value: "y"}})
			if err != nil {
				t.Error(err)
				return
			}
			defer tunnel.Close()
			io.Copy(tunnel, tunnel)
			io.WriteString(tunnel, " end")
		}, nil)
		// What looks like a request is not one any more.
		sent := "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
		c.send(tt.request + sent)
		if head := readHead(c.r); head != tt.answer {
			t.Errorf("answer %q, want %q", head, tt.answer)
		}
		c.send("more")
		c.CloseWrite()
		if got, err := io.ReadAll(c.r); string(got) != sent+"more end" {
			t.Errorf("the tunnel gave %q, %v", got, err)
		}
	}
}

// A CONNECT that is answered otherwise ends the connection: what follows it was
// meant for the tunnel.
func TestConnectRefused(t *testing.T) {
	got := serveOne(t, func(_ context.Context, x *exchange.Exchange) { answer(x, 501, "no") }, nil).
		all("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n" + strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 2000))
	if !strings.HasPrefix(got, "HTTP/1.1 501 ") || !strings.Contains(got, "Connection: close\r\n") || strings.Count(got, "HTTP/1.1") != 1 {
		t.Errorf("answer %q", got)
	}
}

// A head that can never become one is refused although its end has not come.
func TestHopelessHead(t *testing.T) {
	for _, start := range []string{"\x16\x03\x01\x02", "junk\x00", "GET / HTTP/1.1\r\nHost: a\r\n\r ", "GET / HTTP/1.1\r\nX: a\rb", "GET / HTTP/1.1\r\nX: \x01\r\nY: b"} {
		for _, first := range []string{"", "GET /first HTTP/1.1\r\nHost: a\r\n\r\n"} {
			c := serveOne(t, echo, func(f *FrontConfig) { f.HeaderTimeout, f.IdleTimeout = time.Hour, time.Hour })
			c.SetNoDelay(true)
			c.send(first)
			for i := range start {
				c.send(start[i : i+1])
			}
			got := c.all("") // fails if the connection stays open
			if strings.Count(got, "HTTP/1.1 400 ") != 1 || !strings.HasSuffix(got, "a control character") {
				t.Errorf("%q behind %q: answer %q", start, first, got)
			}
		}
	}
	c := serveOne(t, echo, nil)
	c.SetNoDelay(true)
	c.send("GET / HTTP/1.1\r")
	time.Sleep(20 * time.Millisecond) // so that the line feed comes alone
	c.send("\nHost: a\r\nX:\t\xff\r\nConnection: close\r")
	time.Sleep(20 * time.Millisecond)
	if got := c.all("\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("a head in pieces: answer %q", got)
	}
}
