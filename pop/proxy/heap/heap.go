// Package heap fits Go's collector to a worker.
//
// By default a collection begins when the heap has doubled. A worker lives on a
// few MB, so it would collect many times a second under a load of handshakes:
// [Tune] leaves more room while little is in use. And what was needed once stays
// resident, for nothing is collected while nothing is allocated: after a rush of
// connections half of a quiet worker's memory is garbage and free pages. Tune
// gives that back as soon as the rush is over.
package heap

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// pace is how often the heap is looked at.
	pace = 250 * time.Millisecond
	// room is the least number of bytes that may be allocated between two
	// collections.
	room = 64 << 20
	// spareMin is the least number of bytes worth giving back.
	spareMin = 4 << 20
	// spareTime is how long spare memory would last at the present rate of
	// allocation, if it is to be given back.
	spareTime = 30 * time.Second
	// share bounds the time that goes into giving memory back: one part in so
	// many.
	share = 100
)

// Tune keeps the heap of the process until ctx ends. If the operator has set
// GOGC, it only gives memory back.
func Tune(ctx context.Context) {
	t := tuner{paced: os.Getenv("GOGC") == ""}
	samples := samples()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(samples)
		percent, release := t.observe(time.Now(), read(samples))
		if percent > 0 {
			debug.SetGCPercent(percent)
		}
		if release {
			began := time.Now()
			debug.FreeOSMemory()
			t.gaveBack(time.Now(), time.Since(began))
		}
	}
}

// tuner decides.
type tuner struct {
	paced    bool      // the percentage is ours to set
	percent  int       // that is set; 0 is Go's
	at       time.Time // of last
	last     reading
	released time.Time     // when memory was last given back
	took     time.Duration // how long that took
}

// reading is what the runtime says of the heap, in bytes.
type reading struct {
	live      uint64 // found in use by the last collection
	roots     uint64 // of stacks and globals, which the percentage counts as well
	objects   uint64 // in use, or not collected yet
	free      uint64 // resident, without objects
	allocated uint64 // since the process began
}

// spare returns what a collection might give back.
func (r reading) spare() uint64 {
	if r.objects < r.live {
		return r.free
	}
	return r.free + r.objects - r.live
}

// observe takes a reading and returns the percentage to set, or 0, and whether
// memory is to be given back.
func (t *tuner) observe(now time.Time, r reading) (percent int, release bool) {
	if t.paced {
		want := max(100, int(room*100/max(r.live+r.roots, 1<<20)))
		if t.percent == 0 || want > t.percent+t.percent/8 || want < t.percent-t.percent/8 {
			t.percent, percent = want, want
		}
	}
	spare := r.spare()
	if !t.at.IsZero() && spare >= max(spareMin, r.live/8) && now.Sub(t.released) >= share*t.took {
		span := now.Sub(t.at).Seconds()
		release = float64(r.allocated-t.last.allocated)*spareTime.Seconds() <= float64(spare)*span
	}
	t.at, t.last = now, r
	return percent, release
}

// gaveBack notes what giving memory back has taken.
func (t *tuner) gaveBack(now time.Time, took time.Duration) {
	t.released, t.took = now, took
}

// The runtime's metrics that make a reading, in the order of read.
func samples() []metrics.Sample {
	return []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/scan/stack:bytes"},
		{Name: "/gc/scan/globals:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
	}
}

func read(s []metrics.Sample) reading {
	return reading{
		live:      s[0].Value.Uint64(),
		roots:     s[1].Value.Uint64() + s[2].Value.Uint64(),
		objects:   s[3].Value.Uint64(),
		free:      s[4].Value.Uint64(),
		allocated: s[5].Value.Uint64(),
	}
}
