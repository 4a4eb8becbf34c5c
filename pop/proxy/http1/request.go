package http1

import (
	"bytes"
	"net/netip"
	"strings"

	"anyedge/pop/proxy/exchange"
)

// maxMethod bounds a method, in bytes. The longest registered one has 17.
const maxMethod = 32

var (
	faultLine      = &fault{400, "the request line is malformed"}
	faultMethod    = &fault{501, "the method is unknown"}
	faultTarget    = &fault{400, "the request target is malformed"}
	faultURI       = &fault{414, "the request target is too long"}
	faultVersion   = &fault{505, "the version of HTTP is not served"}
	faultNoHost    = &fault{400, "there is no Host"}
	faultHeadTime  = &fault{408, "the head did not come in time"}
	faultAuthority = &fault{400, "the target's authority is malformed"}
	faultContent   = &fault{400, "CONNECT has no content"}
)

// limits bound what a request's head may hold.
type limits struct {
	fields int // lines
	uri    int // bytes of path and query
}

// parseRequest reads a request's head, as reader.section returned it, into r
// and f. r's Fields must be empty; its Length and what concerns the body are
// left to the caller. On an error r holds what was read until then.
func parseRequest(head []byte, r *exchange.Request, f *framing, most limits) error {
	f.reset()
	end := bytes.IndexByte(head, '\r')
	if err := parseRequestLine(head[:end], r); err != nil {
		return err
	}
	switch {
	case head[end+1] != '\n':
		return faultLine
	case len(r.Path) > most.uri:
		return faultURI
	}
	err := parseFields(head[end+2:], most.fields, func(name, value string) error {
		taken, err := f.got(name, value)
		if !taken && err == nil {
			r.Fields.Add(name, value)
		}
		return err
	})
	if err != nil {
		return err
	}
	old := r.Protocol == exchange.HTTP10
	if err := f.codings(old); err != nil {
		return err
	}
	switch {
	case r.Method == "CONNECT" && (f.length >= 0 || f.encoded):
		return faultContent // RFC 9110, 9.3.6: what follows is for the tunnel
	case f.hosts > 1:
		return faultHosts
	case f.hosts == 0 && !old:
		return faultNoHost // RFC 9112, 3.2
	case f.hosts == 1 && (!all(f.host, isHost) || f.host == "" && !old):
		return faultHost
	}
	if r.Authority == "" { // an absolute target comes before Host (RFC 9112, 3.2.2)
		r.Authority = f.host
	}
	if !f.expected {
		return nil
	}
	if old {
		r.Fields.Del("Expect") // RFC 9110, 10.1.1: to be ignored
		f.expect = false
		return nil
	}
	for value := range r.Fields.Values("Expect") {
		if !exchange.EqualName(value, "100-continue") {
			return faultExpectation
		}
	}
	return nil
}

// parseRequestLine reads "method SP target SP version" (RFC 9112, 3).
func parseRequestLine(line []byte, r *exchange.Request) error {
	i := bytes.IndexByte(line, ' ')
	if i <= 0 || !all(line[:i], isToken) {
		return faultLine
	}
	method, rest := text(line[:i]), line[i+1:]
	i = bytes.IndexByte(rest, ' ')
	if i <= 0 {
		return faultLine
	}
	target, version := text(rest[:i]), rest[i+1:]
	if !all(target, isTarget) {
		return faultTarget
	}
	r.Method, r.Path = method, target
	if len(version) != 8 || text(version[:5]) != "HTTP/" || !digit(version[5]) || version[6] != '.' || !digit(version[7]) {
		return faultLine
	}
	switch {
	case version[5] != '1':
		return faultVersion
	case version[7] == '0':
		r.Protocol = exchange.HTTP10
	default:
		// A higher minor version is to be taken for the highest that we
		// know (RFC 9110, 2.5).
		r.Protocol = exchange.HTTP11
	}
	if len(method) > maxMethod {
		return faultMethod
	}
	return parseTarget(target, r)
}

// parseTarget tells the four forms of a target apart (RFC 9112, 3.2).
func parseTarget(target string, r *exchange.Request) error {
	switch {
	case r.Method == "CONNECT":
		if !validDestination(target) {
			return faultAuthority
		}
		r.Authority, r.Path = target, ""
		return nil
	case target[0] == '/':
		return nil
	case target == "*":
		if r.Method != "OPTIONS" {
			return faultTarget
		}
		return nil
	}
	scheme, rest, found := strings.Cut(target, "://")
	if !found || !exchange.EqualName(scheme, "http") && !exchange.EqualName(scheme, "https") {
		return faultTarget
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	r.Authority = rest[:end]
	if !validAuthority(r.Authority) {
		return faultAuthority
	}
	switch {
	case end == len(rest) && r.Method == "OPTIONS":
		r.Path = "*" // RFC 9112, 3.2.4
	case end == len(rest):
		r.Path = "/"
	case rest[end] == '/':
		r.Path = rest[end:]
	case rest[end] == '?':
		r.Path = "/" + rest[end:]
	default:
		return faultTarget
	}
	return nil
}

// validAuthority reports whether s may be a host with an optional port. User
// information has no place in a request (RFC 9110, 4.2.4).
func validAuthority(s string) bool { return s != "" && all(s, isHost) }

// validDestination reports whether s is a host and a port, as CONNECT needs
// both (RFC 9112, 3.2.3).
func validDestination(s string) bool {
	colon := strings.LastIndexByte(s, ':')
	if colon <= 0 || len(s) > colon+6 {
		return false
	}
	host, port := s[:colon], 0
	for _, c := range []byte(s[colon+1:]) {
		if !digit(c) {
			return false
		}
		port = 10*port + int(c-'0')
	}
	if port == 0 || port > 65535 {
		return false
	}
	if host[0] == '[' {
		ip, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		return err == nil && ip.Is6() && ip.Zone() == "" && host[len(host)-1] == ']'
	}
	return all(host, isHost) && !strings.ContainsAny(host, ":[]")
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// refuse returns the fault of a head that could not even be read; nil if the
// connection is to end without a word.
func refuse(err error, unread []byte, limit int, timedOut bool) *fault {
	switch {
	case err == errNewline:
		return faultNewline
	case err == errControl:
		return faultControl
	case err == errSection:
		if bytes.IndexByte(unread[:min(limit, len(unread))], '\n') < 0 {
			return faultURI
		}
		return faultTooLarge
	case timedOut && len(unread) > 0:
		return faultHeadTime
	}
	return nil
}
