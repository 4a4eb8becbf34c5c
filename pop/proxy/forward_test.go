package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
)

func TestForward(t *testing.T) {
	type seen struct {
		method, target, host, body string
		header                     http.Header
	}
	got := make(chan seen, 1)
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.RequestURI, r.Host, string(body), r.Header}
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Add("Set-Cookie", "c=d")
		w.Header()["Content-Type"] = nil
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "<html>")
	}))
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			req, err := http.NewRequest("POST", v.url+"/a%2Fb/c?x=1&y=%20", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Forwarded-For", "6.6.6.6")
			req.Header.Set("Forwarded", "for=6.6.6.6")
			req.Header.Set("X_Forwarded_Proto", "gopher")
			req.Header.Set("Anyedge-Probe", "guess")
			req.Header.Set("X-Request-Id", "mine")
			req.Header.Set("Cookie", "k=v")
			req.Header.Set("User-Agent", "") // net/http sends none
			if v.protocol == "h1" {
				req.Header.Set("Connection", "X-Secret")
				req.Header.Set("X-Secret", "1")
			}
			res, err := e.client(v.listener, v.protocol).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if body := readAll(t, res.Body); res.StatusCode != http.StatusTeapot || body != "<html>" {
				t.Errorf("response %d %q", res.StatusCode, body)
			}
			s := <-got
			if s.method != "POST" || s.target != "/a%2Fb/c?x=1&y=%20" || s.host != "shop.example" || s.body != "body" {
				t.Errorf("the origin got %+v", s)
			}
			scheme, _, _ := strings.Cut(v.url, ":")
			_, port, _ := net.SplitHostPort(e.address(v.listener))
			id := res.Header.Get("X-Request-Id")
			version := map[string]string{"h1": "1.1", "h2": "2.0"}[v.protocol]
			want := http.Header{
				"Content-Length": {"4"}, "Cookie": {"k=v"},
				"Forwarded":       {"for=127.0.0.1;host=shop.example;proto=" + scheme},
				"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {scheme}, "X-Forwarded-Host": {"shop.example"},
				"X-Forwarded-Port": {port}, "X-Request-Id": {id}, "Via": {version + " anyedge"},
			}
			if fmt.Sprint(s.header) != fmt.Sprint(want) {
				t.Errorf("the origin got %v\nwant %v", s.header, want)
			}
			if len(id) != 32 {
				t.Errorf("request ID %q", id)
			}
			for name, want := range map[string][]string{
				"X-Private": nil, "Keep-Alive": nil, "Content-Type": nil, "Set-Cookie": {"a=b", "c=d"}, "Content-Length": {"6"},
			} {
				if got := res.Header[name]; !slices.Equal(got, want) {
					t.Errorf("response field %s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// The request line and the fields reach the origin as received.
func TestTargetAsReceived(t *testing.T) {
	heads := make(chan string, 1)
	e := newEdge(t, serveRaw(t, func(conn net.Conn, r *bufio.Reader) {
		heads <- readHead(r)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}))
	for sent, want := range map[string]string{
		"GET /":                                "GET /",
		"GET /a//b/":                           "GET /a//b/",
		"GET //a?x":                            "GET //a?x",
		"GET //a?":                             "GET //a?",
		"GET //a\"b":                           "GET //a\"b",
		"GET /%7euser/%2F?":                    "GET /%7euser/%2F?",
		"DELETE /a|b?q=<>|\\^":                 "DELETE /a|b?q=<>|\\^",
		"GET /x:y@z;p=1,2":                     "GET /x:y@z;p=1,2",
		"GET http://h.example/abs?x":           "GET /abs?x",
		"GET http://h.example":                 "GET /",
		"GET http://h.example?x":               "GET /?x",
		"OPTIONS *":                            "OPTIONS *",
		"PROPFIND /dav":                        "PROPFIND /dav",
		"GET /" + strings.Repeat("long", 2000): "GET /" + strings.Repeat("long", 2000),
	} {
		c := e.dial(clear1)
		c.send(sent + " HTTP/1.1\r\nHost: h.example\r\nConnection: close\r\n\r\n")
		if res := c.receive("GET"); res.StatusCode != 200 {
			t.Errorf("%.40q: status %d", sent, res.StatusCode)
			continue
		}
		line, rest, _ := strings.Cut(await(t, "request at origin", heads), "\r\n")
		if line != want+" HTTP/1.1" {
			t.Errorf("%.40q arrived as %.80q", sent, line)
		}
		if strings.Contains(rest, "Accept-Encoding") || strings.Contains(rest, "User-Agent") || !strings.Contains(rest, "Host: h.example\r\n") {
			t.Errorf("fields are not as sent: %q", rest)
		}
		c.Close()
	}
}

func TestRefusedRequests(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("the origin got %s", r.RequestURI) }))
	e.mustApply(func(s *Snapshot) { s.Routes[0].Match = configs.Match{Host: "shop.example", Path: "/shop"} })
	many := strings.Repeat("Connection: x\r\n", 40)
	for _, tt := range []struct {
		request string
		status  int
	}{
		{"GET /other HTTP/1.1\r\nHost: shop.example\r\n", 404},
		{"GET /shop HTTP/1.1\r\nHost: other.example\r\n", 404},
		{"GET /shop HTTP/1.0\r\n", 404},
		{"GET /shop/../x HTTP/1.1\r\nHost: shop.example\r\n", 400},
		{"GET /x/%2e%2e/shop HTTP/1.1\r\nHost: shop.example\r\n", 400},
		{"GET /shop HTTP/1.1\r\nHost: user@shop.example\r\n", 400},
		{"CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example\r\n", 501},
		{"GET /shop HTTP/1.1\r\nHost: shop.example\r\n" + many, 400},
		{"GET /shop HTTP/1.1\r\n", 400},
		{"GET /shop HTTP/1.1\r\nHost: shop.example\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n", 431},
		{"POST /shop HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400},
		{"POST /shop HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: gzip\r\n", 501},
	} {
		c := e.dial(clear1)
		c.send(tt.request + "\r\n")
		if res := c.receive("GET"); res.StatusCode != tt.status {
			t.Errorf("%.60q: status %d, want %d", tt.request, res.StatusCode, tt.status)
		}
		c.Close()
	}
}

// A head that is no request is answered, counted and logged like one.
func TestRefusedHead(t *testing.T) {
	e := newEdge(t)
	c := e.dial(clear1)
	c.send("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	res := c.receive("GET")
	body := readAll(t, res.Body)
	if id := res.Header.Get("X-Request-Id"); res.StatusCode != 400 || !res.Close || len(id) != 32 || !strings.Contains(body, id) {
		t.Errorf("%d %q, close %v", res.StatusCode, body, res.Close)
	}
	if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
		t.Errorf("after it came %q", rest)
	}
	eventually(t, "it is counted", func() bool {
		return metric(t, e, "anyedge_proxy_requests_total", "outcome", "refused") == 1 && strings.Contains(e.log.String(), "outcome=refused")
	})
}

// Field lines reach the other side in order and as they are spelled.
func TestFieldsAsReceived(t *testing.T) {
	heads := make(chan string, 1)
	e := newEdge(t, serveRaw(t, func(conn net.Conn, r *bufio.Reader) {
		heads <- readHead(r)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nx-Z: 1\r\nX-a: 2\r\nx-z: 3\r\nContent-Length: 0\r\n\r\n")
	}))
	c := e.dial(clear1)
	c.send("GET / HTTP/1.1\r\nx-B: 1\r\nhost: a\r\nX-a:2\r\nx-b: 3\r\n\r\n")
	if head := await(t, "head at origin", heads); !strings.HasPrefix(head, "GET / HTTP/1.1\r\nHost: a\r\nx-B: 1\r\nX-a: 2\r\nx-b: 3\r\n") {
		t.Errorf("the origin got %q", head)
	}
	if head := readHead(c.r); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\nx-Z: 1\r\nX-a: 2\r\nx-z: 3\r\n") {
		t.Errorf("the client got %q", head)
	}
}

func TestTrailers(t *testing.T) {
	got := make(chan http.Header, 1)
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		got <- r.Trailer.Clone()
		if r.Header.Get("TE") != "trailers" {
			t.Errorf("TE %q", r.Header.Get("TE"))
		}
		w.Header().Set("Trailer", "Grpc-Status")
		io.WriteString(w, "data")
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
		w.Header().Set(http.TrailerPrefix+"Authorization", "no")
	}))
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			pr, pw := io.Pipe()
			req, _ := http.NewRequest("POST", v.url+"/", pr)
			req.Header.Set("TE", "trailers")
			if v.protocol == "h1" {
				req.Header.Set("Connection", "TE")
			}
			req.Trailer = http.Header{"X-Checksum": nil, "X-Forwarded-For": nil}
			go func() {
				io.WriteString(pw, "upload")
				req.Trailer.Set("X-Checksum", "abc")
				req.Trailer.Set("X-Forwarded-For", "6.6.6.6")
				pw.Close()
			}()
			res, err := e.client(v.listener, v.protocol).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if body := readAll(t, res.Body); body != "data" {
				t.Errorf("body %q", body)
			}
			if want := (http.Header{"Grpc-Status": {"0"}, "X-Late": {"yes"}}); fmt.Sprint(res.Trailer) != fmt.Sprint(want) {
				t.Errorf("response trailers %v, want %v", res.Trailer, want)
			}
			if want, got := (http.Header{"X-Checksum": {"abc"}}), <-got; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("request trailers %v, want %v", got, want)
			}
		})
	}
}

