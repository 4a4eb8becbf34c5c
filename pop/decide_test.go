package pop

import (
	"testing"

	"anyedge/internal/health"
)

func TestDecide(t *testing.T) {
	const healthy, unhealthy, unknown = health.Healthy, health.Unhealthy, health.Unknown
	for _, tc := range []struct {
		name   string
		s      situation
		want   Announcement
		urgent bool
	}{
		{"starting", situation{verdict: unknown, current: Withdrawn}, Withdrawn, false},
		{"served", situation{verdict: healthy, current: Withdrawn}, Announced, false},
		{"unknown is not down", situation{verdict: unknown, current: Announced}, Announced, false},
		{"unknown announces nothing new", situation{verdict: unknown, current: Withdrawn, remote: "x"}, Withdrawn, false},
		{"local failure", situation{verdict: unhealthy, current: Announced}, Withdrawn, true},
		{"remote trouble only de-prefers", situation{verdict: healthy, current: Announced, remote: "pool web"}, Depreferred, false},
		{"no room only de-prefers", situation{verdict: healthy, current: Announced, full: "memory"}, Depreferred, false},
		{"drain begins", situation{verdict: healthy, drain: DrainDeprefer, current: Announced}, Depreferred, false},
		{"drain of a node that never served", situation{verdict: healthy, drain: DrainDeprefer, current: Withdrawn}, Withdrawn, false},
		{"drain goes on", situation{verdict: healthy, drain: DrainWithdraw, current: Depreferred}, Withdrawn, false},
		{"drained", situation{verdict: healthy, drain: DrainCompleted, current: Withdrawn}, Withdrawn, false},
		{"local failure during a drain", situation{verdict: unhealthy, drain: DrainDeprefer, current: Depreferred}, Withdrawn, true},
		{"drain without knowing", situation{verdict: unknown, drain: DrainDeprefer, current: Announced}, Depreferred, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := decide(tc.s)
			if got.want != tc.want || got.urgent != tc.urgent {
				t.Errorf("want %s (urgent %v), got %s (%v): %s", tc.want, tc.urgent, got.want, got.urgent, got.reason)
			}
		})
	}
}

// Invariant 1: of all situations, only a local failure or an operator's drain
// lowers a route to withdrawn.
func TestOnlyLocalFailureOrDrainWithdraws(t *testing.T) {
	for _, verdict := range []health.State{health.Unknown, health.Healthy, health.Unhealthy} {
		for _, stage := range DrainStages() {
			for _, remote := range []string{"", "pool web"} {
				for _, full := range []string{"", "memory"} {
					for _, current := range Announcements() {
						s := situation{verdict: verdict, drain: stage, remote: remote, full: full, current: current}
						d := decide(s)
						operator := stage != DrainNone && stage != DrainDeprefer
						if d.want == Withdrawn && current != Withdrawn && verdict != health.Unhealthy && !operator {
							t.Errorf("%+v withdraws", s)
						}
						if d.want != Withdrawn && current == Withdrawn && (verdict != health.Healthy || stage != DrainNone) {
							t.Errorf("%+v announces without having served", s)
						}
						if d.urgent != (verdict == health.Unhealthy) {
							t.Errorf("%+v: urgent %v", s, d.urgent)
						}
					}
				}
			}
		}
	}
}
