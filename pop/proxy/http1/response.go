package http1

import (
	"bytes"
	"errors"

	"anyedge/pop/proxy/exchange"
)

// errStatusLine means that an origin's answer does not begin as a response.
var errStatusLine = errors.New("the status line is malformed")

// parseResponse reads a response's head into r and f, and reports whether it
// is of HTTP/1.0. r's Fields must be empty; what concerns the body is left to
// the caller.
func parseResponse(head []byte, r *exchange.Response, f *framing) (old bool, err error) {
	f.reset()
	end := bytes.IndexByte(head, '\r')
	line := head[:end]
	if head[end+1] != '\n' || len(line) < 12 || text(line[:7]) != "HTTP/1." || !digit(line[7]) || line[8] != ' ' {
		return false, errStatusLine
	}
	// The space behind the code is there even if no reason follows (RFC 9112,
	// 4), but origins are known that leave it out.
	if len(line) > 12 && line[12] != ' ' || !all(line[12:], isText) {
		return false, errStatusLine
	}
	r.Status = 0
	for _, c := range line[9:12] {
		if !digit(c) {
			return false, errStatusLine
		}
		r.Status = 10*r.Status + int(c-'0')
	}
	if r.Status < 100 || r.Status > 599 { // RFC 9110, 15
		return false, errStatusLine
	}
	old = line[7] == '0'
	err = parseFields(head[end+2:], maxFields, func(name, value string) error {
		taken, err := f.got(name, value)
		if !taken && err == nil {
			r.Fields.Add(name, value)
		}
		return err
	})
	return old, err
}

// bodiless reports whether a response has no body whatever its head says
// (RFC 9112, 6.3).
func bodiless(method string, status int) bool {
	return method == "HEAD" || status < 200 || status == 204 || status == 304
}
