package gslb

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// signedAt is the time at which the tests ask, in Unix seconds.
const signedAt = 1_790_000_000

func newKey(t testing.TB, flags uint16, algorithm uint8) *dnssec.Key {
	t.Helper()
	k := &dnssec.Key{Flags: flags, Algorithm: algorithm}
	switch algorithm {
	case dnssec.ECDSAP256SHA256:
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k.Signer, k.Public = private, point[1:] // without the octet that says that it is not compressed
	case dnssec.Ed25519:
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k.Signer, k.Public = private, public
	}
	return k
}

// split are keys of which one signs the other.
func split(t testing.TB, algorithm uint8) *dnssec.KeySet {
	entry, zone := newKey(t, dnssec.SecureEntryPoint, algorithm), newKey(t, dnssec.ZoneKey, algorithm)
	return &dnssec.KeySet{
		Published: []*dnssec.Key{entry, zone}, Zone: []*dnssec.Key{zone},
		Entry: []*dnssec.Key{entry}, Parent: []*dnssec.Key{entry},
	}
}

// combined is one key for all.
func combined(t testing.TB, algorithm uint8) *dnssec.KeySet {
	all := []*dnssec.Key{newKey(t, dnssec.SecureEntryPoint, algorithm)}
	return &dnssec.KeySet{Published: all, Zone: all, Entry: all}
}

// signedView is testView with all zones signed.
func signedView(t testing.TB, how Signing) *view {
	t.Helper()
	return signed(t, testView(t), how)
}

// signed signs the zones of a view.
func signed(t testing.TB, v *view, how Signing) *view {
	t.Helper()
	zones := make(map[name]*zone)
	cache := newSignatures(newMetrics(nil))
	for n, z := range v.zones {
		each := *z
		var err error
		if each.signer, err = newSigner(n, how.Keys, how, cache); err != nil {
			t.Fatal(err)
		}
		zones[n] = &each
	}
	next, err := newView(zones, v.table, v.aliased, v)
	if err != nil {
		t.Fatal(err)
	}
	next.identity = v.identity
	return next
}

// secureAsker builds a query that asks for signatures.
func secureAsker(name string, qtype uint16) *dns.Msg {
	m := asker(name, qtype)
	m.SetEdns0(1232, true)
	return m
}

// askSecure asks a view over TCP, for signatures, at a time.
func askSecure(t testing.TB, v *view, q *dns.Msg, now uint32) *dns.Msg {
	t.Helper()
	if q.IsEdns0() == nil {
		q = q.Copy()
		q.SetEdns0(1232, true)
	}
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, v.respond(request{msg: wire, from: netip.MustParseAddr("203.0.113.1"), tcp: true, random: 3, now: now}).msg)
}

// questions are of every name of a view, and of some beside and below it, for
// types of every kind.
func questions(v *view) (all []dns.Question) {
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeDS,
		dns.TypeCNAME, dns.TypeDNAME, dns.TypeHTTPS, dns.TypeANY, dns.TypeDNSKEY, sample}
	for n := range v.entries {
		text := n.String()
		for _, each := range []string{text, "x." + text, "x.y." + text, "*." + text, "x.*." + text, `\000.` + text, `a\000.` + text, `\[` + text, `*x.` + text} {
			if len(each)-len(text) > 0 && len(n) > 240 {
				continue
			}
			for _, qtype := range types {
				all = append(all, dns.Question{Name: each, Qtype: qtype, Qclass: dns.ClassINET})
			}
		}
	}
	slices.SortFunc(all, func(a, b dns.Question) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Qtype, b.Qtype)) })
	return all
}

func TestSignedAnswersValidate(t *testing.T) {
	for i, test := range []struct {
		about string
		Signing
	}{
		{"compact, ECDSA", Signing{Keys: split(t, dnssec.ECDSAP256SHA256)}},
		{"compact, Ed25519", Signing{Keys: combined(t, dnssec.Ed25519)}},
		{"NSEC3, ECDSA", Signing{Keys: combined(t, dnssec.ECDSAP256SHA256), Denial: NSEC3}},
		{"NSEC3, Ed25519", Signing{Keys: split(t, dnssec.Ed25519), Denial: NSEC3}},
	} {
		t.Run(test.about, func(t *testing.T) {
			v := signedView(t, test.Signing)
			asked := 0
			r := newResolver(t, v, signedAt)
			for j, question := range questions(v) {
				// Of the questions for names that are not there each has an eighth,
				// others than the next: verifying takes its time.
				n := wire(t, question.Name)
				if v.zoneOf(n) == nil || v.entries[n] == nil && (i+j)%8 != 0 {
					continue
				}
				asked++
				q := asker(question.Name, question.Qtype)
				r.validate(question, ask(t, v, q, "203.0.113.1", true), askSecure(t, v, q, signedAt))
				if t.Failed() {
					t.Fatalf("%s %s:\n%v", question.Name, dns.Type(question.Qtype), askSecure(t, v, q, signedAt))
				}
			}
			t.Logf("%d questions", asked)
		})
	}
}

// Addresses beside a referral have signatures if they are the zone's to give.
func TestAdditionalSignatures(t *testing.T) {
	zones := testZones()
	zones[1].Text += "@ 300 A 192.0.2.98\nns 300 A 192.0.2.53\nns 300 AAAA 2001:db8::53\nother 300 NS ns.other\nns.other 300 A 192.0.2.54\n" +
		"child 300 NS ns.child\nchild 300 NS apex.example.\nchild 300 NS ns\nchild 300 NS ns.other\nns.child 300 A 192.0.2.55\n"
	loaded, err := loadZones(zones)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := newView(loaded, table(t, steering()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := signed(t, plain, Signing{Keys: combined(t, dnssec.Ed25519)})
	got := askSecure(t, v, asker("child.apex.example", dns.TypeA), signedAt)
	var have []string
	newResolver(t, v, signedAt).section(got.Extra[:len(got.Extra)-1], func(set []dns.RR, labels int) {
		have = append(have, fmt.Sprintf("%s %s %v", set[0].Header().Name, dns.Type(set[0].Header().Rrtype), labels >= 0))
	})
	slices.Sort(have)
	if want := []string{"apex.example. A false", "ns.apex.example. A true", "ns.apex.example. AAAA true", "ns.child.apex.example. A false", "ns.other.apex.example. A false"}; !slices.Equal(have, want) {
		t.Errorf("%v, want %v", have, want)
	}
}
