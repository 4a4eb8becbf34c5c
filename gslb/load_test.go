package gslb

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// At a start a bad zone takes no other with it. A reload that mends it has it served.
func TestBadZoneAtTheStart(t *testing.T) {
	const good = "@ 60 IN SOA ns h 1 2 3 4 5\n@ 60 IN NS ns\nns 60 IN A 192.0.2.1\n"
	dir := t.TempDir()
	file := func(name, text string) Zone {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Zone{Name: name, File: path}
	}
	zones := []Zone{file("good.example", good), file("bad.example", "@ IN SOA what"), {Name: "none.example", File: filepath.Join(dir, "none")}}
	start := func(zones []Zone) (*Server, string, error) {
		var lines logged
		s, err := New(Config{Listen: []netip.AddrPort{{}}, Zones: zones}, lines.logger(), nil)
		return s, lines.String(), err
	}
	s, lines, err := start(zones)
	if err != nil || !strings.Contains(lines, "bad.example:1:") || !strings.Contains(lines, "none") || strings.Contains(lines, "good.example:") {
		t.Fatalf("%v: %s", err, lines)
	}
	rcodes := func(want ...int) {
		t.Helper()
		for i, z := range zones {
			if got := ask(t, s.view.Load(), asker("ns."+z.Name, dns.TypeA), "192.0.2.9", false); got.Rcode != want[i] {
				t.Errorf("%s: %s, want %s", z.Name, dns.RcodeToString[got.Rcode], dns.RcodeToString[want[i]])
			}
		}
	}
	rcodes(dns.RcodeSuccess, dns.RcodeServerFailure, dns.RcodeServerFailure)
	for _, z := range s.Status().Zones {
		if z.Available != (z.Name == "good.example.") || (z.Error == "") != z.Available {
			t.Errorf("%+v", z)
		}
	}
	file("bad.example", good)
	if err := s.SetZones(zones); err == nil {
		t.Error("a reload takes a zone without its file")
	}
	file("none", good)
	if err := s.SetZones(zones); err != nil {
		t.Fatal(err)
	}
	rcodes(dns.RcodeSuccess, dns.RcodeSuccess, dns.RcodeSuccess)

	if _, _, err := start([]Zone{file("bad.example", "what")}); err == nil || !strings.Contains(err.Error(), "bad.example:1:") {
		t.Errorf("nothing to serve, and %v", err)
	}
	if _, _, err := start([]Zone{zones[0], file("bad.example", "what"), file("bad.example", "what")}); err == nil {
		t.Error("a zone is listed twice")
	}
	if _, _, err := start([]Zone{zones[0], {Name: "bad..example", File: zones[1].File}}); err == nil {
		t.Error("a zone has no name")
	}
}
