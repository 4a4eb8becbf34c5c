package http3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/internal/tickets"
	"anyedge/pop/proxy/exchange"
	"anyedge/pop/termination"
)

// sessions is a client's memory of one session, whatever its server is called.
type sessions struct {
	put  chan struct{} // has a value when there is one
	last *tls.ClientSessionState
}

func newSessions() *sessions { return &sessions{put: make(chan struct{}, 16)} }

func (s *sessions) Get(string) (*tls.ClientSessionState, bool) { return s.last, s.last != nil }

func (s *sessions) Put(_ string, session *tls.ClientSessionState) {
	if session != nil {
		s.last = session
		s.put <- struct{}{}
	}
}

// terminator has the tests' certificate.
func terminator(t testing.TB, domain string, keys ...byte) *termination.Terminator {
	server, _ := certificate()
	c := server.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	term, err := termination.New(termination.Config{Domain: domain, NextProtos: []string{"h2"}, Certificates: []termination.CertPEM{{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	var ring []tickets.Key
	for _, k := range keys {
		ring = append(ring, tickets.Key{ID: tickets.ID{7: k}, Secret: tickets.Secret{k, 31: k}})
	}
	term.SetKeys(ring)
	return term
}

// visit makes a full handshake and returns the session that the client keeps.
func visit(t *testing.T, e *edge) (*tls.Config, *sessions) {
	t.Helper()
	kept, cfg := newSessions(), clientTLS()
	cfg.ClientSessionCache = kept
	c, err := dial(t, e.addr, cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-kept.put:
	case <-time.After(patience):
		t.Fatal("no session ticket")
	}
	if c.qc.ConnectionState().TLS.DidResume {
		t.Error("the first connection resumed")
	}
	c.qc.CloseWithError(codeNoError, "")
	return cfg, kept
}

func TestEarlyRequests(t *testing.T) {
	type seen struct {
		path  string
		early bool
		tls   exchange.TLS
	}
	served := make(chan seen, 10)
	c := config(func(ctx context.Context, x *exchange.Exchange) {
		served <- seen{x.Request.Path, x.Request.Early, *x.Conn.TLS}
		ok(ctx, x)
	})
	term := terminator(t, "edge", 1)
	c.TLS = term.TLSConfig
	e := serve(t, c)
	cfg, _ := visit(t, e)

	r := newRelay(t, e.addr)
	r.hold(false, true) // or the handshake would go on
	cl, err := dial(t, r.addr, cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	cl.greet()
	// All of them are in the client's first flight.
	var calls []*call
	for _, b := range [][]byte{
		get("POST", "/post"),
		append(get("GET", "/body", "content-length", "1"), data("x")...),
		headers(":method", "CONNECT", ":authority", "a:1"),
		headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/ws"),
		get("DELETE", "/delete"),
		get("GET", "/get"), get("HEAD", "/head"), get("OPTIONS", "/options"), get("TRACE", "/trace"),
	} {
		call := cl.begin(b)
		call.Close()
		calls = append(calls, call)
	}
	early := map[string]bool{}
	for range 4 {
		select {
		case s := <-served:
			early[s.path] = true
			if !s.early || !s.tls.Resumed || s.tls.ServerName != "localhost" || s.tls.Version != "TLS 1.3" || s.tls.Cipher == "" || s.tls.Cipher[:4] != "TLS_" {
				t.Errorf("in early data: %+v", s)
			}
		case <-time.After(patience):
			t.Fatalf("early requests were not served: %v", early)
		}
	}
	if !early["/get"] || !early["/head"] || !early["/options"] || !early["/trace"] {
		t.Errorf("served early: %v", early)
	}
	await(t, "others are delayed", func() bool { return e.count("early:"+earlyDelayed) == 5 })
	if len(served) > 0 {
		t.Errorf("served before the handshake: %+v", <-served)
	}
	// The answer does not wait either.
	r.hold(true, false)
	if _, body, _, err := calls[5].answer(); err != nil || body != "GET localhost /get" {
		t.Errorf("%q, %v", body, err)
	}
	if n := e.count("handshakes:" + handshakeEarly); n != 0 {
		t.Errorf("%v handshakes are over", n)
	}
	r.hold(false, false)
	for range 5 {
		if s := <-served; s.early {
			t.Errorf("after the handshake: %+v", s)
		}
	}
	if e.count("early:"+earlyServed) != 4 {
		t.Error("early requests are not counted")
	}
	await(t, "the handshake is counted", func() bool { return e.count("handshakes:"+handshakeEarly) == 1 })
	if !cl.qc.ConnectionState().Used0RTT {
		t.Error("the client does not think so")
	}
}

// A replayed first flight gets what is safe and nothing else.
func TestReplay(t *testing.T) {
	served := make(chan string, 10)
	c := config(func(ctx context.Context, x *exchange.Exchange) {
		served <- x.Request.Path
		ok(ctx, x)
	})
	c.TLS, c.HandshakeTimeout = terminator(t, "edge", 1).TLSConfig, 500*time.Millisecond
	e := serve(t, c)
	cfg, _ := visit(t, e)

	// Record it in front of a server that is not there.
	deaf, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	cl, err := dial(t, deaf.LocalAddr().(*net.UDPAddr), cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	cl.begin(get("POST", "/post")).Close()
	cl.begin(get("GET", "/get")).Close()
	replay, err := net.DialUDP("udp", nil, e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer replay.Close()
	b := make([]byte, 2048)
	for deadline := time.Now().Add(300 * time.Millisecond); time.Now().Before(deadline); {
		deaf.SetReadDeadline(deadline)
		if n, err := deaf.Read(b); err == nil {
			replay.Write(b[:n])
		}
	}
	select {
	case path := <-served:
		if path != "/get" {
			t.Errorf("%s was served", path)
		}
	case <-time.After(patience):
		t.Fatal("nothing was served")
	}
	await(t, "the handshake is given up", func() bool { return e.count("handshakes:"+handshakeFailed) == 1 })
	await(t, "the connection is gone", func() bool { return e.count("connections") == 0 })
	if len(served) > 0 {
		t.Errorf("%s was served", <-served)
	}
}

// Where a session may be resumed, and where its early data is good.
func TestResumption(t *testing.T) {
	first := config(ok)
	term := terminator(t, "edge", 1, 2)
	first.TLS = term.TLSConfig
	for _, tt := range []struct {
		name            string
		change          func(*FrontConfig)
		serverName      string
		resumed, early  bool
		requestsAreLost bool
	}{
		{"same terminator", func(c *FrontConfig) { c.TLS = term.TLSConfig }, "", true, true, false},
		{"another node", func(c *FrontConfig) { c.TLS = terminator(t, "edge", 1, 2).TLSConfig }, "", true, true, false},
		{"another node, after a rotation", func(c *FrontConfig) { c.TLS = terminator(t, "edge", 3, 1).TLSConfig }, "", true, true, false},
		{"another node with wider limits", func(c *FrontConfig) {
			c.TLS = terminator(t, "edge", 1).TLSConfig
			c.MaxHeaderBytes, c.MaxStreams = c.MaxHeaderBytes+1, c.MaxStreams+1
		}, "", true, true, false},
		{"key erased", func(c *FrontConfig) { c.TLS = terminator(t, "edge", 3, 4).TLSConfig }, "", false, false, true},
		{"other trust domain", func(c *FrontConfig) { c.TLS = terminator(t, "other", 1, 2).TLSConfig }, "", false, false, true},
		{"other server name", func(c *FrontConfig) { c.TLS = term.TLSConfig }, "other.example", false, false, true},
		{"shorter heads", func(c *FrontConfig) {
			c.TLS = term.TLSConfig
			c.MaxHeaderBytes--
		}, "", true, false, true},
		{"fewer streams", func(c *FrontConfig) {
			c.TLS = term.TLSConfig
			c.MaxStreams--
		}, "", true, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := visit(t, serve(t, first))
			if tt.serverName != "" {
				cfg.ServerName = tt.serverName
			}
			second := config(ok)
			tt.change(&second)
			e := serve(t, second)
			r := newRelay(t, e.addr)
			r.hold(false, true) // until the request is sent
			c, err := dial(t, r.addr, cfg, true)
			if err != nil {
				t.Fatal(err)
			}
			call := c.begin(get("GET", "/"))
			call.Close()
			r.hold(false, false)
			if _, _, _, err := call.answer(); (err != nil) != tt.requestsAreLost {
				t.Errorf("the early request: %v", err)
			}
			<-c.qc.HandshakeComplete()
			state := c.qc.ConnectionState()
			if state.TLS.DidResume != tt.resumed || state.Used0RTT != tt.early {
				t.Errorf("resumed %v, early %v", state.TLS.DidResume, state.Used0RTT)
			}
			result := handshakeFull
			if tt.early {
				result = handshakeEarly
			} else if tt.resumed {
				result = handshakeResumed
			}
			await(t, "the handshake is counted", func() bool { return e.count("handshakes:"+result) == 1 })
		})
	}
}

// A session of TLS over TCP resumes without early data.
func TestSessionFromTCP(t *testing.T) {
	term := terminator(t, "edge", 1)
	l, err := tls.Listen("tcp", "127.0.0.1:0", term.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if nc, err := l.Accept(); err == nil {
			nc.Write([]byte("x"))
			nc.Close()
		}
	}()
	kept, cfg := newSessions(), clientTLS()
	cfg.ClientSessionCache, cfg.NextProtos = kept, []string{"h2"}
	nc, err := tls.Dial("tcp", l.Addr().String(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	nc.Read(make([]byte, 1))
	nc.Close()
	<-kept.put

	c := config(ok)
	c.TLS = term.TLSConfig
	e := serve(t, c)
	cfg.NextProtos = []string{"h3"}
	cl, err := dial(t, e.addr, cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	if s := cl.qc.ConnectionState(); s.Used0RTT {
		t.Errorf("early %v", s.Used0RTT)
	}
	call := cl.begin(get("GET", "/"))
	call.Close()
	if _, _, _, err := call.answer(); err != nil {
		t.Fatal(err)
	}
}

// A new snapshot's certificates and keys serve new connections.
func TestTLSIsAskedForEachConnection(t *testing.T) {
	c := config(ok)
	var current atomic.Pointer[termination.Terminator]
	current.Store(terminator(t, "edge", 1))
	c.TLS = func() *tls.Config { return current.Load().TLSConfig() }
	e := serve(t, c)
	cfg, _ := visit(t, e)
	for _, tt := range []struct {
		keys    []byte
		resumed bool
	}{{[]byte{2, 1}, true}, {[]byte{3}, false}} {
		current.Store(terminator(t, "edge", tt.keys...))
		cl, err := dial(t, e.addr, cfg, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := cl.qc.ConnectionState().TLS.DidResume; got != tt.resumed {
			t.Errorf("keys %v: resumed %v", tt.keys, got)
		}
		cl.qc.CloseWithError(codeNoError, "")
	}
}
