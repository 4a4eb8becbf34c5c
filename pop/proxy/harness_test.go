package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"anyedge/configs"
	"anyedge/origin"
	"anyedge/pop/termination"
)

// patience bounds every wait of the tests for something that must happen.
const patience = 10 * time.Second

// edge is a running worker with three listeners, one pool and one route.
type edge struct {
	t        testing.TB
	worker   *Worker
	registry *prometheus.Registry
	log      *lockedBuffer
	stop     context.CancelFunc
	stopped  chan struct{} // closed when Run has returned

	mu       sync.Mutex
	snapshot Snapshot // the last one given to apply
}

// The listeners of an edge.
const (
	clear1 = "clear" // h1
	mixed  = "mixed" // h1 and h2 in clear text
	secure = "secure"
)

func newEdge(t testing.TB, backends ...netip.AddrPort) *edge {
	t.Helper()
	e := &edge{t: t, registry: prometheus.NewRegistry(), log: new(lockedBuffer), stopped: make(chan struct{})}
	e.worker = New(slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug})), e.registry)
	e.snapshot = Snapshot{
		Generation: 1, ProbeToken: "token", LogRequests: true, MinTLS: "1.2",
		Certificates:   []termination.CertPEM{testCertificate()},
		DrainTimeout:   configs.Duration(patience),
		MaxConnections: 1000,
		Routes:         []configs.Route{testRoute()},
		Pools:          []Pool{testPool("pool", backends...)},
	}
	for _, l := range []configs.Listener{
		{Name: clear1, Clear: true, Protocols: []string{"h1"}},
		{Name: mixed, Clear: true, Protocols: []string{"h1", "h2"}},
		{Name: secure, Protocols: []string{"h1", "h2"}},
	} {
		e.listen(&l)
		e.snapshot.Listeners = append(e.snapshot.Listeners, l)
	}
	if err := e.worker.Apply(&e.snapshot); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	go func() {
		defer close(e.stopped)
		if err := e.worker.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		stop()
		e.worker.conns.closeAll()
		e.awaitStop()
		if t.Failed() {
			t.Log(e.log.String())
		}
	})
	return e
}

// listen gives the worker a socket for l and fills in what l lacks.
func (e *edge) listen(l *configs.Listener) {
	e.t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	l.Address = unmap(socket.Addr())
	l.Limits = configs.ListenerLimits{HeaderBytes: 32 << 10, HeaderFields: 100, URIBytes: 8 << 10, Streams: 128, ClientConnections: 1024, BodyRate: 256}
	d := configs.Duration(patience)
	l.Timeouts = configs.ListenerTimeouts{Handshake: d, Header: d, Idle: d, BodyIdle: d}
	e.worker.AddSocket(l.Name, socket)
}

// apply changes the snapshot and applies it.
func (e *edge) apply(change func(*Snapshot)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.snapshot
	next.Listeners = append([]configs.Listener(nil), next.Listeners...)
	next.Routes = append([]configs.Route(nil), next.Routes...)
	next.Pools = append([]Pool(nil), next.Pools...)
	next.Generation++
	change(&next)
	if err := e.worker.Apply(&next); err != nil {
		return err
	}
	e.snapshot = next
	return nil
}

func (e *edge) mustApply(change func(*Snapshot)) {
	e.t.Helper()
	if err := e.apply(change); err != nil {
		e.t.Fatal(err)
	}
}

// address returns where a listener is.
func (e *edge) address(name string) string {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.snapshot.Listeners {
		if l.Name == name {
			return l.Address.String()
		}
	}
	e.t.Fatalf("no listener %s", name)
	return ""
}

func (e *edge) awaitStop() {
	e.t.Helper()
	select {
	case <-e.stopped:
	case <-time.After(2 * patience):
		e.t.Fatal("Run does not return")
	}
}

// dial connects to a listener in clear text.
func (e *edge) dial(name string) *rawClient {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.address(name))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &rawClient{t: e.t, Conn: conn, r: bufio.NewReader(conn)}
}

