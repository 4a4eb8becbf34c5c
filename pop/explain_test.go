package pop

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"anyedge/bgp"
	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/pop/guard"
)

var updateGolden = flag.Bool("update", false, "rewrite the golden files")

// The sentences are for people, so people can read them: each situation with what
// is said about it, in testdata/explain.txt.
func TestExplain(t *testing.T) {
	t0 := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	cfg := parse(t, testConfig).BGP
	one := cfg.Prefixes[0]
	neighbors := &bgp.Status{Neighbors: []bgp.NeighborStatus{
		{Address: netip.MustParseAddr("10.0.1.254"), ASN: 64500, State: bgp.Established, EstablishedSince: t0, AdjRIBOut: []bgp.Path{{Prefix: one}}},
		{Address: netip.MustParseAddr("10.0.1.253"), ASN: 64501, State: bgp.Connect, LastError: "connection refused"},
	}}
	drainOf := &fleet.Drain{Scope: fleet.ScopePop, Name: "fra", By: "ada", Reason: "disk swap", At: t0, Until: t0.Add(time.Hour)}
	asked := &GuardAsk{
		At: t0, Cause: guard.TooManyOut, Detail: "iad already out, max_out is 1",
		Policy:  GuardPolicy{MinPops: 1, MaxOut: 1, Share: 0.34, Window: "30s"},
		Figures: guard.Figures{Serving: 2, Out: []string{"iad"}, Sick: []string{"fra"}, Known: 4},
	}
	granted := *asked
	granted.Cause, granted.Detail, granted.Figures.Out, granted.Figures.Siblings = "", "", nil, 1
	planned, overload := granted, *asked
	planned.Figures.Siblings = 0
	planned.Figures.Plan = &guard.Plan{By: "ns-1", Age: 20.4, Fresh: true, Worst: "iad", Utilization: 0.82, Holds: true}
	overload.Cause, overload.Detail = guard.PlanOverload, "by the plan of ns-1 iad would be at 120% of its ceiling, over 90%"
	overload.Figures.Plan = &guard.Plan{By: "ns-1", Age: 20.4, Fresh: true, Worst: "iad", Utilization: 1.2}
	stale := planned
	stale.Figures.Plan = &guard.Plan{By: "ns-1", Age: 240, Worst: "iad", Utilization: 1.2}
	frozen := *asked
	frozen.Frozen = []string{"fra", "iad"}
	fine := health.Verdict{State: health.Healthy}
	var out strings.Builder
	for _, tc := range []struct {
		name   string
		last   *Decision
		change func(*explanation)
	}{
		{"just started", nil, nil},
		{"without BGP", nil, func(x *explanation) { x.cfg = nil }},
		{"no such prefix", nil, func(x *explanation) { x.prefix = netip.MustParsePrefix("10.0.0.0/8") }},
		{"in service", &Decision{Announced: Announced, Wanted: Announced, Rule: RuleHealthy, Health: fine}, func(x *explanation) { x.bgp = neighbors }},
		{"failed and granted", &Decision{
			Announced: Withdrawn, Wanted: Withdrawn, Rule: RuleLocalFailure, Guard: GuardDecision{"granted", &granted},
			Health: health.Verdict{State: health.Unhealthy, Reason: "worker: no vitals for over 1s: hung", HoldUntil: t0.Add(time.Hour)},
		}, nil},
		{"failed and refused", &Decision{
			Announced: Depreferred, Wanted: Withdrawn, Rule: RuleLocalFailure, Guard: GuardDecision{"refused", asked},
			Health: health.Verdict{State: health.Unhealthy, Reason: "worker: crashed 3 times"},
		}, nil},
		{"granted, as the plan has it", &Decision{
			Announced: Withdrawn, Wanted: Withdrawn, Rule: RuleLocalFailure, Guard: GuardDecision{"granted", &planned},
			Health: health.Verdict{State: health.Unhealthy, Reason: "worker: hung"},
		}, nil},
		{"refused by the plan", &Decision{
			Announced: Depreferred, Wanted: Withdrawn, Rule: RuleLocalFailure, Guard: GuardDecision{"refused", &overload},
			Health: health.Verdict{State: health.Unhealthy, Reason: "worker: hung"},
		}, nil},
		{"granted, the plan is stale", &Decision{
			Announced: Withdrawn, Wanted: Withdrawn, Rule: RuleLocalFailure, Guard: GuardDecision{"granted", &stale},
			Health: health.Verdict{State: health.Unhealthy, Reason: "worker: hung"},
		}, nil},
		{"frozen, store gone", &Decision{
			Announced: Depreferred, Wanted: Withdrawn, Rule: RuleLocalFailure, Guard: GuardDecision{"unreachable", &frozen},
			Health: health.Verdict{State: health.Unhealthy, Reason: "worker: hung"}, FleetFrozen: true,
		}, func(x *explanation) { x.status.Fleet.Connected = false }},
		{"drained", &Decision{
			Announced: Withdrawn, Wanted: Withdrawn, Rule: RuleDrain, Health: fine, Guard: GuardDecision{"granted", nil},
			Drain: DrainStatus{Stage: DrainClose, Since: t0, Request: drainOf},
		}, func(x *explanation) { x.status.Drain = DrainStatus{Stage: DrainClose, Since: t0} }},
		{"remote trouble", &Decision{Announced: Depreferred, Wanted: Depreferred, Rule: RuleRemote, Health: fine, Remote: "pool api has no usable backend"}, nil},
		{"no room", &Decision{Announced: Depreferred, Wanted: Depreferred, Rule: RuleRoom, Health: fine, Room: "memory at 93% of its ceiling"}, nil},
		{"unknown", &Decision{Announced: Announced, Wanted: Announced, Rule: RuleUnknown, Health: health.Verdict{Reason: "web: no answer yet"}}, nil},
		{"one prefix drained", &Decision{
			Announced: Announced, Wanted: Announced, Rule: RuleHealthy, Health: fine, Prefixes: exceptions{one: Depreferred},
			Drain: DrainStatus{Prefixes: []fleet.Drain{{Scope: fleet.ScopeNode, Name: "fra-1", Prefix: one, By: "ada"}}},
		}, func(x *explanation) { x.prefix = one }},
		{"overridden by force", &Decision{
			Announced: Withdrawn, Wanted: Withdrawn, Rule: RuleOverride, Health: fine, Guard: GuardDecision{Answer: "not_asked"},
			Overrides: []fleet.Override{{Scope: fleet.ScopePop, Name: "fra", Action: fleet.ActionWithdraw, Force: true, By: "ada", Reason: "fire", At: t0, Until: t0.Add(time.Hour)}},
		}, nil},
		{"override holds a drain up", &Decision{
			Announced: Announced, Wanted: Announced, Rule: RuleOverride, Health: fine, Drain: DrainStatus{Stage: DrainNone, Request: drainOf},
			Overrides: []fleet.Override{
				{Scope: fleet.ScopeFleet, Name: fleet.FleetName, Action: fleet.ActionAnnounce, By: "ada", Reason: "no", At: t0, Until: t0.Add(time.Hour)},
				{Scope: fleet.ScopeNode, Name: "fra-1", Prefix: one, Action: fleet.ActionDepreference, By: "bob", Reason: "test", At: t0, Until: t0.Add(time.Hour)},
			},
		}, nil},
		{"override of what cannot serve", &Decision{
			Announced: Withdrawn, Wanted: Withdrawn, Rule: RuleLocalFailure, Health: health.Verdict{State: health.Unhealthy, Reason: "worker: hung"}, Guard: GuardDecision{Answer: "granted"},
			Overrides: []fleet.Override{{Scope: fleet.ScopeNode, Name: "fra-1", Action: fleet.ActionAnnounce, By: "ada", Reason: "no", At: t0, Until: t0.Add(time.Hour)}},
		}, nil},
		{"speaker late", &Decision{Announced: Withdrawn, Wanted: Withdrawn, Rule: RuleLifetime, Reason: "agent stops", SpeakerError: errors.New("busy").Error()}, nil},
	} {
		x := explanation{
			node: configs.Node{Name: "fra-1", Pop: "fra"}, cfg: cfg, last: tc.last, now: t0.Add(90 * time.Second),
			status: Status{Announcement: AnnouncementStatus{Since: t0}, Fleet: FleetStatus{Connected: true, Since: t0}},
		}
		if tc.change != nil {
			tc.change(&x)
		}
		out.WriteString("# " + tc.name + "\n" + strings.Join(x.sentences(), "\n") + "\n\n")
	}
	file := filepath.Join("testdata", "explain.txt")
	if *updateGolden {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
