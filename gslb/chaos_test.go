package gslb

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

func TestServerIdentity(t *testing.T) {
	v, err := newView(nil, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		nsid, name    string
		qtype, qclass uint16
		rcode         int
		want          string
	}{
		{"fra-1", "id.server.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeSuccess, `id.server.	0	CH	TXT	"fra-1"`},
		{"fra-1", "Hostname.Bind.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeSuccess, `Hostname.Bind.	0	CH	TXT	"fra-1"`},
		{`a\b"c`, "id.server.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeSuccess, `id.server.	0	CH	TXT	"a\\b\"c"`},
		{"", "id.server.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeRefused, ""},
		{"fra-1", "id.server.", dns.TypeTXT, dns.ClassINET, dns.RcodeRefused, ""},
		{"fra-1", "id.server.", dns.TypeA, dns.ClassCHAOS, dns.RcodeRefused, ""},
		{"fra-1", "version.bind.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeRefused, ""},
		{"fra-1", "version.server.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeRefused, ""},
	} {
		v.identity.set(tt.nsid, nil)
		q := new(dns.Msg)
		q.SetQuestion(tt.name, tt.qtype)
		q.Question[0].Qclass = tt.qclass
		msg, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out := v.respond(request{msg: msg, from: netip.MustParseAddr("192.0.2.1")})
		var r dns.Msg
		if err := r.Unpack(out.msg); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got := ""
		if len(r.Answer) > 0 {
			got = r.Answer[0].String()
		}
		if r.Rcode != tt.rcode || got != tt.want || r.Authoritative != (tt.rcode == dns.RcodeSuccess) {
			t.Errorf("%s %s with NSID %q: %v, want %q", tt.name, dns.Class(tt.qclass), tt.nsid, &r, tt.want)
		}
	}
}
