package differential

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// request is one request as a reader understood it.
type request struct {
	method    string
	target    string // in origin-form or "*"
	authority string // the host that is meant: absolute-form wins over Host (RFC 9112, 3.2.2)
	fields    []field
	body      []byte // decoded, as far as it came
	trailers  []field
	complete  bool // the body ended as its framing says
	last      bool // nothing may follow on the connection
}

// field is a line of a head or a trailer section.
type field struct{ name, value string }

// reading is what a reader makes of all bytes of a connection.
type reading struct {
	requests []request // the last may be incomplete
	// refused names the rule that the bytes after the requests break, or that
	// the body of an incomplete last request breaks. Empty: none.
	refused string
	// rest counts bytes that belong to no request, and to no refusal: the start
	// of a head, or what follows the last request of a connection.
	rest int
}

// strict reads a connection by the letter of RFC 9112 and RFC 9110, as this
// house reads it: whatever a server may refuse because others could read it
// differently is refused. What it accepts has one meaning.
//
// It is a slow reference: it looks at all bytes again for each request.
func strict(b []byte) (out reading) {
	for {
		// A server should ignore empty lines before a request (RFC 9112, 2.2).
		for bytes.HasPrefix(b, []byte("\r\n")) {
			b = b[2:]
		}
		if len(b) == 0 {
			return out
		}
		if n := len(out.requests); n > 0 && out.requests[n-1].last {
			out.rest = len(b)
			return out
		}
		r, n, rule := strictRequest(b)
		if n > 0 {
			out.requests = append(out.requests, r)
		}
		if rule != "" {
			out.refused = rule
			return out
		}
		if n == 0 {
			out.rest = len(b)
			return out
		}
		if !r.complete {
			return out
		}
		b = b[n:]
	}
}

// strictRequest reads one request. It returns how many bytes belong to it, 0
// when not even the head is there, and the rule that is broken.
func strictRequest(b []byte) (r request, n int, rule string) {
	lines, n, rule := strictLines(b)
	if rule != "" || n == 0 {
		return r, 0, rule
	}
	version, rule := r.requestLine(lines[0])
	if rule != "" {
		return r, 0, rule
	}
	for _, line := range lines[1:] {
		f, rule := strictField(line)
		if rule != "" {
			return r, 0, rule
		}
		r.fields = append(r.fields, f)
	}
	if rule := r.host(version); rule != "" {
		return r, 0, rule
	}
	chunked, length, rule := r.framing(version)
	if rule != "" {
		return r, 0, rule
	}
	if chunked {
		m, rule := r.chunks(b[n:])
		return r, n + m, rule
	}
	r.body = b[n:min(n+length, len(b))]
	r.complete = len(r.body) == length
	return r, n + len(r.body), ""
}

// strictLines splits a section of lines that an empty one ends. It returns 0
// bytes when the end is missing.
func strictLines(b []byte) (lines []string, n int, rule string) {
	for {
		i := bytes.IndexAny(b[n:], "\r\n\x00")
		switch {
		case i < 0:
			return nil, 0, ""
		case b[n+i] == 0:
			return nil, 0, "NUL"
		case b[n+i] == '\n':
			return nil, 0, "bare LF"
		case n+i+1 == len(b):
			return nil, 0, ""
		case b[n+i+1] != '\n':
			return nil, 0, "bare CR"
		}
		line := string(b[n : n+i])
		n += i + 2
		if line == "" {
			if lines == nil {
				return nil, 0, "no request line"
			}
			return lines, n, ""
		}
		lines = append(lines, line)
	}
}

