package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// message is what is sent on one connection.
type message struct {
	id     string // stands in every target in it, before a slash
	family string
	bytes  []byte
}

// authority is the host that messages ask for.
const authority = "edge.test"

// generate makes n messages. The same seed gives the same messages.
func generate(seed uint64, n int) []message {
	all := make([]message, n)
	for i := range all {
		f := families[i%len(families)]
		d := newDraft(fmt.Sprintf("m%06d", i), rand.New(rand.NewPCG(seed, uint64(i))))
		f.change(d)
		all[i] = message{d.id, f.name, d.render()}
	}
	return all
}

// draft is a message in the making: a well-formed request that families bend.
type draft struct {
	*rand.Rand
	id      string
	line    string   // the request line
	fields  []string // lines of the head
	body    string   // with its framing
	after   string   // what follows on the connection
	eol     string   // of the lines of the head
	end     string   // of the head; default eol
	rewrite func(string) string
}

func newDraft(id string, r *rand.Rand) *draft {
	d := &draft{Rand: r, id: id, eol: "\r\n"}
	d.line = "GET /" + id + "/a HTTP/1.1"
	d.fields = []string{"Host: " + authority, "User-Agent: differential"}
	if d.IntN(2) == 0 {
		d.fields = append(d.fields, "Accept: */*")
	}
	return d
}

func (d *draft) render() []byte {
	if d.end == "" {
		d.end = d.eol
	}
	s := d.line + d.eol
	for _, f := range d.fields {
		s += f + d.eol
	}
	s += d.end + d.body + d.after
	if d.rewrite != nil {
		s = d.rewrite(s)
	}
	return []byte(s)
}

// mutate changes the whole message, but not the id in it, by which the origin's
// records find their message.
func (d *draft) mutate(change func(string) string) {
	d.rewrite = func(s string) string {
		for {
			if t := change(s); strings.Count(t, d.id+"/") == strings.Count(s, d.id+"/") {
				return t
			}
		}
	}
}

// one returns one of the choices.
func (d *draft) one(choices ...string) string { return choices[d.IntN(len(choices))] }

// add puts a line of the head at a random place.
func (d *draft) add(lines ...string) {
	for _, l := range lines {
		d.fields = slices.Insert(d.fields, d.IntN(len(d.fields)+1), l)
	}
}

// post makes it a POST.
func (d *draft) post() { d.line = strings.Replace(d.line, "GET", "POST", 1) }

// another is a whole request that a wrong framing would let through.
func (d *draft) another(name string) string {
	return "GET /" + d.id + "/" + name + " HTTP/1.1\r\nHost: " + authority + "\r\n\r\n"
}

// chunks is a well-formed chunked body.
func (d *draft) chunks() string {
	var b strings.Builder
	for range d.IntN(3) {
		data := strings.Repeat(string(rune('a'+d.IntN(26))), 1+d.IntN(20))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(data), data)
	}
	return b.String() + "0\r\n\r\n"
}

// framed gives it a well-formed body, by length or in chunks.
func (d *draft) framed() {
	d.post()
	if d.IntN(2) == 0 {
		d.body = strings.Repeat("b", d.IntN(40))
		d.add(fmt.Sprintf("Content-Length: %d", len(d.body)))
		return
	}
	d.body = d.chunks()
	d.add("Transfer-Encoding: chunked")
}