// rawClient speaks HTTP/1.1 by hand.
type rawClient struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (c *rawClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// receive reads a response's head.
func (c *rawClient) receive(method string) *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read response: %v", err)
	}
	return res
}

// get sends a GET and reads the whole response.
func (c *rawClient) get(path string) (*http.Response, string) {
	c.t.Helper()
	c.send("GET " + path + " HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	res := c.receive("GET")
	return res, readAll(c.t, res.Body)
}

// client returns a client that speaks h1 or h2 to a listener, whatever host a
// URL names.
func (e *edge) client(name, protocol string) *http.Client {
	e.t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(protocol == "h1")
	protocols.SetHTTP2(protocol == "h2")
	protocols.SetUnencryptedHTTP2(protocol == "h2")
	transport := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", e.address(name))
		},
		DisableCompression: true,
	}
	e.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

// variants are the ways to reach an edge.
var variants = []struct{ name, listener, protocol, url string }{
	{"h1 clear", clear1, "h1", "http://shop.example"},
	{"h2 clear", mixed, "h2", "http://shop.example"},
	{"h1 TLS", secure, "h1", "https://shop.example"},
	{"h2 TLS", secure, "h2", "https://shop.example"},
}

// serveHTTP starts an origin.
func serveHTTP(t testing.TB, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ErrorLog: discardLog}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return unmap(l.Addr())
}

// serveRaw starts an origin that handles connections by hand. Connections that
// send nothing, such as checks and warm ones, are ignored.
func serveRaw(t *testing.T, handle func(conn net.Conn, r *bufio.Reader)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				r := bufio.NewReader(conn)
				if _, err := r.Peek(1); err == nil {
					handle(conn, r)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		tasks.Wait()
	})
	return unmap(l.Addr())
}

// readHead reads a message's head as it is on the wire.
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

// closedPort returns an address that refuses connections: its socket is bound,
// so that nobody else gets it, but does not listen.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	bound := name.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(bound.Addr), uint16(bound.Port))
}

// testRoute matches everything, and allows two retries.
func testRoute() configs.Route {
	attempts, share := 2, configs.Percent(20)
	return configs.Route{
		Pool: "pool", Timeout: configs.Duration(patience),
		Retries: configs.Retries{Attempts: &attempts, Budget: &share},
	}
}

func testPool(name string, backends ...netip.AddrPort) Pool {
	// Backends stay unknown, so that all of them are picked whatever the checks say.
	none := 0
	second := configs.Duration(time.Second)
	p := Pool{Config: configs.Pool{
		Name: name, Balance: "round_robin", Warm: &none, ConnectTimeout: second, Protocol: protocolH1,
		FirstByteTimeout: configs.Duration(patience), IdleTimeout: configs.Duration(patience),
		Health: configs.PoolHealth{Type: "tcp", Interval: configs.Duration(time.Hour), Timeout: second, Rise: 100, Fall: 100},
	}}
	for _, b := range backends {
		p.Backends = append(p.Backends, origin.Backend{Address: b, Weight: 1})
	}
	return p
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	return string(data)
}

// eventually waits for something that no event tells.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// await receives from c.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not within %s: %s", patience, what)
		panic("unreachable")
	}
}

// testCertificate makes a certificate for any name once.
var testCertificate = sync.OnceValue(func() termination.CertPEM {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "shop.example"},
		DNSNames:     []string{"shop.example", "127.0.0.1"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return termination.CertPEM{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}
})

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// dialTLS connects to the TLS listener.
func (e *edge) dialTLS(protocol string) *rawClient {
	e.t.Helper()
	c := e.dial(secure)
	conn := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err := conn.Handshake(); err != nil {
		e.t.Fatal(err)
	}
	return &rawClient{t: e.t, Conn: conn, r: bufio.NewReader(conn)}
}

type backend = origin.Backend

var discardLog = slog.NewLogLogger(slog.DiscardHandler, 0)

// metric returns the sum of a metric's series with a label value.
func metric(t *testing.T, e *edge, name, label, value string) (sum float64) {
	t.Helper()
	families, err := e.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}
