package proxy

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/internal/health"
	"anyedge/internal/tickets"
	"anyedge/pop/termination"
)

func hello(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }

func TestDrain(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-release
		}
		io.WriteString(w, "hello")
	}))
	idle, busy := e.dial(clear1), e.dial(clear1)
	if res, _ := idle.get("/"); res.Close {
		t.Fatal("asked to close before the drain")
	}
	busy.send("GET /slow HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	await(t, "slow request", began)
	h2 := e.client(secure, "h2")
	before := tracedGet(t, h2, "https://shop.example/")

	e.worker.Drain()
	e.worker.Drain() // again changes nothing
	// The idle connection is not cut off under a request that is on its way.
	if res, body := idle.get("/"); res.StatusCode != 200 || body != "hello" || !res.Close {
		t.Errorf("kept connection: %d %q, close %v", res.StatusCode, body, res.Close)
	}
	close(release)
	if res := busy.receive("GET"); readAll(t, res.Body) != "hello" || !res.Close {
		t.Errorf("request under way: close %v", res.Close)
	}
	if res, _ := e.dial(clear1).get("/"); res.StatusCode != 200 || !res.Close {
		t.Errorf("new connection: %d, close %v", res.StatusCode, res.Close)
	}
	// GOAWAY sends the HTTP/2 client to a new connection, whose first response
	// says the same again.
	eventually(t, "the HTTP/2 client has a new connection", func() bool {
		return tracedGet(t, h2, "https://shop.example/") != before
	})
	if v := e.worker.Vitals(); v.State != StateDraining || !v.Draining || !v.Ready() {
		t.Errorf("vitals %+v", v)
	}

	e.worker.Undrain()
	c := e.dial(clear1)
	for range 2 {
		if res, _ := c.get("/"); res.StatusCode != 200 || res.Close {
			t.Errorf("after the drain: %d, close %v", res.StatusCode, res.Close)
		}
	}
	last := ""
	eventually(t, "an HTTP/2 connection stays", func() bool {
		now := tracedGet(t, h2, "https://shop.example/")
		same := now == last
		last = now
		return same
	})
	if e.worker.Vitals().State != StateReady {
		t.Error("the worker is not ready again")
	}
}

// tracedGet makes a request that must succeed and returns the local address of
// its connection.
func tracedGet(t *testing.T, client *http.Client, url string) (local string) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { local = info.Conn.LocalAddr().String() },
	})
	req, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	readAll(t, res.Body)
	return local
}

// Snapshots change under load, whole, and no request fails or mixes two.
func TestReloadUnderLoad(t *testing.T) {
	named := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) }
	}
	a, b := serveHTTP(t, named("a")), serveHTTP(t, named("b"))
	e := newEdge(t, a)
	set := func(pool string, backend netip.AddrPort, i int) {
		e.mustApply(func(s *Snapshot) {
			s.Pools = []Pool{testPool(pool, backend)}
			s.Routes = []configs.Route{{Pool: pool, Timeout: configs.Duration(patience)}}
			// Sometimes what the codecs are made of changes too.
			s.Listeners[1].Limits.HeaderBytes = configs.Size(32<<10 + i/4)
		})
	}
	var done atomic.Bool
	var served [2]atomic.Int64
	var load sync.WaitGroup
	for i, v := range variants {
		for _, keep := range []bool{true, false} {
			client := e.client(v.listener, v.protocol)
			client.Transport.(*http.Transport).DisableKeepAlives = !keep
			load.Go(func() {
				for !done.Load() {
					req, _ := http.NewRequest("GET", v.url, nil)
					if v.protocol == "h1" {
						// The client cannot send this again by itself.
						req, _ = http.NewRequest("POST", v.url, io.MultiReader(strings.NewReader("once")))
					}
					res, err := client.Do(req)
					if err != nil {
						t.Errorf("%s: %v", v.name, err)
						return
					}
					body, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || res.StatusCode != 200 || string(body) != "a" && string(body) != "b" {
						t.Errorf("%s: %d %q %v", v.name, res.StatusCode, body, err)
						return
					}
					served[i%2].Add(1)
				}
			})
		}
	}
	for i := range 20 {
		set([]string{"one", "two"}[i%2], []netip.AddrPort{a, b}[i%2], i)
		want := served[0].Load() + 20
		eventually(t, "requests go on", func() bool { return served[0].Load() >= want || t.Failed() })
	}
	done.Store(true)
	load.Wait()
	if v := e.worker.Vitals(); v.Generation != 21 || len(v.Pools) != 1 || v.Pools[0].Name != "two" {
		t.Errorf("vitals %+v", v)
	}
}

