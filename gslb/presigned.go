package gslb

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// presigned is what a zone has that was signed before it came here, by its
// primary or by who wrote its file. It is served as it is: nothing of it is made,
// checked or renewed. The RRSIG and NSEC records are at the zone's nodes, like all
// others. It is never changed after the zone was loaded.
type presigned struct {
	// where is the record that showed it, with file and line.
	where string
	// hashes are the names of NSEC3 records, with those and their signatures. They
	// are apart from the zone's nodes because nobody who asks for such a name is to
	// find it (RFC 5155 section 7.2.8).
	hashes map[name]*node
	// nsec3 says how names are hashed, if the chain is one of NSEC3 records; nil if
	// it is one of NSEC records.
	nsec3 *hashing
	// chain is what proves that something does not exist, in the order of its keys.
	chain []denier
	// expires is when the first signature does, in Unix seconds; 0 if there are none.
	expires int64
}

// hashing is how NSEC3 records have names (RFC 5155 section 5).
type hashing struct {
	salt       []byte
	iterations uint16
}

// maxIterations bounds the work of a hash: RFC 5155 section 10.3 allows no more
// for any key. Validators stop at far less.
const maxIterations = 2500

// denier is an NSEC or NSEC3 record, and its name as it is sorted by.
type denier struct {
	key string
	set []dns.RR
}

// ofSigning reports whether a type is one that signing puts at the names that there
// are, those of aliases too (RFC 4035 section 2.5).
func ofSigning(rtype uint16) bool { return rtype == dns.TypeRRSIG || rtype == dns.TypeNSEC }

// presign notes a record that shows that a zone comes signed. It returns the
// names that the record is one of, or what is wrong with it.
func (l *zoneLoad) presign(rr dns.RR, owner name, line int) (map[name]*node, string) {
	if l.presigned == nil {
		l.presigned = &presigned{
			where:  fmt.Sprintf("%s:%d: %s %s", l.source, line, owner, dns.Type(rr.Header().Rrtype)),
			hashes: make(map[name]*node),
		}
	}
	p := l.presigned
	switch rr := rr.(type) {
	case *dns.RRSIG:
		if at := expiry(rr, time.Now()); p.expires == 0 || at < p.expires {
			p.expires = at
		}
		if rr.TypeCovered == dns.TypeNSEC3 {
			return p.hashes, ""
		}
	case *dns.NSEC3:
		if _, ok := owner.hashed(l.name); rr.Hash == dns.SHA1 && !ok {
			return nil, "not the hash of a name, as NSEC3 records have it"
		}
		return p.hashes, ""
	case *dns.NSEC3PARAM:
		if rr.Iterations > maxIterations {
			return nil, fmt.Sprintf("%d iterations of NSEC3; at most %d", rr.Iterations, maxIterations)
		}
	}
	return l.nodes, ""
}

// expiry returns when a signature expires, in Unix seconds. Of the times that its
// field can mean it is the one next to now (RFC 4034 section 3.1.5).
func expiry(sig *dns.RRSIG, now time.Time) int64 {
	return now.Unix() + int64(int32(sig.Expiration-uint32(now.Unix())))
}

// hashed returns the hash that the name of an NSEC3 record of a zone is made of.
func (n name) hashed(apex name) (h hashed, ok bool) {
	if n == apex || n.parent() != apex || n[0] != hashLabel {
		return h, false
	}
	octets, err := base32Hex.DecodeString(strings.ToUpper(string(n[1 : 1+hashLabel])))
	copy(h[:], octets)
	return h, err == nil && len(octets) == len(h)
}

// link finds the zone's chain. RFC 5155 section 7.1: an NSEC3PARAM record says
// that the chain of its parameters is whole. Of several, one is used. Without any
// it is that of NSEC records.
func (p *presigned) link(z *zone) {
	for _, rr := range z.nodes[z.name].get(dns.TypeNSEC3PARAM) {
		param := rr.(*dns.NSEC3PARAM)
		salt, err := hex.DecodeString(strings.TrimPrefix(param.Salt, "-"))
		if param.Hash != dns.SHA1 || param.Flags != 0 || err != nil { // RFC 5155 section 4.1.2
			continue
		}
		p.nsec3, p.chain = &hashing{salt, param.Iterations}, nil
		for n, node := range p.hashes {
			for i, rr := range node.get(dns.TypeNSEC3) {
				nsec3 := rr.(*dns.NSEC3)
				if h, ok := n.hashed(z.name); ok && nsec3.Hash == dns.SHA1 && nsec3.Iterations == param.Iterations && sameSalt(nsec3.Salt, param.Salt) {
					p.chain = append(p.chain, denier{string(h[:]), node.get(dns.TypeNSEC3)[i : i+1]})
				}
			}
		}
		p.sort()
		if _, matches := p.nearest(z.name); matches {
			return
		}
	}
	p.nsec3, p.chain = nil, nil
	for n, node := range z.nodes {
		if set := node.get(dns.TypeNSEC); set != nil {
			p.chain = append(p.chain, denier{n.sortKey(), set[:1]})
		}
	}
	p.sort()
}

