package gslb

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// respond answers a message on the slow path: requests with a signature, for
// copies of zones, and notices of changes, which are the server's, and all
// others, which are the view's. A message that goes before the last of an answer
// is sent by send; nil stands for a transport on which there can be none.
func (s *Server) respond(v *view, req request, send func([]byte) error) response {
	if len(req.msg) < headerSize || binary.BigEndian.Uint16(req.msg[2:])&flagQR != 0 {
		return response{}
	}
	bare, sig, ok := s.ring().unsign(req.msg)
	switch {
	case !ok:
		req.msg = req.msg[:len(req.msg)-1] // malformed in a way that any reader sees
		return v.respond(req)
	case sig != nil && sig.code != dns.RcodeSuccess:
		s.signatureRefused(&req, sig)
		return refuse(req.msg, sig)
	}
	req.msg = bare
	if opcode(bare) == dns.OpcodeNotify {
		return s.notified(v, &req, sig)
	}
	var last []byte
	if out, ok := v.transfer(&req, sig, func(msg []byte) (err error) {
		if last != nil {
			err = send(last)
		}
		last = msg
		return err
	}); ok {
		out.msg = last
		s.transferred(v, &req, sig, &out)
		return out
	}
	out := v.respond(req)
	if out.qtype == dns.TypeAXFR || out.qtype == dns.TypeIXFR {
		s.transferRefused(v, &req, sig, &out)
	}
	if sig == nil || out.msg == nil {
		return out
	}
	msg, err := sig.signed(out.msg)
	if err == nil && !req.tcp && len(msg) > udpPayload {
		req.short = true
		out = v.respond(req)
		msg, err = sig.signed(out.msg)
	}
	if err != nil {
		return response{}
	}
	out.msg, out.known = msg, true
	return out
}

// refuse answers a request whose signature is not right, RFC 8945 section 5.2.
func refuse(msg []byte, sig *signature) response {
	var m, reply dns.Msg
	if m.Unpack(msg) != nil {
		return response{}
	}
	reply.SetRcode(&m, dns.RcodeNotAuth)
	reply.Response, reply.Authoritative = true, false
	out := response{rcode: dns.RcodeNotAuth}
	out.msg, _ = sig.sign(&reply) // what cannot be packed is not answered
	return out
}
