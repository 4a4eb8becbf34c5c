package termination

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func certs(all ...*x509.Certificate) []*x509.Certificate { return all }

// session returns a session with so many extra bytes in its encoding.
func session(t testing.TB, extra int) *tls.SessionState {
	// As crypto/tls encodes one: TLS 1.3, server, a cipher suite, time, secret,
	// extra, two flags, no certificates, no chains.
	data := []byte{3, 4, 1, 0x13, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	s, err := tls.ParseSessionState(data)
	if err != nil {
		t.Fatal(err)
	}
	if extra > 0 {
		s.Extra = [][]byte{make([]byte, extra-3)} // its length takes three bytes
	}
	return s
}

func TestCertificateByName(t *testing.T) {
	ca := newAuthority(t, "ca")
	first := ca.server("first.example")
	wild := ca.server("*.shop.example", "shop.example")
	exact := ca.server("API.shop.example")
	ec, legacy := ca.server("both.example"), ca.serverRSA("both.example")
	index, errs := parseCertificates([]CertPEM{first, wild, exact, ec, legacy})
	if errs != nil {
		t.Fatal(errs)
	}
	leaf := func(c CertPEM) string {
		pair, err := tls.X509KeyPair(c.Cert, c.Key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pair.Certificate[0])
	}
	for _, tt := range []struct {
		name string
		want CertPEM
	}{
		{"first.example", first},
		{"", first},
		{"unknown.example", first},
		{"shop.example", wild},
		{"www.shop.example", wild},
		{"WWW.Shop.Example", wild},
		{"a.b.shop.example", first}, // a wildcard stands for one label
		{"api.shop.example", exact},
		{"localhost", first},
	} {
		got, err := index.choose(&tls.ClientHelloInfo{ServerName: tt.name})
		if err != nil || string(got.Certificate[0]) != leaf(tt.want) {
			t.Errorf("%q: %v, error %v", tt.name, got.Leaf.DNSNames, err)
		}
	}

	// Of two for one name, the client's abilities decide.
	term, err := New(Config{Certificates: []CertPEM{ec, legacy}})
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256} {
		r := connect(t, term.TLSConfig(), &tls.Config{
			RootCAs: ca.pool(), ServerName: "both.example", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite},
		})
		if r.err != nil {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), r.err)
			continue
		}
		_, isRSA := r.client.PeerCertificates[0].PublicKey.(*rsa.PublicKey)
		if want := suite == tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256; isRSA != want {
			t.Errorf("%s: RSA %v", tls.CipherSuiteName(suite), isRSA)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	servers, clients, strangers := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "clients")
	asking, err := New(Config{Certificates: []CertPEM{servers.server("shop.example")}, ClientCAs: clients.pem()})
	if err != nil {
		t.Fatal(err)
	}
	indifferent, err := New(Config{Certificates: []CertPEM{servers.server("shop.example")}})
	if err != nil {
		t.Fatal(err)
	}
	alice, stranger := clients.client("alice", 0), strangers.client("alice", 0)
	for _, tt := range []struct {
		name string
		term *Terminator
		cert *tls.Certificate
		ok   bool
		peer bool
	}{
		{"verified", asking, &alice, true, true},
		{"none given", asking, nil, true, false},
		{"of a stranger of the same name", asking, &stranger, false, false},
		{"not asked for", indifferent, &stranger, true, false},
	} {
		client := &tls.Config{RootCAs: servers.pool(), ServerName: "shop.example"}
		if tt.cert != nil {
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tt.cert, nil }
		}
		r := connect(t, tt.term.TLSConfig(), client)
		if (r.err == nil) != tt.ok || (len(r.server.VerifiedChains) > 0) != tt.peer {
			t.Errorf("%s: error %v, %d chains", tt.name, r.err, len(r.server.VerifiedChains))
		}
	}
}

