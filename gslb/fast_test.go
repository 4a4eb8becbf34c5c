package gslb

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// both answers a message on the fast path and on the slow one, over UDP.
func both(v *view, msg []byte, from string, random uint64) (fast, slow []byte, out fastOutcome, ok bool) {
	req := request{msg: msg, from: netip.MustParseAddr(from), now: 1_700_000_000, random: random}
	var q fastQuery
	fast, out, ok = v.respondFast(&q, req, make([]byte, 0, udpPayload))
	return fast, v.respond(req).msg, out, ok
}

// variants are the forms that a question comes in.
func variants(q *dns.Msg) []*dns.Msg {
	edns := func(options ...dns.EDNS0) *dns.Msg {
		m := q.Copy()
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = options
		return m
	}
	compact := edns()
	compact.IsEdns0().SetCo()
	spelled := q.Copy()
	spelled.Question[0].Name = strings.ToUpper(spelled.Question[0].Name)
	spelled.RecursionDesired = true
	return []*dns.Msg{
		q, spelled, edns(), compact,
		edns(&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: subnet("203.0.113.0/24")}),
		edns(&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("unknown")}, &dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: subnet("2001:db8:a::/48")}),
		edns(&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 1, 0, 0}}),
		edns(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}),
		edns(&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: subnet("198.51.100.0/24")},
			&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677010000006553f1000011223344556677"},
			&dns.EDNS0_PADDING{Padding: make([]byte, 3)}, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}),
	}
}

// Both paths agree on every name of the zones, on names beside and below them,
// and on every type; and the fast path answers most of that.
func TestFastAgreesWithSlow(t *testing.T) {
	t.Run("plain", func(t *testing.T) { fastAgreesWithSlow(t, testView(t), 60) })
	for about, denial := range map[string]Denial{"compact": Compact, "NSEC3": NSEC3} {
		t.Run(about, func(t *testing.T) {
			v := signedView(t, Signing{Keys: split(t, dnssec.Ed25519), Denial: denial})
			// Answers with signatures are packed for names that are there.
			fastAgreesWithSlow(t, v, 20)
		})
	}
}

// fastAgreesWithSlow wants a percentage of the queries on the fast path.
func fastAgreesWithSlow(t *testing.T, v *view, percent int) {
	names := []string{"elsewhere.example.", "example.", "."}
	for n := range v.entries {
		text := n.String()
		names = append(names, text, "x."+text, "x.y."+text, "*."+text, "x.*."+text)
	}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeDS,
		dns.TypeCNAME, dns.TypeDNAME, dns.TypeHTTPS, dns.TypeANY, dns.TypeAXFR, dns.TypeDNSKEY, dns.TypeNSEC, sample, 1}
	asked, answered := 0, 0
	for _, n := range names {
		for _, qtype := range types {
			for _, q := range variants(asker(n, qtype)) {
				wire, err := q.Pack()
				if err != nil {
					t.Fatal(err)
				}
				asked++
				fast, slow, _, ok := both(v, wire, "198.51.100.1", 7)
				if !ok {
					continue
				}
				answered++
				if !bytes.Equal(fast, slow) {
					t.Fatalf("%s %s\nfast %x\nslow %x", n, dns.Type(qtype), fast, slow)
				}
			}
		}
	}
	t.Logf("%d of %d on the fast path", answered, asked)
	if answered*100 < asked*percent {
		t.Errorf("only %d of %d queries were answered on the fast path", answered, asked)
	}
}

// What clients ask for all day is on the fast path.
func TestFastCovers(t *testing.T) {
	v := testView(t)
	for _, question := range []string{
		"www.edge.example A", "www.edge.example AAAA", "www.edge.example TXT", "first.edge.example HTTPS",
		"foo.any.edge.example A", "apex.example A", "steered.edge.example A", "edge.example NS", "edge.example SOA",
		"mail.edge.example A", "mail.edge.example AAAA", "hop.edge.example A", "foo.wild.edge.example TXT",
		"nope.edge.example A", "a.b.c.nope.edge.example A", "x.www.edge.example A", "child.edge.example A",
		"x.child.edge.example A", "x.ns1.edge.example A", "ns1.edge.example TXT", "y.empty.edge.example A", "www.elsewhere.example A",
	} {
		qname, typ, _ := strings.Cut(question, " ")
		for _, q := range variants(asker(qname, dns.StringToType[typ])) {
			wire, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if _, _, _, ok := both(v, wire, "198.51.100.1", 7); !ok {
				t.Errorf("%s is not: %v", question, q)
			}
		}
	}
}

