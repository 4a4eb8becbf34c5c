package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"anyedge/gslb"
	"anyedge/gslb/dnssec"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
)

// troubledDNS is a DNS node with something to say in every row.
func troubledDNS(now time.Time) dnsNode {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	n := dnsNode{
		Overview: gslb.Overview{
			Node: "ns-1", FleetSince: ago(time.Minute), FleetRejected: []string{"state/inventory"},
			Config: gslb.ConfigStatus{File: "/etc/anyedge/gslb.yaml", LastGood: ago(time.Hour), FailedAt: ago(9 * time.Second),
				LastError: "edge.zone:7:3: bad A A\n" + strings.Repeat("x", 400)},
			DNS: gslb.Status{
				XDP:   &gslb.XDPStatus{Interface: "eth0", Error: "operation not permitted"},
				Names: []string{"www.edge.example."},
				Zones: []gslb.ZoneStatus{
					{Name: "edge.example.", Source: "edge.zone", Serial: 7, Records: 1, Available: true},
					{Name: "old.example.", Source: "old.example. from 192.0.2.1:53", Serial: 9, Records: 20, Available: true, Following: &gslb.Following{
						Seen: ago(2 * time.Hour), Next: now.Add(time.Minute), Expires: now.Add(24 * time.Hour), Error: "from 192.0.2.1:53: i/o timeout"}},
					{Name: "gone.example.", Following: &gslb.Following{Next: now.Add(5 * time.Second), Error: "from 192.0.2.1:53: connection refused"}},
					{Name: "new.example."},
					{Name: "alias.example.", Source: "alias.zone", Serial: 1, Records: 3, Available: true, Following: &gslb.Following{
						Of: []string{"www.elsewhere.example"}, Alias: true, Next: now.Add(5 * time.Second), Error: "no resolver knows it"}},
				},
				Pops: []gslb.PopStatus{
					{Name: "fra", State: "up", Drained: true, Note: "drained by ann disk swap; fra-1 healthy and announced"},
					{Name: "iad", State: "down", Note: "iad-1 unhealthy and withdrawn"},
				},
			},
		},
		plan: gslb.PlanReport{Summary: "no plan"},
		keys: []gslb.ZoneKeysStatus{
			{Status: dnssec.Status{Zone: "edge.example", Signed: true, Waiting: "for the parent to have the DS record of key 5"}},
			{Status: dnssec.Status{Zone: "quiet.example", Signed: true}},
			{Status: dnssec.Status{Zone: "full.example", Signed: true}, Error: "dnssec ring not taken, the last one stays: key file: no space left on device"},
		},
		overrides: []fleet.SteerOverride{{Names: "*.edge.example", Pops: "fra*", By: "ann", Reason: "fibre cut", Until: now.Add(time.Hour)}},
	}
	return n
}

func wellDNS(now time.Time) dnsNode {
	n := dnsNode{}
	n.Node, n.FleetConnected, n.FleetSince = "ns-1", true, now.Add(-time.Minute)
	n.Config = gslb.ConfigStatus{File: "gslb.yaml", LastGood: now.Add(-time.Hour)}
	n.DNS.Listen = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}
	n.DNS.XDP = &gslb.XDPStatus{Interface: "eth0", Attached: true}
	n.DNS.Zones = []gslb.ZoneStatus{{Name: "copied.example.", Source: "copied.example. from 192.0.2.1:53", Serial: 7, Records: 12, Available: true,
		Following: &gslb.Following{Seen: now.Add(-time.Minute), Next: now.Add(time.Hour), Expires: now.Add(48 * time.Hour)}}}
	n.DNS.Pops = []gslb.PopStatus{{Name: "fra", State: "up", Note: "fra-1 healthy and announced"}}
	return n
}

func TestDNSStatusForPeople(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	for _, node := range []dnsNode{wellDNS(now), troubledDNS(now)} {
		if err := printStatus(&out, dnsRows(now, node)); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	const golden = "testdata/dnsstatus.golden"
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

// A DNS node tells its status, and reads its config again, like any node.
func TestStatusAndReloadOfADNSNode(t *testing.T) {
	node, _ := runSignedNode(t)
	admin := serveAdmin(t, append(gslbEndpoints(node), dnssecEndpoints(node)...))
	do := func(status int, want string, args ...string) {
		t.Helper()
		if got, out, errOut := call(append(args, "--admin", admin)...); got != status || !strings.Contains(out+errOut, want) {
			t.Errorf("%v: status %d, %s%s; want %d, %q", args, got, out, errOut, status, want)
		}
	}
	do(0, "ns1 (DNS)", "status")
	do(0, "edge.example serial 1, 3 records, ", "status")
	do(0, `"fleet_connected"`, "status", "--json")
	do(0, "", "reload")
	file := node.Config().File
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "nonsense: 1\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	do(1, "refused, everything stays as it was:\n"+file+":8:1: nonsense: ", "reload")
	do(0, "the last good one stays: "+file+":8:1: nonsense: ", "status")
	if acts := node.Audit(audit.Query{Last: 9}); len(acts) != 2 || acts[0].By == "" || acts[0].Error != "" || acts[1].Error == "" {
		t.Errorf("%+v", acts)
	}
}

// Without --admin, the node is whichever there is on this host.
func TestNodeOfThisHost(t *testing.T) {
	host := netip.AddrFrom4([4]byte{127, 212, byte(os.Getpid() >> 8), byte(os.Getpid())})
	given := netip.AddrPortFrom(host, 8600)
	c := &invocation{flags: flag.NewFlagSet("status", flag.ContinueOnError)}
	if _, err := c.thisNode(given); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("no anyedge admin at %v, and none at %v:8601", given, host)) {
		t.Errorf("with none: %v", err)
	}
	s := ops.New(ops.Config{Address: netip.AddrPortFrom(host, gslbAdminPort), Name: "ns-1", Endpoints: []ops.Endpoint{canned("/v1/status", map[string]any{})}, Log: slog.New(slog.DiscardHandler)})
	if err := s.Listen(); err != nil {
		t.Skipf("the port of a DNS node is taken: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if got, err := c.thisNode(given); err != nil || got.Port() != gslbAdminPort {
		t.Errorf("a DNS node: %v, %v", got, err)
	}
	c.flags.String("admin", "", "")
	if err := c.flags.Parse([]string{"--admin", given.String()}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.thisNode(given); err != nil || got != given {
		t.Errorf("with --admin: %v, %v", got, err)
	}
}
