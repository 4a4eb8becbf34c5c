package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"anyedge/pop/proxy/exchange"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestConnectionsAreKept(t *testing.T) {
	o := newOrigin(t, func(_ int64, conn *net.TCPConn, r *bufio.Reader) {
		for readHead(r) != "" {
			io.WriteString(conn, ok)
		}
	})
	for range 3 {
		if _, body, err := o.do(t, &exchange.Request{}); err != nil || body != "ok" {
			t.Fatal(body, err)
		}
	}
	if n := o.dials.Load(); n != 1 {
		t.Errorf("%d connections for three requests", n)
	}
	o.back.CloseIdle()
	if _, body, err := o.do(t, &exchange.Request{}); err != nil || body != "ok" || o.dials.Load() != 2 {
		t.Errorf("after CloseIdle: %q, %v, %d connections", body, err, o.dials.Load())
	}
}

// A kept connection on which the origin gives up at the next request is
// replaced, if the request can be repeated.
func TestStaleConnection(t *testing.T) {
	body := func() io.ReadCloser { return io.NopCloser(strings.NewReader("x")) }
	expect := exchange.Fields{{Name: "Expect", Value: "100-continue"}}
	for _, tt := range []struct {
		name    string
		request exchange.Request
		partial string // what the origin still sends
		want    bool
	}{
		{"GET", exchange.Request{}, "", true},
		{"DELETE", exchange.Request{Method: "DELETE"}, "", true},
		{"POST", exchange.Request{Method: "POST"}, "", false},
		{"GET with a body that is gone", exchange.Request{Body: body(), Length: 1, Ready: 1}, "", false},
		{"GET half answered", exchange.Request{}, "HTTP/1.1 ", false},
		{"PUT whose body waits", exchange.Request{Method: "PUT", Body: body(), Length: 1, Fields: expect}, "", true},
		{"POST whose body waits", exchange.Request{Method: "POST", Body: body(), Length: 1, Fields: expect}, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOrigin(t, func(n int64, conn *net.TCPConn, r *bufio.Reader) {
				readHead(r)
				io.WriteString(conn, ok)
				if readHead(r); n == 1 {
					io.WriteString(conn, tt.partial)
					return
				}
				io.WriteString(conn, ok)
			})
			o.do(t, &exchange.Request{})
			began := time.Now()
			_, body, err := o.do(t, &tt.request)
			if took := time.Since(began); took > continueTimeout/2 {
				t.Errorf("it took %s: a body that is not asked for any more was waited for", took)
			}
			if unanswered := errors.Is(err, exchange.ErrUnanswered); unanswered != (!tt.want && tt.partial == "") {
				t.Errorf("ErrUnanswered %t: %v", unanswered, err)
			}
			if (err == nil) != tt.want || tt.want && (body != "ok" || o.dials.Load() != 2) {
				t.Errorf("%q, %v, %d connections", body, err, o.dials.Load())
			}
		})
	}
}

// A reset that the sending of the request's body was told of is no end of a
// response that ends with the connection.
func TestResetIsNoEnd(t *testing.T) {
	reset := make(chan struct{})
	o := newOrigin(t, func(_ int64, conn *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\npart")
		r.ReadByte()
		conn.SetLinger(0)
		conn.Close()
		close(reset)
	})
	body, pieces := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(pieces, "first")
		<-reset
		io.WriteString(pieces, "second")
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := o.back.RoundTrip(ctx, originAddress, &exchange.Request{Method: "POST", Path: "/", Body: body, Length: -1}, func(int, exchange.Fields) {})
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, 4)
	if _, err := io.ReadFull(res.Body, part); err != nil || string(part) != "part" {
		t.Fatalf("%q, %v", part, err)
	}
	<-res.Body.(*trip).upload.done
	if n, err := res.Body.Read(part); err == nil || err == io.EOF {
		t.Errorf("after the reset: %d bytes, %v", n, err)
	}
	res.Body.Close()
	<-sent
}

