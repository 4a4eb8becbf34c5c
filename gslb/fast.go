package gslb

import (
	"encoding/binary"
	"net/netip"
	"time"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// fastQuery is a question of the usual kind, read without allocation: one that
// the fast path can answer if the answer is packed.
type fastQuery struct {
	lowered [256]byte // the name in lower case, and room
	named   int       // the name's length
	qtype   uint16

	edns    bool
	do      bool
	compact bool // as in query
	udpSize uint16
	subnet  []byte // the option's data, in the message; nil without one
	client  netip.Prefix
	nsid    bool
	cookie  []byte // the option's data, in the message; nil without one
}

// optHeader is the length of an OPT record without options.
const optHeader = 11

// read takes a query. It reports false if anything in it is unusual or wrong.
func (q *fastQuery) read(msg []byte) bool {
	const oneQuestion = 1 << 32                     // and no answer, no authority
	if len(msg) < headerSize || msg[2]&0xf8 != 0 || // a response, or an opcode other than QUERY
		binary.BigEndian.Uint64(msg[4:])>>16 != oneQuestion || msg[10] != 0 || msg[11] > 1 {
		return false
	}
	end := q.readName(msg)
	if end == 0 || end+4 > len(msg) || binary.BigEndian.Uint16(msg[end+2:]) != dns.ClassINET {
		return false
	}
	q.qtype = binary.BigEndian.Uint16(msg[end:])
	if q.qtype == dns.TypeDS || isMeta(q.qtype) {
		return false
	}
	rest := msg[end+4:]
	q.edns, q.do, q.compact, q.nsid, q.subnet, q.client, q.cookie = false, false, false, false, nil, netip.Prefix{}, nil
	if msg[11] == 0 {
		return len(rest) == 0
	}
	return q.readOPT(rest)
}

// readName reads the question's name and returns where it ends, 0 if it does not.
func (q *fastQuery) readName(msg []byte) (end int) {
	name := msg[headerSize:]
	off := 0
	for {
		if off >= len(name) || name[off] > 63 {
			return 0
		}
		length := int(name[off])
		off += 1 + length
		if off > 255 {
			return 0
		}
		if length == 0 {
			break
		}
	}
	q.named = off
	// All octets are lowered alike: those of lengths are below the letters. Those
	// behind the name are of no matter, but must be there.
	var tail [8]byte
	for at := 0; at < off; at += 8 {
		octets := name[at:]
		if len(octets) < 8 {
			copy(tail[:], octets)
			octets = tail[:]
		}
		binary.LittleEndian.PutUint64(q.lowered[at:], lowerOctets(binary.LittleEndian.Uint64(octets)))
	}
	return headerSize + off
}

// lowerOctets returns eight octets with the letters among them in lower case.
func lowerOctets(x uint64) uint64 {
	const ones = 0x0101010101010101
	seven := x & (0x7f * ones)
	// The high bit of each octet says that it is at least 'A', or above 'Z'.
	atLeast := seven + (0x80-'A')*ones
	above := seven + (0x80-'Z'-1)*ones
	letters := (atLeast ^ above) & ^x & (0x80 * ones)
	return x | letters>>2
}

// readOPT reads what has to be an OPT record to its last octet, of version 0.
func (q *fastQuery) readOPT(opt []byte) bool {
	if len(opt) < optHeader || opt[0] != 0 || binary.BigEndian.Uint16(opt[1:]) != dns.TypeOPT ||
		opt[6] != 0 || int(binary.BigEndian.Uint16(opt[9:])) != len(opt)-optHeader {
		return false
	}
	q.edns, q.udpSize, q.do = true, binary.BigEndian.Uint16(opt[3:]), opt[7]&(flagDO>>8) != 0
	q.compact = q.do && opt[7]&(flagCO>>8) != 0
	for options := opt[optHeader:]; len(options) > 0; {
		if len(options) < 4 {
			return false
		}
		code, length := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		options = options[4:]
		if length > len(options) {
			return false
		}
		switch code {
		case dns.EDNS0SUBNET:
			if !q.readSubnet(options[:length]) {
				return false
			}
		case dns.EDNS0NSID:
			q.nsid = true
		case dns.EDNS0COOKIE:
			if q.cookie != nil || !validCookie(options[:length]) {
				return false
			}
			q.cookie = options[:length]
		}
		options = options[length:]
	}
	return true
}

// readSubnet reads a client subnet option that names a network (RFC 7871 section
// 6).
func (q *fastQuery) readSubnet(data []byte) bool {
	if q.subnet != nil || len(data) < 4 || data[3] != 0 {
		return false
	}
	length := int(data[2])
	if len(data)-4 != (length+7)/8 {
		return false
	}
	var addr netip.Addr
	switch binary.BigEndian.Uint16(data) {
	case 1:
		if length > 32 {
			return false
		}
		var a [4]byte
		copy(a[:], data[4:])
		addr = netip.AddrFrom4(a)
	case 2:
		if length > 128 {
			return false
		}
		var a [16]byte
		copy(a[:], data[4:])
		addr = netip.AddrFrom16(a)
	default:
		return false
	}
	q.subnet, q.client = data, netip.PrefixFrom(addr, length)
	return q.client.Masked() == q.client
}

// outcome is what the fast path did, for the metrics.
type fastOutcome struct {
	qtype   uint16
	rcode   int
	steered bool
	reply   steer.Reply // if steered
	// known is as in response; which tells answers apart that are alike, and may be
	// known even if the slow path has to answer.
	known bool
	which *packed
}

// respondFast appends the answer to a message to buf, which has room for
// udpPayload octets. It reports false if the slow path has to answer; buf is then
// of no use. It answers as respond does, octet by octet, and does not allocate.
func (v *view) respondFast(q *fastQuery, req request, buf []byte) (msg []byte, out fastOutcome, ok bool) {
	if !q.read(req.msg) {
		return nil, out, false
	}
	p, signed := v.packed(q)
	if p == nil {
		return nil, out, false
	}
	out.which = p
	client := q.client
	if p.steered != "" {
		if q.subnet == nil {
			client = netip.PrefixFrom(req.from, req.from.BitLen())
		}
		out.steered = true
		out.reply, _ = v.table.Answer(steer.Query{Name: p.steered, Family: p.family, Client: client, Random: req.random})
		if len(out.reply.Addrs) == 0 {
			return nil, out, false
		}
	}
	if p.secure && q.do {
		if p = v.secure(signed, q, &req, client, &out.reply); p == nil {
			return nil, out, false
		}
	}
	counts := p.counts
	if p.steered != "" {
		counts[0] += uint16(len(out.reply.Addrs))
	}
	if q.edns {
		counts[2]++
	}
	question := headerSize + q.named + 4
	if question+p.size(&out.reply)+v.optSize(q) > q.limit() {
		return nil, out, false
	}
	msg = append(buf, req.msg[:question]...)
	flags := p.flags | flagQR | binary.BigEndian.Uint16(req.msg[2:])&flagRD
	binary.BigEndian.PutUint16(msg[2:], flags)
	for i, n := range counts {
		binary.BigEndian.PutUint16(msg[6+2*i:], n)
	}
	msg = p.appendTo(msg, q.named)
	if p.steered != "" {
		msg = p.appendAddresses(msg, &out.reply)
	}
	if q.edns {
		msg, out.known = v.appendOPT(msg, q, &req, out.reply.Scope)
	}
	out.qtype, out.rcode = q.qtype, int(flags&0xf)
	return msg, out, true
}

// refused is the answer for names in none of the zones.
var refused = packed{flags: dns.RcodeRefused}

// packed returns the answer to a question, nil if it is not packed, and its forms
// with signatures, nil if it has none or they are for the slow path.
func (v *view) packed(q *fastQuery) (*packed, *kept) {
	n := q.lowered[:q.named]
	if len(n) == 1 {
		return nil, nil // nothing compresses to the root
	}
	if e := v.entries[name(n)]; e != nil {
		return e.at.get(q.qtype)
	}
	for len(n) > 1 {
		n = n[1+n[0]:]
		if e := v.entries[name(n)]; e != nil {
			return e.below.get(q.qtype)
		}
	}
	return &refused, nil
}

// size is the length of what follows the question, without OPT record.
func (p *packed) size(reply *steer.Reply) int {
	if p.steered == "" {
		return len(p.body)
	}
	each := 2 + 10 + 4
	if p.family == steer.IPv6 {
		each += 12
	}
	return len(p.body) + len(reply.Addrs)*each
}

// appendAddresses appends the A or AAAA records of a steered name.
func (p *packed) appendAddresses(msg []byte, reply *steer.Reply) []byte {
	ttl := uint32(reply.TTL / time.Second)
	for _, addr := range reply.Addrs {
		msg = binary.BigEndian.AppendUint16(msg, p.owner)
		if p.family == steer.IPv4 {
			a := addr.As4()
			msg = append(msg, 0, byte(dns.TypeA), 0, dns.ClassINET, byte(ttl>>24), byte(ttl>>16), byte(ttl>>8), byte(ttl), 0, 4)
			msg = append(msg, a[:]...)
		} else {
			a := addr.As16()
			msg = append(msg, 0, byte(dns.TypeAAAA), 0, dns.ClassINET, byte(ttl>>24), byte(ttl>>16), byte(ttl>>8), byte(ttl), 0, 16)
			msg = append(msg, a[:]...)
		}
	}
	return msg
}

// limit is the size that the answer may have.
func (q *fastQuery) limit() int {
	if !q.edns {
		return dns.MinMsgSize
	}
	return int(min(max(q.udpSize, dns.MinMsgSize), udpPayload))
}

// optSize is the length of the answer's OPT record.
func (v *view) optSize(q *fastQuery) int {
	if !q.edns {
		return 0
	}
	size := optHeader
	if q.subnet != nil {
		size += 4 + len(q.subnet)
	}
	if q.nsid && v.nsid != nil {
		size += 4 + len(v.nsid)
	}
	if q.cookie != nil && v.cookies != nil {
		size += 4 + fullCookie
	}
	return size
}

// appendOPT appends the OPT record: the options that the query sent and that the
// server knows. It reports whether the query had a server cookie of this server.
func (v *view) appendOPT(msg []byte, q *fastQuery, req *request, scope int) (_ []byte, known bool) {
	var do byte
	if q.do {
		do = flagDO >> 8
	}
	if q.compact {
		do |= flagCO >> 8
	}
	options := v.optSize(q) - optHeader
	msg = append(msg, 0, 0, byte(dns.TypeOPT), udpPayload>>8, udpPayload&0xff, 0, 0, do, 0, byte(options>>8), byte(options))
	if q.subnet != nil {
		msg = append(msg, 0, byte(dns.EDNS0SUBNET), 0, byte(len(q.subnet)))
		at := len(msg)
		msg = append(msg, q.subnet...)
		msg[at+3] = uint8(scope)
	}
	if q.nsid && v.nsid != nil {
		msg = append(msg, 0, byte(dns.EDNS0NSID), 0, byte(len(v.nsid)))
		msg = append(msg, v.nsid...)
	}
	if q.cookie != nil && v.cookies != nil {
		msg = append(msg, 0, byte(dns.EDNS0COOKIE), 0, fullCookie)
		msg, known = v.cookies.answer(msg, q.cookie, req.from, req.now)
	}
	return msg, known
}
