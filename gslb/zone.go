package gslb

import (
	"slices"
	"time"

	"github.com/miekg/dns"
)

// zone is the content of one zone, as its file says it. It is never changed
// after it was loaded.
type zone struct {
	name   name
	source string // the file, or the zone's name if it came as text
	// nodes are all names of the zone that exist, empty non-terminals included
	// (RFC 4592 section 2.2.2).
	nodes map[name]*node
	// negative is the SOA as negative answers carry it: its TTL is how long they
	// may be kept (RFC 2308 section 3).
	negative *dns.SOA
	records  int
	// alias is the name whose addresses the apex has; "" for its own.
	alias name
	// unavailable is set for a copy that has not come yet, or is too old, and for a
	// file that was bad at the start: questions for it fail. It has no nodes.
	unavailable bool
	// bad is what is wrong with the file, if that is why.
	bad error
	// seen is when a primary was last known to have it, if it is from a file that
	// keeps a copy; else zero.
	seen time.Time
	// transfer says who may have a copy; nil for nobody.
	transfer *Transfer
	// history is what changed from version to version, the last one last.
	history []change
	// aliases are the names with a CNAME record.
	aliases []name
	// signing says how it is signed, and signer signs it; nil if it is not signed.
	signing Signing
	signer  *signer
	// inPlace is what the view has instead of a zone whose keys are awaited.
	inPlace *zone
	// presigned is what it has come signed with; nil if it has not.
	presigned *presigned
}

// node is what exists at one name.
type node struct {
	sets []rrset
	// cut is set where the zone is delegated away: there are NS records and it is
	// not the apex.
	cut bool
}

// rrset is the records of one type.
type rrset struct {
	rtype   uint16
	records []dns.RR
	line    int // of the first one, in the zone's file
}

// get returns the records of a type, nil if there are none. A nil node has none.
func (n *node) get(rtype uint16) []dns.RR {
	if n == nil {
		return nil
	}
	for i := range n.sets {
		if n.sets[i].rtype == rtype {
			return n.sets[i].records
		}
	}
	return nil
}

// overlay is what steering adds to the zones: for every steered name its name in
// the steering table, and "" for every name between one and its apex.
type overlay map[name]string

// outcome says how a name was found.
type outcome int

const (
	noSuchName outcome = iota
	found              // the name itself, or the wildcard that stands for it
	delegated          // at or below a zone cut
	redirected         // below a DNAME
)

// match is where a search in a zone ended.
type match struct {
	outcome outcome
	// owner is the name that the search ended at: of the found records, which
	// may be a wildcard, of the zone cut or of the DNAME.
	owner name
	node  *node // nil if only the overlay has the name
	// encloser is the closest encloser (RFC 4592 section 3.3.1) of a name that is
	// not there, found by a wildcard or not at all; else "".
	encloser name
}

// find looks for a name under the zone's, as RFC 1034 section 4.3.2 and RFC 4592
// section 3.3 say. ds is set if the DS records of a zone cut are asked for, which
// are on this side of it (RFC 4035 section 3.1.4.1).
func (z *zone) find(n name, over overlay, ds bool) match {
	encloser := match{outcome: found, owner: z.name, node: z.nodes[z.name]}
	for _, step := range n.below(z.name) {
		if dnames := encloser.node.get(dns.TypeDNAME); dnames != nil {
			encloser.outcome = redirected
			return encloser
		}
		at := z.at(step, over)
		if at.outcome == noSuchName {
			at = z.at(encloser.owner.wildcard(), over)
			at.encloser = encloser.owner
			return at
		}
		if at.node != nil && at.node.cut && !(ds && step == n) {
			at.outcome = delegated
			return at
		}
		encloser = at
	}
	return encloser
}

// at returns whether there is just this name.
func (z *zone) at(n name, over overlay) match {
	node := z.nodes[n]
	if _, steered := over[n]; !steered && node == nil {
		return match{}
	}
	return match{outcome: found, owner: n, node: node}
}

// get returns the records of a type at a name that was found, nil if there are
// none: at the apex also those that it has because it is signed.
func (z *zone) get(m match, rtype uint16) []dns.RR {
	if z.signer != nil && m.owner == z.name {
		if set := z.signer.get(rtype); set != nil {
			return set
		}
	}
	return m.node.get(rtype)
}

// glue returns the addresses that the zone has for the targets of NS records at a
// cut: first those of targets below the cut, which nobody can reach without.
func (z *zone) glue(cut name, servers []dns.RR) (records []dns.RR, needed int) {
	var others []dns.RR
	for _, rr := range servers {
		target, err := parseName(rr.(*dns.NS).Ns)
		if err != nil || !target.under(z.name) {
			continue
		}
		node := z.nodes[target]
		each := slices.Concat(node.get(dns.TypeA), node.get(dns.TypeAAAA))
		if target.under(cut) {
			records = append(records, each...)
		} else {
			others = append(others, each...)
		}
	}
	return append(records, others...), len(records)
}
