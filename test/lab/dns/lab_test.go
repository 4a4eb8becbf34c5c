package dns

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const config = `node: {name: lab}
fleet: {memory: true}
listen: ["198.18.53.1:53", "[fd53::1]:53"]
xdp: {interface: dns0, mode: %s}
zones: [{name: lab.example, file: lab.zone}]
clients: clients.csv
admin: {address: "198.18.53.1:15354"}
pops:
  - {name: fra, latitude: 50, longitude: 8, addresses: [192.0.2.1, "2001:db8::1"]}
  - {name: sin, latitude: 1, longitude: 103, addresses: [192.0.2.2, "2001:db8::2"]}
names:
  - {name: www.lab.example, policy: nearest, answers: [{pop: fra}, {pop: sin}]}
  - {name: lot.lab.example, policy: weighted, answers: [{pop: fra}, {pop: sin}]}
`

const zone = `$TTL 300
@ IN SOA ns hostmaster 1 3600 900 604800 60
@ IN NS ns
ns IN A 198.18.53.1
host IN A 192.0.2.9
text IN TXT "%s"
`

// long is a text for which a veth pair has no room behind the query.
var long = strings.Repeat("x", 190)

const clients = `198.18.53.0/24,50,8
203.0.113.0/24,1,103
2001:db8:a::/48,1,103
fd53::/64,1,103
`

// up is a lab whose node answers in the driver.
func up(t *testing.T, prefix, mode string) *Lab {
	t.Helper()
	if os.Getenv("ANYEDGE_LAB") == "" {
		t.Skip("a DNS node in a network namespace needs root: set ANYEDGE_LAB=1")
	}
	binary := "../../../bin/anyedge"
	if err := Missing(binary); err != nil {
		t.Skip("a lab cannot be built here: ", err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"gslb.yaml": fmt.Sprintf(config, mode), "lab.zone": fmt.Sprintf(zone, long), "clients.csv": clients} {
		write(t, filepath.Join(dir, name), content)
	}
	l, err := Up(t.Context(), prefix, dir, binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := l.Down(ctx); err != nil {
			t.Error(err)
		}
		if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && t.Failed() {
			t.Logf("%s", log)
		}
	})
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	if !Await(t.Context(), 10*time.Second, func() bool {
		m, err := l.Metrics(t.Context())
		return err == nil && m["anyedge_dns_xdp_attached"] == 1 && m["anyedge_dns_xdp_image_bytes"] > 0
	}) {
		t.Fatal("it is not attached")
	}
	return l
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// dig asks once and returns what was printed, "" if no answer came.
func (l *Lab) dig(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.Client.Run(t.Context(), append([]string{"dig", "+tries=1", "+timeout=1"}, args...)...)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// answered returns how many queries were answered in the driver.
func (l *Lab) answered(t *testing.T) int {
	t.Helper()
	m, err := l.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return int(m[Outcomes("answered")])
}

func TestAnswersInTheDriver(t *testing.T) {
	for _, mode := range []string{"native", "generic"} {
		t.Run(mode, func(t *testing.T) {
			l := up(t, "xdp-"+mode[:1]+"-", mode)
			for _, test := range []struct {
				query, want string
				driver      bool
			}{
				{"host.lab.example @198.18.53.1 +nocookie", "192.0.2.9", true},
				{"HOST.lab.EXAMPLE @fd53::1 +nocookie", "192.0.2.9", true},
				{"host.lab.example @198.18.53.1 +noedns", "192.0.2.9", true},
				{"host.lab.example @198.18.53.1 +cookie", "192.0.2.9", false},
				{"host.lab.example @198.18.53.1 +tcp +nocookie", "192.0.2.9", false},
				{"www.lab.example @198.18.53.1 +nocookie", "192.0.2.1", true},
				{"www.lab.example @fd53::1 +nocookie", "192.0.2.2", true},
				{"www.lab.example AAAA @fd53::1 +nocookie", "2001:db8::2", true},
				{"www.lab.example @198.18.53.1 +nocookie +subnet=203.0.113.0/24", "192.0.2.2", true},
				{"www.lab.example @198.18.53.1 +nocookie +subnet=2001:db8:a::/56", "192.0.2.2", true},
				{"www.lab.example @198.18.53.1 +nocookie +subnet=10.0.0.0/8", "192.0.2.", false}, // by lot
				{"lot.lab.example @198.18.53.1 +nocookie", "192.0.2.", false},
				{"text.lab.example TXT @198.18.53.1 +nocookie", "\"" + long, true},
				{"text.lab.example TXT @fd53::1 +nocookie", "\"" + long, true},
				{"none.lab.example @198.18.53.1 +nocookie", "", true},
			} {
				before := l.answered(t)
				got := l.dig(t, append(strings.Fields(test.query), "+short")...)
				if !strings.HasPrefix(got, test.want) || strings.Contains(got, ";;") {
					t.Errorf("%s: %q, want %s", test.query, got, test.want)
				}
				if n := l.answered(t) - before; n > 1 || (n == 1) != test.driver {
					t.Errorf("%s: %d answers in the driver", test.query, n)
				}
			}
			if got := l.dig(t, "www.lab.example", "@198.18.53.1", "+nocookie", "+subnet=203.0.113.0/24"); !strings.Contains(got, "CLIENT-SUBNET: 203.0.113.0/24/24") ||
				!strings.Contains(got, "status: NOERROR") || strings.Contains(got, "WARNING: Message") {
				t.Error(got)
			}
			if got := l.dig(t, "none.lab.example", "@198.18.53.1", "+nocookie"); !strings.Contains(got, "status: NXDOMAIN") || !strings.Contains(got, "SOA\tns.lab.example.") {
				t.Error(got)
			}
		})
	}
}

// A reload is in force in the driver within a second; a process that hangs is not
// trusted for long, and one that is gone leaves nothing behind.
func TestDriverFollowsTheProcess(t *testing.T) {
	l := up(t, "xdp-f-", "native")
	p, err := l.Process()
	if err != nil {
		t.Fatal(err)
	}
	ask := []string{"host.lab.example", "@198.18.53.1", "+nocookie", "+short"}
	if got := l.dig(t, ask...); got != "192.0.2.9" {
		t.Fatalf("%q", got)
	}

	write(t, filepath.Join(l.dir, "lab.zone"), strings.NewReplacer("192.0.2.9", "192.0.2.10", " 1 3600", " 2 3600").Replace(fmt.Sprintf(zone, long)))
	before := l.answered(t)
	start := time.Now()
	if err := p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !Await(t.Context(), time.Second, func() bool { return l.dig(t, ask...) == "192.0.2.10" }) {
		t.Fatal("the driver goes on as before the reload")
	}
	t.Logf("reloaded after %v", time.Since(start))
	if l.answered(t) == before {
		t.Error("the sockets answered")
	}

	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if !Await(t.Context(), 6*time.Second, func() bool { return l.dig(t, ask...) == "" }) {
		t.Error("the driver trusts a process that hangs")
	}
	t.Logf("no answers %v after it hung, a second of it dig's", time.Since(start))
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	before = l.answered(t)
	if !Await(t.Context(), 3*time.Second, func() bool { return l.dig(t, ask...) == "192.0.2.10" && l.answered(t) > before }) {
		t.Error("the driver does not go on")
	}

	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-l.Ended()
	if got := l.dig(t, ask...); got != "" {
		t.Errorf("answered by the dead: %q", got)
	}
	if out, err := l.Server.Run(t.Context(), "ip", "link", "show", Interface); err != nil || strings.Contains(string(out), "prog/xdp") {
		t.Errorf("%s %v", out, err)
	}
}
