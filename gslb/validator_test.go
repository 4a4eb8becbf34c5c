package gslb

import (
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

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
