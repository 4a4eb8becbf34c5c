package gslb

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// withSubnet is a query for a name with raw data in a client subnet option.
func withSubnet(name string, options ...[]byte) *dns.Msg {
	q := asker(name, dns.TypeA)
	q.SetEdns0(1232, false)
	for _, data := range options {
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: data})
	}
	return q
}

// subnet is the data of a client subnet option for a prefix.
func subnet(prefix string) []byte {
	p := netip.MustParsePrefix(prefix)
	family := byte(1)
	if p.Addr().Is6() {
		family = 2
	}
	return append([]byte{0, family, byte(p.Bits()), 0}, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
}

// rawSubnet is the data of the client subnet option in an answer, nil without
// one. It is read without the library, which has an opinion on the content.
func rawSubnet(t testing.TB, msg []byte) []byte {
	t.Helper()
	count := func(off int) int { return int(binary.BigEndian.Uint16(msg[off:])) }
	off := 12
	for range count(4) {
		off = skipName(msg, off) + 4
	}
	for range count(6) + count(8) + count(10) {
		off = skipName(msg, off) + 10
		data := msg[off : off+count(off-2)]
		off += len(data)
		if count(off-len(data)-10) != int(dns.TypeOPT) {
			continue
		}
		for len(data) > 0 {
			code, length := binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
			if code == dns.EDNS0SUBNET {
				return data[4 : 4+length]
			}
			data = data[4+length:]
		}
	}
	return nil
}

func TestClientSubnet(t *testing.T) {
	const fra, iad = "192.0.2.1", "192.0.2.2"
	v := testView(t)
	tests := []struct {
		about, name, from string
		subnet            []byte
		address           string // "" for a lot, or none
		scope             byte
	}{
		{"Europe", "www", "203.0.113.1", subnet("198.51.100.0/24"), fra, 24},
		{"America", "www", "198.51.100.1", subnet("203.0.113.0/24"), iad, 24},
		{"America over IPv6", "www", "198.51.100.1", subnet("2001:db8:a:b00::/56"), iad, 48},
		{"longer than the network", "www", "203.0.113.1", subnet("198.51.100.77/32"), fra, 24},
		{"shorter than the network", "www", "198.51.100.1", subnet("203.0.112.0/20"), "", 24},
		{"a whole network shorter than the scope", "www", "198.51.100.1", subnet("126.0.0.0/7"), "", 8},
		{"in no network", "www", "198.51.100.1", subnet("8.8.8.0/24"), "", 2},
		{"private", "www", "198.51.100.1", subnet("10.1.2.0/24"), "", 2},
		{"not on the Internet at all", "www", "198.51.100.1", subnet("240.0.0.1/32"), "", 3},
		{"mapped", "www", "198.51.100.1", subnet("::ffff:198.51.100.1/128"), "", 3},
		{"nothing said", "www", "198.51.100.1", subnet("0.0.0.0/0"), "", 0},
		{"nothing said over IPv6", "www", "198.51.100.1", subnet("::/0"), "", 0},
		{"nothing said of no family", "www", "198.51.100.1", []byte{0, 0, 0, 0}, "", 0},
		{"failover", "first", "198.51.100.1", subnet("203.0.113.0/24"), fra, 0},
		{"not steered", "mail", "198.51.100.1", subnet("203.0.113.0/24"), "192.0.2.25", 0},
		{"no name", "nope", "198.51.100.1", subnet("203.0.113.0/24"), "", 0},
		{"through an alias", "steered", "198.51.100.1", subnet("203.0.113.0/24"), iad, 24},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			wire, err := withSubnet(tt.name+".edge.example", tt.subnet).Pack()
			if err != nil {
				t.Fatal(err)
			}
			seen := make(map[string]bool)
			for random := range uint64(20) {
				out := v.respond(request{msg: wire, from: netip.MustParseAddr(tt.from), random: random})
				got := unpack(t, out.msg)
				want := bytes.Clone(tt.subnet)
				want[3] = tt.scope
				if raw := rawSubnet(t, out.msg); !bytes.Equal(raw, want) {
					t.Fatalf("option %x, want %x", raw, want)
				}
				for _, rr := range got.Answer {
					if a, ok := rr.(*dns.A); ok {
						seen[a.A.String()] = true
					}
				}
			}
			if tt.address != "" && (len(seen) != 1 || !seen[tt.address]) {
				t.Errorf("got %v, want %s", seen, tt.address)
			}
			if tt.address == "" && tt.name == "www" && len(seen) != 2 {
				t.Errorf("got %v, want a lot", seen)
			}
		})
	}
}

