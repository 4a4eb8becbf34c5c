package gslb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/gslb/dnssec"
	"anyedge/gslb/steer"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// isSigned reports whether a server's answer has signatures that are right.
func isSigned(t *testing.T, s *Server, address, qname string) bool {
	t.Helper()
	got := exchange(t, "udp", address, secureAsker(qname, dns.TypeA))
	if got.Rcode != dns.RcodeSuccess || len(got.Answer) == 0 {
		t.Fatalf("%v", got)
	}
	seen := false
	r := newResolver(t, s.view.Load(), uint32(time.Now().Unix()))
	r.section(got.Answer, func(_ []dns.RR, labels int) { seen = seen || labels >= 0 })
	return seen
}

// Zones are signed from the start or when keys come, stay so when they are
// replaced, and are not any more when the keys are taken away.
func TestSign(t *testing.T) {
	zones := testZones()
	zones[1].Signing.Keys = combined(t, dnssec.Ed25519)
	s, address, _ := start(t, Config{Zones: zones})
	expect := func(edge, apex bool) {
		t.Helper()
		for range 2 { // the second answer is a packed one
			if got := isSigned(t, s, address, "www.edge.example"); got != edge {
				t.Errorf("edge.example signed: %v", got)
			}
			if got := isSigned(t, s, address, "apex.example"); got != apex {
				t.Errorf("apex.example signed: %v", got)
			}
		}
	}
	expect(false, true)
	if err := s.Sign("Edge.Example", split(t, dnssec.ECDSAP256SHA256)); err != nil {
		t.Fatal(err)
	}
	expect(true, true)
	if err := s.Sign("edge.example", split(t, dnssec.Ed25519)); err != nil {
		t.Fatal(err)
	}
	expect(true, true)
	if err := s.Update(table(t, steering())); err != nil {
		t.Fatal(err)
	}
	if err := s.SetZones(testZones()); err != nil {
		t.Fatal(err)
	}
	expect(true, true)
	if err := s.Sign("edge.example", nil); err != nil {
		t.Fatal(err)
	}
	expect(false, true)
	for want, err := range map[string]error{
		"zone www.edge.example: not served": s.Sign("www.edge.example", split(t, dnssec.Ed25519)),
		"zone edge.example: no key":         s.Sign("edge.example", &dnssec.KeySet{}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	expect(false, true)
	own := testZones()
	own[1].Text += "@ 300 CDS 1 13 2 00\n"
	if err := s.SetZones(own); err == nil || !strings.Contains(err.Error(), "zone apex.example.: it is signed here and has CDS records of its own") {
		t.Errorf("got %v", err)
	}
	expect(false, true)
}

// A copy is signed as it comes, and its own copies get what the primary has.
func TestCopiesAreSignedHere(t *testing.T) {
	free := netip.MustParseAddrPort("127.0.0.1:0")
	all := &Transfer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	primary, _, _ := start(t, Config{Listen: []netip.AddrPort{free}, Zones: append(testZones(), primaryZone(version(1, "a 300 A 192.0.2.1"), all)...)})
	s, address, _ := start(t, Config{Zones: append(testZones(), Zone{
		Name: "copied.example", Primaries: []Peer{{Address: primary.Addresses()[0]}}, Transfer: all,
		Signing: Signing{Keys: combined(t, dnssec.Ed25519), Denial: NSEC3},
	})})
	await(t, func(string) *dns.Msg { return exchange(t, "udp", address, asker("a.copied.example", dns.TypeA)) }, "", "a.copied.example. 300 A 192.0.2.1")
	if !isSigned(t, s, address, "a.copied.example") {
		t.Error("not signed")
	}
	if err := s.Sign("copied.example", split(t, dnssec.Ed25519)); err != nil {
		t.Fatal(err)
	}
	notify := *all
	notify.Notify = []Peer{{Address: s.Addresses()[0]}}
	if err := primary.SetZones(append(testZones(), primaryZone(version(2, "a 300 A 192.0.2.2"), &notify)...)); err != nil {
		t.Fatal(err)
	}
	await(t, func(string) *dns.Msg { return exchange(t, "udp", address, asker("a.copied.example", dns.TypeA)) }, "", "a.copied.example. 300 A 192.0.2.2")
	if !isSigned(t, s, address, "a.copied.example") || len(s.view.Load().zones[wire(t, "copied.example")].signer.keys.Published) != 2 {
		t.Error("the next version is not signed with the keys in use")
	}
	q := new(dns.Msg)
	q.SetAxfr("copied.example.")
	envelopes, err := new(dns.Transfer).In(q, address)
	if err != nil {
		t.Fatal(err)
	}
	for e := range envelopes {
		for _, rr := range e.RR {
			switch rr.(type) {
			case *dns.RRSIG, *dns.DNSKEY, *dns.NSEC3PARAM:
				t.Errorf("transferred: %v", rr)
			}
		}
	}
}

// Keys, zones and tables change while queries come.
func TestSignWhileServing(t *testing.T) {
	s, address, reg := start(t, Config{})
	keys := []*dnssec.KeySet{split(t, dnssec.Ed25519), combined(t, dnssec.ECDSAP256SHA256)}
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for i := range 4 {
		asking.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				q := secureAsker([]string{"www.edge.example", "mail.edge.example", fmt.Sprintf("n%d.edge.example", j)}[(i+j)%3], dns.TypeA)
				if got := exchange(t, []string{"udp", "tcp"}[j%2], address, q); got.Rcode == dns.RcodeServerFailure {
					t.Errorf("%v", got)
				}
			}
		})
	}
	for i := range 20 {
		if err := s.Sign("edge.example", keys[i%2]); err != nil {
			t.Error(err)
		}
		if err := s.Update(table(t, steering())); err != nil {
			t.Error(err)
		}
		if err := s.SetZones(testZones()); err != nil {
			t.Error(err)
		}
	}
	stop()
	asking.Wait()
	made, err := testutil.GatherAndCount(reg, metricSignatures, metricSignHits, metricSignErrors)
	if err != nil || made != 3 || testutil.ToFloat64(s.m.signatures) == 0 || testutil.ToFloat64(s.m.signatureHits) == 0 || testutil.ToFloat64(s.m.signatureErrors) != 0 {
		t.Errorf("%d metrics, %v", made, err)
	}
}

