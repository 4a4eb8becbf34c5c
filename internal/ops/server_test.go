package ops

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const jsonBody = "Content-Type: application/json"

func TestEndpoints(t *testing.T) {
	s := New(Config{Endpoints: endpoints, Log: discard})
	for _, tt := range []struct {
		method, target, body string
		status               int
		want                 string // the JSON without white space, or the error
	}{
		{"GET", "/v1/status?verbose=yes", "", 200, `{"state":"healthy","verbose":"yes"}`},
		{"HEAD", "/v1/status", "", 200, `{"state":"healthy","verbose":""}`}, // net/http cuts it off
		{"GET", "/v1/pools/api", "", 200, `{"name":"api"}`},
		{"GET", "/v1/pools/db", "", 404, `no pool "db"`},
		{"GET", "/v1/nothing", "", 404, "there is no /v1/nothing; GET /v1/ lists what there is"},
		{"POST", "/v1/status", "{}", 405, "/v1/status does not take POST, only GET, HEAD"},
		{"PUT", "/v1/drain", "{}", 405, "/v1/drain does not take PUT, only DELETE, POST"},
		{"OPTIONS", "/v1/drain", "", 405, "/v1/drain does not take OPTIONS, only DELETE, POST"},
		{"POST", "/healthz", "{}", 405, "/healthz does not take POST, only GET, HEAD"},
		{"POST", "/debug/pprof/profile", "{}", 405, "/debug/pprof/profile does not take POST, only GET, HEAD"},

		{"POST", "/v1/drain", `{"name":"fra","seconds":3}`, 200, `{"name":"fra","seconds":3}`},
		{"POST", "/v1/drain", ` {"name":"<fra>"} ` + "\n", 200, `{"name":"<fra>","seconds":0}`},
		{"POST", "/v1/drain", `{"name":"silent"}`, 204, ""},
		{"DELETE", "/v1/drain", "", 204, ""},
		{"POST", "/v1/drain", `{"name":"twice"}`, 409, "drain: already drained"},
		{"POST", "/v1/drain", `{"name":"remote"}`, 503, "fleet store: unexpected EOF"},
		{"POST", "/v1/drain", `{"name":"broken"}`, 500, "io: read/write on closed pipe"},
		{"POST", "/v1/drain", `{"name":"unencodable"}`, 500, "encode the answer: json: unsupported type: func()"},

		{"POST", "/v1/drain", "", 400, "the body is empty, a JSON value is needed"},
		{"POST", "/v1/drain", `{"nam":"fra"}`, 400, `body: unknown field "nam"`},
		{"POST", "/v1/drain", `{"name":"fra"`, 400, "body: unexpected EOF"},
		{"POST", "/v1/drain", `{"name":7}`, 400, "body: cannot unmarshal number into Go struct field drain.name of type string"},
		{"POST", "/v1/drain", `{"name":"fra"}{"name":"iad"}`, 400, "body: more than one value"},
		{"POST", "/v1/drain", `{"name":"fra"} x`, 400, "body: invalid character 'x' looking for beginning of value"},
		{"POST", "/v1/drain", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 413, "the body is larger than 1048576 bytes"},
	} {
		resp := ask(s, tt.method, tt.target, tt.body, jsonBody)
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s %.40s: status %d, want %d", tt.method, tt.target, tt.body, resp.StatusCode, tt.status)
		}
		switch {
		case tt.status >= 400:
			if got := errorOf(t, resp); got != tt.want {
				t.Errorf("%s %s %.40s: error %q, want %q", tt.method, tt.target, tt.body, got, tt.want)
			}
		default:
			got := strings.NewReplacer("\n", "", " ", "").Replace(text(t, resp))
			if got != tt.want {
				t.Errorf("%s %s %.40s: %s, want %s", tt.method, tt.target, tt.body, got, tt.want)
			}
		}
		if tt.status == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow field", tt.method, tt.target)
		}
		if tt.status != 204 && resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: Content-Type %q", tt.method, tt.target, resp.Header.Get("Content-Type"))
		}
	}
}

func TestAnswersAreIndented(t *testing.T) {
	s := New(Config{Endpoints: endpoints, Log: discard})
	want := "{\n  \"name\": \"api\"\n}"
	if got := text(t, ask(s, "GET", "/v1/pools/api", "")); got != want {
		t.Errorf("got %s", got)
	}
}

func TestIndexListsEverything(t *testing.T) {
	s := New(Config{Name: "fra-1", Endpoints: endpoints, Gatherer: NewRegistry(), Log: discard,
		Page: StatusPage("x", func(context.Context) (Page, error) { return Page{}, nil })})
	got := text(t, ask(s, "GET", "/v1/", ""))
	at := 0
	for _, want := range []string{
		`"name": "fra-1"`, `"go": "go1.`,
		`"/v1/drain"`, `"take the node out"`, `"DELETE"`, `"put the node back"`,
		`"/v1/pools/{name}"`, `"/v1/status"`, `"what the node does"`,
		`"/"`, `"/metrics"`, `"/healthz"`, `"/debug/"`,
	} {
		i := strings.Index(got[at:], want)
		if i < 0 {
			t.Fatalf("no %s, or not in order, in\n%s", want, got)
		}
		at += i
	}
}

func TestIndexIsThePageOfAServerWithoutOne(t *testing.T) {
	s := New(Config{Endpoints: endpoints, Log: discard})
	if a, b := text(t, ask(s, "GET", "/", "")), text(t, ask(s, "GET", "/v1/", "")); a != b {
		t.Errorf("/ is\n%s\nand /v1/ is\n%s", a, b)
	}
	if resp := ask(s, "GET", "/metrics", ""); resp.StatusCode != 404 {
		t.Errorf("/metrics without a gatherer: %s", resp.Status)
	}
}

