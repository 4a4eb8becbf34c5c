package gslb

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// query is what the server reads from a request. The message is read here and
// not by the library, because the library forgives what RFC 7871 wants refused,
// and because the rest of a request is of no interest.
type query struct {
	id     uint16
	opcode int
	rd     bool

	// asked is set if there is a question, for name, which was spelled as the
	// octets of spelled.
	asked   bool
	spelled []byte
	name    name
	qtype   uint16
	qclass  uint16

	// edns is set if there is an OPT record of a version that the server knows
	// or may refuse as such.
	edns    bool
	version uint8
	do      bool
	// compact is the flag CO of RFC 9824 section 5.1: who asks can take a denial
	// of a name together with the rcode NXDOMAIN.
	compact bool
	udpSize uint16

	// subnet is the data of the client subnet option; nil without one.
	subnet []byte
	// client is what subnet says; not valid if it says nothing.
	client netip.Prefix
	// cookie is the data of the cookie option; nil without one.
	cookie []byte
	// nsid, keepalive and padding are set if the options of these names are there
	// (RFC 5001, RFC 7828, RFC 7830).
	nsid, keepalive, padding bool
}

// Header bits, RFC 1035 section 4.1.1.
const (
	headerSize = 12
	flagQR     = 1 << 15
	flagRD     = 1 << 8
	opcodeAt   = 11
)

// Flags of the OPT record, as part of its TTL.
const (
	flagDO = 1 << 15 // RFC 3225 section 3
	flagCO = 1 << 14 // RFC 9824 section 5.1
)

// readQuery reads a request. ok is false if it is to be left without an answer:
// it is too short to have a header, or a response, which might otherwise make
// two servers talk for ever. Else rcode is NOERROR, or why the query fails as
// such; then q holds what could be read.
func readQuery(msg []byte) (q query, rcode int, ok bool) {
	if len(msg) < headerSize {
		return q, 0, false
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR != 0 {
		return q, 0, false
	}
	q.id = binary.BigEndian.Uint16(msg)
	q.opcode = int(flags >> opcodeAt & 0xf)
	q.rd = flags&flagRD != 0
	if q.opcode != dns.OpcodeQuery {
		return q, dns.RcodeNotImplemented, true
	}
	switch binary.BigEndian.Uint16(msg[4:]) {
	case 0: // RFC 7873 section 5.4
		if rcode = q.readRecords(msg, headerSize); rcode == dns.RcodeSuccess && q.cookie == nil {
			rcode = dns.RcodeFormatError
		}
		return q, rcode, true
	case 1:
	default:
		return q, dns.RcodeFormatError, true
	}
	off, ok := q.readQuestion(msg)
	if !ok {
		return q, dns.RcodeFormatError, true
	}
	return q, q.readRecords(msg, off), true
}

// readQuestion reads the question and returns where it ends. Its name cannot be
// compressed: nothing is before it that a pointer could mean.
func (q *query) readQuestion(msg []byte) (end int, ok bool) {
	off := headerSize
	for {
		if off >= len(msg) || msg[off] > 63 {
			return 0, false
		}
		length := int(msg[off])
		off += 1 + length
		if off-headerSize > 255 {
			return 0, false
		}
		if length == 0 {
			break
		}
	}
	if off+4 > len(msg) {
		return 0, false
	}
	q.asked, q.spelled, q.name = true, msg[headerSize:off], lower(msg[headerSize:off])
	q.qtype = binary.BigEndian.Uint16(msg[off:])
	q.qclass = binary.BigEndian.Uint16(msg[off+2:])
	return off + 4, true
}

// readRecords reads the records after the question, which is all of the rest of
// the message, for the OPT record among them.
func (q *query) readRecords(msg []byte, off int) (rcode int) {
	others := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:]))
	additional := int(binary.BigEndian.Uint16(msg[10:]))
	for i := range others + additional {
		owner := off
		off = skipName(msg, off)
		if off < 0 || off+10 > len(msg) {
			return dns.RcodeFormatError
		}
		rtype := binary.BigEndian.Uint16(msg[off:])
		class := binary.BigEndian.Uint16(msg[off+2:])
		ttl := binary.BigEndian.Uint32(msg[off+4:])
		data := off + 10
		off = data + int(binary.BigEndian.Uint16(msg[off+8:]))
		if off > len(msg) {
			return dns.RcodeFormatError
		}
		if rtype != dns.TypeOPT || i < others {
			continue
		}
		// RFC 6891 section 6.1.1: at most one, and it belongs to the root.
		if q.edns || msg[owner] != 0 {
			return dns.RcodeFormatError
		}
		q.edns, q.udpSize, q.do = true, class, ttl&flagDO != 0
		q.compact = q.do && ttl&flagCO != 0
		q.version = uint8(ttl >> 16)
		if q.version != 0 {
			return dns.RcodeBadVers // what follows may mean anything
		}
		if !q.readOptions(msg[data:off]) {
			return dns.RcodeFormatError
		}
	}
	if off != len(msg) {
		return dns.RcodeFormatError
	}
	return dns.RcodeSuccess
}

// skipName returns where the name at off ends, -1 if it does not. It follows no
// pointer, so that it cannot run in circles.
func skipName(msg []byte, off int) int {
	for off < len(msg) {
		switch c := msg[off]; {
		case c == 0:
			return off + 1
		case c >= 0xc0:
			return off + 2
		case c > 63:
			return -1
		default:
			off += 1 + int(c)
		}
	}
	return -1
}

// readOptions reads the data of an OPT record. Options that it does not know
// are ignored (RFC 6891 section 6.1.2).
func (q *query) readOptions(data []byte) bool {
	for len(data) > 0 {
		if len(data) < 4 {
			return false
		}
		code, length := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
		data = data[4:]
		if length > len(data) {
			return false
		}
		option := data[:length]
		data = data[length:]
		switch code {
		case dns.EDNS0SUBNET:
			if q.subnet != nil || !q.readSubnet(option) {
				q.subnet = nil
				return false
			}
		case dns.EDNS0COOKIE:
			if q.cookie != nil || !validCookie(option) {
				q.cookie = nil
				return false
			}
			q.cookie = option
		case dns.EDNS0NSID:
			q.nsid = true
		case dns.EDNS0TCPKEEPALIVE:
			q.keepalive = true
		case dns.EDNS0PADDING:
			q.padding = true
		}
	}
	return true
}

// readSubnet reads a client subnet option with the checks of RFC 7871 section 6:
// a known family, the scope zero, as many octets of the address as its length
// needs, and no bit set beyond. Family 0 with nothing in it is how some clients
// say that they want none of it.
func (q *query) readSubnet(data []byte) bool {
	if len(data) < 4 {
		return false
	}
	family, source, scope, address := binary.BigEndian.Uint16(data), int(data[2]), data[3], data[4:]
	if scope != 0 || len(address) != (source+7)/8 {
		return false
	}
	var addr netip.Addr
	switch {
	case family == 0 && source == 0:
	case family == 1 && source <= 32:
		var a [4]byte
		copy(a[:], address)
		addr = netip.AddrFrom4(a)
	case family == 2 && source <= 128:
		var a [16]byte
		copy(a[:], address)
		addr = netip.AddrFrom16(a)
	default:
		return false
	}
	client := netip.PrefixFrom(addr, source)
	if client.IsValid() && client.Masked() != client {
		return false
	}
	q.subnet, q.client = data, client
	return true
}
