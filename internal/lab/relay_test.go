package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// relayed is a running relay and the PoPs behind it.
type relayed struct {
	*relay
	t    *testing.T
	hop  atomic.Pointer[netip.Addr] // nil: no route
	stop func()                     // ends Run and waits for it
	pops []*net.TCPListener
}

// runRelay runs a relay in front of n PoPs until the test ends; its route leads
// to the first.
func runRelay(t *testing.T, n int) *relayed {
	t.Helper()
	l := newLayout(testNetwork)
	r := &relayed{t: t, relay: &relay{listen: l.anycast(portTLS), port: portTLS, log: quiet}}
	r.best = func() (netip.Addr, bool) {
		if hop := r.hop.Load(); hop != nil {
			return *hop, true
		}
		return netip.Addr{}, false
	}
	for i := range n {
		pop, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.pop(i), portTLS)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pop.Close() })
		r.pops = append(r.pops, pop)
	}
	r.route(l.pop(0))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
			ended <- nil
		case <-time.After(10 * time.Second):
			t.Fatal("the relay does not end")
		}
	}
	t.Cleanup(r.stop)
	await(t, "the relay listens", func() bool {
		c, err := net.Dial("tcp", r.listen.String())
		if err == nil {
			c.Close()
			accept(t, r.pops[0]).Close()
		}
		return err == nil
	})
	await(t, "the first connection ends", func() bool { return goroutinesIn("(*relay).carry") == 0 })
	r.served.Store(0)
	return r
}

func (r *relayed) route(hop netip.Addr) { r.hop.Store(&hop) }

// dial connects a client with a source address of its own.
func (r *relayed) dial(source string) *net.TCPConn {
	r.t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("tcp", r.listen.String())
	if err != nil {
		r.t.Fatal(err)
	}
	return bounded(r.t, c)
}

func accept(t *testing.T, l *net.TCPListener) *net.TCPConn {
	t.Helper()
	l.SetDeadline(time.Now().Add(5 * time.Second))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return bounded(t, c)
}

// bounded makes a hang fail the test.
func bounded(t *testing.T, c net.Conn) *net.TCPConn {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func send(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c *net.TCPConn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

// expectEnd wants a clean end, or a reset.
func expectEnd(t *testing.T, c *net.TCPConn, reset bool) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	if reset && !errors.Is(err, syscall.ECONNRESET) || !reset && err != io.EOF {
		t.Fatalf("read %d bytes, %v; want reset %v", n, err, reset)
	}
}

// goroutinesIn counts the goroutines that run a function.
func goroutinesIn(function string) int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "anyedge/internal/lab."+function)
}

func TestRelayCarriesBothWaysAndHalfCloses(t *testing.T) {
	r := runRelay(t, 1)
	for _, first := range []string{"client", "pop"} {
		client := r.dial("127.0.0.1")
		pop := accept(t, r.pops[0])
		send(t, client, "question")
		expect(t, pop, "question")
		send(t, pop, "answer")
		expect(t, client, "answer")

		closing, other := client, pop
		if first == "pop" {
			closing, other = pop, client
		}
		closing.CloseWrite()
		expectEnd(t, other, false)
		send(t, other, "still to say") // the other direction lives on
		expect(t, closing, "still to say")
		other.CloseWrite()
		expectEnd(t, closing, false)
	}
	if r.served.Load() != 2 || r.unrouted.Load() != 0 {
		t.Errorf("served %d, unrouted %d", r.served.Load(), r.unrouted.Load())
	}
	await(t, "what is over leaves nothing", func() bool { return goroutinesIn("forward") == 0 })
}

func TestRelayPassesResetsOn(t *testing.T) {
	r := runRelay(t, 1)
	for _, who := range []string{"client", "pop"} {
		client := r.dial("127.0.0.1")
		pop := accept(t, r.pops[0])
		send(t, client, "x")
		expect(t, pop, "x")
		breaking, other := client, pop
		if who == "pop" {
			breaking, other = pop, client
		}
		breaking.SetLinger(0)
		breaking.Close()
		expectEnd(t, other, true)
	}
}

// expectReset wants a new connection to be reset, which dialing may see already.
func (r *relayed) expectReset(what string) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.listen.String())
	if err == nil {
		_, err = bounded(r.t, c).Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		r.t.Errorf("%s: %v, want a reset", what, err)
	}
}

func TestRelayFailsAtOnceWithoutARoute(t *testing.T) {
	r := runRelay(t, 1)
	start := time.Now()
	r.hop.Store(nil)
	r.expectReset("without a route")
	r.route(newLayout(testNetwork).pop(5)) // a PoP where nobody listens
	r.expectReset("without an answer")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	if r.served.Load() != 0 || r.unrouted.Load() != 2 {
		t.Errorf("served %d, unrouted %d", r.served.Load(), r.unrouted.Load())
	}
}

func TestRelayKeepsTheSourceAddress(t *testing.T) {
	r := runRelay(t, 1)
	for _, source := range []string{"127.0.0.1", "127.9.8.7"} {
		client := r.dial(source)
		pop := accept(t, r.pops[0])
		if got := pop.RemoteAddr().(*net.TCPAddr).IP.String(); got != source {
			t.Errorf("the PoP sees %s, the client is %s", got, source)
		}
		client.Close()
		expectEnd(t, pop, false)
	}
}

func TestRelayFollowsTheRouteForNewConnectionsOnly(t *testing.T) {
	r := runRelay(t, 2)
	old := r.dial("127.0.0.1")
	oldPop := accept(t, r.pops[0])
	r.route(newLayout(testNetwork).pop(1))
	young := r.dial("127.0.0.1")
	youngPop := accept(t, r.pops[1])
	send(t, old, "old")
	expect(t, oldPop, "old")
	send(t, young, "young")
	expect(t, youngPop, "young")
}

func TestRelayEndsWithItsContext(t *testing.T) {
	r := runRelay(t, 1)
	client := r.dial("127.0.0.1")
	pop := accept(t, r.pops[0])
	send(t, client, "x")
	expect(t, pop, "x")
	r.stop()
	await(t, "no goroutine is left", func() bool { return goroutinesIn("(*relay)")+goroutinesIn("forward") == 0 })
	for _, c := range []*net.TCPConn{client, pop} {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("a connection lives on: %v", err)
		}
	}
	l, err := net.Listen("tcp", r.listen.String())
	if err != nil {
		t.Fatalf("the address is not free: %v", err)
	}
	l.Close()
}

func TestRelayThatCannotListenSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(testNetwork.Addr().Next(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := &relay{listen: l.Addr().(*net.TCPAddr).AddrPort(), log: quiet}
	if err := r.Run(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v, want address in use", err)
	}
}
