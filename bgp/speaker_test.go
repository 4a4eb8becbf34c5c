package bgp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestAnnounceChangeWithdraw follows one session through everything Set can
// ask for, and counts the UPDATEs it takes.
func TestAnnounceChangeWithdraw(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	changes := &counter{Handler: testLog(t).Handler(), messages: make(map[string]int)}
	s, err := NewSpeaker(l.speakerConfig(0), slog.New(changes), nil)
	if err != nil {
		t.Fatal(err)
	}
	set(t, s, twoPrefixes()...) // before Run
	start := time.Now()
	startSpeaker(t, s)
	got := l.waitBest(prefix4)
	t.Logf("from start to the router's RIB: %v", time.Since(start).Round(time.Millisecond))
	if got.Neighbor != l.cfg.Peers[0].Address {
		t.Errorf("learned from %v, want %v", got.Neighbor, l.cfg.Peers[0].Address)
	}
	comparePath(t, got, announcement4())
	comparePath(t, l.waitBest(prefix6), announcement6())

	// The two families take an UPDATE and an End-of-RIB marker each.
	updates := uint64(4)
	checkUpdates := func(what string, more uint64) {
		t.Helper()
		updates += more
		waitStatus(t, s, what, func(n NeighborStatus) bool { return n.Sent.Update == updates })
	}
	checkUpdates("first announcements", 0)

	// The same set in another form sends nothing. Silence is judged by the
	// next change: it must be the very next UPDATE.
	same := twoPrefixes()
	same[0], same[1] = same[1], same[0]
	same[0].Communities = append(same[0].Communities, same[0].Communities...)
	set(t, s, same...)

	changed := announcement4()
	changed.MED, changed.Prepend = 1000, 3
	changed.Communities = Communities{GracefulShutdown, 64512<<16 | 100}
	set(t, s, changed, announcement6())
	l.waitRouter("the changed path", func(r *Router) bool { p, _ := r.Best(prefix4); return p.MED == 1000 })
	comparePath(t, l.waitBest(prefix4), changed)
	checkUpdates("no UPDATE for the same set, one for the change", 1)

	added := Announcement{Prefix: prefix4b, NextHop: next4}
	set(t, s, changed, announcement6(), added)
	comparePath(t, l.waitBest(prefix4b), added)
	checkUpdates("one UPDATE for a new prefix", 1)

	set(t, s, changed, added)
	l.waitGone(prefix6)
	checkUpdates("one UPDATE for a withdrawal", 1)

	n := s.Status().Neighbors[0]
	if len(n.AdjRIBOut) != 2 {
		t.Fatalf("adj-rib-out holds %v, want two paths", n.AdjRIBOut)
	}
	comparePath(t, n.AdjRIBOut[0], changed)
	comparePath(t, n.AdjRIBOut[1], added)

	set(t, s) // nil
	l.waitGone(prefix4)
	l.waitGone(prefix4b)
	waitStatus(t, s, "an empty adj-rib-out", func(n NeighborStatus) bool { return len(n.AdjRIBOut) == 0 })
	// GoBGP would swallow a repetition; the Speaker must not even try.
	if a, w := changes.count("prefix announced"), changes.count("prefix withdrawn"); a != 4 || w != 3 {
		t.Errorf("%d announcements and %d withdrawals given to GoBGP, want 4 and 3", a, w)
	}
	if n := s.Status().Neighbors[0]; n.Sessions != 1 || n.RefusedUpdates != 0 {
		t.Errorf("%d sessions and %d refused updates, want 1 and 0", n.Sessions, n.RefusedUpdates)
	}
}

// counter counts log messages.
type counter struct {
	slog.Handler
	mu       sync.Mutex
	messages map[string]int
}

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }

func (c *counter) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages[r.Message]++
	return nil
}

// WithAttrs keeps counting in one place.
func (c *counter) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c *counter) count(message string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages[message]
}

// TestWithdrawLatency measures from the call of Set to the router's decision.
func TestWithdrawLatency(t *testing.T) {
	l := newLab(t, 1)
	s := newSpeaker(t, l.speakerConfig(0), nil)
	startSpeaker(t, s)
	waitStatus(t, s, "established", established)
	const rounds = 20
	var worst, total time.Duration
	for range rounds {
		set(t, s, announcement4())
		l.waitBest(prefix4)
		start := time.Now()
		set(t, s)
		l.waitGone(prefix4)
		took := time.Since(start)
		total += took
		worst = max(worst, took)
	}
	t.Logf("withdrawal, Set to the router's RIB: mean %v, worst %v of %d",
		(total / rounds).Round(time.Microsecond), worst.Round(time.Microsecond), rounds)
	if worst > time.Second {
		t.Errorf("a withdrawal took %v", worst)
	}
}

