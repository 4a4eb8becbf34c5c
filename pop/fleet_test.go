package pop

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"anyedge/internal/fleet"
	"anyedge/pop/headroom"
)

// What is shown of the fleet is what the guard goes by: the room of those that
// serve, and the plan.
func TestFleetShowsWhatALossWouldDo(t *testing.T) {
	now := time.Now()
	report := func(node, pop string, used float64, change ...func(*fleet.Report)) fleet.Seen {
		r := fleet.Report{Node: node, Pop: pop, State: fleet.StateHealthy, Announcement: fleet.Announced,
			Usage: []fleet.Usage{{Resource: fleet.ResourceConnections, Used: used, Ceiling: 100}}}
		for _, c := range change {
			c(&r)
		}
		return fleet.Seen{Report: r, At: now.Add(-time.Second)}
	}
	silent := report("ams-1", "ams", 0)
	silent.At = now.Add(-time.Hour)
	view := &fleet.View{
		Connected: true, ConnectedSince: now.Add(-2 * time.Hour),
		Reports: []fleet.Seen{
			silent,
			report("fra-1", "fra", 40),
			report("fra-2", "fra", 0, func(r *fleet.Report) { r.Standby = true }),
			report("iad-1", "iad", 30),
			report("lhr-1", "lhr", 10, func(r *fleet.Report) { r.Draining = true }),
			report("sin-1", "sin", 80, func(r *fleet.Report) { r.Announcement = fleet.Depreferred }),
		},
		Plan: &fleet.Plan{By: "ns-1", Interval: 60, Pops: []fleet.PlanPop{
			{Pop: "fra", Utilization: 0.4, Lost: &fleet.PlanLoss{Worst: "iad", Utilization: 0.7, Holds: true}}}},
		PlanSeen: now.Add(-30 * time.Second),
	}
	f := fleetIn(view, now, 10*time.Second)
	if len(f.Nodes) != 6 || f.Nodes[0].Fresh || !f.Nodes[1].Fresh {
		t.Errorf("nodes %+v", f.Nodes)
	}
	if len(f.Losses) != 2 || f.Losses[0].Pop != "fra" || f.Losses[0].Level != headroom.Warn || f.Losses[1].Pop != "iad" || f.Losses[1].Utilization != 0.7 {
		t.Errorf("losses %+v", f.Losses)
	}
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"plan":{"by":"ns-1",`; !strings.Contains(string(data), want) || !strings.Contains(string(data), `"age_seconds":30,"fresh":true}`) {
		t.Errorf("%s", data)
	}
	var back Fleet
	if err := json.Unmarshal(data, &back); err != nil || back.Plan == nil || back.Plan.Without("fra").Worst != "iad" {
		t.Errorf("%v, %+v", err, back.Plan)
	}
	if none := fleetIn(&fleet.View{}, now, time.Second); none.Plan != nil || none.Nodes == nil || none.Losses == nil {
		t.Errorf("of nothing %+v", none)
	}
}
