package gslb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// head is the least that a zone needs, on two lines.
const head = "@ 300 SOA ns.example. hostmaster 1 2 3 4 60\n@ 300 NS ns.example.\n"

func TestBadZones(t *testing.T) {
	tests := []struct {
		about, text string
		want        []string // lines of the error
	}{
		{"empty", "", []string{"edge.zone: no SOA record at edge.example.", "edge.zone: no NS record at edge.example."}},
		{"no server", "@ 1 SOA n h 1 2 3 4 5\n", []string{"edge.zone: no NS record at edge.example."}},
		{"syntax", head + "\n; comment\nwww 300 A 192.0.2\n", []string{`edge.zone:5:17: bad A A: "192.0.2"`}},
		{"syntax in the first line", "www 300 AA 192.0.2.1\n", []string{"edge.zone:1:"}},
		{"unclosed bracket", head + "www 300 TXT ( \"a\"\n\n", []string{"edge.zone:"}},
		{"no TTL", "@ SOA n h 1 2 3 4 5\n@ NS n\n", []string{"edge.zone:1:"}},
		{"include from text", head + "$INCLUDE other\n", []string{"edge.zone:3:14: $INCLUDE directive not allowed"}},
		{"outside", head + "www.elsewhere.example. 1 A 192.0.2.1\n", []string{"edge.zone:3: www.elsewhere.example. is not in the zone edge.example."}},
		{"class", head + "www 1 CH TXT a\n", []string{"edge.zone:3: www.edge.example.: class CH; only IN is served"}},
		{"TTL", head + "www 4294967295 A 192.0.2.1\n", []string{"edge.zone:3: www.edge.example.: TTL 4294967295 is out of range"}},
		{"second SOA", head + "@ 300 SOA ns.example. hostmaster 2 2 3 4 60\n", []string{"edge.zone:1: edge.example.: more than one SOA record"}},
		{"SOA below", head + "www 300 SOA ns.example. hostmaster (\n 1 2 3 4\n 60 )\n", []string{"edge.zone:5: www.edge.example.: SOA below the apex edge.example."}},
		{"alias beside others", head + "www 1 CNAME a\nwww 1 A 192.0.2.1", []string{"edge.zone:3: www.edge.example.: CNAME beside other records"}},
		{"alias at the apex", head + "@ 1 CNAME a\n", []string{"edge.zone:3: edge.example.: CNAME beside other records"}},
		{"two aliases", head + "www 1 CNAME a\nwww 1 CNAME b\n", []string{"edge.zone:3: www.edge.example.: CNAME beside other records"}},
		{"delegated wildcard", head + "*.a 1 NS ns.example.\n", []string{"edge.zone:3: *.a.edge.example.: NS at a wildcard"}},
		{"DNAME at a wildcard", head + "*.a 1 DNAME example.\n", []string{"edge.zone:3: *.a.edge.example.: DNAME at a wildcard"}},
		{"two DNAMEs", head + "a 1 DNAME b\na 1 DNAME c\n", []string{"edge.zone:3: a.edge.example.: more than one DNAME record"}},
		{"below a DNAME", head + "a 1 DNAME b\nx.y.a 1 A 192.0.2.1\n", []string{"edge.zone:4: x.y.a.edge.example.: below the DNAME of a.edge.example."}},
		{"below the apex's DNAME", head + "@ 1 DNAME b.example.\nx 1 A 192.0.2.1\n", []string{"edge.zone:4: x.edge.example.: below the DNAME of the apex"}},
		{"missing glue", head + "sub 1 NS ns.sub\nsub 1 NS ns.example.\n", []string{"edge.zone:3: sub.edge.example.: delegated to ns.sub.edge.example., which has no address here"}},
		{"iterations", head + "@ 1 NSEC3PARAM 1 0 2501 -\n", []string{"edge.zone:3: edge.example.: 2501 iterations of NSEC3; at most 2500"}},
		{"hash", head + "short 1 NSEC3 1 0 0 - 00000000000000000000000000000000 A\n", []string{"edge.zone:3: short.edge.example.: not the hash of a name"}},
		{"signed alias", head + "a 1 CNAME b\na 1 NSEC c.edge.example. CNAME\na 1 A 192.0.2.1\n", []string{"edge.zone:3: a.edge.example.: CNAME beside other records"}},
		{"unwritable", head + "k 1 DNSKEY 257 3 13 !!!!\n", []string{"edge.zone:3: k.edge.example.: the DNSKEY record is not valid"}},
		{"type that is none", head + "k 1 TYPE250 \\# 0\n", []string{"edge.zone:3"}},
		{"several", head + "b 1 CH A 192.0.2.1\nx 1 CNAME y\nx 1 A 192.0.2.1\na.example. 1 A 192.0.2.1\n",
			[]string{"edge.zone:3: b.", "edge.zone:6: a.example.", "edge.zone:4: x.edge.example.: CNAME beside other records"}},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			apex, err := parseName("edge.example")
			if err != nil {
				t.Fatal(err)
			}
			z, err := parseZone(apex, "edge.zone", strings.NewReader(tt.text), nil)
			if err == nil || z != nil {
				t.Fatal("the zone was taken")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %q, want %q", lines, tt.want)
			}
			for i := range lines {
				if !strings.HasPrefix(lines[i], tt.want[i]) {
					t.Errorf("got %q, want %q", lines[i], tt.want[i])
				}
			}
		})
	}
}

