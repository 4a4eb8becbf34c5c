package pop

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/internal/tickets"
	"anyedge/pop/guard"
)

// peer is one node's part in a fleet, with its view kept current.
type peer struct {
	*member
	fleet *fleet.Fleet
	cfg   *configs.Pop
	leave func() // ends the member and joins it
}

const sealingKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func newPeer(t *testing.T, store fleet.Store, node, pop string) *peer {
	t.Helper()
	sealer, err := fleet.ParseKeys([]byte(sealingKey))
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer, ValidRing: validRing})
	if err != nil {
		t.Fatal(err)
	}
	cfg := parse(t, testConfig, "name: fra-1, pop: fra", "name: "+node+", pop: "+pop,
		"memory: true", "memory: true, report_interval: 20ms, report_ttl: 30s")
	p := &peer{member: newMember(f, store, cfg, quiet, newMetrics(nil)), fleet: f, cfg: cfg}
	run := func(f func(context.Context) error) func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- f(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(run(f.Run))
	stop := run(p.Run)
	left := false
	p.leave = func() {
		if !left {
			left = true
			stop()
		}
	}
	t.Cleanup(p.leave)
	return p
}

// sees waits until the peer's view fits.
func (p *peer) sees(t *testing.T, what string, fits func(*fleet.View) bool) *fleet.View {
	t.Helper()
	deadline := time.After(patience)
	for {
		view := p.fleet.View()
		if fits(view) {
			return view
		}
		select {
		case <-view.Changed():
		case <-deadline:
			t.Fatalf("%s does not see %s", p.node.Name, what)
		}
	}
}

func (p *peer) announce(state health.State, a Announcement) {
	p.tell(fleet.Report{Node: p.node.Name, Pop: p.node.Pop, Region: p.node.Region, State: state.String(), Announcement: string(a)})
}

func serves(nodes ...string) func(*fleet.View) bool {
	return func(v *fleet.View) bool {
		for _, n := range nodes {
			if r, ok := v.Report(n); !ok || r.State != fleet.StateHealthy || r.Announcement != fleet.Announced || !r.At.After(v.ConnectedSince) {
				return false
			}
		}
		return v.Connected
	}
}

