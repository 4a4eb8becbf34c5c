package matrix

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"anyedge/internal/daemon"
)

// edge is a node of anyedge that runs, with an origin behind each pool.
type edge struct {
	address     netip.Addr
	caFile      string
	authorities *x509.CertPool
	certificate tls.Certificate // of the listeners and the origins
}

// at is where a port of the edge is.
func (e *edge) at(port uint16) string { return netip.AddrPortFrom(e.address, port).String() }

// trust is the config of a TLS client of the edge.
func (e *edge) trust(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: e.authorities, NextProtos: alpn, ServerName: "edge." + zone}
}

// startEdge starts the origins and a node before them, and waits until every
// pool is served. All of it ends with the test.
func startEdge(t *testing.T) *edge {
	t.Helper()
	pid := os.Getpid()
	e := &edge{address: netip.AddrFrom4([4]byte{127, byte(64 + pid>>16&63), byte(pid >> 8), byte(pid)})}
	dir := t.TempDir()
	e.makeCertificate(t, dir)
	config := filepath.Join(dir, "pop.yaml")
	if err := os.WriteFile(config, []byte(e.config(t, dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "pop", "--config", config)
	cmd.Env = append(os.Environ(), edgeVariable+"=1")
	cmd.Stdout, cmd.Stderr = log, log
	child, err := daemon.Start(cmd)
	log.Close() // the child has its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		child.Stop(ctx)
		text, _ := os.ReadFile(path)
		if exit := child.Wait(); !exit.Success() {
			t.Errorf("the edge ended badly: %s", exit)
		}
		for _, bad := range []string{"panic", "DATA RACE", "crashed"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("the edge's log speaks of %q", bad)
			}
		}
		if t.Failed() {
			t.Logf("the edge wrote, without what went well:\n%s", interesting(string(text)))
		}
	})
	e.awaitServed(t, child, path)
	return e
}

// interesting leaves out of a log the requests that went well, and what is too
// much.
func interesting(text string) string {
	const most = 30_000
	var left strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, " outcome=ok ") {
			left.WriteString(line)
		}
	}
	return left.String()[max(0, left.Len()-most):]
}

// config starts the origins and returns the config of the node.
func (e *edge) config(t *testing.T, dir string) string {
	var c strings.Builder
	fmt.Fprintf(&c, `node: {name: matrix, pop: matrix}
fleet: {memory: true}
listeners:
  - {name: clear, address: "%s", clear: true}
  - {name: mixed, address: "%s", clear: true, protocols: [h1, h2]}
  - {name: tls, address: "%s", protocols: [h1, h2, h3]}
tls:
  certificates: [{cert_file: "%s/cert.pem", key_file: "%[4]s/key.pem"}]
admin: {address: "%s"}
drain: {deprefer: 10ms, withdraw: 10ms, close: 1s}
worker: {drain_timeout: 1s}
log: {level: info, requests: true}
`, e.at(clearPort), e.at(mixedPort), e.at(tlsPort), dir, e.at(adminPort))
	var routes, pools strings.Builder
	for _, b := range backs {
		for _, k := range b.kinds() {
			name := fmt.Sprintf("%s-%s", k, b.name)
			fmt.Fprintf(&routes, "  - {match: {host: %s}, pool: %s}\n", b.host(k), name)
			fmt.Fprintf(&pools, "  - name: %s\n    protocol: %s\n    backends: [{address: \"%s\"}]\n    health: {type: tcp, interval: 1s}\n",
				name, b.protocol, b.serve(t, k, e))
			if b.tls {
				fmt.Fprintf(&pools, "    tls: {ca_file: \"%s\", server_name: origin.%s}\n", e.caFile, zone)
			}
		}
	}
	fmt.Fprintf(&c, "routes:\n%spools:\n%s", &routes, &pools)
	return c.String()
}

// makeCertificate makes a certificate for all names of the zone, which is its
// own authority.
func (e *edge) makeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: zone},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"*." + zone},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	e.caFile = filepath.Join(dir, "cert.pem")
	for name, data := range map[string][]byte{"cert.pem": cert, "key.pem": private} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if e.certificate, err = tls.X509KeyPair(cert, private); err != nil {
		t.Fatal(err)
	}
	e.authorities = x509.NewCertPool()
	e.authorities.AppendCertsFromPEM(cert)
}

// awaitServed waits until the origin behind every pool has answered, whatever
// it said.
func (e *edge) awaitServed(t *testing.T, child *daemon.Child, log string) {
	t.Helper()
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	end := time.Now().Add(patience)
	for _, b := range backs {
		for _, k := range b.kinds() {
			for {
				err := e.answers(client, b.host(k))
				if err == nil {
					break
				}
				select {
				case <-child.Done():
					text, _ := os.ReadFile(log)
					t.Fatalf("the edge has ended: %s\n%s", child.Wait(), text)
				case <-time.After(10 * time.Millisecond):
				}
				if time.Now().After(end) {
					t.Fatalf("%s is not served: %v", b.host(k), err)
				}
			}
		}
	}
}

func (e *edge) answers(client *http.Client, host string) error {
	req, err := http.NewRequest("GET", "http://"+e.at(clearPort)+"/target", nil)
	if err != nil {
		return err
	}
	req.Host = host
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode >= 500 {
		return fmt.Errorf("status %s", res.Status)
	}
	return nil
}