func TestSetsAreTidied(t *testing.T) {
	z, err := loadZone(Zone{Name: "Edge.Example", Text: head + "A 300 A 192.0.2.1\na 60 A 192.0.2.2\na 100 A 192.0.2.1\n"})
	if err != nil {
		t.Fatal(err)
	}
	n, _ := parseName("a.edge.example")
	set := z.nodes[n].get(dns.TypeA)
	if len(set) != 2 || set[0].Header().Ttl != 60 || set[1].Header().Ttl != 60 {
		t.Errorf("got %v, want two records of one TTL, the least", set)
	}
}

func TestZoneFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := write("in/edge.zone", head+"$INCLUDE parts/one\n")
	write("in/parts/one", "www 1 A 192.0.2.1\n")
	write("secret", "root:x:0:0\n")
	if z, err := loadZone(Zone{Name: "edge.example", File: path}); err != nil || z.records != 3 {
		t.Fatalf("got %v", err)
	}
	write("in/parts/one", "www 1 A 192.0.2.1\nwww 1 A nothing\n")
	if _, err := loadZone(Zone{Name: "edge.example", File: path}); err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, "in/parts/one")+":2:") {
		t.Errorf("got %v, want the included file and its line 2", err)
	}
	write("in/parts/one", "elsewhere.example. 1 A 192.0.2.1\n")
	if _, err := loadZone(Zone{Name: "edge.example", File: path}); err == nil || !strings.HasPrefix(err.Error(), path+":3: ") {
		t.Errorf("got %v, want the line that includes", err)
	}
	write("in/edge.zone", head+"$INCLUDE ../secret\n")
	if _, err := loadZone(Zone{Name: "edge.example", File: path}); err == nil || strings.Contains(err.Error(), "root:x") || !strings.HasPrefix(err.Error(), path+":3:") {
		t.Errorf("got %v, want a refusal to leave the folder", err)
	}
	for _, bad := range []string{"in/nothing", "nowhere/edge.zone"} {
		if _, err := loadZone(Zone{Name: "edge.example", File: filepath.Join(dir, bad)}); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	for _, bad := range []string{"", "a..b", strings.Repeat("a", 64)} {
		if _, err := loadZone(Zone{Name: bad, Text: head}); err == nil {
			t.Errorf("took the zone name %q", bad)
		}
	}
}

func FuzzZone(f *testing.F) {
	data, err := os.ReadFile("testdata/edge.example.zone")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(strings.Replace(string(data), "$INCLUDE", "; ", 1))
	f.Add(head + "$GENERATE 1-3 h$ A 192.0.2.$\n")
	apex, err := parseName("edge.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		z, err := parseZone(apex, "edge.zone", strings.NewReader(text), nil)
		if err != nil {
			return
		}
		// What was taken can be asked for, at each of its names.
		v := &view{zones: map[name]*zone{apex: z}}
		for n := range z.nodes {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeANY, dns.TypeCNAME} {
				if got := ask(t, v, asker(n.String(), qtype), "192.0.2.1", true); got.Rcode == dns.RcodeRefused {
					t.Errorf("%s is refused", n)
				}
			}
		}
	})
}
