package gslb

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/internal/cidr"

	"github.com/miekg/dns"
)

// steering is the input of the tests' table: PoPs in Europe and America, one
// without IPv6, and names at every kind of place in the zones.
func steering() steer.Input {
	answers := []steer.Answer{{Pop: "fra", Weight: 1}, {Pop: "iad", Weight: 1}}
	input := steer.Input{
		Pops: []steer.Pop{
			{Name: "fra", Lat: 50, Lon: 8, State: steer.Up, Addresses: []netip.Addr{
				netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
			{Name: "iad", Lat: 38, Lon: -77, State: steer.Up, Addresses: []netip.Addr{
				netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}},
			{Name: "old", State: steer.Up, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.3")}},
		},
		Clients: []steer.Client{
			{Prefix: cidr.MustParse("198.51.100.0/24"), Lat: 48, Lon: 2},
			{Prefix: cidr.MustParse("203.0.113.0/24"), Lat: 40, Lon: -74},
			{Prefix: cidr.MustParse("2001:db8:a::/48"), Lat: 40, Lon: -74},
			{Prefix: cidr.MustParse("127.0.0.0/8"), Lat: 48, Lon: 2},
		},
	}
	for _, n := range []string{"www", "*.any", "x.y.empty"} {
		input.Names = append(input.Names, steer.Name{Name: n + ".edge.example", Policy: steer.Nearest, TTL: 20 * time.Second, Answers: answers})
	}
	input.Names = append(input.Names,
		steer.Name{Name: "first.edge.example", Policy: steer.Failover, TTL: 20 * time.Second, Answers: answers},
		steer.Name{Name: "v4only.edge.example", Policy: steer.Failover, TTL: 5 * time.Second, Answers: []steer.Answer{{Pop: "old"}}},
		steer.Name{Name: "apex.example", Policy: steer.Failover, TTL: 20 * time.Second, Answers: answers},
	)
	return input
}

func table(t testing.TB, in steer.Input) *steer.Table {
	t.Helper()
	table, err := steer.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// testZones are the test zone, one whose apex is steered, and a child zone of
// which the parent is served too.
func testZones() []Zone {
	const minimal = "@ 300 SOA ns.elsewhere.example. hostmaster 1 2 3 4 60\n@ 300 NS ns.elsewhere.example.\n"
	return []Zone{
		{Name: "edge.example", File: "testdata/edge.example.zone"},
		{Name: "apex.example.", Text: minimal},
		{Name: "both.edge.example", Text: minimal + "www 300 A 192.0.2.77\n"},
	}
}

func testView(t testing.TB) *view {
	t.Helper()
	v := plainView(t)
	v.identity = identity{nsid: []byte("ns-1"), cookies: cookies{{1, 2, 3}}, idle: 10 * time.Second}
	return v
}

// plainView is testView of a server without NSID and cookies.
func plainView(t testing.TB) *view {
	t.Helper()
	zones, err := loadZones(testZones())
	if err != nil {
		t.Fatal(err)
	}
	v, err := newView(zones, table(t, steering()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// asker builds a query.
func asker(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.RecursionDesired = false
	return m
}

// ask sends a query to a view from an address, and unpacks the answer.
func ask(t testing.TB, v *view, q *dns.Msg, from string, tcp bool) *dns.Msg {
	t.Helper()
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out := v.respond(request{msg: wire, from: netip.MustParseAddr(from), tcp: tcp, random: 3})
	return unpack(t, out.msg)
}

func unpack(t testing.TB, wire []byte) *dns.Msg {
	t.Helper()
	if wire == nil {
		t.Fatal("no answer")
	}
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("the answer cannot be read: %v\n%x", err, wire)
	}
	return m
}

// text prints records without class, with single spaces, one after the other.
func text(records []dns.RR) string {
	var all []string
	for _, rr := range records {
		if rr.Header().Rrtype == dns.TypeOPT {
			continue
		}
		line := strings.Join(strings.Fields(rr.String()), " ")
		all = append(all, strings.Replace(line, " IN ", " ", 1))
	}
	return strings.Join(all, "; ")
}

func TestAnswers(t *testing.T) {
	const soa = "edge.example. 60 SOA ns1.edge.example. hostmaster.edge.example. 2026010101 3600 900 604800 60"
	const referral = "child.edge.example. 300 NS ns.child.edge.example.; child.edge.example. 300 NS ns1.edge.example."
	const glue = "ns.child.edge.example. 300 A 192.0.2.54; ns1.edge.example. 300 A 192.0.2.53; ns1.edge.example. 300 AAAA 2001:db8::53"
	tests := []struct {
		about      string
		question   string
		rcode      int
		answer     string
		authority  string
		additional string
		notAA      bool
	}{
		{"plain", "mail.edge.example A", 0, "mail.edge.example. 300 A 192.0.2.25", "", "", false},
		{"apex", "edge.example NS", 0, "edge.example. 300 NS ns1.edge.example.; edge.example. 300 NS ns2.elsewhere.example.", "", "", false},
		{"soa keeps its own ttl", "edge.example SOA", 0, strings.Replace(soa, " 60 ", " 300 ", 1), "", "", false},
		{"no data", "mail.edge.example AAAA", 0, "", soa, "", false},
		{"unknown type", "mail.edge.example TYPE1000", 0, "", soa, "", false},
		{"no name", "nope.edge.example A", 3, "", soa, "", false},
		{"below a name without children", "x.mail.edge.example A", 3, "", soa, "", false},
		{"empty non-terminal", "b.deep.edge.example A", 0, "", soa, "", false},
		{"empty non-terminal above", "deep.edge.example TXT", 0, "", soa, "", false},
		{"any", "mail.edge.example ANY", 0, `mail.edge.example. 3600 HINFO "RFC8482" ""`, "", "", false},
		{"any of nothing", "deep.edge.example ANY", 0, "", soa, "", false},
		{"any of an alias", "alias.edge.example ANY", 0, "alias.edge.example. 300 CNAME mail.edge.example.", "", "", false},
		{"any of a steered name", "first.edge.example ANY", 0, `first.edge.example. 3600 HINFO "RFC8482" ""`, "", "", false},

		{"alias", "alias.edge.example A", 0, "alias.edge.example. 300 CNAME mail.edge.example.; mail.edge.example. 300 A 192.0.2.25", "", "", false},
		{"two aliases", "hop.edge.example A", 0, "hop.edge.example. 300 CNAME alias.edge.example.; alias.edge.example. 300 CNAME mail.edge.example.; mail.edge.example. 300 A 192.0.2.25", "", "", false},
		{"alias asked for itself", "alias.edge.example CNAME", 0, "alias.edge.example. 300 CNAME mail.edge.example.", "", "", false},
		{"alias to no data", "alias.edge.example TXT", 0, "alias.edge.example. 300 CNAME mail.edge.example.", soa, "", false},
		{"alias to elsewhere", "out.edge.example A", 0, "out.edge.example. 300 CNAME www.elsewhere.example.", "", "", false},
		{"alias to no name", "dangling.edge.example A", 3, "dangling.edge.example. 300 CNAME nothing.edge.example.", soa, "", false},
		{"circle", "circle.edge.example A", 0, "circle.edge.example. 300 CNAME ring.edge.example.; ring.edge.example. 300 CNAME circle.edge.example.", "", "", false},
		{"alias of itself", "self.edge.example A", 0, "self.edge.example. 300 CNAME self.edge.example.", "", "", false},

		{"wildcard", "foo.wild.edge.example TXT", 0, `foo.wild.edge.example. 300 TXT "any"`, "", "", false},
		{"wildcard, two labels", "foo.bar.wild.edge.example TXT", 0, `foo.bar.wild.edge.example. 300 TXT "any"`, "", "", false},
		{"wildcard, no data", "foo.wild.edge.example A", 0, "", soa, "", false},
		{"wildcard itself", "*.wild.edge.example TXT", 0, `*.wild.edge.example. 300 TXT "any"`, "", "", false},
		{"a star below the wildcard", "x.*.wild.edge.example TXT", 3, "", soa, "", false},
		{"a name that exists hides the wildcard", "exact.wild.edge.example TXT", 0, "", soa, "", false},
		{"below such a name too", "x.exact.wild.edge.example TXT", 3, "", soa, "", false},
		{"an empty non-terminal hides it", "exact2.wild.edge.example TXT", 0, "", soa, "", false},
		{"its parent is no match", "wild.edge.example TXT", 0, "", soa, "", false},
		{"wildcard alias", "q.alias-wild.edge.example A", 0, "q.alias-wild.edge.example. 300 CNAME mail.edge.example.; mail.edge.example. 300 A 192.0.2.25", "", "", false},

		{"at a cut", "child.edge.example A", 0, "", referral, glue, true},
		{"below a cut", "x.y.child.edge.example TXT", 0, "", referral, glue, true},
		{"occluded data", "hidden.child.edge.example TXT", 0, "", referral, glue, true},
		{"glue is not an answer", "ns.child.edge.example A", 0, "", referral, glue, true},
		{"NS of the child", "child.edge.example NS", 0, "", referral, glue, true},
		{"any at a cut", "child.edge.example ANY", 0, "", referral, glue, true},
		{"DS is on this side", "child.edge.example DS", 0, "child.edge.example. 300 DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000001", "", "", false},
		{"no DS", "foreign.edge.example DS", 0, "", soa, "", false},
		{"DS below the cut", "x.child.edge.example DS", 0, "", referral, glue, true},
		{"servers elsewhere", "x.foreign.edge.example A", 0, "", "foreign.edge.example. 300 NS ns.elsewhere.example.", "", true},
		{"alias into a child", "into.edge.example A", 0, "into.edge.example. 300 CNAME host.child.edge.example.", referral, glue, false},

		{"DNAME", "host.old.edge.example A", 0, "old.edge.example. 300 DNAME new.edge.example.; host.old.edge.example. 300 CNAME host.new.edge.example.; host.new.edge.example. 300 A 192.0.2.10", "", "", false},
		{"DNAME to no name", "x.old.edge.example A", 3, "old.edge.example. 300 DNAME new.edge.example.; x.old.edge.example. 300 CNAME x.new.edge.example.", soa, "", false},
		{"DNAME, and the alias is what was asked for", "x.old.edge.example CNAME", 0, "old.edge.example. 300 DNAME new.edge.example.; x.old.edge.example. 300 CNAME x.new.edge.example.", "", "", false},
		{"DNAME's owner is itself", "old.edge.example TXT", 0, `old.edge.example. 300 TXT "the owner itself"`, "", "", false},

		{"steered name, other type", "www.edge.example TXT", 0, `www.edge.example. 300 TXT "of the zone"`, "", "", false},
		{"steered name, no other type", "first.edge.example TXT", 0, "", soa, "", false},
		{"steered name, address", "first.edge.example A", 0, "first.edge.example. 20 A 192.0.2.1", "", "", false},
		{"steered name, v6 address", "first.edge.example AAAA", 0, "first.edge.example. 20 AAAA 2001:db8::1", "", "", false},
		{"steered name hides the zone's address", "www.edge.example A", 0, "www.edge.example. 20 A 192.0.2.1", "", "", false},
		{"alias to a steered name", "steered.edge.example A", 0, "steered.edge.example. 300 CNAME www.edge.example.; www.edge.example. 20 A 192.0.2.1", "", "", false},
		{"steered wildcard", "foo.any.edge.example A", 0, "foo.any.edge.example. 20 A 192.0.2.1", "", "", false},
		{"above a steered name", "y.empty.edge.example A", 0, "", soa, "", false},
		{"beside one", "z.empty.edge.example A", 3, "", soa, "", false},
		{"below one", "x.www.edge.example A", 3, "", soa, "", false},
		{"no address of the family", "v4only.edge.example AAAA", 0, "", strings.Replace(soa, " 60 ", " 5 ", 1), "", false},
		{"steered apex", "apex.example A", 0, "apex.example. 20 A 192.0.2.1", "", "", false},
		{"steered apex, other type", "apex.example NS", 0, "apex.example. 300 NS ns.elsewhere.example.", "", "", false},

		{"a child zone served here", "www.both.edge.example A", 0, "www.both.edge.example. 300 A 192.0.2.77", "", "", false},
		{"its DS is in the parent", "both.edge.example DS", 0, "", soa, "", false},
		{"DS of an apex without parent here", "edge.example DS", 0, "", soa, "", false},

		{"elsewhere", "www.elsewhere.example A", 5, "", "", "", true},
		{"above the zone", "example A", 5, "", "", "", true},
		{"root", ". NS", 5, "", "", "", true},
		{"transfer", "edge.example AXFR", 5, "", "", "", true},
		{"incremental transfer", "edge.example IXFR", 5, "", "", "", true},
		{"obsolete meta type", "edge.example MAILB", 4, "", "", "", true},
		{"type that is none", "edge.example OPT", 1, "", "", "", true},
		{"signature of a message", "edge.example TSIG", 1, "", "", "", true},
	}
	v := testView(t)
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			qname, typ, _ := strings.Cut(tt.question, " ")
			qtype, known := dns.StringToType[typ]
			if !known {
				qtype = 1000
			}
			got := ask(t, v, asker(qname, qtype), "198.51.100.1", true)
			if got.Rcode != tt.rcode || got.Authoritative == tt.notAA || got.Truncated || !got.Response || got.RecursionAvailable {
				t.Errorf("header %s", got.MsgHdr.String())
			}
			if a := text(got.Answer); a != tt.answer {
				t.Errorf("answer\n %s, want\n %s", a, tt.answer)
			}
			if a := text(got.Ns); a != tt.authority {
				t.Errorf("authority\n %s, want\n %s", a, tt.authority)
			}
			if a := text(got.Extra); a != tt.additional {
				t.Errorf("additional\n %s, want\n %s", a, tt.additional)
			}
		})
	}
}

func TestOnlyClassIN(t *testing.T) {
	q := asker("edge.example", dns.TypeTXT)
	for _, class := range []uint16{dns.ClassCHAOS, dns.ClassANY, dns.ClassNONE} {
		q.Question[0].Qclass = class
		if got := ask(t, testView(t), q, "192.0.2.1", false); got.Rcode != dns.RcodeRefused {
			t.Errorf("class %d: %s", class, dns.RcodeToString[got.Rcode])
		}
	}
}

// The spelling of the question comes back, also as the owner of what answers it.
func TestCaseOfTheQuestionIsKept(t *testing.T) {
	v := testView(t)
	for _, name := range []string{"wWw.EDGE.eXample.", "FIRST.edge.Example.", "MaIl.edge.example.", "ANY.wiLD.edge.example.", "StEERed.edge.example."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT} {
			got := ask(t, v, asker(name, qtype), "198.51.100.1", false)
			if got.Question[0].Name != name {
				t.Errorf("asked %s, question %s", name, got.Question[0].Name)
			}
			if len(got.Answer) > 0 && got.Answer[0].Header().Name != name {
				t.Errorf("asked %s, answer %s", name, got.Answer[0])
			}
		}
	}
}

func TestNameTooLongForADNAME(t *testing.T) {
	zones, err := loadZones([]Zone{{Name: "edge.example", Text: "@ 1 SOA n h 1 2 3 4 5\n@ 1 NS n.example.\n" +
		"old 1 DNAME " + strings.Repeat("long-label.", 15) + "example.\n"}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := newView(zones, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := ask(t, v, asker(strings.Repeat("another.", 12)+"old.edge.example", dns.TypeA), "192.0.2.1", true)
	if got.Rcode != dns.RcodeYXDomain || len(got.Answer) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestSizes(t *testing.T) {
	v := testView(t)
	edns := func(size uint16) *dns.Msg {
		q := asker("large.edge.example", dns.TypeTXT)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		return q
	}
	for _, size := range []uint16{0, 100, 512, 1232, 4096, 65535} {
		got := ask(t, v, edns(size), "192.0.2.1", false)
		if !got.Truncated || len(got.Answer) != 0 || got.Rcode != 0 || (got.IsEdns0() != nil) != (size > 0) {
			t.Errorf("size %d: %v", size, got)
		}
	}
	if got := ask(t, v, edns(0), "192.0.2.1", true); got.Truncated || len(got.Answer) != 40 {
		t.Errorf("over TCP: %d records, truncated %v", len(got.Answer), got.Truncated)
	}
	// Sixteen records of about 50 octets are over 512 and under 1232.
	text := "@ 1 SOA n h 1 2 3 4 5\n@ 1 NS n.example.\n"
	for i := range 16 {
		text += "m 1 TXT \"" + strings.Repeat(string(rune('a'+i)), 40) + "\"\n"
	}
	for i := range 3000 {
		text += "h 1 TXT \"" + strings.Repeat(string(rune('a'+i%26)), 20) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + "\"\n"
	}
	zones, err := loadZones([]Zone{{Name: "edge.example", Text: text}})
	if err != nil {
		t.Fatal(err)
	}
	v, err = newView(zones, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	q := asker("m.edge.example", dns.TypeTXT)
	if got := ask(t, v, q, "192.0.2.1", false); !got.Truncated {
		t.Error("not truncated without EDNS")
	}
	q.SetEdns0(1232, false)
	if got := ask(t, v, q, "192.0.2.1", false); got.Truncated || len(got.Answer) != 16 {
		t.Errorf("with EDNS: %d records, truncated %v", len(got.Answer), got.Truncated)
	}
	// What no message can hold is said to be so, not cut for ever.
	huge := asker("h.edge.example", dns.TypeTXT)
	if got := ask(t, v, huge, "192.0.2.1", false); !got.Truncated {
		t.Error("huge answer was not truncated over UDP")
	}
	if got := ask(t, v, huge, "192.0.2.1", true); got.Rcode != dns.RcodeServerFailure || got.Truncated || got.Authoritative {
		t.Errorf("huge answer over TCP: %s", got.MsgHdr.String())
	}
}

// Glue that a delegation needs makes an answer truncated that it does not fit
// into; other glue is left out.
func TestSizeOfReferrals(t *testing.T) {
	zone := func(below string) Zone {
		text := "@ 1 SOA n h 1 2 3 4 5\n@ 1 NS n.example.\n"
		for i := range 10 {
			text += fmt.Sprintf("child 1 NS ns%d%s\nns%d%s 1 AAAA 2001:db8::%d\nns%d%s 1 A 192.0.2.%d\n", i, below, i, below, i, i, below, i)
		}
		return Zone{Name: "edge.example", Text: text}
	}
	for below, tests := range map[string][]struct {
		size       uint16
		truncated  bool
		additional int
	}{
		".child": {{512, true, 0}, {1232, false, 20}},
		"":       {{512, false, 0}, {1232, false, 20}},
	} {
		zones, err := loadZones([]Zone{zone(below)})
		if err != nil {
			t.Fatal(err)
		}
		v, err := newView(zones, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range tests {
			q := asker("x.child.edge.example", dns.TypeA)
			q.SetEdns0(tt.size, false)
			got := ask(t, v, q, "192.0.2.1", false)
			if got.Truncated != tt.truncated || len(got.Extra)-1 != tt.additional || len(got.Ns) != 10 && !tt.truncated {
				t.Errorf("servers at ns%s, %d octets: %v", below, tt.size, got)
			}
			wire, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if fast, slow, _, ok := both(v, wire, "192.0.2.1", 1); ok && string(fast) != string(slow) {
				t.Errorf("fast %x\nslow %x", fast, slow)
			}
		}
	}
}

func TestEDNS(t *testing.T) {
	v := plainView(t)
	q := asker("mail.edge.example", dns.TypeA)
	if got := ask(t, v, q, "192.0.2.1", false); got.IsEdns0() != nil {
		t.Error("OPT in the answer to a query without one")
	}
	q.SetEdns0(4096, true)
	opt := q.IsEdns0()
	opt.SetZ(0x1fff) // flags without meaning
	opt.Option = []dns.EDNS0{
		&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("unknown")},
		&dns.EDNS0_NSID{Code: dns.EDNS0NSID},
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"},
	}
	got := ask(t, v, q, "192.0.2.1", false)
	o := got.IsEdns0()
	if got.Rcode != 0 || len(got.Answer) != 1 || o == nil || o.UDPSize() != 1232 || !o.Do() || o.Z() != 0 || len(o.Option) != 0 || o.Version() != 0 {
		t.Errorf("got %v", got)
	}
	opt.SetVersion(1)
	got = ask(t, v, q, "192.0.2.1", false)
	if got.Rcode != dns.RcodeBadVers || len(got.Answer) != 0 || got.IsEdns0().Version() != 0 {
		t.Errorf("version 1: %v", got)
	}
}

func TestOptions(t *testing.T) {
	v := testView(t)
	q := asker("mail.edge.example", dns.TypeA)
	q.SetEdns0(1232, false)
	opt := q.IsEdns0()
	opt.Option = []dns.EDNS0{
		&dns.EDNS0_NSID{Code: dns.EDNS0NSID},
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"},
		&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE},
		&dns.EDNS0_PADDING{Padding: make([]byte, 10)},
	}
	codes := func(req request) (codes []uint16, length int) {
		wire, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		req.msg, req.from = wire, netip.MustParseAddr("192.0.2.1")
		out := v.respond(req)
		for _, o := range unpack(t, out.msg).IsEdns0().Option {
			codes = append(codes, o.Option())
		}
		return codes, len(out.msg)
	}
	if got, _ := codes(request{}); !slices.Equal(got, []uint16{dns.EDNS0NSID, dns.EDNS0COOKIE}) {
		t.Errorf("over UDP: options %v", got)
	}
	if got, _ := codes(request{tcp: true}); !slices.Equal(got, []uint16{dns.EDNS0NSID, dns.EDNS0COOKIE, dns.EDNS0TCPKEEPALIVE}) {
		t.Errorf("over TCP: options %v", got)
	}
	got, length := codes(request{tcp: true, encrypted: true})
	if !slices.Equal(got, []uint16{dns.EDNS0NSID, dns.EDNS0COOKIE, dns.EDNS0TCPKEEPALIVE, dns.EDNS0PADDING}) || length != paddingBlock {
		t.Errorf("over TLS: options %v, %d octets", got, length)
	}
	for about, cookie := range map[string]string{"short": "00112233", "half a server's": "00112233445566778899", "long": strings.Repeat("00", 41)} {
		opt.Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie}}
		if got := ask(t, v, q, "192.0.2.1", false); got.Rcode != dns.RcodeFormatError {
			t.Errorf("%s cookie: %s", about, dns.RcodeToString[got.Rcode])
		}
	}
}

func TestMessagesThatAreNoQueries(t *testing.T) {
	v := testView(t)
	good, err := asker("mail.edge.example", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(b []byte) []byte) []byte { return f(slices.Clone(good)) }
	set16 := func(off int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint16(b[off:], v); return b }
	}
	opt := func(data string) func([]byte) []byte {
		return func(b []byte) []byte {
			b[11]++
			b = append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, byte(len(data)))
			return append(b, data...)
		}
	}
	const drop = -1
	tests := []struct {
		about string
		msg   []byte
		rcode int
	}{
		{"nothing", nil, drop},
		{"short of a header", good[:11], drop},
		{"a response", change(set16(2, 0x8000)), drop},
		{"only a header", change(set16(4, 0))[:12], dns.RcodeFormatError},
		{"no question", change(set16(4, 0)), dns.RcodeFormatError},
		{"two questions", change(set16(4, 2)), dns.RcodeFormatError},
		{"half a question", good[:20], dns.RcodeFormatError},
		{"no class", good[:len(good)-2], dns.RcodeFormatError},
		{"a pointer for a name", change(func(b []byte) []byte { b[12], b[13] = 0xc0, 12; return b }), dns.RcodeFormatError},
		{"a label of a type that is not", change(func(b []byte) []byte { b[12] = 0x41; return b }), dns.RcodeFormatError},
		{"bytes after the end", append(slices.Clone(good), 0), dns.RcodeFormatError},
		{"a record that is not there", change(set16(10, 1)), dns.RcodeFormatError},
		{"65535 records that are not there", change(set16(6, 65535)), dns.RcodeFormatError},
		{"status", change(set16(2, 2<<11)), dns.RcodeNotImplemented},
		{"notify", change(set16(2, 4<<11)), dns.RcodeNotImplemented},
		{"update", change(set16(2, 5<<11)), dns.RcodeNotImplemented},
		{"opcode 15", change(set16(2, 15<<11)), dns.RcodeNotImplemented},
		{"flags without meaning", change(set16(2, 0x0670)), dns.RcodeSuccess},
		{"two OPT records", opt("")(change(opt(""))), dns.RcodeFormatError},
		{"OPT of a name", change(func(b []byte) []byte {
			b[11]++
			return append(b, 1, 'x', 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0)
		}), dns.RcodeFormatError},
		{"half an option", change(opt("\x00\x03\x00")), dns.RcodeFormatError},
		{"an option longer than the record", change(opt("\x00\x03\x00\x01")), dns.RcodeFormatError},
		{"an OPT record", change(opt("\x00\x03\x00\x00")), dns.RcodeSuccess},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			out := v.respond(request{msg: tt.msg, from: netip.MustParseAddr("192.0.2.1")})
			if tt.rcode == drop {
				if out.msg != nil {
					t.Errorf("answered %x", out.msg)
				}
				return
			}
			got := unpack(t, out.msg)
			if got.Rcode != tt.rcode || got.Id != binary.BigEndian.Uint16(tt.msg) || got.Opcode != int(tt.msg[2]>>3&15) {
				t.Errorf("got %s", got.MsgHdr.String())
			}
		})
	}
}

