package gslb

import (
	"slices"

	"github.com/miekg/dns"
)

// signing adds to a result what it has because a zone is signed. A nil one, of a
// zone that is not, or for who does not ask for it, adds nothing.
type signing struct {
	*signer // nil for a zone that has come signed
	r       *result
	v       *view
	z       *zone
	// q is the query, n the name that is looked for in the zone, which may be that
	// of an alias, and m where the search for it ended.
	q   *query
	n   name
	m   match
	now uint32
}

// signing returns nil if there is nothing to add to a result. Who asks for
// records that only signed zones have gets them without the flag DO too.
func (v *view) signing(r *result, z *zone, q *query, n name, m match, now uint32) *signing {
	if z.signer == nil && z.presigned == nil {
		return nil
	}
	r.secure = true
	// What has come signed is there to be asked for like all else.
	made := z.signer != nil && (q.qtype == dns.TypeNSEC || q.qtype == dns.TypeRRSIG)
	if !q.do && !made {
		return nil
	}
	return &signing{z.signer, r, v, z, q, n, m, now}
}

// signed appends the signatures of a set that is given for owner.
func (s *signing) signed(section, set []dns.RR, owner string) []dns.RR {
	if s == nil {
		return section
	}
	return s.signedFor(section, set, owner, set[0].Header().Ttl)
}

// signedFor is signed for a set that is given with another TTL than its own.
func (s *signing) signedFor(section, set []dns.RR, owner string, ttl uint32) []dns.RR {
	if s.z.presigned != nil {
		return append(section, s.z.presignatures(set, owner, ttl)...)
	}
	sigs, t, err := s.sign(set, owner, ttl, s.now)
	if err != nil {
		s.r.unsigned = true
		return section
	}
	s.r.term = s.r.term.both(t)
	return append(section, sigs...)
}

// put adds a set to the authority section.
func (s *signing) put(set ...dns.RR) {
	s.r.authority = s.signed(append(s.r.authority, set...), set, set[0].Header().Name)
}

// deny adds that there is no record of a type at the name, or no such name, to a
// result that has the SOA record for it, with a TTL (RFC 9077).
func (s *signing) deny(qtype uint16, ttl uint32) {
	if s == nil {
		return
	}
	s.r.authority = s.signedFor(s.r.authority, s.z.nodes[s.z.name].get(dns.TypeSOA), s.z.name.String(), ttl)
	if s.z.presigned != nil {
		s.presignedDenial()
		return
	}
	nothing := s.m.outcome == noSuchName
	if s.denial == Compact {
		if nothing && !s.q.compact {
			s.r.rcode = dns.RcodeSuccess // RFC 9824 section 3.1
		}
		s.put(s.compact(qtype, ttl))
		return
	}
	if s.m.encloser == "" {
		s.put(s.matching(s.n, ttl, qtype))
		return
	}
	// RFC 5155 sections 7.2.2 and 7.2.5.
	s.put(s.matching(s.m.encloser, ttl))
	s.put(s.covering(s.closer(), ttl))
	wildcard := s.m.encloser.wildcard()
	switch {
	case !nothing:
		s.put(s.matching(wildcard, ttl, qtype))
	case wildcard != "" && wildcard != s.closer():
		s.put(s.covering(wildcard, ttl))
	}
}

// denyExact adds to an answer from a wildcard that no name is closer to the one
// asked for (RFC 4035 section 3.1.3.3, RFC 5155 section 7.2.6).
func (s *signing) denyExact() {
	if s == nil || s.m.encloser == "" {
		return
	}
	if p := s.z.presigned; p != nil {
		if p.nsec3 == nil {
			s.prove(s.n)
		} else {
			s.prove(s.closer())
		}
		return
	}
	ttl := s.z.negative.Hdr.Ttl
	if s.denial == NSEC3 {
		s.put(s.covering(s.closer(), ttl))
		return
	}
	from, to := s.before(s.closer()), s.closer().nextSibling(s.z.name)
	s.put(nsec(from, to, s.types(from), ttl))
}