func TestBadSnapshotChangesNothing(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	c := e.dial(clear1)
	c.get("/")
	for name, tt := range map[string]struct {
		change func(*Snapshot)
		want   []string
	}{
		"several things": {func(s *Snapshot) {
			s.Routes[0].Pool = "nowhere"
			s.Listeners[0].Protocols = []string{"h9"}
			s.Pools[0].Backends[0].Weight = -1
		}, []string{`routes[0].pool: no pool "nowhere"`, "listeners[0]: protocols[0]", "pools[0]: backends[0].weight"}},
		"no socket":    {func(s *Snapshot) { s.Listeners[0].Address = netip.MustParseAddrPort("127.0.0.1:1") }, []string{"listeners[0]: no socket"}},
		"no timeouts":  {func(s *Snapshot) { s.Listeners[0].Timeouts.BodyIdle = 0 }, []string{"timeouts: not positive"}},
		"no protocols": {func(s *Snapshot) { s.Listeners[0].Protocols = nil }, []string{"protocols: none"}},
		"listeners":    {func(s *Snapshot) { s.Listeners[1].Name = clear1 }, []string{"is there twice"}},
		"pools":        {func(s *Snapshot) { s.Pools = append(s.Pools, s.Pools[0]) }, []string{"pools[1].name"}},
		"certificate":  {func(s *Snapshot) { s.Certificates = []termination.CertPEM{{Cert: []byte("x")}} }, []string{"tls: "}},
		"TLS version":  {func(s *Snapshot) { s.MinTLS = "1.1" }, []string{"min_tls"}},
		"authorities": {func(s *Snapshot) {
			s.Pools[0].Config.TLS, s.Pools[0].CA = &configs.PoolTLS{ServerName: "x"}, []byte("x")
		}, []string{"pools[0]: tls"}},
		"route timeout": {func(s *Snapshot) { s.Routes[0].Timeout = 0 }, []string{"routes[0].timeout"}},
	} {
		err := e.apply(func(s *Snapshot) {
			s.Pools[0].Backends = append([]backend(nil), s.Pools[0].Backends...)
			tt.change(s)
		})
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %q", name, err, want)
			}
		}
	}
	if res, body := c.get("/"); res.StatusCode != 200 || body != "hello" || res.Close {
		t.Errorf("after bad snapshots: %d %q, close %v", res.StatusCode, body, res.Close)
	}
	if g := e.worker.Vitals().Generation; g != 1 {
		t.Errorf("generation %d, want 1", g)
	}
}

func TestListenersComeAndGo(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	kept, old := e.dial(clear1), e.address(clear1)
	kept.get("/")
	added := configs.Listener{Name: "added", Clear: true, Protocols: []string{"h1"}}
	e.listen(&added)
	e.mustApply(func(s *Snapshot) { s.Listeners = append(s.Listeners[1:], added) })

	if res, _ := e.dial("added").get("/"); res.StatusCode != 200 {
		t.Errorf("new listener: status %d", res.StatusCode)
	}
	if conn, err := net.Dial("tcp", old); err == nil {
		conn.Close()
		t.Error("the removed listener still accepts")
	}
	if res, body := kept.get("/"); body != "hello" || !res.Close {
		t.Errorf("a connection of the removed listener: %q, close %v", body, res.Close)
	}

	// A socket that no snapshot uses is closed.
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.worker.AddSocket("unused", socket)
	e.mustApply(func(*Snapshot) {})
	if _, err := socket.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("unused socket: %v", err)
	}
	// So is a second copy of one in use.
	file, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	again := sameAddress{file, e.address("added")}
	e.worker.AddSocket("added", again)
	if _, err := file.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second copy: %v", err)
	}
	if res, _ := e.dial("added").get("/"); res.StatusCode != 200 {
		t.Errorf("the first copy: status %d", res.StatusCode)
	}
}

