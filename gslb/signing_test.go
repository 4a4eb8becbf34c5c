package gslb

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// signedAt is the time at which the tests ask, in Unix seconds.
const signedAt = 1_790_000_000

func newKey(t testing.TB, flags uint16, algorithm uint8) *dnssec.Key {
	t.Helper()
	k := &dnssec.Key{Flags: flags, Algorithm: algorithm}
	switch algorithm {
	case dnssec.ECDSAP256SHA256:
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k.Signer, k.Public = private, point[1:] // without the octet that says that it is not compressed
	case dnssec.Ed25519:
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k.Signer, k.Public = private, public
	}
	return k
}

// split are keys of which one signs the other.
func split(t testing.TB, algorithm uint8) *dnssec.KeySet {
	entry, zone := newKey(t, dnssec.SecureEntryPoint, algorithm), newKey(t, dnssec.ZoneKey, algorithm)
	return &dnssec.KeySet{
		Published: []*dnssec.Key{entry, zone}, Zone: []*dnssec.Key{zone},
		Entry: []*dnssec.Key{entry}, Parent: []*dnssec.Key{entry},
	}
}

// combined is one key for all.
func combined(t testing.TB, algorithm uint8) *dnssec.KeySet {
	all := []*dnssec.Key{newKey(t, dnssec.SecureEntryPoint, algorithm)}
	return &dnssec.KeySet{Published: all, Zone: all, Entry: all}
}

// signedView is testView with all zones signed.
func signedView(t testing.TB, how Signing) *view {
	t.Helper()
	return signed(t, testView(t), how)
}

// signed signs the zones of a view.
func signed(t testing.TB, v *view, how Signing) *view {
	t.Helper()
	zones := make(map[name]*zone)
	cache := newSignatures(newMetrics(nil))
	for n, z := range v.zones {
		each := *z
		var err error
		if each.signer, err = newSigner(n, how.Keys, how, cache); err != nil {
			t.Fatal(err)
		}
		zones[n] = &each
	}
	next, err := newView(zones, v.table, v.aliased, v)
	if err != nil {
		t.Fatal(err)
	}
	next.identity = v.identity
	return next
}

// secureAsker builds a query that asks for signatures.
func secureAsker(name string, qtype uint16) *dns.Msg {
	m := asker(name, qtype)
	m.SetEdns0(1232, true)
	return m
}

// askSecure asks a view over TCP, for signatures, at a time.
func askSecure(t testing.TB, v *view, q *dns.Msg, now uint32) *dns.Msg {
	t.Helper()
	if q.IsEdns0() == nil {
		q = q.Copy()
		q.SetEdns0(1232, true)
	}
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, v.respond(request{msg: wire, from: netip.MustParseAddr("203.0.113.1"), tcp: true, random: 3, now: now}).msg)
}

// resolver validates answers as one of RFC 4035 section 5 does, and knows all
// names of the zones, so that it sees what is denied but there.
type resolver struct {
	testing.TB
	v   *view
	now uint32
	// What names and hash have found.
	found  map[*zone][]name
	hashes map[name]string
}

func newResolver(t testing.TB, v *view, now uint32) *resolver {
	return &resolver{t, v, now, make(map[*zone][]name), make(map[name]string)}
}

// hash is that of a name in an NSEC3 record.
func (r *resolver) hash(n name) string {
	if r.hashes[n] == "" {
		r.hashes[n] = dns.HashName(n.String(), dns.SHA1, 0, "")
	}
	return r.hashes[n]
}

// compare orders names canonically, RFC 4034 section 6.1.
func compare(a, b name) int {
	labels := func(n name) (all []string) {
		for ; len(n) > 1; n = n.parent() {
			all = append(all, string(n[1:1+n[0]]))
		}
		slices.Reverse(all)
		return all
	}
	return slices.Compare(labels(a), labels(b))
}

// common is the longest name that both are under.
func common(a, b name) name {
	for !b.under(a) {
		a = a.parent()
	}
	return a
}

