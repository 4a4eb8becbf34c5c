package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/gslb"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

const signedGSLB = `
node: {name: ns1}
fleet: {memory: true}
listen: ["%s"]
zones:
  - {name: edge.example, file: edge.zone, dnssec: {keys: ksk_zsk, key_file: edge.keys}}
  - {name: plain.example, file: plain.zone}
`

// runSignedNode runs a DNS node with a signed zone until the test ends, and returns
// the address of its admin API.
func runSignedNode(t *testing.T) (*gslb.Node, string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "gslb.yaml")
	address := fmt.Sprintf("127.211.%d.%d:5310", os.Getpid()>>8&0xff, os.Getpid()&0xff)
	for name, text := range map[string]string{
		"gslb.yaml":  fmt.Sprintf(signedGSLB, address),
		"edge.zone":  "@ 60 IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.53\n",
		"plain.zone": "@ 60 IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.53\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := configs.LoadGSLB(file)
	if err != nil {
		t.Fatal(err)
	}
	node, err := gslb.NewNode(gslb.NodeOptions{File: file, Config: cfg, Store: fleet.NewMemory(), Log: slog.New(slog.DiscardHandler), Sockets: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	for end := time.Now().Add(10 * time.Second); len(node.Keys()) == 0 || node.Keys()[0].InForce == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no keys within 10 s: %+v", node.Keys())
		}
	}
	return node, serveAdmin(t, dnssecEndpoints(node))
}

func TestDNSSEC(t *testing.T) {
	node, admin := runSignedNode(t)
	do := func(status int, want string, args ...string) string {
		t.Helper()
		got, out, errOut := call(append(append([]string{"dnssec"}, args...), "--admin", admin)...)
		if got != status || !strings.Contains(out+errOut, want) {
			t.Errorf("%v: status %d, %s%s; want %d, %q", args, got, out, errOut, status, want)
		}
		return out
	}
	out := do(0, "edge.example: signed, generation 1\n", "status")
	for _, want := range []string{"  ksk ", "  zsk ", "ecdsa-p256", " published\n", " active\n", " is asked of the parent\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	do(0, "edge.example: signed", "status", "Edge.Example.")
	do(0, "; edge.example: the parent must have no DS record before ", "ds", "edge.example")
	do(1, "zone plain.example is not signed there", "status", "plain.example")
	do(2, "say what to do")
	do(2, `"rotate" is not status, ds, roll, seen, unsign or sign`, "rotate")
	do(2, "roll takes one zone", "roll")
	do(2, "--tag is required", "seen", "edge.example")
	do(2, "--tag: 65536 is not the tag of a key", "seen", "edge.example", "--tag", "65536")
	do(1, `role: "zks" is not csk, ksk or zsk`, "roll", "edge.example", "--role", "zks")
	do(1, "zone plain.example: not signed here", "roll", "plain.example")

	tag := node.Keys()[0].Keys[0].Tag
	do(1, "the zone does not ask for a DS record of", "seen", "edge.example", "--tag", fmt.Sprint(tag))
	do(0, "", "roll", "edge.example", "--role", "zsk")
	do(1, "zsk: a rollover is under way; \"anyedge dnssec status\" shows it", "roll", "edge.example", "--role", "zsk")
	await := func(what string, holds func(gslb.ZoneKeysStatus) bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !holds(node.Keys()[0]); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within 10 s: %+v", what, node.Keys())
			}
		}
	}
	await("the rollover shows", func(z gslb.ZoneKeysStatus) bool { return z.InForce == 2 && len(z.Keys) == 3 })
	do(0, " signs the zone no more\n", "status")
	do(0, "", "unsign", "edge.example")
	await("the zone is leaving", func(z gslb.ZoneKeysStatus) bool { return z.InForce == 3 })
	do(0, "waits for the parent to take all DS records of the zone away", "status")
	do(0, "; edge.example: the parent must have no DS record\n", "ds")
	do(0, "", "sign", "edge.example")
	await("the zone stays", func(z gslb.ZoneKeysStatus) bool { return z.InForce == 4 && z.Waiting == "" })

	acts := node.Audit(audit.Query{Last: 100})
	if last := acts[len(acts)-1]; last.Act != audit.DNSSECKeys || last.What != "sign" || last.On != "zone edge.example" || last.By == "" || last.Error != "" {
		t.Errorf("the last act is %+v", last)
	}
	if !slices.ContainsFunc(acts, func(e audit.Entry) bool { return e.What == "roll zsk" && strings.Contains(e.Error, "under way") }) {
		t.Errorf("a refused act is not in %+v", acts)
	}

	var answer struct{ Zones []gslb.ZoneKeysStatus }
	if err := json.Unmarshal([]byte(do(0, "", "status", "--json")), &answer); err != nil || len(answer.Zones) != 1 {
		t.Errorf("%+v, %v", answer, err)
	}
	if strings.Contains(do(0, "", "status", "--json"), "secret") {
		t.Error("the API shows secrets")
	}
}

func TestPrintDS(t *testing.T) {
	var z gslb.ZoneKeysStatus
	z.Zone, z.DS = "edge.example", []string{"12345 13 2 ABCD"}
	var out strings.Builder
	if printDS(&out, z); out.String() != "edge.example. IN DS 12345 13 2 ABCD\n" {
		t.Error(out.String())
	}
	z.ParentAt, z.Parent, z.ParentError = time.Unix(0, 0), [][]string{{"1 13 2 AB", "2 13 2 CD"}, {}}, "a\nb"
	out.Reset()
	printZoneKeys(&out, z)
	for _, want := range []string{"parent at 1970-01-01 00:00:00: 1 13 2 AB, 2 13 2 CD\n", ": no DS record\n", ": a; b\n", "not signed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
