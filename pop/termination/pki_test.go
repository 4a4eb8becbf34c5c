package termination

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"anyedge/internal/tickets"
)

// authority issues certificates for tests. They are valid at any time that a
// test may play in.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var (
	notBefore = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

func serial(t testing.TB) *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB, name string) *authority {
	a := &authority{t: t, key: ecKey(t)}
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, a.key.Public())
	return a
}

// sign completes a template; an authority without a certificate signs itself.
func (a *authority) sign(template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	template.SerialNumber, template.NotBefore, template.NotAfter = serial(a.t), notBefore, notAfter
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// server returns a certificate for names.
func (a *authority) server(names ...string) CertPEM { return a.serverWithKey(ecKey(a.t), names...) }

// serverRSA is for clients of another age.
func (a *authority) serverRSA(names ...string) CertPEM {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.serverWithKey(key, names...)
}

func (a *authority) serverWithKey(key crypto.Signer, names ...string) CertPEM {
	cert := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return CertPEM{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
}

// client returns a client's certificate, padded by so many bytes.
func (a *authority) client(name string, padding int) tls.Certificate {
	key := ecKey(a.t)
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if padding > 0 {
		template.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4, 5}, Value: make([]byte, padding)}}
	}
	cert := a.sign(template, key.Public())
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// newKey makes a ticket key of its own for every n.
func newKey(n byte) tickets.Key {
	return tickets.Key{ID: tickets.ID{7: n}, Secret: tickets.Secret{n, 31: n}}
}

// result is a connection as both ends saw it.
type result struct {
	client, server tls.ConnectionState
	err            error // of either end
}

// connect makes one connection over loopback, on which one byte goes each way,
// so that the client has seen its ticket.
func connect(t testing.TB, server, client *tls.Config) result {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var r result
	var serverErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		s := tls.Server(conn, server)
		defer s.Close()
		if _, serverErr = io.ReadFull(s, make([]byte, 1)); serverErr != nil {
			return
		}
		r.server = s.ConnectionState()
		_, serverErr = s.Write([]byte{2})
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, client)
	_, clientErr := c.Write([]byte{1})
	if clientErr == nil {
		_, clientErr = io.ReadFull(c, make([]byte, 1))
	}
	r.client = c.ConnectionState()
	c.Close()
	wg.Wait()
	r.err = errors.Join(serverErr, clientErr)
	return r
}
