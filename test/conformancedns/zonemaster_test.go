package conformancedns

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"anyedge/gslb"
	"anyedge/gslb/dnssec"
)

// inside says that the test runs in the network namespace made for it.
const inside = "ANYEDGE_ZONEMASTER_INSIDE"

// An Internet of three servers' addresses. Zonemaster wants each zone's servers in
// two networks, and addresses that are routed.
var (
	rootServer  = []string{"198.41.0.4"}
	topServer   = []string{"198.41.0.5"}
	edgeServers = []string{"45.10.0.53", "45.20.0.53", "2a00:10::53", "2a00:20::53"}
)

// TestZonemaster has Zonemaster check zones, unsigned and signed in both ways, as a
// registry would before it delegates them. It has a network of its own, with root
// servers of its own.
func TestZonemaster(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	tool := find(t, "zonemaster-cli")
	if os.Getenv(inside) == "" {
		enter(t)
		return
	}
	for _, args := range addresses() {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	zones, top := edgeZones(t)
	listen(t, edgeServers, zones)
	listen(t, topServer, []gslb.Zone{{Name: "example.", Text: top}})
	listen(t, rootServer, []gslb.Zone{{Name: ".", Text: rootZone()}})
	hints := write(t, filepath.Join(t.TempDir(), "hints"), ". 3600 NS a.root.\na.root. 3600 A "+rootServer[0]+"\n")
	for _, z := range zones {
		t.Run(z.Name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), tool, "--hints", hints, "--level", "INFO", "--show-level", "--show-testcase", "--no-progress", strings.TrimSuffix(z.Name, ".")).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			cases := make(map[string]bool)
			for _, m := range remark.FindAllSubmatch(out, -1) {
				level, of := string(m[1]), string(m[2])
				cases[of] = true
				if level != "INFO" && level != "NOTICE" {
					t.Errorf("%s", m[0])
				}
			}
			t.Logf("%d test cases", len(cases))
			if len(cases) < 40 || z.Signing.Keys != nil && (!cases["DNSSEC04"] || !cases["DNSSEC10"]) {
				t.Errorf("test cases are missing:\n%s", out)
			}
		})
	}
}

// remark is a line of Zonemaster's: the time, a level, a test case and the text.
var remark = regexp.MustCompile(`(?m)^ *[\d.]+ ([A-Z]+) +([A-Z]+\d\d) +.*$`)

// enter runs the test once more in a network namespace of its own.
func enter(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run", "^TestZonemaster$", "-test.v", "-test.timeout", "2m")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no network namespace can be made here: ", err)
	}
	t.Logf("in a namespace:\n%s", out)
	if err != nil || !bytes.Contains(out, []byte("\n--- PASS: TestZonemaster")) {
		t.Error(errors.Join(err, errors.New("it did not pass")))
	}
}

// addresses are the arguments of ip that give the namespace its addresses.
func addresses() (all [][]string) {
	all = append(all, []string{"link", "set", "lo", "up"})
	for _, a := range slices.Concat(rootServer, topServer, edgeServers) {
		all = append(all, []string{"address", "add", a, "dev", "lo", "nodad"})
	}
	return all
}

// listen runs a server of zones on the DNS port of some addresses.
func listen(t *testing.T, addresses []string, zones []gslb.Zone) {
	t.Helper()
	var at []netip.AddrPort
	for _, a := range addresses {
		at = append(at, netip.AddrPortFrom(netip.MustParseAddr(a), 53))
	}
	s, err := gslb.New(gslb.Config{Listen: at, Zones: zones, Sockets: 1}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
}

// edgeZones are the zones to be checked, and the text of the one above.
func edgeZones(t *testing.T) (zones []gslb.Zone, top string) {
	top = "@ 86400 SOA ns.nic hostmaster.nic 1 14400 3600 1209600 3600\n@ 86400 NS ns.nic\nns.nic 86400 A " + topServer[0] + "\n"
	for i, how := range []gslb.Signing{
		{},
		{Keys: key(t, dnssec.ECDSAP256SHA256), Denial: gslb.Compact},
		{Keys: key(t, dnssec.Ed25519), Denial: gslb.NSEC3},
	} {
		apex := fmt.Sprintf("edge%d.example.", i)
		servers := ""
		for j, a := range edgeServers {
			kind := "A"
			if strings.Contains(a, ":") {
				kind = "AAAA"
			}
			servers += fmt.Sprintf("ns%d.%s 86400 %s %s\n", j%2, apex, kind, a)
		}
		ns := fmt.Sprintf("%[1]s 86400 NS ns0.%[1]s\n%[1]s 86400 NS ns1.%[1]s\n", apex)
		zones = append(zones, gslb.Zone{Name: apex, Signing: how, Text: ns + servers +
			"@ 86400 SOA ns0 hostmaster 2026112301 14400 3600 1209600 3600\n@ 3600 MX 10 mail\n@ 3600 A 45.10.0.80\nmail 3600 A 45.10.0.25\n" +
			"@ 3600 TXT \"v=spf1 -all\"\n"})
		top += ns + servers
		if how.Keys != nil {
			top += ds(apex, how.Keys).String() + "\n"
		}
	}
	return zones, top
}

// rootZone has the names of the servers' addresses too.
func rootZone() string {
	var b strings.Builder
	fmt.Fprintf(&b, ". 86400 SOA a.root. hostmaster.root. 1 14400 3600 1209600 3600\n. 86400 NS a.root.\na.root. 86400 A %s\n", rootServer[0])
	fmt.Fprintf(&b, "example. 86400 NS ns.nic.example.\nns.nic.example. 86400 A %s\n", topServer[0])
	for i, a := range edgeServers {
		for zone := range 3 {
			fmt.Fprintf(&b, "%s 86400 PTR ns%d.edge%d.example.\n", reverse(netip.MustParseAddr(a)), i%2, zone)
		}
	}
	return b.String()
}

// reverse is the name of an address, RFC 1035 section 3.5 and RFC 3596 section 2.5.
func reverse(a netip.Addr) (name string) {
	if a.Is4() {
		for _, octet := range a.As4() {
			name = fmt.Sprintf("%d.", octet) + name
		}
		return name + "in-addr.arpa."
	}
	for _, octet := range a.As16() {
		name = fmt.Sprintf("%x.%x.", octet&15, octet>>4) + name
	}
	return name + "ip6.arpa."
}
