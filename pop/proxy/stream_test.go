package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/configs"
)

// Each piece of a body arrives before the next one is sent, both ways at once.
func TestStreaming(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		rc.Flush()
		buf := make([]byte, 64)
		for {
			n, err := r.Body.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(w, "echo %s", buf[:n])
			rc.Flush()
		}
	}))
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			pr, pw := io.Pipe()
			req, _ := http.NewRequest("POST", v.url, pr)
			res, err := e.client(v.listener, v.protocol).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			for i := range 5 {
				if _, err := fmt.Fprintf(pw, "ping %d", i); err != nil {
					t.Fatal(err)
				}
				want := fmt.Sprintf("echo ping %d", i)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
					t.Fatalf("got %q, %v, want %q", got, err, want)
				}
			}
			pw.Close()
			readAll(t, res.Body)
		})
	}
}

// A client that does not read holds the origin up instead of filling memory.
func TestBackpressure(t *testing.T) {
	const size = 256 << 20
	var written atomic.Int64
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		piece := make([]byte, 64<<10)
		for written.Load() < size {
			n, err := w.Write(piece)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	for _, v := range variants[:2] {
		t.Run(v.name, func(t *testing.T) {
			written.Store(0)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", v.url, nil)
			res, err := e.client(v.listener, v.protocol).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			// Whatever fits into sockets and buffers goes, then nothing does.
			last, since := written.Load(), time.Now()
			eventually(t, "the origin is held up", func() bool {
				if n := written.Load(); n != last {
					last, since = n, time.Now()
				}
				return time.Since(since) > 200*time.Millisecond
			})
			if last > size/4 {
				t.Errorf("the origin got rid of %d MiB while nobody read", last>>20)
			}
			if n, err := io.CopyN(io.Discard, res.Body, 32<<20); err != nil {
				t.Errorf("after %d bytes: %v", n, err)
			}
		})
	}
}

// A body that breaks off is never taken for complete.
func TestOriginDies(t *testing.T) {
	for framing, head := range map[string]string{
		"length":  "Content-Length: 1000\r\n\r\nhalf",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		die := make(chan struct{})
		e := newEdge(t, serveRaw(t, func(conn net.Conn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+head)
			<-die
		}))
		for _, v := range variants {
			t.Run(framing+" "+v.name, func(t *testing.T) {
				res, err := e.client(v.listener, v.protocol).Get(v.url)
				if err != nil {
					t.Fatal(err)
				}
				die <- struct{}{} // the client has the head
				defer res.Body.Close()
				if body, err := io.ReadAll(res.Body); err == nil {
					t.Errorf("the body %q ended as if complete", body)
				}
			})
		}
		if log := e.log.String(); strings.Count(log, "outcome=origin_aborted") != len(variants) {
			t.Errorf("%s: outcomes are not all origin_aborted", framing)
		}
	}
}

func TestOriginStallsInBody(t *testing.T) {
	e := newEdge(t, serveRaw(t, func(conn net.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
		io.Copy(io.Discard, r) // until the worker gives up
	}))
	e.mustApply(func(s *Snapshot) { s.Pools[0].Config.IdleTimeout = configs.Duration(50 * time.Millisecond) })
	for _, v := range variants[:2] {
		res, err := e.client(v.listener, v.protocol).Get(v.url)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%s: the body %q ended as if complete", v.name, body)
		}
		res.Body.Close()
	}
	if !strings.Contains(e.log.String(), "outcome=origin_aborted") {
		t.Error("outcome is not origin_aborted")
	}
}

// A client that goes away takes its request to the origin with it.
func TestClientCancels(t *testing.T) {
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
		}
		began <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	}))
	for _, path := range []string{"/head", "/body"} {
		for _, v := range variants {
			t.Run(v.name+path, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				req, _ := http.NewRequestWithContext(ctx, "GET", v.url+path, nil)
				failed := make(chan error, 1)
				go func() {
					res, err := e.client(v.listener, v.protocol).Do(req)
					if err == nil {
						defer res.Body.Close()
						_, err = io.ReadAll(res.Body)
					}
					failed <- err
				}()
				await(t, "request at origin", began)
				cancel()
				await(t, "end of request at origin", ended)
				if err := await(t, "end at client", failed); !errors.Is(err, context.Canceled) {
					t.Errorf("client: %v", err)
				}
			})
		}
	}
	eventually(t, "outcomes are recorded", func() bool {
		return strings.Count(e.log.String(), "outcome=client_gone") == 2*len(variants)
	})
}

// A client that neither reads nor leaves is cut off.
func TestClientStallsReading(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, zeros{})
	}))
	e.mustApply(func(s *Snapshot) {
		for i := range s.Listeners {
			s.Listeners[i].Timeouts.BodyIdle = configs.Duration(100 * time.Millisecond)
		}
	})
	for _, v := range variants[:2] {
		res, err := e.client(v.listener, v.protocol).Get(v.url)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
	eventually(t, "both were cut off", func() bool { return strings.Count(e.log.String(), "outcome=client_gone") == 2 })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// An answer that comes before the request's body is whole reaches the client,
// and nothing of the body is taken for the next request.
func TestEarlyAnswer(t *testing.T) {
	e := newEdge(t, serveRaw(t, func(conn net.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull")
	}))
	c := e.dial(clear1)
	c.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 100000\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	res := c.receive("POST")
	if body := readAll(t, res.Body); res.StatusCode != 413 || body != "full" || !res.Close {
		t.Errorf("%d %q, close %v", res.StatusCode, body, res.Close)
	}
	if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
		t.Errorf("after the answer came %q", rest)
	}
	if strings.Contains(e.log.String(), "smuggled") {
		t.Error("the body became a request")
	}
}

// The last response of a connection arrives whole, also when the client has
// sent more that nobody reads.
func TestLastResponseArrivesWhole(t *testing.T) {
	const size = 1 << 20
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(bytes.Repeat([]byte("x"), size))
	}))
	c := e.dial(clear1)
	c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	c.get("/")
	e.worker.Drain()
	c.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n" +
		"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("y", 100000))
	res := c.receive("GET")
	if !res.Close {
		t.Error("the response is not said to be the last")
	}
	// The worker has sent all it could by the time that the client reads on.
	eventually(t, "the exchange is over", func() bool { return e.worker.Vitals().InFlight == 0 })
	if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
		t.Errorf("%d of %d bytes came, then %v", n, size, err)
	}
}
