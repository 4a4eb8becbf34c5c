package conformancedns

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"anyedge/gslb"

	"github.com/miekg/dns"
)

// secret signs the transfers.
var secret = []byte("a secret that three servers share")

const keyName = "copies.test"

// TestTransfersWithOthers has Knot and NSD copy a zone from anyedge, and anyedge
// copy one from Knot: signed, at first and after a notice of a change.
func TestTransfersWithOthers(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := func(apex string, serial int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "$ORIGIN %s\n@ 300 SOA ns hostmaster %d 3600 1 604800 60\n@ 300 NS ns\nns 300 A 192.0.2.53\n", apex, serial)
		for i := range 600 { // more than one message
			fmt.Fprintf(&b, "h%d 300 TXT \"version %d\" %q\n", i, serial*(i%2), strings.Repeat("x", 60))
		}
		fmt.Fprintf(&b, "web 300 HTTPS 1 . alpn=h2 port=%d\n*.wild 300 CAA 0 issue \"ca.test\"\n", 8000+serial)
		return b.String()
	}
	peer := func(a netip.Addr) gslb.Peer { return gslb.Peer{Address: netip.AddrPortFrom(a, port), Key: keyName} }
	zones := func(serial int) []gslb.Zone {
		return []gslb.Zone{
			{Name: "ours.test.", Text: text("ours.test.", serial), Transfer: &gslb.Transfer{
				Keys: []string{keyName}, Notify: []gslb.Peer{peer(knot), peer(nsd)}}},
			{Name: "theirs.test.", Primaries: []gslb.Peer{peer(knot)}},
		}
	}
	s, err := gslb.New(gslb.Config{
		Listen: []netip.AddrPort{netip.AddrPortFrom(ours, port)}, Zones: zones(1),
		Keys: []gslb.Key{{Name: keyName, Algorithm: "hmac-sha256", Secret: secret}},
	}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()

	key := base64.StdEncoding.EncodeToString(secret)
	theirs := write(t, filepath.Join(dir, "theirs.zone"), text("theirs.test.", 1))
	knotConf := fmt.Sprintf(`server:
    listen: %[1]s@%[2]d
    rundir: %[3]s
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: %[3]s/knot
log:
  - target: stderr
    any: info
key:
  - id: %[4]s
    algorithm: hmac-sha256
    secret: %[5]s
remote:
  - id: anyedge
    address: %[6]s@%[2]d
    key: %[4]s
acl:
  - id: both
    key: %[4]s
    action: [transfer, notify]
zone:
  - domain: ours.test
    file: %[3]s/knot-ours.zone
    master: anyedge
    acl: both
  - domain: theirs.test
    file: %[7]s
    zonefile-load: difference
    notify: anyedge
    acl: both
`, knot, port, dir, keyName, key, ours, theirs)
	nsdConf := fmt.Sprintf(`server:
  ip-address: %[1]s@%[2]d
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: %[3]s
  database: ""
  pidfile: ""
  xfrdfile: %[3]s/nsd.xfrd
  xfrdir: %[3]s
  zonelistfile: %[3]s/nsd.zones
  rrl-ratelimit: 0
remote-control:
  control-enable: no
key:
  name: %[4]s
  algorithm: hmac-sha256
  secret: %[5]s
zone:
  name: ours.test
  zonefile: nsd-ours.zone
  allow-notify: %[6]s %[4]s
  request-xfr: %[6]s@%[2]d %[4]s
`, nsd, port, dir, keyName, key, ours)
	both := map[string]string{"ours.test.": "", "theirs.test.": ""}
	startPeer(t, knot, both, "knotd", "-c", write(t, filepath.Join(dir, "knot.conf"), knotConf))
	startPeer(t, nsd, map[string]string{"ours.test.": ""}, "nsd", "-d", "-c", write(t, filepath.Join(dir, "nsd.conf"), nsdConf))

	await := func(serial int, servers map[netip.Addr]string) {
		t.Helper()
		for server, apex := range servers {
			want := []string{fmt.Sprintf("version %d", serial), fmt.Sprintf(`port="%d"`, 8000+serial), "ca.test", "version 0"}
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				var got strings.Builder
				for question, qtype := range map[string]uint16{"h599.": dns.TypeTXT, "web.": dns.TypeHTTPS, "any.wild.": dns.TypeCAA, "h0.": dns.TypeTXT} {
					if m, err := ask(server, question+apex, qtype); err == nil {
						fmt.Fprintln(&got, m)
					}
				}
				missing := ""
				for _, each := range want {
					if !strings.Contains(got.String(), each) {
						missing = each
					}
				}
				if missing == "" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("version %d of %s at %v: no %s in\n%s", serial, apex, server, missing, got.String())
				}
			}
		}
	}
	all := map[netip.Addr]string{knot: "ours.test.", nsd: "ours.test.", ours: "theirs.test."}
	await(1, all)
	if err := s.SetZones(zones(2)); err != nil {
		t.Fatal(err)
	}
	await(2, map[netip.Addr]string{knot: "ours.test.", nsd: "ours.test."})
}
