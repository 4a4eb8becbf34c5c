package lab

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"anyedge/internal/fleet"
)

// runMemoryStore runs a store until the test ends or stop is called. Watches
// that arrive there are sent to watching, if it is not nil.
func runMemoryStore(t *testing.T, watching chan<- struct{}) (s *memoryStore, client fleet.Store, stop func()) {
	t.Helper()
	api := fleet.Handler(fleet.NewMemory())
	s = &memoryStore{address: newLayout(testNetwork).fleet(), handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if watching != nil && r.URL.Query().Get("index") != "" {
			watching <- struct{}{}
		}
		api.ServeHTTP(w, r)
	})}
	client, err := fleet.NewConsul(fleet.ConsulConfig{Address: "http://" + s.address.String()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = func() {
		cancel()
		within(t, 5*time.Second, "the store ends", func() {
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			ended <- nil
		})
	}
	t.Cleanup(stop)
	await(t, "the store answers", func() bool { _, _, err := client.List(t.Context(), ""); return err == nil })
	return s, client, stop
}

func TestMemoryStoreIsGoneAndBack(t *testing.T) {
	watching := make(chan struct{}, 10)
	s, client, stop := runMemoryStore(t, watching)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := client.CompareAndSwap(ctx, "state/x", []byte("kept"), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and again
		_, index, err := client.List(ctx, "state/")
		if err != nil {
			t.Fatal(err)
		}
		watched := make(chan error, 1)
		go func() { _, _, err := client.Watch(ctx, "state/", index); watched <- err }()
		within(t, 5*time.Second, "the watch arrives", func() { <-watching })
		if err := s.cut(); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "a waiting watch fails", func() {
			if <-watched == nil {
				t.Error("a watch outlived the store")
			}
		})
		if _, err := client.Get(ctx, "state/x"); err == nil {
			t.Error("the store answers while it is cut")
		}
		if err := s.cut(); err != nil {
			t.Errorf("cut again: %v", err)
		}
		if err := s.restore(); err != nil {
			t.Fatal(err)
		}
		if e, err := client.Get(ctx, "state/x"); err != nil || !bytes.Equal(e.Value, []byte("kept")) {
			t.Errorf("after restore: %q, %v", e.Value, err)
		}
	}
	stop()
	l, err := net.Listen("tcp", s.address.String())
	if err != nil {
		t.Fatalf("after the end: %v", err)
	}
	l.Close()
}

func TestMemoryStoreThatIsCutEnds(t *testing.T) {
	s, _, stop := runMemoryStore(t, nil)
	if err := s.cut(); err != nil {
		t.Fatal(err)
	}
	stop()
}

func TestMemoryStoreNeedsItsAddress(t *testing.T) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(testNetwork.Addr().Next(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &memoryStore{address: l.Addr().(*net.TCPAddr).AddrPort()}
	if err := s.Run(t.Context()); err == nil {
		t.Error("runs without its address")
	}
}

func TestFreePortsAreDistinct(t *testing.T) {
	ports, err := freePorts(newLayout(testNetwork).fleet().Addr(), 8)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for _, p := range ports {
		if p == 0 || seen[p] {
			t.Errorf("%v", ports)
		}
		seen[p] = true
	}
}
