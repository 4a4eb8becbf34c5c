package gslb

import (
	"cmp"
	"crypto/ed25519"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// chain is how presigner proves what does not exist.
type chain int

const (
	chainNSEC chain = iota
	chainNSEC3
	chainOptOut
)

// Parameters of the chains of NSEC3 records.
const (
	presignedSalt       = "ab01"
	presignedIterations = 3
)

// presigner signs zones all at once, as primaries do.
type presigner struct {
	testing.TB
	chain
	key     ed25519.PrivateKey
	dnskey  *dns.DNSKEY
	expires uint32
}

func newPresigner(t testing.TB, apex string, how chain) *presigner {
	s := &presigner{TB: t, chain: how, expires: signedAt + 30*24*3600}
	s.dnskey = &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: dns.Fqdn(apex), Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 600},
		Flags: 257, Protocol: 3, Algorithm: dns.ED25519,
	}
	key, err := s.dnskey.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	s.key = key.(ed25519.PrivateKey)
	return s
}

// sign returns the text of a zone with all that signing adds.
func (s *presigner) sign(text string) string {
	s.Helper()
	apex := s.dnskey.Hdr.Name
	text += s.dnskey.String() + "\n"
	if s.chain != chainNSEC {
		param := dns.NSEC3PARAM{
			Hdr:  dns.RR_Header{Name: apex, Rrtype: dns.TypeNSEC3PARAM, Class: dns.ClassINET},
			Hash: dns.SHA1, Iterations: presignedIterations, SaltLength: 2, Salt: presignedSalt,
		}
		text += param.String() + "\n"
	}
	z, err := loadZone(Zone{Name: apex, Text: text})
	if err != nil {
		s.Fatal(err)
	}
	records := []dns.RR{z.soa()}
	records = append(records, z.all()...)
	sign := func(set []dns.RR) { records = append(records, s.signature(set)) }
	types := make(map[name][]uint16)
	for _, n := range slices.SortedFunc(maps.Keys(z.nodes), compare) {
		node := z.nodes[n]
		if m := z.find(n, nil, true); m.outcome != found || m.owner != n {
			continue // below a zone cut
		}
		types[n] = []uint16{}
		for _, set := range node.sets {
			if node.cut && set.rtype != dns.TypeNS && set.rtype != dns.TypeDS {
				continue
			}
			types[n] = append(types[n], set.rtype)
			if !node.cut || set.rtype == dns.TypeDS {
				sign(set.records)
			}
		}
	}
	for _, set := range s.deniers(z, types) {
		records = append(records, set...)
		sign(set)
	}
	var b strings.Builder
	for _, rr := range records {
		b.WriteString(rr.String() + "\n")
	}
	return b.String()
}

func (s *presigner) signature(set []dns.RR) *dns.RRSIG {
	s.Helper()
	sig := &dns.RRSIG{
		Hdr:       dns.RR_Header{Ttl: set[0].Header().Ttl},
		Algorithm: s.dnskey.Algorithm, KeyTag: s.dnskey.KeyTag(), SignerName: s.dnskey.Hdr.Name,
		OrigTtl: set[0].Header().Ttl, Inception: signedAt - 24*3600, Expiration: s.expires,
	}
	if err := sig.Sign(s.key, set); err != nil {
		s.Fatal(err)
	}
	return sig
}

// deniers are the records of a chain for the names of a zone and their types.
func (s *presigner) deniers(z *zone, types map[name][]uint16) (sets [][]dns.RR) {
	var names []name
	for n, have := range types {
		insecure := z.nodes[n].cut && !slices.Contains(have, dns.TypeDS)
		switch {
		case s.chain == chainNSEC && len(have) == 0:
			continue
		case s.chain == chainNSEC:
			have = append(have, dns.TypeRRSIG, dns.TypeNSEC)
		case len(have) > 0 && !insecure:
			have = append(have, dns.TypeRRSIG)
		case s.chain == chainOptOut && !s.needed(z, types, n):
			continue
		}
		slices.Sort(have)
		types[n] = have
		names = append(names, n)
	}
	if s.chain == chainNSEC {
		slices.SortFunc(names, compare)
		for i, n := range names {
			sets = append(sets, []dns.RR{nsec(n, names[(i+1)%len(names)], types[n], z.negative.Hdr.Ttl)})
		}
		return sets
	}
	hash := func(n name) string { return dns.HashName(n.String(), dns.SHA1, presignedIterations, presignedSalt) }
	slices.SortFunc(names, func(a, b name) int { return cmp.Compare(hash(a), hash(b)) })
	for i, n := range names {
		nsec3 := &dns.NSEC3{
			Hdr:  dns.RR_Header{Name: hash(n) + "." + z.name.String(), Rrtype: dns.TypeNSEC3, Class: dns.ClassINET, Ttl: z.negative.Hdr.Ttl},
			Hash: dns.SHA1, Iterations: presignedIterations, SaltLength: 2, Salt: presignedSalt,
			HashLength: 20, NextDomain: hash(names[(i+1)%len(names)]), TypeBitMap: types[n],
		}
		if s.chain == chainOptOut {
			nsec3.Flags = 1
		}
		sets = append(sets, []dns.RR{nsec3})
	}
	return sets
}

// needed reports whether a chain with opt-out has a name: there is something at or
// below it that is not an unsigned delegation.
func (s *presigner) needed(z *zone, types map[name][]uint16, n name) bool {
	for other, have := range types {
		if other.under(n) && len(have) > 0 && (!z.nodes[other].cut || slices.Contains(have, dns.TypeDS)) {
			return true
		}
	}
	return false
}
