package gslb

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/gslb/steer"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"

	"github.com/miekg/dns"
)

// logged is where a test's log lines go.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// A reload that is refused is told to the log, the audit, the status and the
// metrics, until one succeeds.
func TestRefusedReloadIsTold(t *testing.T) {
	n := newTestNode(t, fleet.NewMemory(), nil, nodeConfig)
	if s := n.Config(); s.LastGood.IsZero() || s.LastError != "" || filepath.Base(s.File) != "gslb.yaml" {
		t.Errorf("at first %+v", s)
	}
	n.write("edge.zone", "@ IN SOA what")
	err := n.ReloadBy(t.Context(), audit.Actor{By: "ann", From: "127.0.0.1:7"})
	s := n.Config()
	if err == nil || s.LastError != err.Error() || s.FailedAt.IsZero() || !strings.Contains(s.LastError, "edge.zone:1:") {
		t.Errorf("%v: %+v", err, s)
	}
	acts := n.Audit(audit.Query{Last: 1})
	if len(acts) != 1 || acts[0].Act != audit.Reload || acts[0].By != "ann" || acts[0].Error != err.Error() {
		t.Errorf("audit %+v", acts)
	}
	n.write("edge.zone", nodeZone)
	if err := n.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := n.Config(); s.LastError != "" || !s.FailedAt.IsZero() {
		t.Errorf("after a good one %+v", s)
	}
}

// Secrets of keys are read again by a reload.
func TestReloadReadsKeysAgain(t *testing.T) {
	n := newTestNode(t, fleet.NewMemory(), nil, nodeConfig)
	n.write("copy.key", "YSBzZWNyZXQgb2Ygc2l4dGVlbiBvY3RldHM=\n")
	n.write("gslb.yaml", nodeConfig+"keys: [{name: Copy.example, secret_file: copy.key}]\n")
	if err := n.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k := n.Node.server.ring()["copy.example."]; string(k.Secret) != "a secret of sixteen octets" {
		t.Errorf("%+v", k)
	}
	n.write("copy.key", "not base64\n")
	if err := n.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "keys[0].secret_file: ") || !strings.Contains(err.Error(), "copy.key is not a secret") {
		t.Errorf("a bad secret: %v", err)
	}
	n.write("copy.key", "YW5vdGhlciBzZWNyZXQgb2Ygc2l4dGVlbg==\n")
	n.write("edge.zone", "nonsense")
	if err := n.Reload(t.Context()); err == nil {
		t.Error("a bad zone is taken")
	}
	if k := n.Node.server.ring()["copy.example."]; string(k.Secret) != "a secret of sixteen octets" {
		t.Errorf("half of a refused reload is in force: %+v", k)
	}
}

func TestReloadTurnsTheQueryLogOn(t *testing.T) {
	n := newTestNode(t, fleet.NewMemory(), nil, nodeConfig)
	for _, on := range []bool{true, false} {
		n.write("gslb.yaml", nodeConfig+fmt.Sprintf("log: {requests: %t}\n", on))
		if err := n.Reload(t.Context()); err != nil || n.Node.server.logQueries.Load() != on {
			t.Errorf("%t: %t, %v", on, n.Node.server.logQueries.Load(), err)
		}
	}
}