func (p *presigned) sort() {
	slices.SortFunc(p.chain, func(a, b denier) int { return cmp.Compare(a.key, b.key) })
}

// sameSalt compares salts as the records have them, in hexadecimal.
func sameSalt(a, b string) bool {
	return strings.EqualFold(strings.TrimPrefix(a, "-"), strings.TrimPrefix(b, "-"))
}

// nearest returns the record of the chain that matches a name, or else that covers
// it; nil if there is no chain.
func (p *presigned) nearest(n name) (set []dns.RR, matches bool) {
	if len(p.chain) == 0 {
		return nil, false
	}
	var key string
	if p.nsec3 != nil {
		h := n.hashWith(p.nsec3.salt, p.nsec3.iterations)
		key = string(h[:])
	} else {
		key = n.sortKey()
	}
	at, matches := slices.BinarySearchFunc(p.chain, key, func(d denier, key string) int { return cmp.Compare(d.key, key) })
	if !matches {
		at = (at + len(p.chain) - 1) % len(p.chain) // the last one covers what is before the first
	}
	return p.chain[at].set, matches
}

// presignatures returns the signatures that a set of the zone has come with, for
// owner and with a TTL, which may be other than its own.
func (z *zone) presignatures(set []dns.RR, owner string, ttl uint32) (sigs []dns.RR) {
	h := set[0].Header()
	n, err := parseName(h.Name)
	if err != nil {
		return nil
	}
	at := z.nodes[n]
	if h.Rrtype == dns.TypeNSEC3 {
		at = z.presigned.hashes[n]
	}
	for _, rr := range at.get(dns.TypeRRSIG) {
		sig := rr.(*dns.RRSIG)
		if sig.TypeCovered != h.Rrtype {
			continue
		}
		if sig.Hdr.Name != owner || sig.Hdr.Ttl > ttl {
			sig = dns.Copy(sig).(*dns.RRSIG)
			sig.Hdr.Name, sig.Hdr.Ttl = owner, min(sig.Hdr.Ttl, ttl)
		}
		sigs = append(sigs, sig)
	}
	return sigs
}

// one returns the set that stands for all of a node in the answer to a query for
// every type (RFC 8482 section 4.1), nil if there are none: what would be made up
// for it has no signature.
func (n *node) one() []dns.RR {
	var least *rrset
	for i := range n.sets {
		set := &n.sets[i]
		if !ofSigning(set.rtype) && (least == nil || set.rtype < least.rtype) {
			least = set
		}
	}
	if least == nil {
		return nil
	}
	return least.records
}

// signatures returns those of one of a node's types, which stand for all in the
// answer to a query for signatures (RFC 8482 section 7); nil if there are none.
func (n *node) signatures() (sigs []dns.RR) {
	var covered uint16
	for _, rr := range n.get(dns.TypeRRSIG) {
		switch of := rr.(*dns.RRSIG).TypeCovered; {
		case sigs == nil || of < covered:
			sigs, covered = []dns.RR{rr}, of
		case of == covered:
			sigs = append(sigs, rr)
		}
	}
	return sigs
}

// unsignable returns why nothing of a zone can be made here: the signatures that
// it has come with would not cover that.
func (z *zone) unsignable() error {
	if z.presigned == nil {
		return nil
	}
	return fmt.Errorf("%s: the zone is signed already, so nothing in it can be steered, aliased or signed here", z.presigned.where)
}

// watchExpiry tells when the signatures of zones that come signed expire, and warns
// of those that have. They are given out all the same: the primary has the word.
func (s *Server) watchExpiry(before, zones map[name]*zone) {
	for n, z := range before {
		if z.expires() != 0 && zones[n].expires() == 0 {
			s.m.expiry.DeleteLabelValues(n.label())
		}
	}
	for n, z := range zones {
		expires := z.expires()
		if z == before[n] || expires == 0 {
			continue
		}
		s.m.expiry.WithLabelValues(n.label()).Set(float64(expires))
		if at := time.Unix(expires, 0); at.Before(time.Now()) {
			s.log.Warn("zone has expired signatures, and is served as it is", "zone", n.label(), "source", z.source, "expired", at)
		}
	}
}

// label is the name as metrics have it.
func (n name) label() string { return cmp.Or(canonical(n.String()), ".") }

// expires is that of what a zone has come signed with, 0 without; also of nil.
func (z *zone) expires() int64 {
	if z == nil || z.presigned == nil {
		return 0
	}
	return z.presigned.expires
}