func TestInterimResponses(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Final", "1")
		w.Header().Del("Link")
		io.WriteString(w, "ok")
	}))
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			var hints []string
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
					return nil
				},
			})
			req, _ := http.NewRequestWithContext(ctx, "GET", v.url+"/", nil)
			res, err := e.client(v.listener, v.protocol).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			readAll(t, res.Body)
			if want := []string{"103 </a.css>; rel=preload"}; !slices.Equal(hints, want) {
				t.Errorf("interim responses %q, want %q", hints, want)
			}
			if res.Header.Get("Link") != "" || res.Header.Get("X-Final") != "1" {
				t.Errorf("final head %v", res.Header)
			}
		})
	}
	t.Run("HTTP/1.0 gets none", func(t *testing.T) {
		c := e.dial(clear1)
		c.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
		if res := c.receive("GET"); res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
}

func TestExpectContinue(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.Copy(w, r.Body)
	}))
	c := e.dial(clear1)
	c.send("POST /yes HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if res := c.receive("POST"); res.StatusCode != 100 {
		t.Fatalf("status %d, want 100", res.StatusCode)
	}
	c.send("body")
	if res := c.receive("POST"); readAll(t, res.Body) != "body" {
		t.Error("the body did not come back")
	}
	c.send("POST /no HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if res := c.receive("POST"); res.StatusCode != 403 {
		t.Errorf("status %d, want 403 with no 100 before", res.StatusCode)
	}
}

