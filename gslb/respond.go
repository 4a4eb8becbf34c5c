package gslb

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// udpPayload is the largest UDP message sent, and the size that answers
// announce: it passes any path that carries IPv6 without fragments.
const udpPayload = 1232

// request is a message that came in.
type request struct {
	msg  []byte
	from netip.Addr // not a mapped IPv4 address, and without zone
	tcp  bool
	// encrypted is set over TLS, where answers are padded, and http over HTTPS,
	// which has connections of its own kind.
	encrypted, http bool
	// short asks for an answer without records that says it is truncated.
	short bool
	// now is in Unix seconds.
	now uint32
	// random decides lots.
	random uint64
}

// response is the message to send back, and what became of the query, for the
// metrics.
type response struct {
	msg       []byte // nil to send nothing
	asked     bool
	name      name
	qtype     uint16
	rcode     int
	truncated bool
	steered   *steer.Reply
	client    netip.Prefix // that the answer is for, if steered
	// failed is set if a zone could not be sent whole.
	failed bool
	// known is set if the query had a server cookie of this server: the address
	// it came from is not made up.
	known bool
}

// respond answers any message. It does no I/O. An answer over the limit of UDP
// is sent empty and marked as truncated: of a part the resolver could make no
// use (RFC 2181 section 9).
func (v *view) respond(req request) response {
	q, rcode, ok := readQuery(req.msg)
	if !ok {
		return response{}
	}
	identifies := rcode == dns.RcodeSuccess && q.asked && v.identifies(&q)
	if rcode == dns.RcodeSuccess && q.asked && !identifies {
		rcode = refusal(&q)
	}
	r := result{rcode: rcode}
	client := q.client
	switch {
	case rcode != dns.RcodeSuccess:
	case !q.asked: // only a cookie is wanted, RFC 7873 section 5.4
	case identifies:
		r = v.identified(&q)
	default:
		// The client subnet option speaks for the client, even if it says that
		// nothing is said (RFC 7871 section 7.1.2); else its resolver does.
		if q.subnet == nil {
			client = netip.PrefixFrom(req.from, req.from.BitLen())
		}
		r = v.resolve(&q, client, req.random, req.now)
		if r.unsigned {
			r = result{rcode: dns.RcodeServerFailure} // others may have the keys
		}
	}
	out := response{asked: q.asked, name: q.name, qtype: q.qtype, rcode: r.rcode, steered: r.steered, client: client}
	limit := limit(&q, req.tcp)
	opt, known := v.options(&q, &req, r.steered)
	out.known = known
	if out.msg = pack(&q, r, opt, limit); out.msg != nil && !req.short {
		return out
	}
	if !req.short && r.needed < len(r.additional) {
		// Glue that helps but is not needed does not make an answer truncated, RFC
		// 9471 section 3.2.
		r.additional = r.additional[:r.needed]
		if out.msg = pack(&q, r, opt, limit); out.msg != nil {
			return out
		}
	}
	if req.tcp { // an answer of more than 64 KB
		r = result{rcode: dns.RcodeServerFailure}
	} else {
		r = result{rcode: r.rcode, authoritative: r.authoritative, steered: r.steered, truncated: true}
	}
	out.rcode, out.steered, out.truncated = r.rcode, r.steered, r.truncated
	out.msg = pack(&q, r, opt, limit)
	return out
}

// refusal returns why a well-formed question is not for the zones, NOERROR if it
// is.
func refusal(q *query) int {
	switch q.qtype {
	case dns.TypeANY:
	case dns.TypeAXFR, dns.TypeIXFR:
		return dns.RcodeRefused // zones are not given away
	case dns.TypeMAILA, dns.TypeMAILB, dns.TypeTKEY:
		return dns.RcodeNotImplemented
	default:
		if isMeta(q.qtype) {
			return dns.RcodeFormatError
		}
	}
	if q.qclass != dns.ClassINET {
		return dns.RcodeRefused
	}
	return dns.RcodeSuccess
}

// limit is the size that an answer may have.
func limit(q *query, tcp bool) int {
	switch {
	case tcp:
		return dns.MaxMsgSize
	case q.edns:
		return int(min(max(q.udpSize, dns.MinMsgSize), udpPayload)) // RFC 6891 section 6.2.3
	}
	return dns.MinMsgSize
}

// pack writes the answer to a query, or returns nil if it is over the limit.
//
// It is packed for the name in lower case, as the names of the zones are, so
// that what is compressed does not depend on the spelling. Then the question
// gets the spelling it came in, and with it every name that points there:
// resolvers may compare the case.
func pack(q *query, r result, opt *dns.OPT, limit int) []byte {
	m := dns.Msg{
		MsgHdr: dns.MsgHdr{
			Id: q.id, Response: true, Opcode: q.opcode, RecursionDesired: q.rd,
			Authoritative: r.authoritative, Truncated: r.truncated, Rcode: r.rcode,
		},
		Compress: true,
		Answer:   r.answer,
		Ns:       r.authority,
		Extra:    r.additional,
	}
	if q.asked {
		m.Question = []dns.Question{{Name: q.name.String(), Qtype: q.qtype, Qclass: q.qclass}}
	}
	if opt != nil {
		m.Extra = append(m.Extra, opt)
	}
	msg, err := m.Pack()
	if err != nil || len(msg) > limit {
		return nil
	}
	if q.padding {
		// The padding is the last option of the last record.
		opt.Option = append(opt.Option, &dns.EDNS0_PADDING{Padding: make([]byte, padding(len(msg), limit))})
		if msg, err = m.Pack(); err != nil {
			return nil
		}
	}
	if q.asked {
		copy(msg[headerSize:], q.spelled)
	}
	return msg
}

// paddingBlock is what the length of padded answers is a multiple of, RFC 8467
// section 4.1.
const paddingBlock = 468

// padding returns how much padding a message of a length gets, to which the
// option itself adds four octets.
func padding(length, limit int) int {
	length += 4
	padded := (length + paddingBlock - 1) / paddingBlock * paddingBlock
	return max(min(padded, limit)-length, 0)
}

// options returns the OPT record of an answer, nil for a query without one, and
// whether the query had a server cookie of this server. A client subnet option
// is given back as it came, with the scope (RFC 7871 section 7.2.1); no option
// is given that was not sent.
func (v *view) options(q *query, req *request, steered *steer.Reply) (opt *dns.OPT, known bool) {
	if !q.edns {
		return nil, false
	}
	opt = &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(udpPayload)
	if q.do {
		opt.SetDo()
		opt.SetCo(q.compact)
	}
	add := func(code uint16, data []byte) {
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: code, Data: data})
	}
	if q.subnet != nil {
		data := append([]byte(nil), q.subnet...)
		if steered != nil {
			data[3] = uint8(steered.Scope)
		}
		add(dns.EDNS0SUBNET, data)
	}
	if q.nsid && v.nsid != nil {
		add(dns.EDNS0NSID, v.nsid)
	}
	if q.cookie != nil && v.cookies != nil {
		var cookie []byte
		cookie, known = v.cookies.answer(nil, q.cookie, req.from, req.now)
		add(dns.EDNS0COOKIE, cookie)
	}
	if q.keepalive && req.tcp && !req.http {
		add(dns.EDNS0TCPKEEPALIVE, binary.BigEndian.AppendUint16(nil, uint16(min(v.idle/(100*time.Millisecond), math.MaxUint16))))
	}
	q.padding = q.padding && req.encrypted
	return opt, known
}
