package pop

import (
	"fmt"
	"strings"
	"testing"

	"anyedge/internal/fleet"
	"anyedge/pop/preflight"
)

// What a node reports and what its config would announce are one and the same:
// a config compared with the node that runs it changes nothing.
func TestReportTellsWhatTheConfigAnnounces(t *testing.T) {
	cfg := parse(t, testConfig, "prefixes: [192.0.2.0/24", `announce: {med: 5, prepend: 2, communities: ["65000:1"]}
  prefixes: [192.0.2.0/24`)
	report := fleet.Report{Node: "fra-1", Pop: "fra", State: fleet.StateHealthy, Announcement: fleet.Announced}
	report.Prefixes, report.PrefixesOmitted = reportedPrefixes(cfg.BGP, Announced, nil)
	nodes := Announcers([]Reported{{report, true}})
	r := preflight.Judge(nodes, []preflight.Plan{PlanOf(cfg)}, nil)
	if !r.OK || len(r.Prefixes) != 2 || len(r.Notes) != 0 {
		t.Fatalf("%+v", r)
	}
	for _, p := range r.Prefixes {
		if len(p.Changes) != 0 || len(p.After) != 1 {
			t.Errorf("%+v", p)
		}
	}
	drained := report
	drained.Prefixes, _ = reportedPrefixes(cfg.BGP, Announced, exceptions{cfg.BGP.Prefixes[0]: Depreferred})
	if n := Announcers([]Reported{{drained, true}})[0]; n.Routes[0].Announced || !n.Routes[1].Announced {
		t.Errorf("with a drained prefix %+v", n.Routes)
	}
	for what, change := range map[string]func(*fleet.Report){
		"unhealthy":    func(r *fleet.Report) { r.State = fleet.StateUnhealthy },
		"de-preferred": func(r *fleet.Report) { r.Announcement = fleet.Depreferred },
		"drained":      func(r *fleet.Report) { r.Draining = true },
	} {
		other := report
		change(&other)
		if Announcers([]Reported{{other, true}})[0].Serving {
			t.Errorf("%s, and counts as serving", what)
		}
	}
}

func TestReportHasRoomForSoManyPrefixes(t *testing.T) {
	var list []string
	for i := range fleet.MaxPrefixes + 5 {
		list = append(list, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
	}
	cfg := parse(t, testConfig, "prefixes: [192.0.2.0/24", "prefixes: ["+strings.Join(list, ", "))
	got, omitted := reportedPrefixes(cfg.BGP, Withdrawn, nil)
	if len(got) != fleet.MaxPrefixes || omitted != 6 || got[0].Announcement != fleet.Withdrawn {
		t.Errorf("%d prefixes, %d omitted, %+v", len(got), omitted, got[0])
	}
	if got, omitted := reportedPrefixes(nil, Announced, nil); got != nil || omitted != 0 {
		t.Errorf("without BGP %v, %d", got, omitted)
	}
}
