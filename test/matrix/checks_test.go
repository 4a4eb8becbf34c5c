package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// checks are the columns of the matrix, in the order in which a failure says
// most.
var checks = slices.Concat(messageChecks, failureChecks, toolChecks, socketChecks, callChecks)

var messageChecks = []check{
	{name: "get-small", run: func(c *cell) { getBytes(c, 100, false); getBytes(c, 1000, true); getBytes(c, 0, false) }},
	{name: "get-large", run: func(c *cell) { getBytes(c, 4<<20, false); getBytes(c, 3<<20, true) }},
	{name: "post-length", run: func(c *cell) { post(c, 0, true); post(c, 1, true); post(c, 2<<20, true) }},
	{name: "post-unknown-length", run: func(c *cell) { post(c, 1, false); post(c, 2<<20, false) }},
	{name: "echo", run: echo},
	{name: "trailers", run: trailers},
	{name: "early-hints", run: earlyHints},
	{name: "continue", impossible: noContinue, run: expectContinue},
	{name: "expectation-refused", impossible: noContinue, run: expectationRefused},
	{name: "head", run: head},
	{name: "no-content", run: func(c *cell) { bodiless(c, http.StatusNoContent) }},
	{name: "not-modified", run: func(c *cell) { bodiless(c, http.StatusNotModified) }},
	{name: "fields", run: fields},
	{name: "target", run: target},
	{name: "parallel", run: parallel},
}

// request makes a request for an origin of the back. The path is sent as it is.
func (c *cell) request(method string, k kind, path string, body io.Reader) *http.Request {
	c.Helper()
	req, err := http.NewRequestWithContext(c.ctx, method, c.front.scheme()+"://"+c.back.host(k)+"/", body)
	if err != nil {
		c.Fatal(err)
	}
	opaque, query, _ := strings.Cut(path, "?")
	req.URL = &url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Opaque: opaque, RawQuery: query, ForceQuery: strings.HasSuffix(path, "?")}
	return req
}

// do sends a request and returns the response with its whole body.
func (c *cell) do(req *http.Request) (*http.Response, []byte) {
	c.Helper()
	res, err := c.client.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	if res.ProtoMajor != c.front.version {
		c.Errorf("the client spoke %s", res.Proto)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.Fatalf("after %d bytes of body: %v", len(body), err)
	}
	return res, body
}

// expect is do for a response that must have a status.
func (c *cell) expect(status int, req *http.Request) (*http.Response, []byte) {
	c.Helper()
	res, body := c.do(req)
	if res.StatusCode != status {
		c.Fatalf("status %d: %.300s", res.StatusCode, body)
	}
	return res, body
}

// told is expect for a request whose answer tells what the origin received.
func (c *cell) told(req *http.Request) (got received) {
	c.Helper()
	_, body := c.expect(200, req)
	if err := json.Unmarshal(body, &got); err != nil {
		c.Fatal(err)
	}
	if want := c.back.version; !strings.HasPrefix(got.Protocol, fmt.Sprintf("HTTP/%d.", want)) {
		c.Errorf("the edge spoke %s to the origin", got.Protocol)
	}
	return got
}

// checksum compares what came with a body of [content].
func (c *cell) checksum(what string, body io.Reader, seed uint64, n int64) {
	c.Helper()
	want, _, _ := sum(content(seed, n))
	got, m, err := sum(body)
	if err != nil || m != n || got != want {
		c.Fatalf("%s: %d of %d bytes, right: %t, error %v", what, m, n, got == want, err)
	}
}

func getBytes(c *cell, n int64, length bool) {
	path := fmt.Sprintf("/bytes?seed=7&n=%d", n)
	if length {
		path += "&length"
	}
	res, err := c.client.Do(c.request("GET", plain, path, nil))
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	if length && res.ContentLength != n {
		c.Errorf("Content-Length %d, want %d", res.ContentLength, n)
	}
	c.checksum("response", res.Body, 7, n)
}

// unsized hides how long a body is.
type unsized struct{ io.Reader }

func post(c *cell, n int64, length bool) {
	req := c.request("POST", plain, "/received", unsized{content(3, n)})
	if length {
		req.ContentLength = n
		if n == 0 {
			req.Body = http.NoBody
		}
	}
	got := c.told(req)
	want, _, _ := sum(content(3, n))
	if got.Bytes != n || got.Sum != want {
		c.Errorf("%d of %d bytes arrived, right: %t", got.Bytes, n, got.Sum == want)
	}
	if length && got.Length != n {
		c.Errorf("announced %d bytes, want %d", got.Length, n)
	}
	if !length && got.Length != -1 {
		c.Errorf("announced %d bytes, but the client did not", got.Length)
	}
}

func echo(c *cell) {
	const n = 1 << 20
	req := c.request("POST", plain, "/echo", unsized{content(5, n)})
	res, err := c.client.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	c.checksum("echo", res.Body, 5, n)
}

