package http1

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// A head must be whole in time, however slowly it trickles.
func TestSlowHead(t *testing.T) {
	c := serveOne(t, echo, func(f *FrontConfig) { f.HeaderTimeout = 100 * time.Millisecond })
	c.SetNoDelay(true)
	go func() {
		for _, b := range []byte("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 1000)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond) // the pace is the point
		}
	}()
	began := time.Now()
	if got := c.all(""); !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, "Connection: close") {
		t.Errorf("answer %q", got)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
}

// A connection on which nothing comes is closed without a word, and one that
// is idle holds no memory.
func TestIdleConnection(t *testing.T) {
	c := serveOne(t, echo, func(f *FrontConfig) { f.IdleTimeout = linger + 500*time.Millisecond })
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	readHead(c.r)
	io.ReadFull(c.r, make([]byte, len("GET a /\n")))
	began := time.Now()
	lent := func(want int64) {
		t.Helper()
		for buffers.Lent() != want && time.Since(began) < linger+400*time.Millisecond {
			time.Sleep(5 * time.Millisecond)
		}
		if n := buffers.Lent(); n != want {
			t.Errorf("%d bytes of buffers after %s, want %d", n, time.Since(began), want)
		}
	}
	lent(buffers.HeadSize) // right behind a request another one may come
	lent(0)
	if took := time.Since(began); took < linger/2 {
		t.Errorf("the buffer was given back after %s: most next requests would take one anew", took)
	}
	if got := c.all(""); got != "" {
		t.Errorf("at the end came %q", got)
	}
	if got := serveOne(t, echo, func(f *FrontConfig) { f.HeaderTimeout = 50 * time.Millisecond }).all(""); got != "" {
		t.Errorf("a new connection got %q", got)
	}
}

func TestCloseIdle(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	c := serveOne(t, func(ctx context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/slow" {
			close(began)
			<-release
		}
		echo(ctx, x)
	}, nil)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	c.front.CloseIdle() // this one is not
	close(release)
	if got := c.all(""); !strings.HasSuffix(got, "GET a /slow\n") || strings.Count(got, "Connection: close\r\n") != 1 {
		t.Errorf("got %q", got)
	}

	c = serveOne(t, echo, nil)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	readHead(c.r)
	io.ReadFull(c.r, make([]byte, len("GET a /\n")))
	c.front.CloseIdle()
	if got := c.all(""); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestExpect(t *testing.T) {
	c := serveOne(t, echo, nil)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
	if head := readHead(c.r); head != "HTTP/1.1 100 Continue\r\n\r\n" {
		t.Fatalf("got %q", head)
	}
	c.send("ok")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "POST a /\nExpect: 100-Continue\n[ok]" {
		t.Errorf("got %q", body)
	}

	refusing := serveOne(t, func(_ context.Context, x *exchange.Exchange) { answer(x, 403, "no") }, nil)
	got := refusing.all("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("got %q", got)
	}

	old := serveOne(t, echo, nil).all("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok")
	if !strings.HasSuffix(old, "POST a /\n[ok]") {
		t.Errorf("got %q", old)
	}
}

// A message that breaks off is never complete, even where its end is that of
// the connection.
func TestBrokenResponse(t *testing.T) {
	for request, length := range map[string]int64{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n": -1,
		"GET / HTTP/1.1\r\nHost: b\r\n\r\n": 100,
		"GET / HTTP/1.0\r\n\r\n":            -1,
	} {
		c := serveOne(t, func(_ context.Context, x *exchange.Exchange) {
			body := io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{}))
			if x.Client.Respond(&exchange.Response{Status: 200, Length: length, Body: body}) == nil {
				t.Error("Respond returned no error")
			}
		}, nil)
		c.send(request)
		res, err := http.ReadResponse(c.r, nil)
		if err == nil {
			_, err = io.ReadAll(res.Body)
		}
		if err == nil {
			t.Errorf("%q: the response ended as if complete", request)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// The context ends when the client hangs up, and only when somebody asked.
func TestHangup(t *testing.T) {
	ended := make(chan error, 1)
	c := serveOne(t, func(ctx context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/first" {
			ctx.Done() // asked, and not hung up
			answer(x, 200, "")
			return
		}
		<-ctx.Done()
		ended <- context.Cause(ctx)
	}, nil)
	c.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\nGET /ahead HTTP/1.1\r\n")
	readHead(c.r)
	select {
	case err := <-ended:
		t.Fatalf("ended too early: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	c.SetLinger(0) // makes a reset; TestHalfClose has the rest
	c.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the context does not end")
	}
}

// A client that has ended its sending direction gets its answer for as long as
// something is sent to it every now and then.
func TestHalfClose(t *testing.T) {
	t.Run("and answered", func(t *testing.T) {
		t.Parallel()
		c := serveOne(t, func(ctx context.Context, x *exchange.Exchange) {
			r, w := io.Pipe()
			defer r.Close()
			go func() {
				for range 4 { // in all, longer than silence is put up with
					select {
					case <-ctx.Done():
					case <-time.After(halfClosed / 3):
					}
					io.WriteString(w, "x")
				}
				w.CloseWithError(ctx.Err())
			}()
			if err := x.Client.Respond(&exchange.Response{Status: 200, Length: 4, Body: r}); err != nil || ctx.Err() != nil {
				t.Errorf("%v; the context ended: %v", err, ctx.Err())
			}
		}, nil)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.CloseWrite()
		if got, err := io.ReadAll(c.r); !strings.HasSuffix(string(got), "\r\n\r\nxxxx") || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("and left", func(t *testing.T) {
		t.Parallel()
		took := make(chan time.Duration, 1)
		c := serveOne(t, func(ctx context.Context, _ *exchange.Exchange) {
			began := time.Now()
			<-ctx.Done()
			took <- time.Since(began)
		}, nil)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.CloseWrite()
		if got, _ := io.ReadAll(c.r); len(got) > 0 {
			t.Errorf("got %q", got)
		}
		if d := <-took; d < halfClosed-100*time.Millisecond {
			t.Errorf("the context ended after %s", d)
		}
	})
	t.Run("and reset", func(t *testing.T) {
		t.Parallel()
		began, took := make(chan struct{}), make(chan time.Duration, 1)
		c := serveOne(t, func(ctx context.Context, x *exchange.Exchange) {
			x.Client.Inform(103, nil) // meets a connection that is closed
			begun := time.Now()
			close(began)
			<-ctx.Done()
			took <- time.Since(begun)
		}, nil)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.Close()
		<-began
		if d := <-took; d > halfClosed/2 {
			t.Errorf("the context ended only after %s", d)
		}
	})
}
