package http3

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// ourControl reads the front's control stream and returns the IDs of GOAWAYs.
func ourControl(t *testing.T, c *client) <-chan uint64 {
	str, err := c.qc.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := make(chan uint64, 4)
	in := &input{r: str}
	var kind [1]byte
	if err := in.full(kind[:]); err != nil || kind[0] != streamControl {
		t.Fatal(kind, err)
	}
	go func() {
		defer close(ids)
		for {
			kind, length, err := in.header()
			if err != nil {
				return
			}
			if kind != frameGoAway {
				in.skip(length)
			} else if id, err := in.id(length); err == nil {
				ids <- id
			}
		}
	}()
	return ids
}

// A drain with a request under way: it is served, later ones are rejected, and
// the connection ends.
func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		drain func(*edge)
		want  []uint64
	}{
		{"Drain", func(e *edge) { e.Drain(); e.Drain() }, []uint64{everyStream, 4}},
		{"CloseIdle", func(e *edge) { e.CloseIdle(); e.CloseIdle() }, []uint64{4}},
		{"Last", nil, []uint64{everyStream, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // each waits for what may still be on its way
			begun, proceed := make(chan bool), make(chan bool)
			e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
				begun <- true
				<-proceed
				r := respond(200, "served")
				r.Last = tt.drain == nil
				x.Client.Respond(r)
			})
			c := e.connect(t).greet()
			ids := ourControl(t, c)
			call := c.begin(get("GET", "/"))
			call.Close()
			<-begun
			if tt.drain != nil {
				tt.drain(e)
			} else {
				close(proceed)
			}
			for _, want := range tt.want {
				if got := <-ids; got != want {
					t.Errorf("GOAWAY with %d, want %d", got, want)
				}
			}
			late := c.begin(get("GET", "/"))
			if _, err := late.head(); resetCode(err) != codeRequestRejected {
				t.Errorf("after GOAWAY: %v", err)
			}
			if tt.drain != nil {
				close(proceed)
			}
			if _, body, _, err := call.answer(); err != nil || body != "served" {
				t.Errorf("the request under way: %q, %v", body, err)
			}
			if code := c.closed(); code != codeNoError {
				t.Errorf("closed with %#x", code)
			}
			if more, ok := <-ids; ok {
				t.Errorf("one more GOAWAY with %d", more)
			}
		})
	}
}

// Requests between the two GOAWAYs are served.
func TestDrainLosesNothing(t *testing.T) {
	e := handlerServe(t, ok)
	c := e.connect(t).greet()
	ids := ourControl(t, c)
	first := c.begin(get("GET", "/"))
	first.Close()
	first.answer()
	e.Drain()
	if id := <-ids; id != everyStream {
		t.Fatalf("GOAWAY with %d", id)
	}
	call := c.begin(get("GET", "/late"))
	call.Close()
	if _, body, _, err := call.answer(); err != nil || body != "GET localhost /late" {
		t.Errorf("%q, %v", body, err)
	}
	if id := <-ids; id != 8 {
		t.Errorf("GOAWAY with %d", id)
	}
	e.connect(t) // others are served as before
}

func TestCloseIdle(t *testing.T) {
	t.Parallel()
	e := handlerServe(t, ok)
	c := e.connect(t)
	e.CloseIdle()
	if code := c.closed(); code != codeNoError {
		t.Errorf("closed with %#x", code)
	}
	var refused *quic.TransportError
	if _, err := dial(t, e.addr, nil, false); !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("a new connection: %v", err)
	}
}

// The client is told before an idle connection ends, so that a request which
// crosses with its end is safe to repeat.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	c := config(ok)
	c.IdleTimeout = 200 * time.Millisecond
	e := serve(t, c)
	cl := e.connect(t).greet()
	ids := ourControl(t, cl)
	for range 2 {
		call := cl.begin(get("GET", "/"))
		call.Close()
		if _, _, _, err := call.answer(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if id := <-ids; id != 8 {
		t.Errorf("GOAWAY with %d", id)
	}
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("told after %v", took)
	}
	late := cl.begin(get("POST", "/"))
	if _, err := late.head(); resetCode(err) != codeRequestRejected {
		t.Errorf("after GOAWAY: %v", err)
	}
	if code := cl.closed(); code != codeNoError {
		t.Errorf("closed with %#x", code)
	}
	await(t, "the connection is gone", func() bool { return e.count("connections") == 0 })
}

