package http2

import (
	"net/netip"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"anyedge/pop/proxy/exchange"
)

// Header blocks that we send refer to HPACK's static table only. Nothing is
// ever added to the dynamic table, so a block can be encoded without the
// connection's lock, no memory is kept for the table, and field values, which
// may lie in pooled memory, are not retained. What it costs is bytes: a field
// that each message repeats is sent each time. To clients it is Huffman-coded;
// on the way to an origin bytes are cheaper than coding them, on both ends.

// noTable tells the peer's decoder that we use no dynamic table. It goes in
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
	indexAuthority     = 1
	indexMethod        = 2
	indexPath          = 4
	indexSchemeHTTP    = 6
	indexSchemeHTTPS   = 7
	indexStatus        = 8
	indexContentLength = 28
)

// statuses are the status codes that the static table holds.
var statuses = map[int]byte{200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}

// methods are those that the static table holds.
var methods = map[string]byte{"GET": 2, "POST": 3}

// staticNames are the names of the static table that a message may hold.
var staticNames = map[string]uint64{
	"accept": 19, "accept-charset": 15, "accept-encoding": 16, "accept-language": 17, "accept-ranges": 18,
	"access-control-allow-origin": 20, "age": 21, "allow": 22, "authorization": 23, "cache-control": 24,
	"content-disposition": 25, "content-encoding": 26, "content-language": 27, "content-location": 29,
	"content-range": 30, "content-type": 31, "cookie": 32, "date": 33, "etag": 34, "expect": 35, "expires": 36,
	"from": 37, "if-match": 39, "if-modified-since": 40, "if-none-match": 41, "if-range": 42,
	"if-unmodified-since": 43, "last-modified": 44, "link": 45, "location": 46, "max-forwards": 47,
	"proxy-authenticate": 48, "range": 50, "referer": 51, "refresh": 52, "retry-after": 53, "server": 54,
	"set-cookie": 55, "strict-transport-security": 56, "user-agent": 58, "vary": 59, "via": 60, "www-authenticate": 61,
}

// secret reports whether a name of the static table stands for values that no
// hop may put into a table (RFC 7541, 7.1.3).
func secret(index uint64) bool { return index == 55 || index == 23 || index == 32 }

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
		b = appendField(b, fields[i].Name, fields[i].Value, true)
	}
	return b
}

// appendTrailers appends the lines that may be trailers.
func appendTrailers(b []byte, fields exchange.Fields) []byte {
	for i := range fields {
		if exchange.TrailerAllowed(fields[i].Name) {
			b = appendField(b, fields[i].Name, fields[i].Value, true)
		}
	}
	return b
}

// appendField appends a line, its value Huffman-coded if that is shorter and
// huffman is set.
func appendField(b []byte, name, value string, huffman bool) []byte {
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
	switch i := staticNames[string(lower)]; {
	case i == 0:
		b = append(b, notIndexed)
		b = appendInt(b, 0, 7, uint64(len(lower)))
		b = append(b, lower...)
	case secret(i):
		b = appendInt(b, neverIndexed, 4, i)
	default:
		b = appendInt(b, notIndexed, 4, i)
	}
	if huffman {
		return appendString(b, value)
	}
	return appendRaw(b, value)
}

// appendRequest appends a request's head. If websocket is set that is an
// extended CONNECT (RFC 8441, 4).
func appendRequest(b []byte, r *exchange.Request, to netip.AddrPort, secure, websocket bool) []byte {
	if i, ok := methods[r.Method]; ok && !websocket {
		b = append(b, indexed|i)
	} else if websocket {
		b = appendRaw(appendInt(b, notIndexed, 4, indexMethod), "CONNECT")
		b = appendRaw(appendRaw(append(b, notIndexed), ":protocol"), "websocket")
	} else {
		b = appendRaw(appendInt(b, notIndexed, 4, indexMethod), r.Method)
	}
	if secure {
		b = append(b, indexed|indexSchemeHTTPS)
	} else {
		b = append(b, indexed|indexSchemeHTTP)
	}
	authority := r.Authority
	if authority == "" {
		authority = to.String()
	}
	b = appendRaw(appendInt(b, notIndexed, 4, indexAuthority), authority)
	if r.Path == "/" {
		b = append(b, indexed|indexPath)
	} else {
		b = appendRaw(appendInt(b, notIndexed, 4, indexPath), r.Path)
	}
	for i := range r.Fields {
		if websocket && exchange.EqualName(r.Fields[i].Name, "Sec-WebSocket-Key") {
			continue
		}
		b = appendField(b, r.Fields[i].Name, r.Fields[i].Value, false)
	}
	if r.AcceptsTrailers {
		b = appendField(b, "te", "trailers", false)
	}
	switch {
	case websocket:
	case r.Body != nil && r.Length >= 0:
		b = appendLength(b, r.Length)
	case r.Body == nil && (r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH"):
		b = appendLength(b, 0) // RFC 9110, 8.6: content is expected of these
	}
	if r.Body != nil && r.Trailers != nil {
		for _, f := range *r.Trailers {
			b = appendField(b, "trailer", f.Name, false)
		}
	}
	return b
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
	return appendRaw(b, s)
}

// appendRaw appends a string literal that is not Huffman-coded.
func appendRaw(b []byte, s string) []byte {
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