// Through the door of a listener everything is as at its address, for as long as
// there is the listener.
func TestDoor(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	door := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	closed := func(what string, l net.Listener) {
		t.Helper()
		eventually(t, what+" is closed", func() bool {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
	}
	added := configs.Listener{Name: "added", Clear: true, Protocols: []string{"h1"}}
	e.listen(&added)
	first, second, unused := door(), door(), door()
	e.worker.AddDoor("added", added.Address, first)
	e.worker.AddDoor("added", added.Address, second)
	closed("a second one", second)
	e.worker.AddDoor("added", netip.MustParseAddrPort("192.0.2.1:80"), unused)
	e.mustApply(func(s *Snapshot) { s.Listeners = append(s.Listeners, added) })
	closed("one of no listener", unused)
	e.worker.mu.Lock()
	if n := len(e.worker.doors); n != 0 {
		t.Errorf("%d doors wait for a listener", n)
	}
	e.worker.mu.Unlock()
	again := door()
	e.worker.AddDoor("added", added.Address, again)
	closed("one more for a listener that has one", again)

	conn, err := net.Dial("tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &rawClient{t: t, Conn: conn, r: bufio.NewReader(conn)}
	if res, body := c.get("/"); res.StatusCode != 200 || body != "hello" {
		t.Errorf("through the door: %d %q", res.StatusCode, body)
	}
	e.worker.mu.Lock()
	socket := e.worker.listeners[socketKey{"added", added.Address}].socket
	e.worker.mu.Unlock()
	socket.Close()
	closed("the door of an address that is not accepted at", first)
	e.mustApply(func(s *Snapshot) { s.Listeners = s.Listeners[:len(s.Listeners)-1] })

	next := configs.Listener{Name: "next", Clear: true, Protocols: []string{"h1"}}
	e.listen(&next)
	served, waiting := door(), door()
	e.worker.AddDoor("next", next.Address, served)
	e.mustApply(func(s *Snapshot) { s.Listeners = append(s.Listeners, next) })
	e.worker.AddDoor("later", next.Address, waiting)
	e.stop()
	closed("the door of a worker that stops", served)
	closed("one that waits for its listener", waiting)
}

type sameAddress struct {
	net.Listener
	address string
}

func (s sameAddress) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s.address))
}

func TestChangedListenerAppliesToNewConnections(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	old := e.dial(mixed)
	old.get("/")
	e.mustApply(func(s *Snapshot) { s.Listeners[1].Protocols = []string{"h2"} })
	if res, body := old.get("/"); body != "hello" || !res.Close {
		t.Errorf("old connection: %q, close %v", body, res.Close)
	}
	c := e.dial(mixed)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if b, err := c.r.ReadByte(); err == nil && b == 'H' {
		t.Error("h1 is still served")
	}
}

func TestConnectionCeiling(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	e.mustApply(func(s *Snapshot) { s.MaxConnections = 2 })
	var open []*rawClient
	for range 2 + reserve { // the tests are this machine itself
		c := e.dial(clear1)
		c.get("/")
		open = append(open, c)
	}
	// The reset may come as soon as the dial has not returned yet.
	if conn, err := net.Dial("tcp", e.address(clear1)); err == nil {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("one too many: %v, want a closed connection", err)
		}
	}
	if u := e.worker.Vitals().Usage[0]; u.Resource != ResourceConnections || u.Used != 2+reserve || u.Ceiling != 2 {
		t.Errorf("usage %+v", u)
	}
	eventually(t, "one refusal is counted", func() bool {
		return metric(t, e, "anyedge_proxy_connections_total", "result", refused) == 1
	})
	open[0].Close()
	eventually(t, "room again", func() bool { return e.worker.Vitals().Connections == 1+reserve })
	if res, _ := e.dial(clear1).get("/"); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// A session made at one worker resumes at another with the same keys, and
