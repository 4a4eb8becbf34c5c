package http3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/pop/proxy/exchange"
)

// One request with all that is mapped, by quic-go's client.
func TestExchange(t *testing.T) {
	type seen struct {
		request exchange.Request
		conn    exchange.Conn
		body    string
		late    exchange.Fields
	}
	got := make(chan seen, 1)
	e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
		s := seen{request: x.Request, conn: *x.Conn}
		announced := slices.Clone(*x.Request.Trailers)
		b, err := io.ReadAll(x.Request.Body)
		if err != nil || len(announced) != 2 || announced[0].Value != "" {
			t.Errorf("body: %v, announced %v", err, announced)
		}
		s.body, s.late = string(b), *x.Request.Trailers
		s.request.Fields = slices.Clone(x.Request.Fields)
		if err := x.Client.Inform(103, exchange.Fields{{Name: "Link", Value: "</a>"}}); err != nil {
			t.Error(err)
		}
		if err := x.Client.Inform(101, nil); err != nil {
			t.Error(err)
		}
		r := respond(207, "hello", exchange.Field{Name: "X-One", Value: "1"}, exchange.Field{Name: "Connection", Value: "x"},
			exchange.Field{Name: "X-One", Value: "2"})
		r.Length = -1
		r.Trailers = &exchange.Fields{{Name: "X-Sum", Value: "5"}, {Name: "Content-Type", Value: "no"}}
		if err := x.Client.Respond(r); err != nil {
			t.Error(err)
		}
		got <- s
	})
	c := e.connect(t).h3()
	r := request("POST", "/a?b=c", io.NopCloser(strings.NewReader("body")))
	r.Header.Set("Te", "trailers")
	r.Header.Set("X-A", "1")
	r.Trailer = http.Header{"X-Late": {"yes"}, "X-Later": {"too"}}
	var interim []string
	r = r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			interim = append(interim, h.Get("Link"))
			return nil
		},
	}))
	res := roundTrip(t, c, r)
	if body := text(t, res); res.StatusCode != 207 || body != "hello" || res.ContentLength != -1 {
		t.Errorf("%d, %q, length %d", res.StatusCode, body, res.ContentLength)
	}
	if h := res.Header; !slices.Equal(h["X-One"], []string{"1", "2"}) || h["Connection"] != nil {
		t.Errorf("fields %v", h)
	}
	if tr := res.Trailer; tr.Get("X-Sum") != "5" || len(tr) != 1 {
		t.Errorf("trailers %v", tr)
	}
	if !slices.Equal(interim, []string{"</a>"}) {
		t.Errorf("interim responses %q", interim)
	}
	s := <-got
	q := s.request
	if q.Protocol != exchange.HTTP3 || q.Method != "POST" || q.Authority != "localhost" || q.Path != "/a?b=c" || q.Length != -1 ||
		!q.AcceptsTrailers || q.Early || s.body != "body" || q.Fields.Get("x-a") != "1" {
		t.Errorf("request %+v, body %q", q, s.body)
	}
	if s.late.Get("x-late") != "yes" || s.late.Get("x-later") != "too" {
		t.Errorf("trailers %v", s.late)
	}
	if s.conn.TLS == nil || *s.conn.TLS != (exchange.TLS{Version: "TLS 1.3", Cipher: s.conn.TLS.Cipher, ServerName: "localhost"}) ||
		!strings.HasPrefix(s.conn.TLS.Cipher, "TLS_") || s.conn.Scheme() != "https" {
		t.Errorf("TLS %+v", s.conn.TLS)
	}
	if local := s.conn.Local; local.Port() != uint16(e.addr.Port) || !local.Addr().Is4() || !s.conn.Client.Addr().Is4() {
		t.Errorf("connection %+v", s.conn)
	}
}

// Lines keep their order, and cookies come together.
func TestFieldOrder(t *testing.T) {
	got := make(chan exchange.Fields, 1)
	e := handlerServe(t, func(ctx context.Context, x *exchange.Exchange) {
		got <- slices.Clone(x.Request.Fields)
		ok(ctx, x)
	})
	call := e.connect(t).begin(get("GET", "/", "b", "1", "a", "2", "cookie", "x=1", "b", "3", "cookie", "y=2", "host", "localhost",
		"content-length", "0", "trailer", "t"))
	call.Close()
	if _, body, _, err := call.answer(); err != nil || body != "GET localhost /" {
		t.Fatal(body, err)
	}
	want := exchange.Fields{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}, {Name: "b", Value: "3"}, {Name: "cookie", Value: "x=1; y=2"}}
	if f := <-got; !slices.Equal(f, want) {
		t.Errorf("%v, want %v", f, want)
	}
}

