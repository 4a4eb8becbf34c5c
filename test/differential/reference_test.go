package differential

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const head = "POST /a HTTP/1.1\r\nHost: edge.test\r\n"

func TestStrictReader(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		bodies   []string
		complete bool // the last of them
		refused  string
		rest     int
	}{
		{name: "nothing"},
		{name: "no body", in: head + "\r\n", bodies: []string{""}, complete: true},
		{name: "empty lines before", in: "\r\n\r\n" + head + "\r\n", bodies: []string{""}, complete: true},
		{name: "length", in: head + "Content-Length: 3\r\n\r\nabc", bodies: []string{"abc"}, complete: true},
		{name: "equal lengths", in: head + "Content-Length: 3, 3\r\nContent-Length: 3\r\n\r\nabc", bodies: []string{"abc"}, complete: true},
		{name: "short body", in: head + "Content-Length: 3\r\n\r\nab", bodies: []string{"ab"}},
		{name: "chunks", in: head + "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n", bodies: []string{"abcde"}, complete: true},
		{name: "short chunk", in: head + "Transfer-Encoding: chunked\r\n\r\n3\r\na", bodies: []string{"a"}},
		{name: "no last chunk", in: head + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", bodies: []string{"a"}},
		{name: "pipelined", in: head + "Content-Length: 1\r\n\r\na" + head + "\r\n", bodies: []string{"a", ""}, complete: true},
		{name: "start of a head", in: head + "\r\n" + "GET /", bodies: []string{""}, complete: true, rest: 5},
		{name: "behind a close", in: head + "Connection: close\r\n\r\nx", bodies: []string{""}, complete: true, rest: 1},
		{name: "behind both framings", in: head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", bodies: []string{""}, complete: true, rest: 1},
		{name: "behind HTTP/1.0", in: "GET / HTTP/1.0\r\n\r\nx", bodies: []string{""}, complete: true, rest: 1},
		{name: "absolute form", in: "GET http://edge.test HTTP/1.1\r\nHost: other.test\r\n\r\n", bodies: []string{""}, complete: true},

		{name: "bare LF", in: "GET / HTTP/1.1\nHost: a\n\n", refused: "bare LF"},
		{name: "bare CR", in: head + "X: a\rb\r\n\r\n", refused: "bare CR"},
		{name: "NUL", in: head + "X: \x00\r\n\r\n", refused: "NUL"},
		{name: "control", in: head + "X: \x01\r\n\r\n", refused: "control in value"},
		{name: "space before colon", in: head + "X : a\r\n\r\n", refused: "field name"},
		{name: "fold", in: head + "X: a\r\n b\r\n\r\n", refused: "folded line"},
		{name: "two spaces", in: "GET  / HTTP/1.1\r\n\r\n", refused: "request line of other than three parts"},
		{name: "no version", in: "GET /\r\n\r\n", refused: "request line of other than three parts"},
		{name: "other version", in: "GET / HTTP/2.0\r\n\r\n", refused: "version"},
		{name: "no slash", in: "GET a HTTP/1.1\r\n\r\n", refused: "form of target"},
		{name: "tunnel", in: "CONNECT a:1 HTTP/1.1\r\n\r\n", refused: "CONNECT"},
		{name: "no Host", in: "GET / HTTP/1.1\r\n\r\n", refused: "no Host field"},
		{name: "two Hosts", in: head + "Host: edge.test\r\n\r\n", refused: "several Host fields"},
		{name: "bad Host", in: "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", refused: "value of Host"},
		{name: "user in target", in: "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", refused: "authority in target"},
		{name: "signed length", in: head + "Content-Length: +3\r\n\r\nabc", refused: "value of Content-Length"},
		{name: "empty length", in: head + "Content-Length:\r\n\r\n", refused: "value of Content-Length"},
		{name: "huge length", in: head + "Content-Length: 18446744073709551621\r\n\r\n", refused: "value of Content-Length"},
		{name: "two lengths", in: head + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", refused: "differing Content-Length"},
		{name: "other coding", in: head + "Transfer-Encoding: gzip, chunked\r\n\r\n", refused: "transfer coding"},
		{name: "twice chunked", in: head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", refused: "transfer coding"},
		{name: "no coding", in: head + "Transfer-Encoding: ,\r\n\r\n", refused: "transfer coding"},
		{name: "chunk size", in: head + "Transfer-Encoding: chunked\r\n\r\n0x3\r\n", bodies: []string{""}, refused: "chunk extension"},
		{name: "huge chunk", in: head + "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\n", bodies: []string{""}, refused: "chunk size"},
		{name: "space behind size", in: head + "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n", bodies: []string{""}, refused: "chunk extension"},
		{name: "LF behind size", in: head + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n", bodies: []string{""}, refused: "bare LF in chunk line"},
		{name: "long chunk", in: head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", bodies: []string{"abc"}, refused: "no CRLF after chunk"},
		{name: "bad trailer", in: head + "Transfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n", bodies: []string{""}, refused: "field name in trailers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strict([]byte(tt.in))
			var bodies []string
			complete := false
			for _, r := range got.requests {
				bodies, complete = append(bodies, string(r.body)), r.complete
			}
			if !slices.Equal(bodies, tt.bodies) || complete != tt.complete || got.refused != tt.refused || got.rest != tt.rest {
				t.Errorf("bodies %q, complete %t, refused %q, rest %d; want %q, %t, %q, %d",
					bodies, complete, got.refused, got.rest, tt.bodies, tt.complete, tt.refused, tt.rest)
			}
		})
	}
}

// Every liberty must be able to object: a reader that never differs proves
// nothing.
func TestEveryLibertyReadsSomethingDifferently(t *testing.T) {
	plain := leniency{}
	for name, in := range map[string]string{
		"a bare LF ends a line":               head + "X: y\nContent-Length: 1\r\n\r\na",
		"a bare CR ends a line":               head + "X: y\rContent-Length: 1\r\n\r\na",
		"white space around names is dropped": head + "Content-Length : 1\r\n\r\na",
		"folded lines continue the value":     head + "Content-Length:\r\n 1\r\n\r\na",
		"folded lines are fields":             head + "X: y\r\n Content-Length: 1\r\n\r\na",
		"underscores are dashes":              head + "Content_Length: 1\r\n\r\na",
		"a control character ends a value":    head + "Content-Length: 1\x00\r\n\r\na",
		"any mention of chunked counts":       head + "Transfer-Encoding: xchunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
		"only the literal chunked counts":     head + "Transfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
		"HTTP/1.0 has no chunked":             "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
		"the length wins over chunked":        head + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\na\r\n0\r\n\r\n",
		"the last length counts":              head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"numbers as C reads them":             head + "Content-Length: +1x\r\n\r\na",
		"all liberties":                       head + "Content_Length : +1x\r\n\r\na",
	} {
		i := slices.IndexFunc(lenients, func(l leniency) bool { return l.name == name })
		if i < 0 {
			t.Errorf("no liberty is called %q", name)
			continue
		}
		body, n, complete := plain.read([]byte(in))
		gotBody, gotN, gotComplete := lenients[i].read([]byte(in))
		if bytes.Equal(body, gotBody) && n == gotN && complete == gotComplete {
			t.Errorf("%s: %q is read as without the liberty: %q", name, in, body)
		}
	}
}

func TestJudge(t *testing.T) {
	const (
		one   = "GET /m000000/a HTTP/1.1\r\nHost: edge.test\r\n\r\n"
		via   = "GET /m000000/a HTTP/1.1\r\nHost: edge.test\r\nVia: 1.1 p\r\n\r\n"
		short = "POST /m000000/a HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 3\r\n\r\nab"
	)
	closed, kept := answer{statuses: []int{200}, closed: true}, answer{statuses: []int{200}}
	for _, tt := range []struct {
		name, family, sent string
		seen               answer
		got                []string
		want               []kind
	}{
		{"as it should be", wellFormed, one, kept, []string{via}, nil},
		{"one each", "", one + one, kept, []string{via, via}, nil},
		{"refused", "", "GET / HTTP/1.1\n\n", answer{statuses: []int{400}, closed: true}, nil, nil},
		{"cut short as sent", "", short, kept, []string{short}, nil},
		{"cut short on the way", "", short + "c", kept, []string{short}, nil},
		{"head not all there", "", one, kept, []string{one[:20]}, nil},
		{"two requests", "", one + one, kept, []string{via + via}, []kind{splits}},
		{"both framings", "", head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", closed,
			[]string{head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"}, []kind{splits}},
		{"hidden framing", "", head + "Content_Length: 5\r\n\r\n", closed, []string{head + "Content_Length: 5\r\n\r\n"}, []kind{splits}},
		{"upgrade", "", one, kept, []string{"GET /m000000/a HTTP/1.1\r\nHost: edge.test\r\nUpgrade: h2c\r\n\r\n"}, []kind{splits}},
		{"bad value", "", one, kept, []string{"GET /m000000/a HTTP/1.1\r\nHost: a@b\r\n\r\n"}, []kind{malformed}},
		{"framing in trailers", "", head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", closed,
			[]string{head + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n"}, []kind{malformed}},
		{"should have been refused", "", "GET / HTTP/1.1\nHost: edge.test\n\n", closed, []string{via}, []kind{differs}},
		{"behind the last", "", "GET /m000000/a HTTP/1.0\r\nHost: edge.test\r\n\r\n" + one, closed, []string{via, via}, []kind{differs}},
		{"other target", "", one, kept, []string{strings.Replace(via, "/a", "/b", 1)}, []kind{differs}},
		{"other method", "", one, kept, []string{strings.Replace(via, "GET", "PUT", 1)}, []kind{differs}},
		{"other host", "", one, kept, []string{strings.Replace(via, "edge", "other", 1)}, []kind{differs}},
		{"other body", "", short + "c", kept, []string{short + "x"}, []kind{differs}},
		{"completed", "", short, kept, []string{strings.Replace(short, ": 3", ": 2", 1)}, []kind{differs}},
		{"left open", "", "GET / HTTP/1.1\n\n", answer{statuses: []int{400}}, nil, []kind{open}},
		{"blamed", "", one, answer{statuses: []int{502}}, nil, []kind{blames}},
		{"missing", wellFormed, one, kept, nil, []kind{missing}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got [][]byte
			for _, g := range tt.got {
				got = append(got, []byte(g))
			}
			problems := judge(message{"m000000", tt.family, []byte(tt.sent)}, tt.seen, got)
			var kinds []kind
			for _, p := range problems {
				kinds = append(kinds, p.kind)
			}
			if !slices.Equal(kinds, tt.want) {
				t.Errorf("judged %v, want %v: %v", kinds, tt.want, problems)
			}
		})
	}
}

func TestGenerate(t *testing.T) {
	const n = 2000
	all := generate(1, n)
	again := generate(1, n)
	refused := make(map[string]int)
	seen := make(map[string]bool)
	for i, m := range all {
		if !bytes.Equal(m.bytes, again[i].bytes) {
			t.Fatalf("message %d is not the same again", i)
		}
		seen[string(m.bytes[:min(len(m.bytes), 4096)])] = true
		got := strict(m.bytes)
		if m.family == wellFormed && (got.refused != "" || got.rest != 0 || len(got.requests) != 1 || !got.requests[0].complete) {
			t.Errorf("not well-formed: %q: %+v", m.bytes, got)
		}
		if m.family != "truncated" && !bytes.Contains(m.bytes, []byte(m.id+"/")) {
			t.Errorf("the id %s is not in %q", m.id, m.bytes)
		}
		if got.refused != "" {
			refused[m.family]++
		}
	}
	if len(seen) < n*9/10 {
		t.Errorf("only %d of %d messages are different", len(seen), n)
	}
	// Length with chunked, truncation, size and hop-by-hop fields break no rule
	// of reading, or seldom.
	for _, f := range families {
		switch f.name {
		case wellFormed, "length and chunked", "oversize", "truncated", "hop by hop":
		default:
			if refused[f.name] < n/len(families)/10 {
				t.Errorf("only %d messages of family %q break a rule", refused[f.name], f.name)
			}
		}
	}
}

func TestAttribute(t *testing.T) {
	messages := generate(1, 3)
	got, strays := attribute(messages, []record{
		{3, []byte("GET /m000001/b HTTP/1.1\r\n")},
		{1, []byte("GET /m000001/a HTTP/1.1\r\n")},
		{2, []byte("GET /1k HTTP/1.1\r\n")},
		{4, []byte("GE")},
		{5, []byte("GET /m000009/a HTTP/1.1\r\n")},
		{6, []byte("what\r\n")},
	})
	if len(got[0]) != 0 || len(got[2]) != 0 || len(got[1]) != 2 || !bytes.Contains(got[1][0], []byte("/a ")) {
		t.Errorf("got %q", got)
	}
	if len(strays) != 2 {
		t.Errorf("strays %q, want the unknown id and the unknown bytes", strays)
	}
}
