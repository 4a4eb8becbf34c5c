package http2

import (
	"errors"
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
	decoder  *hpack.Decoder
	limit    int  // of the header list
	most     int  // field lines
	response bool // the peer is an origin

	open          bool // frames are to follow
	since         time.Time
	id            uint32
	end           bool // the stream ends with it
	bytes, frames int  // CONTINUATION frames, and bytes of the block in all
	selfDependent bool

	size, lines                                       int // of the header list
	malformed                                         bool
	regular                                           bool // a regular field was seen
	method, scheme, authority, path, protocol, status string
	hasMethod, hasScheme, hasAuthority                bool
	hasPath, hasProtocol, hasStatus, hasHost, hasTE   bool
	host, cookie, length, expect, trailerNames        string
	hasLength                                         bool
	fields                                            exchange.Fields
}

func (b *block) init(limit, most int) {
	b.limit, b.most = limit, most
	b.decoder = hpack.NewDecoder(tableSize, b.field)
	b.decoder.SetMaxStringLength(excess * limit)
}

// begin forgets the last block but for the memory of its fields.
func (b *block) begin(f *h2.HeadersFrame, now time.Time) {
	*b = block{
		decoder: b.decoder, limit: b.limit, most: b.most, response: b.response,
		fields: b.fields[:0], since: now, id: f.StreamID, end: f.StreamEnded(),
	}
	b.selfDependent = f.HasPriority() && f.Priority.StreamDep == f.StreamID
}

// shrink forgets the last block with the memory of its fields.
func (b *block) shrink() {
	*b = block{decoder: b.decoder, limit: b.limit, most: b.most, response: b.response}
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
	b.lines++
	if b.tooLarge() || b.malformed {
		return
	}
	if !exchange.ValidValue(f.Value) {
		b.malformed = true
		return
	}
	if strings.HasPrefix(f.Name, ":") {
		b.pseudo(f.Name, f.Value)
		return
	}
	b.regular = true
	if !exchange.ValidName(f.Name) {
		b.malformed = true
		return
	}
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		b.malformed = true // RFC 9113, 8.2.2
	case "content-length":
		b.malformed = b.hasLength && b.length != f.Value
		b.length, b.hasLength = f.Value, true
	case "trailer":
		b.trailerNames = join(b.trailerNames, ",", f.Value)
	case "te", "host", "cookie", "expect":
		b.requestField(f.Name, f.Value)
	default:
		b.fields.Add(f.Name, f.Value)
	}
}

// requestField takes a field that means something in requests only.
func (b *block) requestField(name, value string) {
	switch {
	case b.response:
		b.malformed = name == "te" // RFC 9113, 8.2.2
		b.fields.Add(name, value)
	case name == "te":
		b.malformed = b.hasTE || value != "trailers" // RFC 9113, 8.2.2
		b.hasTE = true
		b.fields.Add(name, value)
	case name == "host":
		b.malformed = b.hasHost && b.host != value
		b.host, b.hasHost = value, true
	case name == "cookie":
		b.cookie = join(b.cookie, "; ", value) // RFC 9113, 8.2.3
	default: // expect
		b.expect = join(b.expect, ",", value)
		b.fields.Add(name, value)
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
	if b.response != (name == ":status") {
		b.malformed = true
		return
	}
	switch name {
	case ":status":
		to, has = &b.status, &b.hasStatus
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

// tooLarge reports whether the header list is beyond the limits.
func (b *block) tooLarge() bool { return b.size > b.limit || b.lines > b.most }

// trailers appends the block, as a trailer section, to fields. ok is false if it
// is none.
func (b *block) trailers(fields exchange.Fields) (_ exchange.Fields, ok bool) {
	pseudo := b.hasMethod || b.hasScheme || b.hasAuthority || b.hasPath || b.hasProtocol || b.hasStatus
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

// announced returns the names that the Trailer field holds.
func (b *block) announced() (fields exchange.Fields) {
	for name := range strings.SplitSeq(b.trailerNames, ",") {
		if name = strings.Trim(name, " \t"); exchange.Token(name) && exchange.TrailerAllowed(name) {
			fields.Add(name, "")
		}
	}
	return fields
}
