package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// start serves s on a free port of loopback until the test ends or stop is
// called, which returns after Serve has.
func start(t *testing.T, s *Server) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// client speaks one protocol only: "h1" or "h2".
func client(t *testing.T, protocol string, config *tls.Config) *http.Client {
	var p http.Protocols
	switch {
	case protocol == "h1":
		p.SetHTTP1(true)
	case config == nil:
		p.SetUnencryptedHTTP2(true)
	default:
		p.SetHTTP2(true)
	}
	tr := &http.Transport{Protocols: &p, TLSClientConfig: config}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// serverTLS returns a server's config with a test certificate for example.com,
// and a client's that trusts it.
func serverTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	client = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.ServerName = "example.com"
	return &tls.Config{Certificates: s.TLS.Certificates}, client
}

func do(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestEndpoints(t *testing.T) {
	config, trusting := serverTLS(t)
	for _, mode := range []struct {
		name, protocol string
		secure         bool
	}{{"h1", "h1", false}, {"h2c", "h2", false}, {"h1 over TLS", "h1", true}, {"h2 over TLS", "h2", true}} {
		t.Run(mode.name, func(t *testing.T) {
			s := &Server{Name: "fra-origin-1", Region: "fra"}
			scheme, clientTLS := "http://", (*tls.Config)(nil)
			if mode.secure {
				s.TLS, clientTLS, scheme = config, trusting, "https://"
			}
			address, _ := start(t, s)
			c := client(t, mode.protocol, clientTLS)
			for _, tt := range []struct {
				method, path string
				code         int
				want         string // part of the body
			}{
				{"GET", "/whoami", 200, `"name": "fra-origin-1"`},
				{"GET", "/slow?ms=1", 200, `"region": "fra"`},
				{"GET", "/slow?ms=60001", 400, "ms must be a whole number from 0 to 60000"},
				{"GET", "/slow?ms=-1", 400, ""},
				{"GET", "/slow", 400, ""},
				{"GET", "/bytes?n=0", 200, ""},
				{"GET", "/bytes?n=1073741825", 400, "from 0 to 1073741824"},
				{"GET", "/bytes?n=1e3", 400, ""},
				{"HEAD", "/bytes?n=1073741824", 200, ""},
				{"GET", "/status?code=200", 200, ""},
				{"GET", "/status?code=302", 302, ""},
				{"DELETE", "/status?code=599", 599, ""},
				{"GET", "/status?code=199", 400, "from 200 to 599"},
				{"GET", "/healthz", 200, "up"},
				{"POST", "/healthz?state=down", 204, ""},
				{"GET", "/healthz", 503, "down"},
				{"HEAD", "/healthz", 503, ""},
				{"POST", "/healthz?state=sideways", 400, "up or down"},
				{"POST", "/healthz?state=up", 204, ""},
				{"GET", "/healthz", 200, "up"},
				{"DELETE", "/healthz", 405, ""},
				{"GET", "/ws", 426, ""},
				{"GET", "/echo.proto", 200, "service Echo"},
				{"GET", "//a/../b", 200, `"target": "//a/../b"`},
				{"GET", "/no/such/path?x=<1>", 200, `"target": "/no/such/path?x=<1>"`},
			} {
				resp, body := do(t, c, tt.method, scheme+address+tt.path, nil)
				if resp.StatusCode != tt.code || !strings.Contains(body, tt.want) {
					t.Errorf("%s %s: status %d, body %.200q; want %d with %q", tt.method, tt.path, resp.StatusCode, body, tt.code, tt.want)
				}
				if got := resp.Header.Get(NameField); got != "fra-origin-1" {
					t.Errorf("%s %s: %s is %q", tt.method, tt.path, NameField, got)
				}
				if want := int(mode.protocol[1] - '0'); resp.ProtoMajor != want {
					t.Errorf("%s %s: HTTP/%d, want HTTP/%d", tt.method, tt.path, resp.ProtoMajor, want)
				}
			}
		})
	}
}

func TestEchoShowsTheRequest(t *testing.T) {
	address, _ := start(t, &Server{Name: "a", Region: "eu"})
	body := strings.Repeat("x", 100_000)
	sum := sha256.Sum256([]byte(body))
	for protocol, proto := range map[string]string{"h1": "HTTP/1.1", "h2": "HTTP/2.0"} {
		req, err := http.NewRequest("PUT", "http://"+address+"/a?b=c", struct{ io.Reader }{strings.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.example"
		req.Header = http.Header{"X-B": {"2", "1"}, "X-A": {""}, "User-Agent": {"test"}}
		req.Trailer = http.Header{"X-Sum": {"abc"}}
		resp, err := client(t, protocol, nil).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var got Received
		err = json.NewDecoder(resp.Body).Decode(&got)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got.Origin != (Identity{"a", "eu"}) || got.Method != "PUT" || got.Target != "/a?b=c" || got.Protocol != proto ||
			got.TLS || got.Host != "shop.example" || got.BodyBytes != 100_000 || got.BodySHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: %+v", protocol, got)
		}
		if a, err := netip.ParseAddrPort(got.RemoteAddress); err != nil || !a.Addr().IsLoopback() {
			t.Errorf("%s: remote address %q", protocol, got.RemoteAddress)
		}
		var own []Field
		for _, f := range got.Fields {
			if strings.HasPrefix(f.Name, "X-") {
				own = append(own, f)
			}
		}
		if want := []Field{{"X-A", ""}, {"X-B", "2"}, {"X-B", "1"}}; !slices.Equal(own, want) {
			t.Errorf("%s: fields %v, want %v", protocol, own, want)
		}
		if want := []Field{{"X-Sum", "abc"}}; !slices.Equal(got.Trailers, want) {
			t.Errorf("%s: trailers %v", protocol, got.Trailers)
		}
	}
}

func TestBodiesThatAreRefused(t *testing.T) {
	h := (&Server{Name: "a"}).Handler()
	for _, tt := range []struct {
		name   string
		length int64
		body   io.Reader
		code   int
	}{
		{"announced as too large", MaxBytes + 1, strings.NewReader("never read"), http.StatusRequestEntityTooLarge},
		{"broken", -1, iotest.ErrReader(io.ErrUnexpectedEOF), http.StatusBadRequest},
	} {
		r := httptest.NewRequest("POST", "/", tt.body)
		r.ContentLength = tt.length
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.code {
			t.Errorf("%s: status %d, want %d", tt.name, w.Code, tt.code)
		}
	}
}

// endless is as many bytes as are asked for.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A body without a length is read up to the bound and no further.
func TestEndlessBody(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 1 GiB")
	}
	w := httptest.NewRecorder()
	(&Server{}).Handler().ServeHTTP(w, httptest.NewRequest("POST", "/", endless{}))
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", w.Code)
	}
}

