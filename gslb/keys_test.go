package gslb

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/configs"
	"anyedge/gslb/dnssec"
	"anyedge/internal/fleet"

	"github.com/miekg/dns"
)

const keyedZone = "$ORIGIN edge.example.\n$TTL 3600\n@ IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ IN NS ns1\nns1 IN A 192.0.2.53\n"

// Two nodes over one store sign alike through rollovers of both keys, and a
// validator that trusts what the parent has is content with each of them.
func TestNodesRollOverTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, sealer, parent := fleet.NewMemory(), testSealer(t, "5a"), &follower{t: t}
		nodes := []*signingNode{
			runSigningNode(t, store, sealer, quick(), parent.ask),
			runSigningNode(t, store, sealer, quick(), nil),
		}
		if m := nodes[0].ask(dns.TypeSOA); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("before it has keys the zone answers %s", dns.RcodeToString[m.Rcode])
		}
		zone, entry := map[uint16]bool{}, map[string]bool{}
		for minute := range 30 * 60 {
			time.Sleep(time.Minute)
			if a, b := nodes[0].tags(), nodes[1].tags(); a != b || a == "[]" {
				t.Fatalf("after %d minutes the nodes publish %s and %s", minute, a, b)
			}
			if minute%40 == 0 {
				parent.follow(nodes[minute/40%2])
			}
			if len(parent.ds) > 0 {
				zone[nodes[minute%2].validate(parent.ds)] = true
			}
			entry[fmt.Sprint(parent.ds)] = true
		}
		if len(zone) < 5 || len(entry) < 4 { // one is that there is no DS record
			t.Errorf("%d keys signed the zone, the parent had %d states", len(zone), len(entry))
		}
		if e, err := store.Get(t.Context(), "dnssec/edge.example"); err != nil || strings.Contains(string(e.Value), "secret") {
			t.Errorf("the keys are in the store in clear: %v", err)
		}
		for _, n := range nodes {
			n.halt()
		}
	})
}

func withFile(path string) func(*configs.ZoneDNSSEC) {
	return func(c *configs.ZoneDNSSEC) { c.KeyFile = path }
}

// Without a shared store, the file brings the keys through a restart.
func TestKeysSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "edge.keys")
		n := runSigningNode(t, fleet.NewMemory(), nil, quick(withFile(file)), nil)
		time.Sleep(2 * time.Second)
		before := n.tags()
		n.halt()
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("key file: %v, %v", info, err)
		}
		again, err := newSigningNode(t, fleet.NewMemory(), nil, quick(withFile(file)))
		if err != nil {
			t.Fatal(err)
		}
		if after := again.tags(); after != before {
			t.Errorf("keys %s before, %s after, before the store was asked", before, after)
		}
		n = runSigningNode(t, fleet.NewMemory(), nil, quick(withFile(file)), nil)
		time.Sleep(time.Minute)
		if after := n.tags(); after != before {
			t.Errorf("keys %s before, %s after", before, after)
		}
		if keys, err := n.fleet.ZoneKeys(t.Context(), "edge.example"); err != nil {
			t.Errorf("the store has not got the keys back: %v, %v", keys.Index, err)
		}
		n.halt()
	})
}

func TestBadKeyFiles(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	ring, _, err := dnssec.Ring{}.Advance(time.Now(), "edge.example", policyOf(quick()), nil, newCounter())
	if err == nil {
		err = writeKeyFile(good, ring)
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"open":          {string(data), 0o640},
		"half":          {string(data[:len(data)/2]), 0o600},
		"of other zone": {strings.Replace(string(data), "edge.example", "b.example", 1), 0o600},
		"huge":          {strings.Repeat(" ", maxKeyFile+1), 0o600},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "bad")
			if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(file)
			if _, err := newSigningNode(t, fleet.NewMemory(), nil, quick(withFile(file))); err == nil || !strings.HasPrefix(err.Error(), "zones[0].dnssec.key_file: "+file) {
				t.Errorf("error %v, want one that says where", err)
			}
			if _, err := newSigningNode(t, fleet.NewMemory(), testSealer(t, "5a"), quick(withFile(file))); err != nil {
				t.Errorf("with a fleet that has the keys: %v", err)
			}
		})
	}
}