// A name of the greatest length, with labels of the greatest length.
func TestLongestName(t *testing.T) {
	label := strings.Repeat("a", 63)
	name := strings.Join([]string{label, label, label, label[:61-len("edge.example.")], "edge.example."}, ".")
	if got := ask(t, testView(t), asker(name, dns.TypeA), "192.0.2.1", false); got.Rcode != dns.RcodeNameError {
		t.Errorf("got %s", got.MsgHdr.String())
	}
	wire := append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, []byte(strings.Repeat("\x3f"+label, 4))...)
	wire = append(wire, 0, 0, 1, 0, 1)
	out := testView(t).respond(request{msg: wire, from: netip.MustParseAddr("192.0.2.1")})
	if got := unpack(t, out.msg); got.Rcode != dns.RcodeFormatError {
		t.Errorf("a name of 257 octets: %s", got.MsgHdr.String())
	}
}

func TestSteeredNamesThatDoNotFit(t *testing.T) {
	zones, err := loadZones(testZones())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"www.elsewhere.example":     "lies in none of the zones",
		"child.edge.example":        "child.edge.example. is delegated in testdata/edge.example.zone",
		"x.y.child.edge.example":    "is delegated",
		"x.old.edge.example":        "has a DNAME",
		"alias.edge.example":        "it has a CNAME",
		"*.alias-wild.edge.example": "it has a CNAME",
		"a..edge.example":           "is not a domain name",
	} {
		in := steering()
		in.Names[0].Name = name
		_, err := newView(zones, table(t, in), nil, nil)
		if err == nil || !strings.Contains(err.Error(), "steered name "+name+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func BenchmarkRespond(b *testing.B) {
	v := testView(b)
	for about, q := range map[string]*dns.Msg{
		"steered":  withSubnet("www.edge.example", subnet("203.0.113.0/24")),
		"plain":    asker("mail.edge.example", dns.TypeA),
		"negative": asker("nope.edge.example", dns.TypeA),
	} {
		wire, err := q.Pack()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(about, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v.respond(request{msg: wire, from: netip.MustParseAddr("198.51.100.1")})
			}
		})
	}
}