// The origin's silence is bounded, the client's is not its fault.
func TestWaits(t *testing.T) {
	silent := func(_ int64, _ *net.TCPConn, r *bufio.Reader) { io.Copy(io.Discard, r) }
	half := func(_ int64, conn *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nx")
		io.Copy(io.Discard, r)
	}
	for name, tt := range map[string]struct {
		handle     func(int64, *net.TCPConn, *bufio.Reader)
		head, body time.Duration
	}{
		"head": {silent, 50 * time.Millisecond, patience},
		"body": {half, patience, 50 * time.Millisecond},
	} {
		o := newOrigin(t, tt.handle)
		began := time.Now()
		_, _, err := o.do(t, &exchange.Request{HeadWait: tt.head, BodyWait: tt.body})
		if !errors.Is(err, exchange.ErrSlow) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took < 50*time.Millisecond || took > patience/2 {
			t.Errorf("%s: gave up after %s", name, took)
		}
	}

	o := newOrigin(t, func(_ int64, conn *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.ReadFull(r, make([]byte, 5))
		io.WriteString(conn, ok)
	})
	r := &exchange.Request{Method: "POST", Length: 5, Body: io.NopCloser(&slow{pieces: 5, pause: 60 * time.Millisecond}), HeadWait: 100 * time.Millisecond, BodyWait: patience}
	if _, body, err := o.do(t, r); err != nil || body != "ok" {
		t.Errorf("slow client: %q, %v", body, err)
	}
}

// An origin that does not even take the head is as silent.
func TestWaitToSend(t *testing.T) {
	release := make(chan struct{})
	o := newOrigin(t, func(int64, *net.TCPConn, *bufio.Reader) { <-release })
	defer close(release)
	large := exchange.Fields{{Name: "X", Value: strings.Repeat("x", 16<<20)}} // more than sockets hold
	_, _, err := o.do(t, &exchange.Request{Fields: large, HeadWait: 50 * time.Millisecond})
	if !errors.Is(err, exchange.ErrSlow) || errors.Is(err, exchange.ErrUnanswered) {
		t.Errorf("error %v", err)
	}
}

// slow is a body of single bytes.
type slow struct {
	pieces int
	pause  time.Duration
}

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	if s.pieces == 0 {
		return 0, io.EOF
	}
	s.pieces--
	p[0] = 'x'
	return 1, nil
}

func TestContextEndsExchange(t *testing.T) {
	got := make(chan struct{})
	o := newOrigin(t, func(_ int64, _ *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		close(got)
		io.Copy(io.Discard, r)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	go func() {
		<-got
		cancel(cause)
	}()
	_, err := o.back.RoundTrip(ctx, originAddress, &exchange.Request{Method: "GET", Path: "/"}, nil)
	if !errors.Is(err, cause) {
		t.Errorf("error %v", err)
	}
}

// Trailers travel whether they were announced or not, but for those that may
// not.
func TestUploadTrailers(t *testing.T) {
	heads := make(chan string, 1)
	o := newOrigin(t, func(_ int64, conn *net.TCPConn, r *bufio.Reader) {
		head := readHead(r)
		var rest strings.Builder
		for !strings.HasSuffix(rest.String(), "\r\n\r\n") {
			b, err := r.ReadByte()
			if err != nil {
				break
			}
			rest.WriteByte(b)
		}
		heads <- head + rest.String()
		io.WriteString(conn, ok)
	})
	trailers := exchange.Fields{{Name: "X-Sum"}}
	body := &endingBody{Reader: strings.NewReader("abc"), end: func() {
		trailers = exchange.Fields{{Name: "X-Sum", Value: "1"}, {Name: "X-Late", Value: "2"}, {Name: "Content-Length", Value: "9"}}
	}}
	if _, _, err := o.do(t, &exchange.Request{Method: "POST", Length: -1, Body: body, Trailers: &trailers}); err != nil {
		t.Fatal(err)
	}
	want := "POST / HTTP/1.1\r\nHost: origin.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
		"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Late: 2\r\n\r\n"
	if got := <-heads; got != want {
		t.Errorf("the origin got %q\nwant %q", got, want)
	}
}

// endingBody calls end before it returns io.EOF.
type endingBody struct {
	io.Reader
	end func()
}

func (b *endingBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.end()
	}
	return n, err
}

func (*endingBody) Close() error { return nil }

// The error says whether the origin may have processed the request.
func TestErrors(t *testing.T) {
	broken := func() (net.Conn, error) { // at once
		ours, theirs := pair(t)
		theirs.Close()
		ours.CloseWrite()
		return ours, nil
	}
	answering := func(text string) func() (net.Conn, error) {
		return func() (net.Conn, error) {
			ours, theirs := pair(t)
			io.WriteString(theirs, text)
			theirs.CloseWrite()
			t.Cleanup(func() { theirs.Close() })
			return ours, nil
		}
	}
	post := exchange.Request{Method: "POST", Length: 1, Ready: 1}
	for _, tt := range []struct {
		name    string
		dial    func() (net.Conn, error)
		request exchange.Request
		want    error // nil: none of the sentinels
		touched bool
	}{
		{"no connection", func() (net.Conn, error) { return nil, io.ErrUnexpectedEOF }, post, exchange.ErrConnect, false},
		{"nothing could be sent", broken, exchange.Request{Method: "POST"}, exchange.ErrConnect, false},
		{"a body could not be sent", broken, post, exchange.ErrUnanswered, true},
		{"no answer", answering(""), exchange.Request{}, exchange.ErrUnanswered, false},
		{"no answer to a body", answering(""), post, exchange.ErrUnanswered, true},
		{"the start of an answer", answering("HTTP/1.1 2"), exchange.Request{}, nil, false},
		{"an interim answer only", answering("HTTP/1.1 103 Early Hints\r\n\r\n"), exchange.Request{}, nil, false},
		{"a malformed answer", answering("hello\r\n\r\n"), exchange.Request{}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &testOrigin{back: NewBack(func(context.Context, netip.AddrPort) (net.Conn, error) { return tt.dial() })}
			body := &watchedBody{Reader: strings.NewReader("x")}
			if tt.request.Length > 0 {
				tt.request.Body = body
			}
			_, _, err := o.do(t, &tt.request)
			if err == nil {
				t.Fatal("no error")
			}
			for _, sentinel := range []error{exchange.ErrConnect, exchange.ErrUnanswered, exchange.ErrSlow, exchange.ErrRefused} {
				if errors.Is(err, sentinel) != (sentinel == tt.want) {
					t.Errorf("error %v, want %v", err, tt.want)
				}
			}
			if body.read != tt.touched || body.closed && !tt.touched {
				t.Errorf("the body was read: %t, closed: %t", body.read, body.closed)
			}
		})
	}
}

