package gslb

import (
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestDig asks with the tool that operators ask with, a client that shares no
// code with the server.
func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is not installed")
	}
	_, address, _ := start(t, Config{})
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		about, args string
		want        []string // regular expressions, of lines
		not         string   // one that must not match
	}{
		{"Europe", "www.edge.example A +subnet=198.51.100.0/24",
			[]string{`status: NOERROR`, `flags: qr aa;`, `; CLIENT-SUBNET: 198\.51\.100\.0/24/24$`, `^www\.edge\.example\.\s+20\s+IN\s+A\s+192\.0\.2\.1$`}, "COOKIE"},
		{"America", "www.edge.example A +subnet=203.0.113.0/24",
			[]string{`; CLIENT-SUBNET: 203\.0\.113\.0/24/24$`, `\sA\s+192\.0\.2\.2$`}, ""},
		{"America over IPv6", "www.edge.example AAAA +subnet=2001:db8:a::/56",
			[]string{`; CLIENT-SUBNET: 2001:db8:a::/56/48$`, `\sAAAA\s+2001:db8::2$`}, ""},
		{"over TCP", "www.edge.example A +tcp +subnet=203.0.113.0/24",
			[]string{`; CLIENT-SUBNET: 203\.0\.113\.0/24/24$`, `\sA\s+192\.0\.2\.2$`, `\(TCP\)`}, ""},
		{"nothing said", "www.edge.example A +subnet=0", []string{`; CLIENT-SUBNET: 0\.0\.0\.0/0/0$`, `\sA\s+192\.0\.2\.[12]$`}, ""},
		{"no subnet", "www.edge.example A", []string{`udp: 1232`, `\sA\s+192\.0\.2\.1$`}, "CLIENT-SUBNET"},
		{"no EDNS", "www.edge.example A +noedns", []string{`\sA\s+192\.0\.2\.1$`}, "OPT PSEUDOSECTION"},
		{"truncated, then TCP", "large.edge.example TXT", []string{`Truncated, retrying in TCP mode`, `ANSWER: 40`}, ""},
		{"truncated", "large.edge.example TXT +ignore", []string{`flags: qr aa tc;`, `ANSWER: 0`}, ""},
		{"no name", "nope.edge.example A", []string{`status: NXDOMAIN`, `^edge\.example\.\s+60\s+IN\s+SOA`}, ""},
		{"no data", "mail.edge.example AAAA", []string{`status: NOERROR`, `ANSWER: 0`, `\sSOA\s`}, ""},
		{"referral", "x.child.edge.example A", []string{`flags: qr;`, `AUTHORITY: 2, ADDITIONAL: 4`, `^ns\.child\.edge\.example\.\s+300\s+IN\s+A\s`}, ""},
		{"any", "mail.edge.example ANY +notcp", []string{`\sHINFO\s+"RFC8482" ""$`}, ""},
		{"elsewhere", "elsewhere.example A", []string{`status: REFUSED`}, ""},
		{"version", "www.edge.example A +edns=1 +noednsneg", []string{`status: BADVERS`, `EDNS: version: 0`}, ""},
		{"options and flags", "www.edge.example A +ednsopt=65001:abcd +ednsflags=0x40 +nsid +cookie=0011223344556677 +dnssec", []string{`status: NOERROR`, `flags: do; udp: 1232`, `COOKIE: 0011223344556677[0-9a-f]{32} \(good\)`}, "NSID"},
		{"only a cookie", "+cookie=0011223344556677 +header-only www.edge.example A", []string{`status: NOERROR`, `QUERY: 0`, `\(good\)`}, ""},
		{"keepalive", "www.edge.example A +tcp +keepalive", []string{`TCP.KEEPALIVE: 10\.0 secs`}, ""},
		{"other opcode", "www.edge.example A +noedns +opcode=status", []string{`status: NOTIMP`}, ""},
		{"header only", "+noedns +header-only www.edge.example A", []string{`status: FORMERR`}, ""},
		{"other class", "version.bind TXT CH", []string{`status: REFUSED`}, ""},
		{"transfer", "edge.example AXFR", []string{`Transfer failed`}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			args := append([]string{"@" + host, "-p", port, "+norecurse", "+nocookie", "+tries=1", "+time=5"}, strings.Fields(tt.args)...)
			out, err := exec.Command(dig, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("dig %s: %v\n%s", tt.args, err, out)
			}
			for _, want := range tt.want {
				if !regexp.MustCompile(`(?m)` + want).Match(out) {
					t.Errorf("dig %s: no line like %s in\n%s", tt.args, want, out)
				}
			}
			if regexp.MustCompile("WARNING|malformed|mismatch").Match(out) {
				t.Errorf("dig %s warns:\n%s", tt.args, out)
			}
			if tt.not != "" && regexp.MustCompile(tt.not).Match(out) {
				t.Errorf("dig %s: %s in\n%s", tt.args, tt.not, out)
			}
		})
	}
}
