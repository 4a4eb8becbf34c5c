package gslb

import (
	"net/netip"
	"slices"
	"time"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// result is what the zones and the steering have to say to a question.
type result struct {
	rcode         int
	authoritative bool
	answer        []dns.RR
	authority     []dns.RR
	additional    []dns.RR
	// needed is how many of the additional records an answer cannot do without.
	needed    int
	truncated bool
	// steered is the decision that the answer came from, if there was one.
	steered *steer.Reply
	// secure is set if a signed zone has a part in it: with signatures, it is
	// another. term is that of all signatures that it has, and unsigned is set if
	// one could not be made.
	secure   bool
	term     term
	unsigned bool
}

// maxChain bounds the aliases that one answer follows.
const maxChain = 16

// anyTTL is the TTL of the answer to queries for every type. Nothing in it ever
// changes.
const anyTTL = 3600

// resolve answers a question of class IN: RFC 1034 section 4.3.2 for what the
// zones say, RFC 4592 for wildcards, RFC 6672 for DNAME, RFC 2308 for negative
// answers, RFC 4035 section 3.1 for what signed zones add to that. random decides
// lots, and now, in Unix seconds, the times of signatures.
func (v *view) resolve(q *query, client netip.Prefix, random uint64, now uint32) result {
	r := result{rcode: dns.RcodeSuccess, authoritative: true}
	owner, n := q.name.String(), q.name
	seen := make([]name, 0, 4)
	for range maxChain {
		z := v.zoneFor(n, q.qtype)
		if z == nil {
			if len(seen) == 0 {
				r.rcode, r.authoritative = dns.RcodeRefused, false
			}
			return r // an alias to elsewhere is for the resolver to follow
		}
		if z.unavailable {
			return result{rcode: dns.RcodeServerFailure}
		}
		m := z.find(n, v.over, q.qtype == dns.TypeDS)
		s := v.signing(&r, z, q, n, m, now)
		var target string
		switch m.outcome {
		case noSuchName:
			r.rcode = dns.RcodeNameError // of the last name of a chain, RFC 6604
			if !s.explicit(q.qtype, owner) {
				r.authority = append(r.authority, z.negative)
				s.deny(q.qtype, z.negative.Hdr.Ttl)
			}
			return r
		case delegated:
			servers := m.node.get(dns.TypeNS)
			r.authoritative = len(seen) > 0
			r.authority = append(r.authority, servers...)
			r.additional, r.needed = z.glue(m.owner, servers)
			s.delegate()
			return r
		case redirected:
			set := m.node.get(dns.TypeDNAME)
			dname := set[0].(*dns.DNAME)
			r.answer = s.signed(append(r.answer, dname), set, dname.Hdr.Name)
			var ok bool
			if target, ok = substitute(n, m.owner, dname.Target); !ok {
				r.rcode = dns.RcodeYXDomain
				return r
			}
			r.answer = append(r.answer, &dns.CNAME{
				Hdr:    dns.RR_Header{Name: owner, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: dname.Hdr.Ttl},
				Target: target,
			})
			if q.qtype == dns.TypeCNAME || q.qtype == dns.TypeANY {
				return r
			}
		case found:
			alias := m.node.get(dns.TypeCNAME)
			if alias == nil || z.presigned != nil && ofSigning(q.qtype) {
				v.answerAt(&r, z, m, q.qtype, owner, client, random, s)
				return r
			}
			if s.explicit(q.qtype, owner) {
				return r
			}
			r.answer = s.signed(append(r.answer, owned(alias, owner)...), alias, owner)
			s.denyExact()
			if q.qtype == dns.TypeCNAME || q.qtype == dns.TypeANY {
				return r
			}
			target = alias[0].(*dns.CNAME).Target
		}
		seen = append(seen, n)
		next, err := parseName(target)
		if err != nil || slices.Contains(seen, next) {
			return r // a loop ends where it closes
		}
		owner, n = target, next
	}
	return r
}

// answerAt adds what is at a name that exists and is no alias.
func (v *view) answerAt(r *result, z *zone, m match, qtype uint16, owner string, client netip.Prefix, random uint64, s *signing) {
	steered := v.over[m.owner]
	switch {
	case qtype == dns.TypeANY:
		// RFC 8482 section 4.2: one made-up record stands for all there are.
		if z.presigned != nil {
			if set := m.node.one(); set != nil {
				r.answer = s.signed(append(r.answer, owned(set, owner)...), set, owner)
				s.denyExact()
				return
			}
			break
		}
		if steered != "" || m.node != nil && len(m.node.sets) > 0 {
			ttl := uint32(anyTTL)
			if limit := z.signing.MaxTTL; limit > 0 {
				ttl = min(ttl, uint32(limit/time.Second)) // rollovers of keys count on it
			}
			set := []dns.RR{&dns.HINFO{
				Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: ttl},
				Cpu: "RFC8482",
			}}
			r.answer = s.signed(append(r.answer, set...), set, owner)
			return
		}
	case steered != "" && (qtype == dns.TypeA || qtype == dns.TypeAAAA):
		reply, _ := v.table.Answer(steer.Query{Name: steered, Family: family(qtype), Client: client, Random: random})
		r.steered = &reply
		ttl := uint32(reply.TTL / time.Second)
		if len(reply.Addrs) > 0 {
			r.answer = append(r.answer, addresses(reply.Addrs, owner, qtype, ttl)...)
			if s != nil {
				r.answer = s.signed(r.answer, addresses(reply.Addrs, m.owner.String(), qtype, ttl), owner)
				s.denyExact()
			}
			return
		}
		// That there is no address may end as soon as any decision may.
		negative := dns.Copy(z.negative)
		negative.Header().Ttl = min(negative.Header().Ttl, ttl)
		r.authority = append(r.authority, negative)
		s.deny(qtype, negative.Header().Ttl)
		return
	case (qtype == dns.TypeA || qtype == dns.TypeAAAA) && v.isAlias(z, m.owner):
		v.answerAlias(r, z, qtype, owner, s)
		return
	default:
		set := z.get(m, qtype)
		if z.presigned != nil && qtype == dns.TypeRRSIG {
			set = m.node.signatures()
		}
		if set != nil {
			r.answer = s.signed(append(r.answer, owned(set, owner)...), set, owner)
			s.denyExact()
			return
		}
		if s.explicit(qtype, owner) {
			return
		}
	}
	r.authority = append(r.authority, z.negative)
	s.deny(qtype, z.negative.Hdr.Ttl)
}

