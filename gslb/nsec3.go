package gslb

import (
	"crypto/sha1"
	"encoding/base32"
	"strings"

	"github.com/miekg/dns"
)

// hashed is a name as NSEC3 records have it, and a number of 160 bits.
type hashed [sha1.Size]byte

// hashLabel is the length of the label of an NSEC3 record.
const hashLabel = sha1.Size * 8 / 5

// hash returns the hash of a name, without salt and iterations (RFC 9276 section
// 3.1).
func (n name) hash() hashed { return sha1.Sum([]byte(n)) }

// hashWith returns the hash of a name with the salt and iterations of a zone that
// was not signed here (RFC 5155 section 5).
func (n name) hashWith(salt []byte, iterations uint16) hashed {
	var buf [maxName + 255]byte
	h := sha1.Sum(append(append(buf[:0], n...), salt...))
	for range iterations {
		h = sha1.Sum(append(append(buf[:0], h[:]...), salt...))
	}
	return h
}

var base32Hex = base32.HexEncoding.WithPadding(base32.NoPadding)

// next and previous return the numbers beside h; the first is next to the last.
func (h hashed) next() hashed {
	for i := len(h) - 1; i >= 0; i-- {
		if h[i]++; h[i] != 0 {
			break
		}
	}
	return h
}

func (h hashed) previous() hashed {
	for i := len(h) - 1; i >= 0; i-- {
		if h[i]--; h[i] != 0xff {
			break
		}
	}
	return h
}

// matching says what there is at a name, and that a type is not.
func (s *signing) matching(n name, ttl uint32, not ...uint16) dns.RR {
	types := s.types(n)
	for _, t := range not {
		types = without(types, t)
	}
	return s.nsec3(n.hash(), n.hash().next(), types, ttl)
}

// covering says that there is no name n. It covers no other hash.
func (s *signing) covering(n name, ttl uint32) dns.RR {
	return s.nsec3(n.hash().previous(), n.hash().next(), nil, ttl)
}

func (s *signing) nsec3(from, to hashed, types []uint16, ttl uint32) dns.RR {
	owner := labelled(strings.ToLower(base32Hex.EncodeToString(from[:])), s.z.name)
	return &dns.NSEC3{
		Hdr:  dns.RR_Header{Name: owner.String(), Rrtype: dns.TypeNSEC3, Class: dns.ClassINET, Ttl: ttl},
		Hash: dns.SHA1, HashLength: sha1.Size,
		NextDomain: base32Hex.EncodeToString(to[:]), TypeBitMap: types,
	}
}