func TestAdmission(t *testing.T) {
	var open, asked atomic.Int32
	c := config(ok)
	c.Admit = func(addr netip.Addr) (func(), bool) {
		asked.Add(1)
		if addr != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
			t.Errorf("asked for %v", addr)
		}
		if open.Load() == 1 {
			return nil, false
		}
		open.Add(1)
		return func() { open.Add(-1) }, true
	}
	e := serve(t, c)
	first := e.connect(t)
	var refused *quic.TransportError
	if _, err := dial(t, e.addr, nil, false); !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("a second connection: %v", err)
	}
	if e.count("refusals") == 0 {
		t.Error("the refusal is not counted")
	}
	await(t, "no handshake is under way", func() bool { return e.handshaking.Load() == 0 })
	first.qc.CloseWithError(codeNoError, "")
	await(t, "it is released", func() bool { return open.Load() == 0 })
	e.connect(t)
	e.stop()
	if open.Load() != 0 {
		t.Error("not released at the end")
	}
}

// Whoever measures is told of each connection that was one, at its end.
func TestEndIsTold(t *testing.T) {
	type end struct {
		client      netip.Addr
		rtt, lasted time.Duration
	}
	ends := make(chan end, 10)
	c := config(ok)
	c.Ended = func(client netip.Addr, rtt, lasted time.Duration) { ends <- end{client, rtt, lasted} }
	e := serve(t, c)
	began := time.Now()
	for range 2 {
		conn := e.connect(t)
		await(t, "no handshake is under way", func() bool { return e.handshaking.Load() == 0 })
		conn.qc.CloseWithError(codeNoError, "")
		select {
		case got := <-ends:
			if got.client != netip.AddrFrom4([4]byte{127, 0, 0, 1}) || got.rtt <= 0 || got.rtt > patience || got.lasted <= 0 || got.lasted > time.Since(began) {
				t.Errorf("%+v", got)
			}
		case <-time.After(patience):
			t.Fatal("nothing was told")
		}
	}
	if len(ends) > 0 {
		t.Error("told twice")
	}
}

// Ways in which a client leaves a request, and in which the front is stopped:
// the exchange's context ends.
func TestCancellation(t *testing.T) {
	for name, leave := range map[string]func(*edge, *client, *call){
		"stop sending": func(_ *edge, _ *client, call *call) { call.CancelRead(codeRequestCancelled) },
		"connection":   func(_ *edge, c *client, _ *call) { c.qc.CloseWithError(codeNoError, "") },
		"front":        func(e *edge, _ *client, _ *call) { go e.stop() },
		"malformed":    func(_ *edge, c *client, _ *call) { c.begin(data("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			begun, ended := make(chan bool), make(chan bool)
			e := handlerServe(t, func(ctx context.Context, x *exchange.Exchange) {
				begun <- true
				select {
				case <-ctx.Done():
				case <-time.After(patience):
					t.Error("ctx does not end")
				}
				x.Client.Respond(respond(200, "late"))
				close(ended)
			})
			c := e.connect(t)
			call := c.begin(get("GET", "/"))
			call.Close()
			<-begun
			leave(e, c, call)
			<-ended
		})
	}
}

// A client that resets its upload ends the body's Read, and the connection goes
// on.
func TestUploadReset(t *testing.T) {
	read := make(chan error, 1)
	e := handlerServe(t, func(ctx context.Context, x *exchange.Exchange) {
		if x.Request.Body == nil {
			ok(ctx, x)
			return
		}
		b := make([]byte, 10)
		n, _ := x.Request.Body.Read(b)
		if string(b[:n]) != "abc" {
			t.Errorf("read %q", b[:n])
		}
		x.Client.Inform(102, nil)
		_, err := x.Request.Body.Read(b)
		read <- err
	})
	c := e.connect(t)
	call := c.begin(append(get("POST", "/"), data("abc")...))
	call.head()
	call.CancelWrite(codeRequestCancelled)
	if err := <-read; err == nil || errors.Is(err, exchange.ErrMalformed) {
		t.Errorf("Read: %v", err)
	}
	next := c.begin(get("GET", "/"))
	next.Close()
	if _, _, _, err := next.answer(); err != nil {
		t.Error(err)
	}
}

// Closing a body ends a Read under way, and the response is not disturbed.
func TestCloseBody(t *testing.T) {
	e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
		done := make(chan error)
		go func() {
			_, err := x.Request.Body.Read(make([]byte, 1))
			done <- err
		}()
		time.AfterFunc(20*time.Millisecond, func() { x.Request.Body.Close() })
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		if _, err := x.Request.Body.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read afterwards: %v", err)
		}
		x.Client.Respond(respond(413, "enough"))
	})
	call := e.connect(t).begin(get("POST", "/"))
	if head, body, _, err := call.answer(); err != nil || head.Get(":status") != "413" || body != "enough" {
		t.Errorf("%v, %q, %v", head, body, err)
	}
	await(t, "the upload is stopped", func() bool {
		_, err := call.Write(data("x"))
		return resetCode(err) == codeNoError
	})
}

