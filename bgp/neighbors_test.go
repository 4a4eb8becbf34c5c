package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/bgp/bfd"
)

// ring is a speaker with several routers, one neighbor each.
type ring struct {
	t       *testing.T
	labs    []*lab
	speaker *Speaker
	cfg     Config
	stop    func()
}

func newRing(t *testing.T, routers int, adjust func(*Config)) *ring {
	t.Helper()
	r := &ring{t: t}
	local := loopback()
	for i := range routers {
		l := newLab(t, 0, func(_ *testing.T, c *RouterConfig) {
			c.ASN += uint32(i)
			c.Peers = []RouterPeer{{Address: local, ASN: speakerASN}}
		})
		cfg := l.speakerConfig(0)
		cfg.Neighbors = append(r.cfg.Neighbors, cfg.Neighbors...)
		r.labs, r.cfg = append(r.labs, l), cfg
	}
	if adjust != nil {
		adjust(&r.cfg)
	}
	r.speaker = newSpeaker(t, r.cfg, nil)
	r.stop = startSpeaker(t, r.speaker)
	return r
}

func (r *ring) address(i int) netip.Addr { return r.cfg.Neighbors[i].Address }

// await polls the status of one neighbor.
func (r *ring) await(i int, what string, condition func(NeighborStatus) bool) NeighborStatus {
	r.t.Helper()
	deadline := time.Now().Add(eventually)
	for {
		for _, n := range r.speaker.Status().Neighbors {
			if n.Address == r.address(i) && condition(n) {
				return n
			}
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("neighbor %d: not within %v: %s; %+v", i, eventually, what, r.speaker.Status().Neighbors)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *ring) awaitAll() {
	r.t.Helper()
	for i := range r.labs {
		r.await(i, "established", func(n NeighborStatus) bool { return n.State == Established && n.EndOfRIB })
	}
}

// routes is what Routes says of a prefix, by neighbor.
func (r *ring) routes(p netip.Prefix) map[netip.Addr]Route {
	all := make(map[netip.Addr]Route)
	for _, route := range r.speaker.Routes() {
		if route.Prefix == p {
			all[route.Neighbor] = route
		}
	}
	return all
}

func (r *ring) awaitReason(p netip.Prefix, i int, want RouteReason) Route {
	r.t.Helper()
	deadline := time.Now().Add(eventually)
	for {
		route := r.routes(p)[r.address(i)]
		if route.Reason == want {
			return route
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%v to neighbor %d: %+v, want %s", p, i, route, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// waitSame waits until a router has the announcement as it was made.
func (r *ring) waitSame(i int, want Announcement) {
	r.t.Helper()
	if err := want.normalize(); err != nil {
		r.t.Fatal(err)
	}
	path := want.path(speakerASN)
	r.labs[i].waitRouter(fmt.Sprintf("%+v", path), func(router *Router) bool {
		got, ok := router.Best(want.Prefix)
		got.Neighbor = netip.Addr{}
		return ok && got.equal(&path)
	})
}

// TestDifferencesBetweenNeighbors announces one prefix in three ways, with
// every attribute there is, and then in other ways.
func TestDifferencesBetweenNeighbors(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3, nil)
	r.awaitAll()
	general := announcement4()
	general.LargeCommunities = LargeCommunities{{64500, 2, 3}, {64500, 1, 3}}
	second := general
	second.Neighbors = []netip.Addr{r.address(1)}
	second.MED, second.Prepend, second.Communities = 77, 2, Communities{GracefulShutdown, 64500<<16 | 9}
	for _, text := range []string{"rt:64500:70000", "rt:4200000001:7", "ro:192.0.2.1:7", "0x030b000000000064", "0x8009000000000000"} {
		c, err := ParseExtendedCommunity(text)
		if err != nil {
			t.Fatal(err)
		}
		second.ExtendedCommunities = append(second.ExtendedCommunities, c)
	}
	third := general
	third.Neighbors, third.Withheld = []netip.Addr{r.address(2)}, "maintenance of the transit"
	other := announcement6()
	other.Neighbors = []netip.Addr{r.address(2), loopback()}
	set(t, r.speaker, second, other, general, third)
	r.waitSame(0, general)
	r.waitSame(1, second)
	r.waitSame(2, other)
	r.awaitReason(prefix4, 0, RouteAnnounced)
	got := r.awaitReason(prefix4, 1, RouteAnnounced)
	if got.Desired == nil || got.Announced == nil || !got.Announced.equal(got.Desired) || got.Announced.MED != 77 || got.Since.IsZero() {
		t.Errorf("route %+v", got)
	}
	if got := r.awaitReason(prefix4, 2, RouteWithheld); got.Desired != nil || got.Announced != nil || got.Detail != third.Withheld {
		t.Errorf("route %+v", got)
	}
	r.awaitReason(prefix6, 0, RouteOtherNeighbors)
	r.awaitReason(prefix6, 2, RouteAnnounced)
	if len(r.labs[2].router.Paths(prefix4)) != 0 || len(r.labs[0].router.Paths(prefix6)) != 0 {
		t.Error("a router has a route that is not for it")
	}

	// Each change concerns one neighbor, and only that one gets an UPDATE.
	sent := func() (counts [3]uint64) {
		for i, n := range r.speaker.Status().Neighbors {
			counts[i] = n.Sent.Update
		}
		return counts
	}
	for i, updates := range []uint64{3, 3, 3} { // a route and two End-of-RIB markers
		r.await(i, "first UPDATEs", func(n NeighborStatus) bool { return n.Sent.Update == updates })
	}
	before := sent()
	second.MED = 78
	set(t, r.speaker, second, other, general, third)
	r.waitSame(1, second)
	third.Withheld = ""
	set(t, r.speaker, second, other, general, third)
	r.waitSame(2, third)
	general.Prepend = 1
	set(t, r.speaker, second, other, general, third)
	r.waitSame(0, general)
	// A message counts a moment after it has reached the router.
	for i := range r.labs {
		r.await(i, "one UPDATE", func(n NeighborStatus) bool { return n.Sent.Update > before[i] })
	}
	if after := sent(); after != [3]uint64{before[0] + 1, before[1] + 1, before[2] + 1} {
		t.Errorf("UPDATEs sent: %v, then %v", before, after)
	}
	set(t, r.speaker)
	for i := range r.labs {
		r.labs[i].waitGone(prefix4)
	}
	for i := range r.labs {
		r.await(i, "nothing announced", func(n NeighborStatus) bool { return len(n.AdjRIBOut) == 0 })
	}
	if routes := r.speaker.Routes(); len(routes) != 0 {
		t.Errorf("routes %+v, want none", routes)
	}
}

// TestSetNeighbors changes, removes and adds neighbors; the one that stays
// keeps its session.
func TestSetNeighbors(t *testing.T) {
	t.Parallel()
	r := newRing(t, 4, func(c *Config) { c.Neighbors = c.Neighbors[:3] })
	set(t, r.speaker, twoPrefixes()...)
	for i := range 3 {
		r.waitSame(i, announcement4())
	}
	same := r.await(0, "established", established)
	before := r.await(1, "established", established)
	next := slices.Clone(r.cfg.Neighbors)
	next[1].KeepaliveInterval = time.Second
	next[1].HoldTime = 6 * time.Second
	fourth := r.labs[3].speakerConfig(0).Neighbors[0]
	next = append(next[:2], fourth)
	if err := r.speaker.SetNeighbors(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	r.labs[2].waitGone(prefix4)
	r.cfg.Neighbors = next
	r.waitSame(1, announcement4())
	r.labs[3].waitBest(prefix4)
	after := r.await(1, "established again", established)
	if !after.EstablishedSince.After(before.EstablishedSince) || after.Negotiated == nil || after.Negotiated.HoldTime != testHold {
		t.Errorf("neighbor that changed: %+v", after)
	}
	if now := r.await(0, "established", established); now.EstablishedSince != same.EstablishedSince || now.Sessions != 1 {
		t.Errorf("neighbor that did not change: %+v, then %+v", same, now)
	}
	// The same set once more touches nobody.
	if err := r.speaker.SetNeighbors(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if now := r.await(1, "established", established); now.EstablishedSince != after.EstablishedSince {
		t.Error("an unchanged set restarted a session")
	}
	bad := append(slices.Clone(next), Neighbor{})
	if err := r.speaker.SetNeighbors(t.Context(), bad); err == nil || len(r.speaker.Status().Neighbors) != 3 {
		t.Errorf("an invalid set: %v", err)
	}
	// A session again with the one that had left.
	if err := r.speaker.SetNeighbors(t.Context(), append(next, r.labs[2].speakerConfig(0).Neighbors[0])); err != nil {
		t.Fatal(err)
	}
	r.labs[2].waitBest(prefix6)
	if err := r.speaker.SetNeighbors(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, l := range r.labs {
		l.waitGone(prefix4)
	}
}

func TestShutdownAndEnable(t *testing.T) {
	t.Parallel()
	r := newRing(t, 2, nil)
	set(t, r.speaker, announcement4())
	r.waitSame(0, announcement4())
	r.waitSame(1, announcement4())
	other := r.await(1, "established", established)
	if err := r.speaker.Shutdown(r.address(0), "line card swap, back at 14:00"); err != nil {
		t.Fatal(err)
	}
	r.labs[0].waitGone(prefix4)
	route := r.awaitReason(prefix4, 0, RouteShutdown)
	if route.Detail != "line card swap, back at 14:00" || route.Desired == nil || route.Since.IsZero() {
		t.Errorf("route %+v", route)
	}
	n := r.await(0, "shut down", func(n NeighborStatus) bool { return n.State == Idle && n.Shutdown != nil })
	if !strings.Contains(n.LastError, "line card swap") || n.Sent.Notification != 1 {
		t.Errorf("status %+v", n)
	}
	// A change of its configuration does not open a session.
	next := slices.Clone(r.cfg.Neighbors)
	next[0].HoldTime = 30 * time.Second
	if err := r.speaker.SetNeighbors(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if n := r.await(0, "still shut down", func(n NeighborStatus) bool { return n.Shutdown != nil }); n.State != Idle {
		t.Errorf("status %+v", n)
	}
	if err := r.speaker.Enable(r.address(0)); err != nil {
		t.Fatal(err)
	}
	r.waitSame(0, announcement4())
	if now := r.await(1, "established", established); now.EstablishedSince != other.EstablishedSince {
		t.Error("the other session was touched")
	}
	if err := r.speaker.Enable(loopback()); err == nil {
		t.Error("an unknown neighbor was enabled")
	}
	if err := r.speaker.Shutdown(r.address(0), strings.Repeat("x", 256)); err == nil {
		t.Error("a text of 256 bytes was taken")
	}
}

// paths is a PathWatcher that a test drives.
type paths struct {
	mu       sync.Mutex
	watchers map[netip.Addr]func(bfd.Change)
}

func (p *paths) Watch(a netip.Addr, f func(bfd.Change)) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watchers == nil {
		p.watchers = make(map[netip.Addr]func(bfd.Change))
	}
	p.watchers[a] = f
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, a)
	}
}

func (p *paths) report(a netip.Addr, c bfd.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers[a](c)
}

// TestPathFailure ends a session by BFD. Nothing but a failure does that, and
// nothing waits for BFD to be up.
func TestPathFailure(t *testing.T) {
	t.Parallel()
	var watcher paths
	r := newRing(t, 2, func(c *Config) { c.Paths = &watcher })
	set(t, r.speaker, announcement4())
	r.waitSame(0, announcement4())
	r.waitSame(1, announcement4())
	other := r.await(1, "established", established)
	watcher.report(r.address(0), bfd.Change{From: bfd.Down, To: bfd.Up})
	watcher.report(r.address(0), bfd.Change{From: bfd.Up, To: bfd.Down, Diagnostic: bfd.AdminReason})
	began := time.Now()
	watcher.report(r.address(0), bfd.Change{From: bfd.Up, To: bfd.Down, Diagnostic: bfd.TimeExpired, Failure: true})
	r.labs[0].waitGone(prefix4)
	t.Logf("from the failure to the router's RIB: %v", time.Since(began).Round(time.Microsecond))
	n := r.await(0, "a session again", func(n NeighborStatus) bool { return n.Sessions == 2 })
	if n.PathFailures != 1 || n.Sent.Notification != 1 {
		t.Errorf("status %+v", n)
	}
	r.waitSame(0, announcement4())
	if now := r.await(1, "established", established); now.EstablishedSince != other.EstablishedSince {
		t.Error("the other session was touched")
	}
	r.stop()
	if len(watcher.watchers) != 0 {
		t.Errorf("%d watches left", len(watcher.watchers))
	}
}

// TestBlackholes discards addresses of a prefix while it is announced.
func TestBlackholes(t *testing.T) {
	t.Parallel()
	r := newRing(t, 2, nil)
	general, second := announcement4(), announcement4()
	second.Neighbors, second.NextHop = []netip.Addr{r.address(1)}, netip.MustParseAddr("203.0.113.8")
	set(t, r.speaker, general, second, announcement6())
	victim := netip.MustParseAddr("192.0.2.66")
	victim6 := netip.MustParseAddr("2001:db8:1::66")
	blackholes := []BlackholeRoute{
		{Address: victim},
		{Address: victim6, Communities: Communities{64500<<16 | 666}, Neighbors: []netip.Addr{r.address(0)}},
	}
	if err := r.speaker.SetBlackholes(t.Context(), blackholes); err != nil {
		t.Fatal(err)
	}
	host := netip.PrefixFrom(victim, 32)
	for i, hop := range []netip.Addr{general.NextHop, second.NextHop} {
		if p := r.labs[i].waitBest(host); p.NextHop != hop || p.Communities.String() != "blackhole no-export" || len(p.ASPath) != 1 {
			t.Errorf("router %d: %+v", i, p)
		}
	}
	if p := r.labs[0].waitBest(netip.PrefixFrom(victim6, 128)); p.Communities.String() != "64500:666 blackhole no-export" {
		t.Errorf("%+v", p)
	}
	if route := r.awaitReason(netip.PrefixFrom(victim6, 128), 1, RouteOtherNeighbors); route.Desired != nil {
		t.Errorf("%+v", route)
	}
	if route := r.awaitReason(host, 0, RouteAnnounced); !route.Blackhole {
		t.Errorf("%+v", route)
	}
	// Without the prefix there is no blackhole, with it there is again.
	set(t, r.speaker, announcement6())
	r.labs[0].waitGone(host)
	r.labs[1].waitGone(host)
	if route := r.awaitReason(host, 0, RouteWithheld); !strings.Contains(route.Detail, "no announced prefix") {
		t.Errorf("%+v", route)
	}
	set(t, r.speaker, general, second, announcement6())
	r.labs[0].waitBest(host)
	if err := r.speaker.SetBlackholes(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r.labs[0].waitGone(host)
	r.waitSame(0, general)
	for _, bad := range []BlackholeRoute{
		{Address: netip.MustParseAddr("192.0.3.1")},
		{},
		{Address: victim, Communities: make(Communities, 0), Neighbors: []netip.Addr{{}}},
	} {
		if err := r.speaker.SetBlackholes(t.Context(), []BlackholeRoute{bad}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if err := r.speaker.SetBlackholes(t.Context(), []BlackholeRoute{{Address: victim}, {Address: victim}}); err == nil {
		t.Error("an address was taken twice")
	}
}

// TestSessionDownRoutes has a neighbor that is not there.
func TestSessionDownRoutes(t *testing.T) {
	t.Parallel()
	r := newRing(t, 2, nil)
	r.labs[0].stop()
	set(t, r.speaker, announcement4())
	r.waitSame(1, announcement4())
	r.await(0, "a failed attempt", func(n NeighborStatus) bool { return strings.Contains(n.LastError, "refused") })
	route := r.awaitReason(prefix4, 0, RouteSessionDown)
	if route.Desired == nil || route.Announced != nil || !strings.Contains(route.Detail, "connection refused") {
		t.Errorf("%+v", route)
	}
	r.awaitReason(prefix4, 1, RouteAnnounced)
}
