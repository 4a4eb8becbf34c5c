package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"anyedge/bgp"
)

// What a cell says. A reason may follow, after a colon.
const (
	ok      = "ok"
	failed  = "FAILED"
	lacking = "peer lacks it"
)

// Names of the columns that a peer may lack.
const (
	columnMD5      = "MD5"
	columnGTSM     = "GTSM"
	columnBFD      = "BFD"
	columnNextHop  = "RFC 8950"
	columnGraceful = "graceful shut"
	columnText     = "shutdown text"
)

// column is a feature and how it is checked. What a peer lacks is checked as
// well where it shows: it is a fact about the peer, and may change.
type column struct {
	name    string
	check   func(*site) error
	lacking func(*site) error // nil: there is nothing to see
}

var columns = []column{
	{name: "IPv4", check: (*site).checkIPv4},
	{name: "IPv6 (MP-BGP)", check: (*site).checkIPv6},
	{name: columnMD5, check: func(s *site) error { return s.checkPair("md5_4", "md5_6", "md5_wrong") }, lacking: (*site).checkNoMD5},
	{name: columnGTSM, check: func(s *site) error { return s.checkPair("ttl_4", "ttl_6", "ttl_wrong") }, lacking: (*site).checkOneSidedGTSM},
	{name: columnNextHop, check: (*site).checkNextHop, lacking: (*site).checkNoNextHop},
	{name: columnGraceful, check: (*site).checkGraceful, lacking: (*site).checkGracefulSeen},
	{name: columnBFD, check: (*site).checkBFD},
	{name: columnText, check: func(s *site) error { return s.checkShutdownText(shutdownText) },
		lacking: func(s *site) error { return s.checkShutdownText("can not decode") }},
}

var (
	prefix4        = netip.MustParsePrefix("192.0.2.0/24")
	prefix6        = netip.MustParsePrefix("2001:db8:1::/48")
	prefixNextHop  = netip.MustParsePrefix("198.51.100.0/24")
	prefixGraceful = netip.MustParsePrefix("203.0.113.0/24")
	prefixSecure   = netip.MustParsePrefix("198.18.0.0/24")
)

// try is the cell of a column.
func (s *site) try(c column) string {
	why := s.lacks(c.name)
	check := c.check
	if why != "" {
		check = c.lacking
	}
	if check != nil {
		if err := check(s); err != nil {
			return failed + ": " + err.Error()
		}
	}
	if why != "" {
		return lacking + ": " + why
	}
	return ok
}

// await polls until a condition is nil, for peers have no notifications.
func await(what string, condition func() error) error {
	for deadline := time.Now().Add(eventually); ; time.Sleep(50 * time.Millisecond) {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s: %w", eventually, what, err)
		}
	}
}

// awaitUp waits for a session in the peer's view.
func (s *site) awaitUp(l *link) error {
	return await(l.name+" established", func() error {
		up, err := s.established(l)
		if err == nil && !up {
			err = fmt.Errorf("it is not; ours: %v, %s", s.status(l).State, s.status(l).LastError)
		}
		return err
	})
}

// expectDown wants no session in the peer's view.
func (s *site) expectDown(l *link) error {
	up, err := s.established(l)
	if err == nil && up {
		err = fmt.Errorf("%s is established in the peer's view", l.name)
	}
	return err
}

