package pop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/bgp"
	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/origin"
	"anyedge/pop/guard"
	"anyedge/pop/headroom"
	"anyedge/pop/proxy"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == tinyWorkerRole {
		tinyWorker()
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == proxyWorkerRole {
		proxyWorker()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// testConfig is a node with two service addresses and both address families.
const testConfig = `
node: {name: fra-1, pop: fra, region: eu}
fleet: {memory: true}
listeners:
  - {name: web, address: "127.0.0.1:8080", clear: true}
  - {name: alt, address: "127.0.0.1:8081", clear: true}
routes: [{pool: api}]
pools: [{name: api, backends: [{address: "127.0.0.1:9000"}]}]
bgp:
  asn: 64512
  router_id: 10.0.1.1
  prefixes: [192.0.2.0/24, "2001:db8:1::/48"]
  next_hop: {ipv4: 10.0.1.1, ipv6: "2001:db8::1"}
  neighbors: [{address: 10.0.1.254, asn: 64500}]
`

// parse returns a config with its defaults; replace holds pairs of old and new
// text.
func parse(t testing.TB, text string, replace ...string) *configs.Pop {
	t.Helper()
	cfg, err := configs.ParsePop("pop.yaml", []byte(strings.NewReplacer(replace...).Replace(text)))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// node is a controller and the world around it, simulated on virtual time: a
// worker, what probes of it find, the fleet store and the speaker. The world
// checks what must hold at every instant. It lives in a synctest bubble.
type node struct {
	t testing.TB
	c *controller

	// The worker. A crashed one is back after respawn.
	pid     int
	hung    bool                 // alive, but neither vitals nor answers to probes
	back    time.Time            // when the next one is ready; zero while one is
	respawn time.Duration        // how long a crashed one is away
	vitals  proxy.Vitals         // what it reports
	broken  map[string]bool      // listeners whose probes fail
	proved  map[string]time.Time // listener: last request served through it

	// The fleet.
	view  fleetView
	store *scripted

	sets  [][]bgp.Announcement
	told  Announcement // by the last set
	why   string       // the reason of the last change
	story []string     // sets and kills, in order
	last  state
	ticks int

	expectForced bool // an operator withdraws by force
}

const tick = 100 * time.Millisecond

func newNode(t testing.TB, replace ...string) *node {
	cfg := parse(t, testConfig, replace...)
	n := &node{
		t: t, pid: 1, respawn: 500 * time.Millisecond,
		vitals: proxy.Vitals{State: proxy.StateReady, Pools: []origin.Status{{Name: "api", Usable: 1}}},
		broken: make(map[string]bool), proved: make(map[string]time.Time),
		view:  fleetView{connected: true, session: "s1"},
		store: &scripted{session: "s1"},
	}
	n.store.calls = func(at string) {
		if n.store.busy > 1 {
			t.Errorf("%s: the store is asked twice at once", at)
		}
	}
	c := newController(cfg, quiet, newMetrics(nil), time.Now())
	c.speaker, c.kill, c.route.lease, c.changed = n, n.kill, newLease(n.store), n.changed
	c.fleet = func(time.Time) fleetView { return n.view }
	n.c, n.last = c, c.state(c.judge.Verdict(time.Now()))
	return n
}

// simulate runs f in a bubble, and joins the controller's call to the store.
func simulate(t *testing.T, f func(t *testing.T, n *node), replace ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, replace...)
		defer n.c.route.lease.settle()
		f(t, n)
	})
}

// Set implements [announcer].
func (n *node) Set(_ context.Context, routes []bgp.Announcement) error {
	if want := announcements(n.c.cfg.BGP, n.c.route.announced, n.c.route.except, n.c.route.draining); !reflect.DeepEqual(routes, want) {
		n.t.Errorf("speaker was set to %v while %s, want %v", routes, n.c.route.announced, want)
	}
	n.sets, n.told = append(n.sets, routes), n.c.route.announced
	n.story = append(n.story, string(n.c.route.announced))
	return nil
}

func (n *node) kill(pid int) {
	if pid != n.pid {
		n.t.Errorf("killed process %d, the worker is %d", pid, n.pid)
	}
	n.story = append(n.story, "killed")
	n.crash("signal: killed")
}

// crash ends the worker.
func (n *node) crash(how string) {
	if !n.back.IsZero() {
		return
	}
	n.back = time.Now().Add(n.respawn)
	n.hung = false
	n.c.event(workerEvent{at: time.Now(), pid: n.pid, exited: how})
}

// changed checks, after every step, what must hold.
func (n *node) changed(s state) {
	n.t.Helper()
	now, old := time.Now(), n.last
	n.last = s
	wanted := s.Verdict.Since // since when to withdraw, for either reason
	if s.Drain.stage == DrainWithdraw && s.Drain.since.Before(wanted) {
		wanted = s.Drain.since
	}
	switch {
	case s.Announced == old.Announced:
	case s.Announced == Withdrawn:
		switch {
		case n.store.holds():
		case n.expectForced && n.c.route.rule == RuleOverride:
		case s.Verdict.State == health.Unhealthy && (!n.view.connected || n.store.unreachable(now, wanted)):
		default:
			n.t.Errorf("withdrawn without a lease (%q) and not for lack of a store: %s", n.store.held, s.Reason)
		}
	case s.Announced == Announced:
		for _, l := range n.c.cfg.Listeners {
			if at, ok := n.proved[l.Name]; !ok || now.Sub(at) > 10*time.Second {
				n.t.Errorf("announced, but the last request served through %s was at %v", l.Name, at)
			}
		}
	case old.Announced == Withdrawn && s.Verdict.State != health.Healthy && !passes(s.Verdict):
		n.t.Errorf("announced %s while %s", s.Announced, s.Verdict.State)
	}
	if s.Announced != old.Announced {
		n.why = s.Reason
	}
	if s.Announced != old.Announced && n.told != s.Announced {
		n.t.Errorf("%s, but the speaker was told %s", s.Announced, n.told)
	}
}

