package heap

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

const mb = 1 << 20

func TestPercent(t *testing.T) {
	for _, tt := range []struct {
		paced bool
		set   int
		r     reading
		want  int
	}{
		{true, 0, reading{live: 6 * mb, roots: 2 * mb}, 800},
		{true, 800, reading{live: 7 * mb, roots: 1 * mb}, 0}, // it is set
		{true, 800, reading{live: 7 * mb, roots: 2 * mb}, 0}, // near enough
		{true, 800, reading{live: 24 * mb, roots: 8 * mb}, 200},
		{true, 200, reading{live: 100 * mb, roots: 28 * mb}, 100},
		{true, 100, reading{live: 1000 * mb}, 0}, // never less than Go's own
		{true, 0, reading{}, 6400},
		{false, 0, reading{live: 6 * mb}, 0},
	} {
		got, _ := (&tuner{paced: tt.paced, percent: tt.set}).observe(time.Now(), tt.r)
		if got != tt.want {
			t.Errorf("%+v after %d: %d, want %d", tt.r, tt.set, got, tt.want)
		}
	}
}

func TestRelease(t *testing.T) {
	now := time.Now()
	before := reading{allocated: 1000 * mb}
	for _, tt := range []struct {
		name    string
		t       tuner
		r       reading
		release bool
	}{
		{"garbage of a rush", tuner{at: now, last: before}, reading{live: 8 * mb, objects: 50 * mb, allocated: 1000 * mb}, true},
		{"free pages of a rush", tuner{at: now, last: before}, reading{live: 8 * mb, objects: 8 * mb, free: 50 * mb, allocated: 1000 * mb}, true},
		{"less found than there was", tuner{at: now, last: before}, reading{live: 9 * mb, objects: 8 * mb, free: 5 * mb, allocated: 1000 * mb}, true},
		{"first reading", tuner{}, reading{live: 8 * mb, objects: 50 * mb}, false},
		{"not worth it", tuner{at: now, last: before}, reading{live: 8 * mb, objects: 11 * mb, allocated: 1000 * mb}, false},
		{"not worth it beside what is live", tuner{at: now, last: before}, reading{live: 800 * mb, objects: 850 * mb, allocated: 1000 * mb}, false},
		// 60 MB last 40 s at 1.5 MB/s, and 20 s at 3 MB/s.
		{"little allocation", tuner{at: now, last: before}, reading{live: 8 * mb, free: 60 * mb, allocated: 1000*mb + 3*mb/2}, true},
		{"in use", tuner{at: now, last: before}, reading{live: 8 * mb, free: 60 * mb, allocated: 1003 * mb}, false},
		{"done lately", tuner{at: now, last: before, released: now, took: 20 * time.Millisecond}, reading{live: 8 * mb, free: 60 * mb, allocated: 1000 * mb}, false},
		{"done long ago", tuner{at: now, last: before, released: now.Add(-time.Second), took: 20 * time.Millisecond}, reading{live: 8 * mb, free: 60 * mb, allocated: 1000 * mb}, true},
	} {
		if _, got := tt.t.observe(now.Add(time.Second), tt.r); got != tt.release {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.release)
		}
	}
}

// The runtime knows all of the metrics, and Tune gives back what was used once.
func TestTune(t *testing.T) {
	s := samples()
	released := []metrics.Sample{{Name: "/memory/classes/heap/released:bytes"}}
	for i := range s {
		if metrics.Read(s[i : i+1]); s[i].Value.Kind() != metrics.KindUint64 {
			t.Fatalf("no metric is called %q", s[i].Name)
		}
	}
	rush := make([][]byte, 64)
	for i := range rush {
		rush[i] = make([]byte, mb)
		for j := 0; j < mb; j += 4096 {
			rush[i][j] = 1
		}
	}
	metrics.Read(released)
	held := released[0].Value.Uint64()
	runtime.KeepAlive(rush)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		Tune(ctx)
	}()
	for metrics.Read(released); released[0].Value.Uint64() < held+60*mb && ctx.Err() == nil; metrics.Read(released) {
		time.Sleep(10 * time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Errorf("%d MB are given back, %d were before", released[0].Value.Uint64()/mb, held/mb)
	}
	cancel()
	<-done
}