// family is that of the addresses that A or AAAA records have.
func family(qtype uint16) steer.Family {
	if qtype == dns.TypeAAAA {
		return steer.IPv6
	}
	return steer.IPv4
}

// addresses returns the A or AAAA records of a steered name.
func addresses(addrs []netip.Addr, owner string, rtype uint16, ttl uint32) []dns.RR {
	records := make([]dns.RR, len(addrs))
	h := dns.RR_Header{Name: owner, Rrtype: rtype, Class: dns.ClassINET, Ttl: ttl}
	for i, a := range addrs {
		if rtype == dns.TypeA {
			records[i] = &dns.A{Hdr: h, A: a.AsSlice()}
		} else {
			records[i] = &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}
		}
	}
	return records
}

// owned returns records as those of the name asked for, which those of a
// wildcard are not by themselves.
func owned(records []dns.RR, owner string) []dns.RR {
	if records[0].Header().Name == owner {
		return records
	}
	copies := make([]dns.RR, len(records))
	for i, rr := range records {
		copies[i] = dns.Copy(rr)
		copies[i].Header().Name = owner
	}
	return copies
}

// substitute replaces the end of a name, from, by a DNAME's target. It fails if
// the result is too long.
func substitute(n, from name, target string) (string, bool) {
	to, err := parseName(target)
	if err != nil {
		return "", false
	}
	result := n[:len(n)-len(from)] + to
	if len(result) > 255 {
		return "", false
	}
	return result.String(), true
}
