package http2

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

func TestMalformed(t *testing.T) {
	get := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.example"}
	connect := []string{":method", "CONNECT", ":scheme", "https", ":path", "/", ":authority", "a.example"}
	with := func(base []string, more ...string) []string { return append(append([]string(nil), base...), more...) }
	without := func(name string) (fields []string) {
		for i := 0; i < len(get); i += 2 {
			if get[i] != name {
				fields = append(fields, get[i], get[i+1])
			}
		}
		return fields
	}
	replace := func(name, value string) []string { return append([]string{name, value}, without(name)...) }
	for name, test := range map[string]struct {
		fields []string
		status string // empty for a reset
	}{
		"well formed":              {get, "200"},
		"no method":                {without(":method"), ""},
		"method no token":          {replace(":method", "G T"), ""},
		"no scheme":                {without(":scheme"), ""},
		"strange scheme":           {replace(":scheme", "ftp"), ""},
		"no path":                  {without(":path"), ""},
		"empty path":               {replace(":path", ""), ""},
		"relative path":            {replace(":path", "a"), ""},
		"absolute path form":       {replace(":path", "http://a.example/"), ""},
		"path with space":          {replace(":path", "/a b"), ""},
		"path with fragment":       {replace(":path", "/a#b"), ""},
		"asterisk for GET":         {replace(":path", "*"), ""},
		"asterisk for OPTIONS":     {with(replace(":path", "*")[0:2], ":method", "OPTIONS", ":scheme", "https", ":authority", "a.example"), "200"},
		"no authority":             {without(":authority"), "400"},
		"host only":                {with(without(":authority"), "host", "a.example"), "200"},
		"host agrees":              {with(get, "host", "A.example"), "200"},
		"host differs":             {with(get, "host", "b.example"), ""},
		"two hosts":                {with(without(":authority"), "host", "a", "host", "b"), ""},
		"empty host":               {with(without(":authority"), "host", ""), "400"},
		"user information":         {replace(":authority", "u@a.example"), "400"},
		"authority with slash":     {replace(":authority", "a/b"), "400"},
		"pseudo twice":             {with(get, ":path", "/b")[:10], ""},
		"pseudo after field":       {[]string{":method", "GET", "a", "b", ":scheme", "https", ":path", "/", ":authority", "a"}, ""},
		"response pseudo":          {with([]string{":status", "200"}, get...), ""},
		"unknown pseudo":           {with([]string{":x", "y"}, get...), ""},
		"upper case":               {with(get, "Accept", "x"), ""},
		"empty name":               {with(get, "", "x"), ""},
		"name with space":          {with(get, "a b", "x"), ""},
		"name with colon":          {with(get, "a:b", "x"), ""},
		"value with NUL":           {with(get, "a", "x\x00y"), ""},
		"value with CR":            {with(get, "a", "x\ry"), ""},
		"value with LF":            {with(get, "a", "x\ny"), ""},
		"value with DEL":           {with(get, "a", "x\x7fy"), ""},
		"leading space":            {with(get, "a", " x"), ""},
		"trailing tab":             {with(get, "a", "x\t"), ""},
		"inner tab":                {with(get, "a", "x\ty"), "200"},
		"connection":               {with(get, "connection", "close"), ""},
		"keep-alive":               {with(get, "keep-alive", "1"), ""},
		"proxy-connection":         {with(get, "proxy-connection", "close"), ""},
		"transfer-encoding":        {with(get, "transfer-encoding", "chunked"), ""},
		"upgrade":                  {with(get, "upgrade", "websocket"), ""},
		"te trailers":              {with(get, "te", "trailers"), "200"},
		"te gzip":                  {with(get, "te", "gzip"), ""},
		"te list":                  {with(get, "te", "trailers, deflate"), ""},
		"content-length":           {with(get, "content-length", "5"), ""},
		"content-length zero":      {with(get, "content-length", "0"), "200"},
		"content-length signed":    {with(get, "content-length", "+0"), ""},
		"content-lengths":          {with(get, "content-length", "0", "content-length", "00"), ""},
		"content-length list":      {with(get, "content-length", "0, 0"), ""},
		"content-length overflows": {with(get, "content-length", "99999999999999999999"), ""},
		"expectation":              {with(get, "expect", "wonders"), "417"},
		"too many":                 {with(get, slices.Repeat([]string{"a", "b"}, 100)...), "431"},
		"long URI":                 {replace(":path", "/"+strings.Repeat("x", 8<<10)), "414"},
		"too large":                {with(get, slices.Repeat([]string{"a", strings.Repeat("x", 1000)}, 40)...), "431"},
		"CONNECT":                  {[]string{":method", "CONNECT", ":authority", "a.example:443"}, "200"},
		"CONNECT with path":        {connect, ""},
		"CONNECT to nowhere":       {[]string{":method", "CONNECT"}, ""},
		"protocol without CONNECT": {with([]string{":protocol", "websocket"}, get...), ""},
		"unknown protocol":         {with([]string{":protocol", "webtransport"}, connect...), "501"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := greeted(t, NewFront(config(testServer)))
				p.raw(1, true, test.fields...)
				if test.status == "" {
					if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeProtocol {
						t.Fatalf("reset with %v", f.code)
					}
				} else if status, _ := p.response(1); status != test.status {
					t.Fatalf("status %s, want %s", status, test.status)
				}
				// The connection goes on.
				p.request(3, "/", true)
				if status, _ := p.response(3); status != "200" {
					t.Fatalf("then status %s", status)
				}
			})
		})
	}
}

