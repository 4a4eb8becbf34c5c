package gslb

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// startKept is startCopy of a zone whose copy is kept in a file.
func startKept(t *testing.T, primary netip.AddrPort, file string) (s *Server, asks func(question string) *dns.Msg) {
	t.Helper()
	s, address, _ := start(t, Config{Zones: append(testZones(), Zone{Name: "copied.example", Primaries: []Peer{{Address: primary}}, CopyFile: file})})
	return s, func(question string) *dns.Msg {
		qname, typ, _ := strings.Cut(question, " ")
		return exchange(t, "udp", address, asker(qname, dns.StringToType[typ]))
	}
}

func copiedStatus(s *Server) ZoneStatus {
	zones := s.Status().Zones
	return zones[slices.IndexFunc(zones, func(z ZoneStatus) bool { return z.Name == "copied.example." })]
}

// With its primary gone a server starts from the file, until the copy expires.
func TestKeptCopyOutlivesItsPrimary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "copied.copy")
	primary, _, _ := start(t, Config{Zones: append(testZones(), primaryZone(version(7, "a 300 A 192.0.2.1"), &Transfer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})...)})
	_, asks := startKept(t, primary.Addresses()[0], file)
	await(t, asks, "a.copied.example A", "a.copied.example. 300 A 192.0.2.1")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(file); err == nil {
			if info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", info.Mode())
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("no file within 10 s")
		}
	}
	gone := netip.MustParseAddrPort("127.0.0.1:1")
	_, asks = startKept(t, gone, file)
	if got := asks("a.copied.example A"); text(got.Answer) != "a.copied.example. 300 A 192.0.2.1" || !got.Authoritative {
		t.Errorf("from the file: %v", got)
	}
	// How long it may be used goes by when the primary had it: the zone allows 60 s.
	before := time.Now().Add(-50 * time.Second)
	if err := os.Chtimes(file, before, before); err != nil {
		t.Fatal(err)
	}
	s, asks := startKept(t, gone, file)
	if got := asks("a.copied.example A"); got.Rcode != dns.RcodeSuccess {
		t.Errorf("younger than it may be: %v", got)
	}
	for end := time.Now().Add(10 * time.Second); copiedStatus(s).Following.Error == ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no attempt within 10 s")
		}
	}
	if left := time.Until(copiedStatus(s).Following.Expires); left < time.Second || left > 10*time.Second {
		t.Errorf("expires in %v, want about 10 s", left)
	}
	before = time.Now().Add(-61 * time.Second)
	if err := os.Chtimes(file, before, before); err != nil {
		t.Fatal(err)
	}
	if _, asks = startKept(t, gone, file); asks("a.copied.example A").Rcode != dns.RcodeServerFailure {
		t.Error("an expired copy is served")
	}
}

func TestFilesThatAreNoCopies(t *testing.T) {
	apex, file := name("\x06copied\x07example\x00"), filepath.Join(t.TempDir(), "copy")
	for _, tt := range []struct {
		about, text, want string
		age               time.Duration
	}{
		{"a copy", version(1), "", 0},
		{"of a clock that was set back", version(1), "", -24 * time.Hour},
		{"half a file", version(1)[:20], "copy", 0},
		{"another zone", "other.example. 300 SOA ns hostmaster 1 2 3 4 5\n", "not in the zone", 0},
		{"nothing", "", "no SOA record", 0},
		{"too old", version(1), "expired: no primary has answered for 1m1s, and the zone allows 1m0s", 61 * time.Second},
	} {
		now := time.Now()
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, now.Add(-tt.age), now.Add(-tt.age)); err != nil {
			t.Fatal(err)
		}
		z, err := readCopy(apex, file, now)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.about, err, tt.want)
		}
		if err == nil && z.seen.After(now) {
			t.Errorf("%s: seen in the future", tt.about)
		}
	}
}

// A copy that cannot be kept is served all the same, and told of; when there is
// room again it is kept.
func TestCopyThatCannotBeKept(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "later")
	file := filepath.Join(folder, "copy")
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Zones: []Zone{{Name: "copied.example", Primaries: []Peer{{Address: netip.MustParseAddrPort("127.0.0.1:1")}}, CopyFile: file}}}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	apex := name("\x06copied\x07example\x00")
	l := s.links[apex]
	z, err := parseZone(apex, "text", strings.NewReader(version(1)), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.keepCopy(l, z, time.Now())
	if got := copiedStatus(s).Following.FileError; !strings.Contains(got, "copy not kept: ") || !strings.Contains(got, "no such file") {
		t.Errorf("error %q", got)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour)
	for range 2 { // to write it, and to note that it is still good
		s.keepCopy(l, z, at)
		if got := copiedStatus(s).Following.FileError; got != "" {
			t.Errorf("with room: %q", got)
		}
	}
	if info, err := os.Stat(file); err != nil || !info.ModTime().Equal(at) {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.keepCopy(l, z, at)
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file that was removed: %v", err)
	}
}

// What is kept is what was there, octet by octet, for all types.
func TestKeptCopyIsTheZone(t *testing.T) {
	z, err := loadZone(Zone{Name: "edge.example", File: "testdata/kinds.zone"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "copy")
	if err := replaceFile(file, z.writeTo); err != nil {
		t.Fatal(err)
	}
	kept, err := readCopy(z.name, file, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	wire := func(z *zone) map[string]bool {
		all := make(map[string]bool)
		for _, rr := range append(z.all(), z.soa()) {
			var buf [dns.MaxMsgSize]byte
			n, err := dns.PackRR(rr, buf[:], 0, nil, false)
			if err != nil {
				t.Fatal(err)
			}
			all[string(buf[:n])] = true
		}
		return all
	}
	before, after := wire(z), wire(kept)
	if len(before) < 40 || len(before) != len(after) {
		t.Errorf("%d records, %d before", len(after), len(before))
	}
	for rr := range before {
		if !after[rr] {
			got, _, err := dns.UnpackRR([]byte(rr), 0)
			t.Errorf("not kept: %v, %v", got, err)
		}
	}
}
