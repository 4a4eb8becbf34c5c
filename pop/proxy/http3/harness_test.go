package http3

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	qh3 "github.com/quic-go/quic-go/http3"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// patience bounds every wait of the tests for something that must happen.
const patience = 15 * time.Second

// After all tests, nothing is lent and nothing runs.
func TestMain(m *testing.M) {
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 && flag.Lookup("test.fuzz").Value.String() == "" { // fuzzing leaves goroutines of its own
		if err := clean(before); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func clean(goroutines int) error {
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > goroutines || buffers.Lent() != 0 {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			return fmt.Errorf("%d goroutines, %d before; %d bytes lent\n%s", runtime.NumGoroutine(), goroutines,
				buffers.Lent(), stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// certificate is a TLS config with a certificate for localhost, and the pool
// that trusts it.
var certificate = sync.OnceValues(func() (*tls.Config, *x509.CertPool) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost", "other.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	leaf, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}}, pool
})

// config is a front's with long timeouts.
func config(handler exchange.Handler) FrontConfig {
	server, _ := certificate()
	return FrontConfig{
		Handler: handler, Log: slog.New(slog.DiscardHandler), TLS: func() *tls.Config { return server },
		HandshakeTimeout: patience, HeaderTimeout: patience, IdleTimeout: 4 * patience, BodyIdle: patience,
		MaxHeaderBytes: 16 << 10, MaxHeaderFields: 100, MaxURIBytes: 4 << 10, MaxStreams: 100, RetryAbove: 1000,
		ResetKey: [32]byte{1}, TokenKey: [32]byte{2}, Metrics: NewMetrics(nil),
	}
}

// edge is a front that serves on loopback.
type edge struct {
	*Front
	addr *net.UDPAddr
	stop func() // and wait
}

// serve serves until the test ends.
func serve(t testing.TB, c FrontConfig) *edge {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, c, socket)
}

func serveOn(t testing.TB, c FrontConfig, socket *net.UDPConn) *edge {
	f := NewFront(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, socket) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve did not return")
		}
	})
	t.Cleanup(stop)
	return &edge{Front: f, addr: socket.LocalAddr().(*net.UDPAddr), stop: stop}
}

// handlerServe serves one handler with the usual config.
func handlerServe(t testing.TB, handler exchange.Handler) *edge { return serve(t, config(handler)) }

func (e *edge) count(name string) float64 {
	m := e.metrics
	switch name {
	case "retries":
		return testutil.ToFloat64(m.retries)
	case "migrations":
		return testutil.ToFloat64(m.migrations)
	case "refusals":
		return testutil.ToFloat64(m.refusals)
	case "floods":
		return testutil.ToFloat64(m.floods)
	case "connections":
		return testutil.ToFloat64(m.connections)
	}
	kind, label, _ := strings.Cut(name, ":")
	if kind == "early" {
		return testutil.ToFloat64(m.early.WithLabelValues(label))
	}
	return testutil.ToFloat64(m.handshakes.WithLabelValues(label))
}

// await waits until something is so.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// client is a client with one connection.
type client struct {
	t         testing.TB
	transport *quic.Transport
	qc        *quic.Conn
}

func clientTLS() *tls.Config {
	_, pool := certificate()
	return &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h3"}}
}

