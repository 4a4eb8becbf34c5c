package gslb

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// Answer is what a server answered to [Lookup].
type Answer struct {
	Addresses []netip.Addr
	// Scope is the ECS scope that came back; -1 if there was none.
	Scope int
	TTL   time.Duration
}

// Lookup asks one server over UDP for the addresses of a name in one family, as
// a resolver would on behalf of a client network of either (RFC 7871). It is for
// tests and tools: it neither retries nor falls back to TCP.
func Lookup(ctx context.Context, server netip.AddrPort, name string, family steer.Family, client netip.Prefix) (Answer, error) {
	qtype := dns.TypeA
	if family == steer.IPv6 {
		qtype = dns.TypeAAAA
	}
	clientFamily := uint16(1) // IANA's address family numbers
	if client.Addr().Is6() {
		clientFamily = 2
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	opt := q.IsEdns0()
	opt.Option = append(opt.Option, &dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: clientFamily,
		SourceNetmask: uint8(client.Bits()), Address: client.Masked().Addr().AsSlice(),
	})
	c := dns.Client{Net: "udp"}
	r, _, err := c.ExchangeContext(ctx, q, server.String())
	if err != nil {
		return Answer{}, err
	}
	if r.Rcode != dns.RcodeSuccess {
		return Answer{}, fmt.Errorf("%s: %s", name, dns.RcodeToString[r.Rcode])
	}
	a := Answer{Scope: -1}
	for _, rr := range r.Answer {
		var raw []byte
		switch rr := rr.(type) {
		case *dns.A:
			raw = rr.A.To4()
		case *dns.AAAA:
			raw = rr.AAAA
		}
		if addr, ok := netip.AddrFromSlice(raw); ok {
			a.Addresses = append(a.Addresses, addr)
			a.TTL = time.Duration(rr.Header().Ttl) * time.Second
		}
	}
	if opt := r.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if s, ok := o.(*dns.EDNS0_SUBNET); ok {
				a.Scope = int(s.SourceScope)
			}
		}
	}
	return a, nil
}
