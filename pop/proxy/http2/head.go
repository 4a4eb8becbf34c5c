package http2

import (
	"errors"
	"strconv"
	"strings"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"anyedge/pop/proxy/exchange"
)

const (
	// tableSize is that of the decoder's dynamic table, the protocol's default.
	tableSize = 4096
	// maxContinuations is how many CONTINUATION frames a header block may have.
	maxContinuations = 32
	// excess is how many times over the limit a header list is still decoded,
	// to be answered with 431 on a connection that goes on.
	excess = 4
	// fieldOverhead is what RFC 9113, 6.5.2, adds to each field's size.
	fieldOverhead = 32
)

// block is a header block that comes in, from HEADERS to the last CONTINUATION,
// and what was decoded of it.
type block struct {
	decoder *hpack.Decoder
	limit   int // of the header list

	open          bool // frames are to follow
	since         time.Time
	id            uint32
	end           bool // the stream ends with it
	bytes, frames int  // CONTINUATION frames, and bytes of the block in all
	selfDependent bool

	size                                       int // of the header list
	malformed                                  bool
	regular                                    bool // a regular field was seen
	method, scheme, authority, path, protocol  string
	hasMethod, hasScheme, hasAuthority         bool
	hasPath, hasProtocol, hasHost, hasTE       bool
	host, cookie, length, expect, trailerNames string
	hasLength                                  bool
	fields                                     exchange.Fields
}

func (b *block) init(limit int) {
	b.limit = limit
	b.decoder = hpack.NewDecoder(tableSize, b.field)
	b.decoder.SetMaxStringLength(excess * limit)
}

// begin forgets the last block but for the memory of its fields.
func (b *block) begin(f *h2.HeadersFrame, now time.Time) {
	*b = block{decoder: b.decoder, limit: b.limit, fields: b.fields[:0], since: now, id: f.StreamID, end: f.StreamEnded()}
	b.selfDependent = f.HasPriority() && f.Priority.StreamDep == f.StreamID
}

// add decodes a part of the block.
func (b *block) add(fragment []byte, last bool) error {
	b.open = !last
	b.bytes += len(fragment)
	if b.bytes > excess*b.limit {
		return floodError(FloodContinuation)
	}
	_, err := b.decoder.Write(fragment)
	if err == nil && last {
		err = b.decoder.Close()
	}
	switch {
	case errors.Is(err, hpack.ErrStringLength) || b.size > excess*b.limit:
		return floodError(FloodHeaders)
	case err != nil:
		return h2.ConnectionError(h2.ErrCodeCompression) // RFC 9113, 4.3
	}
	return nil
}

// field takes one field that was decoded.
func (b *block) field(f hpack.HeaderField) {
	b.size += len(f.Name) + len(f.Value) + fieldOverhead
	if b.size > b.limit || b.malformed {
		return
	}
	if !validValue(f.Value) {
		b.malformed = true
		return
	}
	if strings.HasPrefix(f.Name, ":") {
		b.pseudo(f.Name, f.Value)
		return
	}
	b.regular = true
	if !validName(f.Name) {
		b.malformed = true
		return
	}
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		b.malformed = true // RFC 9113, 8.2.2
	case "te":
		b.malformed = b.hasTE || f.Value != "trailers" // RFC 9113, 8.2.2
		b.hasTE = true
		b.fields.Add(f.Name, f.Value)
	case "host":
		b.malformed = b.hasHost && b.host != f.Value
		b.host, b.hasHost = f.Value, true
	case "content-length":
		b.malformed = b.hasLength && b.length != f.Value
		b.length, b.hasLength = f.Value, true
	case "trailer":
		b.trailerNames = join(b.trailerNames, ",", f.Value)
	case "cookie":
		b.cookie = join(b.cookie, "; ", f.Value) // RFC 9113, 8.2.3
	case "expect":
		b.expect = join(b.expect, ",", f.Value)
		b.fields.Add(f.Name, f.Value)
	default:
		b.fields.Add(f.Name, f.Value)
	}
}

func join(a, separator, b string) string {
	if a == "" {
		return b
	}
	return a + separator + b
}

// pseudo takes a pseudo-header field (RFC 9113, 8.3): each at most once, and
// before all others.
func (b *block) pseudo(name, value string) {
	var to *string
	var has *bool
	switch name {
	case ":method":
		to, has = &b.method, &b.hasMethod
	case ":scheme":
		to, has = &b.scheme, &b.hasScheme
	case ":authority":
		to, has = &b.authority, &b.hasAuthority
	case ":path":
		to, has = &b.path, &b.hasPath
	case ":protocol":
		to, has = &b.protocol, &b.hasProtocol
	default:
		b.malformed = true
		return
	}
	if *has || b.regular {
		b.malformed = true
	}
	*to, *has = value, true
}

