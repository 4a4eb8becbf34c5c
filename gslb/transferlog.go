package gslb

import (
	"time"

	"github.com/miekg/dns"
)

// Values of the label "result" of metricSent.
const (
	sentOK      = "ok"
	sentFailed  = "failed"  // the connection broke
	sentRefused = "refused" // who asked may not have it
	sentBadSign = "bad_signature"
)

// refusalPace is the least time between two lines about strangers, who can ask as
// often as they like.
const refusalPace = time.Second

// transferred notes that a zone, or what changed in it, went to another server.
func (s *Server) transferred(v *view, req *request, sig *signature, out *response) {
	line := []any{"zone", canonical(out.name.String()), "to", req.from, "qtype", dns.Type(out.qtype).String(), "serial", v.zones[out.name].soa().Serial}
	if sig != nil {
		line = append(line, "key", dns.CanonicalName(sig.tsig.Hdr.Name))
	}
	if out.failed {
		s.m.sent.WithLabelValues(sentFailed).Inc()
		s.log.Warn("zone not sent whole, the connection broke", line...)
		return
	}
	s.m.sent.WithLabelValues(sentOK).Inc()
	s.log.Info("zone sent", line...)
}

// transferRefused notes who does not get a zone, and why.
func (s *Server) transferRefused(v *view, req *request, sig *signature, out *response) {
	s.m.sent.WithLabelValues(sentRefused).Inc()
	why := "not a zone of this server"
	if z := v.zones[out.name]; z != nil {
		why = z.transfer.objection(req.from, sig)
	}
	s.refusal("zone transfer refused", "zone", canonical(out.name.String()), "to", req.from, "qtype", dns.Type(out.qtype).String(), "reason", why)
}

// signatureRefused notes a signature that is not right.
func (s *Server) signatureRefused(req *request, sig *signature) {
	s.m.sent.WithLabelValues(sentBadSign).Inc()
	why := map[uint16]string{
		dns.RcodeBadKey:  "no key of this name and algorithm here",
		dns.RcodeBadSig:  "not made with the secret that this key has here",
		dns.RcodeBadTime: "the clocks differ by more than 5 minutes",
	}[sig.code]
	s.refusal("signed message refused", "from", req.from, "key", dns.CanonicalName(sig.tsig.Hdr.Name), "algorithm", sig.tsig.Algorithm, "reason", why)
}

// refusal writes a line, unless there was one a moment ago.
func (s *Server) refusal(message string, args ...any) {
	now := time.Now().UnixNano()
	if last := s.refused.Load(); now-last < int64(refusalPace) && now >= last || !s.refused.CompareAndSwap(last, now) {
		return
	}
	s.log.Warn(message, args...)
}