// Keys that are not on disk sign nothing, if nobody else has them.
func TestKeysNotOnDiskAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		n := runSigningNode(t, fleet.NewMemory(), nil, quick(withFile(filepath.Join(dir, "no", "edge.keys"))), nil)
		time.Sleep(time.Minute)
		if m := n.ask(dns.TypeSOA); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("answers %s", dns.RcodeToString[m.Rcode])
		}
		trouble := func() string {
			n.keys.mu.Lock()
			defer n.keys.mu.Unlock()
			return n.keys.zones["edge.example"].trouble
		}
		if got := trouble(); !strings.Contains(got, "no such file") {
			t.Errorf("trouble %q", got)
		}
		if err := os.Mkdir(filepath.Join(dir, "no"), 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n.tags() == "[]" {
			t.Error("not signed once the file can be written")
		}
		if got := trouble(); got != "" {
			t.Errorf("trouble that is over: %q", got)
		}
		n.halt()
	})
}

// A ring that a node cannot open is not replaced, and gives no answers without
// signatures; one that is lost is put back; a store that is gone changes nothing.
func TestRingsThatAreWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), &cutStore{Store: fleet.NewMemory()}
		n := runSigningNode(t, store, testSealer(t, "5a"), quick(), nil)
		time.Sleep(time.Minute)
		before := n.tags()
		first, err := store.Get(ctx, "dnssec/edge.example")
		if err != nil {
			t.Fatal(err)
		}

		other := runSigningNode(t, store, testSealer(t, "a5"), quick(), nil)
		time.Sleep(time.Hour)
		if m := other.ask(dns.TypeSOA); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("without the keys the zone answers %s", dns.RcodeToString[m.Rcode])
		}
		if s := other.keys.zones["edge.example"]; s.ring.Generation != 0 {
			t.Error("a node made keys of its own")
		}
		other.halt()
		if e, err := store.Get(ctx, "dnssec/edge.example"); err != nil || e.Index != first.Index {
			t.Errorf("the ring was replaced: %v", err)
		}

		if _, err := store.CompareAndSwap(ctx, "dnssec/edge.example", []byte("nonsense"), first.Index); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if after := n.tags(); after != before {
			t.Errorf("nonsense in the store: keys %s, before %s", after, before)
		}
		e, err := store.Get(ctx, "dnssec/edge.example")
		if err == nil {
			_, err = store.CompareAndSwap(ctx, "dnssec/edge.example", nil, e.Index)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if keys, err := n.fleet.ZoneKeys(ctx, "edge.example"); err != nil || n.tags() != before {
			t.Errorf("the ring was lost, and now is %v, %v; keys %s, before %s", keys.Index, err, n.tags(), before)
		}

		store.gone.Store(true)
		time.Sleep(3 * time.Hour)
		if after := n.tags(); after != before {
			t.Errorf("without the store: keys %s, before %s", after, before)
		}
		n.halt()
	})
}