// A steering table with the same names keeps what is packed, one with others
// does not; new zones pack all anew.
func TestPackedAnewWhenNeeded(t *testing.T) {
	zones, err := loadZones(testZones())
	if err != nil {
		t.Fatal(err)
	}
	next := func(last *view, change func()) *view {
		in := steering()
		if last == nil {
			in.Names = in.Names[1:]
		}
		if change != nil {
			change()
		}
		v, err := newView(zones, table(t, in), nil, last)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const www = name("\x03www\x04edge\x07example\x00")
	without := next(nil, nil)
	with := next(without, nil)
	steered := func(v *view) string {
		p, _ := v.entries[www].at.get(dns.TypeA)
		return p.steered
	}
	if steered(without) != "" || steered(with) == "" {
		t.Error("a new steered name was not packed")
	}
	again := next(with, nil)
	if again.entries[www] != with.entries[www] {
		t.Error("packed anew without need")
	}
	other := next(again, func() {
		if zones, err = loadZones(testZones()); err != nil {
			t.Fatal(err)
		}
	})
	if other.entries[www] == again.entries[www] || other.zoneEntries[www] == again.zoneEntries[www] {
		t.Error("new zones were not packed")
	}
}

// FuzzFastAgreesWithSlow asserts that what the fast path answers, the slow path
// answers in the same octets.
func FuzzFastAgreesWithSlow(f *testing.F) {
	plain := testView(f)
	secure := signedView(f, Signing{Keys: split(f, dnssec.Ed25519)})
	presigned, _ := presignedView(f, chainOptOut)
	for _, n := range []string{"mail", "alias", "any.wild", "nothing", "x.ent"} {
		for _, q := range variants(asker(under(n), dns.TypeA)) {
			wire, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire, uint64(1))
		}
	}
	for _, n := range []string{"www.edge.example", "x.any.edge.example", "hop.edge.example", "nope.edge.example",
		"x.wild.edge.example", "x.child.edge.example", "hostmaster.edge.example", "ns1.edge.example", "v4only.edge.example"} {
		for _, q := range variants(asker(n, dns.TypeA)) {
			wire, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire, uint64(1))
		}
	}
	f.Fuzz(func(t *testing.T, msg []byte, random uint64) {
		agrees(t, plain, msg, random)
		agrees(t, secure, msg, random)
		agrees(t, presigned, msg, random)
	})
}

func agrees(t *testing.T, v *view, msg []byte, random uint64) {
	before := slices.Clone(msg)
	fast, slow, out, ok := both(v, msg, "203.0.113.1", random)
	if !bytes.Equal(msg, before) {
		t.Fatal("the query was changed")
	}
	if !ok {
		return
	}
	if !bytes.Equal(fast, slow) {
		t.Fatalf("query %x\nfast %x\nslow %x", msg, fast, slow)
	}
	if got := unpack(t, fast); got.Rcode != out.rcode || got.Question[0].Qtype != out.qtype {
		t.Errorf("counted as %+v: %v", out, got)
	}
}

func TestLowerOctets(t *testing.T) {
	for c := range 256 {
		want := uint64(c)
		if 'A' <= c && c <= 'Z' {
			want += 'a' - 'A'
		}
		for at := range 8 {
			const others = 0x5a41ff807a615b40 // on either side of every bound
			mask := uint64(0xff) << (8 * at)
			got := lowerOctets(others&^mask | uint64(c)<<(8*at))
			if got>>(8*at)&0xff != want || got&^mask != uint64(0x7a61ff807a615b40)&^mask {
				t.Fatalf("octet %#x at %d: %#x", c, at, got)
			}
		}
	}
}

func BenchmarkRespondFast(b *testing.B) {
	v := signedView(b, Signing{Keys: split(b, dnssec.ECDSAP256SHA256)})
	for about, q := range map[string]*dns.Msg{
		"steered":         withSubnet("www.edge.example", subnet("203.0.113.0/24")),
		"plain":           asker("mail.edge.example", dns.TypeA),
		"negative":        asker("nope.edge.example", dns.TypeA),
		"steered, signed": secureAsker("www.edge.example", dns.TypeA),
		"plain, signed":   secureAsker("mail.edge.example", dns.TypeA),
	} {
		wire, err := q.Pack()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(about, func(b *testing.B) {
			b.ReportAllocs()
			var q fastQuery
			buf := make([]byte, 0, udpPayload)
			req := request{msg: wire, from: netip.MustParseAddr("198.51.100.1")}
			for b.Loop() {
				if _, _, ok := v.respondFast(&q, req, buf); !ok {
					b.Fatal("not on the fast path")
				}
			}
		})
	}
}
