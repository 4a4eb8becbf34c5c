package http1

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// patience bounds every wait of the tests for something that must happen.
const patience = 10 * time.Second

// TestMain checks that every buffer was given back.
func TestMain(m *testing.M) {
	code := m.Run()
	if n := buffers.Lent(); n != 0 {
		fmt.Fprintf(os.Stderr, "%d bytes of buffers were not given back\n", n)
		code = 1
	}
	os.Exit(code)
}

// pair returns two ends of a TCP connection.
func pair(t testing.TB) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return accepted.(*net.TCPConn), dialled.(*net.TCPConn)
}

// testClient is the client's end of a connection that a front serves.
type testClient struct {
	t testing.TB
	*net.TCPConn
	r     *bufio.Reader
	front *Front
	ended chan struct{} // closed when the connection has ended
}

// testConfig is a front's config that bounds everything.
func testConfig(handler exchange.Handler) FrontConfig {
	return FrontConfig{
		Handler: handler, HeaderTimeout: patience, IdleTimeout: patience, BodyIdle: patience,
		MaxHeaderBytes: 8 << 10, MaxHeaderFields: 100, MaxURIBytes: 4 << 10, BodyRate: 1000,
	}
}

// serveOne serves one connection with a handler. change may be nil.
func serveOne(t testing.TB, handler exchange.Handler, change func(*FrontConfig)) *testClient {
	t.Helper()
	config := testConfig(handler)
	if change != nil {
		change(&config)
	}
	ours, theirs := pair(t)
	theirs.SetDeadline(time.Now().Add(patience))
	c := &testClient{t: t, TCPConn: theirs, r: bufio.NewReader(theirs), front: NewFront(config), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go c.front.ServeConn(ctx, ours, nil, &exchange.Conn{}, func() { close(c.ended) })
	t.Cleanup(func() {
		cancel()
		theirs.Close()
		<-c.ended
	})
	return c
}

func (c *testClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// all sends text and returns all that comes until the connection ends.
func (c *testClient) all(text string) string {
	c.t.Helper()
	c.send(text)
	got, err := io.ReadAll(c.r)
	if err != nil {
		c.t.Fatalf("after %q: %v", got, err)
	}
	return string(got)
}

// echo answers with what the request was.
func echo(_ context.Context, x *exchange.Exchange) {
	r := &x.Request
	if x.Refusal.Status != 0 {
		answer(x, x.Refusal.Status, x.Refusal.Reason)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\n", r.Method, r.Authority, r.Path)
	for _, f := range r.Fields {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			answer(x, 400, "body: "+err.Error())
			return
		}
		fmt.Fprintf(&b, "[%s]", body)
	}
	if r.Trailers != nil {
		fmt.Fprintf(&b, "%v", *r.Trailers)
	}
	answer(x, 200, b.String())
}

func answer(x *exchange.Exchange, status int, text string) error {
	return x.Client.Respond(&exchange.Response{
		Status: status, Length: int64(len(text)), Body: io.NopCloser(strings.NewReader(text)), Ready: int64(len(text)),
	})
}

// testOrigin serves connections of a back by hand.
type testOrigin struct {
	back  *Back
	dials atomic.Int64
}

// newOrigin returns a back that reaches handle, which gets the number of each
// connection, from 1. Run keeps the back.
func newOrigin(t testing.TB, handle func(n int64, conn *net.TCPConn, r *bufio.Reader)) *testOrigin {
	o := new(testOrigin)
	var tasks sync.WaitGroup
	o.back = NewBack(func(context.Context, netip.AddrPort) (net.Conn, error) {
		theirs, ours := pair(t)
		theirs.SetDeadline(time.Now().Add(patience))
		n := o.dials.Add(1)
		tasks.Go(func() {
			defer theirs.Close()
			handle(n, theirs, bufio.NewReader(theirs))
		})
		return ours, nil
	})
	ctx, stop := context.WithCancel(context.Background())
	tasks.Go(func() { o.back.Run(ctx) })
	t.Cleanup(func() {
		stop()
		tasks.Wait()
	})
	return o
}

var originAddress = netip.MustParseAddrPort("192.0.2.1:80")

// do sends a request and returns the response's status and body.
func (o *testOrigin) do(t testing.TB, r *exchange.Request) (status int, body string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if r.Method == "" {
		r.Method = "GET"
	}
	r.Authority, r.Path = "origin.example", "/"
	res, err := o.back.RoundTrip(ctx, originAddress, r, func(int, exchange.Fields) {})
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	status = res.Status
	data, err := io.ReadAll(res.Body)
	return status, string(data), err
}

// readHead reads a head as it is on the wire; empty at the connection's end.
func readHead(r *bufio.Reader) string {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String()
		}
	}
}
