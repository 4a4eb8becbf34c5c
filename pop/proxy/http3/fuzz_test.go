package http3

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"anyedge/pop/proxy/exchange"
)

// Whatever a header block holds, a request that is accepted can be written to
// any other protocol without meaning something else there.
func FuzzHead(f *testing.F) {
	seed := func(frame []byte) { f.Add(frame[2:]) } // of short ones
	seed(get("GET", "/a?b"))
	seed(get("POST", "/", "content-length", "5", "expect", "100-continue"))
	seed(get("GET", "/", "cookie", "a=b", "cookie", "c=d", "te", "trailers"))
	seed(headers(":method", "CONNECT", ":authority", "a:1"))
	seed(headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/"))
	seed(headers("x", "y"))
	f.Add([]byte{0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, 'a', 0x23, 'a', 'b', 'c', 1, 0})
	f.Add([]byte{0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, block []byte) {
		h := head{limits: limits{bytes: 4 << 10, fields: 20, uri: 1 << 10}}
		if h.decode(block) != nil {
			return
		}
		if fields, ok := h.trailers(); ok {
			checkFields(t, fields)
		}
		h.announced()
		var r exchange.Request
		switch refused := h.request(&r); {
		case refused == malformed:
			return
		case refused != none:
			if refused.Status < 400 || refused.Status > 501 || refused.Reason == "" {
				t.Fatalf("refused with %+v", refused)
			}
			return
		}
		checkFields(t, r.Fields)
		if h.size > h.limits.bytes || h.lines > h.limits.fields {
			t.Fatalf("%d bytes and %d lines were accepted", h.size, h.lines)
		}
		if r.Length < -1 || !exchange.Token(r.Method) || r.Authority == "" || strings.ContainsAny(r.Authority+r.Path, " \t\r\n\x00#@") && strings.ContainsAny(r.Authority, " \r\n\x00/?#@") {
			t.Fatalf("accepted %+v", r)
		}
		connect := r.Method == "CONNECT" && r.Upgrade == ""
		if connect != (r.Path == "") || !connect && r.Path[0] != '/' && (r.Path != "*" || r.Method != "OPTIONS") ||
			strings.ContainsAny(r.Path, " \t\r\n\x00#") || len(r.Path) > h.limits.uri {
			t.Fatalf("accepted %+v", r)
		}
	})
}

func checkFields(t *testing.T, fields exchange.Fields) {
	for _, x := range fields {
		if x.Name == "" || x.Name != strings.ToLower(x.Name) || strings.ContainsAny(x.Name, ": \t\r\n\x00") ||
			strings.ContainsAny(x.Value, "\r\n\x00") || strings.Trim(x.Value, " \t") != x.Value {
			t.Fatalf("accepted %q", x)
		}
		switch x.Name {
		case "connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "content-length", "host", "trailer":
			t.Fatalf("%q among the fields", x)
		}
	}
}

// Whatever comes on a stream, reading frames ends, and what is skipped is
// bounded.
func FuzzFrames(f *testing.F) {
	f.Add(append(get("GET", "/"), data("abc")...))
	f.Add([]byte{0x21, 0, 0x40, 0x21, 2, 1, 2, 0, 1, 'x'})
	f.Add([]byte{streamControl, frameSettings, 4, 6, 1, 8, 1, frameGoAway, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &input{r: bytes.NewReader(b)}
		for {
			kind, length, err := in.next()
			if err != nil {
				break
			}
			if kind != frameData && kind != frameHeaders {
				t.Fatalf("a frame of type %d", kind)
			}
			if in.skip(length) != nil {
				break
			}
		}
		if in.skipped > maxSkipped {
			t.Fatalf("%d bytes skipped", in.skipped)
		}
		for _, read := range []func(*input) error{readControl, readEncoder, readDecoder} {
			if err := read(&input{r: bytes.NewReader(b)}); err == nil || err == io.ErrUnexpectedEOF {
				t.Fatal(err)
			}
		}
	})
}
