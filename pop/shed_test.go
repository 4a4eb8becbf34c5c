package pop

import (
	"testing"
	"time"

	"anyedge/pop/headroom"
	"anyedge/pop/proxy"
)

func TestSheddingIsInProportion(t *testing.T) {
	use := func(used float64) []headroom.Usage {
		return []headroom.Usage{{Resource: "memory", Used: 10, Ceiling: 100}, {Resource: "cpu", Used: used, Ceiling: 100}}
	}
	t0 := time.Unix(1000, 0)
	s := shedding{at: t0}
	now := t0
	for _, tc := range []struct {
		name  string
		over  bool
		used  float64
		after time.Duration
		want  int
	}{
		{"not over", false, 100, time.Second, 0},
		{"over, with room", true, 80, time.Second, 0},
		{"at the mark there is nothing over it", true, 90, time.Second, 0},
		{"a tenth is over", true, 100, time.Second, 10},
		{"it worked: it stays", true, 89, time.Second, 10},
		{"just above the warn mark", true, 70, time.Second, 10},
		{"too little: of what is let in, a tenth more", true, 100, time.Second, 19},
		{"far over, but not all at once", true, 300, 500 * time.Millisecond, 29},
		{"and again", true, 300, time.Second, 49},
		{"a long pause counts as a second", true, 300, time.Hour, 69},
		{"a trickle stays", true, 10000, time.Second, 89},
		{"likewise", true, 10000, time.Second, 95},
		{"below the warn mark it shrinks slowly", true, 60, time.Second, 90},
		{"and so when it is over", false, 100, time.Second, 85},
		{"nothing is known", true, 0, 2 * time.Second, 80},
	} {
		now = now.Add(tc.after)
		if got := s.step(now, tc.over, use(tc.used)); got != tc.want {
			t.Fatalf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	for range 100 {
		now = now.Add(time.Second)
		s.step(now, false, nil)
	}
	if s.percent != 0 {
		t.Errorf("in the end %v are shed", s.percent)
	}
}

// With the load that follows the share, the use comes to rest between the marks,
// and nothing swings.
func TestSheddingComesToRest(t *testing.T) {
	for _, offered := range []float64{80, 95, 120, 200, 500} {
		s := shedding{at: time.Unix(1000, 0)}
		now := s.at
		var used, lowest, highest float64
		for i := range 600 {
			now = now.Add(100 * time.Millisecond)
			load := offered * (1 - s.percent/100)
			used += (load - used) / 10 // it follows within about a second
			s.step(now, true, []headroom.Usage{{Resource: "cpu", Used: used, Ceiling: 100}})
			if i == 300 {
				lowest, highest = s.percent, s.percent
			}
			lowest, highest = min(lowest, s.percent), max(highest, s.percent)
		}
		if used > 91 || offered > 90 && used < 70 || highest-lowest > 1 {
			t.Errorf("of %v offered %v are used, with between %v and %v%% shed", offered, used, lowest, highest)
		}
	}
}

func TestARefusedWithdrawalSheds(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.use(proxy.ResourceCPU, 120)
		n.run(10 * time.Second)
		if n.last.Shed != 0 {
			t.Fatalf("%d%% are shed in normal service", n.last.Shed)
		}
		n.store.refusal = tooManyOut
		n.view.orders = drained
		n.await(Depreferred, time.Second)
		n.run(n.c.cfg.Drain.Deprefer.Std() - 2*time.Second)
		if n.last.Shed != 0 {
			t.Errorf("%d%% are shed while the drain is in order", n.last.Shed)
		}
		n.run(10 * time.Second)
		if n.last.Shed < 20 {
			t.Errorf("%d%% are shed by a node that may not go", n.last.Shed)
		}
		n.use(proxy.ResourceCPU, 10)
		n.run(30 * time.Second)
		if n.last.Shed != 0 {
			t.Errorf("%d%% are shed by an idle node", n.last.Shed)
		}
	})
}
