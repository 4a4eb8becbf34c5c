package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/internal/health"
)

// listen accepts connections into a channel until the test ends.
func listen(t *testing.T) (netip.AddrPort, <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		close(accepted)
		for c := range accepted {
			c.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort(), accepted
}

// eventually waits for something that the kernel brings about and nothing
// announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// closed waits until the other end of c closed it.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Fatalf("read %d bytes, error %v; want the end of the connection", n, err)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// warmed returns the only member of a pool that does not run, with n warm
// connections, and their other ends.
func warmed(t *testing.T, n int) (*Pool, *member, []net.Conn) {
	t.Helper()
	address, accepted := listen(t)
	p := judgedPool(t, "", Set{{Address: address}}, health.Healthy)
	m := p.members[address]
	m.warm.hold(n)
	if !p.fill(t.Context(), m) {
		t.Fatal("dial failed")
	}
	t.Cleanup(func() { m.warm.hold(0) })
	var peers []net.Conn
	for range n {
		peers = append(peers, <-accepted)
	}
	if got := m.warm.len(); got != n {
		t.Fatalf("%d warm connections, want %d", got, n)
	}
	return p, m, peers
}

func TestDialHandsOutWarmConnections(t *testing.T) {
	p, m, peers := warmed(t, 2)
	youngest := m.warm.idle[1].conn
	conn, err := p.Dial(t.Context(), m.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn != youngest {
		t.Error("not the youngest connection")
	}
	if _, ok := conn.(*net.TCPConn); !ok {
		t.Errorf("a %T: the kernel cannot splice it", conn)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(peers[1], got); err != nil || string(got) != "hello" {
		t.Errorf("the server read %q, %v", got, err)
	}
	select {
	case <-m.warm.wake:
	default:
		t.Error("nobody was told to dial another")
	}
	for range 2 { // the other warm one, then a new one
		conn, err := p.Dial(t.Context(), m.address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if w, n := m.dialsWarm.Load(), m.dialsNew.Load(); w != 2 || n != 1 {
		t.Errorf("%d warm and %d new dials, want 2 and 1", w, n)
	}
}

func TestDialPassesOverDeadConnections(t *testing.T) {
	for _, tt := range []struct {
		name string
		kill func(peer net.Conn)
	}{
		{"closed", func(c net.Conn) { c.Close() }},
		{"reset", func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() }},
		{"half closed", func(c net.Conn) { c.(*net.TCPConn).CloseWrite() }},
		{"an answer without a request", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 408 \r\n\r\n") }},
		{"an answer, then closed", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 408 \r\n\r\n"); c.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, m, peers := warmed(t, 2)
			alone := m.warm.idle[0].conn
			dead := m.warm.idle[1].conn
			tt.kill(peers[1])
			eventually(t, "dead", func() bool { return !alive(dead) })
			conn, err := p.Dial(t.Context(), m.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if conn != alone {
				t.Error("Dial did not hand out the connection that was left")
			}
		})
	}
}

func TestSweepClosesDeadAndOld(t *testing.T) {
	_, m, peers := warmed(t, 3)
	old, dead, good := m.warm.idle[0].conn, m.warm.idle[1].conn, m.warm.idle[2].conn
	m.warm.idle[0].since = m.warm.idle[0].since.Add(-warmAge)
	peers[1].Close()
	eventually(t, "dead", func() bool { return !alive(dead) })
	m.warm.sweep(time.Now())
	if len(m.warm.idle) != 1 || m.warm.idle[0].conn != good {
		t.Errorf("%d connections are left, want only the good one", len(m.warm.idle))
	}
	closed(t, peers[0])
	if _, err := old.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write on the old connection: %v", err)
	}
	if got := m.warm.take(time.Now().Add(warmAge)); got != nil {
		t.Error("took a connection that is too old")
	}
}

// A connection that was being dialled when it stopped being wanted is closed.
func TestPutAfterChange(t *testing.T) {
	for name, change := range map[string]func(*warm){
		"flush":    func(w *warm) { w.flush() },
		"hold 0":   func(w *warm) { w.hold(0) },
		"0 then 1": func(w *warm) { w.hold(0); w.hold(1) },
	} {
		_, m, _ := warmed(t, 0)
		m.warm.hold(1)
		generation, missing := m.warm.missing()
		if !missing {
			t.Fatalf("%s: nothing missing", name)
		}
		change(&m.warm)
		conn, peer := net.Pipe()
		m.warm.put(conn, generation, time.Now())
		if m.warm.len() != 0 {
			t.Errorf("%s: the connection was taken in", name)
		}
		closed(t, peer)
	}
}

func TestHoldFewerClosesTheOldest(t *testing.T) {
	_, m, peers := warmed(t, 3)
	m.warm.hold(1)
	closed(t, peers[0])
	closed(t, peers[1])
	if !alive(m.warm.idle[0].conn) {
		t.Error("the youngest is gone too")
	}
}

// The whole life: warm connections appear with health, are refilled, and are
// closed at once when the backend turns unhealthy, leaves the set or the pool
// ends.
func TestWarmConnectionsFollowHealth(t *testing.T) {
	address, accepted := listen(t)
	other, acceptedOther := listen(t)
	s := newScript()
	p := NewPool(Config{Warm: 1, Health: HealthConfig{Interval: 5 * time.Millisecond, Rise: 1, Fall: 1}}, quiet, nil)
	p.check = s.check
	s.set(address, errDown)
	if err := p.Update(Set{{Address: address}, {Address: other}}); err != nil {
		t.Fatal(err)
	}
	stop := run(t, p)
	defer stop()
	warmAt := func(a netip.AddrPort) int { return p.current.Load().members[a].warm.len() }

	eventually(t, "unhealthy", func() bool { return stateOf(p, address) == health.Unhealthy })
	otherConn := <-acceptedOther
	if warmAt(address) != 0 || len(accepted) != 0 {
		t.Error("an unhealthy backend has warm connections")
	}

	s.set(address, nil)
	first := <-accepted
	eventually(t, "warm", func() bool { return warmAt(address) == 1 })
	conn, err := p.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	second := <-accepted // dialled in place of the one that was taken

	s.set(address, errDown)
	closed(t, second)
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Errorf("the connection that was handed out: %v", err)
	}
	if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
		t.Errorf("the connection that was handed out: %v", err)
	}
	conn.Close()

	if err := p.Update(Set{{Address: address}}); err != nil {
		t.Fatal(err)
	}
	closed(t, otherConn)

	s.set(address, nil)
	third := <-accepted
	stop()
	closed(t, third)
}

func TestSetConfigFlushesConnectionsOfAnotherTLS(t *testing.T) {
	p, m, peers := warmed(t, 1)
	cfg := *p.config.Load()
	p.mu.Lock()
	p.start = func(*member) {} // as while Run runs
	p.mu.Unlock()
	cfg.Warm = 1
	p.SetConfig(cfg)
	if m.warm.len() != 1 {
		t.Error("the connection is gone although TLS did not change")
	}
	cfg.TLS = &tls.Config{ServerName: "origin.example"}
	p.SetConfig(cfg)
	closed(t, peers[0])
	if m.warm.len() != 0 {
		t.Error("a clear-text connection is left")
	}
}

// TLS servers speak first: tickets, and with HTTP/2 SETTINGS. Neither makes a
// warm connection dead; its end does.
func TestWarmTLS(t *testing.T) {
	var mu sync.Mutex
	var conns []net.Conn
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, c)
		}
	}
	// Asked for a certificate, Go's server sends tickets after the handshake, as
	// most others always do, and not within it.
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
	server.StartTLS()
	defer server.Close()
	address := server.Listener.Addr().(*net.TCPAddr).AddrPort()
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			conf := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			conf.ServerName = "example.com"
			conf.NextProtos = []string{protocol}
			conf.ClientSessionCache = tls.NewLRUClientSessionCache(1) // asks for tickets
			p := NewPool(Config{TLS: conf}, quiet, nil)
			if err := p.Update(Set{{Address: address}}); err != nil {
				t.Fatal(err)
			}
			m := p.members[address]
			m.warm.hold(2)
			if !p.fill(t.Context(), m) {
				t.Fatal("dial failed")
			}
			defer m.warm.hold(0)
			raw := m.warm.idle[1].conn.(*tls.Conn).NetConn()
			eventually(t, "the server has spoken", func() bool { return !alive(raw) }) // data makes a clear-text one dead
			conn, err := p.Dial(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := m.dialsWarm.Load(); got != 1 {
				t.Errorf("%d warm dials, want 1", got)
			}
			if got := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != protocol {
				t.Errorf("protocol %q, want %q", got, protocol)
			}
			if protocol == "http/1.1" {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
				if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), "HTTP/1.1") {
					t.Errorf("answer %q, %v", answer, err)
				}
			}
			mu.Lock()
			for _, c := range conns {
				c.Close()
			}
			mu.Unlock()
			eventually(t, "dead", func() bool { return !alive(m.warm.idle[0].conn) })
		})
	}
}

func TestDialErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().(*net.TCPAddr).AddrPort()

	// Nobody answers the handshake.
	p := NewPool(Config{ConnectTimeout: 20 * time.Millisecond, TLS: &tls.Config{ServerName: "origin.example"}}, quiet, nil)
	if err := p.Update(Set{{Address: address}}); err != nil {
		t.Fatal(err)
	}
	m := p.members[address]
	if conn, err := p.Dial(t.Context(), address); conn != nil || !errors.Is(err, context.DeadlineExceeded) ||
		!strings.Contains(err.Error(), "nothing within 20ms") {
		t.Errorf("a silent backend: %v, %v", conn, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if conn, err := p.Dial(ctx, address); conn != nil || err == nil || strings.Contains(err.Error(), "nothing within") {
		t.Errorf("a caller that gave up: %v, %v", conn, err)
	}
	l.Close()
	if conn, err := p.Dial(t.Context(), address); conn != nil || err == nil || !strings.Contains(err.Error(), address.String()) {
		t.Errorf("a closed port: %v, %v", conn, err)
	}
	if got := m.dialsFailed.Load(); got != 2 {
		t.Errorf("%d failed dials, want 2", got)
	}
}

// A backend may leave the set between its pick and its dial.
func TestDialOutsideTheSet(t *testing.T) {
	address, accepted := listen(t)
	p := NewPool(Config{}, quiet, nil)
	conn, err := p.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	closed(t, <-accepted)
}

// While dials fail, asking for connections does not speed the retries up.
func TestKeepWarmPacesFailures(t *testing.T) {
	address, accepted := listen(t)
	cfg := Config{Warm: 1, TLS: &tls.Config{ServerName: "origin.example"}}
	p := NewPool(cfg, quiet, nil)
	if err := p.Update(Set{{Address: address}}); err != nil {
		t.Fatal(err)
	}
	m := p.members[address]
	m.warm.hold(1)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	begin := time.Now()
	go func() {
		defer close(done)
		p.keepWarm(ctx, m)
	}()
	attempts := 0
	for time.Since(begin) < warmPace/4 {
		select {
		case c := <-accepted:
			attempts++
			c.Close() // the handshake fails
		case <-time.After(time.Millisecond):
			signal(m.warm.wake)
		}
	}
	if time.Since(begin) < warmPace && attempts != 1 {
		t.Errorf("%d attempts within %v, want 1", attempts, warmPace/4)
	}
	(<-accepted).Close() // the next one, a pace later
	if d := time.Since(begin); d < warmPace {
		t.Errorf("the next attempt came after %v", d)
	}
	cancel()
	<-done
}
