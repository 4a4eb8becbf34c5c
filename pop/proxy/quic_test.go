package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"anyedge/configs"
)

// listenQUIC adds HTTP/3 to the TLS listener of an edge.
func (e *edge) listenQUIC() {
	e.t.Helper()
	address := net.UDPAddrFromAddrPort(e.snapshot.Listeners[2].Address)
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		e.t.Fatal(err)
	}
	e.worker.AddPacketSocket(secure, socket)
	e.mustApply(func(s *Snapshot) { s.Listeners[2].Protocols = []string{"h1", "h2", "h3"} })
}

// quicClient returns a client that speaks HTTP/3 from an address of its own.
func (e *edge) quicClient() *http.Client {
	e.t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		e.t.Fatal(err)
	}
	transport := &quic.Transport{Conn: socket}
	h3 := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "shop.example"},
		QUICConfig:      &quic.Config{HandshakeIdleTimeout: patience},
		Dial: func(ctx context.Context, _ string, tls *tls.Config, config *quic.Config) (*quic.Conn, error) {
			address, err := net.ResolveUDPAddr("udp", e.address(secure))
			if err != nil {
				return nil, err
			}
			return transport.DialEarly(ctx, address, tls, config)
		},
	}
	e.t.Cleanup(func() {
		h3.Close()
		transport.Close()
		socket.Close()
	})
	return &http.Client{Transport: h3, Timeout: patience}
}

func TestHTTP3(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Alt-Svc", `h3=":1"`) // an origin's word about itself
		w.Header().Set("Seen", r.Header.Get("Via")+", "+r.Header.Get("X-Forwarded-Proto"))
	}))
	e.listenQUIC()

	_, port, _ := strings.Cut(e.address(secure), ":")
	res, err := e.client(secure, "h2").Get("https://shop.example/")
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Alt-Svc"); got != `h3=":`+port+`"; ma=86400` {
		t.Errorf("Alt-Svc %q over HTTP/2", got)
	}
	readAll(t, res.Body)

	client := e.quicClient()
	if res, err = client.Get("https://shop.example/"); err != nil {
		t.Fatal(err)
	}
	readAll(t, res.Body)
	if res.StatusCode != 200 || res.Proto != "HTTP/3.0" || res.Header.Get("Seen") != "3.0 anyedge, https" {
		t.Errorf("%s %s, the origin saw %q", res.Proto, res.Status, res.Header.Get("Seen"))
	}
	if n := e.worker.Vitals().Connections; n < 1 {
		t.Errorf("%d connections: that of HTTP/3 does not count", n)
	}
	eventually(t, "the request is counted", func() bool {
		return metric(t, e, "anyedge_proxy_requests_total", "protocol", "http/3") == 1
	})
}

// A changed listener serves new connections as it says, and old ones to their
// end; one without h3 ends them.
func TestHTTP3Reload(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	e.listenQUIC()
	get := func(client *http.Client) error {
		res, err := client.Get("https://shop.example/" + strings.Repeat("x", 1000))
		if err == nil {
			readAll(t, res.Body)
			if res.StatusCode != 200 {
				t.Logf("status %d", res.StatusCode)
				return http.ErrNotSupported
			}
		}
		return err
	}
	if err := get(e.quicClient()); err != nil {
		t.Fatal(err)
	}
	e.mustApply(func(s *Snapshot) { s.Listeners[2].Limits.URIBytes = 500 })
	if err := get(e.quicClient()); err != http.ErrNotSupported {
		t.Errorf("a long path over a new connection: %v", err)
	}
	e.mustApply(func(s *Snapshot) {
		s.Listeners[2].Protocols = []string{"h1", "h2"}
		s.DrainTimeout = configs.Duration(50 * time.Millisecond)
	})
	eventually(t, "the socket is closed", func() bool {
		socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(e.snapshot.Listeners[2].Address))
		if err != nil {
			return false
		}
		socket.Close()
		return true
	})
	eventually(t, "the connections are gone", func() bool { return e.worker.Vitals().Connections == 0 })
}

func TestHTTP3NeedsItsSocket(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	err := e.apply(func(s *Snapshot) { s.Listeners[2].Protocols = []string{"h3"} })
	if err == nil || !strings.Contains(err.Error(), "no UDP socket for secure") {
		t.Errorf("error %v", err)
	}
}

// HTTP/3 connections count against a client's bound like others.
func TestHTTP3ClientConnections(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	e.listenQUIC()
	e.mustApply(func(s *Snapshot) { s.Listeners[2].Limits.ClientConnections = 1 })
	if _, err := e.quicClient().Get("https://shop.example/"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.quicClient().Get("https://shop.example/"); err == nil || !strings.Contains(err.Error(), "CONNECTION_REFUSED") {
		t.Errorf("one too many: %v", err)
	}
}