func TestHeadAndEmptyResponses(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/head":
			w.Header().Set("Content-Length", "12345")
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		}
	}))
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			client := e.client(v.listener, v.protocol)
			for _, tt := range []struct {
				method, path string
				status       int
				length       int64
			}{{"HEAD", "/head", 200, 12345}, {"GET", "/204", 204, 0}, {"GET", "/304", 304, 0}, {"GET", "/", 200, 0}} {
				req, _ := http.NewRequest(tt.method, v.url+tt.path, nil)
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				if body := readAll(t, res.Body); body != "" || res.StatusCode != tt.status || res.ContentLength != tt.length {
					t.Errorf("%s %s: %d, length %d, body %q", tt.method, tt.path, res.StatusCode, res.ContentLength, body)
				}
			}
		})
	}
}

func TestRetryOnConnectFailure(t *testing.T) {
	ok := func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }
	e := newEdge(t, closedPort(t), serveHTTP(t, ok), closedPort(t))
	client := e.client(clear1, "h1")
	for range 12 {
		res, err := client.Post("http://shop.example/", "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		if body := readAll(t, res.Body); res.StatusCode != 200 || body != "body" {
			t.Fatalf("status %d, body %q", res.StatusCode, body)
		}
	}
	if log := e.log.String(); !strings.Contains(log, "tries=2") && !strings.Contains(log, "tries=3") {
		t.Error("no request was tried twice, so nothing was shown")
	}
}