func wire(t testing.TB, text string) name {
	t.Helper()
	n, err := parseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// names are all that exist in a zone, as far as it has the word on them.
func (r *resolver) names(z *zone) (all []name) {
	if all = r.found[z]; all != nil {
		return all
	}
	add := func(n name) {
		if m := z.find(n, r.v.over, true); m.outcome == found && m.owner == n {
			all = append(all, n)
		}
	}
	for n := range z.nodes {
		add(n)
	}
	for n := range r.v.over {
		if r.v.zoneOf(n) == z && z.nodes[n] == nil {
			add(n)
		}
	}
	r.found[z] = all
	return all
}

// verify checks the signatures of a set, and returns the number of labels that
// they are of.
func (r *resolver) verify(set []dns.RR, section []dns.RR) (labels int) {
	h := set[0].Header()
	labels = -1
	for _, rr := range section {
		sig, ok := rr.(*dns.RRSIG)
		if !ok || sig.Hdr.Name != h.Name || sig.TypeCovered != h.Rrtype {
			continue
		}
		z := r.v.zones[wire(r, sig.SignerName)]
		if z == nil || z.signer == nil || !wire(r, h.Name).under(z.name) {
			r.Errorf("%s %s is signed by %s", h.Name, dns.Type(h.Rrtype), sig.SignerName)
			return 0
		}
		keys := z.signer.keys.Zone
		if h.Rrtype == dns.TypeDNSKEY || h.Rrtype == dns.TypeCDS || h.Rrtype == dns.TypeCDNSKEY {
			keys = z.signer.keys.Entry
		}
		var err error
		for _, k := range keys {
			if record := z.signer.dnskey(k); record.KeyTag() == sig.KeyTag {
				err = sig.Verify(record, set)
			}
		}
		if err != nil {
			r.Errorf("%s %s: %v", h.Name, dns.Type(h.Rrtype), err)
		}
		if now := time.Unix(int64(r.now), 0); !sig.ValidityPeriod(now) || !sig.ValidityPeriod(now.Add(-clockSkew)) {
			r.Errorf("%s: not valid at %v", sig, now)
		}
		if sig.Hdr.Ttl != h.Ttl {
			r.Errorf("TTL %d of the signature of %v", sig.Hdr.Ttl, set)
		}
		labels = int(sig.Labels)
	}
	return labels
}

// section checks every set of a section and calls each with it and the number of
// labels that its signature is of.
func (r *resolver) section(records []dns.RR, each func(set []dns.RR, labels int)) {
	for rest := records; len(rest) > 0; {
		h := rest[0].Header()
		n := 1
		for n < len(rest) && rest[n].Header().Name == h.Name && rest[n].Header().Rrtype == h.Rrtype {
			n++
		}
		if h.Rrtype == dns.TypeRRSIG {
			for _, rr := range rest[:n] {
				if !slices.ContainsFunc(records, func(o dns.RR) bool {
					return o.Header().Name == h.Name && o.Header().Rrtype == rr.(*dns.RRSIG).TypeCovered
				}) {
					r.Errorf("a signature of nothing: %v", rr)
				}
			}
		} else {
			each(rest[:n], r.verify(rest[:n], records))
		}
		rest = rest[n:]
	}
}

// validate checks the answer of a signed view against that of one that is not.
func (r *resolver) validate(question dns.Question, plain, got *dns.Msg) {
	var answer, authority []dns.RR
	at := wire(r, question.Name)
	wildcards := make(map[name]int) // labels of the wildcard, by name
	r.section(got.Answer, func(set []dns.RR, labels int) {
		h := set[0].Header()
		answer = append(answer, set...)
		owner := wire(r, h.Name)
		if labels < 0 {
			before := answer[:len(answer)-len(set)]
			if h.Rrtype != dns.TypeCNAME || len(before) == 0 || before[len(before)-1].Header().Rrtype != dns.TypeDNAME {
				r.Errorf("not signed: %v", set)
			}
		} else if count := dns.CountLabel(h.Name); labels < count && !(owner.isWildcard() && labels == count-1) {
			wildcards[owner] = labels
		}
		if alias, ok := set[0].(*dns.CNAME); ok && question.Qtype != dns.TypeCNAME {
			at = wire(r, alias.Target)
		}
	})
	var proofs []dns.RR
	referral := name("")
	r.section(got.Ns, func(set []dns.RR, labels int) {
		h := set[0].Header()
		switch h.Rrtype {
		case dns.TypeNS:
			if labels >= 0 {
				r.Errorf("signed: %v", set)
			}
			referral = wire(r, h.Name)
			authority = append(authority, set...)
			return
		case dns.TypeSOA:
			authority = append(authority, set...)
		case dns.TypeDS, dns.TypeNSEC, dns.TypeNSEC3:
			proofs = append(proofs, set...)
		default:
			r.Errorf("in the authority section: %v", set)
		}
		if labels < 0 {
			r.Errorf("not signed: %v", set)
		}
	})
	if text(answer) != text(plain.Answer) || text(authority) != text(plain.Ns) {
		r.Errorf("answer %s\nauthority %s\nwithout signatures %s\n%s", text(answer), text(authority), text(plain.Answer), text(plain.Ns))
	}
	for _, rr := range proofs {
		r.truthful(rr, question.Qtype)
	}
	negative := len(authority) > 0 && authority[0].Header().Rrtype == dns.TypeSOA
	nothing := negative && plain.Rcode == dns.RcodeNameError
	rcode := plain.Rcode
	if nothing && r.denial(at) == Compact {
		rcode = dns.RcodeSuccess
	}
	if got.Rcode != rcode || got.AuthenticatedData {
		r.Errorf("rcode %s, want %s", dns.RcodeToString[got.Rcode], dns.RcodeToString[rcode])
	}
	switch {
	case referral != "":
		if !slices.ContainsFunc(proofs, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeDS }) {
			r.proves(proofs, r.matches(referral, dns.TypeDS), "no DS at %s", referral)
		}
	case nothing && r.denial(at) == Compact:
		r.proves(proofs, func(rr dns.RR) bool {
			nsec, ok := rr.(*dns.NSEC)
			return ok && wire(r, nsec.Hdr.Name) == at && slices.Contains(nsec.TypeBitMap, dns.TypeNXNAME)
		}, "no name %s", at)
	case nothing:
		r.provesNothing(proofs, at)
	case negative && r.denial(at) == Compact:
		r.proves(proofs, r.matches(at, question.Qtype), "no %s at %s", dns.Type(question.Qtype), at)
	case negative:
		owner := at
		if m := r.v.zoneOf(at).find(at, r.v.over, question.Qtype == dns.TypeDS); m.encloser != "" {
			owner = m.owner
			r.proves(proofs, r.matches(m.encloser, dns.TypeNone), "closest encloser of %s", at)
			r.proves(proofs, r.covers(at.below(m.encloser)[0]), "no %s", at)
		}
		r.proves(proofs, r.matches(owner, question.Qtype), "no %s at %s", dns.Type(question.Qtype), owner)
	}
	for owner, labels := range wildcards {
		encloser := owner
		for dns.CountLabel(encloser.String()) > labels {
			encloser = encloser.parent()
		}
		r.proves(proofs, func(rr dns.RR) bool {
			if nsec, ok := rr.(*dns.NSEC); ok {
				from, to := wire(r, nsec.Hdr.Name), wire(r, nsec.NextDomain)
				closest := common(owner, from)
				if other := common(owner, to); len(other) > len(closest) {
					closest = other
				}
				return closest == encloser && r.covers(owner)(rr)
			}
			return r.covers(owner.below(encloser)[0])(rr)
		}, "none closer to %s than the wildcard", owner)
	}
}

