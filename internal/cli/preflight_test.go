package cli

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
	"anyedge/pop"
	"anyedge/pop/preflight"
)

const announcingPop = minimalPop + `
bgp:
  asn: 64512
  router_id: 10.0.1.1
  prefixes: [192.0.2.0/24]
  next_hop: {ipv4: 10.0.1.1, ipv6: "2001:db8::1"}
  announce: {med: 10}
  neighbors: [{address: 10.0.1.254, asn: 64500}]
`

var service = netip.MustParsePrefix("192.0.2.0/24")

// report is that of a node that serves as announcingPop says.
func report(node, pop string) fleet.Report {
	return fleet.Report{Node: node, Pop: pop, State: fleet.StateHealthy, Announcement: fleet.Announced,
		Prefixes: []fleet.Prefix{{Prefix: service, Announcement: fleet.Announced, MED: 10}}}
}

// edit writes a config made of announcingPop and returns its path.
func edit(t *testing.T, name string, replace ...string) string {
	t.Helper()
	return write(t, t.TempDir(), name, strings.NewReplacer(replace...).Replace(announcingPop))
}

func TestCheckAgainstFleet(t *testing.T) {
	running, err := configs.ParsePop("fra.yaml", []byte(announcingPop))
	if err != nil {
		t.Fatal(err)
	}
	one := report("fra-1", "fra")
	one.Fixed, one.Neighbors = configs.FixedKeys(running), []fleet.Neighbor{{Address: netip.MustParseAddr("10.0.1.254")}}
	f := pop.Fleet{Connected: true, Nodes: []pop.Reported{{Report: one, Fresh: true}, {Report: report("iad-1", "iad"), Fresh: true}}}
	admin := serveAdmin(t, []ops.Endpoint{canned("/v1/fleet", f)})
	fra := func(replace ...string) string { return edit(t, "fra.yaml", replace...) }
	iad := func(replace ...string) string {
		return edit(t, "iad.yaml", append([]string{"fra-1, pop: fra", "iad-1, pop: iad"}, replace...)...)
	}
	const moved = "[198.51.100.0/24]"
	for name, c := range map[string]struct {
		args        []string
		status      int
		out, errOut []string
	}{
		"nothing changes": {[]string{"--config", fra()}, 0,
			[]string{"fra.yaml: a valid pop config", "configs: 1, nodes in the fleet: 2, prefixes unchanged: 1, min_pops: 1"}, nil},
		"attributes": {[]string{"--config", fra("med: 10", `med: 20, communities: ["65000:7"]`)}, 0,
			[]string{"192.0.2.0/24  healthy at 2 (fra, iad), then 2 (fra, iad)", "changed     fra-1 (PoP fra)", "MED 10, prepend 0 -> MED 20, prepend 0, 65000:7"}, nil},
		"one neighbor gets something else": {[]string{"--config", fra("asn: 64500}", "asn: 64500, actions: {announce: [hide]}}, {address: 10.0.1.253, asn: 64500}",
			"  announce:", "  actions: [{name: hide, withhold: true}]\n  announce:")}, 0,
			[]string{"prefixes unchanged: 1", "neighbor 10.0.1.253  added    fra-1 (PoP fra)  as for all neighbors\n",
				"neighbor 10.0.1.254  changed  fra-1 (PoP fra)  as for all neighbors -> withheld\n"}, nil},
		"another neighbor": {[]string{"--config", fra("10.0.1.254", "10.0.1.253")}, 0, []string{"neighbor 10.0.1.254  removed  fra-1 (PoP fra)  as for all neighbors\n"}, nil},
		"a restart": {[]string{"--config", fra("asn: 64512", "asn: 64513", "router_id: 10.0.1.1", "router_id: 10.0.1.9")}, 0,
			[]string{"restart  fra-1 (PoP fra)  to take the change of bgp.asn, bgp.router_id\n"}, nil},
		"a node that says less": {[]string{"--config", iad("asn: 64512", "asn: 64513")}, 0, []string{"note: iad-1 does not say who its neighbors are"}, nil},
		"one moves its prefix": {[]string{"--config", fra("[192.0.2.0/24]", moved)}, 0,
			[]string{"removed", "added", "healthy at no PoP, then 1 (fra)", "healthy at 2 (fra, iad), then 1 (iad)"}, nil},
		"both do": {[]string{"--config", fra("[192.0.2.0/24]", moved), "--config", iad("[192.0.2.0/24]", moved)}, 1,
			[]string{"refused"}, []string{
				"fra.yaml:15:13: bgp.prefixes: 192.0.2.0/24: 0 of the 1 PoPs that min_pops asks for would announce it in good health\n",
				"iad.yaml:15:13: bgp.prefixes: 192.0.2.0/24: 0 of",
				"anyedge check: this set must not go out, prefixes left with too few PoPs: 1\n"}},
		"both are meant to": {[]string{"--config", fra("[192.0.2.0/24]", moved), "--config", iad("[192.0.2.0/24]", moved), "--retire", "192.0.2.0/24"}, 0,
			[]string{"healthy at 2 (fra, iad), then no PoP"}, nil},
		"a stricter bound": {[]string{"--config", fra("admin:", "guard: {min_pops: 3}\nadmin:")}, 1,
			[]string{"192.0.2.0/24"}, []string{"fra.yaml:16:13: bgp.prefixes: 192.0.2.0/24: 2 of the 3 PoPs that min_pops asks for would announce it in good health: fra, iad\n"}},
		"one node twice": {[]string{"--config", fra(), "--config", fra()}, 1, []string{"valid"}, []string{"fra.yaml:2:14: node.name: fra-1 is the node of "}},
		"not valid":      {[]string{"--config", fra("asn: 64512", "asn: 0")}, 1, nil, []string{"fra.yaml:13:8: bgp.asn"}},
		"not a node": {[]string{"--config", write(t, t.TempDir(), "lab.yaml", "rate: 100\n")}, 1, nil,
			[]string{"lab.yaml: a lab config announces nothing"}},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, errOut := call(append([]string{"check", "--against-fleet", "--admin", admin}, c.args...)...)
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			for _, want := range c.out {
				if !strings.Contains(out, want) {
					t.Errorf("printed\n%s\nwant %q", out, want)
				}
			}
			for _, want := range c.errOut {
				if !strings.Contains(errOut, want) {
					t.Errorf("errors\n%s\nwant %q", errOut, want)
				}
			}
			if c.errOut == nil && errOut != "" {
				t.Errorf("errors %q", errOut)
			}
		})
	}

	status, out, _ := call("check", "--against-fleet", "--admin", admin, "--json", "--config", fra("[192.0.2.0/24]", moved))
	var r preflight.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 || !r.OK || len(r.Prefixes) != 2 {
		t.Errorf("status %d, %v, %s", status, err, out)
	}
}

