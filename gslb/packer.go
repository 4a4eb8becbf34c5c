package gslb

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/netip"
	"reflect"
	"sync/atomic"

	"github.com/miekg/dns"
)

// packer packs the answers of a view. It gets them from view.resolve and pack,
// so that it knows nothing of its own about what is right.
type packer struct {
	v *view
	// negatives are the negative answers that the names of a zone share.
	negatives map[negativeKey]*packed
	room      *atomic.Int64 // of kept
}

func newPacker(v *view) *packer {
	p := &packer{v, make(map[negativeKey]*packed), new(atomic.Int64)}
	p.room.Store(maxKept)
	return p
}

type negativeKey struct {
	zone  *zone
	rcode int
}

// packZones packs the answers of a view without a steering table. Aliases are
// left out, because they may lead to a name that will be steered.
func packZones(v *view) entries {
	p := newPacker(v)
	e := make(entries)
	for _, z := range v.zones {
		if z.unavailable {
			e[z.name] = new(entry)
		}
		for n, node := range z.nodes {
			if v.zoneOf(n) != z {
				continue // in a zone below this one
			}
			if node.get(dns.TypeCNAME) == nil {
				e[n] = p.entry(z, n)
			}
			for _, set := range node.sets {
				for _, rr := range set.records {
					keepOut(e, z, rr)
				}
			}
		}
	}
	return e
}

// packSteered packs what is different in a view with steered names: those, the
// names above them, which exist through them, and all aliases.
func packSteered(v *view) entries {
	p := newPacker(v)
	e := make(entries)
	for n := range v.over {
		z := v.zoneOf(n)
		e[n] = p.entry(z, n)
		if e[z.name] == nil { // a steered wildcard may be right below it
			e[z.name] = p.entry(z, z.name)
		}
	}
	for _, z := range v.zones {
		for _, n := range z.aliases {
			if v.zoneOf(n) == z {
				e[n] = p.entry(z, n)
			}
		}
	}
	return e
}

// keepOut leaves names to the slow path that a record mentions and that do not
// exist. Names in answers are compressed by each other: if a record and the
// question share more of their names than an entry knows of, the answer looks
// different. Names that exist have entries of their own.
func keepOut(e entries, z *zone, rr dns.RR) {
	for _, target := range compressible(rr) {
		n, err := parseName(target)
		if err != nil || !n.under(z.name) {
			continue
		}
		for _, step := range n.below(z.name) {
			if z.nodes[step] == nil && e[step] == nil {
				e[step] = new(entry)
			}
		}
	}
}

// compressible returns the names in the data of a record that may be compressed.
func compressible(rr dns.RR) (names []string) {
	data := reflect.Indirect(reflect.ValueOf(rr))
	for i := range data.NumField() {
		if data.Type().Field(i).Tag.Get("dns") == "cdomain-name" {
			names = append(names, data.Field(i).String())
		}
	}
	return names
}

// Two labels that no zone is likely to have. They stand for any.
const (
	shortLabel name = "\x01\x00"
	longLabel  name = "\x02\x00\x00"
)

// sample is the first type of those for private use. The answer to one that is
// not at a name is that to every type that is not there.
const sample uint16 = 65280

// entry packs the answers for a name of a zone and for those below it.
func (p *packer) entry(z *zone, n name) *entry {
	e := new(entry)
	m := z.find(n, p.v.over, false)
	e.at = p.answers(z, m, func(qtype uint16) (*packed, *kept) {
		out := p.at(z, n, qtype)
		if out == nil || !out.secure {
			return out, nil
		}
		return out, &kept{room: p.room}
	})

	short, long := shortLabel+n, longLabel+n
	if len(long) > 255 || p.exists(z, short) || p.exists(z, long) {
		return e
	}
	m = z.find(short, p.v.over, false)
	if m.outcome == found && m.node.get(dns.TypeCNAME) != nil {
		return e // what follows a wildcard's alias may share any name with the question
	}
	e.below = p.answers(z, m, func(qtype uint16) (*packed, *kept) { return p.below(z, n, qtype), nil })
	return e
}

func (p *packer) exists(z *zone, n name) bool {
	return p.v.zones[n] != nil || z.at(n, p.v.over).outcome != noSuchName
}

// answers packs the answer to each type for the name or names whose search ended
// at m.
func (p *packer) answers(z *zone, m match, pack func(qtype uint16) (*packed, *kept)) (a answers) {
	add := func(qtype uint16) {
		out, signed := pack(qtype)
		a.types = append(a.types, typed{qtype, out, signed})
	}
	if m.outcome == redirected {
		return a // each name below a DNAME has an answer of its own
	}
	if z.signer != nil || z.presigned != nil {
		a.types = append(a.types, typed{qtype: dns.TypeNSEC}, typed{qtype: dns.TypeRRSIG}) // seldom asked for
	}
	if m.outcome == found {
		steered := p.v.over[m.owner] != "" || p.v.isAlias(z, m.owner)
		if steered {
			add(dns.TypeA)
			add(dns.TypeAAAA)
		}
		alias := m.node.get(dns.TypeCNAME) != nil
		if alias {
			// Where it leads decides which types there are; these are asked for.
			add(dns.TypeA)
			add(dns.TypeAAAA)
			add(dns.TypeHTTPS)
		}
		if m.node != nil {
			for _, set := range m.node.sets {
				if !ofSigning(set.rtype) && (!steered || set.rtype != dns.TypeA && set.rtype != dns.TypeAAAA) {
					add(set.rtype)
				}
			}
		}
		if z.signer != nil && m.owner == z.name {
			for _, set := range z.signer.sets {
				add(set.rtype)
			}
		}
		if alias {
			return a
		}
	}
	absent := sample
	for m.node.get(absent) != nil {
		absent++
	}
	a.other.packed, a.other.signed = pack(absent)
	return a
}