func TestErrorAnswers(t *testing.T) {
	tests := []struct {
		name     string
		backends func(t *testing.T) []netip.AddrPort
		status   int
		text     string
		outcome  string
	}{
		{"no backend", func(*testing.T) []netip.AddrPort { return nil }, 503, "no backend is usable", "no_backend"},
		{"connect failed", func(t *testing.T) []netip.AddrPort {
			return []netip.AddrPort{closedPort(t), closedPort(t), closedPort(t), closedPort(t)}
		}, 502, "no backend could be connected to", "connect_failed"},
		{"timeout", func(t *testing.T) []netip.AddrPort {
			return []netip.AddrPort{serveRaw(t, func(_ net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })}
		}, 504, "did not answer in time", "origin_timeout"},
		{"closes", func(t *testing.T) []netip.AddrPort {
			return []netip.AddrPort{serveRaw(t, func(_ net.Conn, r *bufio.Reader) { readHead(r) })}
		}, 502, "no answer", "origin_failed"},
		{"nonsense", func(t *testing.T) []netip.AddrPort {
			return []netip.AddrPort{serveRaw(t, func(c net.Conn, r *bufio.Reader) { readHead(r); io.WriteString(c, "hello\r\n\r\n") })}
		}, 502, "no valid answer", "origin_failed"},
		{"unasked upgrade", func(t *testing.T) []netip.AddrPort {
			return []netip.AddrPort{serveRaw(t, func(c net.Conn, r *bufio.Reader) {
				readHead(r)
				io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			})}
		}, 502, "no valid answer", "origin_failed"},
		{"endless head", func(t *testing.T) []netip.AddrPort {
			return []netip.AddrPort{serveRaw(t, func(c net.Conn, r *bufio.Reader) {
				readHead(r)
				io.WriteString(c, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 1000)+"\r\n")
			})}
		}, 502, "no valid answer", "origin_failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEdge(t, tt.backends(t)...)
			e.mustApply(func(s *Snapshot) { s.Routes[0].Timeout = configs.Duration(100 * time.Millisecond) })
			for _, v := range variants[:2] {
				res, err := e.client(v.listener, v.protocol).Post(v.url+"/x", "text/plain", strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				body := readAll(t, res.Body)
				if res.StatusCode != tt.status || !strings.Contains(body, tt.text) || !strings.Contains(body, res.Header.Get("X-Request-Id")) || len(res.Header.Get("X-Request-Id")) != 32 {
					t.Errorf("%s: %d %q", v.name, res.StatusCode, body)
				}
			}
			if !strings.Contains(e.log.String(), "outcome="+tt.outcome) {
				t.Errorf("outcome is not %s", tt.outcome)
			}
		})
	}
}