// awaitPath waits until the peer's RIB has a path from a link, just as it was
// announced.
func (s *site) awaitPath(l *link, a bgp.Announcement) error {
	return await(fmt.Sprintf("%v over %s", a.Prefix, l.name), func() error {
		p, err := s.path(a.Prefix, l)
		if err != nil {
			return err
		}
		want := path{
			nextHop: a.NextHop, asPath: slices.Repeat([]uint32{edgeASN}, a.Prepend+1), med: a.MED,
		}
		for _, c := range a.Communities {
			want.community = append(want.community, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
		}
		for _, c := range a.LargeCommunities {
			want.community = append(want.community, c.String())
		}
		slices.Sort(want.community)
		slices.Sort(p.community)
		if p.nextHop != want.nextHop || !slices.Equal(p.asPath, want.asPath) || p.med != want.med || !slices.Equal(p.community, want.community) {
			return fmt.Errorf("the peer has %v; want %v", p, want)
		}
		return nil
	})
}

// path is the peer's path for a prefix from a link.
func (s *site) path(prefix netip.Prefix, l *link) (path, error) {
	paths, err := s.paths(prefix)
	if err != nil {
		return path{}, err
	}
	i := slices.IndexFunc(paths, func(p path) bool { return p.from == l.ours })
	if i < 0 {
		return path{}, fmt.Errorf("no path from %v among %v", l.ours, paths)
	}
	return paths[i], nil
}

// awaitNoPath waits until the peer has no path at all for a prefix.
func (s *site) awaitNoPath(prefix netip.Prefix) error {
	return await(fmt.Sprintf("%v withdrawn", prefix), func() error {
		paths, err := s.paths(prefix)
		if err == nil && len(paths) > 0 {
			err = fmt.Errorf("the peer has %v", paths)
		}
		return err
	})
}

// follow announces one thing after the other, the last one nothing, and waits
// for the peer's RIB each time.
func (s *site) follow(subject string, l *link, steps ...bgp.Announcement) error {
	for _, a := range steps {
		a.Neighbors = []netip.Addr{l.theirs}
		if err := s.announce(subject, a); err != nil {
			return err
		}
		if err := s.awaitPath(l, a); err != nil {
			return err
		}
	}
	if err := s.announce(subject); err != nil {
		return err
	}
	return s.awaitNoPath(steps[0].Prefix)
}

// checkIPv4 announces a route with every attribute, changes it and withdraws it.
func (s *site) checkIPv4() error {
	l := s.link("plain4")
	if err := s.awaitUp(l); err != nil {
		return err
	}
	full := bgp.Announcement{
		Prefix: prefix4, NextHop: l.ours, MED: 10, Prepend: 2,
		Communities:      bgp.Communities{64500<<16 | 1, 64500<<16 | 2},
		LargeCommunities: bgp.LargeCommunities{{GlobalAdmin: edgeASN, Data1: 1, Data2: 4294967295}},
	}
	return s.follow("ipv4", l, full, bgp.Announcement{Prefix: prefix4, NextHop: l.ours, MED: 20})
}

// checkIPv6 does it over a session of either family.
func (s *site) checkIPv6() error {
	six := s.link("plain6")
	for _, name := range []string{"plain4", "plain6"} {
		l := s.link(name)
		if err := s.awaitUp(l); err != nil {
			return err
		}
		full := bgp.Announcement{
			Prefix: prefix6, NextHop: six.ours, MED: 10, Prepend: 1,
			Communities:      bgp.Communities{64500<<16 | 1},
			LargeCommunities: bgp.LargeCommunities{{GlobalAdmin: edgeASN, Data1: 1, Data2: 2}},
		}
		if err := s.follow("ipv6", l, full, bgp.Announcement{Prefix: prefix6, NextHop: six.ours, MED: 20}); err != nil {
			return err
		}
	}
	return nil
}

// checkPair wants two sessions up that the peer secures, routes through them,
// and none where our side does not do its part. That is for the peer to say: an
// OPEN with a low TTL may be in its queue before it asks for more, and ours then
// waits for a while in a session of its own.
func (s *site) checkPair(four, six, wrong string) error {
	for _, name := range []string{four, six} {
		l := s.link(name)
		if err := s.awaitUp(l); err != nil {
			return err
		}
		if err := s.follow(name, l, bgp.Announcement{Prefix: prefixSecure, NextHop: s.link("plain4").ours}); err != nil {
			return err
		}
	}
	return s.expectDown(s.link(wrong))
}

// expectNever wants that there is no session, and that there was none.
func (s *site) expectNever(l *link) error {
	if n := s.status(l); n.Sessions > 0 {
		return fmt.Errorf("%s: there was a session: %+v", l.name, n)
	}
	return s.expectDown(l)
}

// checkNoMD5 wants a Speaker with a password to have no session with a peer that
// does not sign.
func (s *site) checkNoMD5() error {
	return errors.Join(s.expectNever(s.link("md5_4")), s.expectNever(s.link("md5_6")))
}

// checkOneSidedGTSM is for a peer that sends a TTL of 255 over IPv4, where that
// is what the Speaker wants, and does not otherwise; and that checks nothing.
func (s *site) checkOneSidedGTSM() error {
	if err := s.awaitUp(s.link("ttl_4")); err != nil {
		return err
	}
	if err := s.awaitUp(s.link("ttl_wrong")); err != nil {
		return err
	}
	return s.expectNever(s.link("ttl_6"))
}

// nextHopTest is an IPv4 prefix with an IPv6 next hop, over an IPv6 session.
func (s *site) nextHopTest() (*link, bgp.Announcement) {
	l := s.link("plain6")
	return l, bgp.Announcement{Prefix: prefixNextHop, NextHop: l.ours, MED: 5}
}

func (s *site) checkNextHop() error {
	l, a := s.nextHopTest()
	return s.follow("next hop", l, a)
}

// checkNoNextHop wants a peer that has not agreed to get nothing, and Routes to
// say why.
func (s *site) checkNoNextHop() error {
	l, a := s.nextHopTest()
	a.Neighbors = []netip.Addr{l.theirs}
	if err := s.announce("next hop", a); err != nil {
		return err
	}
	for _, r := range s.edge.speaker.Routes() {
		if r.Prefix == a.Prefix && r.Neighbor == l.theirs && r.Reason != bgp.RouteNextHop {
			return fmt.Errorf("the peer may not lack it: %+v", r)
		}
	}
	return s.announce("next hop")
}

// checkGraceful announces a prefix over two sessions. The peer must prefer the
// shorter path, and when that is marked the other one, although it is longer.
func (s *site) checkGraceful() error {
	better, other := s.link("plain4"), s.link("plain6")
	first := bgp.Announcement{Prefix: prefixGraceful, NextHop: better.ours, Neighbors: []netip.Addr{better.theirs}}
	second := bgp.Announcement{Prefix: prefixGraceful, NextHop: better.ours, Prepend: 3, Neighbors: []netip.Addr{other.theirs}}
	if err := s.announce("graceful", first, second); err != nil {
		return err
	}
	if err := s.awaitBest(better, other); err != nil {
		return err
	}
	first.Communities = bgp.Communities{bgp.GracefulShutdown}
	if err := s.announce("graceful", first, second); err != nil {
		return err
	}
	if err := s.awaitBest(other, better); err != nil {
		return err
	}
	if err := s.awaitPath(better, first); err != nil {
		return err
	}
	p, err := s.path(prefixGraceful, better)
	if err == nil && p.localPref != 0 {
		err = fmt.Errorf("the marked path is %v; want local preference 0", p)
	}
	if err != nil {
		return err
	}
	if err := s.announce("graceful"); err != nil {
		return err
	}
	return s.awaitNoPath(prefixGraceful)
}

func (s *site) awaitBest(best, other *link) error {
	return await(best.name+" is best", func() error {
		b, err := s.path(prefixGraceful, best)
		if err != nil {
			return err
		}
		o, err := s.path(prefixGraceful, other)
		if err == nil && (!b.best || o.best) {
			err = fmt.Errorf("%v; %v", b, o)
		}
		return err
	})
}

// checkGracefulSeen wants the mark to arrive where nobody selects a route.
func (s *site) checkGracefulSeen() error {
	l := s.link("plain4")
	return s.follow("graceful", l, bgp.Announcement{
		Prefix: prefixGraceful, NextHop: l.ours, Communities: bgp.Communities{bgp.GracefulShutdown},
	})
}

// checkBFD lets the peer hear no more of our BFD, and only of that: both ends
// must end the BGP session for it, far within its hold time, and come back.
func (s *site) checkBFD() error {
	l := s.link("bfd_4")
	if err := s.awaitUp(l); err != nil {
		return err
	}
	up := func() error {
		theirs, err := s.bfdUp(l)
		if err == nil && !theirs {
			err = fmt.Errorf("it is not up in the peer's view; ours %+v", s.edge.bfd.Status())
		}
		return err
	}
	if err := await("BFD up", up); err != nil {
		return err
	}
	before := s.status(l)
	const drop = "table inet deaf { chain arriving { type filter hook input priority 0; udp dport 3784 drop; }; }"
	if _, err := s.ask("nft", drop); err != nil {
		return err
	}
	began := time.Now()
	err := await("the end of the session", func() error {
		if n := s.status(l); n.PathFailures == before.PathFailures || n.State == bgp.Established && n.Sessions == before.Sessions {
			return fmt.Errorf("ours: %+v", n)
		}
		return nil
	})
	took := time.Since(began)
	if err != nil {
		return err
	}
	if limit := bfdMultiplier*bfdInterval + 2*time.Second; took > limit {
		return fmt.Errorf("it took %v, want less than %v", took, limit)
	}
	if up() == nil {
		return errors.New("BFD is still up in the peer's view")
	}
	if _, err := s.ask("nft", "delete table inet deaf"); err != nil {
		return err
	}
	if err := await("BFD up again", up); err != nil {
		return err
	}
	return s.awaitUp(l)
}

const shutdownText = "maintenance CHG-4711, back 04:00 – danke" // not only ASCII

// checkShutdownText ends a session with a text and wants the peer to show another,
// the same if it can.
func (s *site) checkShutdownText(want string) error {
	l := s.link("plain4")
	if err := s.edge.speaker.Shutdown(l.theirs, shutdownText); err != nil {
		return err
	}
	err := await("the text", func() error {
		got, err := s.lastError(l)
		if err == nil && !strings.Contains(got, want) {
			err = fmt.Errorf("the peer says %q", got)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.expectDown(l); err != nil {
		return err
	}
	if err := s.edge.speaker.Enable(l.theirs); err != nil {
		return err
	}
	return s.awaitUp(l)
}
