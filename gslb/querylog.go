package gslb

import (
	"strings"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// transport is the name that metrics and log lines have for how a request came.
func (r *request) transport() string {
	switch {
	case r.http:
		return "doh"
	case r.encrypted:
		return "dot"
	case r.tcp:
		return "tcp"
	}
	return "udp"
}

// logQuery writes the line of a query, if Config.LogQueries asks for one. steered
// is the decision in the answer, nil if there is none.
func (s *Server) logQuery(req request, answer []byte, steered *steer.Reply) {
	if !s.logQueries.Load() {
		return
	}
	line := []any{"client", req.from, "transport", req.transport()}
	q, _, _ := readQuery(req.msg)
	if q.asked {
		line = append(line, "name", q.name.String(), "qtype", dns.Type(q.qtype).String())
		if q.qclass != dns.ClassINET {
			line = append(line, "qclass", dns.Class(q.qclass).String())
		}
	}
	if q.client.IsValid() {
		line = append(line, "subnet", q.client)
	}
	if q.do {
		line = append(line, "do", true)
	}
	var m dns.Msg
	if answer == nil || m.Unpack(answer) != nil {
		s.log.Info("query", append(line, "rcode", "none")...)
		return
	}
	line = append(line, "rcode", rcodeLabel(m.Rcode), "answers", len(m.Answer), "size", len(answer))
	if m.Truncated {
		line = append(line, "truncated", true)
	}
	if steered != nil {
		line = append(line, "pops", strings.Join(steered.Pops, " "), "scope", steered.Scope, "reason", steered.Reason.String())
	}
	s.log.Info("query", line...)
}

// logFast is logQuery for an answer of the fast path. It is apart so that an
// outcome is on the heap only if it is logged.
func (s *Server) logFast(req request, answer []byte, out fastOutcome) {
	if out.steered {
		s.logQuery(req, answer, &out.reply)
		return
	}
	s.logQuery(req, answer, nil)
}