func (r *resolver) denial(n name) Denial { return r.v.zoneOf(n).signer.denial }

func (r *resolver) proves(proofs []dns.RR, what func(dns.RR) bool, format string, args ...any) {
	if !slices.ContainsFunc(proofs, what) {
		r.Errorf("not proved: "+format+" by %s", append(args, text(proofs))...)
	}
}

// matches says that a record is for just a name, and has not a type.
func (r *resolver) matches(n name, not uint16) func(dns.RR) bool {
	return func(rr dns.RR) bool {
		var types []uint16
		switch rr := rr.(type) {
		case *dns.NSEC:
			if wire(r, rr.Hdr.Name) != n {
				return false
			}
			types = rr.TypeBitMap
		case *dns.NSEC3:
			if label, _, _ := strings.Cut(rr.Hdr.Name, "."); !strings.EqualFold(label, r.hash(n)) || !n.under(wire(r, rr.Hdr.Name).parent()) {
				return false
			}
			types = rr.TypeBitMap
		default:
			return false
		}
		absent := func(t uint16) bool { return !slices.Contains(types, t) }
		return absent(not) && (not == dns.TypeNone || not == dns.TypeDS || absent(dns.TypeCNAME)) && absent(dns.TypeNXNAME)
	}
}

// covers says that a record is before and after a name.
func (r *resolver) covers(n name) func(dns.RR) bool {
	return func(rr dns.RR) bool {
		switch rr := rr.(type) {
		case *dns.NSEC:
			from, to := wire(r, rr.Hdr.Name), wire(r, rr.NextDomain)
			last := n.under(to) // the apex ends the last range
			return compare(from, n) < 0 && (compare(n, to) < 0 || last)
		case *dns.NSEC3:
			from, _, _ := strings.Cut(strings.ToUpper(rr.Hdr.Name), ".")
			after, before := from < r.hash(n), r.hash(n) < rr.NextDomain
			return after && before || rr.NextDomain < from && (after || before)
		}
		return false
	}
}

