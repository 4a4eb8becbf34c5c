package matrix

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// A back is how the edge reaches an origin: a column of pairs.
type back struct {
	name     string
	protocol string   // as in the config of a pool
	tls      bool     // to the origin
	alpn     []string // that the origin agrees to, with TLS
	version  int      // of HTTP that is to be spoken

	cutting sync.Mutex // held while a check breaks connections of the kind cut
}

var backs = []*back{
	{name: "h1", protocol: "h1", version: 1},
	{name: "h1tls", protocol: "h1", tls: true, alpn: []string{"h2", "http/1.1"}, version: 1},
	{name: "h2c", protocol: "h2", version: 2},
	{name: "h2tls", protocol: "h2", tls: true, alpn: []string{"h2", "http/1.1"}, version: 2},
	{name: "auto", protocol: "auto", tls: true, alpn: []string{"h2", "http/1.1"}, version: 2},
	{name: "autoh1", protocol: "auto", tls: true, alpn: []string{"http/1.1"}, version: 1},
}

// An origin of a back. Each is a pool of its own, chosen by host.
type kind string

const (
	plain kind = "plain" // net/http
	cut   kind = "cut"   // the same, on connections that only the checks share that break them
	lines kind = "lines" // shows field lines as they came
	calls kind = "calls" // grpc-go
	other kind = "other" // nginx
)

// kinds are the origins that a back has.
func (b *back) kinds() []kind {
	all := []kind{plain, cut, lines}
	if b.version == 2 {
		all = append(all, calls)
	}
	if b.name == "h1" && nginxPath() != "" {
		all = append(all, other)
	}
	return all
}

// zone is the domain of all names.
const zone = "matrix.test"

// host is the name that leads to an origin.
func (b *back) host(k kind) string { return fmt.Sprintf("%s-%s.%s", k, b.name, zone) }

// serve starts an origin and returns its address. It ends with the test.
func (b *back) serve(t *testing.T, k kind, e *edge) net.Addr {
	t.Helper()
	if k == other {
		return serveNginx(t)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	alpn := b.alpn
	if k != plain && k != cut { // these speak one version only
		alpn = map[int][]string{1: {"http/1.1"}, 2: {"h2"}}[b.version]
	}
	var secured *tls.Config
	if b.tls {
		secured = &tls.Config{Certificates: []tls.Certificate{e.certificate}, NextProtos: alpn}
	}
	switch k {
	case lines:
		serveLines(t, l, secured, b.version)
	case calls:
		var options []grpc.ServerOption
		if b.tls {
			options = append(options, grpc.Creds(credentials.NewTLS(secured)))
		}
		serveCalls(t, l, grpc.NewServer(options...))
	default:
		protocols := new(http.Protocols)
		protocols.SetHTTP1(b.version == 1 || slices.Contains(alpn, "http/1.1"))
		protocols.SetHTTP2(b.tls && slices.Contains(alpn, "h2"))
		protocols.SetUnencryptedHTTP2(!b.tls && b.version == 2)
		servePlain(t, l, secured, protocols)
	}
	return l.Addr()
}