func TestSpeakerStopClosesSession(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	s := newSpeaker(t, l.speakerConfig(0), nil)
	set(t, s, twoPrefixes()...)
	stop := startSpeaker(t, s)
	l.waitBest(prefix4)
	start := time.Now()
	stop()
	l.waitGone(prefix4)
	l.waitGone(prefix6)
	t.Logf("from the end of Run to the router's RIB: %v", time.Since(start).Round(time.Microsecond))
	n := s.Status().Neighbors[0]
	if n.State != Idle || n.Sent.Notification != 1 || len(n.AdjRIBOut) != 0 || !n.EstablishedSince.IsZero() {
		t.Errorf("after Run: %+v", n)
	}
	// Nobody is there to apply it, so Set must not wait.
	set(t, s, announcement4())
}

// TestKilledSpeaker kills a speaker's process: the kernel closes the session
// and the router must withdraw at once, not after the hold time.
func TestKilledSpeaker(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	config, err := json.Marshal(l.speakerConfig(0))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envSpeaker+"="+string(config))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	l.waitBest(prefix4)
	l.waitBest(prefix6)
	start := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	l.waitGone(prefix4)
	l.waitGone(prefix6)
	took := time.Since(start)
	t.Logf("from SIGKILL to the router's RIB: %v", took.Round(time.Microsecond))
	if took > testHold/2 {
		t.Errorf("took %v with a hold time of %v", took, testHold)
	}
}

// TestRouterRestart lets the upstream go away and come back; what changed
// meanwhile must be announced, and nothing else.
func TestRouterRestart(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	s := newSpeaker(t, l.speakerConfig(0), nil)
	set(t, s, twoPrefixes()...)
	startSpeaker(t, s)
	l.waitBest(prefix4)
	l.stop()
	waitStatus(t, s, "the loss of the session", func(n NeighborStatus) bool {
		return n.State < OpenSent && len(n.AdjRIBOut) == 0 && n.LastError != ""
	})
	set(t, s, announcement4()) // prefix6 withdrawn while nobody listens
	waitStatus(t, s, "a failed attempt", func(n NeighborStatus) bool {
		return strings.Contains(n.LastError, "connection refused")
	})
	start := time.Now()
	l.startRouter()
	comparePath(t, l.waitBest(prefix4), announcement4())
	t.Logf("from the router's return to its RIB: %v", time.Since(start).Round(time.Millisecond))
	n := waitStatus(t, s, "one path sent", func(n NeighborStatus) bool { return len(n.AdjRIBOut) == 1 })
	if n.Sessions != 2 || n.LastError != "" {
		t.Errorf("%d sessions, last error %q; want 2 and none", n.Sessions, n.LastError)
	}
	if p, ok := l.router.Best(prefix6); ok {
		t.Errorf("router still has %+v", p)
	}
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	const password = "correct horse"
	tests := []struct {
		name        string
		router      func(*testing.T, *RouterConfig)
		speaker     func(*Neighbor)
		established bool
	}{
		{
			name:        "right password",
			router:      func(_ *testing.T, c *RouterConfig) { c.Peers[0].Password = password },
			established: true,
		},
		{
			name:    "wrong password",
			router:  func(_ *testing.T, c *RouterConfig) { c.Peers[0].Password = password },
			speaker: func(n *Neighbor) { n.Password = "battery staple" },
		},
		{
			name:    "missing password",
			router:  func(_ *testing.T, c *RouterConfig) { c.Peers[0].Password = password },
			speaker: func(n *Neighbor) { n.Password = "" },
		},
		{
			name:        "TTL security",
			router:      func(_ *testing.T, c *RouterConfig) { c.Peers[0].TTLSecurity = true },
			established: true,
		},
		{
			name: "password and TTL security over IPv6",
			router: func(t *testing.T, c *RouterConfig) {
				c.Listen = freeIPv6(t)
				c.Peers[0] = RouterPeer{Address: c.Listen.Addr(), ASN: speakerASN, Password: password, TTLSecurity: true}
			},
			established: true,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var adjust []func(*testing.T, *RouterConfig)
			if test.router != nil {
				adjust = append(adjust, test.router)
			}
			l := newLab(t, 1, adjust...)
			cfg := l.speakerConfig(0)
			if test.speaker != nil {
				test.speaker(&cfg.Neighbors[0])
			}
			s := newSpeaker(t, cfg, nil)
			set(t, s, twoPrefixes()...)
			startSpeaker(t, s)
			if test.established {
				comparePath(t, l.waitBest(prefix4), announcement4())
				comparePath(t, l.waitBest(prefix6), announcement6())
				return
			}
			n := waitStatus(t, s, "a failed attempt", func(n NeighborStatus) bool { return n.LastError != "" })
			if n.Sessions != 0 {
				t.Errorf("status %+v, want no session ever", n)
			}
			text, err := json.Marshal(s.Status())
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{password, "battery"} {
				if strings.Contains(string(text), secret) {
					t.Errorf("status shows a password: %s", text)
				}
			}
		})
	}
}