// dial connects to addr; cfg may be nil.
func dial(t testing.TB, addr *net.UDPAddr, cfg *tls.Config, early bool) (*client, error) {
	t.Helper()
	if cfg == nil {
		cfg = clientTLS()
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, transport: &quic.Transport{Conn: socket, ConnectionIDLength: 8}}
	t.Cleanup(func() {
		if c.qc != nil {
			c.qc.CloseWithError(0x100, "")
		}
		c.transport.Close()
		socket.Close()
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	connect := c.transport.Dial
	if early {
		connect = c.transport.DialEarly
	}
	c.qc, err = connect(ctx, addr, cfg, &quic.Config{MaxIdleTimeout: 2 * patience})
	return c, err
}

// connect dials and must succeed.
func (e *edge) connect(t testing.TB) *client {
	t.Helper()
	c, err := dial(t, e.addr, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// h3 is quic-go's client on the connection. It replaces what is below.
func (c *client) h3() *qh3.ClientConn {
	return (&qh3.Transport{DisableCompression: true}).NewClientConn(c.qc)
}

// greet opens the client's control stream.
func (c *client) greet() *client {
	c.oneWay(append([]byte{streamControl}, frameSettings, 0))
	return c
}

func (c *client) oneWay(b []byte) *quic.SendStream {
	c.t.Helper()
	str, err := c.qc.OpenUniStream()
	if err != nil {
		c.t.Fatal(err)
	}
	str.Write(b)
	return str
}

// closed waits for the connection's end and returns the code that it ended with.
func (c *client) closed() uint64 {
	c.t.Helper()
	select {
	case <-c.qc.Context().Done():
	case <-time.After(patience):
		c.t.Fatal("the connection goes on")
	}
	var e *quic.ApplicationError
	if !errors.As(context.Cause(c.qc.Context()), &e) || !e.Remote {
		c.t.Fatalf("the connection ended with %v", context.Cause(c.qc.Context()))
	}
	return uint64(e.ErrorCode)
}

// call is a request on a stream that is written by hand.
type call struct {
	*quic.Stream
	t  testing.TB
	in input
}

// begin sends raw bytes as a request.
func (c *client) begin(b []byte) *call {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	str, err := c.qc.OpenStreamSync(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	str.SetReadDeadline(time.Now().Add(patience))
	str.Write(b) // whoever reads will know if it failed
	return &call{Stream: str, t: c.t, in: input{r: str}}
}

// headers makes a HEADERS frame of names and values.
func headers(pairs ...string) []byte {
	var block bytes.Buffer
	e := qpack.NewEncoder(&block)
	for i := 0; i < len(pairs); i += 2 {
		e.WriteField(qpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	if block.Len() == 0 {
		block.Write([]byte{0, 0})
	}
	return appendFrame(nil, frameHeaders, block.Bytes())
}

// get makes the HEADERS frame of a request.
func get(method, path string, more ...string) []byte {
	return headers(append([]string{":method", method, ":scheme", "https", ":authority", "localhost", ":path", path}, more...)...)
}

func data(s string) []byte { return appendFrame(nil, frameData, []byte(s)) }

// next returns the next frame.
func (c *call) next() (kind uint64, payload []byte, err error) {
	kind, length, err := c.in.header()
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, length)
	return kind, payload, c.in.full(payload)
}

// head returns the next frame as a header block.
func (c *call) head() (exchange.Fields, error) {
	kind, payload, err := c.next()
	if err != nil {
		return nil, err
	}
	if kind != frameHeaders {
		return nil, fmt.Errorf("a frame of type %d for a head", kind)
	}
	return decode(payload)
}

func decode(block []byte) (fields exchange.Fields, err error) {
	next := qpack.NewDecoder().Decode(block)
	for {
		f, err := next()
		if err == io.EOF {
			return fields, nil
		}
		if err != nil {
			return nil, err
		}
		fields.Add(f.Name, f.Value)
	}
}

// answer reads a final head and the body behind it.
func (c *call) answer() (head exchange.Fields, body string, trailers exchange.Fields, err error) {
	if head, err = c.head(); err != nil {
		return nil, "", nil, err
	}
	for {
		kind, payload, err := c.next()
		switch {
		case err == io.EOF:
			return head, body, trailers, nil
		case err != nil:
			return head, body, trailers, err
		case kind == frameData:
			body += string(payload)
		case kind == frameHeaders:
			if trailers, err = decode(payload); err != nil {
				return head, body, nil, err
			}
		}
	}
}

// resetCode is the code of a stream error from the other end, or 0.
func resetCode(err error) uint64 {
	var e *quic.StreamError
	if errors.As(err, &e) && e.Remote {
		return uint64(e.ErrorCode)
	}
	return 0
}

// ok answers with what the request was.
func ok(_ context.Context, x *exchange.Exchange) {
	if x.Refusal.Status != 0 {
		x.Client.Respond(&exchange.Response{Status: x.Refusal.Status, Length: -1})
		return
	}
	text := fmt.Sprintf("%s %s %s", x.Request.Method, x.Request.Authority, x.Request.Path)
	x.Client.Respond(respond(200, text))
}

// respond is a response with a text.
func respond(status int, text string, fields ...exchange.Field) *exchange.Response {
	return &exchange.Response{Status: status, Fields: fields, Length: int64(len(text)), Body: io.NopCloser(strings.NewReader(text))}
}

// bulk is n bytes that depend on their position.
type bulk struct{ at, n int64 }

func (b *bulk) Read(p []byte) (int, error) {
	if b.at == b.n {
		return 0, io.EOF
	}
	n := min(int64(len(p)), b.n-b.at)
	for i := range n {
		x := b.at + i
		p[i] = byte(x ^ x>>8 ^ x>>16)
	}
	b.at += n
	return int(n), nil
}

func sum(r io.Reader) string {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return fmt.Sprint(n, " ", hex.EncodeToString(h.Sum(nil)), " ", err)
}

// roundTrip makes a request with quic-go's client.
func roundTrip(t testing.TB, c *qh3.ClientConn, r *http.Request) *http.Response {
	t.Helper()
	res, err := c.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func request(method, path string, body io.Reader) *http.Request {
	r, err := http.NewRequest(method, "https://localhost"+path, body)
	if err != nil {
		panic(err)
	}
	return r
}

func text(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