func TestResponses(t *testing.T) {
	nothing := exchange.Fields{{Name: "x", Value: "y"}}
	broken := io.NopCloser(io.MultiReader(strings.NewReader("abc"), failing{}))
	for _, tt := range []struct {
		name     string
		method   string
		response *exchange.Response
		want     string // head; and body
		code     uint64 // of a reset
		err      bool   // of Respond
	}{
		{"length", "GET", respond(200, "abc"), ":status 200,content-length 3;abc", 0, false},
		{"no length", "GET", &exchange.Response{Status: 200, Length: -1, Body: io.NopCloser(strings.NewReader("abc"))}, ":status 200;abc", 0, false},
		{"no body", "GET", &exchange.Response{Status: 404, Length: 0}, ":status 404,content-length 0;", 0, false},
		{"HEAD", "HEAD", &exchange.Response{Status: 200, Length: 7, Fields: nothing, Body: broken}, ":status 200,content-length 7,x y;", 0, false},
		{"204", "GET", &exchange.Response{Status: 204, Length: 0, Body: broken}, ":status 204;", 0, false},
		{"304", "GET", &exchange.Response{Status: 304, Length: 9}, ":status 304,content-length 9;", 0, false},
		{"connection's fields", "GET", &exchange.Response{Status: 200, Length: -1, Fields: exchange.Fields{
			{Name: "Connection", Value: "a"}, {Name: "Transfer-Encoding", Value: "chunked"}, {Name: "Keep-Alive", Value: "1"},
			{Name: "Content-Length", Value: "4"}, {Name: ":status", Value: "500"}, {Name: "ETag", Value: "E"},
		}}, ":status 200,etag E;", 0, false},
		{"broken off", "GET", &exchange.Response{Status: 200, Length: -1, Body: broken}, ":status 200;abc", codeInternal, true},
		{"too short", "GET", &exchange.Response{Status: 200, Length: 9, Body: io.NopCloser(strings.NewReader("abc"))}, ":status 200,content-length 9;", codeInternal, true},
		{"too long", "GET", &exchange.Response{Status: 200, Length: 2, Body: io.NopCloser(strings.NewReader("abc"))}, ":status 200,content-length 2;", codeInternal, true},
		{"no body for a length", "GET", &exchange.Response{Status: 200, Length: 3}, "", codeInternal, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			result := make(chan error, 1)
			e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) { result <- x.Client.Respond(tt.response) })
			call := e.connect(t).begin(get(tt.method, "/"))
			call.Close()
			head, body, _, err := call.answer()
			var got []string
			for _, f := range head {
				got = append(got, f.Name+" "+f.Value)
			}
			// What was sent before a reset may not arrive.
			if text := strings.Join(got, ",") + ";" + body; tt.code == 0 && text != tt.want {
				t.Errorf("%q, want %q", text, tt.want)
			}
			if resetCode(err) != tt.code || tt.code == 0 && err != nil {
				t.Errorf("ended with %v", err)
			}
			if err := <-result; (err != nil) != tt.err {
				t.Errorf("Respond: %v", err)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the origin is gone") }

// A handler that does not answer, or answers twice.
func TestNoResponseAndTwo(t *testing.T) {
	twice := make(chan error, 2)
	e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/none" {
			return
		}
		twice <- x.Client.Respond(respond(200, "a"))
		twice <- x.Client.Respond(respond(200, "b"))
		if err := x.Client.Inform(103, nil); err == nil {
			t.Error("an interim response after the final one")
		}
	})
	c := e.connect(t)
	none, both := c.begin(get("GET", "/none")), c.begin(get("GET", "/both"))
	none.Close()
	both.Close()
	if _, _, _, err := none.answer(); resetCode(err) != codeInternal {
		t.Errorf("no response: %v", err)
	}
	if _, body, _, err := both.answer(); err != nil || body != "a" {
		t.Errorf("two responses: %q, %v", body, err)
	}
	if first, second := <-twice, <-twice; first != nil || second == nil {
		t.Errorf("two responses: %v, %v", first, second)
	}
}

// Several MiB both ways at once, by several requests on one connection.
func TestBulk(t *testing.T) {
	const size = 2<<20 + 17
	e := handlerServe(t, func(_ context.Context, x *exchange.Exchange) {
		length := int64(size)
		if x.Request.Path == "/unknown" {
			length = -1
		}
		if got := sum(x.Request.Body); got != sum(&bulk{n: size}) || x.Request.Length != length {
			t.Errorf("upload: %s, length %d", got, x.Request.Length)
		}
		x.Client.Respond(&exchange.Response{Status: 200, Length: length, Body: io.NopCloser(&bulk{n: size})})
	})
	c := e.connect(t).h3()
	done := make(chan bool)
	for i := range 3 {
		go func() {
			defer func() { done <- true }()
			r := request("PUT", "/", &bulk{n: size})
			r.ContentLength = size
			if i%2 == 1 {
				r = request("PUT", "/unknown", &bulk{n: size})
			}
			res, err := c.RoundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if got := sum(res.Body); got != sum(&bulk{n: size}) {
				t.Errorf("download: %s", got)
			}
		}()
	}
	for range 3 {
		<-done
	}
}

// What the client does not take is not read from the origin, and what the
// handler does not take is not accepted from the client.
func TestBackpressure(t *testing.T) {
	c := config(nil)
	c.BodyIdle = 300 * time.Millisecond
	result := make(chan error, 1)
	body := &bulk{n: 1 << 40}
	sent := make(chan int64, 1)
	c.Handler = func(ctx context.Context, x *exchange.Exchange) {
		if x.Request.Path == "/up" {
			<-ctx.Done()
			return
		}
		result <- x.Client.Respond(&exchange.Response{Status: 200, Length: -1, Body: io.NopCloser(body)})
	}
	e := serve(t, c)
	cl := e.connect(t)
	down := cl.begin(get("GET", "/"))
	down.Close()
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Respond to a client that does not read: %v", err)
	}
	if body.at == 0 || body.at > 32<<20 {
		t.Errorf("%d bytes were taken from the origin", body.at)
	}
	up := cl.begin(get("POST", "/up"))
	up.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	go func() {
		n := int64(0)
		for {
			m, err := up.Write(data(strings.Repeat("x", 8<<10)))
			if n += int64(m); err != nil {
				sent <- n
				return
			}
		}
	}()
	if n := <-sent; n < streamWindow/2 || n > 2*streamWindow {
		t.Errorf("the client could send %d bytes", n)
	}
	up.CancelWrite(codeRequestCancelled)
	up.CancelRead(codeRequestCancelled)
}
