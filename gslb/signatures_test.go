package gslb

import (
	"bytes"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// Signatures are the same on all servers, change long before they end, and at
// other times for other names.
func TestSignaturesAreRenewed(t *testing.T) {
	how := Signing{Keys: combined(t, dnssec.ECDSAP256SHA256), Validity: 8 * 24 * time.Hour}
	one, two := signedView(t, how), signedView(t, how)
	renewed := make(map[string]uint32)
	for _, n := range []string{"mail", "ns1", "a.b.deep", "host.new"} {
		var last []byte
		count := 0
		const step = 3600
		for now := uint32(signedAt); now < signedAt+8*24*3600; now += step {
			q := asker(n+".edge.example", dns.TypeA)
			got, other := askSecure(t, one, q, now), askSecure(t, two, q, now)
			a, _ := got.Pack()
			b, _ := other.Pack()
			if !bytes.Equal(a[2:], b[2:]) {
				t.Fatalf("%v\n%v", got, other)
			}
			newResolver(t, one, now).validate(q.Question[0], ask(t, one, q, "203.0.113.1", true), got)
			for _, rr := range slices.Concat(got.Answer, got.Ns) {
				if sig, ok := rr.(*dns.RRSIG); ok && sig.Expiration-now < 6*24*3600 {
					t.Fatalf("near its end: %v", sig)
				}
			}
			if last != nil && !bytes.Equal(a[2:], last) {
				if count++; count == 1 {
					renewed[n] = now
				}
			}
			last = a[2:]
		}
		if count < 3 || count > 8 {
			t.Errorf("%s: renewed %d times in four terms", n, count)
		}
	}
	if all := slices.Sorted(func(yield func(uint32) bool) {
		for _, at := range renewed {
			if !yield(at) {
				return
			}
		}
	}); all[0] == all[len(all)-1] {
		t.Errorf("all renewed at once: %v", renewed)
	}
}

// The fast path gives the signatures of the time that it is asked at.
func TestPackedSignaturesAreRenewed(t *testing.T) {
	v := signedView(t, Signing{Keys: combined(t, dnssec.Ed25519), Validity: 4 * time.Hour})
	for _, q := range []*dns.Msg{secureAsker("mail.edge.example", dns.TypeAAAA), secureAsker("hop.edge.example", dns.TypeA), secureAsker("www.edge.example", dns.TypeA)} {
		msg, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for now := uint32(signedAt); now < signedAt+4*3600; now += 60 {
			req := request{msg: msg, from: netip.MustParseAddr("203.0.113.1"), now: now}
			var read fastQuery
			fast, _, ok := v.respondFast(&read, req, make([]byte, 0, udpPayload))
			if slow := v.respond(req).msg; !ok || !bytes.Equal(fast, slow) {
				t.Fatalf("%d:\nfast %v %x\nslow %x", now, ok, fast, slow)
			}
			seen[string(fast)] = true
		}
		if len(seen) < 4 {
			t.Errorf("%v: %d answers in four terms", q.Question, len(seen))
		}
	}
}

func TestTerms(t *testing.T) {
	for _, test := range []struct{ a, b, want term }{
		{term{}, term{1, 2}, term{1, 2}},
		{term{100, 200}, term{150, 250}, term{150, 200}},
		{term{100, 200}, term{120, 130}, term{120, 130}},
		{term{math.MaxUint32 - 5, 20}, term{math.MaxUint32 - 2, 10}, term{math.MaxUint32 - 2, 10}}, // RFC 1982
	} {
		if one, other := test.a.both(test.b), test.b.both(test.a); one != test.want || other != test.want {
			t.Errorf("%v and %v: %v, %v", test.a, test.b, one, other)
		}
	}
	if late := (term{math.MaxUint32 - 5, 20}); !late.at(math.MaxUint32) || !late.at(3) || late.at(20) || late.at(math.MaxUint32-6) {
		t.Error("times go around")
	}
}