// What is asked for now and then stays; the rest makes room.
func TestSignaturesAreBounded(t *testing.T) {
	c := newSignatures(newMetrics(nil))
	id := func(i int) signedData { return signedData{key: fmt.Sprint(i)} }
	for i := range 3 * maxSignatures {
		c.put(id(i), []byte{1})
		if i%1000 == 0 && c.get(id(0)) == nil {
			t.Fatalf("forgotten although in use, after %d", i)
		}
		if len(c.young)+len(c.old) > maxSignatures {
			t.Fatalf("%d and %d", len(c.young), len(c.old))
		}
	}
	if c.get(id(1)) != nil {
		t.Error("kept although not in use")
	}
}

// Packed answers with signatures are for the addresses and the time that they
// were packed for, and only so many are kept.
func TestKeptForms(t *testing.T) {
	k := &kept{room: new(atomic.Int64)}
	k.room.Store(2)
	reply := func(addrs ...string) *steer.Reply {
		r := &steer.Reply{TTL: time.Second}
		for _, a := range addrs {
			r.Addrs = append(r.Addrs, netip.MustParseAddr(a))
		}
		return r
	}
	put := func(r *steer.Reply, since, until uint32) {
		k.put(&form{term: term{since, until}, addrs: r.Addrs, ttl: r.TTL})
	}
	put(reply(), 100, 200)
	put(reply("192.0.2.1", "192.0.2.2"), 100, 200)
	put(reply("192.0.2.2"), 100, 200) // for which there is no room
	put(reply(), 150, 250)            // in the place of another
	slower := reply("192.0.2.1", "192.0.2.2")
	slower.TTL++
	for _, test := range []struct {
		*steer.Reply
		now  uint32
		want bool
	}{
		{reply(), 149, false}, {reply(), 150, true}, {reply(), 249, true}, {reply(), 250, false},
		{reply("192.0.2.1", "192.0.2.2"), 150, true}, {reply("192.0.2.1"), 150, false}, {slower, 150, false},
		{reply("192.0.2.1", "192.0.2.3"), 150, false}, {reply("192.0.2.2"), 150, false},
	} {
		if got := k.get(test.Reply, test.now) != nil; got != test.want {
			t.Errorf("%v at %d: %v", test.Addrs, test.now, got)
		}
	}
}

