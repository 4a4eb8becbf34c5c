package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/iotest"

	"anyedge/pop/proxy/exchange"
)

// chopped returns a reader over data that comes byte by byte.
func chopped(data []byte) *reader {
	return &reader{src: iotest.OneByteReader(bytes.NewReader(data))}
}

func whole(data []byte) *reader { return &reader{src: bytes.NewReader(data)} }

// What we take for a request, net/http takes for the same one.
func FuzzRequest(f *testing.F) {
	for _, tt := range refused {
		f.Add([]byte(tt.request + "\r\n"))
	}
	f.Add([]byte("POST http://b/x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-a: b\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r, again exchange.Request
		var f framing
		in, slow := whole(data), chopped(data)
		defer in.release()
		defer slow.release()
		head, err := in.section(8 << 10)
		if err != nil || len(head) == 2 {
			return
		}
		bounds := limits{fields: 100, uri: 4 << 10}
		err = parseRequest(head, &r, &f, bounds)
		head, slowErr := slow.section(8 << 10)
		if slowErr == nil {
			slowErr = parseRequest(head, &again, new(framing), bounds)
		}
		if (slowErr == nil) != (err == nil) {
			t.Fatalf("%q is read differently byte by byte: %v and %v", data, err, slowErr)
		}
		if err != nil {
			return
		}
		for _, field := range r.Fields {
			if !all(field.Name, isToken) || field.Name == "" || !all(field.Value, isText) || strings.TrimSpace(field.Value) != field.Value && all(field.Value, isTarget) {
				t.Fatalf("field %q", field)
			}
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			if f.length > 0 || r.Method == "CONNECT" || r.Path != "" && strings.ContainsAny(r.Path+r.Authority, "%:[]") {
				return // net/http parses what we leave to the routes
			}
			t.Fatalf("%q is refused by net/http: %v", data, err)
		}
		if req.Method != r.Method {
			t.Fatalf("method %q, want %q", r.Method, req.Method)
		}
		if len(req.TransferEncoding) > 0 != (f.chunked > 0) || f.chunked == 0 && req.ContentLength != max(f.length, 0) {
			t.Fatalf("%q: chunked %d, length %d; net/http has %q, %d", data, f.chunked, f.length, req.TransferEncoding, req.ContentLength)
		}
	})
}

// What we take for a response, net/http takes for the same one.
func FuzzResponse(f *testing.F) {
	for _, response := range wrong {
		if len(response) < 1000 {
			f.Add([]byte(response))
		}
	}
	f.Add([]byte(ok))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r exchange.Response
		var f framing
		in := whole(data)
		defer in.release()
		head, err := in.section(8 << 10)
		if err != nil {
			return
		}
		old, err := parseResponse(head, &r, &f)
		if err != nil || f.codings(old) != nil {
			return
		}
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), &http.Request{Method: "GET"})
		if err != nil {
			t.Fatalf("%q is refused by net/http: %v", data, err)
		}
		if res.StatusCode != r.Status || res.ProtoAtLeast(1, 1) == old {
			t.Fatalf("%q: status %d, old %v; net/http has %d, %s", data, r.Status, old, res.StatusCode, res.Proto)
		}
		if bodiless("GET", r.Status) {
			return
		}
		if len(res.TransferEncoding) > 0 != (f.chunked > 0) || f.chunked == 0 && res.ContentLength != f.length {
			t.Fatalf("%q: chunked %d, length %d; net/http has %q, %d", data, f.chunked, f.length, res.TransferEncoding, res.ContentLength)
		}
	})
}

// What we take out of chunks, net/http does too.
func FuzzChunks(f *testing.F) {
	for _, body := range brokenBodies {
		f.Add([]byte(body))
	}
	f.Add([]byte("3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var results [2]string
		var errs [2]error
		for i, in := range []*reader{whole(data), chopped(data)} {
			var d decoder
			var trailers exchange.Fields
			d.begin(in, chunked, -1, &trailers, 8<<10, maxFields)
			body, err := io.ReadAll(&d)
			results[i], errs[i] = string(body), err
			in.release()
		}
		if results[0] != results[1] || (errs[0] == nil) != (errs[1] == nil) {
			t.Fatalf("%q is read differently byte by byte: %q, %v and %q, %v", data, results[0], errs[0], results[1], errs[1])
		}
		if errs[0] != nil {
			return
		}
		body, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(data)))
		if err != nil || string(body) != results[0] {
			t.Fatalf("%q gives %q; net/http has %q, %v", data, results[0], body, err)
		}
	})
}