// TestInboundUpdates connects to a router that announces routes of its own: the
// shield must drop and count them, and ours must not suffer.
func TestInboundUpdates(t *testing.T) {
	t.Parallel()
	local := loopback()
	a := newAnnouncer(t, local)
	s := newSpeaker(t, Config{
		ASN: speakerASN, RouterID: netip.MustParseAddr("10.0.0.1"), HoldTime: testHold,
		Neighbors: []Neighbor{{Address: a.listen.Addr(), Port: a.listen.Port(), ASN: routerASN, LocalAddress: local}},
	}, prometheus.NewRegistry())
	set(t, s, announcement4())
	startSpeaker(t, s)
	a.waitFor(prefix4)
	n := waitStatus(t, s, "two refused updates", func(n NeighborStatus) bool { return n.RefusedUpdates == 2 })
	if n.Received.Update != 2 || n.State != Established {
		t.Errorf("status %+v, want two updates received in an established session", n)
	}
	label := n.Address.String()
	if got := testutil.ToFloat64(s.metrics.refused.WithLabelValues(label)); got != 2 {
		t.Errorf("%s is %v, want 2", metricRefusedUpdates, got)
	}
	if got := testutil.ToFloat64(s.metrics.sessionUp.WithLabelValues(label)); got != 1 {
		t.Errorf("%s is %v, want 1", metricSessionUp, got)
	}
}

// TestImportPolicy connects an engine to such a router without a shield: the
// policy behind the shield must hold on its own.
func TestImportPolicy(t *testing.T) {
	t.Parallel()
	for _, protected := range []bool{true, false} {
		t.Run(fmt.Sprintf("policy=%t", protected), func(t *testing.T) {
			t.Parallel()
			a := newAnnouncer(t, netip.MustParseAddr("127.0.0.1"))
			worked := make(chan struct{}, 1)
			e := startTestEngine(t, speakerASN, "10.0.0.1", netip.AddrPort{}, worked)
			want := 3 // without the policy: the router's two routes and our own
			if protected {
				want = 1
				if err := e.acceptLocalOnly(); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.announce(announcement4(), speakerASN); err != nil {
				t.Fatal(err)
			}
			err := e.addPeer(enginePeer{address: a.listen.Addr(), port: a.listen.Port(), asn: routerASN, holdTime: testHold})
			if err != nil {
				t.Fatal(err)
			}
			a.waitFor(prefix4)
			awaitEngine(t, worked, "both updates of the router", func() bool {
				var received uint64
				if err := e.peers(func(p *api.Peer) { received = p.State.Messages.Received.Update }); err != nil {
					t.Fatal(err)
				}
				return received == 2
			})
			paths, err := e.paths()
			if err != nil {
				t.Fatal(err)
			}
			if len(paths) != want || len(paths[prefix4]) != 1 {
				t.Errorf("the engine has %v, want %d prefixes", paths, want)
			}
		})
	}
}

func TestSetContext(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	s := newSpeaker(t, l.speakerConfig(0), nil)
	// A neighbor whose engine makes no progress.
	s.neighbors[0].hasEngine = true
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if err := s.Set(ctx, twoPrefixes()); !errors.Is(err, stopped) {
		t.Errorf("Set returned %v, want %v", err, stopped)
	}
	if got := len(s.Status().Announcements); got != 2 {
		t.Errorf("%d announcements stored, want 2", got)
	}
	bad := announcement6()
	bad.NextHop = next4
	if err := s.Set(ctx, []Announcement{bad}); err == nil || errors.Is(err, stopped) {
		t.Errorf("Set of an invalid set returned %v", err)
	}
	if got := len(s.Status().Announcements); got != 2 {
		t.Errorf("an invalid set left %d announcements, want 2", got)
	}
}

// TestJoins runs and stops everything once more and looks for goroutines left.
func TestJoins(t *testing.T) {
	l := newLab(t, 1)
	s := newSpeaker(t, l.speakerConfig(0), nil)
	set(t, s, twoPrefixes()...)
	stop := startSpeaker(t, s)
	l.waitBest(prefix4)
	stop()
	l.stop()
	awaitNoGoroutines(t)
}

// awaitNoGoroutines waits until no goroutine of this package's is left. Only a
// test that does not run in parallel may ask.
func awaitNoGoroutines(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(eventually)
	for {
		buf := make([]byte, 1<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		var left []string
		for _, g := range strings.Split(stacks, "\n\n") {
			if strings.Contains(g, "gobgp") || strings.Contains(g, "channels") || strings.Contains(g, "anyedge/bgp/shield") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return
		}
		// GoBGP's closed queues end on their own.
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		time.Sleep(5 * time.Millisecond)
	}
}