// across a change of the certificate; not without the key.
func TestTicketsResume(t *testing.T) {
	ring, err := tickets.New(time.Now(), tickets.Schedule{Rotate: time.Hour, Keep: 2, Propagation: time.Second}, rand0{})
	if err != nil {
		t.Fatal(err)
	}
	keys := ring.Decrypting(time.Now())
	one, two := newEdge(t, serveHTTP(t, hello)), newEdge(t, serveHTTP(t, hello))
	for _, e := range []*edge{one, two} {
		e.mustApply(func(s *Snapshot) { s.Tickets = keys[:1] })
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			cache := tls.NewLRUClientSessionCache(4)
			get := func(e *edge) bool {
				conn, err := tls.Dial("tcp", e.address(secure), &tls.Config{
					InsecureSkipVerify: true, ServerName: "shop.example", ClientSessionCache: cache,
					MinVersion: version, MaxVersion: version, NextProtos: []string{"http/1.1"},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
				if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), "hello") {
					t.Fatalf("%q, %v", answer, err)
				}
				return conn.ConnectionState().DidResume
			}
			if get(one) {
				t.Error("the first connection resumed something")
			}
			if !get(two) {
				t.Error("not resumed at the other worker")
			}
			two.mustApply(func(s *Snapshot) { s.Tickets = []tickets.Key{keys[1], keys[0]} })
			if !get(two) {
				t.Error("not resumed after a rotation, which live listeners must see")
			}
			two.mustApply(func(s *Snapshot) { s.Tickets = keys[:1] })
			if get(two) {
				t.Error("resumed with a key that is gone")
			}
		})
	}
	if full, resumed := metric(t, two, "anyedge_proxy_handshakes_total", "result", handshakeFull),
		metric(t, two, "anyedge_proxy_handshakes_total", "result", handshakeResumed); full != 2 || resumed != 4 {
		t.Errorf("%v full and %v resumed handshakes counted, want 2 and 4", full, resumed)
	}
	if n := metric(t, two, "anyedge_proxy_tickets_total", "outcome", "unknown_key"); n == 0 {
		t.Error("tickets of the erased key were not counted")
	}
}

// rand0 is a source of bytes that differ.
type rand0 struct{}

var rand0next atomic.Int64

func (rand0) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(rand0next.Add(1))
	}
	return len(p), nil
}