func consulLike(t *testing.T) fleet.Store {
	t.Helper()
	srv := httptest.NewServer(fleet.Handler(fleet.NewMemory()))
	t.Cleanup(srv.Close)
	c, err := fleet.NewConsul(fleet.ConsulConfig{Address: strings.TrimPrefix(srv.URL, "http://"), MinTTL: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestReportIsPublishedAndTakenBack(t *testing.T) {
	for name, store := range map[string]fleet.Store{"memory": fleet.NewMemory(), "over HTTP": consulLike(t)} {
		t.Run(name, func(t *testing.T) {
			fra, iad := newPeer(t, store, "fra-1", "fra"), newPeer(t, store, "iad-1", "iad")
			iad.sees(t, "a report before the first decision", func(v *fleet.View) bool {
				r, ok := v.Report("fra-1")
				return ok && r.State == fleet.StateUnknown && r.Announcement == fleet.Withdrawn
			})
			fra.announce(health.Healthy, Announced)
			iad.sees(t, "fra serve", serves("fra-1"))
			fra.leave()
			iad.sees(t, "fra leave", func(v *fleet.View) bool { _, ok := v.Report("fra-1"); return !ok })
		})
	}
}

func TestSessionIsReplacedAfterItsLoss(t *testing.T) {
	store := fleet.NewMemory()
	fra, iad := newPeer(t, store, "fra-1", "fra"), newPeer(t, store, "iad-1", "iad")
	fra.announce(health.Healthy, Announced)
	iad.sees(t, "fra serve", serves("fra-1"))
	old := fra.look(time.Now()).session
	if err := store.EndSession(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	iad.sees(t, "fra's report under another session", func(v *fleet.View) bool {
		e, err := store.Get(t.Context(), "reports/fra-1")
		return serves("fra-1")(v) && err == nil && e.Session != old
	})
	if now := fra.look(time.Now()).session; now == old || now == "" {
		t.Errorf("session %q, the old one was %q", now, old)
	}
}

// A member that learns from the guard that its session has ended gets another
// at once, not at its next report.
func TestAcquireUnderAnEndedSessionSaysSo(t *testing.T) {
	store := fleet.NewMemory()
	fra := newPeer(t, store, "fra-1", "fra")
	fra.announce(health.Healthy, Announced)
	fra.sees(t, "itself", serves("fra-1"))
	fra.leave() // nobody renews any more
	if err := fra.acquire(t.Context(), plea{reason: "test"}); !errors.Is(err, fleet.ErrSession) {
		t.Errorf("%v, want %v", err, fleet.ErrSession)
	}
	if s := fra.currentSession(); s != "" {
		t.Errorf("session %q is still believed in", s)
	}
	select {
	case <-fra.wake:
	default:
		t.Error("nobody was woken to get another")
	}
	if err := fra.acquire(t.Context(), plea{reason: "test"}); !errors.Is(err, fleet.ErrSession) {
		t.Errorf("without a session: %v, want %v", err, fleet.ErrSession)
	}
}

func TestGuardCountsWhatTheViewShows(t *testing.T) {
	store := fleet.NewMemory()
	fra, iad, sin := newPeer(t, store, "fra-1", "fra"), newPeer(t, store, "iad-1", "iad"), newPeer(t, store, "sin-1", "sin")
	all := []*peer{fra, iad, sin}
	for _, p := range all {
		p.announce(health.Healthy, Announced)
	}
	for _, p := range all {
		p.sees(t, "all serve", serves("fra-1", "iad-1", "sin-1"))
	}
	if err := fra.acquire(t.Context(), plea{reason: "first"}); err != nil {
		t.Fatal(err)
	}
	var r *guard.Refusal
	if err := iad.acquire(t.Context(), plea{reason: "second"}); !errors.As(err, &r) || r.Cause != guard.TooManyOut {
		t.Errorf("%v, want %s", err, guard.TooManyOut)
	}
	if err := fra.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := iad.acquire(t.Context(), plea{reason: "after the first"}); err != nil {
		t.Error(err)
	}

	// A PoP that is de-preferred does not count as one that remains.
	fra.announce(health.Healthy, Depreferred)
	sin.announce(health.Healthy, Withdrawn)
	iad.release(t.Context())
	iad.sees(t, "nobody else serve", func(v *fleet.View) bool { return !serves("fra-1")(v) && !serves("sin-1")(v) })
	if err := iad.acquire(t.Context(), plea{reason: "last"}); !errors.As(err, &r) || r.Cause != guard.TooFewLeft {
		t.Errorf("%v, want %s", err, guard.TooFewLeft)
	}
}

func TestRequestLeavesOutStaleReports(t *testing.T) {
	now := time.Now()
	seen := func(node, pop, state, a string, draining bool, age time.Duration) fleet.Seen {
		return fleet.Seen{At: now.Add(-age), Report: fleet.Report{Node: node, Pop: pop, State: state, Announcement: a, Draining: draining}}
	}
	view := &fleet.View{Connected: true, ConnectedSince: now.Add(-time.Hour), Reports: []fleet.Seen{
		seen("a", "pa", fleet.StateHealthy, fleet.Announced, false, time.Second),
		seen("b", "pb", fleet.StateHealthy, fleet.Announced, false, time.Minute),
		seen("c", "pc", fleet.StateHealthy, fleet.Announced, true, time.Second),
		seen("d", "pd", fleet.StateHealthy, fleet.Depreferred, false, time.Second),
		seen("e", "pe", fleet.StateUnknown, fleet.Announced, false, time.Second),
	}}
	late := *view // the store was reached when the first of them was read already
	late.ConnectedSince = view.Reports[0].At
	c := newCensus(parse(t, testConfig))
	req := c.request(now, view, fleet.Leases{
		Holders: []fleet.Lease{{Node: "x", Pop: "px", At: now}},
		Waiting: []fleet.Lease{{Node: "y", Pop: "py", At: now.Add(-time.Hour)}},
	}, plea{since: now})
	serving := make(map[string]bool)
	for _, n := range req.Nodes {
		serving[n.Name] = n.Serving
	}
	if len(serving) != 4 || !serving["a"] || serving["c"] || serving["d"] || serving["e"] {
		t.Errorf("nodes %v, want a, c, d and e, of which a serves", serving)
	}
	if req.Node != "fra-1" || req.Pop != "fra" || len(req.Leases) != 2 ||
		!req.Leases[0].Out || !req.Leases[0].Recent || req.Leases[1].Out || req.Leases[1].Recent {
		t.Errorf("request %+v", req)
	}
	if n := c.nodes(now, &late); len(n) != 0 {
		t.Errorf("%+v count, though nobody knows how old they are", n)
	}
	pops := healthyPops(view, now, c.ttl)
	if len(pops) != 5 || !pops["pa"] || pops["pb"] || !pops["pc"] || !pops["pe"] {
		t.Errorf("healthy PoPs %v, want all but the silent one", pops)
	}
}

func TestLookSeesDrains(t *testing.T) {
	fra := newPeer(t, fleet.NewMemory(), "fra-1", "fra")
	for _, d := range []fleet.Drain{{Scope: fleet.ScopeNode, Name: "fra-1"}, {Scope: fleet.ScopePop, Name: "fra"}, {Scope: fleet.ScopeRegion, Name: "eu"}} {
		d.At = time.Now()
		if err := fra.fleet.SetDrain(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		fra.sees(t, d.Scope+" drain", func(*fleet.View) bool { return fra.look(time.Now()).orders.Drain != nil })
		fra.fleet.ClearDrain(t.Context(), d.Scope, d.Name)
		fra.sees(t, d.Scope+" drain end", func(*fleet.View) bool { return fra.look(time.Now()).orders.Drain == nil })
	}
}

func TestRotatorsAgreeOnOneRing(t *testing.T) {
	store := consulLike(t)
	peers := []*peer{newPeer(t, store, "fra-1", "fra"), newPeer(t, store, "iad-1", "iad"), newPeer(t, store, "sin-1", "sin")}
	connected := func(v *fleet.View) bool { return v.Connected }
	for _, p := range peers {
		p.sees(t, "the store", connected)
	}
	start := time.Now()
	rotate := func(now time.Time) {
		t.Helper()
		errs := make(chan error)
		for _, p := range peers {
			go func() { errs <- newRotator(p.fleet, p.cfg.TLS.Tickets, quiet).rotate(t.Context(), now) }()
		}
		for range peers {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
	var rings []string
	var last tickets.Ring
	for i := range 4 {
		now := start.Add(time.Duration(i) * peers[0].cfg.TLS.Tickets.Rotate.Std())
		rotate(now)
		data, index, err := peers[0].fleet.Ring(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			view := p.sees(t, "the ring", func(v *fleet.View) bool { return v.RingIndex == index })
			if string(view.Ring) != string(data) {
				t.Errorf("%s has another ring", p.node.Name)
			}
		}
		rotate(now) // nothing is due
		if _, again, _ := peers[0].fleet.Ring(t.Context()); again != index {
			t.Error("rotated twice at one time")
		}
		last = tickets.Ring{}
		if err := json.Unmarshal(data, &last); err != nil || last.Validate() != nil {
			t.Fatalf("ring: %v, %v", err, last.Validate())
		}
		rings = append(rings, string(data))
		if i > 0 && rings[i] == rings[i-1] {
			t.Error("not rotated when due")
		}
	}
	e, err := store.Get(t.Context(), "state/ring")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range last.Keys {
		if strings.Contains(string(e.Value), string(k.Secret[:])) {
			t.Error("a secret stands in the store in clear")
		}
	}
}

func TestRingErrorsRepeatNoSecret(t *testing.T) {
	for _, data := range []string{`{"keys":"s3cret"}`, `s3cret`, `{"version":1,"keys":[{"id":"s3cret"}]}`} {
		if err := validRing([]byte(data)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", data, err)
		}
	}
	if ring, err := decodeRing(nil); err != nil || len(ring.Keys) != 0 {
		t.Errorf("no ring: %v, %v", ring, err)
	}
}