// Check finds what a start would, all of it at once.
func TestCheckReadsWhatAConfigNames(t *testing.T) {
	n := newTestNode(t, fleet.NewMemory(), nil, nodeConfig)
	check := func() error {
		t.Helper()
		cfg, err := configs.LoadGSLB(filepath.Join(n.dir, "gslb.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return Check(cfg)
	}
	if err := check(); err != nil {
		t.Errorf("a good config: %v", err)
	}
	n.write("edge.zone", nodeZone+"www IN CNAME mail\n")
	if err := check(); err == nil || !strings.Contains(err.Error(), "steered name www.edge.example") {
		t.Errorf("a name that does not fit: %v", err)
	}
	n.write("copy.key", "short\n")
	n.write("cookies", "short\n")
	n.write("edge.keys", "short\n")
	n.write("pem", "short\n")
	n.write("edge.zone", "mail IN A 192.0.2.256\n")
	n.write("clients.csv", "198.51.100.0/24,91,0\n")
	n.write("gslb.yaml", strings.Replace(nodeConfig, "file: edge.zone}", "file: edge.zone, dnssec: {key_file: edge.keys}}", 1)+`
keys: [{name: copy.example, secret_file: copy.key}]
cookie_file: cookies
encrypted: {dot: ["127.0.0.1:5311"], cert_file: pem, key_file: pem}
`)
	err := check()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"keys[0].secret_file: ", "cookies:1: not a secret", "pem with ", "zones[0].dnssec.key_file: ", "edge.zone:1:", "clients.csv:1: latitude",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

// A zone file may be a link to another folder, as release tools make them.
func TestZoneFileIsALink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, "edge.zone"), []byte(nodeZone), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "edge.zone")
	if err := os.Symlink(filepath.Join(elsewhere, "edge.zone"), file); err != nil {
		t.Fatal(err)
	}
	if _, err := loadZone(Zone{Name: "edge.example", File: file}); err != nil {
		t.Error(err)
	}
}

// What keeps a copy from coming is in the status, in words that help.
func TestStatusOfACopy(t *testing.T) {
	free := netip.MustParseAddrPort("127.0.0.1:0")
	for _, tt := range []struct {
		about, want string
		key         Key
	}{
		{"another secret", "it has another secret for the key Copy.example (BADSIG)", Key{transferKey.Name, transferKey.Algorithm, []byte("another secret of sixteen octets")}},
		{"another algorithm", "it does not have the key Copy.example with this algorithm (BADKEY)", Key{transferKey.Name, "hmac-sha512", transferKey.Secret}},
		{"another name", "it does not have the key Copy.example with this algorithm (BADKEY)", Key{"other.example", transferKey.Algorithm, transferKey.Secret}},
		{"the same", "", transferKey},
	} {
		t.Run(tt.about, func(t *testing.T) {
			primary, _, _ := start(t, Config{Keys: []Key{tt.key}, Listen: []netip.AddrPort{free}, Zones: append(testZones(), primaryZone(version(4), &Transfer{Keys: []string{tt.key.Name}})...)})
			copied, _ := startCopy(t, primary.Addresses()[0], transferKey.Name)
			var z ZoneStatus
			for end := time.Now().Add(10 * time.Second); z.Following == nil || z.Following.Next.IsZero(); time.Sleep(5 * time.Millisecond) {
				zones := copied.Status().Zones
				if z = zones[slices.IndexFunc(zones, func(z ZoneStatus) bool { return z.Name == "copied.example." })]; time.Now().After(end) {
					t.Fatalf("nothing within 10 s: %+v", z)
				}
			}
			f := z.Following
			if !strings.Contains(f.Error, tt.want) || (f.Error == "") != (tt.want == "") || f.Seen.IsZero() == (tt.want == "") || f.Expires.IsZero() == (tt.want == "") ||
				len(f.Of) != 1 || f.Of[0] != primary.Addresses()[0].String() || z.Available != (tt.want == "") {
				t.Errorf("%+v of %+v, want %q", f, z, tt.want)
			}
			if tt.want == "" && (z.Serial != 4 || z.Records != 3) {
				t.Errorf("%+v", z)
			}
		})
	}
}