// The rate of answers that say that a name is not there is limited together,
// with signatures too, where each is another.
func TestSignedDenialsAreOneForTheLimit(t *testing.T) {
	s, address, _ := start(t, Config{RateLimit: RateLimit{Responses: 5, Slip: 1}})
	if err := s.Sign("edge.example", combined(t, dnssec.Ed25519)); err != nil {
		t.Fatal(err)
	}
	truncated := 0
	for i := range 30 {
		if exchange(t, "udp", address, secureAsker(fmt.Sprintf("no%d.edge.example", i), dns.TypeA)).Truncated {
			truncated++
		}
	}
	if truncated < 10 {
		t.Errorf("%d of 30 limited", truncated)
	}
}

// Names at the bounds of what a name can be have others beside them.
func TestNamesBeside(t *testing.T) {
	zones, err := loadZones(testZones())
	if err != nil {
		t.Fatal(err)
	}
	z := zones[wire(t, "edge.example")]
	s := &signing{z: z, v: &view{zones: zones}}
	long := strings.Repeat("l", maxLabel)
	full := func(first string) name { // of 255 octets
		n := z.name
		for len(n)+1+maxLabel <= maxName-1-len(first) {
			n = labelled(long, n)
		}
		if room := maxName - 1 - len(first) - len(n); room > 1 {
			n = labelled(strings.Repeat("m", room-1), n)
		}
		return labelled(first, n)
	}
	names := []name{
		"\x01a" + z.name, "\x01\x00" + z.name, "\x02a\x00" + z.name, "\x02\x00\x00" + z.name, "\x01[" + z.name, "\x01@" + z.name, "\x01\xff" + z.name,
		labelled(long, z.name), labelled(strings.Repeat("\xff", maxLabel), z.name), labelled(strings.Repeat("l", maxLabel-1)+"@", z.name),
		full("a"), full("a\x00"), full("\x00"), full("\xff"), full("@"), full("z\xff\xff"), full("ab"),
	}
	for _, n := range names {
		if len(n) > maxName {
			t.Fatalf("%d octets", len(n))
		}
		before, next, after := s.before(n), n.successor(z.name), n.nextSibling(z.name)
		for _, each := range []name{before, next, after} {
			if _, _, err := dns.UnpackDomainName([]byte(each), 0); err != nil || len(each) > maxName || !each.under(z.name) || lower([]byte(each)) != each {
				t.Errorf("beside %s: %q, %v", n, each, err)
			}
		}
		if compare(before, n) >= 0 || compare(n, next) >= 0 && next != z.name || compare(n, after) >= 0 && after != z.name {
			t.Errorf("%s: before %s, next %s, after %s", n, before, next, after)
		}
		if len(n)+4 <= maxName && after != z.name && compare(labelled("zz\xff", n), after) >= 0 {
			t.Errorf("%s is not after the names below %s", after, n)
		}
	}
	if !slices.Equal([]name{s.before("\x05small" + z.name)[:6], ("\x05small" + z.name).successor(z.name), ("\x05small" + z.name).nextSibling(z.name)},
		[]name{"\x3fsmalk", "\x01\x00\x05small" + z.name, "\x06small\x00" + z.name}) {
		t.Error("small is not between its neighbors")
	}
}