func TestEndpointsThatClashPanic(t *testing.T) {
	defer func() {
		if got := recover(); got != "ops: two endpoints GET /v1/status" {
			t.Errorf("panic %v", got)
		}
	}()
	New(Config{Endpoints: append(endpoints[:1:1], endpoints[0]), Log: discard})
}

func TestHealthz(t *testing.T) {
	for _, tt := range []struct {
		health func() (bool, any)
		status int
		want   string
	}{
		{nil, 200, `{"name":"fra-1","healthy":true}`},
		{func() (bool, any) { return true, map[string]int{"checks": 2} }, 200, `{"name":"fra-1","healthy":true,"detail":{"checks":2}}`},
		{func() (bool, any) { return false, "worker hangs" }, 503, `{"name":"fra-1","healthy":false,"error":"nothealthy","detail":"workerhangs"}`},
	} {
		s := New(Config{Name: "fra-1", Health: tt.health, Log: discard})
		resp := ask(s, "GET", "/healthz", "")
		got := strings.NewReplacer("\n", "", " ", "").Replace(text(t, resp))
		if resp.StatusCode != tt.status || got != tt.want {
			t.Errorf("%s %s, want %d %s", resp.Status, got, tt.status, tt.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	s := New(Config{Gatherer: NewRegistry(), Log: discard})
	got := text(t, ask(s, "GET", "/metrics", ""))
	for _, want := range []string{"anyedge_build_info{go=\"go1.", "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
}

// halfGatherer fails in part, as one does that asks a worker that is gone.
type halfGatherer struct{ prometheus.Gatherer }

func (g halfGatherer) Gather() ([]*dto.MetricFamily, error) {
	families, _ := g.Gatherer.Gather()
	return families, errors.New("no worker is running")
}

func TestMetricsThatFailInPartAreServed(t *testing.T) {
	var log bytes.Buffer
	s := New(Config{Gatherer: halfGatherer{NewRegistry()}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	resp := ask(s, "GET", "/metrics", "")
	if resp.StatusCode != 200 || !strings.Contains(text(t, resp), "anyedge_build_info") {
		t.Errorf("%s", resp.Status)
	}
	if !strings.Contains(log.String(), "no worker is running") {
		t.Errorf("log: %s", log.String())
	}
}

func TestDebug(t *testing.T) {
	s := New(Config{Name: "<fra-1>", Log: discard})
	for target, want := range map[string]string{
		"/debug/":                         "<h1>debug &lt;fra-1&gt;</h1>",
		"/debug/goroutines":               "ops.TestDebug(",
		"/debug/build":                    "path\tanyedge/internal/ops.test",
		"/debug/pprof/":                   "full goroutine stack dump",
		"/debug/pprof/heap?debug=1":       "heap profile:",
		"/debug/pprof/cmdline":            "ops.test",
		"/debug/pprof/trace?seconds=0.01": "go 1.",
	} {
		if got := text(t, ask(s, "GET", target, "")); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%.400s", target, want, got)
		}
	}
}

func TestListen(t *testing.T) {
	first := serve(t, Config{})
	if !first.Addr().IsValid() || first.Addr().Port() == 0 {
		t.Fatalf("address %v", first.Addr())
	}
	second := New(Config{Address: first.Addr(), Log: discard})
	want := "admin API: listen tcp " + first.Addr().String() + ": bind: address already in use"
	for what, f := range map[string]func() error{
		"Listen": second.Listen,
		"Run":    func() error { return second.Run(t.Context()) },
	} {
		if err := f(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	if err := New(Config{Log: discard}).Listen(); err == nil || err.Error() != "admin API: no address to listen on" {
		t.Errorf("no address: %v", err)
	}
	if got := second.Addr(); got != first.Addr() {
		t.Errorf("address before Listen: %v", got)
	}
}

// A request in flight learns that the server ends, and its answer arrives.
func TestRunEndsInOrder(t *testing.T) {
	inside := make(chan struct{})
	s := New(Config{Address: loopback, Log: discard, Endpoints: []Endpoint{{
		Method: "GET", Path: "/v1/wait", Handle: func(ctx context.Context, _ Request) (any, error) {
			close(inside)
			<-ctx.Done()
			return "told", nil
		},
	}}})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	go func() {
		<-inside
		cancel()
	}()
	var got string
	if err := (Client{s.Addr()}).Get(soon(t), "/v1/wait", &got); err != nil || got != "told" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := (Client{s.Addr()}).Get(soon(t), "/v1/wait", nil); err == nil {
		t.Error("still answers")
	}
}

func TestRemote(t *testing.T) {
	var got netip.AddrPort
	s := New(Config{Log: discard, Endpoints: []Endpoint{{
		Method: "GET", Path: "/v1/who", Handle: func(_ context.Context, r Request) (any, error) {
			got = r.Remote
			return nil, nil
		},
	}}})
	for remote, want := range map[string]string{
		"10.0.0.9:1234":          "10.0.0.9:1234",
		"[::ffff:10.0.0.9]:1234": "10.0.0.9:1234",
		"@":                      "invalid AddrPort",
	} {
		ask(s, "GET", "/v1/who", "", "Remote: "+remote)
		if got.String() != want {
			t.Errorf("%s: %v, want %s", remote, got, want)
		}
	}
}