// Who does not get a zone, and why, is in the log, but not without bound.
func TestRefusedTransfersAreTold(t *testing.T) {
	var lines logged
	local, far := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Keys: []Key{transferKey}, Zones: []Zone{
		{Name: "open.example", Text: version(3), Transfer: &Transfer{Allow: local}},
		{Name: "far.example", Text: version(1), Transfer: &Transfer{Allow: far}},
		{Name: "signed.example", Text: version(1), Transfer: &Transfer{Keys: []string{transferKey.Name}}},
		{Name: "closed.example", Text: version(1)},
	}}, lines.logger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ zone, want string }{
		{"open.example.", `msg="zone sent" zone=open.example to=127.0.0.1 qtype=AXFR serial=3`},
		{"far.example.", `reason="not from a network of transfer.allow"`},
		{"signed.example.", `reason="not signed by a key of transfer.keys"`},
		{"closed.example.", `reason="nobody may copy this zone"`},
		{"none.example.", `reason="not a zone of this server"`},
	} {
		q := new(dns.Msg)
		q.SetAxfr(tt.zone)
		msg, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		s.refused.Store(0)
		for range 100 {
			s.respond(s.view.Load(), request{msg: msg, from: netip.MustParseAddr("127.0.0.1"), tcp: true}, func([]byte) error { return nil })
		}
		if !strings.Contains(lines.String(), tt.want) {
			t.Errorf("%s: no %s in\n%s", tt.zone, tt.want, lines.String())
		}
	}
	if n := strings.Count(lines.String(), "refused"); n > 8 {
		t.Errorf("%d lines about 400 refusals", n)
	}
	q := new(dns.Msg)
	q.SetAxfr("signed.example.")
	q.SetTsig("copy.example.", dns.HmacSHA256, 300, 1)
	msg, _, err := dns.TsigGenerateWithProvider(q, keyring{"copy.example.": {Name: "copy.example.", Algorithm: dns.HmacSHA256, Secret: []byte("another secret")}}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	s.refused.Store(0)
	s.respond(s.view.Load(), request{msg: msg, from: netip.MustParseAddr("127.0.0.1"), tcp: true}, nil)
	if want := `msg="signed message refused" from=127.0.0.1 key=copy.example. algorithm=hmac-sha256. reason="not made with the secret that this key has here"`; !strings.Contains(lines.String(), want) {
		t.Errorf("no %s in\n%s", want, lines.String())
	}
}

// Which steered name decides for a name that is not one itself.
func TestSteeredBy(t *testing.T) {
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Zones: []Zone{{Name: "edge.example", Alias: "www.edge.example",
		Text: version(1, "first 300 CNAME second", "second 300 CNAME www", "loop 300 CNAME loop", "there.any 300 TXT x", "below 300 NS ns.elsewhere.example.")}}}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := steering()
	answers := []steer.Answer{{Pop: "fra", Weight: 1}}
	in.Names = []steer.Name{
		{Name: "www.edge.example", Policy: steer.Nearest, TTL: time.Second, Answers: answers},
		{Name: "*.any.edge.example", Policy: steer.Nearest, TTL: time.Second, Answers: answers},
	}
	if err := s.Update(table(t, in)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"www.edge.example": "www.edge.example.", "WWW.edge.example.": "www.edge.example.", "edge.example": "www.edge.example.", "first.edge.example": "www.edge.example.",
		"a.b.any.edge.example": "*.any.edge.example.", "there.any.edge.example": "", "any.edge.example": "", "loop.edge.example": "",
		"ns.edge.example": "", "x.below.edge.example": "", "other.example": "", "a..b": "", "": "",
	} {
		if got := s.steered(name); steer.Canonical(got) != steer.Canonical(want) {
			t.Errorf("%s: by %q, want %q", name, got, want)
		}
	}
}

// The status tells an alias that is resolved from one that is steered, and neither
// is taken for a copy while the zone's keys are awaited.
func TestStatusOfAnAlias(t *testing.T) {
	zone := func(alias string, await bool) Zone {
		return Zone{Name: "edge.example", Text: version(1), Alias: alias, Signing: Signing{Await: await}}
	}
	for _, tt := range []struct {
		about  string
		zone   Zone
		follow bool
	}{
		{"of another name", zone("www.elsewhere.example", false), true},
		{"of a steered name", zone("www.edge.example", false), false},
		{"without keys", zone("www.elsewhere.example", true), false},
	} {
		s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Zones: []Zone{tt.zone}}, quiet, nil)
		if err != nil {
			t.Fatal(err)
		}
		in := steering()
		in.Names = []steer.Name{{Name: "www.edge.example", Policy: steer.Nearest, TTL: time.Second, Answers: []steer.Answer{{Pop: "fra", Weight: 1}}}}
		if err := s.Update(table(t, in)); err != nil {
			t.Fatal(err)
		}
		f := s.Status().Zones[0].Following
		if (f != nil) != tt.follow || f != nil && f.Of[0] != "www.elsewhere.example" {
			t.Errorf("%s: %+v", tt.about, f)
		}
	}
}

