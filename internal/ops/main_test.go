package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	discard  = slog.New(slog.DiscardHandler)
	loopback = netip.MustParseAddrPort("127.0.0.1:0")
)

// drain is the body that the test endpoints take.
type drain struct {
	Name    string `json:"name"`
	Seconds int    `json:"seconds"`
}

// endpoints show every way an endpoint can answer.
var endpoints = []Endpoint{
	{Method: "GET", Path: "/v1/status", Doc: "what the node does", Handle: func(_ context.Context, r Request) (any, error) {
		return map[string]string{"state": "healthy", "verbose": r.Query("verbose")}, nil
	}},
	{Method: "GET", Path: "/v1/pools/{name}", Doc: "one pool", Handle: func(_ context.Context, r Request) (any, error) {
		if r.Param("name") != "api" {
			return nil, NotFound("no pool %q", r.Param("name"))
		}
		return map[string]string{"name": "api"}, nil
	}},
	{Method: "POST", Path: "/v1/drain", Doc: "take the node out", Handle: func(_ context.Context, r Request) (any, error) {
		var d drain
		if err := r.Decode(&d); err != nil {
			return nil, err
		}
		switch d.Name {
		case "twice":
			return nil, fmt.Errorf("drain: %w", Conflict("already drained"))
		case "remote":
			return nil, Unavailable("fleet store: %w", io.ErrUnexpectedEOF)
		case "broken":
			return nil, io.ErrClosedPipe
		case "silent":
			return nil, nil
		case "unencodable":
			return func() {}, nil
		}
		return d, nil
	}},
	{Method: "DELETE", Path: "/v1/drain", Doc: "put the node back", Handle: func(context.Context, Request) (any, error) { return nil, nil }},
}

// serve runs a server until the test ends.
func serve(t *testing.T, cfg Config) *Server {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = discard
	}
	cfg.Address = loopback
	s := New(cfg)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

// ask sends one request straight to the handler, as a client on the same host.
func ask(s *Server, method, target, body string, fields ...string) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host, r.RemoteAddr = "127.0.0.1:8600", "127.0.0.1:40000"
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		switch name {
		case "Host":
			r.Host = value
		case "Remote":
			r.RemoteAddr = value
		default:
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Result()
}

// text returns a body without its last newline.
func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(b), "\n")
}

// errorOf returns the message of an error answer.
func errorOf(t *testing.T, r *http.Response) string {
	t.Helper()
	var e errorBody
	if body := text(t, r); json.Unmarshal([]byte(body), &e) != nil {
		t.Fatalf("%s is no error: %s", r.Status, body)
	}
	return e.Error
}

// soon is a context for calls that are answered at once.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
