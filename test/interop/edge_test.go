package interop

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"anyedge/bgp"
	"anyedge/bgp/bfd"
	"anyedge/test/lab/netns"
)

const (
	edgeASN  = 4200000001 // four octets
	password = "correct-horse"
	hold     = 9 * time.Second
	// BFD leaves busy machines room.
	bfdInterval   = 100 * time.Millisecond
	bfdMultiplier = 10
)

// link is one session of the Speaker with a peer: a pair of addresses, and what
// the peer is told about it.
type link struct {
	name        string // also a name in the peer's config
	ours        netip.Addr
	theirs      netip.Addr
	password    string // the peer's
	ttlSecurity bool   // the peer's
	bfd         bool
	// wrong says that our side has another password, or no TTL security: the
	// peer must not have a session.
	wrong bool
}

// links of a site, by number.
var links = []link{
	{name: "plain4"},
	{name: "plain6"},
	{name: "md5_4", password: password},
	{name: "md5_6", password: password},
	{name: "md5_wrong", password: password, wrong: true},
	{name: "ttl_4", ttlSecurity: true},
	{name: "ttl_6", ttlSecurity: true},
	{name: "ttl_wrong", ttlSecurity: true, wrong: true},
	{name: "bfd_4", bfd: true},
}

// over6 reports whether a link of a name is an IPv6 session.
func over6(name string) bool { return name[len(name)-1] == '6' }

// path is a route as a peer shows it in its RIB.
type path struct {
	from      netip.Addr // the edge's end of the session
	nextHop   netip.Addr
	asPath    []uint32
	med       uint32
	localPref uint32
	best      bool
	community []string // "64500:1", of the kinds RFC 1997 and RFC 8092
}

func (p path) String() string {
	return fmt.Sprintf("from %v: next hop %v, AS path %v, MED %d, local preference %d, communities %v, best %t",
		p.from, p.nextHop, p.asPath, p.med, p.localPref, p.community, p.best)
}

// peer is another implementation of BGP.
type peer interface {
	// start writes its config and starts it in its namespace.
	start(s *site) error
	// established is its own view of a session.
	established(l *link) (bool, error)
	// paths are those in its RIB for a prefix.
	paths(prefix netip.Prefix) ([]path, error)
	// lastError is what it tells of the last session of a link.
	lastError(l *link) (string, error)
	// bfdUp is its view of the link's BFD session.
	bfdUp(l *link) (bool, error)
	// lacks is why it cannot have a column, or empty.
	lacks(column string) string
}

// site is one peer, its namespace, and a link to the edge.
type site struct {
	peer
	name  string
	asn   uint32
	space netns.Space
	dir   string // for its files
	links []*link
	edge  *edge
}

// edge is the Speaker, in the namespace that this process is in.
type edge struct {
	t       *testing.T
	space   netns.Space
	speaker *bgp.Speaker
	bfd     *bfd.Manager

	mu  sync.Mutex
	set map[string][]bgp.Announcement // by site and subject
}

func newEdge(t *testing.T, space netns.Space) *edge {
	return &edge{t: t, space: space, set: make(map[string][]bgp.Announcement)}
}

// newSite makes a peer's namespace, without which nothing can go on, and starts
// the peer.
func (e *edge) newSite(number int, name string, p peer) *site {
	e.t.Helper()
	dir, err := os.MkdirTemp("", "iop") // t.TempDir is too long for a socket
	if err != nil {
		e.t.Fatal(err)
	}
	s := &site{
		peer: p, name: name, edge: e, dir: dir, asn: 64500 + uint32(number),
		space: netns.Space(fmt.Sprintf("%s%d", e.space[:len(e.space)-len("edge")], number)),
	}
	e.t.Cleanup(func() {
		if err := netns.Kill(context.Background(), s.space); err != nil {
			e.t.Error(err)
		}
		if e.t.Failed() {
			e.t.Logf("%s:\n%s\n%s", name, s.tail("output"), s.tail("events"))
		}
		os.RemoveAll(dir)
	})
	for i, l := range links {
		l.ours, l.theirs = addresses(number, i, over6(l.name))
		s.links = append(s.links, &l)
	}
	if err := s.connect(number); err != nil {
		e.t.Fatal(err)
	}
	if err := p.start(s); err != nil {
		e.t.Fatalf("%s: %v", name, err)
	}
	return s
}

// addresses are the two ends of a link.
func addresses(site, link int, six bool) (ours, theirs netip.Addr) {
	if six {
		return netip.MustParseAddr(fmt.Sprintf("fd78:%d::%d", site, 11+link)), netip.MustParseAddr(fmt.Sprintf("fd78:%d::%d", site, 101+link))
	}
	return netip.AddrFrom4([4]byte{10, 78, byte(site), byte(11 + link)}), netip.AddrFrom4([4]byte{10, 78, byte(site), byte(101 + link)})
}

