package bgp

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	testPort   = 11179
	speakerASN = 4200000001 // four octets
	routerASN  = 64500
	eventually = 15 * time.Second
	envSpeaker = "ANYEDGE_BGP_TEST_SPEAKER"
	testHold   = 3 * time.Second
)

var (
	prefix4  = netip.MustParsePrefix("192.0.2.0/24")
	prefix4b = netip.MustParsePrefix("198.51.100.0/24")
	prefix6  = netip.MustParsePrefix("2001:db8:1::/48")
	next4    = netip.MustParseAddr("203.0.113.7")
	next6    = netip.MustParseAddr("2001:db8:ffff::7")
)

// TestMain runs a Speaker and nothing else when a test started this process as
// one.
func TestMain(m *testing.M) {
	if config := os.Getenv(envSpeaker); config != "" {
		if err := runSpeakerProcess(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// The tests wait much and compute little.
	flag.Set("test.parallel", "16")
	os.Exit(m.Run())
}

func runSpeakerProcess(config string) error {
	var cfg Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	s, err := NewSpeaker(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	if err := s.Set(context.Background(), twoPrefixes()); err != nil {
		return err
	}
	// The parent's end of standard input bounds the life of this process.
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return s.Run(ctx)
}

var lastHost atomic.Uint32

// loopback returns an address of 127/8 that no other test uses, also in other
// processes of this machine.
func loopback() netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(64 + pid>>8&63), byte(pid), byte(lastHost.Add(1))})
}

// lab is one router and the means to connect speakers to it.
type lab struct {
	t      *testing.T
	cfg    RouterConfig
	router *Router
	stop   func()
}

// newLab starts a router with as many peers, each at an address of its own.
func newLab(t *testing.T, peers int, adjust ...func(*testing.T, *RouterConfig)) *lab {
	t.Helper()
	l := &lab{t: t, cfg: testRouterConfig(peers)}
	for _, f := range adjust {
		f(t, &l.cfg)
	}
	l.startRouter()
	return l
}

func testRouterConfig(peers int) RouterConfig {
	cfg := RouterConfig{
		ASN:      routerASN,
		RouterID: netip.MustParseAddr("10.255.0.1"),
		Listen:   netip.AddrPortFrom(loopback(), testPort),
		HoldTime: testHold,
	}
	for range peers {
		cfg.Peers = append(cfg.Peers, RouterPeer{Address: loopback(), ASN: speakerASN})
	}
	return cfg
}

func (l *lab) startRouter() {
	l.t.Helper()
	r, err := NewRouter(l.cfg, testLog(l.t))
	if err != nil {
		l.t.Fatal(err)
	}
	l.router = r
	l.stop = background(l.t, r.Run)
}

// speakerConfig is a speaker that connects as one of the router's peers.
func (l *lab) speakerConfig(peer int) Config {
	p := l.cfg.Peers[peer]
	return Config{
		ASN:      p.ASN,
		RouterID: netip.AddrFrom4([4]byte{10, 0, 0, byte(peer + 1)}),
		HoldTime: testHold,
		Neighbors: []Neighbor{{
			Address:      l.cfg.Listen.Addr(),
			Port:         l.cfg.Listen.Port(),
			ASN:          l.cfg.ASN,
			LocalAddress: p.Address,
			Password:     p.Password,
			TTLSecurity:  p.TTLSecurity,
		}},
	}
}

// waitRouter waits until the router fulfils a condition.
func (l *lab) waitRouter(what string, condition func(*Router) bool) {
	l.t.Helper()
	deadline := time.After(eventually)
	for {
		changed := l.router.Changed()
		if condition(l.router) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			l.t.Fatalf("router: not within %v: %s; peers %v", eventually, what, l.router.Peers())
		}
	}
}

func (l *lab) waitBest(p netip.Prefix) Path {
	l.t.Helper()
	var best Path
	l.waitRouter("a path for "+p.String(), func(r *Router) (ok bool) { best, ok = r.Best(p); return ok })
	return best
}

func (l *lab) waitGone(p netip.Prefix) {
	l.t.Helper()
	l.waitRouter("no path for "+p.String(), func(r *Router) bool { return len(r.Paths(p)) == 0 })
}

