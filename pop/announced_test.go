package pop

import (
	"fmt"
	"strings"
	"testing"

	"anyedge/configs"
	"anyedge/internal/fleet"
)

// What a node reports and what its config would announce are one and the same:
// a config compared with the node that runs it changes nothing.
func TestReportTellsWhatTheConfigAnnounces(t *testing.T) {
	cfg := parse(t, testConfig, "prefixes: [192.0.2.0/24", `announce: {med: 5, prepend: 2, communities: ["65000:1"]}
  prefixes: [192.0.2.0/24`)
	report := fleet.Report{Node: "fra-1", Pop: "fra", State: fleet.StateHealthy, Announcement: fleet.Announced}
	reportRoutes(&report, cfg.BGP, Announced, nil)
	r := Preflight([]Reported{{report, true}}, []*configs.Pop{cfg}, nil)
	if !r.OK || len(r.Prefixes) != 2 || len(r.Notes) != 0 {
		t.Fatalf("%+v", r)
	}
	for _, p := range r.Prefixes {
		if len(p.Changes) != 0 || len(p.After) != 1 {
			t.Errorf("%+v", p)
		}
	}
	var drained fleet.Report
	reportRoutes(&drained, cfg.BGP, Announced, exceptions{cfg.BGP.Prefixes[0]: Depreferred})
	if n := announcers([]Reported{{drained, true}})[0]; n.Routes[0].Announced || !n.Routes[1].Announced {
		t.Errorf("with a drained prefix %+v", n.Routes)
	}
	for what, change := range map[string]func(*fleet.Report){
		"unhealthy":    func(r *fleet.Report) { r.State = fleet.StateUnhealthy },
		"de-preferred": func(r *fleet.Report) { r.Announcement = fleet.Depreferred },
		"drained":      func(r *fleet.Report) { r.Draining = true },
	} {
		other := report
		change(&other)
		if announcers([]Reported{{other, true}})[0].Serving {
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
	var r fleet.Report
	reportRoutes(&r, cfg.BGP, Withdrawn, nil)
	if len(r.Prefixes) != fleet.MaxPrefixes || r.PrefixesOmitted != 6 || r.Prefixes[0].Announcement != fleet.Withdrawn {
		t.Errorf("%d prefixes, %d omitted, %+v", len(r.Prefixes), r.PrefixesOmitted, r.Prefixes[0])
	}
	r = fleet.Report{}
	if reportRoutes(&r, nil, Announced, nil); r.Prefixes != nil || r.PrefixesOmitted != 0 || r.Neighbors != nil {
		t.Errorf("without BGP %+v", r)
	}
}

// What is different for one neighbor is compared, too, in all kinds of attributes.
func TestReportTellsWhatEachNeighborGets(t *testing.T) {
	const table = `actions: [{name: backup, med: 900, prepend: 1}, {name: mark, large_communities: ["64500:0:3"], extended_communities: ["rt:64500:1"]}, {name: hide, withhold: true}]
  announce: {actions: [mark]}
  router_id`
	with := func(neighbors string) *configs.Pop {
		t.Helper()
		return parse(t, testConfig, "router_id", table, "{address: 10.0.1.254, asn: 64500}", neighbors)
	}
	const first = "{address: 10.0.1.254, asn: 64500"
	running := with(first + ", actions: {announce: [backup]}}, {address: 10.0.1.253, asn: 64500}")
	report := fleet.Report{Node: "fra-1", Pop: "fra", State: fleet.StateHealthy, Announcement: fleet.Announced}
	reportRoutes(&report, running.BGP, Announced, nil)
	if c := report.Prefixes[0].Communities; strings.Join(c, " ") != "64500:0:3 rt:64500:1" {
		t.Errorf("communities of all kinds: %v", c)
	}
	for what, tc := range map[string]struct {
		next *configs.Pop
		want string
	}{
		"nothing":         {running, ""},
		"no action":       {with(first + "}, {address: 10.0.1.253, asn: 64500}"), "10.0.1.254 MED 900, prepend 1, 64500:0:3 rt:64500:1 -> as for all neighbors"},
		"withheld":        {with(first + ", actions: {announce: [hide]}}, {address: 10.0.1.253, asn: 64500}"), "10.0.1.254 MED 900, prepend 1, 64500:0:3 rt:64500:1 -> withheld"},
		"only in a drain": {with(first + ", actions: {announce: [backup], drain: [hide]}}, {address: 10.0.1.253, asn: 64500}"), ""},
	} {
		r := Preflight([]Reported{{report, true}}, []*configs.Pop{tc.next}, nil)
		var got []string
		for _, c := range r.Neighbors {
			got = append(got, fmt.Sprintf("%v %v -> %v", c.Neighbor, c.From, c.To))
		}
		if strings.Join(got, "; ") != tc.want || len(r.Notes) != 0 || !r.OK {
			t.Errorf("%s: %v, %v, want %s", what, got, r.Notes, tc.want)
		}
	}
}

// What a node is started with is compared with what it is to run, in the words of
// the files: the paths of another node mean nothing here.
func TestPreflightNamesWhatNeedsARestart(t *testing.T) {
	text := strings.Replace(testConfig, "bgp:", "log: {level: info}\nbgp:", 1)
	o := newRoller(nil, parse(t, text), &configFiles{file: "/elsewhere/pop.yaml", source: []byte(text)}, quiet, nil)
	report := fleet.Report{Node: "fra-1", Pop: "fra"}
	o.report(&report)
	for want, next := range map[string]*configs.Pop{
		"":                   parse(t, testConfig, "router_id", "announce: {med: 5}\n  router_id"),
		"bgp.asn, log.level": parse(t, text, "asn: 64512", "asn: 64513", "level: info", "level: debug"),
	} {
		r := Preflight([]Reported{{report, true}}, []*configs.Pop{next}, nil)
		var got []string
		for _, n := range r.Restarts {
			got = append(got, n.Keys...)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%v, want %s", r.Restarts, want)
		}
		if err := refusal(r); want != "" && (err == nil || !strings.Contains(err.Error(), "fra-1 needs a restart to take the change of "+want)) {
			t.Errorf("a rollout: %v", err)
		}
	}
	report.Fixed = nil // of a version that does not say
	if r := Preflight([]Reported{{report, true}}, []*configs.Pop{parse(t, text, "asn: 64512", "asn: 64513")}, nil); r.Restarts != nil {
		t.Errorf("%v", r.Restarts)
	}
}