// connect makes the site's namespace and the wire to it.
func (s *site) connect(number int) error {
	ctx, cancel := context.WithTimeout(s.edge.t.Context(), eventually)
	defer cancel()
	ours, theirs := fmt.Sprintf("site%d", number), "edge"
	err := netns.Space("").IP(ctx,
		"netns add "+string(s.space),
		fmt.Sprintf("link add %s type veth peer name %s netns %s", ours, theirs, s.space))
	if err != nil {
		return err
	}
	// FRR takes no IPv6 session on an interface without a link-local address.
	mine := []string{"link set " + ours + " addrgenmode none", "link set " + ours + " up", "address add fe80::a/64 dev " + ours + " nodad"}
	other := []string{"link set lo up", "link set " + theirs + " addrgenmode none", "link set " + theirs + " up", "address add fe80::b/64 dev " + theirs + " nodad"}
	for _, l := range s.links {
		bits, more := 24, ""
		if l.ours.Is6() {
			bits, more = 64, " nodad"
		}
		mine = append(mine, fmt.Sprintf("address add %v/%d dev %s%s", l.ours, bits, ours, more))
		other = append(other, fmt.Sprintf("address add %v/%d dev %s%s", l.theirs, bits, theirs, more))
	}
	if err := netns.Space("").IP(ctx, mine...); err != nil {
		return err
	}
	return s.space.IP(ctx, other...)
}

// routerID is the peer's.
func (s *site) routerID() netip.Addr { return s.links[0].theirs }

// link is one by its name.
func (s *site) link(name string) *link {
	return s.links[slices.IndexFunc(s.links, func(l *link) bool { return l.name == name })]
}

// file is the path of one of the site's files.
func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// tail is the end of a file.
func (s *site) tail(name string) string {
	text, _ := os.ReadFile(s.file(name))
	return string(text[max(0, len(text)-6000):])
}

// daemon starts a program in the site's namespace.
func (s *site) daemon(argv ...string) error {
	_, err := s.space.Start(s.dir, s.file("output"), argv...)
	return err
}

// ask runs a program in the site's namespace.
func (s *site) ask(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), eventually)
	defer cancel()
	out, err := s.space.Run(ctx, argv...)
	return string(out), err
}

// neighbor is the link as the Speaker is to see it.
func (s *site) neighbor(l *link) bgp.Neighbor {
	n := bgp.Neighbor{
		Address: l.theirs, LocalAddress: l.ours, ASN: s.asn,
		Password: l.password, TTLSecurity: l.ttlSecurity,
	}
	if l.wrong {
		n.TTLSecurity = false
		if n.Password != "" {
			n.Password += "!"
		}
	}
	return n
}

// run starts the Speaker and its BFD, until the end of the test.
func (e *edge) run(sites []*site) {
	e.t.Helper()
	log := slog.New(slog.NewTextHandler(e.t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	e.bfd = bfd.NewManager(bfd.Config{Engine: []string{self, engineArgument}}, log, nil)
	cfg := bgp.Config{ASN: edgeASN, RouterID: netip.MustParseAddr("10.78.0.1"), HoldTime: hold, Paths: e.bfd}
	var watched []bfd.Peer
	for _, s := range sites {
		for _, l := range s.links {
			if l.bfd && s.lacks(columnBFD) != "" {
				continue
			}
			cfg.Neighbors = append(cfg.Neighbors, s.neighbor(l))
			if l.bfd {
				watched = append(watched, bfd.Peer{
					Address: l.theirs, LocalAddress: l.ours, TransmitInterval: bfdInterval, Multiplier: bfdMultiplier,
				})
			}
		}
	}
	if e.speaker, err = bgp.NewSpeaker(cfg, log, nil); err != nil {
		e.t.Fatal(err)
	}
	for _, run := range []func(context.Context) error{e.bfd.Run, e.speaker.Run} {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- run(ctx) }()
		e.t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				e.t.Error(err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), eventually)
	defer cancel()
	if err := e.bfd.Set(ctx, watched); err != nil {
		e.t.Fatal(err)
	}
}

// announce replaces what the edge announces to a site for the sake of one
// subject; nothing withdraws it. Each announcement names its neighbors.
func (s *site) announce(subject string, announcements ...bgp.Announcement) error {
	e := s.edge
	e.mu.Lock()
	defer e.mu.Unlock()
	e.set[s.name+subject] = announcements
	var all []bgp.Announcement
	for _, some := range e.set {
		all = append(all, some...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventually)
	defer cancel()
	return e.speaker.Set(ctx, all)
}

// status is the Speaker's view of a link.
func (s *site) status(l *link) bgp.NeighborStatus {
	for _, n := range s.edge.speaker.Status().Neighbors {
		if n.Address == l.theirs {
			return n
		}
	}
	return bgp.NeighborStatus{}
}
