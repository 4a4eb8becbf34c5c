package gslb

import (
	"cmp"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"strings"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// Signing says how a zone is signed online. Zero fields have the defaults given.
type Signing struct {
	// Keys sign the zone from the start. Nil keeps the keys that it has, none at
	// first: such a zone is not signed. Server.Sign changes them later.
	Keys *dnssec.KeySet
	// Denial is how it is proved that something does not exist. Default Compact.
	Denial Denial
	// Validity is how long signatures are valid from when they are made. They are
	// replaced after a quarter of it, each set of records at a time of its own.
	// At least an hour; default 7 days.
	Validity time.Duration
	// Await has questions for the zone fail (SERVFAIL) until it has keys, or until
	// Server.Sign says that it has none.
	Await bool
	// MaxTTL is the longest TTL that the zone may have; one with a longer TTL is
	// refused. Default: any.
	MaxTTL time.Duration
}

// Denial is a way to prove that something does not exist.
type Denial int

const (
	// Compact says of a name that it exists, but has nothing (RFC 9824): one NSEC
	// record, made up for each name asked for. The rcode is NOERROR, unless the
	// query has the flag CO.
	Compact Denial = iota
	// NSEC3 (RFC 5155) covers no name but the one asked for (RFC 7129 appendix B),
	// without salt and iterations (RFC 9276).
	NSEC3
)

// Times of signatures.
const (
	defaultValidity = 7 * 24 * time.Hour
	minValidity     = time.Hour
	renewals        = 4         // in the validity of a signature
	clockSkew       = time.Hour // that validators may be behind
	defaultKeyTTL   = time.Hour
)

// signer makes the signatures of one zone. It is never changed, and has no part
// in what the zone says.
//
// What it makes depends on nothing but the records, the keys and the clock, so
// that all servers with the same keys give the same signatures.
type signer struct {
	apex     string
	keys     *dnssec.KeySet
	denial   Denial
	validity uint32 // in seconds
	zone     []signingKey
	entry    []signingKey
	// sets are the records that a zone has at its apex because it is signed.
	sets []rrset
}

// signingKey is a key as signatures name it.
type signingKey struct {
	tag       uint16
	algorithm uint8
	signer    crypto.Signer
}

// newSigner returns the signer of a zone; nil without keys. It tries each key.
func newSigner(apex name, keys *dnssec.KeySet, how Signing, cache *signatures) (*signer, error) {
	if err := how.check(); err != nil {
		return nil, err
	}
	if keys == nil {
		return nil, nil
	}
	if len(keys.Published) == 0 || len(keys.Zone) == 0 || len(keys.Entry) == 0 {
		return nil, errors.New("no key for each of the records, the keys and to be published")
	}
	if how.Denial == NSEC3 && len(labelled(strings.Repeat("0", hashLabel), apex)) > maxName {
		return nil, errors.New("its name is too long for NSEC3")
	}
	s := &signer{
		apex: apex.String(), keys: keys, denial: how.Denial,
		validity: uint32(cmp.Or(how.Validity, defaultValidity) / time.Second),
	}
	add := func(rtype uint16, rr dns.RR) {
		*rr.Header() = dns.RR_Header{Name: s.apex, Rrtype: rtype, Class: dns.ClassINET, Ttl: s.keyTTL()}
		if n := len(s.sets); n == 0 || s.sets[n-1].rtype != rtype {
			s.sets = append(s.sets, rrset{rtype: rtype})
		}
		set := &s.sets[len(s.sets)-1]
		set.records = append(set.records, rr)
	}
	for _, k := range keys.Published {
		add(dns.TypeDNSKEY, s.dnskey(k))
	}
	for _, k := range keys.Parent {
		add(dns.TypeCDS, s.dnskey(k).ToDS(dns.SHA256).ToCDS()) // RFC 8624: the only digest to use
	}
	if keys.Delete { // RFC 8078 section 4
		add(dns.TypeCDS, &dns.CDS{DS: dns.DS{Digest: "00"}})
	}
	for _, k := range keys.Parent {
		add(dns.TypeCDNSKEY, s.dnskey(k).ToCDNSKEY())
	}
	if keys.Delete {
		add(dns.TypeCDNSKEY, &dns.CDNSKEY{DNSKEY: dns.DNSKEY{Protocol: 3, PublicKey: "AA=="}})
	}
	if how.Denial == NSEC3 {
		add(dns.TypeNSEC3PARAM, &dns.NSEC3PARAM{Hash: dns.SHA1})
	}
	var err error
	if s.zone, err = s.usable(keys.Zone, cache); err != nil {
		return nil, err
	}
	s.entry, err = s.usable(keys.Entry, cache)
	return s, err
}

// check returns what is wrong with the options.
func (how Signing) check() error {
	switch {
	case how.Denial != Compact && how.Denial != NSEC3:
		return fmt.Errorf("no way of denial has the number %d", how.Denial)
	case how.Validity != 0 && how.Validity < minValidity:
		return fmt.Errorf("signatures valid for %v; at least %v", how.Validity, minValidity)
	}
	return nil
}

// keyTTL is the TTL of the records that the keys make, in seconds.
func (s *signer) keyTTL() uint32 {
	return uint32(cmp.Or(s.keys.TTL, defaultKeyTTL) / time.Second)
}

// dnskey is the record of a key.
func (s *signer) dnskey(k *dnssec.Key) *dns.DNSKEY {
	return &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: s.apex, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: s.keyTTL()},
		Flags: k.Flags, Protocol: 3, Algorithm: k.Algorithm,
		PublicKey: base64.StdEncoding.EncodeToString(k.Public),
	}
}