// at packs the answer to a question for one name; nil if there is none to pack.
func (p *packer) at(z *zone, n name, qtype uint16) *packed {
	q, r := p.resolve(n, qtype)
	switch {
	case r.steered != nil:
		return p.steered(q, r)
	case negative(z, r) && !z.mentions(n):
		return p.negative(z, r)
	}
	msg := pack(q, r, nil, udpPayload)
	if msg == nil {
		return nil
	}
	out := newPacked(msg, len(n))
	out.secure = r.secure
	return out
}

// below packs the answer to a question for any name below n.
func (p *packer) below(z *zone, n name, qtype uint16) *packed {
	q, r := p.resolve(shortLabel+n, qtype)
	switch {
	case r.steered != nil:
		return p.steered(q, r)
	case negative(z, r) && !z.mentions(n):
		return p.negative(z, r)
	}
	longer, s := p.resolve(longLabel+n, qtype)
	out := movable(q, r, longer, s)
	if out != nil {
		out.secure = r.secure
	}
	return out
}

func (p *packer) resolve(n name, qtype uint16) (*query, result) {
	q := &query{asked: true, name: n, spelled: []byte(n), qtype: qtype, qclass: dns.ClassINET}
	return q, p.v.resolve(q, netip.Prefix{}, 0, 0)
}

// negative reports whether all that an answer has is its zone's SOA record.
func negative(z *zone, r result) bool {
	return len(r.answer) == 0 && len(r.authority) == 1 && r.authority[0] == dns.RR(z.negative) && r.steered == nil
}

// mentions reports whether the zone's SOA record has a name that shares more with
// n than the zone's name.
func (z *zone) mentions(n name) bool {
	if n == z.name {
		return false
	}
	top := n.below(z.name)[0]
	for _, target := range compressible(z.negative) {
		if m, err := parseName(target); err == nil && m.under(top) {
			return true
		}
	}
	return false
}

// negative returns the negative answer of a zone, which is the same for all the
// names that the SOA record does not mention.
func (p *packer) negative(z *zone, r result) *packed {
	key := negativeKey{z, r.rcode}
	out, done := p.negatives[key]
	if done || len(longLabel+z.name) > 255 || z.mentions(shortLabel+z.name) || z.mentions(longLabel+z.name) {
		return out
	}
	q := query{asked: true, name: shortLabel + z.name, spelled: []byte(shortLabel + z.name)}
	other := query{asked: true, name: longLabel + z.name, spelled: []byte(longLabel + z.name)}
	if out = movable(&q, r, &other, r); out != nil {
		out.secure = r.secure
	}
	p.negatives[key] = out
	return out
}

// newPacked takes the answer out of a message without an OPT record.
func newPacked(msg []byte, nameLength int) *packed {
	at := func(off int) uint16 { return binary.BigEndian.Uint16(msg[off:]) }
	return &packed{
		flags:  at(2),
		counts: [3]uint16{at(6), at(8), at(10)},
		body:   bytes.Clone(msg[headerSize+nameLength+4:]),
		base:   nameLength,
	}
}

// movable packs an answer so that it serves for names of all lengths. s is the
// answer for a name that is longer by one octet, so that pointers are what
// differs, by one.
func movable(q *query, r result, longer *query, s result) *packed {
	short, long := pack(q, r, nil, udpPayload), pack(longer, s, nil, math.MaxUint16)
	if short == nil || len(long) != len(short)+1 {
		return nil
	}
	out := newPacked(short, len(q.name))
	want := newPacked(long, len(longer.name)).body
	for i := 0; i+1 < len(want); i++ {
		was, is := binary.BigEndian.Uint16(out.body[i:]), binary.BigEndian.Uint16(want[i:])
		if was >= pointerBits && is == was+1 {
			out.moving = append(out.moving, uint16(i))
			i++
		}
	}
	if !bytes.Equal(out.appendTo(nil, len(longer.name)), want) {
		return nil
	}
	return out
}

// pointerBits begin a compression pointer, RFC 1035 section 4.1.4.
const pointerBits = 0xc000

// steered packs what comes before the addresses of a steered name: the aliases
// that lead there.
func (p *packer) steered(q *query, r result) *packed {
	chain := r.answer[:len(r.answer)-len(r.steered.Addrs)]
	last, at := q.name.String(), q.name
	if len(chain) > 0 {
		alias, ok := chain[len(chain)-1].(*dns.CNAME)
		if !ok {
			return nil
		}
		last = alias.Target
		var err error
		if at, err = parseName(last); err != nil {
			return nil
		}
	}
	// An address shows how messages write the owner.
	dummy := &dns.A{Hdr: dns.RR_Header{Name: last, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{0, 0, 0, 0}}
	const dummySize = 2 + 10 + 4
	msg := pack(q, result{authoritative: true, answer: append(chain[:len(chain):len(chain)], dummy)}, nil, udpPayload)
	if len(msg) < headerSize+len(q.name)+4+dummySize {
		return nil
	}
	out := newPacked(msg, len(q.name))
	head := len(out.body) - dummySize
	out.owner = binary.BigEndian.Uint16(out.body[head:])
	if out.owner < pointerBits {
		return nil
	}
	out.body = out.body[:head]
	out.counts[0]--
	z := p.v.zoneFor(at, q.qtype)
	out.steered = p.v.over[z.find(at, p.v.over, false).owner]
	out.family = family(q.qtype)
	out.secure = r.secure
	return out
}
