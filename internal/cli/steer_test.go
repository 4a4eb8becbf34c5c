package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/gslb"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

// steerConfig has an address of this process's own, so that two runs of the tests can
// share a machine.
var steerConfig = `
node: {name: ns1}
fleet: {consul: {address: "127.0.0.1:1"}, key_file: none, report_interval: 1s, report_ttl: 1m}
listen: ["` + fmt.Sprintf("127.211.%d.%d:5311", os.Getpid()>>8&0xff, os.Getpid()&0xff) + `"]
zones: [{name: edge.example, file: edge.zone, alias: www.edge.example}]
pops:
  - {name: fra, latitude: 50, longitude: 9, addresses: [192.0.2.1, "2001:db8::1"]}
  - {name: iad, latitude: 39, longitude: -77, addresses: [192.0.2.2]}
names:
  - {name: www.edge.example, policy: capacity, ttl: 5s, answers: [{pop: fra}, {pop: iad}]}
steering: {interval: 5s}
`

// newDNS runs a DNS node whose fleet has two PoPs with load and a measured network.
func newDNS(t *testing.T) *gslb.Node {
	t.Helper()
	dir, store := t.TempDir(), fleet.NewMemory()
	for file, text := range map[string]string{
		"gslb.yaml": steerConfig, "edge.zone": "@ 60 IN SOA ns1.edge.example. h.edge.example. 1 60 60 60 60\n@ 60 IN NS ns1.edge.example.\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "gslb.yaml")
	cfg, err := configs.LoadGSLB(file)
	if err != nil {
		t.Fatal(err)
	}
	node, err := gslb.NewNode(gslb.NodeOptions{File: file, Config: cfg, Store: store, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	session, err := store.NewSession(ctx, "test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for pop, network := range map[string]string{"fra": "203.0.113.0/24", "iad": "198.51.100.0/24"} {
		r := fleet.Report{Node: pop + "-1", Pop: pop, State: fleet.StateHealthy, Announcement: fleet.Announced,
			Usage: []fleet.Usage{{Resource: fleet.ResourceConnections, Used: 300, Ceiling: 1000}}}
		if err := f.PutReport(ctx, session, r); err != nil {
			t.Fatal(err)
		}
		s := rtt.Snapshot{Pop: pop, At: time.Now(), HalfLife: rtt.DefaultHalfLife, Entries: []rtt.Entry{
			{Prefix: netip.MustParsePrefix(network), RTT: 9 * time.Millisecond, Weight: 40}}}
		data, err := s.Encode(nil, fleet.MaxRTT)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.PublishRTT(ctx, session, fleet.RTT{Node: pop + "-1", Pop: pop, At: s.At, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	run, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(run) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	await(t, "a plan", func() bool { return node.Plan().Mode == "solved" })
	return node
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 15 s", what)
		}
	}
}

func TestSteerExplainsPlansAndOverrules(t *testing.T) {
	node := newDNS(t)
	admin := serveAdmin(t, gslbEndpoints(node))
	steer := func(args ...string) (int, string, string) {
		return call(append(append([]string{"steer"}, args...), "--admin", admin)...)
	}
	for _, c := range []struct {
		args   string
		status int
		want   []string
	}{
		{"--name www.edge.example --client 203.0.113.7", 0,
			[]string{"for 203.0.113.7/32, policy capacity", "health    leaves fra iad", "9.0 ms, 100 % of the plan", "by plan of 203.0.113.0/24", "answer    fra: 192.0.2.1", "plan      solved at",
				"demand    300 open connections of 203.0.113.0/24, by connections and requests"}},
		{"--name WWW.edge.example. --client 203.0.113.0/24 --without fra", 0,
			[]string{"without fra", "drops fra: down, by request", "answer    iad: 192.0.2.2", "loss      of fra holds (fits)"}},
		{"--name www.edge.example --family 6", 0, []string{"www.edge.example AAAA for a client that does not say", "drops iad: no address of this family", "2001:db8::1"}},
		{"--name www.edge.example --json", 0, []string{`"stages"`, `"policy": "capacity"`}},
		{"--name www.edge.example --client 198.51.100.7 --json", 0, []string{`"network": "198.51.100.0/24"`, `"from": "connections and requests"`}},
		{"--name Edge.example. --client 203.0.113.0/24", 0, []string{"www.edge.example A for 203.0.113.0/24"}},
		{"list", 0, []string{"edge.example      alias             of www.edge.example", "www.edge.example  capacity  TTL "}},
		{"list --json", 0, []string{`"policy": "capacity"`, `"weight": 1`}},
		{"--name other.edge.example", 1, []string{"other.edge.example: not a steered name; \"anyedge steer list\" shows those that are"}},
		{"--name www.edge.example --without nrt", 1, []string{`there is no pop "nrt"`}},
		{"--name www.edge.example --client nowhere", 2, []string{`"nowhere" is not a network`}},
		{"--name www.edge.example --family 5", 2, []string{"not 4 or 6"}},
		{"--client 203.0.113.0/24", 2, []string{"--name is required"}},
		{"what", 2, []string{`"what" is not list, plan or override`}},
		{"plan", 0, []string{"solved at", "2 networks, 600 open connections", "if it were lost", "fra  300   300", "30 %", "fits: iad at 60 %; 100 % to iad"}},
		{"plan --json", 0, []string{`"mode": "solved"`, `"verdict": "fits"`}},
		{"override", 2, []string{"say what to do"}},
		{"override never --name a --pop b", 2, []string{"is not only, without, clear or list"}},
		{"override without --name * --pop fra", 2, []string{"--for is required"}},
		{"override without --name * --pop fra --for 5m", 2, []string{"--reason is required"}},
		{"override only --pop fra --for 5m --reason x", 2, []string{"--name and --pop are required"}},
		{"override without --name [ --pop fra --for 5m --reason x", 1, []string{"is not a pattern"}},
		{"override without --name nope.* --pop fra --for 5m --reason x", 1, []string{`names: "nope.*" matches no steered name`}},
		{"override only --name * --pop farn --for 5m --reason x", 1, []string{`pops: "farn" matches none of these names' PoPs, which are fra, iad`}},
		{"override clear --name * --pop fra", 1, []string{`no override has the names "*" and the PoPs "fra"`}},
		{"override without --name * --pop fra --for 200h --reason x", 1, []string{"longer than"}},
	} {
		status, out, errOut := steer(strings.Fields(c.args)...)
		if status != c.status {
			t.Errorf("%s: status %d, want %d: %s", c.args, status, c.status, errOut)
		}
		for _, want := range c.want {
			if !strings.Contains(out+errOut, want) {
				t.Errorf("%s: no %q in\n%s%s", c.args, want, out, errOut)
			}
		}
	}

	if status, _, errOut := steer("override", "without", "--name", "*.edge.example", "--pop", "fra", "--for", "10m", "--reason", "flood"); status != 0 {
		t.Fatal(errOut)
	}
	await(t, "the override is in force", func() bool { return len(node.Overrides()) == 1 })
	await(t, "the answer follows", func() bool {
		_, out, _ := steer("--name", "www.edge.example", "--client", "203.0.113.0/24")
		return strings.Contains(out, "override  drops fra: *.edge.example: without fra until") && strings.Contains(out, "answer    iad")
	})
	if _, out, _ := steer("override", "list"); !strings.Contains(out, "*.edge.example  without fra  until") || !strings.Contains(out, "flood") {
		t.Errorf("list:\n%s", out)
	}
	if status, _, errOut := steer("override", "clear", "--name", "*.edge.example", "--pop", "fra"); status != 0 {
		t.Fatal(errOut)
	}
	await(t, "it is gone", func() bool { return len(node.Overrides()) == 0 })
	acts := node.Audit(audit.Query{Last: 9})
	if len(acts) != 2 || acts[0].Act != "steer_override" || acts[1].Act != "clear_steer_override" || acts[0].By == "" || acts[0].From == "" {
		t.Errorf("%+v", acts)
	}
}

func TestPageOfADNSNode(t *testing.T) {
	node := newDNS(t)
	w := httptest.NewRecorder()
	gslbPage("ns1", node).ServeHTTP(w, httptest.NewRequest("GET", "/?format=text", nil))
	page := w.Body.String()
	for _, want := range []string{"fra", "up", "IF IT WERE LOST", "fits: iad at 60 %", "solved at"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
}
