package fleet_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/internal/fleet"
)

// script answers catalog queries one after the other, then blocks.
type script struct {
	mu      sync.Mutex
	answers []string // empty: an error
	queries []string
	wait    chan struct{} // closed when the answers are used up
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.queries = append(s.queries, r.URL.RawQuery)
	n := len(s.queries)
	s.mu.Unlock()
	if n > len(s.answers) {
		if n == len(s.answers)+1 {
			close(s.wait)
		}
		<-r.Context().Done()
		return
	}
	answer := s.answers[n-1]
	if answer == "" {
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
		return
	}
	w.Header().Set("X-Consul-Index", fmt.Sprint(100+n))
	_, _ = w.Write([]byte(answer))
}

func instances(list ...string) string { return "[" + strings.Join(list, ",") + "]" }

func instance(id, address string, port int) string {
	return fmt.Sprintf(`{"Node":{"Node":"n","Address":"10.9.9.9","Meta":{"zone":"rack"}},
		"Service":{"ID":%q,"Address":%q,"Port":%d,"Weights":{"Passing":2,"Warning":1}}}`, id, address, port)
}

func TestCatalogKeepsTheLastGoodSet(t *testing.T) {
	s := &script{wait: make(chan struct{}), answers: []string{
		instances(instance("a", "10.0.0.1", 80)),
		instances(instance("a", "10.0.0.1", 80)),
		instances(instance("a", "10.0.0.1", 80), instance("b", "origin.example", 80)),
		instances(instance("a", "10.0.0.1", 80), instance("b", "origin.example", 80)),
		"",
		instances(instance("a", "10.0.0.1", 0)),
		instances(instance("a", "10.0.0.1", 80), instance("b", "", 81), instance("b2", "10.9.9.9", 81)),
		instances(),
	}}
	server := httptest.NewServer(s)
	defer server.Close()
	defer server.CloseClientConnections()
	log := new(syncBuffer)
	catalog := dial(t, fleet.ConsulConfig{Address: server.URL}).Catalog(slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	done := make(chan error, 1)
	go func() {
		done <- catalog.Follow(ctx, "api", "prod", func(set []fleet.Backend) { got = append(got, fmt.Sprint(set)) })
	}()
	select {
	case <-s.wait:
	case <-time.After(20 * time.Second):
		t.Fatal("the catalog is not asked again")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	want := []string{"[{10.0.0.1:80 2 rack}]", "[{10.0.0.1:80 2 rack} {10.9.9.9:81 2 rack}]", "[]"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if r, o := log.count("rejected"), log.count("out of reach"); r != 2 || o != 1 {
		t.Errorf("logged %d rejections and %d losses", r, o)
	}
	// It blocks on the index it was given, and begins anew after an error.
	for i, index := range []string{"", "index=101", "index=102", "index=103", "index=104", "", "index=106"} {
		q := s.queries[i]
		if index == "" && strings.Contains(q, "index=") || !strings.Contains(q, index) || !strings.Contains(q, "passing=1") || !strings.Contains(q, "tag=prod") {
			t.Errorf("query %d: %s, want %s", i, q, index)
		}
	}
}
