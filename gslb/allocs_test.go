//go:build !race

package gslb

import (
	"net/netip"
	"testing"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

func TestFastPathDoesNotAllocate(t *testing.T) {
	v := signedView(t, Signing{Keys: split(t, dnssec.ECDSAP256SHA256)})
	for _, q := range []*dns.Msg{
		withSubnet("www.edge.example", subnet("203.0.113.0/24")),
		asker("foo.any.edge.example", dns.TypeAAAA),
		asker("steered.edge.example", dns.TypeA),
		asker("mail.edge.example", dns.TypeA),
		asker("a.b.nope.edge.example", dns.TypeA),
		asker("x.child.edge.example", dns.TypeTXT),
		asker("www.elsewhere.example", dns.TypeA),
		secureAsker("www.edge.example", dns.TypeA),
		secureAsker("mail.edge.example", dns.TypeA),
		secureAsker("mail.edge.example", dns.TypeAAAA),
		secureAsker("steered.edge.example", dns.TypeAAAA),
		secureAsker("edge.example", dns.TypeDNSKEY),
		secureAsker("child.edge.example", dns.TypeA),
	} {
		wire, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var read fastQuery
		buf := make([]byte, 0, udpPayload)
		req := request{msg: wire, from: netip.MustParseAddr("198.51.100.1")}
		if n := testing.AllocsPerRun(100, func() {
			if _, _, ok := v.respondFast(&read, req, buf); !ok {
				t.Errorf("%s is not on the fast path", q.Question[0].Name)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", q.Question[0].Name, n)
		}
	}
}