func TestRefusedNoticeIsTold(t *testing.T) {
	var lines logged
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Zones: []Zone{
		{Name: "copied.example", Primaries: []Peer{{Address: netip.MustParseAddrPort("192.0.2.1:53")}}},
	}}, lines.logger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	q := new(dns.Msg)
	q.SetNotify("copied.example.")
	msg, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out := s.respond(s.view.Load(), request{msg: msg, from: netip.MustParseAddr("192.0.2.2")}, nil)
	if want := `msg="notice of a change refused" zone=copied.example from=192.0.2.2`; out.rcode != dns.RcodeRefused || !strings.Contains(lines.String(), want) {
		t.Errorf("%s, no %s in\n%s", dns.RcodeToString[out.rcode], want, lines.String())
	}
	lines.buf.Reset()
	s.respond(s.view.Load(), request{msg: msg, from: netip.MustParseAddr("192.0.2.1")}, nil)
	if lines.String() != "" {
		t.Errorf("of a primary: %s", lines.String())
	}
}

// A zone that changes under its old serial is told of: copies do not see it.
func TestUnchangedSerialIsTold(t *testing.T) {
	var lines logged
	zones := func(serial int, records ...string) []Zone {
		return primaryZone(version(serial, records...), &Transfer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	}
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Zones: zones(5, "a 300 A 192.0.2.1")}, lines.logger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		about  string
		serial int
		record string
		told   bool
	}{
		{"nothing changed", 5, "a 300 A 192.0.2.1", false},
		{"a newer serial", 6, "a 300 A 192.0.2.2", false},
		{"the same serial", 6, "a 300 A 192.0.2.3", true},
		{"an older serial", 5, "a 300 A 192.0.2.3", true},
		{"a TTL", 5, "a 60 A 192.0.2.3", true},
	} {
		lines.buf.Reset()
		if err := s.SetZones(zones(tt.serial, tt.record)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(lines.String(), "serial did not rise"); got != tt.told {
			t.Errorf("%s: told %t, want %t: %s", tt.about, got, tt.told, lines.String())
		}
	}
}

// With LogQueries each query is a line, on both paths.
func TestQueryLog(t *testing.T) {
	var lines logged
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, LogQueries: true, Zones: testZones()}, lines.logger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(table(t, steering())); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"mail.edge.example", dns.TypeA, "name=mail.edge.example. qtype=A rcode=noerror answers=1 size="},
		{"nope.edge.example", dns.TypeA, "name=nope.edge.example. qtype=A rcode=nxdomain answers=0 size="},
		{"www.edge.example", dns.TypeA, "pops=fra scope=24 reason="},
	} {
		msg, err := asker(tt.name, tt.qtype).Pack()
		if err != nil {
			t.Fatal(err)
		}
		req := request{msg: msg, from: netip.MustParseAddr("198.51.100.1")}
		for _, path := range []string{"fast", "slow"} {
			lines.buf.Reset()
			if path == "slow" {
				req.tcp = true
				s.answer(req, nil)
			} else {
				var q fastQuery
				answer, out, ok := s.view.Load().respondFast(&q, req, make([]byte, 0, udpPayload))
				if !ok {
					t.Fatalf("%s: not on the fast path", tt.name)
				}
				s.logFast(req, answer, out)
			}
			if got := lines.String(); !strings.Contains(got, "msg=query client=198.51.100.1") || !strings.Contains(got, tt.want) {
				t.Errorf("%s path: no %s in\n%s", path, tt.want, got)
			}
		}
	}
}