func TestVersionsAndProtocols(t *testing.T) {
	ca := newAuthority(t, "ca")
	for _, tt := range []struct {
		min, client uint16
		ok          bool
	}{
		{0, tls.VersionTLS11, false},
		{0, tls.VersionTLS12, true},
		{tls.VersionTLS13, tls.VersionTLS12, false},
		{tls.VersionTLS13, tls.VersionTLS13, true},
	} {
		protos := []string{"h2", "http/1.1"}
		term, err := New(Config{Certificates: []CertPEM{ca.server("shop.example")}, MinVersion: tt.min, NextProtos: protos})
		if err != nil {
			t.Fatal(err)
		}
		protos[0] = "mine" // a config is not the Terminator's to share
		r := connect(t, term.TLSConfig(), &tls.Config{
			RootCAs: ca.pool(), ServerName: "shop.example", MinVersion: tls.VersionTLS10, MaxVersion: tt.client, NextProtos: []string{"http/1.1", "h2"},
		})
		if (r.err == nil) != tt.ok {
			t.Errorf("minimum %s, client %s: %v", tls.VersionName(tt.min), tls.VersionName(tt.client), r.err)
		}
		if tt.ok && r.client.NegotiatedProtocol != "h2" {
			t.Errorf("protocol %q, want the server's first", r.client.NegotiatedProtocol)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ca := newAuthority(t, "ca")
	a, b := ca.server("a.example"), ca.server("b.example")
	for _, tt := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"no certificate", Config{}, []string{"no certificate"}},
		{"another's key, no PEM, an odd version, all at once",
			Config{Certificates: []CertPEM{a, {a.Cert, b.Key}, {[]byte("x"), a.Key}}, MinVersion: tls.VersionTLS11, ClientCAs: []byte("x")},
			[]string{"certificates[1]: ", "certificates[2]: ", "client CAs: not PEM", "minimum version TLS 1.1"}},
		{"a key as authority", Config{Certificates: []CertPEM{a}, ClientCAs: append(ca.pem(), a.Key...)}, []string{`client CAs: PEM block "PRIVATE KEY" is no certificate`}},
		{"rubbish after an authority", Config{Certificates: []CertPEM{a}, ClientCAs: append(ca.pem(), "rubbish"...)}, []string{"client CAs: not PEM"}},
		{"a damaged authority", Config{Certificates: []CertPEM{a}, ClientCAs: []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")}, []string{"client CAs: x509"}},
	} {
		_, err := New(tt.cfg)
		if err == nil {
			t.Errorf("%s: no error", tt.name)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", tt.name, err, want)
			}
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	pair := newAuthority(t, "ca").server("a.example")
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb, pair, &pair, struct{ Certs []CertPEM }{[]CertPEM{pair}})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "pair", pair)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "pair", pair)
	key := pair.Key[40:60]
	for _, form := range []string{string(key), fmt.Sprintf("%x", key), fmt.Sprintf("%X", key), strings.Trim(fmt.Sprint(key), "[]"), base64.StdEncoding.EncodeToString(key)[4:24]} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the key is printed as %s", form)
		}
	}
}

func TestCounters(t *testing.T) {
	var c Counters
	for _, s := range []tls.ConnectionState{
		{Version: tls.VersionTLS12}, {Version: tls.VersionTLS13}, {Version: tls.VersionTLS13, DidResume: true},
		{Version: tls.VersionTLS13, DidResume: true}, {Version: tls.VersionTLS11}, {},
	} {
		c.Handshake(s)
	}
	for _, tt := range []struct {
		version uint16
		resumed bool
		want    uint64
	}{
		{tls.VersionTLS12, false, 1}, {tls.VersionTLS12, true, 0}, {tls.VersionTLS13, false, 1}, {tls.VersionTLS13, true, 2}, {tls.VersionTLS11, false, 0},
	} {
		if got := c.Handshakes(tt.version, tt.resumed); got != tt.want {
			t.Errorf("%s, resumed %v: %d, want %d", tls.VersionName(tt.version), tt.resumed, got, tt.want)
		}
	}
	seen := make(map[string]bool)
	for _, o := range Outcomes() {
		if o.String() == "" || seen[o.String()] {
			t.Errorf("outcome %d is called %q", int(o), o)
		}
		seen[o.String()] = true
	}
}