// run lets so much time pass.
func (n *node) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(tick)
		n.tick()
	}
}

// tick is one turn of the world and of the controller.
func (n *node) tick() {
	now := time.Now()
	if !n.back.IsZero() && !now.Before(n.back) {
		n.back = time.Time{}
		n.pid++
	}
	n.ticks++
	if alive := n.back.IsZero(); alive && !n.hung && n.ticks%2 == 0 {
		v := n.vitals
		n.c.event(workerEvent{at: now, pid: n.pid, vitals: &v})
	}
	if n.ticks%5 == 0 {
		n.probe(now)
	}
	n.decide()
}

// decide steps the controller until it waits for something outside.
func (n *node) decide() {
	for {
		n.c.step(n.t.Context(), time.Now())
		synctest.Wait()
		select {
		case a := <-n.c.route.lease.answers:
			n.c.route.lease.take(a)
		default:
			return
		}
	}
}

func (n *node) probe(now time.Time) {
	for _, l := range n.c.cfg.Listeners {
		r := probeResult{check: checkName(l.Name), ok: n.back.IsZero() && !n.hung && !n.broken[l.Name]}
		if r.ok {
			n.proved[l.Name] = now
		} else {
			r.detail = "no answer"
		}
		n.c.probed(now, r)
	}
}

// await runs until the announcement is a, for so long at most.
func (n *node) await(a Announcement, limit time.Duration) {
	n.t.Helper()
	for end := time.Now().Add(limit); n.c.route.announced != a; {
		if !time.Now().Before(end) {
			n.t.Fatalf("still %s (%s) after %s, want %s", n.c.route.announced, n.c.route.reason, limit, a)
		}
		n.run(tick)
	}
}

// stays runs for so long and fails if the announcement leaves a.
func (n *node) stays(a Announcement, d time.Duration) {
	n.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); n.run(tick) {
		if n.c.route.announced != a {
			n.t.Fatalf("became %s (%s), want %s all along", n.c.route.announced, n.c.route.reason, a)
		}
	}
}

// because fails unless the reason of the announcement, then or now, has the
// words.
func (n *node) because(words string) {
	n.t.Helper()
	if !strings.Contains(n.why, words) && !strings.Contains(n.c.route.reason, words) {
		n.t.Errorf("%s because %q, now %q, want it to say %q", n.c.route.announced, n.why, n.c.route.reason, words)
	}
}

func (n *node) use(resource string, used float64) {
	n.vitals.Usage = []headroom.Usage{{Resource: resource, Used: used, Ceiling: 100}}
}

var errStore = errors.New("store is away")

// scripted is a [leaser] that behaves as told. It blocks while silent, until
// the caller gives up.
type scripted struct {
	session fleet.Session // of the node
	held    fleet.Session // under which the lease is recorded
	refusal *guard.Refusal
	err     error // the store's, without effect
	losing  bool  // the write persists, its answer is lost
	silent  chan struct{}

	mu       sync.Mutex // guards what follows, and what is above during a step
	calls    func(at string)
	busy     int
	acquires int
	releases int
	reasons  []string
	failed   bool      // to answer, the last time
	answered time.Time // with yes or no under the present session; zero if not
}

// unreachable reports whether a node that has wanted an answer since then has
// to conclude that the store is away.
func (s *scripted) unreachable(now, since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answered.After(since) {
		since = s.answered
	}
	return s.failed || now.Sub(since) >= leaseTimeout
}

// holds reports whether the lease is recorded under a live session.
func (s *scripted) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held != "" && s.held == s.session
}

func (s *scripted) call(ctx context.Context, what string, effect func() error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
	if what == "release" {
		s.releases++
	}
	if s.calls != nil {
		s.calls(what)
	}
	if silent := s.silent; silent != nil {
		s.mu.Unlock()
		select {
		case <-silent:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
	}
	s.busy--
	if err == nil {
		err = s.err
	}
	if s.failed = err != nil; s.failed {
		return err
	}
	err = effect()
	if s.losing && err == nil {
		s.failed = true
		return fmt.Errorf("answer lost: %w", errStore)
	}
	return err
}

func (s *scripted) acquire(ctx context.Context, p plea) error {
	s.mu.Lock()
	s.acquires++
	s.reasons = append(s.reasons, p.reason)
	asked := s.session
	s.mu.Unlock()
	return s.call(ctx, "acquire", func() error {
		if asked == "" || asked != s.session {
			return fleet.ErrSession
		}
		s.answered = time.Now()
		if s.refusal != nil {
			return fmt.Errorf("lease: refused: %w", s.refusal)
		}
		s.held = asked
		return nil
	})
}

func (s *scripted) update(ctx context.Context, p plea) error {
	return s.call(ctx, "update", func() error {
		if s.held == "" || s.held != s.session {
			return fleet.ErrConflict
		}
		s.reasons = append(s.reasons, p.reason)
		return nil
	})
}

func (s *scripted) release(ctx context.Context) error {
	return s.call(ctx, "release", func() error { s.held = ""; return nil })
}

// renew gives the node another session, or with "" none.
func (n *node) renew(s fleet.Session) {
	n.view.session, n.store.session = s, s
	n.store.answered = time.Time{}
	n.store.held = "" // what was bound to the old one is gone
}
