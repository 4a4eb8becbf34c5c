package gslb

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// certificate is a self-signed one for 127.0.0.1, and a config that trusts it.
func certificate(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}

// startEncrypted runs a server with all transports, and returns the addresses of
// the encrypted ones.
func startEncrypted(t *testing.T) (dot, doh string, client *tls.Config) {
	t.Helper()
	free := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	server, client := certificate(t)
	s, _, _ := start(t, Config{TLS: free, HTTPS: free, TLSConfig: server})
	return s.Addresses()[1].String(), "https://" + s.Addresses()[2].String() + "/dns-query", client
}

func TestDNSOverTLS(t *testing.T) {
	dot, _, config := startEncrypted(t)
	c := dns.Client{Net: "tcp-tls", TLSConfig: config, Timeout: 5 * time.Second}
	conn, err := c.Dial(dot)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, padded := range []bool{false, true} {
		q := asker("www.edge.example", dns.TypeA)
		q.SetEdns0(1232, false)
		if padded {
			q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 20)}}
		}
		got, _, err := c.ExchangeWithConn(q, conn)
		if err != nil || len(got.Answer) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
		if options := got.IsEdns0().Option; padded != (len(options) == 1) {
			t.Errorf("padded %v: options %v", padded, options)
		}
	}
}

func TestDNSOverHTTPS(t *testing.T) {
	_, doh, config := startEncrypted(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	wire, err := asker("first.edge.example", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	query := base64.RawURLEncoding.EncodeToString(wire)
	tests := []struct {
		about, method, url, contentType string
		body                            []byte
		status                          int
	}{
		{"GET", "GET", doh + "?dns=" + query, "", nil, 200},
		{"POST", "POST", doh, dohType, wire, 200},
		{"no parameter", "GET", doh, "", nil, 400},
		{"base64 of another kind", "GET", doh + "?dns=" + query + "==", "", nil, 400},
		{"not a query", "POST", doh, dohType, []byte("short"), 400},
		{"another type", "POST", doh, "application/json", wire, 415},
		{"too long", "POST", doh, dohType, make([]byte, 65536), 413},
		{"another method", "PUT", doh, dohType, wire, 405},
		{"another path", "GET", strings.Replace(doh, "query", "other", 1), "", nil, 404},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, tt.url, bytes.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", tt.contentType)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != tt.status || res.ProtoMajor != 2 {
				t.Fatalf("%s %s, %v", res.Proto, res.Status, err)
			}
			if tt.status != 200 {
				return
			}
			if got := unpack(t, body); text(got.Answer) != "first.edge.example. 20 A 192.0.2.1" {
				t.Errorf("got %v", got)
			}
			if res.Header.Get("Content-Type") != dohType || res.Header.Get("Cache-Control") != "private, max-age=20" {
				t.Errorf("header %v", res.Header)
			}
		})
	}
}
