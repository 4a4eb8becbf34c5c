package http1

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"anyedge/pop/proxy/exchange"
)

// refused are requests by the rule that they break, with the answer's status.
// None may reach a handler as a request, and the connection must end.
var refused = []struct {
	rule    string
	request string // without the empty line at the end
	status  int
}{
	{"1 length and encoding", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n", 400},
	{"1 encoding and length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400},
	{"2 chunked not last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n", 400},
	{"2 chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
	{"2 no coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n", 400},
	{"2 empty element", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n", 400},
	{"2 unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n", 501},
	{"2 misspelled coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n", 501},
	{"2 coding with a vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n", 400},
	{"2 identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n", 501},
	{"3 encoding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", 400},
	{"4 signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n", 400},
	{"4 list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n", 400},
	{"4 hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n", 400},
	{"4 no length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n", 400},
	{"4 immense length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551620\r\n", 400},
	{"4 differing lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\ncontent-length: 5\r\n", 400},
	{"7 bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n", 400},
	{"7 bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: a\r\n", 400},
	{"7 bare LF behind a value", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n", 400},
	{"7 bare LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n", 400},
	{"8 space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n", 400},
	{"8 space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n", 400},
	{"8 folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n", 400},
	{"8 NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n", 400},
	{"8 control byte", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01\r\n", 400},
	{"8 no name", "GET / HTTP/1.1\r\nHost: a\r\n: a\r\n", 400},
	{"8 no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n", 400},
	{"10 no Host", "GET / HTTP/1.1\r\nX: a\r\n", 400},
	{"10 empty Host", "GET / HTTP/1.1\r\nHost:\r\n", 400},
	{"10 two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400},
	{"10 malformed Host", "GET / HTTP/1.1\r\nHost: a/b\r\n", 400},
	{"10 Host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n", 400},
	{"10 absolute target without Host", "GET http://a/ HTTP/1.1\r\nX: a\r\n", 400},
	{"10 malformed authority", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n", 400},
	{"14 other expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n", 417},
	{"target with a space", "GET /a b HTTP/1.1\r\nHost: a\r\n", 400},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n", 400},
	{"target beyond ASCII", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n", 400},
	{"asterisk but not OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n", 400},
	{"target in no form", "GET a HTTP/1.1\r\nHost: a\r\n", 400},
	{"other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n", 400},
	{"no version", "GET /\r\nHost: a\r\n", 400},
	{"HTTP/2 version", "GET / HTTP/2.0\r\nHost: a\r\n", 505},
	{"HTTP/0.9 version", "GET / HTTP/0.9\r\nHost: a\r\n", 505},
	{"lower case version", "GET / http/1.1\r\nHost: a\r\n", 400},
	{"long version", "GET / HTTP/1.10\r\nHost: a\r\n", 400},
	{"malformed method", "G(T / HTTP/1.1\r\nHost: a\r\n", 400},
	{"long method", strings.Repeat("M", 33) + " / HTTP/1.1\r\nHost: a\r\n", 501},
	{"long target", "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\nHost: a\r\n", 414},
	{"large head", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 9000) + "\r\n", 431},
	{"many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", 100), 431},
	{"long path", "GET /" + strings.Repeat("a", 4<<10) + " HTTP/1.1\r\nHost: a\r\n", 414},
	{"long query", "GET http://a?" + strings.Repeat("a", 4<<10) + " HTTP/1.1\r\nHost: a\r\n", 414},
	{"CONNECT to a path", "CONNECT / HTTP/1.1\r\nHost: a\r\n", 400},
	{"CONNECT to a URI", "CONNECT http://b:443/ HTTP/1.1\r\nHost: a\r\n", 400},
	{"CONNECT without port", "CONNECT b HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT with an empty port", "CONNECT b: HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT without host", "CONNECT :443 HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT to port 0", "CONNECT b:0 HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT to port 65536", "CONNECT b:65536 HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT to no port", "CONNECT b:http HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT to a bare IPv6 address", "CONNECT ::1:443 HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT to a bracket", "CONNECT [::1:443 HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT with user", "CONNECT u@b:443 HTTP/1.1\r\nHost: b\r\n", 400},
	{"CONNECT with a length", "CONNECT b:443 HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n", 400},
	{"CONNECT with a coding", "CONNECT b:443 HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n", 400},
	{"CONNECT without Host", "CONNECT b:443 HTTP/1.1\r\n", 400},
	{"empty lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n", 400},
}

func TestRefusedRequest(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.rule, func(t *testing.T) {
			got := serveOne(t, echo, nil).all(tt.request + "\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			if !strings.Contains(got, fmt.Sprintf(" %d ", tt.status)) || strings.Count(got, "HTTP/1.") != 1 ||
				!strings.Contains(got, "Connection: close\r\n") {
				t.Errorf("%.60q: answer %q, want one with status %d", tt.request, got, tt.status)
			}
		})
	}
}

// brokenBodies are bodies in the chunked coding (rule 9, and 7 for lines).
var brokenBodies = map[string]string{
	"no size":              "\r\n",
	"no number":            "x\r\nabc\r\n0\r\n\r\n",
	"signed size":          "+3\r\nabc\r\n0\r\n\r\n",
	"prefixed size":        "0x3\r\nabc\r\n0\r\n\r\n",
	"space before size":    " 3\r\nabc\r\n0\r\n\r\n",
	"space behind size":    "3 \r\nabc\r\n0\r\n\r\n",
	"underscore":           "1_0\r\n",
	"immense size":         "fffffffffffffffff\r\nabc",
	"long line":            "3;" + strings.Repeat("x", 300) + "\r\nabc\r\n0\r\n\r\n",
	"many extensions":      strings.Repeat("1;"+strings.Repeat("x", 240)+"\r\na\r\n", 100) + "0\r\n\r\n",
	"control in extension": "3;\x01\r\nabc\r\n0\r\n\r\n",
	"bare CR in line":      "3;\r \r\nabc\r\n0\r\n\r\n",
	"bare LF behind size":  "3\nabc\r\n0\r\n\r\n",
	"bare LF behind data":  "3\r\nabc\n0\r\n\r\n",
	"data too long":        "3\r\nabcd\r\n0\r\n\r\n",
	"folded trailer":       "0\r\nX: a\r\n b\r\n\r\n",
	"malformed trailer":    "0\r\nX : a\r\n\r\n",
	"bare LF in trailers":  "0\r\nX: a\n\r\n",
	"large trailers":       "0\r\nX: " + strings.Repeat("a", 9000) + "\r\n\r\n",
	"many trailers":        "0\r\n" + strings.Repeat("X: a\r\n", 101) + "\r\n",
}

func TestRule9BrokenChunks(t *testing.T) {
	for name, body := range brokenBodies {
		t.Run(name, func(t *testing.T) {
			got := serveOne(t, echo, nil).all("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body +
				strings.Repeat("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 3))
			if !strings.Contains(got, " 400 ") || strings.Count(got, "HTTP/1.") != 1 || !strings.Contains(got, "Connection: close\r\n") {
				t.Errorf("answer %q", got)
			}
		})
	}
}

func TestRule9TrailersNeverMerge(t *testing.T) {
	got := serveOne(t, echo, nil).all("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3;x=y\r\nabc\r\n" +
		"0\r\nHost: b\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\nAuthorization: x\r\nX_Forwarded_For: y\r\nX-Sum: 1\r\n\r\n")
	if !strings.HasSuffix(got, "POST a /\nConnection: close\n[abc][{X-Sum 1}]") {
		t.Errorf("answer %q", got)
	}
}

// Field lines keep order and case, and everything comes as it was sent.
func TestAcceptedRequest(t *testing.T) {
	for _, tt := range []struct{ request, want string }{
		{"GET / HTTP/1.1\r\nhOST: a\r\nx-B: 1\r\nX-a:2 \r\nX-b: \t3\r\n\r\n", "GET a /\nx-B: 1\nX-a: 2\nX-b: 3\n"},
		{"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /\n"},
		{"GET http://b:8080/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET b:8080 /x?y\n"},
		{"GET HTTPS://b HTTP/1.1\r\nHost: a\r\n\r\n", "GET b /\n"},
		{"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS b *\n"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a *\n"},
		{"GET / HTTP/1.3\r\nHost: [::1]:80\r\n\r\n", "GET [::1]:80 /\n"},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "POST a /\n[abc]"},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "GET a /\n[abc]"}, // rule 13
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  Chunked \r\n\r\n0003\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n", "POST a /\n[abc0123456789][]"},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n", "GET a /\nX: \xff\n"},
	} {
		got := serveOne(t, echo, nil).all(tt.request + "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "\r\n\r\n"+tt.want+"HTTP/1.1 200 OK\r\n") ||
			!strings.HasSuffix(got, "GET a /last\nConnection: close\n") {
			t.Errorf("%q: answer %q", tt.request, got)
		}
	}
}

// Requests that are sent ahead are answered in order, whatever their framing
// and however they arrive.
func TestPipelining(t *testing.T) {
	requests := "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxyPOST /3 HTTP/1.1\r\nHost: a\r\n" +
		"Transfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for _, step := range []int{1, 7, len(requests)} {
		c := serveOne(t, echo, nil)
		c.SetNoDelay(true)
		for rest := requests; rest != ""; rest = rest[min(step, len(rest)):] {
			c.send(rest[:min(step, len(rest))])
		}
		got := c.all("")
		at := -1
		for _, want := range []string{"a /1\n", "a /2\n[xy]", "a /3\n[z]", "a /4\n"} {
			next := strings.Index(got, want)
			if next <= at {
				t.Errorf("in steps of %d: %q is not in its place in %q", step, want, got)
			}
			at = next
		}
	}
}

func TestKeepAlive(t *testing.T) {
	for request, want := range map[string]string{ // of Connection
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                                     "",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n":             "close",
		"GET / HTTP/1.0\r\n\r\n":                                                "close",
		"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n":                      "keep-alive",
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n": "close",
	} {
		c := serveOne(t, echo, nil)
		c.send(request)
		head := readHead(c.r)
		got := ""
		for line := range strings.SplitSeq(head, "\r\n") {
			if value, ok := strings.CutPrefix(line, "Connection: "); ok {
				got = value
			}
		}
		if got != want {
			t.Errorf("%q: Connection %q, want %q", request, got, want)
		}
	}
}

// A response is framed by what it is, and never doubly (rule 5).
func TestRule5ResponseFraming(t *testing.T) {
	body := func(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }
	for _, tt := range []struct {
		request  string
		response exchange.Response
		want     []string
		not      []string
	}{
		{"GET / HTTP/1.1", exchange.Response{Status: 200, Length: 2, Body: body("ok")}, []string{"Content-Length: 2\r\n", "\r\n\r\nok"}, []string{"Transfer-Encoding"}},
		{"GET / HTTP/1.1", exchange.Response{Status: 200, Length: -1, Body: body("ok")}, []string{"Transfer-Encoding: chunked\r\n", "\r\n\r\n2\r\nok\r\n0\r\n\r\n"}, []string{"Content-Length"}},
		{"GET / HTTP/1.1", exchange.Response{Status: 200, Length: -1, Body: body("ok"), Trailers: &exchange.Fields{{Name: "X-Sum", Value: "1"}, {Name: "Host", Value: "b"}}},
			[]string{"Trailer: X-Sum\r\n", "0\r\nX-Sum: 1\r\n\r\n"}, []string{"Host"}},
		{"GET / HTTP/1.0", exchange.Response{Status: 200, Length: -1, Body: body("ok")}, []string{"HTTP/1.0 200 OK\r\n", "Connection: close\r\n", "\r\n\r\nok"}, []string{"Content-Length", "Transfer-Encoding"}},
		{"HEAD / HTTP/1.1", exchange.Response{Status: 200, Length: 5, Body: body("")}, []string{"Content-Length: 5\r\n"}, []string{"Transfer-Encoding"}},
		{"HEAD / HTTP/1.1", exchange.Response{Status: 200, Length: -1}, nil, []string{"Transfer-Encoding", "Content-Length"}},
		{"GET / HTTP/1.1", exchange.Response{Status: 204, Length: 0}, nil, []string{"Transfer-Encoding", "Content-Length"}},
		{"GET / HTTP/1.1", exchange.Response{Status: 304, Length: 7}, []string{"Content-Length: 7\r\n"}, []string{"Transfer-Encoding"}},
		{"GET / HTTP/1.1", exchange.Response{Status: 200, Length: -1}, []string{"Content-Length: 0\r\n"}, []string{"Transfer-Encoding"}},
	} {
		c := serveOne(t, func(_ context.Context, x *exchange.Exchange) { x.Client.Respond(&tt.response) }, nil)
		got := c.all(tt.request + "\r\nHost: a\r\nConnection: close\r\n\r\n")
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s, %d: %q is not in %q", tt.request, tt.response.Status, want, got)
			}
		}
		for _, not := range append(tt.not, "\r\n\r\n\r\n") {
			if strings.Contains(got, not) {
				t.Errorf("%s, %d: %q is in %q", tt.request, tt.response.Status, not, got)
			}
		}
	}
}

// wrong are answers of origins that must be errors.
var wrong = map[string]string{
	"1 length and encoding":     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"2 chunked not last":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"2 unknown coding":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"3 encoding in HTTP/1.0":    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"4 differing lengths":       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
	"4 signed length":           "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
	"6 short body":              "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
	"6 short chunks":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
	"6 short chunk":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok",
	"7 bare CR":                 "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
	"7 bare LF":                 "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
	"8 folded line":             "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
	"8 space before the colon":  "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
	"8 NUL":                     "HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n",
	"9 malformed chunk":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n",
	"15 unasked switch":         "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	"no status":                 "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
	"status out of range":       "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
	"other version":             "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
	"no end to interim answers": strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100),
	"large head":                "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxResponseHead) + "\r\n\r\n",
	"nothing":                   "",
}

func TestWrongResponse(t *testing.T) {
	for rule, response := range wrong {
		t.Run(rule, func(t *testing.T) {
			o := newOrigin(t, func(_ int64, conn *net.TCPConn, r *bufio.Reader) {
				readHead(r)
				io.WriteString(conn, response)
			})
			if status, body, err := o.do(t, &exchange.Request{}); err == nil {
				t.Errorf("%.60q was taken for %d %q", response, status, body)
			}
		})
	}
}

func TestRightResponse(t *testing.T) {
	for response, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":                                        "200 ok",
		"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok":                                           "200 ok",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end":                                                  "200 until the end",
		"HTTP/1.1 404 \r\nConnection: close\r\n\r\nuntil the end":                               "404 until the end",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x\r\n!\r\n0\r\n\r\n": "200 ok!",
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n":            "204 ",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n":                                "304 ",
	} {
		o := newOrigin(t, func(_ int64, conn *net.TCPConn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(conn, response)
		})
		status, body, err := o.do(t, &exchange.Request{})
		if got := fmt.Sprint(status, " ", body); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", response, got, err, want)
		}
	}
}

// Bytes behind a response are never the next response (rule 6), whether they
// come with it or later.
func TestRule6BytesBehindResponse(t *testing.T) {
	const smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"
	for name, response := range map[string]string{
		"fixed":   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"empty":   "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"204":     "HTTP/1.1 204 No Content\r\n\r\n",
		"304":     "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
	} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " later ", later), func(t *testing.T) {
				sent := make(chan struct{}, 2)
				o := newOrigin(t, func(n int64, conn *net.TCPConn, r *bufio.Reader) {
					readHead(r)
					if later {
						io.WriteString(conn, response)
						time.Sleep(20 * time.Millisecond) // so that it is a packet of its own
						io.WriteString(conn, smuggled)
					} else {
						io.WriteString(conn, response+smuggled)
					}
					sent <- struct{}{}
					io.Copy(io.Discard, r)
				})
				for range 2 {
					if _, body, err := o.do(t, &exchange.Request{}); err != nil || body == "smuggled" {
						t.Errorf("body %q, %v", body, err)
					}
					<-sent
				}
				if n := o.dials.Load(); n != 2 {
					t.Errorf("%d connections, want that each is dropped", n)
				}
			})
		}
	}
}
