package cli

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"anyedge/internal/audit"
	"anyedge/internal/ops"
)

func TestAuditPrintsWhatWasDone(t *testing.T) {
	at := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	admin := serveAdmin(t, []ops.Endpoint{canned("/v1/audit", auditEntries{[]audit.Entry{
		{At: at, Act: audit.Drain, By: "ada", From: "10.0.0.9:41000", On: "PoP fra", What: "disk swap", Until: at.Add(time.Hour)},
		{At: at.Add(time.Minute), Act: audit.Override, By: "bob\nroot", From: "10.0.0.9:41001", On: "node fra-1", What: "withdraw:\tnow", Forced: true, Error: "the store is away"},
		{At: at.Add(2 * time.Minute), Act: audit.Reload, From: "signal", On: "config pop.yaml"},
	}})})
	status, out, errOut := call("audit", "--admin", admin)
	const want = `AT                   BY        FROM            ACT       ON               WHAT
2026-11-23 05:00:00  ada       10.0.0.9:41000  drain     PoP fra          disk swap, until 2026-11-23 06:00:00
2026-11-23 05:01:00  bob root  10.0.0.9:41001  override  node fra-1       withdraw: now, by force, FAILED: the store is away
2026-11-23 05:02:00            signal          reload    config pop.yaml  
`
	if status != 0 || out != want || errOut != "" {
		t.Errorf("status %d, %s\n%s", status, out, errOut)
	}
	if status, out, _ := call("audit", "--json", "--admin", admin); status != 0 || !strings.Contains(out, `"entries"`) {
		t.Errorf("status %d, %q", status, out)
	}
}

// Both kinds of node answer alike.
func TestAuditFilters(t *testing.T) {
	agent, _ := newAgent(t)
	dns := newDNS(t)
	for name, endpoints := range map[string][]ops.Endpoint{"a node": popEndpoints(agent), "a DNS node": gslbEndpoints(dns)} {
		t.Run(name, func(t *testing.T) {
			admin := serveAdmin(t, endpoints)
			if status, out, _ := call("audit", "--admin", admin); status != 0 || out != "No such act of an operator is on record.\n" {
				t.Errorf("status %d, %q", status, out)
			}
			act, commands := "drain", []string{"drain --pop iad --reason disk", "undrain --pop iad"}
			if name == "a DNS node" {
				act, commands = "steer_override", []string{
					"steer override without --name *.edge.example --pop fra --for 1h --reason cut", "steer override clear --name *.edge.example --pop fra"}
			}
			for _, args := range commands {
				if status, _, errOut := call(append(strings.Fields(args), "--admin", admin)...); status != 0 {
					t.Fatal(errOut)
				}
				if name == "a DNS node" {
					await(t, "the node has it", func() bool { return (len(dns.Overrides()) == 1) == strings.Contains(args, "without") })
				}
			}
			for args, want := range map[string]int{
				"": 2, "--last 1": 1, "--last 0": 0, "--act " + act: 1, "--since 1h": 2, "--by " + operator(): 2, "--by nobody.else": 0,
			} {
				status, out, errOut := call(append(strings.Fields("audit --admin "+admin), strings.Fields(args)...)...)
				if got := strings.Count(out, "127.0.0.1:"); status != 0 || got != want {
					t.Errorf("audit %s: status %d, %d acts, want %d\n%s%s", args, status, got, want, out, errOut)
				}
			}
			for args, want := range map[string]string{
				"--act dance": `act: "dance" is none of drain, undrain, `, "--last -1": "--last: -1 is negative", "--since x": "not a duration", "more": "arguments after the flags: 1",
			} {
				if status, _, errOut := call(append(strings.Fields("audit --admin "+admin), strings.Fields(args)...)...); status == 0 || !strings.Contains(errOut, want) {
					t.Errorf("audit %s: status %d, %s", args, status, errOut)
				}
			}
			client := ops.Client{Address: netip.MustParseAddrPort(admin)}
			if err := client.Get(t.Context(), "/v1/audit?since=yesterday", nil); err == nil || !strings.Contains(err.Error(), `since: "yesterday" is not a time`) {
				t.Error(err)
			}
		})
	}
}
