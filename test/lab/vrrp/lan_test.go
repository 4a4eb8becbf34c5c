package vrrp

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"anyedge/internal/health"
	"anyedge/pop"
)

// bar is how long clients may be without service.
const bar = time.Second

var runs = flag.Int("runs", 1, "how often every event is played")

// forTest completes the options of a pair, or skips the test.
func forTest(t *testing.T, o Options) Options {
	t.Helper()
	if os.Getenv("ANYEDGE_LAB") == "" {
		t.Skip("a LAN in network namespaces needs root and a machine of its own: set ANYEDGE_LAB=1")
	}
	o.Binary, o.Consul = "../../../bin/anyedge", "../../../.cache/consul"
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	if err := Missing(o); err != nil {
		t.Skip("a LAN cannot be built here: ", err)
	}
	return o
}

// TestTakeover plays every event on every pair, and holds what clients see of
// it against the bar.
func TestTakeover(t *testing.T) {
	for _, pair := range Pairs() {
		t.Run(fmt.Sprintf("%s and %s", pair.First, pair.Second), func(t *testing.T) {
			t.Log(Header)
			err := Bench(t.Context(), forTest(t, pair), *runs, func(r Row) {
				t.Log(r)
				if worst := r.Worst(gap); worst > bar {
					t.Errorf("%v without service, want at most %v", worst, bar)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestBackupIsProbed: a node that stands by is found out when it could not serve,
// and comes back, while nobody notices.
func TestBackupIsProbed(t *testing.T) {
	l, err := Up(t.Context(), forTest(t, Options{First: Anyedge, Second: Anyedge}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := l.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	sending, stop := context.WithCancel(t.Context())
	watcher, ended := newLoad(IPv4), make(chan struct{})
	go func() { defer close(ended); watcher.run(sending) }()
	if _, err := l.signal(second, "proxy", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, want := range []health.State{health.Unhealthy, health.Healthy} {
		err := eventually(t.Context(), "the Backup is "+want.String(), func(ctx context.Context) error {
			var s pop.Status
			err := get(ctx, second, "http://127.0.0.1:8600/v1/status", &s)
			if err == nil && (s.Health.State != want || (s.Announcement.State == pop.Announced) != (want == health.Healthy)) {
				err = fmt.Errorf("%s, %s", s.Health.State, s.Announcement.State)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop()
	<-ended
	failed := 0
	for _, r := range watcher.results {
		if r.err != nil {
			failed++
		} else if r.by != first {
			t.Errorf("served by %s", r.by)
		}
	}
	if all := len(watcher.results); failed > all/20 { // a busy machine may lose one
		t.Errorf("%d of %d requests failed", failed, all)
	}
	if err := l.Settled(t.Context()); err != nil {
		t.Error(err)
	}
}
