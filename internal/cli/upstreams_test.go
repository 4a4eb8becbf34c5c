package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/bgp"
	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
	"anyedge/pop"
)

// upstreamPop is minimalPop with two neighbors that are not there.
const upstreamPop = minimalPop + `
bgp:
  asn: 64512
  router_id: 127.0.0.1
  prefixes: [192.0.2.0/24]
  next_hop: {ipv4: 192.0.2.1}
  neighbors: [{address: 127.0.92.1, asn: 64500}, {address: 127.0.92.2, asn: 64501}]
`

// serveAgent serves the admin API of an agent that was never run.
func serveAgent(t *testing.T, text string) (*pop.Agent, string) {
	t.Helper()
	file := write(t, t.TempDir(), "pop.yaml", text)
	cfg, err := configs.LoadPop(file)
	if err != nil {
		t.Fatal(err)
	}
	a, err := pop.New(pop.Options{
		File: file, Config: cfg, Store: fleet.NewMemory(), Worker: []string{"nothing"},
		Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, serveAdmin(t, append(popEndpoints(a), upstreamEndpoints(a)...))
}

// post is an endpoint that keeps what it was sent.
func post[T any](path string, got *[]T) ops.Endpoint {
	return ops.Endpoint{Method: http.MethodPost, Path: path, Doc: "keep",
		Handle: func(_ context.Context, r ops.Request) (any, error) {
			var req T
			err := r.Decode(&req)
			*got = append(*got, req)
			return nil, err
		}}
}

func TestBlackholeAndNeighborAskForWhatTheyWereTold(t *testing.T) {
	var blackholes []BlackholeRequest
	var neighbors []NeighborRequest
	admin := serveAdmin(t, []ops.Endpoint{post("/v1/blackholes", &blackholes), post("/v1/neighbors", &neighbors)})
	addr := netip.MustParseAddr
	for _, c := range []struct {
		args string
		want any
	}{
		{"blackhole add 192.0.2.7", BlackholeRequest{Address: addr("192.0.2.7"), Blackhole: true, For: configs.Duration(time.Hour)}},
		{"blackhole --for 10m add --neighbor 10.0.0.1 2001:db8:1::7 --neighbor 10.0.0.2 --reason flood",
			BlackholeRequest{Address: addr("2001:db8:1::7"), Blackhole: true, For: configs.Duration(10 * time.Minute), Reason: "flood", Neighbors: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")}}},
		{"blackhole remove 192.0.2.7", BlackholeRequest{Address: addr("192.0.2.7")}},
		{"neighbor shutdown 10.0.0.1 --text bye", NeighborRequest{Address: addr("10.0.0.1"), Shutdown: true, Text: "bye"}},
		{"neighbor shutdown fe80::1%eth0 --force", NeighborRequest{Address: addr("fe80::1%eth0"), Shutdown: true, Force: true}},
		{"neighbor enable 10.0.0.1", NeighborRequest{Address: addr("10.0.0.1")}},
	} {
		blackholes, neighbors = nil, nil
		status, out, errOut := call(append(strings.Fields(c.args), "--admin", admin)...)
		var got any
		for _, r := range blackholes {
			r.By = ""
			got = r
		}
		for _, r := range neighbors {
			r.By = ""
			got = r
		}
		if status != 0 || out+errOut != "" || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: status %d, %q, %+v, want %+v", c.args, status, out+errOut, got, c.want)
		}
	}
	for args, want := range map[string]string{
		"blackhole":                          "say what to do: add, remove or list",
		"blackhole add":                      "want add or remove, and an address",
		"blackhole list 192.0.2.7":           "want add or remove, and an address",
		"blackhole add 192.0.2.0/24":         `"192.0.2.0/24" is not an IP address`,
		"blackhole add 192.0.2.7 --for 5":    "not a duration",
		"blackhole add a --neighbor b":       "invalid value",
		"neighbor restart 10.0.0.1":          "want shutdown or enable, and an address",
		"neighbor enable 10.0.0.1 --text up": "--text and --force go with shutdown",
		"neighbor shutdown 10.0.0.1 now":     "want shutdown or enable, and an address",
	} {
		if status, _, errOut := call(append(strings.Fields(args), "--admin", admin)...); status != 2 || !strings.Contains(errOut, want) {
			t.Errorf("%s: status %d, %q, want %q", args, status, errOut, want)
		}
	}
}

func TestBlackholeEndpoint(t *testing.T) {
	a, admin := serveAgent(t, upstreamPop)
	client := ops.Client{Address: netip.MustParseAddrPort(admin)}
	status := func(path, body string) (int, string) {
		err := client.Post(t.Context(), path, json.RawMessage(body), nil)
		var refused *ops.Error
		switch {
		case err == nil:
			return 204, ""
		case errors.As(err, &refused):
			return refused.Status, err.Error()
		}
		t.Fatal(err)
		return 0, ""
	}
	// An agent that has not decided yet announces nothing, so there is nothing to
	// take out of it.
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v1/blackholes", `{"address":"192.0.2.7","blackhole":true}`, 400, "192.0.2.7 is not within an announced prefix"},
		{"/v1/blackholes", `{"blackhole":true}`, 400, "address: required"},
		{"/v1/blackholes", `{"address":"192.0.2.7","blackhole":true,"for":"25h"}`, 400, "for: 25h0m0s is not within"},
		{"/v1/blackholes", `{"address":"192.0.2.7","blackhole":true,"neighbors":["127.0.92.3"]}`, 400, "127.0.92.3 is not a neighbor"},
		{"/v1/blackholes", `{"address":"192.0.2.7","black":true}`, 400, "unknown field"},
		{"/v1/blackholes", `{"address":"192.0.2.7"}`, 404, "192.0.2.7 is not in a blackhole"},
		{"/v1/neighbors", `{"address":"127.0.92.3","shutdown":true}`, 400, "127.0.92.3 is not a neighbor"},
		{"/v1/neighbors", `{"shutdown":true}`, 400, "address: required"},
		{"/v1/neighbors", `{"address":"127.0.92.1","text":"up"}`, 400, "go with shutdown"},
		{"/v1/neighbors", `{"address":"127.0.92.1","shutdown":true,"text":"` + strings.Repeat("x", 256) + `"}`, 400, "at most 255 bytes"},
		{"/v1/neighbors", `{"address":"127.0.92.1","shutdown":true,"text":"disk swap"}`, 204, ""},
	} {
		if got, message := status(c.path, c.body); got != c.status || !strings.Contains(message, c.want) {
			t.Errorf("%s %s: %d %q, want %d %q", c.path, c.body, got, message, c.status, c.want)
		}
	}
	shutdown := func() *string { return a.Routes().BGP.Neighbors[0].Shutdown }
	if s := shutdown(); s == nil || *s != "disk swap" {
		t.Errorf("not shut down: %v", s)
	}
	if got, message := status("/v1/neighbors", `{"address":"127.0.92.1"}`); got != 204 || shutdown() != nil {
		t.Errorf("enable: %d %q, still %v", got, message, shutdown())
	}
	if code, out, errOut := call("blackhole", "list", "--admin", admin); code != 0 || out != "No address is in a blackhole.\n" {
		t.Errorf("list: %d, %q, %q", code, out, errOut)
	}

	_, admin = serveAgent(t, minimalPop)
	client = ops.Client{Address: netip.MustParseAddrPort(admin)}
	for path, body := range map[string]string{
		"/v1/blackholes": `{"address":"192.0.2.7","blackhole":true}`, "/v1/neighbors": `{"address":"127.0.92.1","shutdown":true}`,
	} {
		if got, message := status(path, body); got != 409 || !strings.Contains(message, "no bgp") {
			t.Errorf("%s without bgp: %d %q", path, got, message)
		}
	}
}

func TestRoutesForPeople(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	prefix, hop := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParseAddr("10.0.0.1")
	path := func(med uint32, prepend int, cs ...uint32) *bgp.Path {
		return &bgp.Path{Prefix: prefix, NextHop: hop, MED: med, ASPath: make([]uint32, prepend+1), Communities: cs}
	}
	tagged := path(10, 2, bgp.GracefulShutdown)
	tagged.LargeCommunities = bgp.LargeCommunities{{GlobalAdmin: 64500, Data1: 1, Data2: 2}}
	tagged.ExtendedCommunities = bgp.ExtendedCommunities{0x0002fbf400000001}
	neighbor := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	routes := pop.Routes{
		Announcement: pop.AnnouncementStatus{State: pop.Announced, Reason: "healthy", Since: now.Add(-time.Hour)},
		BGP:          &bgp.Status{},
		Routes: []bgp.Route{
			{Prefix: prefix, Neighbor: neighbor(2), Desired: tagged, Announced: tagged, Reason: bgp.RouteAnnounced, Since: now.Add(-time.Minute)},
			{Prefix: prefix, Neighbor: neighbor(3), Desired: path(0, 0), Announced: path(1000, 3), Reason: bgp.RoutePending},
			{Prefix: prefix, Neighbor: neighbor(4), Reason: bgp.RouteWithheld, Detail: "action quiet"},
			{Prefix: prefix, Neighbor: neighbor(5), Desired: path(0, 0), Reason: bgp.RouteSessionDown, Detail: "active: connection refused", Since: now.Add(-2 * time.Second)},
			{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Neighbor: neighbor(2), Blackhole: true, Desired: path(0, 0, bgp.NoExport, bgp.Blackhole), Reason: bgp.RoutePending},
		},
	}
	var out bytes.Buffer
	if err := printRoutes(&out, now, routes); err != nil {
		t.Fatal(err)
	}
	want := `announced for 1h0m0s: healthy

PREFIX                    NEIGHBOR  SHOULD BE                                                           IS                 WHY
192.0.2.0/24              10.0.0.2  MED 10, prepend 2 graceful-shutdown 64500:1:2 rt:64500:1            so                 announced for 1m0s
192.0.2.0/24              10.0.0.3  MED 0, prepend 0                                                    MED 1000, prepend 3  pending
192.0.2.0/24              10.0.0.4  nothing                                                             nothing            withheld: action quiet
192.0.2.0/24              10.0.0.5  MED 0, prepend 0                                                    nothing            session down for 2s: active: connection refused
192.0.2.7/32 (blackhole)  10.0.0.2  MED 0, prepend 0 no-export blackhole                                nothing            pending
`
	squeeze := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(lines, "\n")
	}
	if got := out.String(); squeeze(got) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// An agent that was never run has no route, and says so for each neighbor.
func TestRoutesAskTheNode(t *testing.T) {
	_, admin := serveAgent(t, upstreamPop)
	status, out, errOut := call("routes", "--admin", admin)
	if status != 0 || !strings.HasPrefix(out, "withdrawn for ") || errOut != "" {
		t.Errorf("status %d, %q, %q", status, out, errOut)
	}
	var decoded pop.Routes
	status, out, _ = call("routes", "--json", "--admin", admin)
	if err := json.Unmarshal([]byte(out), &decoded); err != nil || status != 0 || len(decoded.BGP.Neighbors) != 2 {
		t.Errorf("status %d, %v, %s", status, err, out)
	}
	_, admin = serveAgent(t, minimalPop)
	if _, out, _ := call("routes", "--admin", admin); !strings.Contains(out, "The node has no BGP sessions.") {
		t.Errorf("without bgp: %q", out)
	}
}

// What only the speaker can tell of a config is told by check, too.
func TestCheckAsksTheSpeaker(t *testing.T) {
	text := strings.Replace(upstreamPop, "  router_id", "  announce: {extended_communities: [\"0x0601020000000001\"]}\n  router_id", 1)
	file := write(t, t.TempDir(), "pop.yaml", text)
	if status, _, errOut := call("check", "--config", file); status != 1 || !strings.Contains(errOut, "extended community") {
		t.Errorf("status %d, %q", status, errOut)
	}
}
