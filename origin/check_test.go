package origin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/health"
)

// script answers checks by address and notes when they were made.
type script struct {
	mu    sync.Mutex
	begin time.Time
	fails map[netip.AddrPort]error
	at    map[netip.AddrPort][]time.Duration
}

func newScript() *script {
	return &script{begin: time.Now(), fails: make(map[netip.AddrPort]error), at: make(map[netip.AddrPort][]time.Duration)}
}

func (s *script) set(a netip.AddrPort, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[a] = err
}

func (s *script) check(_ context.Context, a netip.AddrPort, _ *Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[a] = append(s.at[a], time.Since(s.begin))
	return s.fails[a]
}

// times returns when a was checked, in time since the script began.
func (s *script) times(a netip.AddrPort) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[a]
}

var errDown = errors.New("down")

func scriptedPool(t *testing.T, cfg Config, s *script, set Set) *Pool {
	t.Helper()
	p := NewPool(cfg, quiet, nil)
	p.check = s.check
	if err := p.Update(set); err != nil {
		t.Fatal(err)
	}
	return p
}

func stateOf(p *Pool, a netip.AddrPort) health.State {
	for _, b := range p.Status().Backends {
		if b.Address == a {
			return b.State
		}
	}
	return -1
}

func TestCheckPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		set := backends(1, 1, 1, 1, 1)
		p := scriptedPool(t, Config{Health: HealthConfig{Interval: 10 * time.Second}}, s, set)
		defer run(t, p)()
		time.Sleep(35 * time.Second)
		synctest.Wait()

		phases := make(map[time.Duration]bool)
		for _, b := range set {
			at := s.times(b.Address)
			if len(at) < 4 || at[0] != 0 {
				t.Fatalf("checks at %v: want the first at once, then one per interval", at)
			}
			phases[at[1]] = true
			if at[1] > 10*time.Second {
				t.Errorf("second check after %v", at[1])
			}
			for i := 2; i < len(at); i++ {
				if d := at[i] - at[i-1]; d != 10*time.Second {
					t.Errorf("%v between checks, want 10s", d)
				}
			}
		}
		if len(phases) != len(set) {
			t.Errorf("second checks at %v: not spread out", phases)
		}
	})
}

func TestRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		cfg := Config{Health: HealthConfig{Interval: time.Second, Rise: 2, Fall: 3}}
		p := scriptedPool(t, cfg, s, backends(1))
		defer run(t, p)()

		synctest.Wait() // one pass
		if got := stateOf(p, addr(1)); got != health.Unknown {
			t.Errorf("after one pass: %v", got)
		}
		time.Sleep(time.Second)
		synctest.Wait() // the second pass came within the interval
		if got := stateOf(p, addr(1)); got != health.Healthy {
			t.Errorf("after two passes: %v", got)
		}
		since := p.Status().Backends[0].Since

		s.set(addr(1), errDown)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if b := p.Status().Backends[0]; b.State != health.Healthy || b.CheckError != "down" || !b.Since.Equal(since) {
			t.Errorf("after two failures: %+v", b)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if b := p.Status().Backends[0]; b.State != health.Unhealthy || !b.Since.After(since) {
			t.Errorf("after three failures: %+v", b)
		}
		if _, err := p.Pick(nil); !errors.Is(err, ErrNoBackend) {
			t.Errorf("Pick of an unhealthy pool: %v", err)
		}

		s.set(addr(1), nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if b := p.Status().Backends[0]; b.State != health.Healthy || b.CheckError != "" {
			t.Errorf("after two passes: %+v", b)
		}
	})
}

func TestNewBackendIsCheckedBeforeTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		p := scriptedPool(t, Config{Health: HealthConfig{Interval: time.Second}}, s, backends(1))
		defer run(t, p)()
		time.Sleep(time.Second)
		synctest.Wait()

		if err := p.Update(backends(1, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // its first check has passed, the second has not
		for range 10 {
			if got := mustPick(t, p).Backend().Address; got != addr(1) {
				t.Fatalf("picked %v before its checks judged it", got)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if a, b := mustPick(t, p).Backend(), mustPick(t, p).Backend(); a == b {
			t.Errorf("picked %v twice in a row: the checked backend gets nothing", a)
		}
	})
}

func TestReady(t *testing.T) {
	ready := func(p *Pool) bool {
		select {
		case <-p.Ready():
			return true
		default:
			return false
		}
	}
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(Config{Health: HealthConfig{Timeout: 3 * time.Second}}, quiet, nil)
		p.check = func(ctx context.Context, a netip.AddrPort, _ *Config) error {
			if a == addr(1) {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		defer run(t, p)()
		synctest.Wait()
		if ready(p) {
			t.Error("ready before any set")
		}
		if err := p.Update(backends(1, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if ready(p) {
			t.Error("ready before the second backend was checked")
		}
		begin := time.Now()
		<-p.Ready()
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("ready after %v, want the timeout of the slow check", d)
		}
		if got := p.Status().Backends[1].CheckError; got != "no answer within 3s" {
			t.Errorf("check error %q", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := scriptedPool(t, Config{}, newScript(), nil)
		if !ready(p) {
			t.Error("not ready with an empty first set")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := scriptedPool(t, Config{}, newScript(), backends(1))
		if ready(p) {
			t.Error("ready without a check")
		}
		if err := p.Update(nil); err != nil {
			t.Fatal(err)
		}
		if !ready(p) {
			t.Error("not ready although the awaited backend is gone")
		}
	})
}

func TestRemovedBackendIsCheckedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		p := scriptedPool(t, Config{Health: HealthConfig{Interval: time.Second}}, s, backends(1, 1))
		defer run(t, p)()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if err := p.Update(backends(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		kept, removed := len(s.times(addr(1))), len(s.times(addr(2)))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := len(s.times(addr(2))); got != removed {
			t.Errorf("%d checks after the removal", got-removed)
		}
		if got := len(s.times(addr(1))); got != kept+5 {
			t.Errorf("%d checks of the backend that stayed, want 5", got-kept)
		}
	})
}

func TestSetConfigKeepsStateAndTakesEffectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		cfg := Config{Health: HealthConfig{Interval: time.Hour, Rise: 1, Fall: 5}}
		p := scriptedPool(t, cfg, s, backends(1, 1))
		defer run(t, p)()
		synctest.Wait()
		mustPick(t, p, addr(2))
		s.set(addr(2), errDown)

		cfg.Health.Interval, cfg.Health.Fall, cfg.Balance = time.Second, 2, LeastRequest
		p.SetConfig(cfg)
		if got := p.Status(); got.Backends[0].State != health.Healthy || got.Backends[0].InFlight != 1 || got.Balance != LeastRequest {
			t.Errorf("right after SetConfig: %+v", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := stateOf(p, addr(2)); got != health.Unhealthy {
			t.Errorf("after two failures at the new interval: %v", got)
		}
	})
}

func TestSeededStateHoldsUntilChecksDisagree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		s.set(addr(1), errDown)
		p := NewPool(Config{Health: HealthConfig{Interval: time.Second, Rise: 2, Fall: 2}}, quiet, nil)
		p.check = s.check
		p.Seed(map[netip.AddrPort]health.State{addr(1): health.Healthy, addr(2): health.Unhealthy})
		if err := p.Update(backends(1, 1)); err != nil {
			t.Fatal(err)
		}
		defer run(t, p)()
		synctest.Wait()
		if a, b := stateOf(p, addr(1)), stateOf(p, addr(2)); a != health.Healthy || b != health.Unhealthy {
			t.Errorf("after one check each: %v, %v", a, b)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if a, b := stateOf(p, addr(1)), stateOf(p, addr(2)); a != health.Unhealthy || b != health.Healthy {
			t.Errorf("after two checks each: %v, %v", a, b)
		}
	})
}

// A check that is under way when Run ends says nothing about the backend.
func TestRunEndsDuringACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(Config{Health: HealthConfig{Fall: 1, Timeout: time.Hour}}, quiet, nil)
		p.check = func(ctx context.Context, _ netip.AddrPort, _ *Config) error {
			<-ctx.Done()
			return ctx.Err()
		}
		p.Seed(map[netip.AddrPort]health.State{addr(1): health.Healthy})
		if err := p.Update(backends(1)); err != nil {
			t.Fatal(err)
		}
		stop := run(t, p)
		synctest.Wait()
		stop()
		mustPick(t, p)
		if err := p.Update(backends(1, 1)); err != nil { // starts nothing any more
			t.Fatal(err)
		}
	})
}

