package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/internal/fleet"
)

// recorder keeps the requests that reach a server.
type recorder struct {
	mu     sync.Mutex
	last   *http.Request
	body   map[string]any // of the last session asked for
	status int            // answered if not 0, with text
	text   string
	next   http.Handler
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.last = req
	status, text := r.status, r.text
	if strings.HasSuffix(req.URL.Path, "/session/create") {
		r.body = nil
		_ = json.NewDecoder(req.Body).Decode(&r.body)
	}
	r.mu.Unlock()
	switch {
	case status != 0:
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	case strings.HasSuffix(req.URL.Path, "/session/create"):
		_, _ = w.Write([]byte(`{"ID":"some"}`))
	default:
		r.next.ServeHTTP(w, req)
	}
}

func record(t *testing.T, cfg fleet.ConsulConfig) (*recorder, *fleet.Consul, *fleet.Memory) {
	t.Helper()
	memory := fleet.NewMemory()
	r := &recorder{next: fleet.Handler(memory)}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	cfg.Address = server.URL
	return r, dial(t, cfg), memory
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokenFileIsReadAgain(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "token"), "first\n")
	r, c, _ := record(t, fleet.ConsulConfig{TokenFile: path})
	sent := func() string {
		t.Helper()
		if _, _, err := c.List(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		return r.last.Header.Get("X-Consul-Token")
	}
	if got := sent(); got != "first" {
		t.Fatalf("sent %q", got)
	}
	write(t, path, "second one\n")
	if got := sent(); got != "second one" {
		t.Fatalf("after a change: sent %q", got)
	}
	write(t, path, "\n")
	if got := sent(); got != "second one" {
		t.Fatalf("with an empty file: sent %q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := sent(); got != "second one" {
		t.Fatalf("with no file: sent %q", got)
	}
	write(t, path, "third")
	if got := sent(); got != "third" {
		t.Fatalf("with a file again: sent %q", got)
	}
}

func TestNewConsulRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := write(t, filepath.Join(dir, "empty"), "")
	for want, cfg := range map[string]fleet.ConsulConfig{
		"address is required": {},
		"scheme":              {Address: "ftp://127.0.0.1"},
		"token":               {Address: "127.0.0.1:8500", TokenFile: filepath.Join(dir, "none")},
		"is empty":            {Address: "127.0.0.1:8500", TokenFile: empty},
		"authorities":         {Address: "127.0.0.1:8500", CAFile: filepath.Join(dir, "none")},
		"no certificate in":   {Address: "127.0.0.1:8500", CAFile: empty},
		"client certificate":  {Address: "127.0.0.1:8500", CertFile: empty, KeyFile: empty},
		"go together":         {Address: "https://127.0.0.1:8500", CertFile: empty},
	} {
		if _, err := fleet.NewConsul(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", cfg, err, want)
		}
	}
}

func TestConsulAsksForWhatItNeeds(t *testing.T) {
	r, c, memory := record(t, fleet.ConsulConfig{Datacenter: "dc7"})
	ctx := t.Context()
	if _, err := c.CompareAndSwap(ctx, "k", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := memory.Get(ctx, "anyedge/k"); err != nil {
		t.Errorf("the default prefix: %v", err)
	}
	query := func() string { return r.last.URL.RawQuery }
	if q := query(); !strings.Contains(q, "dc=dc7") {
		t.Errorf("write: %s", q)
	}
	if e, err := c.Get(ctx, "k"); err != nil || e.Key != "k" {
		t.Errorf("got %+v, %v", e, err)
	}
	if q := query(); !strings.Contains(q, "consistent") || !strings.Contains(q, "dc=dc7") {
		t.Errorf("get: %s", q)
	}
	if entries, err := c.ListStale(ctx, ""); err != nil || len(entries) != 1 || entries[0].Key != "k" {
		t.Errorf("stale list: %v %v", entries, err)
	}
	if q := query(); !strings.Contains(q, "stale") {
		t.Errorf("stale list: %s", q)
	}
	if _, _, err := c.Watch(ctx, "", 1); err != nil {
		t.Error(err)
	}
	if q := query(); !strings.Contains(q, "index=1") || !strings.Contains(q, "wait=10000ms") || strings.Contains(q, "stale") {
		t.Errorf("watch: %s", q)
	}
}

func TestConsulSessions(t *testing.T) {
	for ttl, want := range map[time.Duration]string{
		time.Second: "10s", 15 * time.Second: "15s", 48 * time.Hour: "24h0m0s",
	} {
		r, c, _ := record(t, fleet.ConsulConfig{})
		if _, err := c.NewSession(t.Context(), "node fra-1", ttl); err != nil {
			t.Fatal(err)
		}
		if r.body["TTL"] != want || r.body["Behavior"] != "delete" || r.body["Name"] != "node fra-1" {
			t.Errorf("%v: asked for %v", ttl, r.body)
		}
		// Left out, it would be 15 s.
		if delay, err := time.ParseDuration(r.body["LockDelay"].(string)); err != nil || delay > 10*time.Millisecond {
			t.Errorf("lock delay %v", r.body["LockDelay"])
		}
		// Left out, the health of the Consul agent would end the session.
		if checks, ok := r.body["NodeChecks"].([]any); !ok || len(checks) != 0 {
			t.Errorf("node checks %v", r.body["NodeChecks"])
		}
	}
	r, c, _ := record(t, fleet.ConsulConfig{MinTTL: 1})
	if _, err := c.NewSession(t.Context(), "n", 300*time.Millisecond); err != nil || r.body["TTL"] != "300ms" {
		t.Errorf("asked for %v, %v", r.body, err)
	}
}

// What Consul refuses for another reason is neither a conflict nor an end of
// the session: a caller would act on those.
func TestOtherErrorsAreNotConflicts(t *testing.T) {
	r, c, _ := record(t, fleet.ConsulConfig{})
	ctx := t.Context()
	for status, text := range map[int]string{
		409: `{"Errors":[{"OpIndex":0,"What":"Permission denied"}]}`,
		403: "Permission denied",
		500: "No cluster leader",
		429: "Too many requests",
	} {
		r.status, r.text = status, text
		_, err := c.CompareAndSwap(ctx, "k", []byte("v"), 0)
		errs := []error{err, c.Bind(ctx, "k", nil, "s"), c.RenewSession(ctx, "s"), c.EndSession(ctx, "s")}
		_, err = c.Get(ctx, "k")
		errs = append(errs, err)
		_, _, err = c.List(ctx, "k")
		errs = append(errs, err)
		for i, err := range errs {
			if err == nil || errors.Is(err, fleet.ErrConflict) || errors.Is(err, fleet.ErrSession) || errors.Is(err, fleet.ErrNotFound) {
				t.Errorf("status %d, call %d: %v", status, i, err)
			}
		}
	}
}

func TestConsulOverUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "fleet") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: fleet.Handler(fleet.NewMemory())}}
	server.Start()
	t.Cleanup(server.Close)
	c := dial(t, fleet.ConsulConfig{Address: "unix://" + path})
	if _, err := c.CompareAndSwap(t.Context(), "k", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
}

func TestConsulOverTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := clientPair(t, dir)
	server := httptest.NewUnstartedServer(fleet.Handler(fleet.NewMemory()))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := write(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	address := server.Listener.Addr().String()

	ask := func(cfg fleet.ConsulConfig) error {
		cfg.Address = address
		_, _, err := dial(t, cfg).List(t.Context(), "")
		return err
	}
	if err := ask(fleet.ConsulConfig{CAFile: ca, CertFile: cert, KeyFile: key}); err != nil {
		t.Error(err)
	}
	if err := ask(fleet.ConsulConfig{CertFile: cert, KeyFile: key}); err == nil {
		t.Error("a server of unknown authority was believed")
	}
	if err := ask(fleet.ConsulConfig{CAFile: ca}); err == nil {
		t.Error("a client without a certificate was let in")
	}
}

func clientPair(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return cert, key
}

// gate is a handler that does not answer while somebody holds its lock, as a
// stopped process.
type gate struct {
	mu   sync.RWMutex
	next http.Handler
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.RLock()
	next := g.next
	g.mu.RUnlock()
	next.ServeHTTP(w, r)
}

// A View through the Consul client, over real connections, in real time.
func TestViewOverHandler(t *testing.T) {
	memory := fleet.NewMemory()
	g := &gate{next: fleet.Handler(memory)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	serve := func(listener net.Listener, h http.Handler) *httptest.Server {
		server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: h}}
		server.Start()
		return server
	}
	server := serve(listener, g)
	store := dial(t, fleet.ConsulConfig{Address: address, MinTTL: 1})
	f := run(t, store)
	set := []fleet.Backend{backend("10.0.0.1:80")}
	if err := f.SetInventory(t.Context(), "api", set); err != nil {
		t.Fatal(err)
	}
	await(t, f, "inventory", 5*time.Second, func(v *fleet.View) bool { return v.Connected && len(v.Inventory) == 1 })

	g.mu.Lock() // requests hang from here on; so do the connections of streams
	await(t, f, "loss by silence", 5*time.Second, lost)
	g.mu.Unlock()
	await(t, f, "recovery", 10*time.Second, connected)

	server.CloseClientConnections()
	server.Close()
	v := await(t, f, "loss by refusal", 5*time.Second, lost)
	if len(v.Inventory) != 1 {
		t.Error("the inventory was given up")
	}
	if listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	server = serve(listener, fleet.Handler(fleet.NewMemory()))
	defer server.Close()
	defer server.CloseClientConnections()
	await(t, f, "the new store, which is empty", 10*time.Second, func(v *fleet.View) bool { return v.Connected && len(v.Inventory) == 0 })
}

// run starts a Fleet on store, which is joined when the test ends.
func run(t *testing.T, store fleet.Store) *fleet.Fleet {
	t.Helper()
	f := newFleet(t, store)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}
