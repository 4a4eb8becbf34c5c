package vrrp

import (
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// families runs a test for both, side by side.
func families(t *testing.T, test func(t *testing.T, l *lab, virtual []netip.Prefix)) {
	for _, f := range []struct {
		name    string
		virtual []netip.Prefix
	}{{"ipv4", virtual4}, {"ipv6", virtual6}} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			test(t, newLab(t), f.virtual)
		})
	}
}

// within fails the test if something took too long.
func within(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	t.Logf("%s: %v", what, took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("%s: %v, want at most %v", what, took, limit)
	}
}

// A client of the virtual address sees our router killed, keepalived take over,
// and our router come back and preempt.
func TestKeepalivedTakesOver(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		service := virtual[len(virtual)-1]
		cfg := Config{Addresses: virtual, Priority: 200, Preempt: true}
		ours := l.router("a", cfg)
		ours.becomes(Active)
		theirs := l.keepalived("b", 100, "", virtual)
		theirs.entered("BACKUP")
		ping := l.ping("c", service.Addr())
		ping.replies(10)

		ours.signal(syscall.SIGKILL)
		within(t, "killed: keepalived is Active", theirs.entered("MASTER"), time.Second)
		ping.replies(10)
		within(t, "killed: client without an answer", ping.gap(), time.Second)
		l.follows("c", "b", service.Addr())

		ours = l.router("a", cfg)
		within(t, "back: ours is Active", ours.becomes(Active), 2*time.Second)
		within(t, "back: keepalived yields", theirs.entered("BACKUP"), time.Second)
		for _, p := range virtual {
			l.until("keepalived lets go of the addresses", func() bool { return !l.has("b", p) })
		}
		ping.replies(10)
		within(t, "back: client without an answer", ping.gap(), time.Second)
		l.follows("c", "a", service.Addr())

		ours.signal(syscall.SIGTERM)
		within(t, "stopped: keepalived is Active", theirs.entered("MASTER"), 250*time.Millisecond)
		<-ours.done
		for _, p := range virtual {
			if l.has("a", p) {
				t.Errorf("%s is still on the node that stopped", p)
			}
		}
		ping.replies(10)
		within(t, "stopped: client without an answer", ping.gap(), 500*time.Millisecond)

		l.router("a", cfg).becomes(Active)
		l.follows("c", "a", service.Addr())
		ping.replies(10)
		ping.gap()
		l.in("lan", "ip link set to-a down")
		ping.replies(10)
		within(t, "cable pulled: client without an answer", ping.gap(), time.Second)
		l.follows("c", "b", service.Addr())
		theirs.content()
	})
}

// keepalived stops as planned and is killed; ours takes over and gives back.
func TestTakesOverFromKeepalived(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		theirs := l.keepalived("b", 200, "", virtual)
		theirs.entered("MASTER")
		ours := l.router("a", Config{Addresses: virtual, Preempt: true})
		ours.becomes(Backup)

		theirs.signal(syscall.SIGTERM)
		within(t, "keepalived stopped: ours is Active", ours.becomes(Active), 250*time.Millisecond)
		for _, p := range virtual {
			l.until("ours has the address", func() bool { return l.has("a", p) })
		}

		<-theirs.done
		theirs = l.keepalived("b", 200, "", virtual)
		theirs.entered("MASTER")
		within(t, "keepalived back: ours yields", ours.becomes(Backup), time.Second)
		for _, p := range virtual {
			l.until("ours lets go of the address", func() bool { return !l.has("a", p) })
		}

		l.in("lan", "ip link set to-b down")
		within(t, "keepalived cut off: ours is Active", ours.becomes(Active), time.Second)
		theirs.end(syscall.SIGTERM)
		l.in("lan", "ip link set to-b up")
		theirs = l.keepalived("b", 200, "nopreempt", virtual)
		theirs.entered("BACKUP")
		ours.set(Health{Reason: "worker hangs"})
		within(t, "not serving: keepalived is Active", theirs.entered("MASTER"), 250*time.Millisecond)
		ours.becomes(Initialize)
		ours.set(Health{Serving: true})
		ours.becomes(Backup)
		theirs.content()
	})
}

// Both start at once with one priority: one of them is Active in the end.
func TestStartsTogetherWithKeepalived(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		theirs := l.keepalived("b", 100, "", virtual)
		ours := l.router("a", Config{Addresses: virtual, Preempt: true})
		l.until("one of them is Active", func() bool {
			return l.has("a", virtual[0]) || l.has("b", virtual[0])
		})
		// Two routers that became Active together settle it by one
		// advertisement each.
		for stable := 0; stable < 20; time.Sleep(20 * time.Millisecond) {
			a, b := l.has("a", virtual[0]), l.has("b", virtual[0])
			if stable++; a == b {
				stable = 0
			}
		}
		ours.end(syscall.SIGTERM)
		theirs.content()
	})
}

// keepalived of Debian 12 cannot be told to leave the pseudo-header out, so it
// drops what a router sends that does: what we accept is tested in packet_test.
func TestPlainChecksumIsWhatKeepalivedDrops(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	theirs := l.keepalived("b", 100, "", virtual4)
	theirs.entered("MASTER")
	ours := l.router("a", Config{Addresses: virtual4, Priority: 200, Preempt: true, PlainChecksum: true})
	ours.becomes(Active)
	theirs.await("complaint about the checksum", func(log string, _ Status) bool {
		return strings.Contains(strings.ToLower(log), "checksum")
	})
}

// pinger pings an address every 20 ms.
type pinger struct {
	*process
	last float64 // when the latest reply came that gap has seen
}

var replyTime = regexp.MustCompile(`\[(\d+\.\d+)\] \d+ bytes from`)

func (l *lab) ping(node string, to netip.Addr) *pinger {
	l.t.Helper()
	if _, err := exec.LookPath("ping"); err != nil {
		l.t.Skip("no ping here: install Debian's iputils-ping")
	}
	return &pinger{process: l.start(node, "ping", nil, "ping", "-n", "-D", "-i", "0.02", to.String())}
}

// replies waits for so many more replies.
func (p *pinger) replies(n int) {
	p.t.Helper()
	p.mu.Lock()
	had := strings.Count(p.log.String(), "bytes from")
	p.mu.Unlock()
	p.await("replies to ping", func(log string, _ Status) bool { return strings.Count(log, "bytes from") >= had+n })
}

// gap is the longest time between two replies since it was asked last.
func (p *pinger) gap() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest float64
	for _, m := range replyTime.FindAllStringSubmatch(p.log.String(), -1) {
		at, _ := strconv.ParseFloat(m[1], 64)
		if p.last != 0 {
			longest = max(longest, at-p.last)
		}
		p.last = at
	}
	p.log.Reset()
	return time.Duration(longest * float64(time.Second))
}

// follows waits for a node's neighbor cache to have an address at another
// node's MAC address.
func (l *lab) follows(node, holder string, a netip.Addr) {
	l.t.Helper()
	mac := strings.TrimSpace(l.in(holder, "cat /sys/class/net/eth0/address"))
	l.until("the neighbor cache has "+a.String()+" at "+holder, func() bool {
		return strings.Contains(l.in(node, "ip neigh show "+a.String()), mac)
	})
}
