package gslb

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

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