// What an exchange is told of a request.
func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan exchange.Request, 1)
		p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			r := x.Request
			announced := append(exchange.Fields(nil), *r.Trailers...)
			body, _ := io.ReadAll(r.Body)
			late := append(exchange.Fields(nil), *r.Trailers...)
			r.Fields = append(append(append(exchange.Fields(nil), r.Fields...), announced...), late...)
			r.Path += "|" + string(body)
			got <- r
			respond(x, 204, -1, nil)
		})))
		p.request(1, "/a?b", false, "host", "a.example", "cookie", "a=1", "x", "1", "cookie", "b=2", "te", "trailers",
			"content-length", "4", "trailer", "x-sum, content-length")
		p.framer.WriteDataPadded(1, false, []byte("bo"), make([]byte, 200))
		p.framer.WriteData(1, false, []byte("dy"))
		p.raw(1, true, "x-sum", "7", "content-length", "1")
		r := <-got
		want := exchange.Request{Protocol: exchange.HTTP2, Method: "POST", Authority: "a.example", Path: "/a?b|body", Length: 4, AcceptsTrailers: true}
		if r.Protocol != want.Protocol || r.Method != want.Method || r.Authority != want.Authority || r.Path != want.Path ||
			r.Length != want.Length || r.AcceptsTrailers != want.AcceptsTrailers || r.Upgrade != "" {
			t.Errorf("request %+v", r)
		}
		var fields []string
		for _, f := range r.Fields {
			fields = append(fields, f.Name+"="+f.Value)
		}
		if got, want := strings.Join(fields, " "), "x=1 te=trailers cookie=a=1; b=2 x-sum= x-sum=7"; got != want {
			t.Errorf("fields %s, want %s", got, want)
		}
		if status, _ := p.response(1); status != "204" {
			t.Error(status)
		}
	})
}

func TestBodyLength(t *testing.T) {
	for name, test := range map[string]struct {
		declared string
		send     func(p *peer)
	}{
		"more":            {"3", func(p *peer) { p.framer.WriteData(1, false, []byte("body")) }},
		"less":            {"5", func(p *peer) { p.framer.WriteData(1, true, []byte("body")) }},
		"less, trailers":  {"5", func(p *peer) { p.framer.WriteData(1, false, []byte("body")); p.raw(1, true, "a", "b") }},
		"pseudo trailers": {"4", func(p *peer) { p.framer.WriteData(1, false, []byte("body")); p.raw(1, true, ":path", "/") }},
		"trailers go on":  {"4", func(p *peer) { p.framer.WriteData(1, false, []byte("body")); p.raw(1, false, "a", "b") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				read := make(chan error, 1)
				p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
					_, err := io.ReadAll(x.Request.Body)
					read <- err
				})))
				p.request(1, "/", false, "content-length", test.declared)
				test.send(p)
				if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeProtocol {
					t.Errorf("reset with %v", f.code)
				}
				if err := <-read; !errors.Is(err, exchange.ErrMalformed) {
					t.Errorf("the handler read: %v", err)
				}
			})
		})
	}
}
