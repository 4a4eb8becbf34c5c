package fleet_test

import (
	"testing"
	"time"

	"anyedge/internal/fleet"
)

func TestFreshCountsOnlyTimeWithTheStore(t *testing.T) {
	const ttl = 5 * time.Second
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	for _, c := range []struct {
		rule string
		view fleet.View
		seen float64 // seconds after start, as are now and the view's times
		now  float64
		want bool
	}{
		{"connected, just seen", fleet.View{Connected: true, ConnectedSince: at(1)}, 100, 100, true},
		{"connected, ttl old", fleet.View{Connected: true, ConnectedSince: at(1)}, 100, 105, true},
		{"connected, older", fleet.View{Connected: true, ConnectedSince: at(1)}, 100, 105.001, false},

		{"lost, was fresh", fleet.View{ConnectedSince: at(1), LostSince: at(105)}, 100, 105, true},
		{"lost for a day, was fresh", fleet.View{ConnectedSince: at(1), LostSince: at(105)}, 100, 90000, true},
		{"lost, was stale", fleet.View{ConnectedSince: at(1), LostSince: at(106)}, 100, 106, false},
		{"lost for a day, was stale", fleet.View{ConnectedSince: at(1), LostSince: at(106)}, 100, 90000, false},

		{"back after a day, was fresh", fleet.View{Connected: true, LostSince: at(105), ConnectedSince: at(90000)}, 100, 90000, true},
		{"back for ttl", fleet.View{Connected: true, LostSince: at(105), ConnectedSince: at(90000)}, 100, 90005, true},
		{"back for longer, still silent", fleet.View{Connected: true, LostSince: at(105), ConnectedSince: at(90000)}, 100, 90005.001, false},
		{"back, was stale", fleet.View{Connected: true, LostSince: at(106), ConnectedSince: at(90000)}, 100, 90000, false},
		{"seen after it was back", fleet.View{Connected: true, LostSince: at(105), ConnectedSince: at(200)}, 210, 215, true},
		{"seen after it was back, and silent", fleet.View{Connected: true, LostSince: at(105), ConnectedSince: at(200)}, 210, 216, false},
		{"read a moment before the rest, at first", fleet.View{Connected: true, LostSince: at(0), ConnectedSince: at(20)}, 19.9, 25, true},
	} {
		seen := fleet.Seen{At: at(c.seen)}
		if got := c.view.Fresh(seen, at(c.now), ttl); got != c.want {
			t.Errorf("%s: %v, want %v", c.rule, got, c.want)
		}
	}
}

// A store that comes and goes faster than nodes can report makes nobody stale:
// each time, what was fresh when it went is fresh when it is back.
func TestFreshSurvivesAStoreThatFlaps(t *testing.T) {
	onBench(t, func(b *bench) {
		const ttl = 2 * time.Second // more than a loss takes to show
		s := session(b.t, b.memory)
		b.await("connection", connected)
		b.must(b.fleet.PutReport(t.Context(), s, report("silent-1")))
		b.await("the silent node", func(v *fleet.View) bool { return len(v.Reports) == 1 })
		time.Sleep(ttl + time.Second)
		b.must(b.fleet.PutReport(t.Context(), s, report("fra-1")))
		b.await("both", func(v *fleet.View) bool { return len(v.Reports) == 2 })

		check := func(when string, v *fleet.View, want bool) {
			t.Helper()
			for node, want := range map[string]bool{"fra-1": want, "silent-1": false} {
				seen, ok := v.Report(node)
				if !ok {
					t.Fatalf("%s: %s is not there", when, node)
				}
				if got := v.Fresh(seen, time.Now(), ttl); got != want {
					t.Fatalf("%s: %s fresh %v, want %v", when, node, got, want)
				}
			}
		}
		for range 12 {
			check("connected", b.fleet.View(), true)
			b.faults.Set(allLost)
			v := b.await("loss", lost)
			check("lost", v, true)
			time.Sleep(time.Minute)
			check("lost for a minute", v, true)
			b.faults.Set(nil)
			b.await("recovery", connected)
		}
		check("back", b.fleet.View(), true)
		time.Sleep(ttl + time.Millisecond)
		check("back, and silent for longer than the ttl", b.fleet.View(), false)
	})
}