// requestLine reads "method SP target SP HTTP/1.x" (RFC 9112, 3).
func (r *request) requestLine(line string) (version, rule string) {
	parts := strings.Split(line, " ")
	if len(parts) != 3 {
		return "", "request line of other than three parts"
	}
	r.method, r.target, version = parts[0], parts[1], parts[2]
	switch {
	case !token(r.method):
		return "", "method is no token"
	case len(version) != len("HTTP/1.x") || !strings.HasPrefix(version, "HTTP/1.") || !digits(version[7:]):
		return "", "version"
	case strings.ContainsFunc(r.target, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return "", "control in target"
	case r.method == "CONNECT":
		return "", "CONNECT"
	case strings.HasPrefix(r.target, "/"), r.target == "*" && r.method == "OPTIONS":
		return version, ""
	}
	scheme, rest, ok := strings.Cut(r.target, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", "form of target"
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	r.authority, r.target = rest[:end], rest[end:]
	if r.authority == "" || !hostname(r.authority) {
		return "", "authority in target"
	}
	if !strings.HasPrefix(r.target, "/") {
		r.target = "/" + r.target
	}
	return version, ""
}

// strictField reads "name: value" (RFC 9112, 5).
func strictField(line string) (f field, rule string) {
	if line[0] == ' ' || line[0] == '\t' {
		return f, "folded line"
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !token(name) {
		return f, "field name"
	}
	value = strings.Trim(value, " \t")
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return f, "control in value"
		}
	}
	return field{name, value}, ""
}

// values returns the values of a field, in order.
func (r *request) values(name string) (all []string) {
	for _, f := range r.fields {
		if strings.EqualFold(f.name, name) {
			all = append(all, f.value)
		}
	}
	return all
}

// host reads the Host field (RFC 9112, 3.2).
func (r *request) host(version string) (rule string) {
	hosts := r.values("Host")
	switch {
	case len(hosts) > 1:
		return "several Host fields"
	case len(hosts) == 0 && version != "HTTP/1.0":
		return "no Host field"
	case len(hosts) == 1 && !hostname(hosts[0]):
		return "value of Host"
	case len(hosts) == 1 && r.authority == "":
		r.authority = hosts[0]
	}
	return ""
}

// framing says how the body is framed (RFC 9112, 6).
func (r *request) framing(version string) (chunked bool, length int, rule string) {
	codings := r.values("Transfer-Encoding")
	if codings != nil {
		for _, c := range elements(codings) {
			if chunked || !strings.EqualFold(c, "chunked") {
				return false, 0, "transfer coding"
			}
			chunked = true
		}
		if !chunked {
			return false, 0, "transfer coding"
		}
	}
	lengths := r.values("Content-Length")
	for i, l := range elements(lengths) {
		n, err := strconv.ParseUint(l, 10, 62)
		if err != nil || !digits(l) {
			return false, 0, "value of Content-Length"
		}
		if i > 0 && int(n) != length {
			return false, 0, "differing Content-Length"
		}
		length = int(n)
	}
	if lengths != nil && len(elements(lengths)) == 0 {
		return false, 0, "value of Content-Length"
	}
	// Both at once, and a coding in HTTP/1.0, may be read if the connection ends
	// after the message (RFC 9112, 6.1).
	r.last = chunked && (lengths != nil || version == "HTTP/1.0")
	for _, option := range elements(r.values("Connection")) {
		r.last = r.last || strings.EqualFold(option, "close")
	}
	if version == "HTTP/1.0" && !slices.ContainsFunc(elements(r.values("Connection")), func(o string) bool {
		return strings.EqualFold(o, "keep-alive")
	}) {
		r.last = true
	}
	return chunked, length, ""
}

// elements splits values of a list field (RFC 9110, 5.6.1).
func elements(values []string) (all []string) {
	for _, v := range values {
		for e := range strings.SplitSeq(v, ",") {
			if e = strings.Trim(e, " \t"); e != "" {
				all = append(all, e)
			}
		}
	}
	return all
}

// chunks reads a chunked body with its trailers (RFC 9112, 7.1).
func (r *request) chunks(b []byte) (n int, rule string) {
	for {
		end := bytes.IndexAny(b[n:], "\r\n")
		switch {
		case end < 0 || b[n+end] == '\r' && n+end+1 == len(b):
			// Not all there; what is must be a possible start.
			return len(b), partialSize(string(b[n:]))
		case b[n+end] == '\n':
			return n, "bare LF in chunk line"
		case b[n+end+1] != '\n':
			return n, "bare CR in chunk line"
		}
		size, rule := chunkSize(string(b[n : n+end]))
		if rule != "" {
			return n, rule
		}
		n += end + 2
		if size == 0 {
			return r.trailerSection(b, n)
		}
		r.body = append(r.body, b[n:min(n+size, len(b))]...)
		if len(b)-n < size {
			return len(b), ""
		}
		n += size
		got := b[n:min(n+2, len(b))]
		if !bytes.HasPrefix([]byte("\r\n"), got) {
			return n, "no CRLF after chunk"
		}
		if len(got) < 2 {
			return len(b), ""
		}
		n += 2
	}
}

// partialSize judges a chunk line whose end has not come.
func partialSize(line string) (rule string) {
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return ""
	}
	_, rule = chunkSize(line)
	if rule == "chunk extension" {
		return "" // it may still become one
	}
	return rule
}

// chunkSize reads "size [;extension]".
func chunkSize(line string) (size int, rule string) {
	end := strings.IndexFunc(line, func(c rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", c) })
	if end < 0 {
		end = len(line)
	}
	if end == 0 {
		return 0, "chunk size"
	}
	n, err := strconv.ParseUint(line[:end], 16, 62)
	if err != nil {
		return 0, "chunk size"
	}
	rest := strings.TrimLeft(line[end:], " \t") // RFC 9112, 7.1.1 has bad white space here
	if rest == "" && end != len(line) || rest != "" && rest[0] != ';' {
		return 0, "chunk extension"
	}
	for i := range len(rest) {
		if c := rest[i]; c < ' ' && c != '\t' || c == 0x7f {
			return 0, "control in chunk extension"
		}
	}
	return int(n), ""
}

// trailerSection reads what follows the last chunk at n.
func (r *request) trailerSection(b []byte, n int) (int, string) {
	if bytes.HasPrefix(b[n:], []byte("\r\n")) {
		r.complete = true
		return n + 2, ""
	}
	lines, m, rule := strictLines(b[n:])
	if rule != "" {
		return n, rule + " in trailers"
	}
	if m == 0 {
		return len(b), ""
	}
	for _, line := range lines {
		f, rule := strictField(line)
		if rule != "" {
			return n, rule + " in trailers"
		}
		r.trailers = append(r.trailers, f)
	}
	r.complete = true
	return n + m, ""
}

// token reports whether s is a token (RFC 9110, 5.6.2).
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	})
}

func digits(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c < '0' || c > '9' })
}

// hostname reports whether s consists of what a host and port may hold (RFC
// 3986, 3.2): no user information, space or slash.
func hostname(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-._~!$&'()*+,;=%:[]", c))
	})
}