// 100 (Continue) is sent when the body is asked for, and not otherwise.
func TestExpect(t *testing.T) {
	for _, tt := range []struct {
		path string
		want []string
	}{{"/read", []string{"100", "200"}}, {"/answer", []string{"200"}}} {
		e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
			if x.Request.Path == "/read" {
				if got := sum(x.Request.Body); got != sum(strings.NewReader("abc")) {
					t.Error(got)
				}
			}
			x.Client.Respond(&exchange.Response{Status: 200, Length: 0})
		})
		call := e.connect(t).begin(get("PUT", tt.path, "expect", "100-continue", "content-length", "3"))
		var got []string
		for {
			head, err := call.head()
			if err != nil {
				break
			}
			if got = append(got, head.Get(":status")); got[0] == "100" {
				call.Write(data("abc"))
				call.Close()
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q", tt.path, got)
		}
	}
}

// Requests that were reset count until their handlers return, and a client that
// goes on resetting is cut off.
func TestResets(t *testing.T) {
	c := config(nil)
	c.MaxStreams = 4
	var running, most atomic.Int32
	proceed := make(chan bool)
	c.Handler = func(ctx context.Context, x *exchange.Exchange) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		<-ctx.Done()
		<-proceed
	}
	e := serve(t, c)
	cl := e.connect(t)
	reset := func(ctx context.Context) error {
		str, err := cl.qc.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		str.Write(get("GET", "/"))
		str.Close()
		str.CancelRead(codeRequestCancelled)
		return nil
	}
	for range 4 {
		if err := reset(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := reset(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a fifth request: %v", err)
	}
	close(proceed)
	for reset(t.Context()) == nil {
	}
	if code := cl.closed(); code != codeExcessiveLoad {
		t.Errorf("closed with %#x", code)
	}
	if most.Load() > 4 || e.count("floods") != 1 {
		t.Errorf("%d handlers at once, %v floods", most.Load(), e.count("floods"))
	}
}

// The socket fails under the front.
func TestSocketCloses(t *testing.T) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	begun, ended := make(chan bool, 1), make(chan bool, 1)
	f := NewFront(config(func(ctx context.Context, x *exchange.Exchange) {
		begun <- true
		<-ctx.Done()
		ended <- true
	}))
	done := make(chan error, 1)
	go func() { done <- f.Serve(context.Background(), socket) }()
	c, err := dial(t, socket.LocalAddr().(*net.UDPAddr), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	c.begin(get("GET", "/")).Close()
	<-begun
	socket.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	<-ended
}

// An idle connection has nothing from the pools.
func TestIdleHoldsNoBuffer(t *testing.T) {
	before := buffers.Lent()
	e := handlerServe(t, ok)
	c := e.connect(t)
	call := c.begin(get("GET", "/"))
	call.Close()
	call.answer()
	await(t, "nothing is lent", func() bool { return buffers.Lent() == before })
}

// An update is for new connections.
func TestUpdate(t *testing.T) {
	c := config(ok)
	e := serve(t, c)
	old := e.connect(t)
	c.MaxURIBytes, c.MaxStreams = 64, 2
	e.Update(c)
	path := "/" + strings.Repeat("a", 100)
	for cl, want := range map[*client]string{old: "200", e.connect(t): "414"} {
		var err error
		for range 2 { // none of them is over, because nothing is sent
			_, err = cl.qc.OpenStream()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err = cl.qc.OpenStream(); (err == nil) != (want == "200") {
			t.Errorf("a third stream, where %s is due: %v", want, err)
		}
	}
	for cl, want := range map[*client]string{old: "200", e.connect(t): "414"} {
		call := cl.begin(get("GET", path))
		call.Close()
		if head, _, _, err := call.answer(); err != nil || head.Get(":status") != want {
			t.Errorf("%v, %v; want %s", head, err, want)
		}
	}
}

// The end of a response is not the end of the context: the handler may have work
// left that needs it, such as keeping the origin's connection.
func TestContextAfterResponse(t *testing.T) {
	ended := make(chan error, 1)
	e := handlerServe(t, func(ctx context.Context, x *exchange.Exchange) {
		ok(ctx, x)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
		ended <- ctx.Err()
	})
	call := e.connect(t).begin(get("GET", "/"))
	call.Close()
	if _, _, _, err := call.answer(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
