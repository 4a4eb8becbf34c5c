package pop

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"anyedge/configs"
	"anyedge/pop/proxy"
)

func probing(t *testing.T, address string) (results chan probeResult, stop func()) {
	t.Helper()
	cfg := parse(t, testConfig, "bgp:", "health: {probe_interval: 10ms, probe_timeout: 10s}\nbgp:")
	ctx, cancel := context.WithCancel(t.Context())
	results = make(chan probeResult, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l := configs.Listener{Name: "web", Address: netip.MustParseAddrPort(address), Clear: true}
		probe(ctx, l, netip.AddrPort{}, cfg.Health, "token", results)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return results, stop
}

// Only our own worker's answer counts, on a new connection each time.
func TestProbeWantsTheWorkersOwnAnswer(t *testing.T) {
	remotes := make(chan string, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(proxy.ProbeField) == "token" {
			w.WriteHeader(http.StatusNoContent)
		}
		remotes <- r.RemoteAddr
	}))
	defer srv.Close()
	results, stop := probing(t, srv.Listener.Addr().String())
	for range 2 {
		if r := <-results; !r.ok || r.check != "probe:web" {
			t.Errorf("%+v", r)
		}
	}
	stop()
	if first, second := <-remotes, <-remotes; first == second {
		t.Error("two requests over one connection")
	}

	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	results, _ = probing(t, other.Listener.Addr().String())
	if r := <-results; r.ok || !strings.Contains(r.detail, "status 404") {
		t.Errorf("somebody else's answer: %+v", r)
	}
	results, _ = probing(t, freeAddress(t).String())
	if r := <-results; r.ok || !strings.Contains(r.detail, "refused") {
		t.Errorf("no answer: %+v", r)
	}
}

// A probe that a reload cuts off says nothing about the address.
func TestProbeCutOffIsNoFailure(t *testing.T) {
	for range 20 { // a result could be taken or left by chance
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		results, stop := probing(t, l.Addr().String())
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		stop()
		conn.Close()
		l.Close()
		if len(results) != 0 {
			t.Fatalf("%+v", <-results)
		}
	}
}

func TestReachable(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:443": "192.0.2.1:443", "0.0.0.0:80": "127.0.0.1:80", "[::]:80": "[::1]:80", "[2001:db8::1]:443": "[2001:db8::1]:443",
	} {
		if got := reachable(netip.MustParseAddrPort(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
