package ops

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

func TestClient(t *testing.T) {
	s := serve(t, Config{Endpoints: endpoints})
	c := Client{s.Addr()}

	var status map[string]string
	if err := c.Get(soon(t), "/v1/status?verbose=a%20b", &status); err != nil || status["verbose"] != "a b" {
		t.Errorf("Get: %v, %v", status, err)
	}
	var d drain
	if err := c.Post(soon(t), "/v1/drain", drain{"fra", 3}, &d); err != nil || d != (drain{"fra", 3}) {
		t.Errorf("Post: %v, %v", d, err)
	}
	if err := c.Post(soon(t), "/v1/drain", drain{Name: "silent"}, &d); err != nil || d.Name != "fra" {
		t.Errorf("no answer: %v, %v", d, err)
	}
	if err := c.Get(soon(t), "/v1/status", nil); err != nil {
		t.Errorf("answer thrown away: %v", err)
	}

	err := c.Post(soon(t), "/v1/drain", drain{Name: "twice"}, nil)
	var refused *Error
	if !errors.As(err, &refused) || refused.Status != http.StatusConflict {
		t.Errorf("refused: %v", err)
	}
	if want := "anyedge admin at " + s.Addr().String() + ": drain: already drained"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := c.Post(soon(t), "/v1/drain", func() {}, nil); err == nil || !strings.HasPrefix(err.Error(), "encode the request: ") {
		t.Errorf("not JSON: %v", err)
	}
}

func TestClientFindsNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	err = Client{address}.Get(soon(t), "/v1/status", nil)
	if want := "no anyedge admin at " + address.String() + ": connection refused"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v does not wrap ECONNREFUSED", err)
	}
}

func TestClientFindsAStranger(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"page", 200, "<html>", "200 OK: invalid character '<' looking for beginning of value"},
		{"error page", 404, "<html>", "404 Not Found: invalid character '<' looking for beginning of value"},
		{"other JSON error", 500, `{"message":"x"}`, "500 Internal Server Error: no error in the answer"},
		{"redirect", 302, "", "302 Found: unexpected end of JSON input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "http://203.0.113.1/") // never followed
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body))
			}))
			defer server.Close()
			address := netip.MustParseAddrPort(server.Listener.Addr().String())
			want := address.String() + " does not speak the anyedge admin API: GET /v1/status answered " + tt.want
			if err := (Client{address}).Get(soon(t), "/v1/status", new(any)); err == nil || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
		})
	}
}

func TestClientWaitsNoLongerThanItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := netip.MustParseAddrPort(l.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	err = Client{address}.Get(ctx, "/v1/status", nil)
	if want := "no answer from anyedge admin at " + address.String() + " in time: context deadline exceeded"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := (Client{address}).Get(ctx, "/v1/status", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestClientOfAnUnhealthyServer(t *testing.T) {
	s := serve(t, Config{Health: func() (bool, any) { return false, nil }})
	err := Client{s.Addr()}.Get(soon(t), "/healthz", nil)
	var refused *Error
	if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || refused.Error() != "not healthy" {
		t.Errorf("got %v", err)
	}
}
