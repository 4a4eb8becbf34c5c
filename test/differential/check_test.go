package differential

import (
	"bytes"
	"fmt"
	"strings"
)

// problem is one way in which a proxy treated a message badly.
type problem struct {
	kind   kind
	detail string
}

type kind int

const (
	// splits: what was forwarded is not the same one request to every reader.
	splits kind = iota
	// malformed: what was forwarded breaks a rule of the strict reader, but
	// has one extent to the lenient ones.
	malformed
	// differs: what was forwarded is not what the message means, or comes from
	// behind the point where the message breaks a rule.
	differs
	// open: the connection stayed open after a broken rule.
	open
	// blames: a client's mistake was answered as the origin's or the proxy's own.
	blames
	// missing: a well-formed request was not forwarded.
	missing
	kinds
)

func (k kind) String() string {
	return [kinds]string{"splits", "malformed", "differs", "left open", "blames others", "missing"}[k]
}

// answer is what a client saw.
type answer struct {
	statuses []int // of final responses, in order
	closed   bool  // by the proxy, before the client lost patience
}

// judge compares a message, what the client saw and what the origin got for it,
// one element per connection in order.
func judge(m message, seen answer, got [][]byte) (all []problem) {
	report := func(k kind, format string, args ...any) {
		all = append(all, problem{k, fmt.Sprintf(format, args...)})
	}
	meant := strict(m.bytes)
	for i, b := range got {
		forwarded, bad := single(b)
		if bad != nil {
			all = append(all, *bad)
			continue
		}
		if i >= len(meant.requests) {
			report(differs, "forwarded what is refused: %s", refusal(meant))
			continue
		}
		if detail := difference(meant.requests[i], forwarded); detail != "" {
			report(differs, "%s", detail)
		}
	}
	if meant.refused != "" && !seen.closed {
		report(open, "after %s", meant.refused)
	}
	for _, status := range seen.statuses {
		if status >= 500 && status != 501 && status != 505 {
			report(blames, "status %d", status)
		}
	}
	if m.family == wellFormed && len(got) != len(meant.requests) {
		report(missing, "%d of %d requests forwarded", len(got), len(meant.requests))
	}
	return all
}

func refusal(r reading) string {
	switch {
	case r.refused != "":
		return r.refused
	case r.rest > 0:
		return "bytes after the last request"
	}
	return "nothing"
}

// single reads what an origin got on one connection, which must be one request,
// or the start of one, to every reader.
func single(b []byte) (r request, bad *problem) {
	fail := func(k kind, format string, args ...any) (request, *problem) {
		return request{}, &problem{k, fmt.Sprintf(format, args...)}
	}
	got := strict(b)
	switch {
	case got.refused != "":
		if l, ok := agreed(b); !ok {
			return fail(splits, "%s, and readers differ when %s", got.refused, l.name)
		}
		return fail(malformed, "%s", got.refused)
	case len(got.requests) == 0:
		return request{}, nil // the start of a head, which means nothing yet
	case len(got.requests) > 1:
		return fail(splits, "%d requests on one connection", len(got.requests))
	case got.rest > 0:
		return fail(splits, "%d bytes after the request", got.rest)
	}
	r = got.requests[0]
	if r.values("Transfer-Encoding") != nil && r.values("Content-Length") != nil {
		return fail(splits, "both framings")
	}
	for _, protocol := range elements(r.values("Upgrade")) {
		if strings.EqualFold(protocol, "h2c") {
			return fail(splits, "offers h2c, behind which requests pass unseen")
		}
	}
	for _, t := range r.trailers {
		switch strings.ToLower(t.name) {
		case "content-length", "transfer-encoding", "host":
			return fail(malformed, "framing or routing field in trailers: %s", t.name)
		}
	}
	for _, l := range lenients {
		body, n, complete := l.read(b)
		if n != len(b) || complete != r.complete || complete && !bytes.Equal(body, r.body) {
			return fail(splits, "when %s: %d of %d bytes, complete %t instead of %t, body %.60q instead of %.60q",
				l.name, n, len(b), complete, r.complete, body, r.body)
		}
	}
	return r, nil
}

// agreed reports whether all lenient readers take all bytes as one request, or
// which one does not.
func agreed(b []byte) (leniency, bool) {
	first, _, _ := lenients[0].read(b)
	for _, l := range lenients {
		if body, n, complete := l.read(b); n != len(b) || !complete || !bytes.Equal(body, first) {
			return l, false
		}
	}
	return leniency{}, true
}

// difference says in what a forwarded request is not the one that was meant.
func difference(meant, forwarded request) string {
	switch {
	case forwarded.method == "":
		return "" // it never got further than its head
	case forwarded.method != meant.method:
		return fmt.Sprintf("method %q instead of %q", forwarded.method, meant.method)
	case forwarded.target != meant.target:
		return fmt.Sprintf("target %.60q instead of %.60q", forwarded.target, meant.target)
	case !strings.EqualFold(forwarded.authority, meant.authority):
		return fmt.Sprintf("authority %q instead of %q", forwarded.authority, meant.authority)
	case !bytes.HasPrefix(meant.body, forwarded.body):
		return fmt.Sprintf("body %.60q instead of %.60q", forwarded.body, meant.body)
	case forwarded.complete && (!meant.complete || len(forwarded.body) != len(meant.body)):
		return fmt.Sprintf("complete with %d bytes of body instead of %d, complete %t", len(forwarded.body), len(meant.body), meant.complete)
	}
	return ""
}