// provesNothing checks the three parts of RFC 5155 section 8.4.
func (r *resolver) provesNothing(proofs []dns.RR, n name) {
	for encloser, closer := n.parent(), n; ; encloser, closer = encloser.parent(), encloser {
		if slices.ContainsFunc(proofs, r.matches(encloser, dns.TypeNone)) {
			r.proves(proofs, r.covers(closer), "no %s", closer)
			r.proves(proofs, r.covers(encloser.wildcard()), "no wildcard at %s", encloser)
			return
		}
		if len(encloser) == 1 {
			r.Errorf("no closest encloser of %s in %s", n, text(proofs))
			return
		}
	}
}

// truthful checks that a proof denies nothing that is there.
func (r *resolver) truthful(rr dns.RR, qtype uint16) {
	var types []uint16
	switch rr := rr.(type) {
	case *dns.NSEC:
		types = rr.TypeBitMap
	case *dns.NSEC3:
		types = rr.TypeBitMap
		if rr.Iterations != 0 || rr.Salt != "" || rr.Flags != 0 {
			r.Errorf("against RFC 9276: %v", rr)
		}
	default:
		return
	}
	if !slices.IsSorted(types) {
		r.Errorf("types in disorder: %v", rr)
	}
	z := r.v.zoneOf(wire(r, rr.Header().Name))
	if z.name == wire(r, rr.Header().Name) && z.signer.denial == Compact && !slices.Contains(types, dns.TypeSOA) {
		z = r.v.zoneOf(z.name.parent()) // the parent's word on a child that is here too
	}
	if rr.Header().Ttl > z.negative.Hdr.Ttl {
		r.Errorf("RFC 9077: %v", rr)
	}
	for _, n := range r.names(z) {
		if r.covers(n)(rr) {
			r.Errorf("%s is denied by %v", n, rr)
		}
		if !r.matches(n, dns.TypeNone)(rr) {
			continue
		}
		var have []uint16
		node := z.nodes[n]
		if node != nil {
			for _, set := range node.sets {
				have = append(have, set.rtype)
			}
		}
		switch {
		case node != nil && node.cut:
			for _, rtype := range types {
				if rtype != dns.TypeNS && rtype != dns.TypeDS && rtype != dns.TypeRRSIG && rtype != dns.TypeNSEC {
					r.Errorf("%s is of the child's: %v", dns.Type(rtype), rr)
				}
			}
			have = []uint16{dns.TypeNS}
		case r.v.over[n] != "":
			have = append(have, dns.TypeA, dns.TypeAAAA)
		}
		for _, rtype := range have {
			if rtype != qtype && !slices.Contains(types, rtype) {
				r.Errorf("%s has %s, denied by %v", n, dns.Type(rtype), rr)
			}
		}
	}
}

