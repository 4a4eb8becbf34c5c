package gslb

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"anyedge/gslb/dnssec"
	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

func aliasZone(target string) Zone {
	return Zone{Name: "shop.example", Alias: target, Text: "@ 300 SOA ns.shop.example. h 1 2 3 4 60\n@ 300 NS ns\n@ 300 TXT own\n@ 300 A 192.0.2.99\nns 300 A 192.0.2.53\nwww 300 CNAME @\n"}
}

// An alias of a steered name is answered by its decisions, scope and all.
func TestAliasOfASteeredName(t *testing.T) {
	zones, err := loadZones(append(testZones(), aliasZone("WWW.edge.example")))
	if err != nil {
		t.Fatal(err)
	}
	v, err := newView(zones, table(t, steering()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]string{"198.51.100.0/24": "192.0.2.1", "203.0.113.0/24": "192.0.2.2"} {
		for _, n := range []string{"shop.example", "www.shop.example"} {
			q := withSubnet(n, subnet(client))
			got := ask(t, v, q, "192.0.2.1", false)
			last := got.Answer[len(got.Answer)-1]
			if text([]dns.RR{last}) != "shop.example. 20 A "+want || got.IsEdns0().Option[0].(*dns.EDNS0_SUBNET).SourceScope != 24 {
				t.Errorf("%s for %s: %v", n, client, got)
			}
			wire, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if fast, slow, _, ok := both(v, wire, "192.0.2.1", 7); !ok || string(fast) != string(slow) {
				t.Errorf("%s: fast %x, slow %x", n, fast, slow)
			}
		}
	}
	if got := ask(t, v, asker("shop.example", dns.TypeTXT), "192.0.2.1", false); text(got.Answer) != `shop.example. 300 TXT "own"` {
		t.Errorf("another type: %v", got)
	}
}

// The addresses of an alias are signed as the apex's own.
func TestAliasIsSigned(t *testing.T) {
	zones, err := loadZones([]Zone{aliasZone("cdn.elsewhere.example")})
	if err != nil {
		t.Fatal(err)
	}
	apex := wire(t, "shop.example")
	known := map[name]*resolved{apex: {addrs: map[steer.Family][]netip.Addr{steer.IPv4: {netip.MustParseAddr("192.0.2.7")}}, ttl: 20}}
	plain, err := newView(zones, nil, known, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, denial := range []Denial{Compact, NSEC3} {
		v := signed(t, plain, Signing{Keys: combined(t, dnssec.Ed25519), Denial: denial})
		r := newResolver(t, v, signedAt)
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeMX} {
			for _, n := range []string{"shop.example", "www.shop.example"} {
				q := asker(n, qtype)
				got := askSecure(t, v, q, signedAt)
				r.validate(q.Question[0], ask(t, v, q, "203.0.113.1", true), got)
				for _, rr := range got.Ns {
					nsec, ok := rr.(*dns.NSEC)
					if ok && qtype == dns.TypeMX && (!slices.Contains(nsec.TypeBitMap, dns.TypeA) || !slices.Contains(nsec.TypeBitMap, dns.TypeAAAA)) {
						t.Errorf("addresses denied: %v", nsec)
					}
				}
			}
		}
	}
}

// An alias of another name is resolved, followed, and keeps its last addresses.
func TestAliasIsResolved(t *testing.T) {
	t.Parallel() // it waits for a TTL
	resolver := func(addresses string) []Zone {
		return []Zone{{Name: "cdn.example", Text: "@ 5 SOA n h 1 2 3 4 5\n@ 5 NS n.elsewhere.example.\nedge 5 CNAME pool\n" + addresses}}
	}
	upstream, address, _ := start(t, Config{Zones: append(testZones(), resolver("pool 100 A 192.0.2.8\npool 100 A 192.0.2.7\n")...)})
	s, own, _ := start(t, Config{
		Zones:     append(testZones(), aliasZone("edge.cdn.example")),
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort(address)},
	})
	asks := func(question string) *dns.Msg {
		qname, typ, _ := strings.Cut(question, " ")
		return exchange(t, "udp", own, asker(qname, dns.StringToType[typ]))
	}
	await(t, asks, "shop.example A", "shop.example. 5 A 192.0.2.7; shop.example. 5 A 192.0.2.8")
	await(t, asks, "www.shop.example A", "www.shop.example. 300 CNAME shop.example.; shop.example. 5 A 192.0.2.7; shop.example. 5 A 192.0.2.8")
	if got := asks("shop.example AAAA"); len(got.Answer) != 0 || len(got.Ns) != 1 || got.Ns[0].Header().Ttl != 5 {
		t.Errorf("no address of the family: %v", got)
	}
	if got := asks("shop.example TXT"); text(got.Answer) != `shop.example. 300 TXT "own"` {
		t.Errorf("another type: %v", got)
	}
	if err := upstream.SetZones(append(testZones(), resolver("pool 100 A 192.0.2.9\n")...)); err != nil {
		t.Fatal(err)
	}
	await(t, asks, "shop.example A", "shop.example. 5 A 192.0.2.9")
	// What is packed is as new as the addresses.
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		wire, err := asker("shop.example", qtype).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if fast, slow, _, ok := both(s.view.Load(), wire, "192.0.2.1", 7); !ok || string(fast) != string(slow) {
			t.Errorf("%s: fast %x, slow %x", dns.Type(qtype), fast, slow)
		}
	}
}

// Without addresses so far the question fails: there is one, and nobody knows it.
func TestAliasNotResolved(t *testing.T) {
	_, address, _ := start(t, Config{Zones: append(testZones(), aliasZone("edge.cdn.example"))})
	got := exchange(t, "udp", address, asker("shop.example", dns.TypeA))
	if got.Rcode != dns.RcodeServerFailure || got.Authoritative || len(got.Answer) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestAliasesThatDoNotFit(t *testing.T) {
	for want, zone := range map[string]Zone{
		"zone shop.example: alias: \"a..b\" is not a domain name": aliasZone("a..b"),
		"zone shop.example: a copy cannot have an alias":          {Name: "shop.example", Alias: "a.example", Primaries: []Peer{{}}},
	} {
		if _, err := loadZones([]Zone{zone}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	zones, err := loadZones(append(testZones(), aliasZone("www.edge.example")))
	if err != nil {
		t.Fatal(err)
	}
	in := steering()
	in.Names = append(in.Names, steer.Name{Name: "shop.example", Policy: steer.Failover, Answers: []steer.Answer{{Pop: "fra"}}})
	if _, err := newView(zones, table(t, in), nil, nil); err == nil || err.Error() != "zone shop.example.: it is steered and an alias" {
		t.Errorf("got %v", err)
	}
}
