package gslb

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// The record that stands for all others is in no cache for longer than those may
// be.
func TestMadeUpRecordHeedsTheLongestTTL(t *testing.T) {
	zones := testZones()
	zones[1].Signing.MaxTTL = 10 * time.Minute
	loaded, err := loadZones(zones)
	if err != nil {
		t.Fatal(err)
	}
	v, err := newView(loaded, table(t, steering()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, v, asker("apex.example", dns.TypeANY), "203.0.113.1", true); text(got.Answer) != `apex.example. 600 HINFO "RFC8482" ""` {
		t.Errorf("%v", got)
	}
}

// Who can take NXDOMAIN with a compact denial gets it (RFC 9824 section 5).
func TestCompactRestoresTheRcode(t *testing.T) {
	v := signedView(t, Signing{Keys: combined(t, dnssec.Ed25519)})
	q := asker("nope.edge.example", dns.TypeA)
	q.SetEdns0(1232, true)
	q.IsEdns0().SetCo()
	got := askSecure(t, v, q, signedAt)
	if got.Rcode != dns.RcodeNameError || !got.IsEdns0().Co() || !strings.Contains(text(got.Ns), `nope.edge.example. 60 NSEC \000.nope.edge.example. RRSIG NSEC NXNAME`) {
		t.Errorf("%v", got)
	}
	q = asker("mail.edge.example", dns.TypeAAAA)
	q.SetEdns0(1232, true)
	q.IsEdns0().SetCo()
	if got = askSecure(t, v, q, signedAt); got.Rcode != dns.RcodeSuccess || !strings.Contains(text(got.Ns), `mail.edge.example. 60 NSEC \000.mail.edge.example. A RRSIG NSEC`) {
		t.Errorf("%v", got)
	}
}

// NSEC and RRSIG are there for who asks, though no zone file has them.
func TestExplicitQuestions(t *testing.T) {
	for _, denial := range []Denial{Compact, NSEC3} {
		v := signedView(t, Signing{Keys: combined(t, dnssec.Ed25519), Denial: denial})
		got := askSecure(t, v, asker("mail.edge.example", dns.TypeRRSIG), signedAt)
		if len(got.Answer) != 1 || got.Answer[0].Header().Rrtype != dns.TypeRRSIG {
			t.Errorf("RRSIG: %v", got)
		}
		got = askSecure(t, v, asker("mail.edge.example", dns.TypeNSEC), signedAt)
		if denial == Compact && text(got.Answer[:1]) != `mail.edge.example. 60 NSEC \000.mail.edge.example. A RRSIG NSEC` || denial == NSEC3 && len(got.Answer) != 0 {
			t.Errorf("NSEC: %v", got)
		}
	}
}

// What a denial costs for a name that was asked for before, and for one that is
// made up.
func BenchmarkDenial(b *testing.B) {
	for about, how := range map[string]Signing{
		"compact, ECDSA":   {Keys: combined(b, dnssec.ECDSAP256SHA256)},
		"compact, Ed25519": {Keys: combined(b, dnssec.Ed25519)},
		"NSEC3, ECDSA":     {Keys: combined(b, dnssec.ECDSAP256SHA256), Denial: NSEC3},
	} {
		v := signedView(b, how)
		made := 0
		for kind, next := range map[string]func() string{
			"again":   func() string { return "nope.edge.example" },
			"made up": func() string { made++; return fmt.Sprintf("x%d.edge.example", made) },
		} {
			b.Run(about+", "+kind, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					msg, err := secureAsker(next(), dns.TypeA).Pack()
					if err != nil {
						b.Fatal(err)
					}
					v.respond(request{msg: msg, from: netip.MustParseAddr("203.0.113.1"), now: signedAt})
				}
			})
		}
	}
}
