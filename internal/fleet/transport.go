package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// newTransport returns the address in URL form and the transport that reaches it.
func newTransport(cfg ConsulConfig) (*url.URL, *http.Transport, error) {
	secure := cfg.CAFile != "" || cfg.CertFile != ""
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
	}
	address := &url.URL{Scheme: "http", Host: cfg.Address}
	if path, ok := strings.CutPrefix(cfg.Address, "unix://"); ok {
		address.Host = "localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	} else if strings.Contains(cfg.Address, "://") {
		var err error
		if address, err = url.Parse(cfg.Address); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case address.Host == "":
		return nil, nil, errors.New("address is required")
	case address.Scheme != "http" && address.Scheme != "https":
		return nil, nil, fmt.Errorf("scheme %q is none of http, https and unix", address.Scheme)
	}
	if secure {
		address.Scheme = "https"
	}
	if address.Scheme == "http" {
		return address, transport, nil
	}
	var err error
	transport.TLSClientConfig, err = clientTLS(cfg)
	return address, transport, err
}

func clientTLS(cfg ConsulConfig) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities: no certificate in %s", cfg.CAFile)
		}
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("client certificate and its key go together")
	}
	if cfg.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("client certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return conf, nil
}

// tokenFile puts the ACL token of a file on every request. Its first reading
// must have succeeded.
type tokenFile struct {
	path string
	next http.RoundTripper

	mu       sync.Mutex
	token    string
	modified time.Time // of the file that token came from
	size     int64
}

// RoundTrip implements [http.RoundTripper].
func (f *tokenFile) RoundTrip(r *http.Request) (*http.Response, error) {
	token, _ := f.current() // the last good one while the file cannot be read
	r = r.Clone(r.Context())
	r.Header.Set("X-Consul-Token", token)
	return f.next.RoundTrip(r)
}

// current returns the file's token, reading it again if the file has changed.
// With an error it returns the last good token.
func (f *tokenFile) current() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return f.token, err
	}
	if f.token != "" && info.ModTime().Equal(f.modified) && info.Size() == f.size {
		return f.token, nil
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return f.token, err
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return f.token, fmt.Errorf("%s is empty", f.path)
	}
	f.token, f.modified, f.size = token, info.ModTime(), info.Size()
	return f.token, nil
}
