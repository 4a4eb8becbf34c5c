package pop

import (
	"testing"

	"anyedge/internal/fleet"
	"anyedge/internal/health"
)

func order(action string) *fleet.Override { return &fleet.Override{Action: action} }
func force(action string) *fleet.Override { return &fleet.Override{Action: action, Force: true} }

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

		// An override beats a drain, which beats the verdict.
		{"override beats a drain", situation{verdict: healthy, drain: DrainWithdraw, current: Depreferred, order: order("announce")}, Announced, false},
		{"override beats remote trouble", situation{verdict: healthy, remote: "pool", current: Depreferred, order: order("announce")}, Announced, false},
		{"override beats lack of room", situation{verdict: healthy, full: "memory", current: Depreferred, order: order("announce")}, Announced, false},
		{"override de-prefers", situation{verdict: healthy, current: Announced, order: order("depreference")}, Depreferred, false},
		{"override withdraws", situation{verdict: healthy, current: Announced, order: order("withdraw")}, Withdrawn, false},
		{"override withdraws what is not known to serve", situation{verdict: unknown, current: Announced, order: order("withdraw")}, Withdrawn, false},
		{"what cannot serve is not announced", situation{verdict: unhealthy, current: Announced, order: order("announce")}, Withdrawn, true},
		{"nor de-preferred", situation{verdict: unhealthy, current: Announced, order: order("depreference")}, Withdrawn, true},
		{"override ends a hold-down", situation{verdict: unhealthy, serves: true, current: Withdrawn, order: order("announce")}, Announced, false},
		{"a hold-down ends by itself only", situation{verdict: unhealthy, serves: true, current: Withdrawn}, Withdrawn, true},
		{"what has not served yet is not announced", situation{verdict: unknown, current: Withdrawn, order: order("announce")}, Withdrawn, false},
		{"nor de-preferred, not having served", situation{verdict: unknown, current: Withdrawn, order: order("depreference")}, Withdrawn, false},
		{"unknown may be de-preferred", situation{verdict: unknown, current: Announced, order: order("depreference")}, Depreferred, false},
		{"unknown stays de-preferred", situation{verdict: unknown, current: Depreferred, order: order("announce")}, Depreferred, false},
		{"failing, and to be withdrawn", situation{verdict: unhealthy, current: Announced, order: order("withdraw")}, Withdrawn, true},
		{"force announces what cannot serve", situation{verdict: unhealthy, current: Withdrawn, order: force("announce")}, Announced, false},
		{"force de-prefers what has not served", situation{verdict: unknown, current: Withdrawn, order: force("depreference")}, Depreferred, false},
		{"force withdraws", situation{verdict: healthy, drain: DrainDeprefer, current: Announced, order: force("withdraw")}, Withdrawn, false},
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
	orders := []*fleet.Override{nil, order("announce"), order("depreference"), order("withdraw"), force("announce"), force("depreference"), force("withdraw")}
	for _, verdict := range []health.State{health.Unknown, health.Healthy, health.Unhealthy} {
		for _, stage := range DrainStages() {
			for _, remote := range []string{"", "pool web"} {
				for _, full := range []string{"", "memory"} {
					for i := range len(Announcements()) * len(orders) {
						current, order := Announcements()[i%3], orders[i/3]
						s := situation{verdict: verdict, drain: stage, remote: remote, full: full, current: current, order: order}
						d := decide(s)
						if order != nil {
							checkOrdered(t, s, d)
							continue
						}
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

// checkOrdered checks a decision under an override: it goes no further than the
// override says, and without force no further than what is known permits.
func checkOrdered(t *testing.T, s situation, d decision) {
	t.Helper()
	o := s.order
	switch {
	case d.forced != o.Force:
		t.Errorf("%+v: forced %v", s, d.forced)
	case o.Force && (d.want == Withdrawn) != (o.Action == fleet.ActionWithdraw):
		t.Errorf("%+v: %s in spite of force", s, d.want)
	case o.Force:
	case d.want == Withdrawn && s.current != Withdrawn && s.verdict != health.Unhealthy && o.Action != fleet.ActionWithdraw:
		t.Errorf("%+v withdraws", s)
	case d.want != Withdrawn && s.current == Withdrawn && s.verdict != health.Healthy:
		t.Errorf("%+v announces without having served", s)
	case d.want == Announced && s.current != Announced && o.Action != fleet.ActionAnnounce:
		t.Errorf("%+v announces", s)
	case d.urgent != (s.verdict == health.Unhealthy):
		t.Errorf("%+v: urgent %v", s, d.urgent)
	}
}
