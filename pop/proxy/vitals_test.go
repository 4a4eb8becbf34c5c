package proxy

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/internal/health"
	"anyedge/pop/headroom"
)

func TestVitals(t *testing.T) {
	w := New(slog.New(slog.DiscardHandler), nil)
	if v := w.Vitals(); v.State != StateStarting || v.Ready() || v.Generation != 0 || v.PID != os.Getpid() {
		t.Errorf("before anything: %+v", v)
	}
	e := newEdge(t, serveHTTP(t, hello))
	c := e.dial(clear1)
	c.get("/")
	eventually(t, "the exchange is over", func() bool { return e.worker.inFlight.Load() == 0 }) // a moment after the response
	first := e.worker.Vitals()
	if first.State != StateReady || !first.Ready() || first.Generation != 1 || first.Connections != 1 || first.InFlight != 0 || first.Requests != 1 {
		t.Errorf("vitals %+v", first)
	}
	if len(first.Pools) != 1 || first.Pools[0].Name != "pool" || first.Pools[0].Usable != 1 || first.Pools[0].Backends[0].Picks != 1 {
		t.Errorf("pools %+v", first.Pools)
	}
	var resources []string
	for _, u := range first.Usage {
		resources = append(resources, u.Resource)
		if u.Used < 0 || u.Ceiling <= 0 || u.Resource != ResourceCPU && u.Used == 0 || u.Used > u.Ceiling {
			t.Errorf("usage %+v", u)
		}
	}
	if want := []string{ResourceConnections, ResourceDescriptors, ResourceMemory}; !slices.Equal(resources[:3], want) {
		t.Errorf("resources %q, want %q first", resources, want)
	}
	if next := e.worker.Vitals(); next.Sequence != first.Sequence+1 {
		t.Errorf("sequence %d after %d", next.Sequence, first.Sequence)
	}
}

// What an earlier worker knew of backends holds from the first request on.
func TestStatesAreHints(t *testing.T) {
	down, up := serveHTTP(t, hello), serveHTTP(t, hello)
	w := New(slog.New(slog.DiscardHandler), nil)
	pool := testPool("pool", down, up)
	pool.States = map[netip.AddrPort]health.State{down: health.Unhealthy}
	if err := w.Apply(&Snapshot{Generation: 1, Pools: []Pool{pool}}); err != nil {
		t.Fatal(err)
	}
	status := w.Vitals().Pools[0]
	if status.Usable != 1 || status.Backends[0].State != health.Unhealthy {
		t.Errorf("status %+v", status)
	}
}

func TestMetrics(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	client := e.client(secure, "h2")
	for range 3 {
		tracedGet(t, client, "https://shop.example/secret?password=1")
	}
	eventually(t, "requests are counted", func() bool { return metric(t, e, "anyedge_proxy_requests_total", "outcome", "ok") == 3 })
	for _, tt := range []struct {
		name, label, value string
		want               float64
	}{
		{"anyedge_proxy_requests_total", "protocol", "http/2", 3},
		{"anyedge_proxy_requests_total", "class", "2xx", 3},
		{"anyedge_proxy_requests_total", "listener", secure, 3},
		{"anyedge_proxy_connections_open", "listener", secure, 1},
		{"anyedge_proxy_handshakes_total", "result", handshakeFull, 1},
		{"anyedge_proxy_upstream_tries_total", "result", tryOK, 3},
		{"anyedge_proxy_sent_body_bytes_total", "listener", secure, 15},
	} {
		if got := metric(t, e, tt.name, tt.label, tt.value); got != tt.want {
			t.Errorf("%s{%s=%q} is %v, want %v", tt.name, tt.label, tt.value, got, tt.want)
		}
	}
	log := e.log.String()
	if strings.Count(log, "msg=request") != 3 || strings.Contains(log, "password") {
		t.Error("not one line for each request, or the query is in it")
	}
	e.mustApply(func(s *Snapshot) { s.Listeners = s.Listeners[:2] })
	client.CloseIdleConnections()
	if got := metric(t, e, "anyedge_proxy_handshakes_total", "listener", secure); got != 0 {
		t.Error("the series of a removed listener stay")
	}
	// Two workers of one process need two registries; the names must be valid.
	New(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func TestMeter(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := newMeter(root)
	if m.resident() >= 0 || m.memoryLimit() != 0 {
		t.Error("figures from nowhere")
	}
	if usage := m.usage(); len(usage) > 1 {
		t.Errorf("usage of nothing that can be read: %+v", usage)
	}
	write("proc/meminfo", "MemFree: 1 kB\nMemTotal:       2048 kB\n")
	if got := m.memoryLimit(); got != 2<<20 {
		t.Errorf("limit %v, want the machine's", got)
	}
	write("proc/self/cgroup", "1:name=x:/y\n0::/a/b\n")
	write("sys/fs/cgroup/a/b/memory.max", "max\n")
	if got := m.memoryLimit(); got != 2<<20 {
		t.Errorf("limit %v, want the machine's", got)
	}
	write("sys/fs/cgroup/a/memory.max", "1048576\n")
	if got := m.memoryLimit(); got != 1<<20 {
		t.Errorf("limit %v, want that of the group above", got)
	}
	write("sys/fs/cgroup/a/b/memory.max", "65536\n")
	if got := m.memoryLimit(); got != 1<<16 {
		t.Errorf("limit %v, want that of the own group", got)
	}
	write("proc/self/statm", "100 3 0 0\n")
	if got := m.resident(); got != float64(3*os.Getpagesize()) {
		t.Errorf("resident %v", got)
	}
}

func TestMeterRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter("/")
		before := m.usage()
		if slices.ContainsFunc(before, func(u headroom.Usage) bool { return u.Resource == ResourceCPU }) {
			t.Error("a rate from one reading")
		}
		for until := processorTime() + 20*time.Millisecond; processorTime() < until; { // real work
		}
		time.Sleep(2 * time.Second) // of the bubble's clock
		after := m.usage()
		i := slices.IndexFunc(after, func(u headroom.Usage) bool { return u.Resource == ResourceCPU })
		if i < 0 || after[i].Used < 0.01 || after[i].Ceiling != float64(runtime.GOMAXPROCS(0)) {
			t.Errorf("usage %+v, want at least 10 ms of work within a second", after)
		}
	})
}

// When Run has returned, nothing that it started is left.
func TestRunJoins(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	for _, v := range variants {
		tracedGet(t, e.client(v.listener, v.protocol), v.url)
	}
	e.mustApply(func(s *Snapshot) { s.DrainTimeout = 0 })
	e.stop()
	e.awaitStop()
	left := func() string {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for stack := range strings.SplitSeq(string(stacks), "\n\n") {
			// The test itself and its origin are still there.
			if strings.Contains(stack, "anyedge/") && !strings.Contains(stack, "testing.tRunner") && !strings.Contains(stack, "serveHTTP") {
				return stack
			}
		}
		return ""
	}
	if stack := left(); stack != "" {
		t.Errorf("left over:\n%s", stack)
	}
}
