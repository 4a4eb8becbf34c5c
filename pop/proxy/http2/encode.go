package http2

import (
	"strconv"

	"golang.org/x/net/http2/hpack"

	"anyedge/pop/proxy/exchange"
)

// Header blocks to the client refer to HPACK's static table only. Nothing is
// ever added to the dynamic table, so a block can be encoded without the
// connection's lock, no memory is kept for the table, and field values, which
// may lie in pooled memory, are not retained. What it costs is bytes: a field
// that each response repeats is sent each time, Huffman-coded.

// noTable tells the client's decoder that we use no dynamic table. It goes in
// front of a connection's first block: a decoder whose table was limited by its
// SETTINGS waits for such an update (RFC 7541, 4.2).
const noTable = 0x20

// Prefixes of field representations (RFC 7541, 6).
const (
	indexed      = 0x80
	notIndexed   = 0x00
	neverIndexed = 0x10
)

const (
	indexStatus        = 8
	indexContentLength = 28
	indexSetCookie     = 55
)

// statuses are the status codes that the static table holds.
var statuses = map[int]byte{200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}

// staticNames are the names of the static table that a response may hold.
var staticNames = map[string]uint64{
	"accept-ranges": 18, "access-control-allow-origin": 20, "age": 21, "allow": 22, "cache-control": 24,
	"content-disposition": 25, "content-encoding": 26, "content-language": 27, "content-location": 29,
	"content-range": 30, "content-type": 31, "date": 33, "etag": 34, "expires": 36, "last-modified": 44,
	"link": 45, "location": 46, "proxy-authenticate": 48, "refresh": 52, "retry-after": 53, "server": 54,
	"set-cookie": indexSetCookie, "strict-transport-security": 56, "vary": 59, "via": 60, "www-authenticate": 61,
}

// appendStatus appends :status.
func appendStatus(b []byte, status int) []byte {
	if i, ok := statuses[status]; ok {
		return append(b, indexed|i)
	}
	b = append(b, notIndexed|indexStatus, 3)
	return append(b, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10))
}

// appendLength appends Content-Length.
func appendLength(b []byte, n int64) []byte {
	b = appendInt(b, notIndexed, 4, indexContentLength)
	at := len(b)
	b = strconv.AppendInt(append(b, 0), n, 10)
	b[at] = byte(len(b) - at - 1) // at most 19 digits, not Huffman-coded
	return b
}

// appendFields appends the lines that may go to an HTTP/2 client: none that
// belongs to a connection (RFC 9113, 8.2.2) or that we write ourselves.
func appendFields(b []byte, fields exchange.Fields) []byte {
	for i := range fields {
		b = appendField(b, fields[i].Name, fields[i].Value)
	}
	return b
}

// appendTrailers appends the lines that may be trailers.
func appendTrailers(b []byte, fields exchange.Fields) []byte {
	for i := range fields {
		if exchange.TrailerAllowed(fields[i].Name) {
			b = appendField(b, fields[i].Name, fields[i].Value)
		}
	}
	return b
}

func appendField(b []byte, name, value string) []byte {
	var short [48]byte
	lower := short[:0]
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower = append(lower, c)
	}
	if len(lower) == 0 || lower[0] == ':' || connectionField(string(lower)) {
		return b
	}
	switch i := staticNames[string(lower)]; i {
	case 0:
		b = append(b, notIndexed)
		b = appendInt(b, 0, 7, uint64(len(lower)))
		b = append(b, lower...)
	case indexSetCookie:
		b = appendInt(b, neverIndexed, 4, i) // RFC 7541, 7.1.3
	default:
		b = appendInt(b, notIndexed, 4, i)
	}
	return appendString(b, value)
}

// connectionField reports whether a name in lower case stands for something
// that HTTP/2 says by other means.
func connectionField(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "content-length", "host":
		return true
	}
	return false
}

// appendString appends a string literal (RFC 7541, 5.2).
func appendString(b []byte, s string) []byte {
	if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
		b = appendInt(b, 0x80, 7, n)
		return hpack.AppendHuffmanString(b, s)
	}
	b = appendInt(b, 0, 7, uint64(len(s)))
	return append(b, s...)
}

// appendInt appends an integer after a prefix that leaves it the given bits
// (RFC 7541, 5.1).
func appendInt(b []byte, prefix byte, bits uint, n uint64) []byte {
	limit := uint64(1)<<bits - 1
	if n < limit {
		return append(b, prefix|byte(n))
	}
	b = append(b, prefix|byte(limit))
	for n -= limit; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