// The wait ends with the client.
func TestSlowEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		begin := time.Now()
		w := httptest.NewRecorder()
		h := (&Server{}).Handler()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/slow?ms=60000", nil).WithContext(ctx))
		if d := time.Since(begin); d != time.Second || w.Body.Len() != 0 {
			t.Errorf("ended after %v with %q", d, w.Body)
		}
		begin = time.Now()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/slow?ms=60000", nil))
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("waited %v, want a minute", d)
		}
	})
}

func TestBytesCarryContent(t *testing.T) {
	const n = 3<<20 + 5
	want := sha256.New()
	if m, err := io.Copy(want, Content(n)); m != n || err != nil {
		t.Fatalf("Content: %d bytes, %v", m, err)
	}
	address, _ := start(t, &Server{})
	for _, protocol := range []string{"h1", "h2"} {
		resp, body := do(t, client(t, protocol, nil), "GET", "http://"+address+"/bytes?n="+strconv.Itoa(n), nil)
		got := sha256.Sum256([]byte(body))
		if resp.ContentLength != n || !bytes.Equal(got[:], want.Sum(nil)) {
			t.Errorf("%s: %d bytes, Content-Length %d, or other bytes than Content", protocol, len(body), resp.ContentLength)
		}
	}
}

// A client that stops reading gets the response as fast as it reads, and one
// that leaves ends it: nothing is buffered whole.
func TestBytesStream(t *testing.T) {
	address, stop := start(t, &Server{DrainTimeout: time.Minute})
	req, err := http.NewRequest("GET", "http://"+address+"/bytes?n="+strconv.Itoa(MaxBytes), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t, "h1", nil).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<16)
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 1<<16)
	io.ReadFull(Content(MaxBytes), want)
	if !bytes.Equal(got, want) {
		t.Error("other bytes than Content")
	}
	resp.Body.Close()
	stop() // returns long before the drain timeout, because nothing is in flight
}

func TestContent(t *testing.T) {
	whole, err := io.ReadAll(Content(1 << 12))
	if err != nil || len(whole) != 1<<12 {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	for _, size := range []int{1, 3, 7, 8, 9, 1000} { // however it is read
		var got []byte
		r, buf := Content(1<<12), make([]byte, size)
		for {
			n, err := r.Read(buf)
			got = append(got, buf[:n]...)
			if errors.Is(err, io.EOF) {
				break
			}
		}
		if !bytes.Equal(got, whole) {
			t.Errorf("read %d bytes at a time, it differs", size)
		}
	}
	words := make(map[string]int)
	for i := 0; i < len(whole); i += 8 {
		if j, twice := words[string(whole[i:i+8])]; twice {
			t.Errorf("the words at %d and %d are equal", j, i)
		}
		words[string(whole[i:i+8])] = i
	}
	if n, err := Content(0).Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("empty content: %d, %v", n, err)
	}
}

