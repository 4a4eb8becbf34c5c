package http3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"anyedge/pop/proxy/exchange"
)

// What becomes of a head: a status, or the code of a stream error.
func TestHeads(t *testing.T) {
	base := func(more ...string) []byte { return get("GET", "/", more...) }
	pseudo := func(pairs ...string) []byte { return headers(pairs...) }
	many := make([]string, 0, 220)
	for range 97 {
		many = append(many, "a", "b")
	}
	tests := []struct {
		name   string
		frame  []byte
		status string
		code   uint64
	}{
		{"good", base(), "200", 0},
		{"te: trailers", base("te", "trailers"), "200", 0},
		{"tab within a value", base("a", "b\tc"), "200", 0},
		{"obs-text", base("a", "\xe4"), "200", 0},
		{"empty value", base("a", ""), "200", 0},
		{"same host", base("host", "LOCALHOST"), "200", 0},
		{"host alone", pseudo(":method", "GET", ":scheme", "https", ":path", "/", "host", "localhost"), "200", 0},
		{"OPTIONS *", get("OPTIONS", "*"), "200", 0},
		{"content-length twice the same", base("content-length", "0", "content-length", "0"), "200", 0},
		{"scheme http", pseudo(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"), "200", 0},
		{"expect", base("expect", "100-Continue"), "200", 0},
		{"most fields", base(many[:192]...), "200", 0},
		{"longest path", get("GET", "/"+strings.Repeat("a", 4095)), "200", 0},

		{"too many fields", base(many...), "431", 0},
		{"too large, decoded", base("a", strings.Repeat("b", 16<<10)), "431", 0},
		{"too large, encoded", base("a", strings.Repeat("\x7e", 18<<10)), "431", 0},
		{"too long a path", get("GET", "/"+strings.Repeat("a", 4096)), "414", 0},
		{"unknown expectation", base("expect", "more"), "417", 0},
		{"no authority", pseudo(":method", "GET", ":scheme", "https", ":path", "/"), "400", 0},
		{"empty authority", pseudo(":method", "GET", ":scheme", "https", ":authority", "", ":path", "/"), "400", 0},
		{"user information", pseudo(":method", "GET", ":scheme", "https", ":authority", "u@localhost", ":path", "/"), "400", 0},
		{"unknown protocol", headers(":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "https", ":authority", "a", ":path", "/"), "501", 0},

		{"connection", base("connection", "close"), "", codeMessage},
		{"keep-alive", base("keep-alive", "1"), "", codeMessage},
		{"proxy-connection", base("proxy-connection", "x"), "", codeMessage},
		{"transfer-encoding", base("transfer-encoding", "chunked"), "", codeMessage},
		{"upgrade", base("upgrade", "h2c"), "", codeMessage},
		{"te", base("te", "gzip"), "", codeMessage},
		{"te twice", base("te", "trailers", "te", "trailers"), "", codeMessage},
		{"upper case", base("Accept", "a"), "", codeMessage},
		{"space in a name", base("a b", "c"), "", codeMessage},
		{"colon in a name", base("a:b", "c"), "", codeMessage},
		{"empty name", base("", "c"), "", codeMessage},
		{"CR in a value", base("a", "b\rc"), "", codeMessage},
		{"LF in a value", base("a", "b\nc: d"), "", codeMessage},
		{"NUL in a value", base("a", "b\x00c"), "", codeMessage},
		{"DEL in a value", base("a", "b\x7fc"), "", codeMessage},
		{"space before a value", base("a", " b"), "", codeMessage},
		{"tab after a value", base("a", "b\t"), "", codeMessage},
		{"CR in a pseudo-field", get("GET", "/a\r"), "", codeMessage},
		{"other host", base("host", "other.example"), "", codeMessage},
		{"two hosts", base("host", "localhost", "host", "LOCALHOST"), "", codeMessage},
		{"differing lengths", base("content-length", "0", "content-length", "1"), "", codeMessage},
		{"no number", base("content-length", "+1"), "", codeMessage},
		{"list of lengths", base("content-length", "0, 0"), "", codeMessage},
		{"no length", base("content-length", ""), "", codeMessage},
		{"huge length", base("content-length", "9223372036854775808"), "", codeMessage},
		{"length without a body", base("content-length", "1"), "", codeMessage},
		{"pseudo-field after others", headers(":method", "GET", ":scheme", "https", ":authority", "a", "a", "b", ":path", "/"), "", codeMessage},
		{"pseudo-field twice", base(":path", "/"), "", codeMessage},
		{"of responses", base(":status", "200"), "", codeMessage},
		{"unknown pseudo-field", base(":other", "a"), "", codeMessage},
		{"no method", pseudo(":scheme", "https", ":authority", "a", ":path", "/"), "", codeMessage},
		{"bad method", get("GE T", "/"), "", codeMessage},
		{"no scheme", pseudo(":method", "GET", ":authority", "a", ":path", "/"), "", codeMessage},
		{"other scheme", pseudo(":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/"), "", codeMessage},
		{"no path", pseudo(":method", "GET", ":scheme", "https", ":authority", "a"), "", codeMessage},
		{"empty path", get("GET", ""), "", codeMessage},
		{"absolute path", get("GET", "https://localhost/"), "", codeMessage},
		{"space in the path", get("GET", "/a b"), "", codeMessage},
		{"fragment in the path", get("GET", "/a#b"), "", codeMessage},
		{"GET *", get("GET", "*"), "", codeMessage},
		{"empty block", headers(), "", codeMessage},
		{"CONNECT with a path", headers(":method", "CONNECT", ":authority", "a:1", ":path", "/"), "", codeMessage},
		{"CONNECT with a scheme", headers(":method", "CONNECT", ":authority", "a:1", ":scheme", "https"), "", codeMessage},
		{"CONNECT to nowhere", headers(":method", "CONNECT"), "", codeMessage},
		{"CONNECT by host", headers(":method", "CONNECT", "host", "a:1"), "", codeMessage},
		{"protocol without CONNECT", headers(":method", "GET", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/"), "", codeMessage},
		{"CONNECT with a protocol and no path", headers(":method", "CONNECT", ":protocol", "websocket", ":authority", "a"), "", codeMessage},
	}
	e := handlerServe(t, ok)
	c := e.connect(t).greet()
	for _, tt := range tests {
		call := c.begin(tt.frame)
		call.Close()
		head, _, _, err := call.answer()
		if got := head.Get(":status"); got != tt.status || resetCode(err) != tt.code || tt.code == 0 && err != nil {
			t.Errorf("%s: status %q, want %q; %v, want code %#x", tt.name, got, tt.status, err, tt.code)
		}
	}
	if e.count("connections") != 1 {
		t.Error("the connection did not go on")
	}
}

// What ends the connection, on a request's stream.
func TestFramesOnRequestStreams(t *testing.T) {
	good := get("POST", "/")
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	frame := func(kind uint64, n int) []byte {
		return append(appendVarint(appendVarint(nil, kind), uint64(n)), make([]byte, n)...)
	}
	for _, tt := range []struct {
		name   string
		bytes  []byte
		want   string // the answer's body, if the connection goes on
		reset  uint64 // of the stream
		closed uint64 // of the connection
	}{
		{"unknown frames", join(frame(0x21, 0), frame(0x21+0x1f*1000, 900), good, frame(1<<40, 3), data("a"), frame(0x40, 1), data(""), data("b")), "ab", 0, 0},
		{"longer varints than needed", join([]byte{0x40, 0x01, 0x80, 0, 0, byte(len(good) - 2)}, good[2:], []byte{0x80, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 1, 'x'}), "x", 0, 0},
		{"trailers", join(good, data("a"), headers("x", "y"), frame(0x21, 0)), "a", 0, 0},
		{"nothing", nil, "", codeRequestIncomplete, 0},
		{"only unknown frames", frame(0x21, 3), "", codeRequestIncomplete, 0},
		{"too much in unknown frames", join(frame(0x21, 40<<10), frame(0x21, 40<<10)), "", 0, codeExcessiveLoad},
		{"DATA first", data("x"), "", 0, codeFrameUnexpected},
		{"SETTINGS", join(frame(frameSettings, 0), good), "", 0, codeFrameUnexpected},
		{"GOAWAY after the head", join(good, frame(frameGoAway, 1)), "", 0, codeFrameUnexpected},
		{"MAX_PUSH_ID", join(frame(frameMaxPushID, 1)), "", 0, codeFrameUnexpected},
		{"CANCEL_PUSH", join(frame(frameCancelPush, 1)), "", 0, codeFrameUnexpected},
		{"PUSH_PROMISE", join(frame(framePushPromise, 1)), "", 0, codeFrameUnexpected},
		{"PRIORITY of HTTP/2", join(frame(0x2, 5), good), "", 0, codeFrameUnexpected},
		{"PING of HTTP/2", join(good, frame(0x6, 8)), "", 0, codeFrameUnexpected},
		{"DATA after trailers", join(good, headers("x", "y"), data("a")), "", 0, codeFrameUnexpected},
		{"trailers twice", join(good, headers("x", "y"), headers("x", "y")), "", 0, codeFrameUnexpected},
		{"cut off in a type", []byte{0x40}, "", 0, codeFrame},
		{"cut off in a length", []byte{0x01, 0x40}, "", 0, codeFrame},
		{"cut off in HEADERS", good[:len(good)-1], "", 0, codeFrame},
		{"cut off in DATA", join(good, data("abc")[:4]), "", 0, codeFrame},
		{"cut off in an unknown frame", []byte{0x21, 5, 0}, "", 0, codeFrame},
		{"dynamic table", appendFrame(nil, frameHeaders, []byte{0, 0, 0x80}), "", 0, codeQPACKDecompression},
		{"insert count", appendFrame(nil, frameHeaders, []byte{2, 0, 0xd1}), "", 0, codeQPACKDecompression},
		{"no prefix", appendFrame(nil, frameHeaders, nil), "", 0, codeQPACKDecompression},
		{"static table, out of bounds", appendFrame(nil, frameHeaders, []byte{0, 0, 0xff, 0x24}), "", 0, codeQPACKDecompression},
		{"bad Huffman code", appendFrame(nil, frameHeaders, []byte{0, 0, 0x50, 0x81, 0x00}), "", 0, codeQPACKDecompression},
		{"length beyond the body", join(get("POST", "/", "content-length", "3"), data("ab")), "", codeMessage, 0},
		{"body beyond the length", join(get("POST", "/", "content-length", "3"), data("ab"), data("cd")), "", codeMessage, 0},
		{"body for length 0", join(get("POST", "/", "content-length", "0"), data("a")), "", codeMessage, 0},
		{"trailers before the length", join(get("POST", "/", "content-length", "3"), data("ab"), headers("x", "y")), "", codeMessage, 0},
		{"bad trailers", join(good, data("a"), headers("X", "y")), "", codeMessage, 0},
		{"pseudo-field in trailers", join(good, data("a"), headers(":path", "/")), "", codeMessage, 0},
		{"connection in trailers", join(good, data("a"), headers("connection", "y")), "", codeMessage, 0},
		{"large trailers", join(good, data("a"), headers("x", strings.Repeat("y", 20<<10))), "", codeMessage, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			read := make(chan error, 1)
			e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
				b, err := io.ReadAll(x.Request.Body)
				if read <- err; err == nil {
					x.Client.Respond(respond(200, string(b)))
				}
			})
			c := e.connect(t).greet()
			call := c.begin(tt.bytes)
			call.Close()
			if tt.closed != 0 {
				if got := c.closed(); got != tt.closed {
					t.Errorf("closed with %#x, want %#x", got, tt.closed)
				}
				return
			}
			_, body, _, err := call.answer()
			if body != tt.want || resetCode(err) != tt.reset || tt.reset == 0 && err != nil {
				t.Errorf("%q, %v; want %q, code %#x", body, err, tt.want, tt.reset)
			}
			if tt.reset == codeMessage && len(read) > 0 {
				if err := <-read; !errors.Is(err, exchange.ErrMalformed) {
					t.Errorf("the body's reader was told %v", err)
				}
			}
		})
	}
}

// A malformed body can still be answered; then only the upload is reset.
func TestAnswerToMalformedBody(t *testing.T) {
	e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
		if _, err := io.ReadAll(x.Request.Body); !errors.Is(err, exchange.ErrMalformed) {
			t.Error(err)
		}
		if _, err := x.Request.Body.Read(make([]byte, 1)); !errors.Is(err, exchange.ErrMalformed) {
			t.Errorf("once more: %v", err)
		}
		x.Client.Respond(respond(400, "bad"))
	})
	call := e.connect(t).begin(append(get("POST", "/", "content-length", "1"), data("too long")...))
	head, body, _, err := call.answer()
	if err != nil || head.Get(":status") != "400" || body != "bad" {
		t.Errorf("%v %q %v", head, body, err)
	}
	await(t, "the upload is refused", func() bool {
		_, err := call.Write([]byte{0})
		return resetCode(err) == codeMessage
	})
}

// The client's one-way streams.
func TestOneWayStreams(t *testing.T) {
	settings := []byte{streamControl, frameSettings, 0}
	with := func(b ...byte) []byte { return append(bytes.Clone(settings), b...) }
	for _, tt := range []struct {
		name    string
		streams [][]byte
		fin     bool
		want    uint64 // 0 if the connection goes on
	}{
		{"usual", [][]byte{with(frameGoAway, 1, 0, 0x21, 1, 9), {streamEncoder, 0x20}, {streamDecoder, 0x41, 0x7f, 0x80, 0x01}}, false, 0},
		{"unknown settings", [][]byte{{streamControl, frameSettings, 4, 0x21, 1, 0x33, 1}}, false, 0},
		{"unknown types", [][]byte{settings, {0x21, 1, 2}, {0x40, 0x41}, {}}, false, 0},
		{"MAX_PUSH_ID grows", [][]byte{with(frameMaxPushID, 1, 3, frameMaxPushID, 1, 4)}, false, 0},
		{"PRIORITY_UPDATE", [][]byte{with(0x80, 0x0f, 0x07, 0x00, 4, 0, 'u', '=', '1')}, false, 0},
		{"settings missing", [][]byte{{streamControl, frameGoAway, 1, 0}}, false, codeMissingSettings},
		{"settings twice", [][]byte{with(frameSettings, 0)}, false, codeFrameUnexpected},
		{"setting twice", [][]byte{{streamControl, frameSettings, 4, 6, 1, 6, 1}}, false, codeSettings},
		{"setting of HTTP/2", [][]byte{{streamControl, frameSettings, 2, 2, 1}}, false, codeSettings},
		{"settings cut off", [][]byte{{streamControl, frameSettings, 1, 6}}, false, codeFrame},
		{"settings too long", [][]byte{{streamControl, frameSettings, 0x50, 0}}, false, codeExcessiveLoad},
		{"DATA", [][]byte{with(frameData, 0)}, false, codeFrameUnexpected},
		{"HEADERS", [][]byte{with(frameHeaders, 0)}, false, codeFrameUnexpected},
		{"of HTTP/2", [][]byte{with(0x8, 0)}, false, codeFrameUnexpected},
		{"CANCEL_PUSH", [][]byte{with(frameCancelPush, 1, 0)}, false, codeID},
		{"MAX_PUSH_ID shrinks", [][]byte{with(frameMaxPushID, 1, 3, frameMaxPushID, 1, 2)}, false, codeID},
		{"GOAWAY of wrong length", [][]byte{with(frameGoAway, 2, 0, 0)}, false, codeFrame},
		{"push stream", [][]byte{settings, {streamPush, 0}}, false, codeStreamCreation},
		{"two control streams", [][]byte{settings, settings}, false, codeStreamCreation},
		{"two encoders", [][]byte{settings, {streamEncoder}, {streamEncoder}}, false, codeStreamCreation},
		{"two decoders", [][]byte{settings, {streamDecoder}, {streamDecoder}}, false, codeStreamCreation},
		{"control ends", [][]byte{settings}, true, codeClosedCritical},
		{"encoder ends", [][]byte{{streamEncoder}}, true, codeClosedCritical},
		{"decoder ends", [][]byte{{streamDecoder}}, true, codeClosedCritical},
		{"encoder inserts", [][]byte{{streamEncoder, 0xc0, 0}}, false, codeQPACKEncoder},
		{"decoder acknowledges", [][]byte{{streamDecoder, 0x80}}, false, codeQPACKDecoder},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := handlerServe(t, ok)
			c := e.connect(t)
			for _, b := range tt.streams {
				str := c.oneWay(b)
				if tt.fin {
					str.Close()
				}
			}
			if tt.want != 0 {
				if got := c.closed(); got != tt.want {
					t.Errorf("closed with %#x, want %#x", got, tt.want)
				}
				return
			}
			for range 3 {
				call := c.begin(get("GET", "/"))
				call.Close()
				if _, _, _, err := call.answer(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Our settings, and that frames come in the right order.
func TestOurSettings(t *testing.T) {
	c := handlerServe(t, ok).connect(t)
	str, err := c.qc.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{streamControl, frameSettings, 7, settingMaxFieldSectionSize, 0x80, 0, 0x40, 0, settingExtendedConnect, 1}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(str, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, want %x: %v", got, want, err)
	}
}

// A client that is slow with a head, with a body, or below the pace.
func TestSlow(t *testing.T) {
	c := config(nil)
	c.HeaderTimeout, c.BodyIdle = 100*time.Millisecond, 100*time.Millisecond
	read := make(chan error, 1)
	c.Handler = func(ctx context.Context, x *exchange.Exchange) {
		_, err := io.ReadAll(x.Request.Body)
		read <- err
		x.Client.Respond(respond(408, ""))
	}
	e := serve(t, c)
	cl := e.connect(t)
	for name, b := range map[string][]byte{"no head": {}, "half a head": get("GET", "/")[:9], "no end": get("GET", "/")} {
		if len(b) == 0 {
			b = []byte{frameHeaders} // a stream begins with its first byte
		}
		if _, err := cl.begin(b).head(); resetCode(err) != codeRequestIncomplete {
			t.Errorf("%s: %v", name, err)
		}
	}
	call := cl.begin(append(get("POST", "/"), data("x")...))
	if head, err := call.head(); err != nil || head.Get(":status") != "408" {
		t.Errorf("half a body: %v %v", head, err)
	}
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("half a body: %v", err)
	}
}

// The pace of a body counts after its start, and only time spent waiting.
func TestPace(t *testing.T) {
	str := handlerServe(t, ok).connect(t).begin(nil).Stream
	cfg := config(ok)
	cfg.BodyRate = 100
	c := &conn{config: &cfg}
	for _, tt := range []struct {
		name     string
		declared bool
		got      int64
		waited   time.Duration
		slow     bool
	}{
		{"at the start", true, 0, bodyStart - time.Second, false},
		{"nothing for too long", true, 0, bodyStart, true},
		{"in time", true, 1000, bodyStart + 9*time.Second, false},
		{"late", true, 1000, bodyStart + 10*time.Second, true},
		{"no length", false, 0, time.Hour, false},
	} {
		b := &body{stream: &stream{conn: c, str: str}, patience: patience, declared: tt.declared, got: tt.got, waited: tt.waited}
		if err := b.setDeadline(time.Now()); (err != nil) != tt.slow {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
