package pop

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/bgp"
	"anyedge/configs"
)

// edgeOf is upstreams that run, with routers that their config's neighbors are.
type edgeOf struct {
	*upstreams
	t       *testing.T
	text    string
	routers []*bgp.Router
}

// runUpstreams starts two routers and the upstreams of a config with both.
func runUpstreams(t *testing.T, neighbors string) *edgeOf {
	t.Helper()
	e := &edgeOf{t: t}
	ours := netip.MustParseAddr("127.0.91.1")
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	run := func(f func(context.Context) error) {
		group.Go(func() {
			if err := f(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 2 {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 91, byte(10 + i)}), freePort(t))
		r, err := bgp.NewRouter(bgp.RouterConfig{
			ASN: uint32(64500 + i), RouterID: address.Addr(), Listen: address,
			Peers: []bgp.RouterPeer{{Address: ours, ASN: 64512}},
		}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		e.routers = append(e.routers, r)
		run(r.Run)
		neighbors = strings.ReplaceAll(neighbors, fmt.Sprintf("ROUTER%d", i), fmt.Sprintf("address: %s, port: %d, asn: %d, local_address: %s",
			address.Addr(), address.Port(), 64500+i, ours))
	}
	e.text = strings.Replace(testConfig, "neighbors: [{address: 10.0.1.254, asn: 64500}]", "neighbors: "+neighbors, 1)
	cfg := parse(t, e.text)
	u, err := newUpstreams(cfg.BGP, nil, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.upstreams = u
	for _, task := range u.tasks() {
		run(task.Run)
	}
	e.announce(cfg)
	return e
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func (e *edgeOf) announce(cfg *configs.Pop) {
	e.t.Helper()
	if err := e.speaker.Set(e.t.Context(), announcements(cfg.BGP, Announced, nil, false)); err != nil {
		e.t.Fatal(err)
	}
}

// reload does what a reload of a changed config does.
func (e *edgeOf) reload(replace ...string) {
	e.t.Helper()
	e.text = strings.NewReplacer(replace...).Replace(e.text)
	cfg := parse(e.t, e.text)
	n, err := readNeighbors(cfg.BGP)
	if err != nil {
		e.t.Fatal(err)
	}
	e.set(e.t.Context(), n)
	e.announce(cfg)
}

func (e *edgeOf) await(what string, ok func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("not in time: %s\n%+v", what, e.speaker.Status().Neighbors)
		}
	}
}

// established waits for all sessions and returns them.
func (e *edgeOf) established() []bgp.NeighborStatus {
	e.t.Helper()
	e.await("every session established, every route there", func() bool {
		for _, r := range e.speaker.Routes() {
			if r.Reason != bgp.RouteAnnounced && r.Reason != bgp.RouteWithheld {
				return false
			}
		}
		return true
	})
	return e.speaker.Status().Neighbors
}

// TestReloadTouchesOnlyTheNeighborThatChanged: the other session stands, and
// sends no UPDATE.
func TestReloadTouchesOnlyTheNeighborThatChanged(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := runUpstreams(t, "[{ROUTER0}, {ROUTER1}]")
	before := e.established()
	same := func(what string, i int) {
		t.Helper()
		now := e.speaker.Status().Neighbors[i]
		if !now.EstablishedSince.Equal(before[i].EstablishedSince) || now.Sent.Update != before[i].Sent.Update {
			t.Errorf("%s: neighbor %d was touched: %+v, before %+v", what, i, now, before[i])
		}
	}

	// A hold time of its own: a new session with that one.
	e.reload("asn: 64501,", "asn: 64501, hold_time: 30s,")
	e.await("another session", func() bool {
		n := e.speaker.Status().Neighbors[1]
		return n.State == bgp.Established && !n.EstablishedSince.Equal(before[1].EstablishedSince)
	})
	same("hold time of the other", 0)
	before = e.established()

	// Actions of one: an UPDATE to it, in the same session.
	e.reload("hold_time: 30s,", "hold_time: 30s, actions: {announce: [far]},", "router_id:", "actions: [{name: far, prepend: 4}]\n  router_id:")
	e.await("a longer path", func() bool {
		paths := e.routers[1].Paths(netip.MustParsePrefix("192.0.2.0/24"))
		return len(paths) == 1 && len(paths[0].ASPath) == 5
	})
	same("actions of the other", 0)
	if now := e.speaker.Status().Neighbors[1]; !now.EstablishedSince.Equal(before[1].EstablishedSince) {
		t.Errorf("a change of actions ended the session: %+v", now)
	}
	before = e.established()

	// One that goes.
	text := e.text
	begin := strings.Index(text, ", {address: 127.0.91.11")
	e.reload(text[begin:strings.LastIndex(text, "]")], "")
	if n := e.speaker.Status().Neighbors; len(n) != 1 {
		t.Fatalf("%d neighbors are left", len(n))
	}
	e.await("no route at the one that left", func() bool { return len(e.routers[1].Paths(netip.MustParsePrefix("192.0.2.0/24"))) == 0 })
	same("the other left", 0)

	// BFD for the one that stays: the engine starts now, and the session stands.
	if s := e.paths.Status(); len(s) != 0 {
		t.Errorf("BFD sessions before: %+v", s)
	}
	e.reload("asn: 64500,", "asn: 64500, bfd: {auth: {key_file: "+secret+"}},")
	e.await("a BFD session that has an engine", func() bool {
		s := e.paths.Status()
		return len(s) == 1 && s[0].LocalDiscriminator != 0
	})
	same("BFD", 0)
}

// A withheld neighbor gets nothing; the other one does, all along.
func TestActionWithholds(t *testing.T) {
	t.Parallel()
	e := runUpstreams(t, "[{ROUTER0}, {ROUTER1}]")
	e.established()
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	e.reload("asn: 64501,", "asn: 64501, actions: {announce: [quiet]},", "router_id:", "actions: [{name: quiet, withhold: true}]\n  router_id:")
	e.await("withheld, and taken back", func() bool {
		for _, r := range e.speaker.Routes() {
			if r.Neighbor == netip.MustParseAddr("127.0.91.11") && (r.Reason != bgp.RouteWithheld || r.Detail != "action quiet") {
				return false
			}
		}
		return len(e.routers[1].Paths(prefix)) == 0
	})
	if len(e.routers[0].Paths(prefix)) != 1 {
		t.Error("the other neighbor has no route")
	}
}

// A node without BFD needs no engine.
func TestNoEngineWithoutBFD(t *testing.T) {
	cfg := parse(t, testConfig)
	u, err := newUpstreams(cfg.BGP, []string{"/nonexistent"}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- u.runBFD(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the engine was asked for: %v", err)
	}
}

// What the speaker or BFD would refuse is refused before anything changes, with
// its place.
func TestNeighborsOfABadFile(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, n int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Repeat("x", n)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tc := range map[string]struct{ neighbor, want string }{
		"no password":   {"password_file: " + filepath.Join(dir, "none"), "bgp.neighbors[0].password_file: "},
		"long password": {"password_file: " + file("long", 81), "bgp: neighbors[0].password: longer than 80 bytes"},
		"no key":        {"bfd: {auth: {key_file: " + filepath.Join(dir, "none") + "}}", "bgp.neighbors[0].bfd.auth.key_file: "},
		"empty key":     {"bfd: {auth: {key_file: " + file("empty", 0) + "}}", "bgp: bfd: peers[0]: auth.keys[0]: a secret has 1 to 20 bytes"},
	} {
		cfg := parse(t, testConfig, "asn: 64500}", "asn: 64500, "+tc.neighbor+"}")
		if _, err := readNeighbors(cfg.BGP); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// The last session that is left is known as such.
func TestLastSession(t *testing.T) {
	t.Parallel()
	e := runUpstreams(t, "[{ROUTER0}, {ROUTER1}]")
	n := e.established()
	if e.isLast(n[0].Address) || e.isLast(n[1].Address) {
		t.Error("of two sessions one is the last")
	}
	if err := e.speaker.Shutdown(n[0].Address, "disk swap"); err != nil {
		t.Fatal(err)
	}
	e.await("the session ends", func() bool { return e.speaker.Status().Neighbors[0].State < bgp.OpenSent })
	if e.isLast(n[0].Address) || !e.isLast(n[1].Address) {
		t.Error("of one session the last is not the last")
	}
}
