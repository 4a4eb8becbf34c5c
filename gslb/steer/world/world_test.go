package world

import (
	"math"
	"testing"
)

func small(t testing.TB, seed uint64) *World {
	t.Helper()
	w, err := New(Config{Seed: seed, Pops: 30, Clients: 1500, Spare: 1.5})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// The bars of capacity-aware steering, on small worlds.
func TestCapacityAwareHoldsCeilingsAtLittleLatency(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		w := small(t, seed)
		outages := w.Outages(seed, 4)
		play := func(kind Steering) Outcome {
			o, err := w.Play(kind, outages, seed)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("seed %d %-16s mean %5.1f p90 %5.1f ms, %5d minutes of overload, worst %.2f, unserved %.5f, moved %.2f",
				seed, kind, o.RTT.Mean(), o.RTT.Quantile(0.9), o.OverloadMinutes, o.Worst, o.Unserved, o.Moved)
			return o
		}
		capacity, optimum := play(Capacity), play(Optimum)
		if capacity.OverloadMinutes > 0 || capacity.Worst > 1 {
			t.Errorf("seed %d: %d minutes above a ceiling, worst %.3f", seed, capacity.OverloadMinutes, capacity.Worst)
		}
		if got, bound := capacity.RTT.Quantile(0.9), optimum.RTT.Quantile(0.9); got > 1.1*bound {
			t.Errorf("seed %d: p90 %.1f ms, the optimum without ceilings has %.1f", seed, got, bound)
		}
		// The world must be one in which this is not free.
		if latency := play(Latency); latency.OverloadMinutes < 60 {
			t.Errorf("seed %d: measured latency alone has %d minutes of overload", seed, latency.OverloadMinutes)
		}
		if testing.Verbose() {
			play(Anycast)
			play(Nearest)
		}
	}
}

// The share of demand that anycast sends far is the one that is measured on the
// Internet: about a fifth at least 25 ms farther than need be.
func TestAnycastIsAsGoodAsItIs(t *testing.T) {
	w, err := New(Config{Seed: 1, Pops: 50, Clients: 5000, Spare: 1.5})
	if err != nil {
		t.Fatal(err)
	}
	far, total := 0.0, 0.0
	for _, c := range w.Clients {
		p := &w.Places[c.Place]
		total += c.weight
		if p.RTT[p.anycast[0]] > p.RTT[least(p.RTT, nil)]+25 {
			far += c.weight
		}
	}
	if share := far / total; share < 0.12 || share > 0.3 {
		t.Errorf("%.2f of demand is sent 25 ms too far", share)
	} else {
		t.Logf("%.2f of demand is sent 25 ms too far", share)
	}
}

func TestSameSeedSameWorld(t *testing.T) {
	a, b := small(t, 5), small(t, 5)
	for j := range a.Pops {
		if a.Pops[j] != b.Pops[j] {
			t.Fatalf("pop %d is %+v and %+v", j, a.Pops[j], b.Pops[j])
		}
	}
	x, err := a.Play(Latency, a.Outages(1, 3), 1)
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Play(Latency, b.Outages(1, 3), 1)
	if err != nil {
		t.Fatal(err)
	}
	if x.RTT.Mean() != y.RTT.Mean() {
		t.Errorf("means %v and %v", x.RTT.Mean(), y.RTT.Mean())
	}
}

func TestHistogram(t *testing.T) {
	var h Histogram
	if q := h.Quantile(0.5); !math.IsNaN(q) {
		t.Errorf("median of nothing is %v", q)
	}
	for i := range 100 {
		h.Add(float64(i)+0.1, 1)
	}
	if q := h.Quantile(0.9); q != 89.25 {
		t.Errorf("p90 %v", q)
	}
	if m := h.Mean(); math.Abs(m-49.6) > 1e-9 {
		t.Errorf("mean %v", m)
	}
}

func TestImpossibleWorlds(t *testing.T) {
	for _, cfg := range []Config{{Pops: 51, Clients: 1, Spare: 1}, {Pops: 1, Clients: 1, Spare: 1}, {Pops: 2, Spare: 1}, {Pops: 2, Clients: 1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v accepted", cfg)
		}
	}
}