// usable returns keys after it has seen that each of them signs what its public
// key verifies.
func (s *signer) usable(keys []*dnssec.Key, cache *signatures) ([]signingKey, error) {
	var list []signingKey
	for _, k := range keys {
		record := s.dnskey(k)
		if k.Algorithm != dnssec.ECDSAP256SHA256 && k.Algorithm != dnssec.Ed25519 {
			return nil, fmt.Errorf("key %d: algorithm %d is not supported", record.KeyTag(), k.Algorithm)
		}
		if k.Signer == nil {
			return nil, fmt.Errorf("key %d: the private key is missing", record.KeyTag())
		}
		key := signingKey{record.KeyTag(), k.Algorithm, &remembered{cache, string(k.Public), k.Signer}}
		sig, err := s.make(key, []dns.RR{record}, 0)
		if err == nil {
			err = sig.Verify(record, []dns.RR{record})
		}
		if err != nil {
			return nil, fmt.Errorf("key %d: does not sign: %w", record.KeyTag(), err)
		}
		list = append(list, key)
	}
	return list, nil
}

// get returns the records of a type that the keys make.
func (s *signer) get(rtype uint16) []dns.RR {
	for i := range s.sets {
		if s.sets[i].rtype == rtype {
			return s.sets[i].records
		}
	}
	return nil
}

// fits reports what in a zone leaves no place for the signer's own records.
func (s *signer) fits(z *zone) error {
	if err := z.unsignable(); err != nil {
		return err
	}
	apex := z.nodes[z.name]
	for _, rtype := range []uint16{dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY} {
		if apex.get(rtype) != nil {
			return fmt.Errorf("it is signed here and has %s records of its own", dns.Type(rtype))
		}
	}
	return nil
}

// term is the time that the signatures of a set are given out, in Unix seconds:
// from since until another takes its place, which is before until.
type term struct{ since, until uint32 }

// at reports whether a time is in the term.
func (t term) at(now uint32) bool { return int32(now-t.since) >= 0 && int32(now-t.until) < 0 }

// both is the time that two terms share, of which one may be zero for any time.
func (t term) both(other term) term {
	if t == (term{}) {
		return other
	}
	if other == (term{}) {
		return t
	}
	if int32(other.since-t.since) > 0 {
		t.since = other.since
	}
	if int32(other.until-t.until) < 0 {
		t.until = other.until
	}
	return t
}