// questions are of every name of a view, and of some beside and below it, for
// types of every kind.
func questions(v *view) (all []dns.Question) {
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeDS,
		dns.TypeCNAME, dns.TypeDNAME, dns.TypeHTTPS, dns.TypeANY, dns.TypeDNSKEY, sample}
	for n := range v.entries {
		text := n.String()
		for _, each := range []string{text, "x." + text, "x.y." + text, "*." + text, "x.*." + text, `\000.` + text, `a\000.` + text, `\[` + text, `*x.` + text} {
			if len(each)-len(text) > 0 && len(n) > 240 {
				continue
			}
			for _, qtype := range types {
				all = append(all, dns.Question{Name: each, Qtype: qtype, Qclass: dns.ClassINET})
			}
		}
	}
	slices.SortFunc(all, func(a, b dns.Question) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Qtype, b.Qtype)) })
	return all
}

func TestSignedAnswersValidate(t *testing.T) {
	for i, test := range []struct {
		about string
		Signing
	}{
		{"compact, ECDSA", Signing{Keys: split(t, dnssec.ECDSAP256SHA256)}},
		{"compact, Ed25519", Signing{Keys: combined(t, dnssec.Ed25519)}},
		{"NSEC3, ECDSA", Signing{Keys: combined(t, dnssec.ECDSAP256SHA256), Denial: NSEC3}},
		{"NSEC3, Ed25519", Signing{Keys: split(t, dnssec.Ed25519), Denial: NSEC3}},
	} {
		t.Run(test.about, func(t *testing.T) {
			v := signedView(t, test.Signing)
			asked := 0
			r := newResolver(t, v, signedAt)
			for j, question := range questions(v) {
				// Of the questions for names that are not there each has an eighth,
				// others than the next: verifying takes its time.
				n := wire(t, question.Name)
				if v.zoneOf(n) == nil || v.entries[n] == nil && (i+j)%8 != 0 {
					continue
				}
				asked++
				q := asker(question.Name, question.Qtype)
				r.validate(question, ask(t, v, q, "203.0.113.1", true), askSecure(t, v, q, signedAt))
				if t.Failed() {
					t.Fatalf("%s %s:\n%v", question.Name, dns.Type(question.Qtype), askSecure(t, v, q, signedAt))
				}
			}
			t.Logf("%d questions", asked)
		})
	}
}

// The keys are at the apex, with the records for the parent, and signed by those
// for that.
func TestKeysAreAtTheApex(t *testing.T) {
	keys := split(t, dnssec.ECDSAP256SHA256)
	v := signedView(t, Signing{Keys: keys, Denial: NSEC3})
	for qtype, want := range map[uint16]int{dns.TypeDNSKEY: 2, dns.TypeCDS: 1, dns.TypeCDNSKEY: 1, dns.TypeNSEC3PARAM: 1} {
		got := ask(t, v, asker("edge.example", qtype), "203.0.113.1", true)
		if len(got.Answer) != want {
			t.Errorf("%s: %v", dns.Type(qtype), got)
		}
		got = askSecure(t, v, asker("edge.example", qtype), signedAt)
		r := newResolver(t, v, signedAt)
		r.section(got.Answer, func(set []dns.RR, labels int) {
			if len(set) != want || labels != 2 {
				t.Errorf("%s: %v", dns.Type(qtype), got)
			}
		})
	}
	ds := v.zones[wire(t, "edge.example.")].signer.dnskey(keys.Entry[0]).ToDS(dns.SHA256)
	got := ask(t, v, asker("edge.example", dns.TypeCDS), "203.0.113.1", true).Answer[0].(*dns.CDS)
	if got.Digest != ds.Digest || got.KeyTag != ds.KeyTag {
		t.Errorf("%v, want %v", got, ds)
	}
}