func TestTLSListenerProtocols(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	try := func(protocols ...string) error {
		conn, err := tls.Dial("tcp", e.address(secure), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		if err != nil {
			return err
		}
		defer conn.Close()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	if err := try(); err != nil {
		t.Errorf("without ALPN: %v", err)
	}
	e.mustApply(func(s *Snapshot) { s.Listeners[2].Protocols = []string{"h2"} })
	if err := try(); err == nil {
		t.Error("h1 is served where only h2 is listed")
	}
	if err := try("http/1.1"); err == nil {
		t.Error("h1 was agreed on where only h2 is listed")
	}
	if res, err := e.client(secure, "h2").Get("https://shop.example/"); err != nil || res.ProtoMajor != 2 {
		t.Errorf("h2: %v", err)
	}
}

// Upstream TLS: the origin's certificate is verified against the pool's
// authorities.
func TestUpstreamTLS(t *testing.T) {
	pair := testCertificate()
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(hello), ErrorLog: discardLog}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	e := newEdge(t, unmap(l.Addr()))
	for name, want := range map[string]int{"shop.example": 200, "other.example": 502} {
		e.mustApply(func(s *Snapshot) {
			s.Pools[0].Config.TLS, s.Pools[0].CA = &configs.PoolTLS{ServerName: name}, pair.Cert
		})
		if res, body := e.dial(clear1).get("/"); res.StatusCode != want {
			t.Errorf("server name %s: %d %q, want %d", name, res.StatusCode, body, want)
		}
	}
}

func TestStop(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-release
		}
		io.WriteString(w, "hello")
	}))
	busy, idle := e.dial(clear1), e.dial(clear1)
	idle.get("/")
	h2 := e.client(mixed, "h2")
	tracedGet(t, h2, "http://shop.example/")
	busy.send("GET /slow HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	await(t, "slow request", began)

	e.stop()
	eventually(t, "the listeners are closed", func() bool {
		conn, err := net.Dial("tcp", e.address(clear1))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	// What is under way and what a client sends in time is served.
	if res, body := idle.get("/"); body != "hello" || !res.Close {
		t.Errorf("last call: %q, close %v", body, res.Close)
	}
	if err := e.apply(func(*Snapshot) {}); !errors.Is(err, errStopped) {
		t.Errorf("Apply while stopping: %v", err)
	}
	close(release)
	if res := busy.receive("GET"); readAll(t, res.Body) != "hello" || !res.Close {
		t.Errorf("request under way: close %v", res.Close)
	}
	start := time.Now()
	e.awaitStop()
	if took := time.Since(start); took > lastCall {
		t.Errorf("with no connection left, the end took %s", took)
	}
	if v := e.worker.Vitals(); v.Connections != 0 || v.InFlight != 0 {
		t.Errorf("left over: %+v", v)
	}
}

func TestStopCutsOffAtTheDeadline(t *testing.T) {
	began := make(chan struct{})
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
	}))
	e.mustApply(func(s *Snapshot) { s.DrainTimeout = configs.Duration(200 * time.Millisecond) })
	idle := e.dial(clear1)
	for _, v := range variants {
		go e.client(v.listener, v.protocol).Get(v.url)
		await(t, "request", began)
	}
	start := time.Now()
	e.stop()
	if _, err := idle.r.ReadByte(); err == nil || isTimeout(err) {
		t.Errorf("idle connection: %v", err)
	}
	e.awaitStop()
	if took := time.Since(start); took < 150*time.Millisecond || took > 5*time.Second {
		t.Errorf("stopped after %s", took)
	}
}

func TestSnapshotJSON(t *testing.T) {
	ring, err := tickets.New(time.Now(), tickets.Schedule{Rotate: time.Hour, Keep: 2, Propagation: time.Second}, rand0{})
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort("10.0.0.1:80")
	pool := testPool("pool", address)
	pool.States = map[netip.AddrPort]health.State{address: health.Unhealthy}
	pool.Config.TLS, pool.CA = &configs.PoolTLS{ServerName: "x"}, []byte("pem")
	want := Snapshot{
		Generation: 7, Node: "fra-1", Pop: "fra", Region: "eu", ProbeToken: "t", MinTLS: "1.3",
		Listeners: []configs.Listener{{
			Name: "web", Address: address, Protocols: []string{"h1"}, Limits: configs.ListenerLimits{HeaderBytes: 1 << 15, HeaderFields: 100, URIBytes: 8 << 10, Streams: 128, ClientConnections: 1024, BodyRate: 256},
			TrustedHops: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			Timeouts:    configs.ListenerTimeouts{Handshake: 1, Header: 2, Idle: 3, BodyIdle: 4},
		}},
		Certificates: []termination.CertPEM{testCertificate()}, ClientCAs: []byte("ca"),
		Tickets: ring.Keys, Pools: []Pool{pool},
		Routes:         []configs.Route{{Match: configs.Match{Host: "a", Path: "/"}, Pool: "pool", Timeout: 5}},
		MaxConnections: 9, VitalsInterval: 10, DrainTimeout: 11, LogRequests: true,
	}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Snapshot
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	for i := range got.Tickets { // a time's own form differs
		if !got.Tickets[i].ActivatesAt.Equal(want.Tickets[i].ActivatesAt) {
			t.Errorf("key %d activates at %v, want %v", i, got.Tickets[i].ActivatesAt, want.Tickets[i].ActivatesAt)
		}
		got.Tickets[i].ActivatesAt = want.Tickets[i].ActivatesAt
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %s", fmt.Sprint(got))
	}
}
