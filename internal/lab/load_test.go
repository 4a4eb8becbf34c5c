package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/configs"
)

// hangUp ends the connection in the middle of whatever was said.
func hangUp(w http.ResponseWriter) {
	w.(http.Flusher).Flush()
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	c.Close()
}

func TestLoadCountsFailuresAndNotSuccesses(t *testing.T) {
	handlers := map[string]http.HandlerFunc{
		"/ok":        func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") },
		"/empty":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"/not-found": http.NotFound,
		"/broken":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"/busy":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) },
		"/cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "not all")
			hangUp(w)
		},
		"/cut-chunked": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "not all")
			hangUp(w)
		},
		"/nothing": func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			c.Close()
		},
		"/hang": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handlers[r.URL.Path](w, r) }))
	defer server.Close()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()

	for _, c := range []struct {
		what, url string
		failure   string // part of its words; "" is a success
	}{
		{"200", server.URL + "/ok", ""},
		{"204", server.URL + "/empty", ""},
		{"404 is an answer", server.URL + "/not-found", ""},
		{"500", server.URL + "/broken", "500 Internal Server Error"},
		{"503", server.URL + "/busy", "503 Service Unavailable"},
		{"body cut short", server.URL + "/cut", "unexpected EOF"},
		{"chunked body cut short", server.URL + "/cut-chunked", "EOF"},
		{"connection closed without an answer", server.URL + "/nothing", "EOF"},
		{"refused", "http://" + nobody.Addr().String(), "connection refused"},
		{"no answer in time", server.URL + "/hang", "Client.Timeout"},
	} {
		t.Run(c.what, func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
			if strings.HasSuffix(c.url, "/hang") {
				client.Timeout = 20 * time.Millisecond
			}
			l := &load{}
			before := l.mark()
			l.request(t.Context(), client, c.url)
			want := mark{sent: 1}
			if c.failure != "" {
				want.failed = 1
			}
			if got := l.since(before); got != want || l.inFlight.Load() != 0 {
				t.Errorf("%+v, want %+v; %d in flight", got, want, l.inFlight.Load())
			}
			if !strings.Contains(l.lastFailure(), c.failure) || (l.lastFailure() == "") != (c.failure == "") {
				t.Errorf("last failure %q, want one of %q", l.lastFailure(), c.failure)
			}
		})
	}
}

// What the end of the load itself cuts off is neither sent nor failed.
func TestLoadEndsWithoutBlame(t *testing.T) {
	begun := make(chan struct{}, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	l := &load{rate: 500, clients: []*http.Client{{}}, urls: []string{server.URL}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	for range 3 {
		<-begun
	}
	if n := l.inFlight.Load(); n < 3 {
		t.Errorf("%d in flight, want at least 3", n)
	}
	cancel()
	within(t, 5*time.Second, "the load ends", func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if got := l.mark(); got != (mark{}) || l.inFlight.Load() != 0 {
		t.Errorf("%+v, %d in flight; want nothing", got, l.inFlight.Load())
	}
}

// The load goes to the anycast address: in equal parts over a kept HTTP/1.1
// connection, a kept HTTP/2 connection, new TLS connections and new clear ones.
func TestLoadIsInEqualParts(t *testing.T) {
	l := newTestLab(t, configs.DefaultLab())
	pair, err := tls.LoadX509KeyPair(l.path("www.crt"), l.path("www.key"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	requests, connections := make(map[string]int), make(map[string]map[string]bool)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		kind := fmt.Sprintf("%s tls=%v close=%v", r.Proto, r.TLS != nil, r.Close)
		mu.Lock()
		defer mu.Unlock()
		requests[kind]++
		if connections[kind] == nil {
			connections[kind] = make(map[string]bool)
		}
		connections[kind][r.RemoteAddr] = true
		if !strings.HasPrefix(r.Host, l.host()+":") {
			t.Errorf("Host %s", r.Host)
		}
	})
	for _, port := range []uint16{portTLS, portClear} {
		listener, err := net.Listen("tcp", l.layout.anycast(port).String())
		if err != nil {
			t.Fatal(err)
		}
		server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}, EnableHTTP2: true}
		if port == portTLS {
			server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
			server.StartTLS()
		} else {
			server.Start()
		}
		defer server.Close()
	}

	load := newLoad(200, l.host(), l.layout, l.secrets.roots)
	round := func() { // one request after the other, so that kept means one connection
		for i := range 40 {
			load.request(t.Context(), load.clients[i%4], load.urls[i%4])
		}
	}
	round()
	if got := load.mark(); got != (mark{sent: 40}) {
		t.Fatalf("%+v: %s", got, load.lastFailure())
	}
	load.reconnect()
	round()
	load.reconnect()        // lets the server close
	want := map[string]int{ // kind of request: connections in two rounds of ten
		"HTTP/1.1 tls=true close=false": 2,
		"HTTP/2.0 tls=true close=false": 2,
		"HTTP/1.1 tls=true close=true":  20,
		"HTTP/1.1 tls=false close=true": 20,
	}
	mu.Lock()
	defer mu.Unlock()
	for kind, n := range want {
		if requests[kind] != 20 || len(connections[kind]) != n {
			t.Errorf("%s: %d requests over %d connections, want 20 over %d", kind, requests[kind], len(connections[kind]), n)
		}
	}
	if len(requests) != len(want) {
		t.Errorf("other requests: %v", requests)
	}
}
