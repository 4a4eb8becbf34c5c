package gslb

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/gslb/dnssec"
	"anyedge/internal/daemon"
	"anyedge/internal/fleet"

	"github.com/miekg/dns"
)

// How fast rollovers are here. Unbound counts in whole seconds and may keep what it
// has for one more than the TTL, there are two of it in line, and a node may act on a
// ring a second late: twice the propagation covers it all, and leaves room.
const (
	rollKeyTTL      = time.Second
	rollTTL         = 4 * time.Second
	rollDSTTL       = 3 * time.Second
	rollPropagation = 2500 * time.Millisecond
)

// rolloverWorld is two nodes that share the rings of some zones below "test.", a
// registry that serves "test." and does what CDS and CDNSKEY records ask for, a
// resolver that caches what they say, and behind it one that validates and knows the
// key of "test." only. The nodes ask the registry itself for DS records: they learn of
// new ones before the resolvers do.
type rolloverWorld struct {
	nodes []*signingNode
	zones map[string]*rolledZone

	cache, validator netip.AddrPort // unbound, twice

	registry *Server
	keys     *dnssec.KeySet // of "test."
	mu       sync.Mutex     // guards the DS records of all zones
}

// rolledZone is a zone on its way through rollovers. Its test awaits what it asks
// for, while the validator is asked for its names all the time.
type rolledZone struct {
	*rolloverWorld
	t    *testing.T
	name string // without the final dot

	ds       []dns.RR     // at the parent, as CDS records; guarded by mu
	secure   atomic.Int64 // in ns since 1970: answers must be secure from then on; 0 for they need not
	answers  atomic.Int64 // that were right
	insecure atomic.Int64 // those of them without AD
	broken   atomic.Pointer[string]
}

// TestRolloversByUnbound has unbound validate while zones go through whole
// rollovers. Every answer must be right, secure from the time when no cache can know
// that the zone was unsigned, and never bogus. Among the questions are such whose
// answers have been in a cache for nearly as long as they may when they are validated.
func TestRolloversByUnbound(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip("set ANYEDGE_CONFORMANCE_DNS=1, or run make conformance-dns")
	}
	csk := func(k dnssec.KeyStatus) bool { return k.Role == dnssec.CSK }
	ksk := func(k dnssec.KeyStatus) bool { return k.Role == dnssec.KSK }
	zsk := func(k dnssec.KeyStatus) bool { return k.Role == dnssec.ZSK }
	tests := []struct {
		name, algorithm, keys, denial string
		do                            func(*rolledZone)
	}{
		{"csk", "ecdsa-p256", "csk", "compact", func(z *rolledZone) {
			z.roll("the CSK", dnssec.CSK, csk)
			z.roll("the CSK again", dnssec.CSK, csk)
		}},
		{"split", "ed25519", "ksk_zsk", "nsec3", func(z *rolledZone) {
			z.roll("the ZSK", dnssec.ZSK, zsk)
			z.roll("the KSK", dnssec.KSK, ksk)
		}},
		{"both", "ecdsa-p256", "ksk_zsk", "nsec3", func(z *rolledZone) {
			z.change("roll the ZSK", func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) {
				return r.Roll(now, p, dnssec.ZSK, rand.Reader)
			})
			z.roll("the KSK meanwhile", dnssec.KSK, func(dnssec.KeyStatus) bool { return true })
		}},
		{"algorithm", "ecdsa-p256", "csk", "compact", func(z *rolledZone) {
			z.rekey("Ed25519, KSK and ZSK", func(p *dnssec.Policy) { p.Algorithm, p.Split = dnssec.Ed25519, true })
		}},
		{"back", "ed25519", "ksk_zsk", "nsec3", func(z *rolledZone) {
			z.rekey("P-256, CSK", func(p *dnssec.Policy) { p.Algorithm, p.Split = dnssec.ECDSAP256SHA256, false })
		}},
		{"unsigned", "ed25519", "csk", "nsec3", func(z *rolledZone) {
			z.change("leave", func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) { return r.Leave(now, p) })
			z.await("the zone is unsigned everywhere", func() bool {
				return !slices.ContainsFunc(z.nodes, func(n *signingNode) bool { return n.keysOf(z.name).Signed })
			})
			z.watched(50)
			if m, err := askResolver(z.validator, "after.any."+z.name, dns.TypeTXT); err != nil || len(m.Answer) != 1 || m.AuthenticatedData {
				z.t.Errorf("after the zone has become unsigned: %v, %v", m, err)
			}
			z.change("sign", func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) {
				return r.Stay(now, p, rand.Reader)
			})
			z.await("the zone is secure again", z.isSecure)
			z.watched(50)
		}},
	}
	zones := make(map[string]*configs.ZoneDNSSEC)
	for _, tt := range tests {
		zones[tt.name+".test"] = &configs.ZoneDNSSEC{
			Algorithm: tt.algorithm, Keys: tt.keys, Denial: tt.denial, Propagation: configs.Duration(rollPropagation),
			MaxTTL: configs.Duration(rollTTL), ParentDSTTL: configs.Duration(rollDSTTL), ParentPropagation: configs.Duration(time.Second),
		}
	}
	w := newRolloverWorld(t, zones)
	var all sync.WaitGroup // they wait most of the time: all at once, whatever -parallel says
	defer all.Wait()
	for _, tt := range tests {
		all.Go(func() {
			t.Run(tt.name, func(t *testing.T) {
				z := w.zone(t, tt.name+".test")
				z.await("the zone is secure", z.isSecure)
				tt.do(z)
				t.Logf("%d answers, %d of them insecure", z.answers.Load(), z.insecure.Load())
			})
		})
	}
}

