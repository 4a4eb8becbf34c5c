// Package termination puts certificates and shared session tickets into
// crypto/tls.
//
// # Why sessions are sealed per trust domain
//
// A resumed TLS session skips the certificates: whoever holds a ticket is taken
// for the client that was verified when the session was made. If two virtual
// hosts share a ticket key but trust different client authorities, then a
// client that one of them verified can present its session to the other and be
// let in there, with a certificate that the other never would have accepted.
// Servers have had this hole again and again (nginx CVE-2025-23419, Go
// CVE-2025-68121), each closed by a check after decryption, which a later change
// can bypass.
//
// Here a session cannot be decrypted outside its trust domain in the first
// place. Tickets are not sealed with the fleet's key but with one derived from
// it (HKDF, RFC 5869) for the domain's name and the very set of its client
// authorities, so a change of authorities ends the sessions that the old ones
// admitted, even if nobody thought of renaming the domain. Nodes with equal
// domains share sessions. In addition the server name is authenticated: a
// session resumes only under the name for which it was made (RFC 6066,
// section 3).
//
// # What a ticket looks like
//
//	version (1 byte) | key id (8) | issued, Unix seconds (8) | nonce (24) | ciphertext and tag
//
// The session is sealed with XChaCha20-Poly1305, whose nonces are long enough
// to be drawn at random by any number of nodes under one key. All that comes
// before the nonce is authenticated. The key id saves trial decryption, and the
// time of issue bounds a ticket's life even while the keys do not rotate.
//
// # Concurrency
//
// Everything may be used by any number of goroutines at once. A handshake loads
// the keys through one atomic pointer and takes no lock.
package termination

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"anyedge/internal/tickets"
)

// Config is what a [Terminator] is made of.
type Config struct {
	// Certificates are chosen by server name; the first is the default. At
	// least one.
	Certificates []CertPEM
	// ClientCAs are certificates in PEM. If there are any, clients are asked
	// for a certificate, and one that they give must verify against these.
	// Whether a request without one is served is for policy to say: a node
	// could not be probed through its own address otherwise.
	ClientCAs []byte
	// MinVersion is [tls.VersionTLS12] (default) or [tls.VersionTLS13].
	MinVersion uint16
	// NextProtos are offered by ALPN (RFC 7301), the preferred one first.
	NextProtos []string
	// Domain names the trust domain. Sessions resume only in a Terminator with
	// the same Domain and the same ClientCAs, on this node or another.
	Domain string
	// Counters count what happens. They may be shared with other Terminators,
	// and outlive them. Nil means that nobody counts.
	Counters *Counters
}

// Terminator terminates TLS for one trust domain.
type Terminator struct {
	config   *tls.Config // never mutated after New
	trust    []byte      // names the trust domain in key derivation
	sealers  atomic.Pointer[sealers]
	counters *Counters
}

// New returns a Terminator without ticket keys; see [Terminator.SetKeys]. The
// error joins all that is wrong with the config.
func New(cfg Config) (*Terminator, error) {
	index, errs := parseCertificates(cfg.Certificates)
	roots, authorities, err := parseAuthorities(cfg.ClientCAs)
	if err != nil {
		errs = append(errs, fmt.Errorf("client CAs: %w", err))
	}
	minVersion := cmp.Or(cfg.MinVersion, tls.VersionTLS12)
	if minVersion != tls.VersionTLS12 && minVersion != tls.VersionTLS13 {
		errs = append(errs, fmt.Errorf("minimum version %s is neither TLS 1.2 nor TLS 1.3", tls.VersionName(minVersion)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t := &Terminator{
		trust:    trustOf(cfg.Domain, authorities),
		counters: cmp.Or(cfg.Counters, new(Counters)),
	}
	t.sealers.Store(new(sealers))
	t.config = &tls.Config{
		GetCertificate: index.choose,
		ClientCAs:      roots,
		MinVersion:     minVersion,
		NextProtos:     slices.Clone(cfg.NextProtos),
		WrapSession:    t.wrap,
		UnwrapSession:  t.unwrap,
	}
	if roots != nil {
		t.config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return t, nil
}

// SetKeys replaces the ticket keys: the first encrypts, all decrypt. It takes
// effect for every config that TLSConfig ever returned, from the next handshake
// on. With no keys, sessions neither resume nor can be resumed later.
func (t *Terminator) SetKeys(keys []tickets.Key) {
	t.sealers.Store(newSealers(keys, t.trust))
}

// TLSConfig returns a config of the caller's own for a server. Clones of it are
// as good: certificates and keys are read through functions, so none goes
// stale.
func (t *Terminator) TLSConfig() *tls.Config { return t.config.Clone() }