func TestCheckBackend(t *testing.T) {
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
		case "/no-content":
			w.WriteHeader(http.StatusNoContent)
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/down":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/hang":
			<-r.Context().Done()
		case "/cut":
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("short"))
		case "/endless":
			for r.Context().Err() == nil {
				w.Write(make([]byte, 1<<10))
			}
		case "/query":
			if r.URL.RawQuery != "a=b?c" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/a/b":
			if r.RequestURI != "/a%2Fb" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/host":
			if r.Host != "shop.example" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/h2":
			if r.ProtoMajor != 2 {
				w.WriteHeader(http.StatusBadRequest)
			}
		}
	}))
	backend.Start()
	defer backend.Close()
	secure := httptest.NewUnstartedServer(backend.Config.Handler)
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	secure.StartTLS()
	defer secure.Close()
	trusting := secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	trusting.ServerName = "example.com"
	doubting := trusting.Clone()
	doubting.ServerName = "other.example"

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()

	clear := backend.Listener.Addr().String()
	tls := secure.Listener.Addr().String()
	for _, tt := range []struct {
		name    string
		address string
		cfg     Config
		want    string // part of the error; empty: passes
	}{
		{"http 200", clear, Config{Health: HealthConfig{Path: "/ok"}}, ""},
		{"http 204", clear, Config{Health: HealthConfig{Path: "/no-content"}}, ""},
		{"http redirect", clear, Config{Health: HealthConfig{Path: "/redirect"}}, "status 302"},
		{"http 503", clear, Config{Health: HealthConfig{Path: "/down"}}, "status 503"},
		{"http slow", clear, Config{Health: HealthConfig{Path: "/hang", Timeout: 20 * time.Millisecond}}, "no answer within 20ms"},
		{"http body cut short", clear, Config{Health: HealthConfig{Path: "/cut"}}, "read body"},
		{"http long body", clear, Config{Health: HealthConfig{Path: "/endless"}}, ""},
		{"http query", clear, Config{Health: HealthConfig{Path: "/query?a=b?c"}}, ""},
		{"http escaped path", clear, Config{Health: HealthConfig{Path: "/a%2Fb"}}, ""},
		{"http bad path", clear, Config{Health: HealthConfig{Path: "ok"}}, "path of the check"},
		{"http host", clear, Config{Health: HealthConfig{Path: "/host", Host: "shop.example"}}, ""},
		{"http default path", clear, Config{Health: HealthConfig{Type: CheckHTTP}}, ""},
		{"http refused", closed, Config{Health: HealthConfig{Path: "/ok"}}, "connection refused"},
		{"http to a TLS port", tls, Config{Health: HealthConfig{Path: "/ok"}}, "status 400"},
		{"https", tls, Config{Health: HealthConfig{Path: "/ok"}, TLS: trusting}, ""},
		{"https h2", tls, Config{Health: HealthConfig{Path: "/h2"}, TLS: trusting}, ""},
		{"https wrong name", tls, Config{Health: HealthConfig{Path: "/ok"}, TLS: doubting}, "other.example"},
		{"tcp", clear, Config{}, ""},
		{"tcp although a path is set", clear, Config{Health: HealthConfig{Type: CheckTCP, Path: "/down"}}, ""},
		{"tcp refused", closed, Config{}, "connection refused"},
		{"tls", tls, Config{TLS: trusting}, ""},
		{"tls wrong name", tls, Config{TLS: doubting}, "other.example"},
		{"tls to a clear port", clear, Config{TLS: trusting}, "connect to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := NewPool(tt.cfg, quiet, nil)
			err := p.checkOnce(t.Context(), netip.MustParseAddrPort(tt.address), p.config.Load())
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("failed: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}