// term returns the term of a set at a time. Sets of other names and types have
// others, so that a zone is not signed anew all at once.
func (s *signer) term(set []dns.RR, now uint32) term {
	h := fnv.New32a()
	io.WriteString(h, dns.CanonicalName(set[0].Header().Name))
	length := s.validity / renewals
	phase := (h.Sum32() + uint32(set[0].Header().Rrtype)*0x9e3779b1) % length
	since := now - (now+phase)%length
	return term{since, since + length}
}

// sign returns the signatures of a set, and their term. Owner is the name that
// the set is given for, other than its own if that is a wildcard, and ttl the TTL
// that it is given with, which may be less than its own.
func (s *signer) sign(set []dns.RR, owner string, ttl, now uint32) ([]dns.RR, term, error) {
	keys := s.zone
	switch set[0].Header().Rrtype {
	case dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY:
		keys = s.entry
	}
	t := s.term(set, now)
	var all []dns.RR
	for _, k := range keys {
		sig, err := s.make(k, set, t.since)
		if err != nil {
			return nil, t, fmt.Errorf("sign %s %s with key %d: %w", owner, dns.Type(set[0].Header().Rrtype), k.tag, err)
		}
		sig.Hdr.Name, sig.Hdr.Ttl = owner, ttl
		all = append(all, sig)
	}
	return all, t, nil
}

// make makes one signature for a term that begins at since.
func (s *signer) make(k signingKey, set []dns.RR, since uint32) (*dns.RRSIG, error) {
	if first := set[0].Header().Name; strings.HasPrefix(first, "*") && !strings.HasPrefix(first, "*.") {
		// The library would take it for a wildcard.
		set = owned(set, `\042`+first[1:])
	}
	sig := &dns.RRSIG{
		Algorithm: k.algorithm, KeyTag: k.tag, SignerName: s.apex,
		OrigTtl:   set[0].Header().Ttl,
		Inception: since - uint32(clockSkew/time.Second), Expiration: since + s.validity,
	}
	return sig, sig.Sign(k.signer, set)
}

// Sign replaces the keys of a zone that is served; nil keys leave it unsigned.
// They stay when zones are replaced, as far as those name no other. Zones that
// are transferred out are not signed. With an error nothing changes.
func (s *Server) Sign(zone string, keys *dnssec.KeySet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.resign(zone, keys)
	s.m.updated("keys", nil, err)
	return err
}

func (s *Server) resign(zone string, keys *dnssec.KeySet) error {
	n, err := parseName(zone)
	if err != nil {
		return err
	}
	z := s.zones[n]
	if z == nil {
		return fmt.Errorf("zone %s: not served", zone)
	}
	signed := *z
	if signed.signer, err = newSigner(n, keys, z.signing, s.signatures); err != nil {
		return fmt.Errorf("zone %s: %w", zone, err)
	}
	signed.withhold(true)
	zones := maps.Clone(s.zones)
	zones[n] = &signed
	return s.setView(zones, s.table)
}

// signAll gives zones that are not in use yet their signers.
func (s *Server) signAll(zones map[name]*zone) error {
	var errs []error
	for n, z := range zones {
		keys, before := z.signing.Keys, s.zones[n]
		if keys == nil && before != nil && before.signer != nil {
			keys = before.signer.keys
		}
		z.withhold(keys != nil || before != nil && before.signing.Await && before.inPlace == nil)
		err := z.checkTTLs()
		if z.signing.Await && err == nil {
			if err = z.unsignable(); err != nil {
				err = fmt.Errorf("zone %s: %w", n, err)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if z.signer, err = newSigner(n, keys, z.signing, s.signatures); err != nil {
			errs = append(errs, fmt.Errorf("zone %s: %w", n, err))
		}
	}
	return errors.Join(errs...)
}
