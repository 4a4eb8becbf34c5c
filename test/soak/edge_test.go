package soak

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/configs"
	"anyedge/origin"
	"anyedge/pop/proxy"
	"anyedge/pop/termination"
)

// zone is the domain of all names.
const zone = "soak.test"

// front is a way to reach the edge. Each client has its own.
type front struct {
	name     string
	listener string
	tls      bool
	alpn     string
	open     func(ctx context.Context, e *edge) (session, error) // nil: HTTP/1.1
	sessions tls.ClientSessionCache
}

func (f *front) scheme() string {
	if f.tls {
		return "https"
	}
	return "http"
}

// The listeners.
const (
	clear1 = "clear"
	mixed  = "mixed" // both versions
	secure = "secure"
)

func fronts() []*front {
	all := []*front{
		{name: "h1", listener: clear1},
		{name: "h1mixed", listener: mixed},
		{name: "h1tls", listener: secure, tls: true, alpn: "http/1.1"},
		{name: "h2c", listener: mixed, alpn: "h2"},
		{name: "h2tls", listener: secure, tls: true, alpn: "h2"},
		{name: "h3", listener: secure, tls: true, alpn: "h3"},
	}
	for _, f := range all {
		f.sessions = tls.NewLRUClientSessionCache(2)
		switch f.alpn {
		case "h2":
			f.open = f.openH2
		case "h3":
			f.open = f.openH3
		}
	}
	return all
}

// dial connects to the edge, with TLS if the front has it.
func (f *front) dial(ctx context.Context, e *edge) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.addresses[f.listener].String())
	if err != nil || !f.tls {
		return conn, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	secured := tls.Client(conn, f.trust(e))
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// trust is the config of a TLS client of the edge, which resumes sessions.
func (f *front) trust(e *edge) *tls.Config {
	return &tls.Config{RootCAs: e.authorities, ServerName: "edge." + zone, NextProtos: []string{f.alpn}, ClientSessionCache: f.sessions}
}

// back is how the edge reaches origins.
type back struct {
	name     string
	protocol string // as in the config of a pool
	tls      bool
}

func backs() []*back {
	return []*back{
		{name: "h1", protocol: "h1"},
		{name: "h1tls", protocol: "h1", tls: true},
	}
}

// secured is what an origin of the back needs; nil in clear text.
func (b *back) secured(e *edge) *tls.Config {
	if !b.tls {
		return nil
	}
	return &tls.Config{Certificates: []tls.Certificate{e.certificate}, NextProtos: []string{"http/1.1"}}
}

// edge is a worker that runs.
type edge struct {
	worker      *proxy.Worker
	stop        context.CancelFunc
	stopped     chan struct{} // closed when Run has returned
	addresses   map[string]netip.AddrPort
	authorities *x509.CertPool
	certificate tls.Certificate
	pem         termination.CertPEM
	log         *watcher

	mu       sync.Mutex
	snapshot proxy.Snapshot // the last one that was applied
}

// startEdge starts a worker with pools that have no backends yet.
func startEdge(t *testing.T, s *soak, pools []proxy.Pool) *edge {
	e := &edge{stopped: make(chan struct{}), addresses: make(map[string]netip.AddrPort)}
	e.makeCertificate(t)
	registry := prometheus.NewRegistry()
	e.log = &watcher{soak: s}
	e.worker = proxy.New(slog.New(e.log), registry)
	e.snapshot = proxy.Snapshot{
		Generation: 1, LogRequests: true, MinTLS: "1.2", Certificates: []termination.CertPEM{e.pem},
		DrainTimeout: configs.Duration(2 * time.Second), VitalsInterval: configs.Duration(time.Second),
	}
	for _, l := range []configs.Listener{
		{Name: clear1, Clear: true, Protocols: []string{"h1"}},
		{Name: mixed, Clear: true, Protocols: []string{"h1", "h2"}},
		{Name: secure, Protocols: []string{"h1", "h2", "h3"}},
	} {
		socket, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Address = socket.Addr().(*net.TCPAddr).AddrPort()
		l.Limits = configs.ListenerLimits{HeaderBytes: 32 << 10, HeaderFields: 100, URIBytes: 8 << 10, Streams: 128, ClientConnections: 1024, BodyRate: 256}
		d := configs.Duration(patience)
		l.Timeouts = configs.ListenerTimeouts{Handshake: d, Header: d, Idle: 4 * d, BodyIdle: d}
		e.addresses[l.Name] = l.Address
		e.worker.AddSocket(l.Name, socket)
		if l.Name == secure {
			packets, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(l.Address))
			if err != nil {
				t.Fatal(err)
			}
			e.worker.AddPacketSocket(l.Name, packets)
		}
		e.snapshot.Listeners = append(e.snapshot.Listeners, l)
	}
	for _, p := range pools {
		if p.Config.TLS != nil {
			p.CA = e.pem.Cert
		}
		e.snapshot.Pools = append(e.snapshot.Pools, p)
		e.snapshot.Routes = append(e.snapshot.Routes, configs.Route{Match: configs.Match{Host: p.Config.Name + "." + zone}, Pool: p.Config.Name, Timeout: configs.Duration(patience)})
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
	return e
}

// apply changes the snapshot and applies it.
func (e *edge) apply(change func(*proxy.Snapshot)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.snapshot
	next.Listeners = append([]configs.Listener(nil), next.Listeners...)
	next.Routes = append([]configs.Route(nil), next.Routes...)
	next.Pools = append([]proxy.Pool(nil), next.Pools...)
	next.Generation++
	change(&next)
	if err := e.worker.Apply(&next); err != nil {
		return err
	}
	e.snapshot = next
	return nil
}

// newPool is the pool of a back. A flaky one is checked often, the backends of
// the others stay unknown, so that all of them are picked.
func newPool(name string, b *back, flaky bool) proxy.Pool {
	warm, second := 1, configs.Duration(time.Second)
	p := proxy.Pool{Config: configs.Pool{
		Name: name, Protocol: b.protocol, Warm: &warm, Balance: origin.RoundRobin,
		ConnectTimeout: configs.Duration(patience), FirstByteTimeout: configs.Duration(patience), IdleTimeout: configs.Duration(patience),
		Health: configs.PoolHealth{Type: "tcp", Interval: configs.Duration(time.Hour), Timeout: second, Rise: 100, Fall: 100},
	}}
	if flaky {
		p.Config.Health.Interval, p.Config.Health.Rise, p.Config.Health.Fall = second/10, 1, 2
	}
	if b.tls {
		p.Config.TLS = &configs.PoolTLS{ServerName: "origin." + zone}
	}
	return p
}

// makeCertificate makes a certificate for all names, which is its own authority.
func (e *edge) makeCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: zone}, DNSNames: []string{"*." + zone},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	e.pem = termination.CertPEM{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}
	if e.certificate, err = tls.X509KeyPair(e.pem.Cert, e.pem.Key); err != nil {
		t.Fatal(err)
	}
	e.authorities = x509.NewCertPool()
	e.authorities.AppendCertsFromPEM(e.pem.Cert)
}