func TestCheckDoesNotTrustANodeThatHasLostTheFleet(t *testing.T) {
	admin := serveAdmin(t, []ops.Endpoint{canned("/v1/fleet", pop.Fleet{})})
	status, _, errOut := call("check", "--against-fleet", "--admin", admin, "--config", edit(t, "fra.yaml"))
	if status != 1 || !strings.Contains(errOut, "out of touch with the fleet store") {
		t.Errorf("status %d, %q", status, errOut)
	}
}

func TestFlagsOfTheComparisonGoTogether(t *testing.T) {
	for _, args := range [][]string{{"--json"}, {"--admin", "127.0.0.1:1"}, {"--retire", "192.0.2.0/24"}} {
		status, _, errOut := call(append([]string{"check", "--config", edit(t, "fra.yaml")}, args...)...)
		if status != 2 || !strings.Contains(errOut, "go with --against-fleet") {
			t.Errorf("%v: status %d, %q", args, status, errOut)
		}
	}
	if status, _, errOut := call("check", "--against-fleet", "--retire", "all"); status != 2 || !strings.Contains(errOut, "invalid value") {
		t.Errorf("status %d, %q", status, errOut)
	}
}

// The store itself is asked when the config names one. A report that stands
// there but does not change any more is that of a node that died.
func TestCheckReadsTheStore(t *testing.T) {
	server := httptest.NewServer(fleet.Handler(fleet.NewMemory()))
	defer server.Close()
	store, err := fleet.NewConsul(fleet.ConsulConfig{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	sealer, err := fleet.ParseKeys([]byte(strings.Repeat("ab", 32)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer})
	if err != nil {
		t.Fatal(err)
	}
	session, err := store.NewSession(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	put := func(r fleet.Report) {
		if err := f.PutReport(t.Context(), session, r); err != nil {
			t.Error(err)
		}
	}
	put(report("iad-1", "iad"))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ticker := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-ticker.C {
			put(report("fra-1", "fra"))
		}
	}()
	defer func() { stop(); <-done }()

	key := filepath.Join(t.TempDir(), "fleet.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	consul := "fleet: {consul: {address: \"" + server.URL + "\"}, key_file: " + key + ", report_interval: 20ms, report_ttl: 500ms}"
	file := edit(t, "fra.yaml", "fleet: {memory: true}", consul, "[192.0.2.0/24]", "[198.51.100.0/24]")
	status, out, errOut := call("check", "--against-fleet", "--config", file)
	if status != 1 || !strings.Contains(out, "192.0.2.0/24     healthy at 1 (fra), then no PoP") || !strings.Contains(errOut, "0 of the 1 PoPs") {
		t.Errorf("status %d\n%s%s", status, out, errOut)
	}
}