// Addresses of either family depend on where a client of either family is; nothing
// else does, and the option comes back with every kind of answer.
func TestClientSubnetWithOtherTypes(t *testing.T) {
	v := testView(t)
	for _, tt := range []struct {
		name   string
		qtype  uint16
		subnet string
		scope  byte
		rcode  int
		tc     bool
		answer string // "" for none
	}{
		{"www", dns.TypeAAAA, "198.51.100.0/24", 24, dns.RcodeSuccess, false, "2001:db8::1"},
		{"www", dns.TypeAAAA, "2001:db8:a::/48", 48, dns.RcodeSuccess, false, "2001:db8::2"},
		{"www", dns.TypeA, "2001:db8:a::/48", 48, dns.RcodeSuccess, false, "192.0.2.2"},
		{"www", dns.TypeTXT, "198.51.100.0/24", 0, dns.RcodeSuccess, false, ""},
		{"www", dns.TypeANY, "198.51.100.0/24", 0, dns.RcodeSuccess, false, ""},
		{"v4only", dns.TypeAAAA, "198.51.100.0/24", 0, dns.RcodeSuccess, false, ""},
		{"x.child", dns.TypeA, "198.51.100.0/24", 0, dns.RcodeSuccess, false, ""}, // a referral
		{"large", dns.TypeTXT, "198.51.100.0/24", 0, dns.RcodeSuccess, true, ""},
		{"nope", dns.TypeAAAA, "2001:db8:a::/48", 0, dns.RcodeNameError, false, ""},
		{"www.elsewhere", dns.TypeAXFR, "198.51.100.0/24", 0, dns.RcodeRefused, false, ""},
	} {
		q := withSubnet(tt.name+".edge.example", subnet(tt.subnet))
		q.Question[0].Qtype = tt.qtype
		wire, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out := v.respond(request{msg: wire, from: netip.MustParseAddr("203.0.113.1")})
		got := unpack(t, out.msg)
		want := subnet(tt.subnet)
		want[3] = tt.scope
		if raw := rawSubnet(t, out.msg); !bytes.Equal(raw, want) || got.Rcode != tt.rcode || got.Truncated != tt.tc {
			t.Errorf("%s %s for %s: option %x, want %x: %v", tt.name, dns.Type(tt.qtype), tt.subnet, raw, want, got)
		}
		address := ""
		for _, rr := range got.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				address = rr.A.String()
			case *dns.AAAA:
				address = rr.AAAA.String()
			}
		}
		if address != tt.answer {
			t.Errorf("%s %s for %s: %s, want %q", tt.name, dns.Type(tt.qtype), tt.subnet, address, tt.answer)
		}
	}
}

func TestWithoutSubnetTheResolverIsTheClient(t *testing.T) {
	v := testView(t)
	for from, want := range map[string]string{"198.51.100.1": "192.0.2.1", "203.0.113.1": "192.0.2.2", "2001:db8:a::1": "192.0.2.2"} {
		for _, q := range []*dns.Msg{asker("www.edge.example", dns.TypeA), withSubnet("www.edge.example")} {
			got := ask(t, v, q, from, false)
			if len(got.Answer) != 1 || got.Answer[0].(*dns.A).A.String() != want {
				t.Errorf("from %s: got %v, want %s", from, got.Answer, want)
			}
			if opt := got.IsEdns0(); opt != nil && len(opt.Option) != 0 {
				t.Errorf("options %v in the answer to a query without", opt.Option)
			}
		}
	}
}

func TestMalformedSubnetIsRefused(t *testing.T) {
	v := testView(t)
	for about, options := range map[string][][]byte{
		"empty":                        {{}},
		"three octets":                 {{0, 1, 0}},
		"unknown family":               {{0, 3, 8, 0, 10}},
		"unknown family, length zero":  {{0, 3, 0, 0}},
		"no family, but a length":      {{0, 0, 8, 0, 10}},
		"no family, but an address":    {{0, 0, 0, 0, 10}},
		"scope in a query":             {{0, 1, 24, 24, 198, 51, 100}},
		"too few octets":               {{0, 1, 24, 0, 198, 51}},
		"too many octets":              {{0, 1, 24, 0, 198, 51, 100, 0}},
		"IPv4 too long":                {{0, 1, 33, 0, 198, 51, 100, 1, 0}},
		"IPv6 too long":                {append([]byte{0, 2, 129, 0}, make([]byte, 17)...)},
		"bits beyond the length":       {{0, 1, 23, 0, 198, 51, 101}},
		"bits beyond the length, IPv6": {{0, 2, 33, 0, 0x20, 1, 0xd, 0xb8, 0xff}},
		"two options":                  {subnet("10.0.0.0/8"), subnet("10.0.0.0/8")},
	} {
		wire, err := withSubnet("www.edge.example", options...).Pack()
		if err != nil {
			t.Fatal(err)
		}
		out := v.respond(request{msg: wire, from: netip.MustParseAddr("192.0.2.1")})
		got := unpack(t, out.msg)
		if got.Rcode != dns.RcodeFormatError || len(got.Answer) != 0 || got.IsEdns0() == nil || len(got.IsEdns0().Option) != 0 || len(got.Question) != 1 {
			t.Errorf("%s: %v", about, got)
		}
	}
}