func newSpeaker(t *testing.T, cfg Config, reg prometheus.Registerer) *Speaker {
	t.Helper()
	s, err := NewSpeaker(cfg, testLog(t), reg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// startSpeaker runs s until the returned function or the end of the test.
func startSpeaker(t *testing.T, s *Speaker) (stop func()) {
	t.Helper()
	return background(t, s.Run)
}

// background calls run in a goroutine. The returned function, also called at
// the end of the test, stops and joins it and fails the test on an error.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once atomic.Bool
	stop = func() {
		if once.Swap(true) {
			return
		}
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(eventually):
			t.Errorf("Run did not return within %v", eventually)
		}
	}
	t.Cleanup(stop)
	return stop
}

// set calls Set, which must succeed soon.
func set(t *testing.T, s *Speaker, announcements ...Announcement) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), eventually)
	defer cancel()
	if err := s.Set(ctx, announcements); err != nil {
		t.Fatal(err)
	}
}

// waitStatus polls the speaker's first neighbor until it fulfils a condition.
// Status has no notification: the daemon reads it when asked.
func waitStatus(t *testing.T, s *Speaker, what string, condition func(NeighborStatus) bool) NeighborStatus {
	t.Helper()
	deadline := time.Now().Add(eventually)
	for {
		n := s.Status().Neighbors[0]
		if condition(n) {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("speaker: not within %v: %s; status %+v", eventually, what, n)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func established(n NeighborStatus) bool { return n.State == Established }

func announcement4() Announcement {
	return Announcement{Prefix: prefix4, NextHop: next4, MED: 10}
}

func announcement6() Announcement {
	return Announcement{Prefix: prefix6, NextHop: next6, MED: 20, Prepend: 2, Communities: Communities{64512<<16 | 7}}
}

func twoPrefixes() []Announcement { return []Announcement{announcement4(), announcement6()} }

// testLog writes to the test's log if -v is given.
func testLog(t *testing.T) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// comparePath reports how got differs from the announcement as the speaker's
// neighbor should see it.
func comparePath(t *testing.T, got Path, want Announcement) {
	t.Helper()
	if err := want.normalize(); err != nil {
		t.Fatal(err)
	}
	w := want.path(speakerASN)
	if got.Prefix != w.Prefix || got.NextHop != w.NextHop || got.MED != w.MED ||
		!slices.Equal(got.ASPath, w.ASPath) || !slices.Equal(got.Communities, w.Communities) {
		t.Errorf("path is %+v, want %+v", got, w)
	}
}

// announcer is an upstream that announces a route of each family.
type announcer struct {
	t      *testing.T
	engine *engine
	listen netip.AddrPort
	worked chan struct{} // GoBGP has done something
}

// newAnnouncer starts an announcer for the peer at an address.
func newAnnouncer(t *testing.T, peer netip.Addr) *announcer {
	t.Helper()
	a := &announcer{t: t, listen: netip.AddrPortFrom(loopback(), testPort), worked: make(chan struct{}, 1)}
	a.engine = startTestEngine(t, routerASN, "10.255.0.2", a.listen, a.worked)
	for _, route := range []Announcement{
		{Prefix: netip.MustParsePrefix("10.99.0.0/16"), NextHop: netip.MustParseAddr("10.99.0.1")},
		{Prefix: netip.MustParsePrefix("2001:db8:99::/48"), NextHop: netip.MustParseAddr("2001:db8:99::1")},
	} {
		if err := a.engine.announce(route, routerASN); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.engine.addPeer(enginePeer{address: peer, asn: speakerASN, holdTime: testHold}); err != nil {
		t.Fatal(err)
	}
	return a
}

// waitFor waits until the announcer has a path for the prefix.
func (a *announcer) waitFor(p netip.Prefix) {
	a.t.Helper()
	awaitEngine(a.t, a.worked, "a path for "+p.String(), func() bool {
		paths, err := a.engine.paths()
		if err != nil {
			a.t.Fatal(err)
		}
		return len(paths[p]) > 0
	})
}

// startTestEngine starts an engine that ends with the test.
func startTestEngine(t *testing.T, asn uint32, id string, listen netip.AddrPort, worked chan struct{}) *engine {
	t.Helper()
	wake := func() {
		select {
		case worked <- struct{}{}:
		default:
		}
	}
	e, err := startEngine(asn, netip.MustParseAddr(id), listen, wake, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.stop)
	return e
}

// awaitEngine looks at a condition whenever an engine has worked.
func awaitEngine(t *testing.T, worked <-chan struct{}, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(eventually)
	for !condition() {
		select {
		case <-worked:
		case <-deadline:
			t.Fatalf("engine: not within %v: %s", eventually, what)
		}
	}
}

// freeIPv6 returns a free port of the IPv6 loopback address; without IPv6 it
// skips the test.
func freeIPv6(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}