// A zone that is to be unsigned asks its parent for that (RFC 8078 section 4).
func TestKeysAskToBeDeleted(t *testing.T) {
	keys := combined(t, dnssec.Ed25519)
	keys.Delete, keys.TTL = true, time.Minute
	v := signedView(t, Signing{Keys: keys})
	for qtype, want := range map[uint16]string{dns.TypeCDS: "edge.example. 60 CDS 0 0 0 00", dns.TypeCDNSKEY: "edge.example. 60 CDNSKEY 0 3 0 AA=="} {
		got := askSecure(t, v, asker("edge.example", qtype), signedAt)
		if len(got.Answer) != 2 || text(got.Answer[:1]) != want {
			t.Errorf("%v, want %s", got, want)
		}
		newResolver(t, v, signedAt).verify(got.Answer[:1], got.Answer)
	}
}

// The record that stands for all others is in no cache for longer than those may
// be.
func TestMadeUpRecordHeedsTheLongestTTL(t *testing.T) {
	zones := testZones()
	zones[1].Signing.MaxTTL = 10 * time.Minute
	loaded, err := loadZones(zones)
	if err != nil {
		t.Fatal(err)
	}
	v, err := newView(loaded, table(t, steering()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, v, asker("apex.example", dns.TypeANY), "203.0.113.1", true); text(got.Answer) != `apex.example. 600 HINFO "RFC8482" ""` {
		t.Errorf("%v", got)
	}
}

// Who can take NXDOMAIN with a compact denial gets it (RFC 9824 section 5).
func TestCompactRestoresTheRcode(t *testing.T) {
	v := signedView(t, Signing{Keys: combined(t, dnssec.Ed25519)})
	q := asker("nope.edge.example", dns.TypeA)
	q.SetEdns0(1232, true)
	q.IsEdns0().SetCo()
	got := askSecure(t, v, q, signedAt)
	if got.Rcode != dns.RcodeNameError || !got.IsEdns0().Co() || !strings.Contains(text(got.Ns), `nope.edge.example. 60 NSEC \000.nope.edge.example. RRSIG NSEC NXNAME`) {
		t.Errorf("%v", got)
	}
	q = asker("mail.edge.example", dns.TypeAAAA)
	q.SetEdns0(1232, true)
	q.IsEdns0().SetCo()
	if got = askSecure(t, v, q, signedAt); got.Rcode != dns.RcodeSuccess || !strings.Contains(text(got.Ns), `mail.edge.example. 60 NSEC \000.mail.edge.example. A RRSIG NSEC`) {
		t.Errorf("%v", got)
	}
}

// NSEC and RRSIG are there for who asks, though no zone file has them.
func TestExplicitQuestions(t *testing.T) {
	for _, denial := range []Denial{Compact, NSEC3} {
		v := signedView(t, Signing{Keys: combined(t, dnssec.Ed25519), Denial: denial})
		got := askSecure(t, v, asker("mail.edge.example", dns.TypeRRSIG), signedAt)
		if len(got.Answer) != 1 || got.Answer[0].Header().Rrtype != dns.TypeRRSIG {
			t.Errorf("RRSIG: %v", got)
		}
		got = askSecure(t, v, asker("mail.edge.example", dns.TypeNSEC), signedAt)
		if denial == Compact && text(got.Answer[:1]) != `mail.edge.example. 60 NSEC \000.mail.edge.example. A RRSIG NSEC` || denial == NSEC3 && len(got.Answer) != 0 {
			t.Errorf("NSEC: %v", got)
		}
	}
}

// Signatures are the same on all servers, change long before they end, and at
// other times for other names.
func TestSignaturesAreRenewed(t *testing.T) {
	how := Signing{Keys: combined(t, dnssec.ECDSAP256SHA256), Validity: 8 * 24 * time.Hour}
	one, two := signedView(t, how), signedView(t, how)
	renewed := make(map[string]uint32)
	for _, n := range []string{"mail", "ns1", "a.b.deep", "host.new"} {
		var last []byte
		count := 0
		const step = 3600
		for now := uint32(signedAt); now < signedAt+8*24*3600; now += step {
			q := asker(n+".edge.example", dns.TypeA)
			got, other := askSecure(t, one, q, now), askSecure(t, two, q, now)
			a, _ := got.Pack()
			b, _ := other.Pack()
			if !bytes.Equal(a[2:], b[2:]) {
				t.Fatalf("%v\n%v", got, other)
			}
			newResolver(t, one, now).validate(q.Question[0], ask(t, one, q, "203.0.113.1", true), got)
			for _, rr := range slices.Concat(got.Answer, got.Ns) {
				if sig, ok := rr.(*dns.RRSIG); ok && sig.Expiration-now < 6*24*3600 {
					t.Fatalf("near its end: %v", sig)
				}
			}
			if last != nil && !bytes.Equal(a[2:], last) {
				if count++; count == 1 {
					renewed[n] = now
				}
			}
			last = a[2:]
		}
		if count < 3 || count > 8 {
			t.Errorf("%s: renewed %d times in four terms", n, count)
		}
	}
	if all := slices.Sorted(func(yield func(uint32) bool) {
		for _, at := range renewed {
			if !yield(at) {
				return
			}
		}
	}); all[0] == all[len(all)-1] {
		t.Errorf("all renewed at once: %v", renewed)
	}
}

// The fast path gives the signatures of the time that it is asked at.
func TestPackedSignaturesAreRenewed(t *testing.T) {
	v := signedView(t, Signing{Keys: combined(t, dnssec.Ed25519), Validity: 4 * time.Hour})
	for _, q := range []*dns.Msg{secureAsker("mail.edge.example", dns.TypeAAAA), secureAsker("hop.edge.example", dns.TypeA), secureAsker("www.edge.example", dns.TypeA)} {
		msg, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for now := uint32(signedAt); now < signedAt+4*3600; now += 60 {
			req := request{msg: msg, from: netip.MustParseAddr("203.0.113.1"), now: now}
			var read fastQuery
			fast, _, ok := v.respondFast(&read, req, make([]byte, 0, udpPayload))
			if slow := v.respond(req).msg; !ok || !bytes.Equal(fast, slow) {
				t.Fatalf("%d:\nfast %v %x\nslow %x", now, ok, fast, slow)
			}
			seen[string(fast)] = true
		}
		if len(seen) < 4 {
			t.Errorf("%v: %d answers in four terms", q.Question, len(seen))
		}
	}
}

func TestTerms(t *testing.T) {
	for _, test := range []struct{ a, b, want term }{
		{term{}, term{1, 2}, term{1, 2}},
		{term{100, 200}, term{150, 250}, term{150, 200}},
		{term{100, 200}, term{120, 130}, term{120, 130}},
		{term{math.MaxUint32 - 5, 20}, term{math.MaxUint32 - 2, 10}, term{math.MaxUint32 - 2, 10}}, // RFC 1982
	} {
		if one, other := test.a.both(test.b), test.b.both(test.a); one != test.want || other != test.want {
			t.Errorf("%v and %v: %v, %v", test.a, test.b, one, other)
		}
	}
	if late := (term{math.MaxUint32 - 5, 20}); !late.at(math.MaxUint32) || !late.at(3) || late.at(20) || late.at(math.MaxUint32-6) {
		t.Error("times go around")
	}
}

// Addresses beside a referral have signatures if they are the zone's to give.
func TestAdditionalSignatures(t *testing.T) {
	zones := testZones()
	zones[1].Text += "@ 300 A 192.0.2.98\nns 300 A 192.0.2.53\nns 300 AAAA 2001:db8::53\nother 300 NS ns.other\nns.other 300 A 192.0.2.54\n" +
		"child 300 NS ns.child\nchild 300 NS apex.example.\nchild 300 NS ns\nchild 300 NS ns.other\nns.child 300 A 192.0.2.55\n"
	loaded, err := loadZones(zones)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := newView(loaded, table(t, steering()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := signed(t, plain, Signing{Keys: combined(t, dnssec.Ed25519)})
	got := askSecure(t, v, asker("child.apex.example", dns.TypeA), signedAt)
	var have []string
	newResolver(t, v, signedAt).section(got.Extra[:len(got.Extra)-1], func(set []dns.RR, labels int) {
		have = append(have, fmt.Sprintf("%s %s %v", set[0].Header().Name, dns.Type(set[0].Header().Rrtype), labels >= 0))
	})
	slices.Sort(have)
	if want := []string{"apex.example. A false", "ns.apex.example. A true", "ns.apex.example. AAAA true", "ns.child.apex.example. A false", "ns.other.apex.example. A false"}; !slices.Equal(have, want) {
		t.Errorf("%v, want %v", have, want)
	}
}

func TestKeysThatCannotSign(t *testing.T) {
	good := combined(t, dnssec.Ed25519)
	with := func(change func(k *dnssec.Key)) *dnssec.KeySet {
		k := *good.Zone[0]
		change(&k)
		all := []*dnssec.Key{&k}
		return &dnssec.KeySet{Published: all, Zone: all, Entry: all}
	}
	tag := good.Zone[0].Tag()
	for want, how := range map[string]Signing{
		"no key for each of the records, the keys and to be published": {Keys: &dnssec.KeySet{Published: good.Published}},
		"no way of denial has the number 7":                            {Keys: good, Denial: 7},
		"signatures valid for 1m0s; at least 1h0m0s":                   {Validity: time.Minute},
		fmt.Sprintf("key %d: the private key is missing", tag):         {Keys: with(func(k *dnssec.Key) { k.Signer = nil })},
		"does not sign":                {Keys: with(func(k *dnssec.Key) { k.Signer = newKey(t, 256, dnssec.Ed25519).Signer })},
		"algorithm 8 is not supported": {Keys: with(func(k *dnssec.Key) { k.Algorithm = 8 })},
	} {
		_, err := newSigner(wire(t, "edge.example"), how.Keys, how, newSignatures(newMetrics(nil)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// What a denial costs for a name that was asked for before, and for one that is
// made up.
func BenchmarkDenial(b *testing.B) {
	for about, how := range map[string]Signing{
		"compact, ECDSA":   {Keys: combined(b, dnssec.ECDSAP256SHA256)},
		"compact, Ed25519": {Keys: combined(b, dnssec.Ed25519)},
		"NSEC3, ECDSA":     {Keys: combined(b, dnssec.ECDSAP256SHA256), Denial: NSEC3},
	} {
		v := signedView(b, how)
		made := 0
		for kind, next := range map[string]func() string{
			"again":   func() string { return "nope.edge.example" },
			"made up": func() string { made++; return fmt.Sprintf("x%d.edge.example", made) },
		} {
			b.Run(about+", "+kind, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					msg, err := secureAsker(next(), dns.TypeA).Pack()
					if err != nil {
						b.Fatal(err)
					}
					v.respond(request{msg: msg, from: netip.MustParseAddr("203.0.113.1"), now: signedAt})
				}
			})
		}
	}
}
