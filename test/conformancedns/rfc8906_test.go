package conformancedns

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestRFC8906 asks the questions of RFC 8906 section 8 in its order, with dig as
// the RFC does.
func TestRFC8906(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	dig := find(t, "dig")
	file := filepath.Join(t.TempDir(), "zone")
	write(t, file, "@ 300 SOA ns hostmaster 1 2 3 4 300\n@ 300 NS ns\nns 300 A 192.0.2.53\n"+
		"large 300 TXT "+strings.Repeat("\"0123456789012345678901234567890123456789\" ", 40)+"\n")
	start(t, map[string]string{"example.": file})

	const (
		noError = `status: NOERROR`
		aa      = `flags: qr aa;`
		soa     = `(?m)^example\.\s+300\s+IN\s+SOA\s`
		opt     = `EDNS: version: 0, flags:; udp: 1232`
		noOPT   = `OPT PSEUDOSECTION`
	)
	tests := []struct {
		section, args string
		want          []string
		not           string // "" for nothing
	}{
		{"8.1.1 is the server there", "+noedns +noad SOA example", []string{noError, aa, soa}, noOPT},
		{"8.1.2 unknown type", "+noedns +noad TYPE1000 example", []string{noError, aa, `ANSWER: 0`, soa}, noOPT},
		{"8.1.3.1 CD", "+noedns +noad +cd SOA example", []string{noError, aa, soa}, noOPT},
		{"8.1.3.2 AD", "+noedns +ad SOA example", []string{noError, aa, soa}, noOPT},
		{"8.1.3.3 reserved bit", "+noedns +noad +zflag SOA example", []string{noError, aa, soa}, `MBZ|` + noOPT},
		{"8.1.3.4 recursion", "+noedns +noad +rec SOA example", []string{noError, `flags: qr aa rd;`, soa}, noOPT},
		{"8.1.4 unknown opcode", "+noedns +noad +opcode=15 +header-only", []string{`status: NOTIMP`, `opcode: RESERVED15`, `flags: qr;`}, `SOA|` + noOPT},
		{"8.1.5 TCP", "+noedns +noad +tcp SOA example", []string{noError, aa, soa, `\(TCP\)`}, noOPT},
		{"8.2.1 EDNS", "+edns=0 +noad SOA example", []string{noError, aa, soa, opt}, ""},
		{"8.2.2 EDNS version 1", "+edns=1 +noednsneg +noad SOA example", []string{`status: BADVERS`, `flags: qr;`, opt}, soa},
		{"8.2.3 unknown option", "+edns=0 +noad +ednsopt=100 SOA example", []string{noError, aa, soa, opt}, `OPT=100`},
		{"8.2.4 unknown flags", "+edns=0 +noad +ednsflags=0x40 SOA example", []string{noError, aa, soa, opt}, `MBZ`},
		{"8.2.5 EDNS version 1 with flags", "+edns=1 +noednsneg +noad +ednsflags=0x40 SOA example", []string{`status: BADVERS`, `flags: qr;`, opt}, `MBZ|` + soa},
		{"8.2.6 EDNS version 1 with an option", "+edns=1 +noednsneg +noad +ednsopt=100 SOA example", []string{`status: BADVERS`, `flags: qr;`, opt}, `OPT=100|` + soa},
		{"8.2.7 truncation", "+edns=0 +noad +dnssec +bufsize=512 +ignore TXT large.example", []string{noError, `flags: qr aa tc;`, `flags: do; udp: 1232`}, ""},
		{"8.2.8 DO", "+edns=0 +noad +dnssec SOA example", []string{noError, aa, soa, `flags: do; udp: 1232`}, ""},
		{"8.2.9 EDNS version 1 with DO", "+edns=1 +noednsneg +noad +dnssec SOA example", []string{`status: BADVERS`, `flags: qr;`, `EDNS: version: 0`}, soa},
		{"8.2.10 several options", "+edns=0 +noad +nsid +cookie=0011223344556677 +subnet=0.0.0.0/0 +expire SOA example",
			[]string{noError, aa, soa, `NSID: .*\("conformance"\)`, `COOKIE: 0011223344556677\w{32} \(good\)`, `CLIENT-SUBNET: 0\.0\.0\.0/0/0`}, ""},
		{"8.2.10 several options of a version", "+edns=1 +noednsneg +noad +nsid +cookie=0011223344556677 +subnet=0.0.0.0/0 SOA example",
			[]string{`status: BADVERS`, `flags: qr;`}, soa},
	}
	for _, tt := range tests {
		t.Run(tt.section, func(t *testing.T) {
			args := append([]string{"@" + ours.String(), "-p", strconv.Itoa(port), "+norecurse", "+nocookie", "+tries=1", "+time=2"}, strings.Fields(tt.args)...)
			out, err := exec.Command(dig, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("dig %s: %v\n%s", tt.args, err, out)
			}
			for _, want := range tt.want {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("dig %s: no %s in\n%s", tt.args, want, out)
				}
			}
			if tt.not != "" && regexp.MustCompile(tt.not).Match(out) {
				t.Errorf("dig %s: %s in\n%s", tt.args, tt.not, out)
			}
		})
	}
}
