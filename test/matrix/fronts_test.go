package matrix

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A front is a way to reach the edge: a row of the matrix.
type front struct {
	name    string
	port    uint16 // of the listener
	tls     bool
	version int      // of HTTP
	curl    []string // options that make curl speak it; nil: it cannot
}

// The listeners. The ports lie below the range from which the kernel takes the
// ports of outgoing connections.
const (
	clearPort = 18080
	mixedPort = 18081 // both versions in clear text
	tlsPort   = 18443
	adminPort = 18600
)

var fronts = []*front{
	{name: "h1", port: clearPort, version: 1, curl: []string{"--http1.1"}},
	{name: "h1tls", port: tlsPort, tls: true, version: 1, curl: []string{"--http1.1"}},
	{name: "h2c", port: mixedPort, version: 2, curl: []string{"--http2-prior-knowledge"}},
	{name: "h2tls", port: tlsPort, tls: true, version: 2, curl: []string{"--http2"}},
	{name: "h3", port: tlsPort, tls: true, version: 3},
}

func (f *front) scheme() string {
	if f.tls {
		return "https"
	}
	return "http"
}

// alpn are the protocols that a TLS client of this front offers.
func (f *front) alpn() []string {
	return map[int][]string{1: {"http/1.1"}, 2: {"h2"}, 3: {"h3"}}[f.version]
}

// dial connects to the edge, with TLS if the front has it.
func (f *front) dial(ctx context.Context, e *edge) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.at(f.port))
	if err != nil || !f.tls {
		return conn, err
	}
	secure := tls.Client(conn, e.trust(f.alpn()...))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// client is a client written in Go that keeps its connections. Every host is at
// the edge.
type client struct {
	*http.Client
	dials atomic.Int64 // connections made so far
	close func()
}

// newClient returns net/http's client, or quic-go's for HTTP/3.
func (f *front) newClient(e *edge) *client {
	c := new(client)
	if f.version == 3 {
		transport := &http3.Transport{
			TLSClientConfig:    e.trust(),
			DisableCompression: true,
			Dial: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
				c.dials.Add(1)
				return quic.DialAddr(ctx, e.at(f.port), t, q)
			},
		}
		c.Client, c.close = &http.Client{Transport: transport}, func() { transport.Close() }
		return c
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(f.version == 1)
	protocols.SetHTTP2(f.version == 2)
	protocols.SetUnencryptedHTTP2(f.version == 2)
	transport := &http.Transport{
		Protocols:             protocols,
		TLSClientConfig:       e.trust(),
		DisableCompression:    true,
		ExpectContinueTimeout: patience, // so that a body that is sent earlier was asked for
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c.dials.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", e.at(f.port))
		},
	}
	c.Client, c.close = &http.Client{Transport: transport}, transport.CloseIdleConnections
	return c
}
