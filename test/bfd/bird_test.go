package bfd

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"anyedge/bgp/bfd"
)

// bird is a BIRD 2 with the bfd protocol only.
type bird struct {
	t           *testing.T
	dir, client string
	daemon      *daemon
}

// birdConfig has a place for the options of the interface.
const birdConfig = `
log stderr all;
router id 10.77.0.2;
protocol device {}
protocol bfd {
	interface "bfdt-*" { %s };
	neighbor 10.77.0.1 dev "bfdt-vb" local 10.77.0.2;
	neighbor fd77::1 dev "bfdt-vb" local fd77::2;
}
`

func startBird(t *testing.T, options string) *bird {
	t.Helper()
	program := look(t, "bird2", "bird")
	b := &bird{t: t, client: look(t, "bird2", "birdc")}
	newLink(t)
	var err error
	if b.dir, err = os.MkdirTemp("", "bfdt"); err != nil { // t.TempDir is too long for a socket
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(b.dir) })
	b.write(options)
	b.daemon = startDaemon(t, program, "-f", "-c", b.file("bird.conf"), "-s", b.file("ctl"), "-P", b.file("pid"))
	return b
}

func (b *bird) file(name string) string { return filepath.Join(b.dir, name) }

func (b *bird) write(options string) {
	b.t.Helper()
	if err := os.WriteFile(b.file("bird.conf"), fmt.Appendf(nil, birdConfig, options), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bird) ask(command ...string) string {
	out, _ := exec.Command(b.client, append([]string{"-s", b.file("ctl")}, command...)...).CombinedOutput()
	return string(out)
}

// configure gives BIRD other options.
func (b *bird) configure(options string) {
	b.t.Helper()
	b.write(options)
	if out := b.ask("configure"); !strings.Contains(out, "Reconfigur") {
		b.t.Fatalf("BIRD: %s", out)
	}
}

// await waits for a session in a state, with the interval and timeout that BIRD
// shows, in seconds.
func (b *bird) await(peer netip.Addr, state, interval, timeout string) {
	b.t.Helper()
	var out string
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(peer.String()) + `\s+\S+\s+` + state + `\s+\S+\s+` + interval + `\s+` + timeout)
	await(b.t, fmt.Sprintf("BIRD: %v %s", peer, state), func() bool {
		out = b.ask("show", "bfd", "sessions")
		return line.MatchString(out)
	}, func() string { return out })
}

// TestBIRD runs sessions over IPv4 and IPv6 with each kind of authentication,
// and changes timers from both sides. The multipliers leave busy machines room.
func TestBIRD(t *testing.T) {
	key := []bfd.Key{{ID: 7, Secret: "correct horse"}}
	tests := []struct {
		name   string
		auth   bfd.Auth
		theirs string
	}{
		{name: "plain"},
		{"keyed_sha1", bfd.Auth{Keys: key}, `authentication keyed sha1; password "correct horse" { id 7; };`},
		{"meticulous_keyed_sha1", bfd.Auth{Keys: key, Meticulous: true}, `authentication meticulous keyed sha1; password "correct horse" { id 7; };`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			const multiplier = 10
			options := func(d time.Duration) string {
				return fmt.Sprintf("interval %d ms; multiplier %d; %s", d.Milliseconds(), multiplier, test.theirs)
			}
			seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
			const fast, slow = 100 * time.Millisecond, 400 * time.Millisecond
			b := startBird(t, options(fast))
			peers := []bfd.Peer{
				{Address: their4, LocalAddress: our4, Multiplier: multiplier, Auth: test.auth},
				{Address: their6, LocalAddress: our6, Multiplier: multiplier, Auth: test.auth},
			}
			e := startEdge(t)
			ours := func(d time.Duration) {
				for i := range peers {
					peers[i].TransmitInterval = d
				}
				e.set(peers...)
			}
			fullSpeed := func(d time.Duration) {
				t.Helper()
				for i, peer := range []netip.Addr{our4, our6} {
					p := peers[i]
					p.TransmitInterval = d
					e.awaitSpeed(p)
					b.await(peer, "Up", seconds(d), seconds(multiplier*d))
				}
			}
			ours(fast)
			fullSpeed(fast)
			ours(slow)
			fullSpeed(slow)
			ours(fast)
			fullSpeed(fast)
			b.configure(options(slow))
			fullSpeed(slow)
			b.configure(options(fast))
			fullSpeed(fast)
			for _, p := range peers {
				if s := e.session(p.Address); s.Flaps != 0 || len(s.Drops) > 0 || s.PacketsIn == 0 {
					t.Errorf("%v: %+v", p.Address, s)
				}
			}
		})
	}
}

// TestBIRDWithAnotherKey must not come up.
func TestBIRDWithAnotherKey(t *testing.T) {
	b := startBird(t, `interval 50 ms; authentication keyed sha1; password "battery staple" { id 7; };`)
	e := startEdge(t, bfd.Peer{Address: their4, Auth: bfd.Auth{Keys: []bfd.Key{{ID: 7, Secret: "correct horse"}}}})
	s := e.await("refused packets", their4, func(s bfd.Status) bool { return s.Drops["authentication"] >= 2 })
	if s.State != bfd.Down || s.PacketsIn != 0 {
		t.Errorf("a wrong key was taken: %+v", s)
	}
	b.await(our4, "Down", `\S+`, `\S+`)
}

// TestBIRDGone kills BIRD, or the link, at the shortest timers.
func TestBIRDGone(t *testing.T) {
	for _, interval := range []time.Duration{50 * time.Millisecond, 10 * time.Millisecond} {
		for _, what := range []string{"killed", "interface_down"} {
			t.Run(fmt.Sprintf("%v/%s", interval, what), func(t *testing.T) {
				b := startBird(t, fmt.Sprintf("interval %d ms; multiplier 3;", interval.Milliseconds()))
				peers := []bfd.Peer{{Address: their4, TransmitInterval: interval}, {Address: their6, TransmitInterval: interval}}
				e := startEdge(t, peers...)
				for _, p := range peers {
					e.awaitSpeed(p)
				}
				gone := time.Now()
				if what == "killed" {
					b.daemon.kill()
				} else {
					run(t, "ip", "-n", theirSpace, "link", "set", theirLink, "down")
				}
				for _, p := range peers {
					within(t, fmt.Sprintf("%s, %v", what, p.Address), e.failure(p.Address, gone), 3*interval)
				}
			})
		}
	}
}