// trailers go through in both directions.
func trailers(c *cell) {
	req := c.request("POST", plain, "/echo", nil)
	req.Trailer = http.Header{"X-Sent": nil}
	body := &ending{Reader: strings.NewReader("a body"), end: func() { req.Trailer.Set("X-Sent", "at the end") }}
	req.Body = io.NopCloser(body)
	req.ContentLength = -1
	req.Header.Set("Te", "trailers")
	if c.front.version == 1 {
		req.Header.Set("Connection", "TE")
	}
	res, got := c.expect(200, req)
	if string(got) != "a body" {
		c.Errorf("body %q", got)
	}
	want, _, _ := sum(strings.NewReader("a body"))
	if res.Trailer.Get("X-Sum") != want || res.Trailer.Get("X-Came") != "at the end" || !slices.Equal(res.Trailer["X-Twice"], []string{"one", "two"}) {
		c.Errorf("trailers %q", res.Trailer)
	}
}

// ending is a body that says when it was read.
type ending struct {
	io.Reader
	end func()
}

func (b *ending) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.end()
	}
	return n, err
}

func earlyHints(c *cell) {
	var links []string
	req := c.request("GET", plain, "/early", nil)
	req = req.WithContext(httptrace.WithClientTrace(c.ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, fields textproto.MIMEHeader) error {
			links = append(links, fmt.Sprint(code, " ", fields.Get("Link")))
			return nil
		},
	}))
	res, body := c.expect(200, req)
	if want := []string{"103 </style0.css>; rel=preload", "103 </style1.css>; rel=preload"}; !slices.Equal(links, want) {
		c.Errorf("hints %q, want %q", links, want)
	}
	if string(body) != "after the hints" || res.Header.Get("X-Final") != "yes" || res.Header.Get("Link") != "" {
		c.Errorf("response %v %q", res.Header, body)
	}
}

func noContinue(f *front, _ *back) string {
	if f.version == 3 {
		return "quic-go's client sends a body without waiting for 100"
	}
	return ""
}

// asked is a body that must not be read before the server has asked for it.
type asked struct {
	io.Reader
	c       *cell
	allowed context.Context
}

func (a *asked) Read(p []byte) (int, error) {
	if a.allowed.Err() == nil {
		a.c.Error("the body was sent before the server asked for it")
	}
	return a.Reader.Read(p)
}

func expectContinue(c *cell) {
	allowed, allow := context.WithCancel(c.ctx)
	req := c.request("POST", plain, "/received", &asked{content(9, 100_000), c, allowed})
	req.ContentLength = 100_000
	req.Header.Set("Expect", "100-continue")
	req = req.WithContext(httptrace.WithClientTrace(c.ctx, &httptrace.ClientTrace{Got100Continue: allow}))
	got := c.told(req)
	if want, _, _ := sum(content(9, 100_000)); got.Sum != want {
		c.Errorf("%d bytes arrived", got.Bytes)
	}
}

func expectationRefused(c *cell) {
	allowed, allow := context.WithCancel(c.ctx)
	defer allow()
	req := c.request("POST", plain, "/refuse", &asked{content(9, 100_000), c, allowed})
	req.ContentLength = 100_000
	req.Header.Set("Expect", "100-continue")
	c.expect(http.StatusExpectationFailed, req)
	getBytes(c, 100, true) // the next request is in step
}

func head(c *cell) {
	for _, length := range []bool{true, false} {
		path := "/bytes?n=5000"
		if length {
			path += "&length"
		}
		res, body := c.expect(200, c.request("HEAD", plain, path, nil))
		if len(body) != 0 || length && res.ContentLength != 5000 {
			c.Errorf("HEAD: %d bytes, Content-Length %d", len(body), res.ContentLength)
		}
		getBytes(c, 100, true) // the next request is in step
	}
}

func bodiless(c *cell, status int) {
	res, err := c.client.Do(c.request("GET", plain, fmt.Sprintf("/status?code=%d", status), nil))
	if err != nil {
		c.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	// net/http's client of HTTP/2 misses the body of a 304 with a Content-Length,
	// which is none (RFC 9110, 8.6).
	if err != nil && !(status == http.StatusNotModified && err == io.ErrUnexpectedEOF) {
		c.Fatal(err)
	}
	if res.StatusCode != status {
		c.Fatalf("status %d", res.StatusCode)
	}
	if len(body) != 0 || res.Header.Get("Etag") != `"tag"` {
		c.Errorf("status %d with %q and %v", status, body, res.Header)
	}
	if status == http.StatusNoContent && res.Header.Get("Content-Length") != "" {
		c.Errorf("Content-Length %q with 204", res.Header.Get("Content-Length"))
	}
	getBytes(c, 100, true) // the next request is in step
}
