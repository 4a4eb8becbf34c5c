package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	// writeTimeout leaves an endpoint its time. A profile or a trace extends it
	// by its own length.
	writeTimeout    = endpointTimeout + 10*time.Second
	idleTimeout     = 2 * time.Minute
	maxHeader       = 64 << 10
	shutdownTimeout = 2 * time.Second
	// scrapeTimeout and maxScrapes bound what gathering metrics may cost.
	scrapeTimeout = 10 * time.Second
	maxScrapes    = 4
)

// Config says what a [Server] serves.
type Config struct {
	// Address to listen on; port 0 takes a free one. Required.
	Address netip.AddrPort
	// Name is that of the node, shown in the index and in /healthz.
	Name string
	// Gatherer is served at /metrics; see [NewRegistry]. Absent: no metrics. When
	// it fails in part, the metrics it has are served and the error is logged.
	Gatherer prometheus.Gatherer
	// Health is asked at /healthz: 200 or 503, with detail as JSON. Absent:
	// always healthy.
	Health func() (ok bool, detail any)
	// Endpoints of the API, listed with their docs at /v1/.
	Endpoints []Endpoint
	// Page is served at "/" alone. Absent: the index.
	Page http.Handler
	// Log gets a line for every request that could change something. Required.
	Log *slog.Logger
}

// A Server is the operator's HTTP server of one process.
type Server struct {
	address netip.AddrPort
	log     *slog.Logger
	handler http.Handler

	mu       sync.Mutex
	listener net.Listener // nil until Listen; then owned by Run
}

// New returns a server for a config. It panics if two endpoints clash or one is
// malformed, which is a fault of the program.
func New(cfg Config) *Server {
	mux := http.NewServeMux()
	s := &Server{address: cfg.Address, log: cfg.Log, handler: &guard{log: cfg.Log, next: mux}}

	resources := make(map[string]*resource)
	add := func(e Endpoint) {
		res := resources[e.Path]
		if res == nil {
			res = &resource{cfg.Log, make(map[string]Endpoint)}
			resources[e.Path] = res
			mux.Handle(e.Path, res)
		}
		if _, twice := res.methods[e.Method]; twice {
			panic(fmt.Sprintf("ops: two endpoints %s %s", e.Method, e.Path))
		}
		res.methods[e.Method] = e
	}
	for _, e := range cfg.Endpoints {
		add(e)
	}
	index := func(context.Context, Request) (any, error) { return newIndex(cfg), nil }
	add(Endpoint{Method: http.MethodGet, Path: "/v1/{$}", Handle: index})
	if cfg.Page == nil {
		add(Endpoint{Method: http.MethodGet, Path: "/{$}", Handle: index})
	} else {
		mux.Handle("/{$}", readOnly(cfg.Page.ServeHTTP))
	}
	if cfg.Gatherer != nil {
		metrics := promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
			ErrorHandling:       promhttp.ContinueOnError,
			ErrorLog:            slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
			MaxRequestsInFlight: maxScrapes,
			Timeout:             scrapeTimeout,
		})
		mux.Handle("/metrics", readOnly(metrics.ServeHTTP))
	}
	mux.Handle("/healthz", readOnly(healthz(cfg)))
	registerDebug(mux, cfg.Name)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, NotFound("there is no %s; GET /v1/ lists what there is", r.URL.Path))
	})
	return s
}

// Listen binds the address, so that one already taken is known before anything
// else starts. Run does it when it has not been done.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	if !s.address.IsValid() {
		return errors.New("admin API: no address to listen on")
	}
	l, err := net.Listen("tcp", s.address.String())
	if err != nil {
		return fmt.Errorf("admin API: %w", err)
	}
	s.listener = l
	return nil
}

// Addr returns the address bound by Listen, and before that the configured one.
func (s *Server) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return s.address
	}
	return s.listener.Addr().(*net.TCPAddr).AddrPort()
}

// String names the server as a task.
func (s *Server) String() string { return "admin API" }

// Run serves until ctx ends, gives requests in flight a short while, closes
// every connection and returns nil. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	// Requests end with the server, but may still answer within the grace.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.listener) }()
	select {
	case err := <-failed:
		server.Close()
		return fmt.Errorf("admin API: %w", err)
	case <-ctx.Done():
	}
	cancel()
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer done()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	<-failed
	return nil
}

// index is the answer of /v1/.
type index struct {
	Name      string       `json:"name"`
	Build     build        `json:"build"`
	Endpoints []indexEntry `json:"endpoints"`
}

type indexEntry struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Doc    string `json:"doc"`
}

// newIndex lists the endpoints by path, then what every server has.
func newIndex(cfg Config) index {
	ix := index{Name: cfg.Name, Build: readBuild()}
	for _, e := range cfg.Endpoints {
		ix.Endpoints = append(ix.Endpoints, indexEntry{e.Method, e.Path, e.Doc})
	}
	slices.SortStableFunc(ix.Endpoints, func(a, b indexEntry) int { return cmp.Compare(a.Path, b.Path) })
	if cfg.Page != nil {
		ix.Endpoints = append(ix.Endpoints, indexEntry{http.MethodGet, "/", "status page for people; ?format=text"})
	}
	if cfg.Gatherer != nil {
		ix.Endpoints = append(ix.Endpoints, indexEntry{http.MethodGet, "/metrics", "metrics for Prometheus"})
	}
	return index{ix.Name, ix.Build, append(ix.Endpoints,
		indexEntry{http.MethodGet, "/healthz", "200 when healthy, 503 when not"},
		indexEntry{http.MethodGet, "/debug/", "profiles, goroutines, build; from the same host only"},
	)}
}

// healthz answers with the health of the process.
func healthz(cfg Config) http.HandlerFunc {
	type health struct {
		Name    string `json:"name"`
		Healthy bool   `json:"healthy"`
		Error   string `json:"error,omitempty"` // as in every answer that is an error
		Detail  any    `json:"detail,omitempty"`
	}
	return func(w http.ResponseWriter, r *http.Request) {
		h := health{Name: cfg.Name, Healthy: true}
		if cfg.Health != nil {
			h.Healthy, h.Detail = cfg.Health()
		}
		status := http.StatusOK
		if !h.Healthy {
			status, h.Error = http.StatusServiceUnavailable, "not healthy"
		}
		if err := writeJSON(w, status, h); err != nil {
			writeError(w, err)
		}
	}
}
