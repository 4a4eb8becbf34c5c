package http3

import (
	"io"
	"strings"

	"github.com/quic-go/qpack"

	"anyedge/pop/proxy/exchange"
)

// fieldOverhead is what RFC 9114, 4.2.2, adds to each field's size.
const fieldOverhead = 32

// limits bound a head.
type limits struct{ bytes, fields, uri int }

// head is a header block that was decoded.
type head struct {
	limits limits

	size, lines                                int // of the field section
	malformed                                  bool
	regular                                    bool // a regular field was seen
	method, scheme, authority, path, protocol  string
	hasMethod, hasScheme, hasAuthority         bool
	hasPath, hasProtocol, hasHost, hasTE       bool
	host, cookie, length, expect, trailerNames string
	hasLength                                  bool
	fields                                     exchange.Fields
}

var errDecompression = &connError{codeQPACKDecompression, "the header block cannot be decoded"}

// decode decodes a header block. The error is a connError (RFC 9204, 2.2).
func (h *head) decode(block []byte) error {
	next := qpack.NewDecoder().Decode(block)
	for {
		f, err := next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return errDecompression
		}
		h.field(f.Name, f.Value)
	}
}

// field takes one field that was decoded.
func (h *head) field(name, value string) {
	h.lines++
	h.size += len(name) + len(value) + fieldOverhead
	if h.tooLarge() || h.malformed {
		return
	}
	if !exchange.ValidValue(value) {
		h.malformed = true
		return
	}
	if strings.HasPrefix(name, ":") {
		h.pseudo(name, value)
		return
	}
	h.regular = true
	if !exchange.ValidName(name) {
		h.malformed = true
		return
	}
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.malformed = true // RFC 9114, 4.2
	case "te":
		h.malformed = h.hasTE || value != "trailers" // RFC 9114, 4.2
		h.hasTE = true
		h.fields.Add(name, value)
	case "host":
		h.malformed = h.hasHost && h.host != value
		h.host, h.hasHost = value, true
	case "content-length":
		h.malformed = h.hasLength && h.length != value
		h.length, h.hasLength = value, true
	case "trailer":
		h.trailerNames = join(h.trailerNames, ",", value)
	case "cookie":
		h.cookie = join(h.cookie, "; ", value) // RFC 9114, 4.2.1
	case "expect":
		h.expect = join(h.expect, ",", value)
		h.fields.Add(name, value)
	default:
		h.fields.Add(name, value)
	}
}

func join(a, separator, b string) string {
	if a == "" {
		return b
	}
	return a + separator + b
}

// pseudo takes a pseudo-header field (RFC 9114, 4.3): each at most once, and
// before all others.
func (h *head) pseudo(name, value string) {
	var to *string
	var has *bool
	switch name {
	case ":method":
		to, has = &h.method, &h.hasMethod
	case ":scheme":
		to, has = &h.scheme, &h.hasScheme
	case ":authority":
		to, has = &h.authority, &h.hasAuthority
	case ":path":
		to, has = &h.path, &h.hasPath
	case ":protocol":
		to, has = &h.protocol, &h.hasProtocol
	default:
		h.malformed = true
		return
	}
	if *has || h.regular {
		h.malformed = true
	}
	*to, *has = value, true
}

// tooLarge reports whether the head is beyond its limits.
func (h *head) tooLarge() bool { return h.size > h.limits.bytes || h.lines > h.limits.fields }

// Refusals of heads that are well formed. malformed stands for all others, whose
// streams are reset.
var (
	none            = exchange.Refusal{}
	malformed       = exchange.Refusal{Status: -1}
	refuseAuthority = exchange.Refusal{Status: 400, Reason: "no valid authority"}
	refuseURI       = exchange.Refusal{Status: 414, Reason: "the path is too long"}
	refuseExpect    = exchange.Refusal{Status: 417, Reason: "unknown expectation"}
	refuseSize      = exchange.Refusal{Status: 431, Reason: "the header fields are too large"}
	refuseProtocol  = exchange.Refusal{Status: 501, Reason: "only WebSocket is connected to"}
)

// request makes r what the head asks for. r.Length is -1 if the head does not
// tell it.
func (h *head) request(r *exchange.Request) exchange.Refusal {
	if h.malformed {
		return malformed
	}
	refused := refuseSize
	if !h.tooLarge() {
		refused = h.target()
	}
	if refused == malformed {
		return refused
	}
	*r = exchange.Request{
		Protocol: exchange.HTTP3, Method: h.method, Authority: h.authority, Path: h.path,
		Upgrade: h.protocol, AcceptsTrailers: h.hasTE, Length: -1,
	}
	if h.cookie != "" {
		h.fields.Add("cookie", h.cookie)
	}
	r.Fields = h.fields
	switch {
	case refused != none:
		return refused
	case h.expect != "" && !exchange.EqualName(h.expect, "100-continue"):
		return refuseExpect
	case h.hasLength:
		n, ok := exchange.ParseLength(h.length)
		if !ok {
			return malformed // RFC 9114, 4.1.2
		}
		r.Length = n
	}
	return none
}

// target checks what the pseudo-header fields say together (RFC 9114, 4.3.1
// and 4.4, and RFC 9220, 3).
func (h *head) target() exchange.Refusal {
	switch {
	case !h.hasMethod || !exchange.Token(h.method):
		return malformed
	case h.hasAuthority && h.hasHost && !strings.EqualFold(h.authority, h.host):
		return malformed
	case h.method == "CONNECT" && !h.hasProtocol:
		if h.hasScheme || h.hasPath || h.authority == "" {
			return malformed
		}
		return authorityRefusal(h.authority)
	case !h.hasAuthority:
		h.authority = h.host
	}
	switch {
	case h.hasProtocol && h.method != "CONNECT":
		return malformed
	case h.scheme != "http" && h.scheme != "https":
		return malformed
	case !exchange.ValidPath(h.path) || h.path == "*" && h.method != "OPTIONS":
		return malformed
	case len(h.path) > h.limits.uri:
		return refuseURI
	case h.hasProtocol && h.protocol != "websocket":
		return refuseProtocol // RFC 9220, 3
	}
	return authorityRefusal(h.authority)
}

func authorityRefusal(authority string) exchange.Refusal {
	if !exchange.ValidAuthority(authority) {
		return refuseAuthority
	}
	return none
}

// trailers returns the head as a trailer section. ok is false if it is none.
func (h *head) trailers() (fields exchange.Fields, ok bool) {
	pseudo := h.hasMethod || h.hasScheme || h.hasAuthority || h.hasPath || h.hasProtocol
	if h.malformed || pseudo || h.tooLarge() {
		return nil, false // RFC 9114, 4.3
	}
	for _, f := range h.fields {
		if exchange.TrailerAllowed(f.Name) {
			fields = append(fields, f)
		}
	}
	return fields, true
}

// announced returns the names that the request's Trailer field holds.
func (h *head) announced() (fields exchange.Fields) {
	for name := range strings.SplitSeq(h.trailerNames, ",") {
		if name = strings.Trim(name, " \t"); exchange.Token(name) && exchange.TrailerAllowed(name) {
			fields.Add(name, "")
		}
	}
	return fields
}