// watchedBody tells what was done to it.
type watchedBody struct {
	io.Reader
	read, closed bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.read = true
	return b.Reader.Read(p)
}

func (b *watchedBody) Close() error {
	b.closed = true
	return nil
}

// A client whose body breaks off is not the origin's fault.
func TestBrokenBodyIsNoMissingAnswer(t *testing.T) {
	o := newOrigin(t, func(_ int64, _ *net.TCPConn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	for _, ready := range []int64{0, 2} {
		_, _, err := o.do(t, &exchange.Request{Method: "PUT", Length: 2, Ready: ready, Body: io.NopCloser(strings.NewReader("x"))})
		if err == nil || errors.Is(err, exchange.ErrUnanswered) || errors.Is(err, exchange.ErrConnect) {
			t.Errorf("%d bytes at hand: %v", ready, err)
		}
	}
}

func TestAdopt(t *testing.T) {
	o := newOrigin(t, func(int64, *net.TCPConn, *bufio.Reader) {})
	ours, theirs := pair(t)
	defer theirs.Close()
	o.back.Adopt(originAddress, ours)
	served := make(chan struct{})
	go func() {
		defer close(served)
		readHead(bufio.NewReader(theirs))
		io.WriteString(theirs, ok)
	}()
	if _, body, err := o.do(t, &exchange.Request{}); err != nil || body != "ok" || o.dials.Load() != 0 {
		t.Errorf("%q, %v, %d connections dialled", body, err, o.dials.Load())
	}
	<-served

	// One that nothing can be sent on is replaced, whatever the method.
	o = newOrigin(t, func(_ int64, conn *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(conn, ok)
	})
	ours, theirs = pair(t)
	defer theirs.Close()
	ours.CloseWrite()
	o.back.Adopt(originAddress, ours)
	if _, body, err := o.do(t, &exchange.Request{Method: "POST"}); err != nil || body != "ok" {
		t.Errorf("%q, %v", body, err)
	}

	stopped, stop := context.WithCancel(t.Context())
	stop()
	o.back.Run(stopped)
	ours, theirs = pair(t)
	defer theirs.Close()
	o.back.Adopt(originAddress, ours)
	theirs.SetReadDeadline(time.Now().Add(patience))
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection that comes too late is not closed: %v", err)
	}
}
