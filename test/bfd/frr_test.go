package bfd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"anyedge/bgp/bfd"
)

// frr is FRR's bfdd with the zebra it needs.
type frr struct {
	t    *testing.T
	dir  string
	bfdd *daemon
}

// frrPeer is one entry of "show bfd peers json".
type frrPeer struct {
	Peer             string `json:"peer"`
	Status           string `json:"status"`
	Diagnostic       string `json:"diagnostic"`
	RemoteDiagnostic string `json:"remote-diagnostic"`
	RemoteTransmit   int    `json:"remote-transmit-interval"` // ms
	RemoteMultiplier int    `json:"remote-detect-multiplier"`
	RemoteID         uint32 `json:"remote-id"` // our discriminator
}

// frrConfig has a place for the interval and the multiplier.
const frrConfig = `
bfd
 profile test
  transmit-interval %[1]d
  receive-interval %[1]d
  detect-multiplier %[2]d
 exit
 peer 10.77.0.1 local-address 10.77.0.2 interface bfdt-vb
  profile test
 exit
 peer fd77::1 local-address fd77::2 interface bfdt-vb
  profile test
 exit
 peer fe80::a local-address fe80::b interface bfdt-vb
  profile test
 exit
exit
`

func startFRR(t *testing.T, interval time.Duration, multiplier int) *frr {
	t.Helper()
	zebra, bfdd := look(t, "frr", "zebra"), look(t, "frr", "bfdd")
	look(t, "frr", "vtysh")
	owner, err := user.Lookup("frr")
	if err != nil {
		t.Skip("no user frr here: install Debian's frr")
	}
	newLink(t)
	dir, err := os.MkdirTemp("", "bfdt") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	for name, text := range map[string]string{"zebra.conf": "", "bfdd.conf": fmt.Sprintf(frrConfig, interval.Milliseconds(), multiplier), "vtysh.conf": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	f := &frr{t: t, dir: dir}
	at := func(name string) string { return filepath.Join(dir, name) }
	common := []string{"-z", at("zserv"), "--vty_socket", dir, "-u", "frr", "-g", "frr", "--log", "stdout"}
	startDaemon(t, append([]string{zebra, "-f", at("zebra.conf"), "-i", at("zebra.pid")}, common...)...)
	await(t, "zebra's socket", func() bool { _, err := os.Stat(at("zserv")); return err == nil }, func() string { return "" })
	f.bfdd = startDaemon(t, append([]string{bfdd, "-f", at("bfdd.conf"), "-i", at("bfdd.pid"), "--bfdctl", at("bfdctl")}, common...)...)
	return f
}

// vtysh gives commands to bfdd.
func (f *frr) vtysh(commands ...string) (string, error) {
	args := []string{"--vty_socket", f.dir, "--config_dir", f.dir, "-d", "bfdd"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("vtysh", args...).CombinedOutput()
	return string(out), err
}

func (f *frr) configure(peer netip.Addr, local netip.Addr, line string) {
	f.t.Helper()
	enter := fmt.Sprintf("peer %v local-address %v interface %s", peer, local, theirLink)
	if out, err := f.vtysh("configure terminal", "bfd", enter, line); err != nil {
		f.t.Fatalf("vtysh: %v\n%s", err, out)
	}
}

func (f *frr) await(what string, peer netip.Addr, ok func(frrPeer) bool) {
	f.t.Helper()
	var out string
	await(f.t, "FRR: "+what, func() bool {
		var peers []frrPeer
		out, _ = f.vtysh("show bfd peers json")
		if json.Unmarshal([]byte(out), &peers) != nil {
			return false
		}
		for _, p := range peers {
			if p.Peer == peer.String() && ok(p) {
				return true
			}
		}
		return false
	}, func() string { return out })
}

// TestFRR goes through everything that two ends can tell each other, over IPv4,
// IPv6 and link-local IPv6. The multipliers leave busy machines room.
func TestFRR(t *testing.T) {
	const interval = 100 * time.Millisecond
	f := startFRR(t, interval, 10)
	four := bfd.Peer{Address: their4, LocalAddress: our4, TransmitInterval: interval, Multiplier: 10}
	six := bfd.Peer{Address: their6, TransmitInterval: interval, Multiplier: 10}
	local := bfd.Peer{Address: theirLocal.WithZone(ourLink), TransmitInterval: interval, Multiplier: 10}
	e := startEdge(t, four, six, local)
	for _, p := range []bfd.Peer{four, six, local} {
		e.awaitSpeed(p) // FRR begins at a second and polls for what is configured
	}
	for _, peer := range []netip.Addr{our4, our6, ourLocal} {
		f.await("up", peer, func(p frrPeer) bool { return p.Status == "up" })
	}

	// Our Poll: slower to send, and a multiplier.
	four.TransmitInterval, four.ReceiveInterval, four.Multiplier = 200*time.Millisecond, interval, 20
	e.set(four, six, local)
	f.await("our new interval", our4, func(p frrPeer) bool { return p.RemoteTransmit == 200 && p.RemoteMultiplier == 20 })
	e.await("the new interval in use", their4, func(s bfd.Status) bool { return s.TransmitInterval == 200*time.Millisecond })
	// And back, which FRR must confirm before it is faster.
	four.TransmitInterval, four.Multiplier = interval, 10
	e.set(four, six, local)
	f.await("our old interval", our4, func(p frrPeer) bool { return p.RemoteTransmit == 100 })
	// Its Poll.
	f.configure(our4, their4, "receive-interval 250")
	e.await("its new interval", their4, func(s bfd.Status) bool { return s.TransmitInterval == 250*time.Millisecond })
	f.configure(our4, their4, "receive-interval 100")
	e.await("its old interval", their4, func(s bfd.Status) bool { return s.TransmitInterval == interval })
	for _, p := range []bfd.Peer{four, six, local} {
		if s := e.session(p.Address); s.Flaps != 0 || len(s.Drops) > 0 || s.SendErrors > 0 {
			t.Errorf("%v: %+v", p.Address, s)
		}
	}

	// AdminDown, theirs and ours.
	f.configure(our4, their4, "shutdown")
	e.await("AdminDown", their4, func(s bfd.Status) bool { return s.State == bfd.Down && s.RemoteState == bfd.AdminDown })
	f.configure(our4, their4, "no shutdown")
	e.await("up again", their4, up)
	four.AdminDown = true
	e.set(four, six, local)
	f.await("down by us", our4, func(p frrPeer) bool {
		return p.Status == "down" && p.Diagnostic == "neighbor signaled session down" && p.RemoteDiagnostic == "administratively down"
	})
	four.AdminDown = false
	e.set(four, six, local)
	e.await("up once more", their4, up)
	if s := e.session(their4); s.Failures != 0 {
		t.Errorf("an operator's stop became a failure: %+v", s)
	}

	// An engine that dies, and the one that follows it: to FRR another session,
	// for which it has to end the first.
	var before uint32
	f.await("the session of the first engine", our4, func(p frrPeer) bool {
		before = p.RemoteID
		return p.Status == "up"
	})
	e.kill()
	f.await("the session of the second", our4, func(p frrPeer) bool { return p.Status == "up" && p.RemoteID != before })
	for _, p := range []bfd.Peer{four, six, local} {
		e.awaitSpeed(p)
	}

	// An end of Run.
	e.stop()
	for _, peer := range []netip.Addr{our4, our6, ourLocal} {
		f.await("AdminDown", peer, func(p frrPeer) bool { return p.Status == "down" && p.RemoteDiagnostic == "administratively down" })
	}
}

// TestFRRKilled has the shortest timers that both permit.
func TestFRRKilled(t *testing.T) {
	for _, interval := range []time.Duration{50 * time.Millisecond, 10 * time.Millisecond} {
		t.Run(interval.String(), func(t *testing.T) {
			f := startFRR(t, interval, 3)
			peers := []bfd.Peer{{Address: their4, TransmitInterval: interval}, {Address: their6, TransmitInterval: interval}}
			e := startEdge(t, peers...)
			for _, p := range peers {
				e.awaitSpeed(p)
			}
			killed := time.Now()
			f.bfdd.kill()
			for _, p := range peers {
				within(t, fmt.Sprintf("bfdd killed, %v", p.Address), e.failure(p.Address, killed), 3*interval)
			}
		})
	}
}