func TestSetHealthy(t *testing.T) {
	s := &Server{}
	address, _ := start(t, s)
	c := client(t, "h1", nil)
	for _, up := range []bool{true, false, true} {
		s.SetHealthy(up)
		want := map[bool]int{true: 200, false: 503}[up]
		if resp, _ := do(t, c, "GET", "http://"+address+"/healthz", nil); resp.StatusCode != want || s.Healthy() != up {
			t.Errorf("after SetHealthy(%v): status %d, Healthy %v", up, resp.StatusCode, s.Healthy())
		}
	}
}

func TestGRPC(t *testing.T) {
	config, trusting := serverTLS(t)
	for _, tt := range []struct {
		name        string
		server      *tls.Config
		credentials credentials.TransportCredentials
	}{
		{"h2c", nil, insecure.NewCredentials()},
		{"TLS", config, credentials.NewTLS(trusting)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address, _ := start(t, &Server{Name: "iad-origin-1", TLS: tt.server})
			cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(tt.credentials))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()

			var header metadata.MD
			got := new(wrapperspb.BytesValue)
			if err := cc.Invoke(t.Context(), MethodUnary, wrapperspb.Bytes([]byte("hello")), got, grpc.Header(&header)); err != nil {
				t.Fatal(err)
			}
			if string(got.Value) != "hello" || !slices.Equal(header.Get(NameField), []string{"iad-origin-1"}) {
				t.Errorf("Unary: %q, header %v", got.Value, header)
			}

			stream, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, MethodBidi)
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"one", "", strings.Repeat("x", 1<<20)} { // each answer before the next question
				if err := stream.SendMsg(wrapperspb.Bytes([]byte(word))); err != nil {
					t.Fatal(err)
				}
				if err := stream.RecvMsg(got); err != nil || string(got.Value) != word {
					t.Fatalf("Bidi: %d bytes, %v; want %d", len(got.Value), err, len(word))
				}
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(got); !errors.Is(err, io.EOF) {
				t.Errorf("after the last message: %v", err)
			}

			err = cc.Invoke(t.Context(), "/anyedge.demo.v1.Echo/Nothing", wrapperspb.Bytes(nil), got)
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("unknown method: %v", err)
			}
		})
	}
}

func TestDrainLetsRequestsFinish(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			address, stop := start(t, &Server{Name: "a", DrainTimeout: time.Minute})
			c := client(t, protocol, nil)
			c.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
			// The body is read when the server asked for it, so the request is under
			// way when the server ends; the rest of the body comes after that.
			body, send := io.Pipe()
			req, err := http.NewRequest("POST", "http://"+address+"/", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Expect", "100-continue")
			answer := make(chan string, 1)
			go func() {
				resp, err := c.Do(req)
				if err != nil {
					answer <- err.Error()
					return
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				answer <- fmt.Sprintf("%s, %v", text, err)
			}()
			io.WriteString(send, "before ")
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				stop()
			}()
			for { // until nobody listens any more
				conn, err := net.Dial("tcp", address)
				if err != nil {
					break
				}
				conn.Close()
			}
			io.WriteString(send, "after")
			send.Close()
			if text := <-answer; !strings.Contains(text, `"body_bytes": 12`) {
				t.Errorf("answer %q", text)
			}
			<-stopped
		})
	}
}

func TestDrainTimeoutCutsOff(t *testing.T) {
	address, stop := start(t, &Server{DrainTimeout: time.Millisecond})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /slow?ms=60000 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
	other := client(t, "h1", nil)
	do(t, other, "GET", "http://"+address+"/whoami", nil)
	stop()
	if _, err := io.ReadAll(conn); err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("the connection is still open: %v", err)
		}
	}
}

func TestRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: netip.MustParseAddrPort(l.Addr().String())}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "demo origin: ") {
		t.Errorf("on an address in use: %v", err)
	}
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("with an ended context: %v", err)
	}
	l.Close()
	if err := (&Server{}).Serve(t.Context(), l); err == nil {
		t.Error("no error with a closed listener")
	}
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	address, _ := start(t, &Server{Name: "sin-origin-2"})
	for _, flag := range []string{"--http1.1", "--http2-prior-knowledge"} {
		out, err := exec.Command(curl, "--silent", "--show-error", "--max-time", "10", flag, "--write-out", " %{http_code}",
			"--data", "hello", "http://"+address+"/x").CombinedOutput()
		if err != nil {
			t.Errorf("curl %s: %v: %s", flag, err, out)
			continue
		}
		for _, want := range []string{`"name": "sin-origin-2"`, `"method": "POST"`, `"body_bytes": 5`, " 200"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("curl %s: %s; want %s", flag, out, want)
			}
		}
	}
}
