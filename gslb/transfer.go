package gslb

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// Transfer says who may have a copy of a zone (AXFR, RFC 5936; IXFR, RFC 1995)
// and who is told when it changes (NOTIFY, RFC 1996). Copies have what the zone
// file says, or the primary: they do not steer, and nothing is signed for them.
type Transfer struct {
	// Allow are the networks that may have it, and Keys the names of the keys that
	// a request must be signed by one of. An empty list asks for nothing, but both
	// empty allow nobody.
	Allow []netip.Prefix
	Keys  []string
	// Notify are told.
	Notify []Peer
}

// Peer is another server, and the name of the key to sign with, "" for none.
type Peer struct {
	Address netip.AddrPort
	Key     string
}

// allows reports whether a request may have the zone.
func (t *Transfer) allows(from netip.Addr, sig *signature) bool { return t.objection(from, sig) == "" }

// objection says why a request may not have the zone, "" if it may.
func (t *Transfer) objection(from netip.Addr, sig *signature) string {
	if t == nil || len(t.Allow)+len(t.Keys) == 0 {
		return "nobody may copy this zone"
	}
	if len(t.Allow) > 0 && !slices.ContainsFunc(t.Allow, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return "not from a network of transfer.allow"
	}
	if len(t.Keys) == 0 || sig != nil && slices.ContainsFunc(t.Keys, func(k string) bool {
		return dns.CanonicalName(k) == dns.CanonicalName(sig.tsig.Hdr.Name)
	}) {
		return ""
	}
	return "not signed by a key of transfer.keys"
}

// maxHistory is how many versions of a zone can be brought up to date by IXFR.
const maxHistory = 16

// change is what differs between two versions of a zone.
type change struct {
	from, to       *dns.SOA
	removed, added []dns.RR
}

// remember gives a zone the history of the version before it, and what changed
// since. A version that is not newer has no history: who has it must have all.
func (z *zone) remember(before *zone) {
	if before == nil || before.unavailable || z == before || z.history != nil {
		return
	}
	from, to := before.soa(), z.soa()
	if !newer(to.Serial, from.Serial) {
		return
	}
	had := make(map[string]bool)
	for _, rr := range before.all() {
		had[rr.String()] = true
	}
	c := change{from: from, to: to}
	for _, rr := range z.all() {
		if text := rr.String(); had[text] {
			delete(had, text)
		} else {
			c.added = append(c.added, rr)
		}
	}
	for _, rr := range before.all() {
		if had[rr.String()] {
			c.removed = append(c.removed, rr)
		}
	}
	z.history = append(slices.Clone(before.history), c)
	if len(z.history) > maxHistory {
		z.history = z.history[len(z.history)-maxHistory:]
	}
}

// stale reports whether a zone that may be copied is not what it was, and has no
// newer serial: those who have a copy would not notice.
func (z *zone) stale(before *zone) bool {
	if before == nil || z == before || z.transfer == nil || z.unavailable || before.unavailable || newer(z.soa().Serial, before.soa().Serial) {
		return false
	}
	had := make(map[string]bool)
	for _, rr := range append(before.all(), before.soa()) {
		had[rr.String()] = true
	}
	now := append(z.all(), z.soa())
	return len(now) != len(had) || slices.ContainsFunc(now, func(rr dns.RR) bool { return !had[rr.String()] })
}

// newer reports whether serial a comes after b, RFC 1982.
func newer(a, b uint32) bool { return a != b && int32(a-b) > 0 }

func (z *zone) soa() *dns.SOA { return z.nodes[z.name].get(dns.TypeSOA)[0].(*dns.SOA) }

// all returns the records of a zone without its SOA, those of a name together.
func (z *zone) all() []dns.RR {
	records := recordsOf(z.nodes)
	if z.presigned != nil {
		records = append(records, recordsOf(z.presigned.hashes)...)
	}
	return records
}

func recordsOf(nodes map[name]*node) (records []dns.RR) {
	for _, n := range slices.Sorted(maps.Keys(nodes)) {
		for _, set := range nodes[n].sets {
			if set.rtype != dns.TypeSOA {
				records = append(records, set.records...)
			}
		}
	}
	return records
}

// since returns the records of an IXFR answer to who has a serial, RFC 1995
// section 4: nothing but the SOA if that is the current one, and the whole zone
// if the history does not go back so far.
func (z *zone) since(serial uint32) []dns.RR {
	soa := z.soa()
	if !newer(soa.Serial, serial) {
		return []dns.RR{soa}
	}
	at := slices.IndexFunc(z.history, func(c change) bool { return c.from.Serial == serial })
	if at < 0 {
		return z.whole()
	}
	records := []dns.RR{soa}
	for _, c := range z.history[at:] {
		records = append(append(records, c.from), c.removed...)
		records = append(append(records, c.to), c.added...)
	}
	return append(records, soa)
}

// whole returns the records of an AXFR answer.
func (z *zone) whole() []dns.RR {
	soa := z.soa()
	return append(append([]dns.RR{soa}, z.all()...), soa)
}

// transferSize is how much of a zone goes into one message: compression reaches
// no further than 16 KB.
const transferSize = 16 << 10

// transfer answers a request for a zone, with as many messages as it needs, which
// send sends. It reports false if the request is not for one.
func (v *view) transfer(req *request, sig *signature, send func([]byte) error) (out response, ok bool) {
	q, rcode, ok := readQuery(req.msg)
	if !ok || rcode != dns.RcodeSuccess || q.qtype != dns.TypeAXFR && q.qtype != dns.TypeIXFR || q.qclass != dns.ClassINET {
		return response{}, false
	}
	z := v.zones[q.name]
	if z == nil || z.unavailable || req.http || !z.transfer.allows(req.from, sig) {
		return response{}, false // refused like any other
	}
	var records []dns.RR
	switch serial, known := asked(req.msg); {
	case q.qtype == dns.TypeAXFR && req.tcp:
		records = z.whole()
	case q.qtype == dns.TypeAXFR, !known:
		return response{}, false
	case req.tcp:
		records = z.since(serial)
	default:
		records = []dns.RR{z.soa()} // come over TCP, RFC 1995 section 2
	}
	out = response{asked: true, name: q.name, qtype: q.qtype, known: true}
	for len(records) > 0 {
		m := dns.Msg{MsgHdr: dns.MsgHdr{Id: q.id, Response: true, Authoritative: true}, Compress: true}
		m.Question = []dns.Question{{Name: q.name.String(), Qtype: q.qtype, Qclass: q.qclass}}
		n, size := 0, 0
		for ; n < len(records) && size < transferSize; n++ {
			size += dns.Len(records[n])
		}
		m.Answer, records = records[:n], records[n:]
		var msg []byte
		var err error
		if sig != nil {
			msg, err = sig.sign(&m)
		} else {
			msg, err = m.Pack()
		}
		if err != nil || send(msg) != nil {
			out.failed = true
			break // the client sees that the last SOA is missing
		}
		out.msg = msg
	}
	return out, true
}

// asked returns the serial in the authority section of a request for changes.
func asked(msg []byte) (serial uint32, known bool) {
	var m dns.Msg
	if m.Unpack(msg) != nil || len(m.Ns) != 1 {
		return 0, false
	}
	soa, ok := m.Ns[0].(*dns.SOA)
	if !ok {
		return 0, false
	}
	return soa.Serial, true
}

// opcode is that of a message with a header.
func opcode(msg []byte) int { return int(binary.BigEndian.Uint16(msg[2:]) >> opcodeAt & 0xf) }