// The wait for a response begins anew with each piece of the request's body.
func TestSlowUpload(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	}))
	e.mustApply(func(s *Snapshot) {
		s.Routes[0].Timeout = configs.Duration(100 * time.Millisecond)
		for i := range s.Listeners {
			s.Listeners[i].Timeouts.BodyIdle = configs.Duration(300 * time.Millisecond)
		}
	})
	for _, v := range variants[:2] {
		t.Run(v.name, func(t *testing.T) {
			pr, pw := io.Pipe()
			go func() {
				for range 10 {
					pw.Write([]byte("piece"))
					time.Sleep(20 * time.Millisecond) // the pace is the point
				}
				pw.Close()
			}()
			res, err := e.client(v.listener, v.protocol).Post(v.url, "text/plain", pr)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != 200 {
				t.Errorf("status %d", res.StatusCode)
			}
			res.Body.Close()

			pr, pw = io.Pipe()
			defer pw.Close()
			go pw.Write([]byte("piece"))
			res, err = e.client(v.listener, v.protocol).Post(v.url, "text/plain", pr)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != 408 {
				t.Errorf("stalled body: status %d, want 408", res.StatusCode)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "origin "+r.Header.Get(ProbeField))
	}))
	e.mustApply(func(s *Snapshot) { s.Routes[0].Match.Host = "shop.example" })
	for _, v := range variants {
		client := e.client(v.listener, v.protocol)
		probe := func(token string) (*http.Response, string) {
			req, _ := http.NewRequestWithContext(context.Background(), "GET", v.url+"/", nil)
			req.Header.Set(ProbeField, token)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			return res, readAll(t, res.Body)
		}
		if res, body := probe("token"); res.StatusCode != 204 || body != "" || res.Header.Get(GenerationField) != "2" {
			t.Errorf("%s: probe: %d %q %v", v.name, res.StatusCode, body, res.Header)
		}
		if res, body := probe("guess"); res.StatusCode != 200 || body != "origin " {
			t.Errorf("%s: wrong token: %d %q", v.name, res.StatusCode, body)
		}
	}
	if n := e.worker.Vitals().Requests; n != uint64(len(variants)) {
		t.Errorf("%d requests counted, want %d without probes", n, len(variants))
	}
	e.mustApply(func(s *Snapshot) { s.ProbeToken = "" })
	c := e.dial(clear1)
	c.send("GET / HTTP/1.1\r\nHost: shop.example\r\nAnyedge-Probe:\r\n\r\n")
	if res := c.receive("GET"); res.StatusCode != 200 {
		t.Errorf("an empty token was taken: status %d", res.StatusCode)
	}
}

func TestTrustedHop(t *testing.T) {
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-For"))
	}))
	e.mustApply(func(s *Snapshot) { s.Listeners[0].TrustedHops = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for name, want := range map[string]string{clear1: "192.0.2.1, 127.0.0.1", mixed: "127.0.0.1"} {
		c := e.dial(name)
		c.send("GET / HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
		if got := readAll(t, c.receive("GET").Body); got != want {
			t.Errorf("%s: X-Forwarded-For %q, want %q", name, got, want)
		}
	}
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	e := newEdge(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	for _, tt := range []struct {
		version string // of the response
		args    []string
	}{
		{"2", []string{"--http2", "--insecure", "https://" + e.address(secure) + "/"}},
		{"2", []string{"--http2-prior-knowledge", "http://" + e.address(mixed) + "/"}},
		{"1.1", []string{"--http1.1", "--insecure", "https://" + e.address(secure) + "/"}},
		{"1", []string{"--http1.0", "http://" + e.address(clear1) + "/"}}, // curl means 1.0
	} {
		args := append([]string{"--silent", "--show-error", "--data", "hello", "--write-out", " %{http_version} %{http_code}"}, tt.args...)
		out, err := exec.Command(curl, args...).CombinedOutput()
		if want := "hello " + tt.version + " 200"; err != nil || string(out) != want {
			t.Errorf("curl %s: %v, %q, want %q", args, err, out, want)
		}
	}
}

func BenchmarkForward(b *testing.B) {
	e := newEdge(b, serveHTTP(b, hello))
	e.mustApply(func(s *Snapshot) { s.LogRequests = false })
	c := e.dial(clear1)
	c.SetDeadline(time.Time{})
	b.ReportAllocs()
	for b.Loop() {
		if res, body := c.get("/a/path?with=query"); res.StatusCode != 200 || body != "hello" {
			b.Fatal(res.StatusCode)
		}
	}
}