// families are the ways to bend a request.
var families = []struct {
	name   string
	change func(*draft)
}{
	{wellFormed, func(d *draft) {
		if d.IntN(3) > 0 {
			d.framed()
		}
		if d.IntN(2) == 0 {
			d.fields = append(d.fields, "Connection: close")
		}
	}},
	{"length and chunked", func(d *draft) {
		d.post()
		d.body = d.chunks()
		d.after = d.another("smuggled")
		length := []int{0, 3, 5, len(d.body), len(d.body) + len(d.after), 1000}[d.IntN(6)]
		d.add(fmt.Sprintf("Content-Length: %d", length), "Transfer-Encoding: "+d.one("chunked", "chunked", "Chunked", "identity", "x"))
	}},
	{"transfer coding", (*draft).coding},
	{"content length", (*draft).length},
	{"line ends", (*draft).lineEnds},
	{"folded lines", func(d *draft) {
		d.framed()
		fold := d.one(" ", "\t", "  \t ")
		line := d.one("Content-Length: 5", "Transfer-Encoding: chunked", "X: y", "Host: other.test", "")
		switch d.IntN(4) {
		case 0: // a value on the next line
			name, value, _ := strings.Cut(line+":", ":")
			d.add(name + ":\r\n" + fold + value)
		case 1: // a field that looks folded into another
			d.add("X: y\r\n" + fold + line)
		case 2: // before the first field
			d.fields = append([]string{fold + line}, d.fields...)
		case 3: // a line of nothing but white space
			d.add(fold)
		}
		d.after = d.another("smuggled")
	}},
	{"white space", func(d *draft) {
		d.framed()
		space := d.one(" ", "\t", "  ", "\v", "\f", "\u00a0", "\x85")
		i := d.IntN(len(d.fields))
		name, value, _ := strings.Cut(d.fields[i], ":")
		switch d.IntN(7) {
		case 0:
			d.fields[i] = name + space + ":" + value
		case 1:
			d.fields[i] = space + d.fields[i]
		case 2:
			d.fields[i] = name + ":" + space + strings.TrimSpace(value) + space
		case 3:
			d.line = strings.Replace(d.line, " ", d.one("  ", "\t", " \t", "\v"), 1)
		case 4:
			d.line += space
		case 5:
			d.line = space + d.line
		case 6:
			d.line = strings.Repeat("\r\n", 1+d.IntN(3)) + d.line
		}
		d.after = d.another("smuggled")
	}},
	{"host", func(d *draft) {
		d.fields = d.fields[1:]
		values := []string{authority, "", "other.test", "a.test, b.test", "user@edge.test", "edge.test/x", "edge.test:80", "edge.test:x",
			"edge.test edge.test", "edge.test\x00", "[::1]", "[::1", "\"edge.test\"", "edge.test#", "edge.test\\x", "é.test", "%65dge.test", ".", "edge.test."}
		for range d.IntN(3) {
			d.add(d.one("Host", "Host", "Host", "host", "HOST", "Host ", "H\u00f6st") + ":" + d.one("", " ", "\t") + values[d.IntN(len(values))])
		}
	}},
	{"absolute form", func(d *draft) {
		scheme := d.one("http://", "https://", "HTTP://", "ftp://", "http:/", "http:", "//", "", "javascript:")
		host := d.one(authority, "other.test", "", "user@edge.test", "edge.test:8080", "edge.test, b.test", "[::1]")
		path := d.one("/", "/", "", "?")
		// The id stands twice: without a path before it, the first belongs to the
		// host, which is forwarded without a slash.
		d.line = d.one("GET ", "GET ", "OPTIONS ") + scheme + host + path + d.id + "/" + d.id + "/a HTTP/1.1"
		switch d.IntN(3) {
		case 0:
			d.fields = d.fields[1:]
		case 1:
			d.fields[0] = "Host: " + d.one("other.test", "", host)
		}
	}},
	{"chunk sizes", (*draft).chunkSizes},
	{"trailers", func(d *draft) {
		d.post()
		d.add("Transfer-Encoding: chunked")
		if d.IntN(2) == 0 {
			d.add("Trailer: Content-Length")
		}
		t := d.one("Content-Length: 5", "Transfer-Encoding: chunked", "Host: other.test", "X: y", "X : y", " X: y", "X", ":",
			"X: y\n", "X: \x00", "X: a\r\n b", "X: y\rZ: z", "Content-Length: 5\r\nContent-Length: 6", "GET / HTTP/1.1")
		d.body = "3\r\nabc\r\n0\r\n" + t + "\r\n\r\n"
		d.after = d.another("smuggled")
	}},
	{"control characters", func(d *draft) {
		d.framed()
		c := d.one("\x00", "\x01", "\x08", "\x0b", "\x0c", "\x1b", "\x7f", "\x80", "\xff", "\r", "\n")
		d.mutate(func(s string) string {
			head := strings.Index(s, "\r\n\r\n")
			i := d.IntN(head)
			return s[:i] + c + s[i+d.IntN(2):]
		})
	}},
	{"field names", func(d *draft) {
		d.framed()
		odd := d.one("(", ")", "<", ">", "@", ",", ";", "\\", "\"", "/", "[", "]", "?", "=", "{", "}", " ", "")
		d.add(d.one("X"+odd+"Y: z", odd+": z", "X", ":", "Content"+odd+"-Length: 3", "Transfer-Encoding"+odd+": chunked",
			"Content_Length: 3", "Transfer_Encoding: chunked", strings.Repeat("x", 9000)+": y"))
		d.after = d.another("smuggled")
	}},
	{"oversize", func(d *draft) {
		d.framed()
		switch d.IntN(4) {
		case 0:
			d.add("X: " + strings.Repeat("y", 7_000+d.IntN(90_000)))
		case 1:
			for i := range 50 + d.IntN(3000) {
				d.fields = append(d.fields, fmt.Sprintf("X-%d: y", i))
			}
		case 2:
			d.line = "GET /" + d.id + "/" + strings.Repeat("z", 7_000+d.IntN(40_000)) + " HTTP/1.1"
		case 3:
			d.line = strings.Repeat("M", 10+d.IntN(40_000)) + " /" + d.id + "/a HTTP/1.1"
		}
		d.after = d.another("smuggled")
	}},
	{"truncated", func(d *draft) {
		d.framed()
		d.rewrite = func(s string) string { return s[:d.IntN(len(s))] }
	}},
	{"pipelined", func(d *draft) {
		if d.IntN(2) == 0 {
			d.framed()
		}
		for i := range 1 + d.IntN(3) {
			switch d.IntN(4) {
			case 0, 1:
				d.after += d.another(fmt.Sprintf("next%d", i))
			case 2:
				d.after += "POST /" + d.id + "/post HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 4\r\n\r\nabcd"
			case 3:
				d.after += d.one("\r\n", "\n", "junk", "\x00", "GET /"+d.id+"/bad HTTP/1.1\nHost: edge.test\n\n",
					"POST /"+d.id+"/bad HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
			}
		}
	}},
	{"versions", func(d *draft) {
		d.framed()
		v := d.one("HTTP/0.9", "HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/11", "http/1.1", "HTTP/1.1x", "HTTP/1.10",
			"HTTP/01.1", "HTTP/1", "HTTP/", "", "HTTPS/1.1", "HTTP /1.1", "HTTP/1. 1", "ICY/1.1")
		d.line = strings.TrimSuffix(d.line, "HTTP/1.1") + v
		if d.IntN(2) == 0 {
			d.add("Connection: keep-alive")
		}
		d.after = d.another("smuggled")
	}},
	{"hop by hop", func(d *draft) {
		d.framed()
		d.add("Connection: " + d.one("content-length", "transfer-encoding", "host", "x-forwarded-for", "via", "close, content-length",
			"keep-alive, transfer-encoding", "upgrade, http2-settings", ",", "close;x", "Transfer-Encoding, Host, Content-Length", "te", "\x00"))
		d.add(d.one("TE: trailers", "TE: chunked", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Upgrade: websocket",
			"Proxy-Connection: keep-alive", "Keep-Alive: timeout=5", "Expect: 100-continue", "Expect: 200-ok", "Expect: 100-continue, x", "Trailer: Host"))
		d.after = d.another("smuggled")
	}},
	{"methods", func(d *draft) {
		if d.IntN(2) == 0 {
			d.framed()
		}
		_, rest, _ := strings.Cut(d.line, " ")
		d.line = d.one("GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "Get", "PATCH", "M-SEARCH", "G(T", "G\x00T", "", "PRI", "DEBUG") + " " + rest
		if d.IntN(4) == 0 {
			d.line = d.one("CONNECT edge.test:443", "OPTIONS *", "GET *", "PRI *", "GET "+authority, "GET") + " HTTP/1.1"
			d.fields = append(d.fields, "X-Id: /"+d.id+"/a")
		}
		d.after = d.another("smuggled")
	}},
	{"random bytes", func(d *draft) {
		d.framed()
		d.after = d.another("smuggled")
		d.mutate(func(s string) string {
			for range 1 + d.IntN(3) {
				c := d.one("\r", "\n", "\r\n", "\x00", " ", "\t", ":", ",", ";", "0", "1", "f", "\xff", "-", "_")
				i := d.IntN(len(s))
				s = s[:i] + d.one(c, c, "") + s[i+d.IntN(2):]
			}
			return s
		})
	}},
}

// wellFormed is the family that must pass: else a proxy that refuses everything
// would be the best.
const wellFormed = "well-formed"

// coding bends Transfer-Encoding over a body that has one meaning in chunks and
// another without.
func (d *draft) coding() {
	d.post()
	d.body = d.chunks()
	d.after = d.another("smuggled")
	if d.IntN(2) == 0 {
		d.add(fmt.Sprintf("Content-Length: %d", len(d.body)+d.IntN(2)*len(d.after)))
	}
	if d.IntN(3) == 0 {
		d.add(d.one("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: x", "Transfer-Encoding:"))
	}
	d.add(d.one(
		"Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", " Transfer-Encoding: chunked", "Transfer-Encoding:\vchunked",
		"Transfer-Encoding:\fchunked", "Transfer-Encoding:\tchunked", "Transfer-Encoding:chunked", "Transfer-Encoding: chunked\x00",
		"Transfer-Encoding: \x00chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunkedx", "Transfer-Encoding: chunked, identity",
		"Transfer-Encoding: identity, chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: Chunked", "transfer-encoding: CHUNKED",
		"Transfer-Encoding: chunked;a=b", "Transfer-Encoding: chunked ;a", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: gzip, chunked",
		"Transfer-Encoding: chunked, gzip", "Transfer-Encoding: chunked,", "Transfer-Encoding: ,chunked", "Transfer-Encoding: , ,", "Transfer-Encoding: chunked\u00a0",
		"Transfer-Encoding: \u212ahunked", "Transfer_Encoding: chunked", "Transfer-Encoding\r\n : chunked", "X: y\nTransfer-Encoding: chunked",
		"X: y\rTransfer-Encoding: chunked", "Transfer\u00adEncoding: chunked", "Transfer-Encoding; chunked", "Transfer-Encoding:\r\n chunked",
		"Transfer-Encoding: chunked\r", "Transfer-Encoding: chun\tked", "Content-Encoding: chunked", "Transfer-Encoding: chunked\t",
	))
}

// length bends Content-Length; the body is of five bytes.
func (d *draft) length() {
	d.post()
	d.body = "abcde"
	d.after = d.another("smuggled")
	d.add(d.one("Content-Length", "Content-Length", "Content-Length", "content-length", "CONTENT-LENGTH", "Content-Length ", "Content_Length",
		"Content-Length\t", " Content-Length", "Content-Length\x00", "X: y\nContent-Length", "X: y\rContent-Length") + ":" +
		d.one(" 5", "5", " 05", " 00000000000000000000005", " +5", " -5", " -0", " 5 5", " 5,5", " 5, 6", " 5,", " ,5", " 0x5", " 5.0", " 5e0", " \u0665", " 5\x00",
			" 5;", " 5\v", " \v5", " 99999999999999999999", " 18446744073709551621", " 9223372036854775808", " 4294967301", "", " ", " five", " 5\r", " 5\r\n 6", " \"5\"", " 5_0"))
	switch d.IntN(4) {
	case 0:
		d.add(d.one("Content-Length: 5", "Content-Length: 6", "Content-Length: 0", "Content-Length:", "Content-Length: x"))
	case 1:
		d.line = strings.Replace(d.line, "POST", d.one("GET", "HEAD", "DELETE"), 1)
	}
}

// lineEnds puts other line ends, all over or in one place.
func (d *draft) lineEnds() {
	d.framed()
	d.after = d.another("smuggled")
	end := d.one("\n", "\r", "\r\r\n", "\n\r", "\r\n\r", "\n\n", "\x85", "\v")
	switch d.IntN(5) {
	case 0:
		d.eol = end
	case 1:
		d.end = end
	case 2:
		d.line += end + "X: y"
	case 3:
		i := d.IntN(len(d.fields))
		d.fields[i] += end + d.one("X: y", "Content-Length: 3", "Transfer-Encoding: chunked", "")
	case 4:
		d.line = end + d.line
	}
}

// chunkSizes bends the lines and ends of chunks; what is meant is "abcde".
func (d *draft) chunkSizes() {
	d.post()
	d.add("Transfer-Encoding: chunked")
	size := d.one("5", "05", "0000000000000005", "00000000000000000000005", "0x5", "0X5", "+5", "-5", " 5", "\t5", "5 ", "5\t", "5;", "5 ;x", "5;x", "5;x=y",
		"5;x=\"a;b\"", "5;x=\"\r\n", "5;\n", "5;\rx", "5;\x00", "5;x\ny", "5;"+strings.Repeat("e", 100+d.IntN(20_000)), "10000000000000005", "100000005", "FFFFFFFFFFFFFFFF", "7FFFFFFFFFFFFFFB",
		"g", "", "5g", "5,", "5 5", "4", "6", "5\x00", "\u0665", "5.0")
	after := d.one("\r\n", "\r\n", "\r\n", "\n", "\r", "", "\r\n\r\n", "x\r\n", "\r\r\n", " \r\n")
	last := d.one("0\r\n\r\n", "0\r\n\r\n", "0\r\n\r\n", "00\r\n\r\n", "0;x\r\n\r\n", "0\n\n", "0\r\n\n", "0\r\r", "0\r\n", "0 \r\n\r\n", "-0\r\n\r\n", "0x0\r\n\r\n", "\r\n\r\n", "")
	d.body = size + d.one("\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n") + "abcde" + after + last
	d.after = d.another("smuggled")
}
