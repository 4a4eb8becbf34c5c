package gslb

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/gslb/steer"
	"anyedge/internal/fleet"
)

const reportTTL = 2 * time.Second

// said is a report of a node of fra, seen so long before now.
func said(now time.Time, node, state, announcement string, ago time.Duration) fleet.Seen {
	return fleet.Seen{
		Report: fleet.Report{Node: node, Pop: "fra", Region: "eu", State: state, Announcement: announcement},
		At:     now.Add(-ago),
	}
}

func TestPopStateIsTheBestOfItsNodes(t *testing.T) {
	now := time.Now()
	const fresh, stale = time.Second, 3 * time.Second
	up := said(now, "a", fleet.StateHealthy, fleet.Announced, fresh)
	down := said(now, "b", fleet.StateUnhealthy, fleet.Depreferred, fresh)
	unknown := said(now, "c", fleet.StateUnknown, fleet.Announced, fresh)
	drain := func(scope, name string) fleet.Drain { return fleet.Drain{Scope: scope, Name: name} }
	over := drain(fleet.ScopePop, "fra")
	over.Until = now.Add(-time.Second)
	elsewhere := up
	elsewhere.Pop = "iad"

	for _, c := range []struct {
		rule    string
		reports []fleet.Seen
		drains  []fleet.Drain // in the View's order
		state   steer.State
		drained bool
	}{
		{"nobody heard of", nil, nil, steer.Unknown, false},
		{"another PoP's report says nothing", []fleet.Seen{elsewhere}, nil, steer.Unknown, false},
		{"healthy and announced", []fleet.Seen{up}, nil, steer.Up, false},
		{"says that it is unhealthy", []fleet.Seen{down}, nil, steer.Down, false},
		{"does not know", []fleet.Seen{unknown}, nil, steer.Unknown, false},
		{"asks for less traffic", []fleet.Seen{said(now, "a", fleet.StateHealthy, fleet.Depreferred, fresh)}, nil, steer.Unknown, false},
		{"healthy but not announced", []fleet.Seen{said(now, "a", fleet.StateHealthy, fleet.Withdrawn, fresh)}, nil, steer.Unknown, false},
		{"healthy long ago", []fleet.Seen{said(now, "a", fleet.StateHealthy, fleet.Announced, stale)}, nil, steer.Unknown, false},
		{"unhealthy long ago", []fleet.Seen{said(now, "b", fleet.StateUnhealthy, fleet.Withdrawn, stale)}, nil, steer.Unknown, false},
		{"one node is enough", []fleet.Seen{up, down, unknown}, nil, steer.Up, false},
		{"unknown is not down", []fleet.Seen{down, unknown}, nil, steer.Unknown, false},

		{"one node of two drained, the other up", []fleet.Seen{up, unknown}, []fleet.Drain{drain(fleet.ScopeNode, "c")}, steer.Up, false},
		{"one node of two drained, the other down", []fleet.Seen{up, down}, []fleet.Drain{drain(fleet.ScopeNode, "a")}, steer.Down, false},
		{"every node drained", []fleet.Seen{up, down}, []fleet.Drain{drain(fleet.ScopeNode, "a"), drain(fleet.ScopeNode, "b")}, steer.Unknown, true},
		{"PoP drained", []fleet.Seen{up}, []fleet.Drain{drain(fleet.ScopePop, "fra")}, steer.Unknown, true},
		{"PoP drained that nobody heard of", nil, []fleet.Drain{drain(fleet.ScopePop, "fra")}, steer.Unknown, true},
		{"region drained", []fleet.Seen{up}, []fleet.Drain{drain(fleet.ScopeRegion, "eu")}, steer.Unknown, true},
		{"others drained", []fleet.Seen{up}, []fleet.Drain{drain(fleet.ScopeNode, "z"), drain(fleet.ScopePop, "iad"), drain(fleet.ScopeRegion, "us")}, steer.Up, false},
		{"a drain that has run out", []fleet.Seen{up}, []fleet.Drain{over}, steer.Up, false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			view := &fleet.View{
				Connected: true, ConnectedSince: now.Add(-time.Hour), LostSince: now.Add(-2 * time.Hour),
				Reports: c.reports, Drains: c.drains,
			}
			for range 2 { // whatever the order of the nodes
				state, drained := popState("fra", view, now, reportTTL)
				if state != c.state || drained != c.drained {
					t.Errorf("%v, drained %v; want %v, drained %v", state, drained, c.state, c.drained)
				}
				slices.Reverse(c.reports)
			}
		})
	}
}

func TestStoreOutOfReachKeepsWhatItSaid(t *testing.T) {
	now := time.Now()
	view := &fleet.View{
		ConnectedSince: now.Add(-2 * time.Hour), LostSince: now.Add(-time.Hour),
		Reports: []fleet.Seen{said(now, "a", fleet.StateHealthy, fleet.Announced, time.Hour+time.Second)},
	}
	if state, _ := popState("fra", view, now, reportTTL); state != steer.Up {
		t.Errorf("fresh when the store was lost: %v, want up", state)
	}
	view.Reports[0].At = now.Add(-time.Hour - 3*time.Second)
	if state, _ := popState("fra", view, now, reportTTL); state != steer.Unknown {
		t.Errorf("stale before the store was lost: %v, want unknown", state)
	}
}

func TestSteerPopsFollowTheConfig(t *testing.T) {
	now := time.Now()
	cfg := &configs.GSLB{
		Fleet: configs.Fleet{ReportTTL: configs.Duration(reportTTL)},
		Pops: []configs.SteerPop{
			{Name: "iad", Latitude: 39, Longitude: -77, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}},
			{Name: "fra", Latitude: 50, Longitude: 9, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		},
	}
	stranger := said(now, "x", fleet.StateHealthy, fleet.Announced, 0)
	stranger.Pop = "nrt"
	view := &fleet.View{Connected: true, Reports: []fleet.Seen{said(now, "a", fleet.StateHealthy, fleet.Announced, 0), stranger}}
	got := steerPops(cfg, view, now)
	if len(got) != 2 || got[0].Name != "iad" || got[0].State != steer.Unknown || got[1].Name != "fra" || got[1].State != steer.Up {
		t.Fatalf("%+v", got)
	}
	if p := got[1]; p.Lat != 50 || p.Lon != 9 || p.Addresses[0].String() != "192.0.2.1" {
		t.Errorf("%+v", p)
	}
}