// delegate adds the DS records at a zone cut to a referral, or that there are
// none, and the signatures of addresses that are not glue.
func (s *signing) delegate() {
	if s == nil {
		return
	}
	ttl := s.z.negative.Hdr.Ttl
	switch set := s.m.node.get(dns.TypeDS); {
	case set != nil:
		s.put(set...)
	case s.z.presigned != nil:
		s.present(s.m.owner)
	case s.denial == Compact:
		s.put(nsec(s.m.owner, s.m.owner.successor(s.z.name), s.types(s.m.owner), ttl))
	default:
		s.put(s.matching(s.m.owner, ttl))
	}
	others := s.r.additional[s.r.needed:]
	for len(others) > 0 {
		h := others[0].Header()
		count := 1
		for count < len(others) && others[count].Header().Name == h.Name && others[count].Header().Rrtype == h.Rrtype {
			count++
		}
		set := others[:count]
		others = others[count:]
		n, err := parseName(h.Name)
		if err != nil || s.v.over[n] != "" {
			continue
		}
		if m := s.z.find(n, nil, false); m.outcome == found {
			s.r.additional = s.signed(s.r.additional, set, h.Name)
		}
	}
}

// explicit answers a question for records that are made for each name: NSEC, and
// signatures, of which one set is enough (RFC 8482 section 7). It reports whether
// it has.
func (s *signing) explicit(qtype uint16, owner string) bool {
	if s == nil || s.z.presigned != nil {
		return false
	}
	switch {
	case s.denial == Compact && (qtype == dns.TypeNSEC || qtype == dns.TypeRRSIG):
		set := []dns.RR{s.compact(dns.TypeNone, s.z.negative.Hdr.Ttl)}
		if qtype == dns.TypeNSEC {
			s.r.answer = append(s.r.answer, owned(set, owner)...)
		}
		s.r.answer = s.signed(s.r.answer, set, owner)
		s.r.rcode = dns.RcodeSuccess
		return true
	case qtype == dns.TypeRRSIG && s.m.node != nil && len(s.m.node.sets) > 0:
		s.r.answer = s.signed(s.r.answer, s.m.node.sets[0].records, owner)
		s.denyExact()
		return true
	}
	return false
}

// closer is the next closer name: the one below the closest encloser, towards the
// name asked for.
func (s *signing) closer() name { return s.n.below(s.m.encloser)[0] }

// types returns the types of the records at a name, in order. Steered names have
// addresses of both kinds, whatever is there at the moment.
func (s *signing) types(n name) []uint16 {
	var types []uint16
	node := s.z.nodes[n]
	cut := node != nil && node.cut
	if node != nil {
		for _, set := range node.sets {
			// Of other records at a cut the child zone has the word.
			if !cut || set.rtype == dns.TypeNS || set.rtype == dns.TypeDS {
				types = append(types, set.rtype)
			}
		}
	}
	if !cut && s.v.over[n] != "" || s.v.isAlias(s.z, n) {
		types = append(types, dns.TypeA, dns.TypeAAAA)
	}
	if n == s.z.name {
		for _, set := range s.sets {
			types = append(types, set.rtype)
		}
	}
	switch {
	case s.denial == Compact:
		types = append(types, dns.TypeRRSIG, dns.TypeNSEC)
	case len(types) > 0 && (!cut || slices.Contains(types, dns.TypeDS)):
		types = append(types, dns.TypeRRSIG)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// without returns types without one.
func without(types []uint16, rtype uint16) []uint16 {
	return slices.DeleteFunc(types, func(t uint16) bool { return t == rtype })
}

// compact is the record that says what there is at the name asked for, and that a
// type is not (RFC 9824 sections 3.1 to 3.4).
func (s *signing) compact(not uint16, ttl uint32) dns.RR {
	types := []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME}
	if s.m.outcome != noSuchName {
		types = without(s.types(s.m.owner), not)
	}
	return nsec(s.n, s.n.successor(s.z.name), types, ttl)
}

func nsec(from, to name, types []uint16, ttl uint32) dns.RR {
	return &dns.NSEC{
		Hdr:        dns.RR_Header{Name: from.String(), Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: ttl},
		NextDomain: to.String(), TypeBitMap: types,
	}
}

// before returns a name that comes before n in the canonical order (RFC 4034
// section 6.1), with no name of the zone between them: RFC 4471 section 3.1.1,
// but for the names below it, of which there can be none if there is not itself.
func (s *signing) before(n name) name {
	label, parent := n[1:1+n[0]], n.parent()
	last := label[len(label)-1]
	label = label[:len(label)-1]
	switch {
	case last > 0:
		if last--; last == 'Z' {
			last = 'A' - 1 // capitals count as small letters
		}
		n = labelled(string(label)+string([]byte{last}), parent)
	case label == "":
		return parent
	default:
		n = labelled(string(label), parent)
		if len(n)+2 > maxName {
			return n
		}
		n = labelled("\xff", n)
	}
	for {
		n = n.padded()
		if s.z.at(n, s.v.over).outcome == noSuchName || len(n)+2 > maxName {
			return n
		}
		n = labelled("\xff", n)
	}
}
