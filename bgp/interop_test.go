package bgp

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/template"
	"time"
)

// bird is a BIRD 2 daemon on loopback, an implementation that shares no code
// with GoBGP. It needs no privileges: it has no kernel protocol.
type bird struct {
	t       *testing.T
	control string
	birdc   string
	log     *bytes.Buffer
}

var birdConfig = template.Must(template.New("bird").Parse(`
log stderr all;
router id 10.255.0.9;
protocol device {}
protocol static { ipv4; route 10.99.0.0/16 unreachable; }
protocol static { ipv6; route 2001:db8:99::/48 unreachable; }
protocol bgp edge {
	local {{.Listen.Addr}} port {{.Listen.Port}} as {{.ASN}};
	{{with index .Peers 0}}
	neighbor {{.Address}} as {{.ASN}};
	{{if .Password}}password "{{.Password}}";{{end}}
	{{if .TTLSecurity}}ttl security yes;{{end}}
	{{end}}
	strict bind yes;
	multihop 1;
	passive yes;
	hold time 3;
	ipv4 { import all; export all; };
	ipv6 { import all; export all; next hop address 2001:db8:99::1; };
}
`))

// startBird runs BIRD as the router of the lab's config, or skips the test.
func startBird(t *testing.T, cfg RouterConfig) *bird {
	t.Helper()
	daemon, client := lookBird(t, "bird"), lookBird(t, "birdc")
	dir, err := os.MkdirTemp("", "bird") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var config bytes.Buffer
	if err := birdConfig.Execute(&config, cfg); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bird.conf")
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bird{t: t, control: filepath.Join(dir, "ctl"), birdc: client, log: new(bytes.Buffer)}
	cmd := exec.Command(daemon, "-f", "-c", file, "-s", b.control, "-P", filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = b.log, b.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("bird:\n%s", b.log)
		}
	})
	b.await("bird answers", func() bool { return strings.Contains(b.ask("show status"), "up and running") })
	return b
}

// lookBird finds a program of the bird2 package; Debian puts it where ordinary
// users' paths do not lead.
func lookBird(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Skipf("no %s here: install Debian's bird2", name)
	}
	return path
}

// ask sends a command and returns the answer. The exit status says no more than
// the text.
func (b *bird) ask(command ...string) string {
	out, _ := exec.Command(b.birdc, append([]string{"-s", b.control}, command...)...).CombinedOutput()
	return string(out)
}

// await polls: BIRD's control socket has no notifications.
func (b *bird) await(what string, condition func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(eventually); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("bird: not within %v: %s\n%s\n%s", eventually, what, b.ask("show protocols all edge"), b.ask("show route all"))
		}
	}
}

// awaitRoute waits until BIRD shows the announcement as it was made.
func (b *bird) awaitRoute(a Announcement) {
	b.t.Helper()
	if err := a.normalize(); err != nil {
		b.t.Fatal(err)
	}
	path := a.path(speakerASN)
	want := []string{
		"BGP.as_path: " + strings.Trim(fmt.Sprint(path.ASPath), "[]"),
		"BGP.next_hop: " + a.NextHop.String(),
		fmt.Sprintf("BGP.med: %d", a.MED),
		"BGP.origin: IGP",
	}
	if len(a.Communities) > 0 {
		pairs := make([]string, len(a.Communities))
		for i, c := range a.Communities {
			pairs[i] = fmt.Sprintf("(%d,%d)", c>>16, c&0xffff)
		}
		want = append(want, "BGP.community: "+strings.Join(pairs, " "))
	}
	b.await("route "+a.Prefix.String(), func() bool {
		got := b.ask("show", "route", "all", a.Prefix.String())
		for _, line := range want {
			if !regexp.MustCompile(`(?m)` + regexp.QuoteMeta(line) + `\s*$`).MatchString(got) {
				return false
			}
		}
		return true
	})
}

func (b *bird) awaitNoRoute(a Announcement) {
	b.t.Helper()
	b.await("no route "+a.Prefix.String(), func() bool {
		return strings.Contains(b.ask("show", "route", a.Prefix.String()), "Network not found")
	})
}

// TestBIRD runs the Speaker's whole story against BIRD.
func TestBIRD(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		peer  RouterPeer
		wrong bool // the speaker's password
	}{
		{name: "plain"},
		{name: "password", peer: RouterPeer{Password: "correct horse"}},
		{name: "wrong password", peer: RouterPeer{Password: "correct horse"}, wrong: true},
		{name: "ttl security", peer: RouterPeer{TTLSecurity: true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := &lab{t: t, cfg: testRouterConfig(1)}
			p := &l.cfg.Peers[0]
			p.Password, p.TTLSecurity = test.peer.Password, test.peer.TTLSecurity
			b := startBird(t, l.cfg)
			cfg := l.speakerConfig(0)
			if test.wrong {
				cfg.Neighbors[0].Password += "!"
			}
			s := newSpeaker(t, cfg, nil)
			set(t, s, twoPrefixes()...)
			stop := startSpeaker(t, s)
			if test.wrong {
				waitStatus(t, s, "a timeout", func(n NeighborStatus) bool { return strings.Contains(n.LastError, "timeout") })
				if n := s.Status().Neighbors[0]; n.Sessions != 0 {
					t.Errorf("status %+v, want no session ever", n)
				}
				return
			}
			b.awaitRoute(announcement4())
			b.awaitRoute(announcement6())
			// What BIRD was offered: both families, and no graceful restart.
			_, offered, _ := strings.Cut(b.ask("show protocols all edge"), "Neighbor capabilities")
			offered, _, _ = strings.Cut(offered, "Session:")
			if !strings.Contains(offered, "ipv4 ipv6") || strings.Contains(strings.ToLower(offered), "graceful") {
				t.Errorf("the speaker offered: %s", offered)
			}
			// BIRD's own two routes, and End-of-RIB markers.
			waitStatus(t, s, "refused updates", func(n NeighborStatus) bool { return n.RefusedUpdates >= 2 })

			drained := announcement4()
			drained.MED, drained.Prepend, drained.Communities = 1000, 3, Communities{GracefulShutdown}
			set(t, s, drained, announcement6())
			b.awaitRoute(drained)
			set(t, s, drained)
			b.awaitNoRoute(announcement6())
			b.awaitRoute(drained)
			stop()
			b.awaitNoRoute(drained)
			b.await("our farewell", func() bool { return strings.Contains(b.ask("show protocols all edge"), defaultFarewell) })
		})
	}
}
