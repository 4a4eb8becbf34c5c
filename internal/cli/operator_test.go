package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"anyedge/bgp"
	"anyedge/bgp/bfd"
	"anyedge/internal/health"
	"anyedge/internal/ops"
	"anyedge/origin"
	"anyedge/pop"
	"anyedge/pop/headroom"
	"anyedge/pop/proxy"
	"anyedge/pop/vrrp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const minimalPop = `
node: {name: fra-1, pop: fra, region: eu}
fleet: {memory: true}
listeners:
  - {name: clear, address: "127.0.0.1:8080", clear: true}
routes:
  - {match: {path: /}, pool: web}
pools:
  - {name: web, backends: [{address: "127.0.0.1:9000"}], health: {interval: 1s, timeout: 500ms}}
admin: {address: "127.0.0.1:8699"}
`

// serveAdmin serves endpoints on loopback until the test ends.
func serveAdmin(t *testing.T, endpoints []ops.Endpoint) string {
	t.Helper()
	s := ops.New(ops.Config{
		Address: netip.MustParseAddrPort("127.0.0.1:0"), Name: "fra-1", Endpoints: endpoints, Log: slog.New(slog.DiscardHandler),
	})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("admin: %v", err)
		}
	})
	return s.Addr().String()
}

// canned is a GET endpoint that always gives one answer.
func canned(path string, answer any) ops.Endpoint {
	return ops.Endpoint{Method: http.MethodGet, Path: path, Doc: "canned",
		Handle: func(context.Context, ops.Request) (any, error) { return answer, nil }}
}

// troubled is a node with something to say in every row.
func troubled(now time.Time) (pop.Status, pop.Routes, pop.Pools) {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	s := pop.Status{
		Node: "fra-1", Pop: "fra", Region: "eu",
		Health:       health.Verdict{State: health.Unhealthy, Reason: "clear: connection refused"},
		Announcement: pop.AnnouncementStatus{State: pop.Depreferred, Reason: "withdrawal refused", Since: ago(90 * time.Second)},
		Guard:        pop.GuardStatus{Refused: "1 of 3 PoPs would remain"},
		Drain:        pop.DrainStatus{Stage: pop.DrainWithdraw, Since: ago(time.Minute)},
		Worker: pop.WorkerStatus{LastExit: "signal: killed", Usage: []headroom.Usage{
			{Resource: proxy.ResourceConnections, Used: 65000, Ceiling: 65536},
			{Resource: proxy.ResourceDescriptors, Used: 800123, Ceiling: 1048576},
			{Resource: proxy.ResourceMemory, Used: 300 << 20, Ceiling: 3 << 30},
			{Resource: proxy.ResourceCPU, Used: 0.256, Ceiling: 2},
		}},
		Config: pop.ConfigStatus{Generation: 7, LastGood: ago(25 * time.Hour), LastError: "fra.yaml:1:1: bad\nfra.yaml:2:1: worse", FailedAt: ago(5 * time.Second)},
		Fleet:  pop.FleetStatus{Since: ago(2 * time.Minute), Rejected: []string{"state/ring"}},
	}
	routes := pop.Routes{BGP: &bgp.Status{Neighbors: []bgp.NeighborStatus{
		{Address: netip.MustParseAddr("10.0.0.2"), ASN: 64500, State: bgp.Established, EstablishedSince: ago(time.Hour), AdjRIBOut: make([]bgp.Path, 2), RefusedUpdates: 3},
		{Address: netip.MustParseAddr("10.0.0.3"), ASN: 64501, State: bgp.Active},
		{Address: netip.MustParseAddr("10.0.0.4"), ASN: 64502, Shutdown: new("disk swap")},
	}}, BFD: []bfd.Status{
		{Peer: netip.MustParseAddr("10.0.0.2"), State: bfd.Up, Since: ago(time.Hour), DetectionTime: 150 * time.Millisecond, Failures: 1},
		{Peer: netip.MustParseAddr("10.0.0.3"), State: bfd.Down},
	}, Blackholes: []pop.Blackhole{{Address: netip.MustParseAddr("192.0.2.7"), Until: now.Add(time.Hour), Reason: "flood"}},
		VRRP: []vrrp.Status{{Interface: "eth0", VRID: 51, Family: vrrp.IPv6, State: vrrp.Initialize, Priority: 200, Reason: "the interface is down"}}}
	pools := pop.Pools{Pools: []origin.Status{
		{Name: "api", Usable: 2, Backends: make([]origin.BackendStatus, 2)},
		{Name: "static", Usable: 1, Backends: make([]origin.BackendStatus, 2)},
		{Name: "web", Backends: make([]origin.BackendStatus, 1)},
	}}
	return s, routes, pools
}

// well is a node about which there is nothing to say.
func well(now time.Time) (pop.Status, pop.Routes, pop.Pools) {
	return pop.Status{
		Node: "sin-1", Pop: "sin", Region: "ap",
		Health:       health.Verdict{State: health.Healthy, Reason: "all checks pass"},
		Announcement: pop.AnnouncementStatus{State: pop.Announced, Reason: "healthy", Since: now.Add(-36 * time.Hour)},
		Drain:        pop.DrainStatus{Stage: pop.DrainNone},
		Worker:       pop.WorkerStatus{PID: 4711, Ready: true, Connections: 12, Requests: 345678},
		Config:       pop.ConfigStatus{Generation: 1, LastGood: now.Add(-36 * time.Hour)},
		Fleet:        pop.FleetStatus{Connected: true, Since: now.Add(-36 * time.Hour), Nodes: 3},
	}, pop.Routes{VRRP: []vrrp.Status{{Interface: "eth0", VRID: 51, Family: vrrp.IPv4, State: vrrp.Backup, Priority: 100, Reason: "192.0.2.1 is Active with priority 200"}}}, pop.Pools{}
}

func TestStatusForPeople(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	for _, node := range []func(time.Time) (pop.Status, pop.Routes, pop.Pools){well, troubled} {
		s, routes, pools := node(now)
		if err := printStatus(&out, statusRows(now, s, routes, pools)); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	const golden = "testdata/status.golden"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s\n(-update rewrites %s)", &out, want, golden)
	}
}

// Every row has the tone that a browser shows it in: trouble is never green.
func TestTonesOfStatusRows(t *testing.T) {
	tones := func(node func(time.Time) (pop.Status, pop.Routes, pop.Pools)) string {
		s, routes, pools := node(time.Now())
		var words []string
		for _, r := range statusRows(time.Now(), s, routes, pools) {
			words = append(words, r.name+"="+string(r.tone))
		}
		return strings.Join(words, " ")
	}
	if got := tones(well); strings.Contains(got, string(ops.ToneWarn)) || strings.Contains(got, string(ops.ToneBad)) {
		t.Errorf("a node that is well: %s", got)
	}
	want := "node= health=bad announcement=warn guard=warn drain=warn worker=bad ceiling=bad ceiling=warn ceiling=ok ceiling=ok " +
		"config= config=warn fleet=warn fleet=warn neighbor=ok neighbor=bad neighbor=warn blackhole=warn bfd=ok bfd=bad vrrp=bad pool=ok pool=warn pool=bad"
	if got := tones(troubled); got != want {
		t.Errorf("a node in trouble:\n%s, want\n%s", got, want)
	}
}

func TestStatusAsksTheNode(t *testing.T) {
	s, routes, pools := troubled(time.Time{}) // no age depends on the clock
	s.Announcement.Since, s.Drain.Since, s.Config.LastGood, s.Config.FailedAt, s.Fleet.Since = time.Time{}, time.Time{}, time.Time{}, time.Time{}, time.Time{}
	admin := serveAdmin(t, []ops.Endpoint{canned("/v1/status", s), canned("/v1/routes", routes), canned("/v1/pools", pools)})

	var want bytes.Buffer
	if err := printStatus(&want, statusRows(time.Now(), s, routes, pools)); err != nil {
		t.Fatal(err)
	}
	if status, out, errOut := call("status", "--admin", admin); status != 0 || out != want.String() || errOut != "" {
		t.Errorf("status %d, %q, got\n%swant\n%s", status, errOut, out, &want)
	}
	var decoded pop.Status
	status, out, _ := call("status", "--json", "--admin", admin)
	if err := json.Unmarshal([]byte(out), &decoded); err != nil || status != 0 || decoded.Node != "fra-1" || decoded.Guard != s.Guard {
		t.Errorf("status %d, %v, %s", status, err, out)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	address := l.Addr().String()
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"routes"}, {"drain"}, {"undrain"}, {"blackhole", "list"}, {"neighbor", "enable", "10.0.0.1"}} {
		status, out, errOut := call(append(args, "--admin", address)...)
		want := "anyedge " + args[0] + ": no anyedge admin at " + address + ": connection refused\n"
		if status != 1 || out != "" || errOut != want {
			t.Errorf("%v: status %d, %q, %q; want %q", args, status, out, errOut, want)
		}
	}
}
