package rig

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// ClientTLS is the configuration of a client of the rig: TLS 1.3 with X25519
// only, and no certificate but the rig's own. It offers no protocol, which means
// HTTP/1.1.
func (r *Rig) ClientTLS() *tls.Config {
	return &tls.Config{
		ServerName:       Name,
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
		// The certificate is known, so comparing it is all there is to verify,
		// and it costs the generator nothing.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, r.leaf) {
				return errors.New("not the certificate of the rig")
			}
			return nil
		},
	}
}

// Verify proves that a proxy offers what all of them must: the same TLS
// parameters, HTTP/2 by ALPN, HTTP/1.1 without, and the origin's bodies whole.
func (r *Rig) Verify(ctx context.Context, p *Process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := r.verifyTLS(ctx, p); err != nil {
		return fmt.Errorf("%s: %w", p.Kind, err)
	}
	for _, h2 := range []bool{false, true} {
		for path, size := range map[string]int{SmallPath: SmallSize, LargePath: LargeSize} {
			if err := r.verifyBody(ctx, p, h2, path, size); err != nil {
				return fmt.Errorf("%s: GET %s, HTTP/2 %t: %w", p.Kind, path, h2, err)
			}
		}
	}
	return nil
}

func (r *Rig) verifyTLS(ctx context.Context, p *Process) error {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * time.Second}, Config: r.ClientTLS()}
	c, err := d.DialContext(ctx, "tcp", p.TLS.String())
	if err != nil {
		return err
	}
	defer c.Close()
	s := c.(*tls.Conn).ConnectionState()
	if s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || s.CurveID != tls.X25519 {
		return fmt.Errorf("TLS with %s and %s", tls.CipherSuiteName(s.CipherSuite), s.CurveID)
	}
	return nil
}

func (r *Rig) verifyBody(ctx context.Context, p *Process, h2 bool, path string, size int) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	transport := &http.Transport{TLSClientConfig: r.ClientTLS(), Protocols: protocols, DisableCompression: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.TLS.String()+path, nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return errors.New("status " + res.Status)
	case (res.ProtoMajor == 2) != h2:
		return errors.New("answered with " + res.Proto)
	case !bytes.Equal(got, body(size)):
		return fmt.Errorf("%d bytes that are not the origin's body of %d", len(got), size)
	}
	return nil
}