// A zone whose parent may have DS records does not become unsigned by its config.
func TestUnsigning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent := &follower{t: t}
		n := runSigningNode(t, fleet.NewMemory(), testSealer(t, "5a"), quick(), parent.ask)
		wait := func(minutes int) {
			for range minutes {
				time.Sleep(time.Minute)
				parent.follow(n)
				if len(parent.ds) > 0 {
					n.validate(parent.ds)
				}
			}
		}
		wait(120)
		if len(parent.ds) != 1 {
			t.Fatalf("the parent has %v", parent.ds)
		}
		unsigned := &configs.GSLB{Zones: []configs.Zone{{Name: "edge.example"}}}
		if _, err := n.keys.plan(unsigned); err == nil || !strings.Contains(err.Error(), "zone edge.example: is signed") {
			t.Errorf("%v", err)
		}
		leave := func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) { return r.Leave(now, p) }
		if err := n.keys.change(t.Context(), "edge.example.", leave); err != nil {
			t.Fatal(err)
		}
		if err := n.keys.change(t.Context(), "b.example", leave); err == nil {
			t.Error("a zone that is not served was left")
		}
		wait(120)
		if len(parent.ds) != 0 || n.tags() != "[]" || len(n.ask(dns.TypeSOA).Answer) != 1 {
			t.Errorf("the parent has %v, the zone keys %s and %v", parent.ds, n.tags(), n.ask(dns.TypeSOA))
		}
		zones, err := n.keys.plan(unsigned)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.server.SetZones(textZones(unsigned)); err != nil {
			t.Fatal(err)
		}
		n.keys.set(zones)
		time.Sleep(time.Minute)
		if m := n.ask(dns.TypeSOA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
			t.Errorf("%v", m)
		}
		n.halt()
	})
}

func TestZoneWithTooLongTTLs(t *testing.T) {
	text := strings.Replace(keyedZone, "ns1 IN A", "ns1 7200 IN A", 1)
	_, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Zones: []Zone{
		{Name: "edge.example", Text: text, Signing: signingOf(quick())},
	}}, quiet, nil)
	if err == nil || !strings.Contains(err.Error(), "edge.example:5: ns1.edge.example. has a TTL of 2h0m0s, and its signing allows 1h0m0s") {
		t.Errorf("%v", err)
	}
}

// Resolvers are asked over TCP; each that answers counts.
func TestAskResolvers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rcode, soa := dns.RcodeSuccess, ""
	server := &dns.Server{Listener: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, rcode)
		if q.Question[0].Qtype == dns.TypeDS && q.RecursionDesired && q.CheckingDisabled && q.Question[0].Name == "edge.example." {
			for _, text := range []string{"Edge.example. 60 IN DS 55648 13 2 B4C8", "edge.example. 60 IN RRSIG DS 13 2 60 20300101000000 20200101000000 1 example. AAAA", "other.example. 60 IN DS 1 13 2 B4C8"} {
				rr, err := dns.NewRR(text)
				if err != nil {
					t.Error(err)
				}
				m.Answer = append(m.Answer, rr)
			}
		}
		if soa != "" {
			rr, err := dns.NewRR(soa + " 60 IN SOA ns.example. hostmaster.example. 1 2 3 4 5")
			if err != nil {
				t.Error(err)
			}
			m.Ns = []dns.RR{rr}
		}
		_ = w.WriteMsg(m)
	})}
	stopped := make(chan error, 1)
	go func() { stopped <- server.ActivateAndServe() }()
	t.Cleanup(func() { server.Shutdown(); <-stopped })
	at := listener.Addr().(*net.TCPAddr).AddrPort()
	nobody := netip.AddrPortFrom(at.Addr(), 1)

	s := resolvers{at, nobody, at}.ask(t.Context(), "edge.example")
	if len(s.answers) != 2 || s.err == nil || len(s.answers[0]) != 1 || s.answers[0][0].String() != "55648 13 2 B4C8" {
		t.Errorf("%+v", s)
	}
	for _, soa = range []string{"Example.", "."} {
		if s = (resolvers{at}).ask(t.Context(), "bare.example"); s.err != nil || len(s.answers) != 1 || len(s.answers[0]) != 0 {
			t.Errorf("%s says that a zone has no DS records: %+v", soa, s)
		}
	}
	for _, soa = range []string{"", "bare.example.", "below.bare.example.", "other.example."} {
		if s = (resolvers{at}).ask(t.Context(), "bare.example"); s.err == nil || len(s.answers) != 0 {
			t.Errorf("no DS records, but as %q says: %+v", soa, s)
		}
	}
	rcode = dns.RcodeServerFailure
	if s = (resolvers{at}).ask(t.Context(), "edge.example"); s.err == nil || len(s.answers) != 0 || s.news(time.Now()) != nil {
		t.Errorf("a resolver that fails: %+v", s)
	}
}
