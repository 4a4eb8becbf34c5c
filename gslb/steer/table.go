package steer

import (
	"net/netip"
	"slices"
	"time"
)

// Table answers queries for the steered names it was built with. The nil Table
// has no names.
type Table struct {
	names map[string]*name
	pops  []Pop
	input Input // for Explain
}

// name is a steered name, decided as far as it can be ahead of queries.
type name struct {
	ttl      time.Duration
	families [families]*verdict
}

// verdict is what a name does for one family. One of these forms applies: always,
// if it is not nil; else the tries' decision, if they are not nil; else the lot,
// drawn for the subnet if the reason is BySubnet.
type verdict struct {
	// always is the reply to every query.
	always *choice
	reason Reason
	// choices are the single candidates, by index; a lot draws one of them.
	choices []*choice
	lot     lot
	tries   *tries

	decisions Decisions // the same, for who wants to see it all
}

// tries decide by the client's address.
type tries struct {
	// of are by the family of the client. A decision is an index of the choices, or
	// their number for the lot, or above that for one of the splits.
	of     [families]trie
	splits []lot // drawn for the subnet

	regions Regions // these tries
}

// choice is the part of a reply that belongs to its PoPs.
type choice struct {
	pops  []string
	addrs []netip.Addr
}

// Names returns the steered names in canonical form, sorted.
func (t *Table) Names() []string {
	if t == nil {
		return nil
	}
	names := make([]string, 0, len(t.names))
	for name := range t.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Pops returns the PoPs that the table was built with. The caller must not
// change what it returns.
func (t *Table) Pops() []Pop {
	if t == nil {
		return nil
	}
	return t.pops
}

// Answer decides a query; it reports false if the name is not a steered one. It
// does not allocate.
func (t *Table) Answer(q Query) (Reply, bool) {
	if t == nil {
		return Reply{}, false
	}
	n := t.names[q.Name]
	if n == nil || q.Family >= families {
		return Reply{}, false
	}
	v := n.families[q.Family]
	reply := Reply{TTL: n.ttl, Reason: v.reason}
	switch {
	case v.always != nil:
		reply.Pops, reply.Addrs = v.always.pops, v.always.addrs
		return reply, true
	case v.tries == nil && v.reason != BySubnet:
		c := v.choices[v.lot.draw(q.Random)]
		reply.Pops, reply.Addrs = c.pops, c.addrs
		return reply, true
	}
	decision, splits := int32(len(v.choices)), []lot(nil)
	if q.Client.IsValid() && q.Client.Bits() > 0 {
		addr := q.Client.Masked().Addr()
		switch {
		case v.tries != nil:
			family := IPv6
			if addr.Is4() {
				family = IPv4
			}
			decision, reply.Scope = v.tries.of[family].lookup(addr)
			splits = v.tries.splits
		case len(v.lot) == 1:
			decision = v.lot[0].candidate
		default:
			var random uint64
			reply.Scope, random = subnetOf(addr)
			decision = v.lot.draw(random)
		}
		if split := int(decision) - len(v.choices) - 1; split >= 0 {
			length, random := subnetOf(addr)
			reply.Scope = max(reply.Scope, length)
			decision = splits[split].draw(random)
		}
	}
	if int(decision) == len(v.choices) {
		decision, reply.Reason = v.lot.draw(q.Random), NoPlace
	}
	c := v.choices[decision]
	reply.Pops, reply.Addrs = c.pops, c.addrs
	return reply, true
}