// newRolloverWorld starts all there is. Nobody asks before zone is called.
func newRolloverWorld(t *testing.T, zones map[string]*configs.ZoneDNSSEC) *rolloverWorld {
	t.Helper()
	w := &rolloverWorld{zones: make(map[string]*rolledZone), keys: rolloverKeys(t)}
	pid := os.Getpid() // so that tests of several processes do not meet
	at := netip.AddrFrom4([4]byte{127, 128 | byte(pid>>16)&63, byte(pid >> 8), byte(pid)})
	w.cache, w.validator = netip.AddrPortFrom(at, 15356), netip.AddrPortFrom(at, 15357)

	for name := range zones {
		w.zones[name] = &rolledZone{rolloverWorld: w, name: name}
	}
	var err error
	if w.registry, err = New(Config{Listen: anyPort, Zones: w.topZone()}, quiet, nil); err != nil {
		t.Fatal(err)
	}
	runServer(t, w.registry)
	store, sealer := fleet.NewMemory(), testSealer(t, "5a")
	for range 2 {
		w.nodes = append(w.nodes, rolloverNode(t, store, sealer, zones, resolvers{w.registry.Addresses()[0]}))
	}
	w.startUnbounds(t, zones)
	return w
}

var anyPort = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}

// rolloverKeys are those of the registry's zone.
func rolloverKeys(t *testing.T) *dnssec.KeySet {
	t.Helper()
	p := dnssec.Policy{Algorithm: dnssec.ECDSAP256SHA256, Propagation: time.Second, KeyTTL: time.Hour}
	ring, _, err := dnssec.Ring{}.Advance(time.Now(), "test", p, nil, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ring.At(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// topZone is the registry's zone with the DS records that it has.
func (w *rolloverWorld) topZone() []Zone {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN test.\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ 300 NS ns\nns 300 A 192.0.2.53\n")
	for _, z := range w.zones {
		fmt.Fprintf(&b, "%s. 300 NS ns\n", z.name)
		for _, rr := range z.ds {
			ds := rr.(*dns.CDS)
			fmt.Fprintf(&b, "%s. 3 DS %d %d %d %s\n", z.name, ds.KeyTag, ds.Algorithm, ds.DigestType, ds.Digest)
		}
	}
	return []Zone{{Name: "test.", Text: b.String(), Signing: Signing{Keys: w.keys}}}
}

func runServer(t *testing.T, s *Server) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()
}

// rolloverNode is a node that serves and keeps the keys of zones, and looks for
// their DS records all the time.
func rolloverNode(t *testing.T, store fleet.Store, sealer *fleet.Sealer, zones map[string]*configs.ZoneDNSSEC, parents resolvers) *signingNode {
	t.Helper()
	cfg, served := &configs.GSLB{Fleet: configs.Fleet{Consul: new(configs.Consul)}}, []Zone(nil)
	for name, c := range zones {
		cfg.Zones = append(cfg.Zones, configs.Zone{Name: name, DNSSEC: c})
		served = append(served, Zone{Name: name, Signing: signingOf(c), Text: "$TTL 4\n@ SOA ns.test. hostmaster.test. 1 3600 600 86400 4\n@ NS ns.test.\nwww TXT text\n*.any TXT text\n"})
	}
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer, ValidZoneKeys: validZoneKeys})
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(Config{Listen: anyPort, Zones: served}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &signingNode{t: t, cfg: cfg, server: server, fleet: f}
	if n.keys, err = newKeyKeeper(cfg, f, server, quiet); err != nil {
		t.Fatal(err)
	}
	for _, z := range n.keys.zones {
		z.policy.KeyTTL = rollKeyTTL
	}
	runServer(t, server)
	var ctx context.Context
	ctx, n.stop = context.WithCancel(context.Background())
	n.done.Go(func() { n.fleet.Run(ctx) })
	n.done.Go(func() { n.keys.run(ctx) })
	n.done.Go(func() {
		for ctx.Err() == nil {
			n.keys.seeParents(ctx, parents.ask)
			pause(ctx, 300*time.Millisecond)
		}
	})
	t.Cleanup(n.halt)
	return n
}

// startUnbounds starts one that caches what both nodes and the registry say, and one
// behind it that validates. That does not ask again when it finds an answer bogus,
// and wants signatures of every algorithm of the DS records.
func (w *rolloverWorld) startUnbounds(t *testing.T, zones map[string]*configs.ZoneDNSSEC) {
	t.Helper()
	var caching, validating strings.Builder
	fmt.Fprintf(&caching, "  module-config: \"iterator\"\nstub-zone:\n  name: test\n  stub-addr: %s\n", unboundAddr(w.registry.Addresses()[0]))
	for name := range zones {
		fmt.Fprintf(&caching, "stub-zone:\n  name: %q\n", name)
		for _, n := range w.nodes {
			fmt.Fprintf(&caching, "  stub-addr: %s\n", unboundAddr(n.server.Addresses()[0]))
		}
	}
	k := w.keys.Entry[0]
	fmt.Fprintf(&validating, "  module-config: \"validator iterator\"\n  val-log-level: 2\n  val-max-restart: 0\n  harden-algo-downgrade: yes\n  ede: yes\n")
	fmt.Fprintf(&validating, "  trust-anchor: \"test. DNSKEY %d 3 %d %s\"\n", k.Flags, k.Algorithm, base64.StdEncoding.EncodeToString(k.Public))
	fmt.Fprintf(&validating, "forward-zone:\n  name: test\n  forward-addr: %s\n", unboundAddr(w.cache))
	startUnbound(t, w.cache, caching.String())
	startUnbound(t, w.validator, validating.String())
	for end := time.Now().Add(20 * time.Second); ; pause(t.Context(), 20*time.Millisecond) {
		m, err := askResolver(w.validator, "test", dns.TypeSOA)
		if err == nil && m.AuthenticatedData {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("unbound does not validate: %v, %v", m, err)
		}
	}
}

// startUnbound starts one at an address until the test ends, or skips the test.
func startUnbound(t *testing.T, at netip.AddrPort, config string) {
	t.Helper()
	path, err := exec.LookPath("unbound")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/unbound")
	}
	switch {
	case err == nil:
	case os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "installed":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
	dir := t.TempDir()
	config = fmt.Sprintf("remote-control:\n  control-enable: no\nserver:\n  interface: %s\n  port: %d\n  access-control: 127.0.0.0/8 allow\n  do-not-query-localhost: no\n  do-ip6: no\n", unboundAddr(at), at.Port()) +
		fmt.Sprintf("  directory: %q\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  num-threads: 1\n  max-udp-size: 4096\n", dir) +
		"  local-zone: \"test.\" nodefault\n  do-not-query-address: 192.0.2.0/24\n" + config
	file, logFile := filepath.Join(dir, "unbound.conf"), filepath.Join(dir, "log")
	log, err := os.Create(logFile)
	if err == nil {
		err = os.WriteFile(file, []byte(config), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, "-d", "-c", file)
	cmd.Stdout, cmd.Stderr = log, log
	child, err := daemon.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		child.Stop(ctx)
		if t.Failed() {
			text, _ := os.ReadFile(logFile)
			t.Logf("unbound at %v:\n%s", at, text)
		}
	})
}

// unboundAddr is an address as unbound writes it.
func unboundAddr(a netip.AddrPort) string { return fmt.Sprintf("%s@%d", a.Addr(), a.Port()) }

// askResolver asks a resolver.
func askResolver(server netip.AddrPort, qname string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(qname), qtype)
	q.SetEdns0(4096, true)
	c := dns.Client{Timeout: 5 * time.Second}
	m, _, err := c.Exchange(q, server.String())
	return m, err
}
