package termination

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// CertPEM is a certificate chain and its private key in PEM, the leaf first.
// Printing or logging one shows no key; its JSON form has it.
type CertPEM struct {
	Cert []byte `json:"cert"`
	Key  []byte `json:"key"`
}

const redacted = "[certificate, key redacted]"

// Format implements [fmt.Formatter]: no verb prints the key.
func (CertPEM) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (CertPEM) LogValue() slog.Value { return slog.StringValue(redacted) }

// certificates finds a certificate by server name. It is never mutated.
type certificates struct {
	first  *tls.Certificate
	byName map[string][]*tls.Certificate // DNS names of the leaves in lower case, "*." and all
}

func parseCertificates(pairs []CertPEM) (*certificates, []error) {
	c := &certificates{byName: make(map[string][]*tls.Certificate)}
	if len(pairs) == 0 {
		return nil, []error{errors.New("no certificate")}
	}
	var errs []error
	for i, p := range pairs {
		cert, err := tls.X509KeyPair(p.Cert, p.Key)
		if err != nil {
			errs = append(errs, fmt.Errorf("certificates[%d]: %w", i, err))
			continue
		}
		if c.first == nil {
			c.first = &cert
		}
		for _, name := range cert.Leaf.DNSNames {
			name = strings.ToLower(name)
			c.byName[name] = append(c.byName[name], &cert)
		}
	}
	return c, errs
}

// choose picks the certificate for a client: one for the very name, else one
// whose wildcard stands for the name's first label (RFC 6125, section 6.4.3),
// else the first of all. Of several for one name it picks the first whose key
// the client can verify.
func (c *certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	fit := c.byName[name]
	if fit == nil {
		if _, parent, ok := strings.Cut(name, "."); ok {
			fit = c.byName["*."+parent]
		}
	}
	switch len(fit) {
	case 0:
		return c.first, nil
	case 1:
		return fit[0], nil
	}
	for _, cert := range fit {
		if hello.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	return fit[0], nil
}

// parseAuthorities returns the authorities in data, once as a pool and once
// sorted and without repetitions. Both are nil for empty data.
func parseAuthorities(data []byte) (*x509.CertPool, []*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, nil, errors.New("not PEM")
		}
		if block.Type != "CERTIFICATE" {
			return nil, nil, fmt.Errorf("PEM block %q is no certificate", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, nil, nil
	}
	slices.SortFunc(all, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	all = slices.CompactFunc(all, (*x509.Certificate).Equal)
	pool := x509.NewCertPool()
	for _, cert := range all {
		pool.AddCert(cert)
	}
	return pool, all, nil
}
