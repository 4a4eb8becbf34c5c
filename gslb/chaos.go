package gslb

import (
	"strings"

	"github.com/miekg/dns"
)

// The names in class CH by which a server tells who it is (RFC 4892).
const (
	idServer     name = "\x02id\x06server\x00"
	hostnameBind name = "\x08hostname\x04bind\x00"
)

// identifies reports whether a question is for this server's own name, and the
// server has one. What software it is it tells nobody.
func (v *view) identifies(q *query) bool {
	return v.nsid != nil && q.qclass == dns.ClassCHAOS && q.qtype == dns.TypeTXT && (q.name == idServer || q.name == hostnameBind)
}

// identified is the answer with the server's name, which no cache is to keep.
func (v *view) identified(q *query) result {
	return result{authoritative: true, answer: []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: q.name.String(), Rrtype: dns.TypeTXT, Class: dns.ClassCHAOS},
		Txt: []string{strings.ReplaceAll(string(v.nsid), `\`, `\\`)},
	}}}
}
