package http2

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// patience bounds every wait of the tests for something that must happen.
const patience = 10 * time.Second

// maxStreams is that of the tests' fronts.
const maxStreams = 128

// config is a front's with long timeouts.
func config(handler exchange.Handler) FrontConfig {
	return FrontConfig{
		Handler: handler, Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(nil),
		HeaderTimeout: patience, IdleTimeout: 6 * patience, BodyIdle: patience,
		MaxStreams: maxStreams, MaxHeaderBytes: 32 << 10, MaxHeaderFields: 100, MaxURIBytes: 8 << 10,
	}
}

type frontLike interface {
	ServeConn(context.Context, net.Conn, *exchange.Conn)
}

// serve serves on loopback until the test ends, with TLS if secure is not nil.
func serve(t testing.TB, front frontLike, secure *tls.Config) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	tasks.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[nc] = true
			mu.Unlock()
			tasks.Go(func() {
				defer func() {
					mu.Lock()
					delete(open, nc)
					mu.Unlock()
				}()
				info := &exchange.Conn{Client: nc.RemoteAddr().(*net.TCPAddr).AddrPort(), HTTP2: true}
				if secure == nil {
					front.ServeConn(ctx, nc, info)
					return
				}
				server := tls.Server(nc, secure)
				if server.HandshakeContext(ctx) != nil {
					nc.Close()
					return
				}
				info.TLS = &exchange.TLS{}
				front.ServeConn(ctx, server, info)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		mu.Lock()
		for nc := range open {
			nc.Close()
		}
		mu.Unlock()
		tasks.Wait()
	})
	return l.Addr().String()
}

// certificate is a TLS config with a certificate for localhost, and the pool
// that trusts it.
var certificate = sync.OnceValues(func() (*tls.Config, *x509.CertPool) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	leaf, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"},
	}, pool
})

// testServer is what the tests' clients talk to.
func testServer(_ context.Context, x *exchange.Exchange) {
	r := &x.Request
	path, query, _ := strings.Cut(r.Path, "?")
	n, _ := strconv.ParseInt(query, 10, 64)
	switch {
	case x.Refusal.Status != 0:
		respond(x, x.Refusal.Status, 0, nil)
	case r.Upgrade == "websocket":
		echoTunnel(x)
	case path == "/bytes": // n bytes of a known length
		respond(x, 200, n, io.LimitReader(zeros{}, n))
	case path == "/stream": // n bytes of an unknown length, and trailers
		x.Client.Respond(&exchange.Response{Status: 200, Length: -1, Body: io.NopCloser(io.LimitReader(zeros{}, n)),
			Trailers: &exchange.Fields{{Name: "X-Sum", Value: query}}})
	case path == "/echo":
		x.Client.Respond(&exchange.Response{Status: 200, Length: -1, Body: io.NopCloser(bodyOf(r)), Trailers: r.Trailers})
	case path == "/status":
		respond(x, int(n), -1, nil)
	case path == "/early":
		x.Client.Inform(103, exchange.Fields{{Name: "Link", Value: "</a>"}})
		respond(x, 200, 2, strings.NewReader("ok"))
	case path == "/broken":
		x.Client.Respond(&exchange.Response{Status: 200, Length: 10, Body: io.NopCloser(strings.NewReader("short"))})
	case path == "/head":
		var b bytes.Buffer
		for _, f := range r.Fields {
			b.WriteString(f.Name + ": " + f.Value + "\n")
		}
		respond(x, 200, int64(b.Len()), &b)
	default:
		io.Copy(io.Discard, bodyOf(r))
		respond(x, 200, 1024, io.LimitReader(zeros{}, 1024))
	}
}

func respond(x *exchange.Exchange, status int, length int64, body io.Reader) error {
	r := &exchange.Response{Status: status, Length: length, Fields: exchange.Fields{
		{Name: "Content-Type", Value: "text/plain"}, {Name: "Cache-Control", Value: "no-store"},
		{Name: "Connection", Value: "x-hop"},
	}}
	if body != nil {
		r.Body = io.NopCloser(body)
	}
	return x.Client.Respond(r)
}

func bodyOf(r *exchange.Request) io.Reader {
	if r.Body == nil {
		return strings.NewReader("")
	}
	return r.Body
}

// accept upgrades to a WebSocket as an origin would. It returns nil on failure.
func accept(x *exchange.Exchange) exchange.Tunnel {
	t, err := x.Client.Upgrade(exchange.Fields{
		{Name: "Sec-WebSocket-Accept", Value: exchange.WebSocketAccept(x.Request.Fields.Get("Sec-WebSocket-Key"))},
		{Name: "Sec-WebSocket-Protocol", Value: "echo"},
	})
	if err != nil {
		return nil
	}
	return t
}

func echoTunnel(x *exchange.Exchange) {
	t := accept(x)
	if t == nil {
		return
	}
	defer t.Close()
	if _, err := io.Copy(t, t); err == nil {
		t.CloseWrite()
	}
}

// zeros is an endless body of '0'.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

// checkBuffers fails the test if buffers are in use at its end.
func checkBuffers(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if n := buffers.Lent(); n != 0 {
			t.Errorf("%d bytes of buffers are still lent", n)
		}
	})
}

var testInfo = &exchange.Conn{Client: netip.MustParseAddrPort("192.0.2.1:1"), HTTP2: true}