// tooLarge reports whether the header list is beyond the limit.
func (b *block) tooLarge() bool { return b.size > b.limit }

// Refusals of heads that are well formed. malformed stands for all others, whose
// streams are reset.
var (
	none            = exchange.Refusal{}
	malformed       = exchange.Refusal{Status: -1}
	refuseAuthority = exchange.Refusal{Status: 400, Reason: "no valid authority"}
	refuseExpect    = exchange.Refusal{Status: 417, Reason: "unknown expectation"}
	refuseSize      = exchange.Refusal{Status: 431, Reason: "the header fields are too large"}
	refuseProtocol  = exchange.Refusal{Status: 501, Reason: "only WebSocket is connected to"}
)

// request makes r what the block asks for.
func (b *block) request(r *exchange.Request) exchange.Refusal {
	if b.malformed || b.selfDependent {
		return malformed
	}
	refused := refuseSize
	if !b.tooLarge() {
		refused = b.target()
	}
	if refused == malformed {
		return refused
	}
	*r = exchange.Request{
		Protocol: exchange.HTTP2, Method: b.method, Authority: b.authority, Path: b.path,
		Upgrade: b.protocol, AcceptsTrailers: b.hasTE,
	}
	if b.cookie != "" {
		b.fields.Add("cookie", b.cookie)
	}
	if refused != none {
		return refused
	}
	if b.expect != "" && !exchange.EqualName(b.expect, "100-continue") {
		return refuseExpect
	}
	if !b.end {
		r.Length = -1
	}
	if b.hasLength {
		n, ok := parseLength(b.length)
		if !ok || b.end && n > 0 {
			return malformed // RFC 9113, 8.1.1
		}
		r.Length = n
	}
	return none
}

// target checks what the pseudo-header fields say together (RFC 9113, 8.3.1,
// and RFC 8441, 4).
func (b *block) target() exchange.Refusal {
	switch {
	case !b.hasMethod || !token(b.method):
		return malformed
	case b.hasAuthority && b.hasHost && !strings.EqualFold(b.authority, b.host):
		return malformed
	case !b.hasAuthority:
		b.authority = b.host
	}
	if b.method == "CONNECT" && !b.hasProtocol {
		if b.hasScheme || b.hasPath || b.authority == "" {
			return malformed // RFC 9113, 8.5
		}
		b.path = b.authority
		return authorityRefusal(b.authority)
	}
	switch {
	case b.hasProtocol && b.method != "CONNECT":
		return malformed
	case b.scheme != "http" && b.scheme != "https":
		return malformed
	case !validPath(b.path) || b.path == "*" && b.method != "OPTIONS":
		return malformed
	case b.hasProtocol && b.protocol != "websocket":
		return refuseProtocol // RFC 9220, 3
	}
	return authorityRefusal(b.authority)
}

func authorityRefusal(authority string) exchange.Refusal {
	if !validAuthority(authority) {
		return refuseAuthority
	}
	return none
}

// trailers returns the block as a trailer section. ok is false if it is none.
func (b *block) trailers() (fields exchange.Fields, ok bool) {
	pseudo := b.hasMethod || b.hasScheme || b.hasAuthority || b.hasPath || b.hasProtocol
	if b.malformed || pseudo || !b.end || b.tooLarge() || b.selfDependent {
		return nil, false // RFC 9113, 8.1
	}
	for _, f := range b.fields {
		if exchange.TrailerAllowed(f.Name) {
			fields = append(fields, f)
		}
	}
	return fields, true
}

// announced returns the names that the request's Trailer field holds.
func (b *block) announced() (fields exchange.Fields) {
	for name := range strings.SplitSeq(b.trailerNames, ",") {
		if name = strings.Trim(name, " \t"); token(name) && exchange.TrailerAllowed(name) {
			fields.Add(name, "")
		}
	}
	return fields
}

func parseLength(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// validValue reports whether a field's value is one (RFC 9113, 8.2.1, and no
// control bytes at all but tabs).
func validValue(s string) bool {
	if s == "" {
		return true
	}
	if first, last := s[0], s[len(s)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// Bytes of tokens (RFC 9110, 5.6.2).
var tokens = func() (t [256]bool) {
	for c := range t {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			c < 0x80 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()

func token(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}

// validName reports whether a field's name is one, in lower case (RFC 9113, 8.2).
func validName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !tokens[c] || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return s != ""
}

// validPath reports whether s can be the target of a request line.
func validPath(s string) bool {
	if s == "*" {
		return true
	}
	if s == "" || s[0] != '/' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// validAuthority reports whether s can be a host with an optional port: neither
// empty, nor with user information (RFC 9113, 8.3.1), nor a delimiter.
func validAuthority(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`/?#@\"<>^{}|`+"`", c) >= 0 {
			return false
		}
	}
	return s != ""
}
