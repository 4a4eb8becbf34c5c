package vrrp

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The kernel takes the addresses of a killed router off by itself, and leaves
// alone what is not leased.
func TestAddressesOfAKilledRouterExpire(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		p := l.router("a", Config{Addresses: virtual})
		p.becomes(Active)
		l.until("the addresses are there", func() bool { return l.hasAll("a", virtual) })
		p.end(syscall.SIGKILL)
		if !l.hasAll("a", virtual) {
			t.Fatal("the addresses went with the process")
		}
		took := l.until("the leases run out", func() bool { return !l.hasAny("a", virtual) })
		within(t, "killed: addresses are off", took, minLease+3*time.Second)
		if own := l.in("a", "ip -o addr show dev eth0"); !strings.Contains(own, "192.0.2.1/24") || !strings.Contains(own, "2001:db8::1/64") {
			t.Errorf("own addresses are gone too:\n%s", own)
		}
	})
}

// A router that starts again removes what it left, before it knows whether it
// may be Active.
func TestAddressesOfAnEarlierLifeAreRemoved(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		p := l.router("a", Config{Addresses: virtual, Interval: 500 * time.Millisecond})
		p.becomes(Active)
		l.until("the addresses are there", func() bool { return l.hasAll("a", virtual) })
		p.end(syscall.SIGKILL)
		l.router("b", Config{Addresses: virtual, Interval: 500 * time.Millisecond}).becomes(Backup)
		l.router("a", Config{Addresses: virtual}).becomes(Backup)
		if l.hasAny("a", virtual) {
			t.Error("a Backup Router has the addresses of its earlier life")
		}
	})
}

// While it is Active, a router puts back what somebody removes.
func TestAddressesAreRenewed(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		l.router("a", Config{Addresses: virtual}).becomes(Active)
		l.until("the addresses are there", func() bool { return l.hasAll("a", virtual) })
		l.in("a", "ip addr del "+virtual[0].String()+" dev eth0")
		l.until("the address is back", func() bool { return l.hasAll("a", virtual) })
		for end := time.Now().Add(minLease + time.Second/2); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if !l.hasAll("a", virtual) {
				t.Fatal("the lease of an Active Router ran out")
			}
		}
	})
}

// An address that somebody else configured keeps a router out of the election,
// and is never removed; the owner lives with it.
func TestForeignAddressIsLeftAlone(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		l.in("a", "ip addr add "+virtual[0].String()+" dev eth0")
		p := l.router("a", Config{Addresses: virtual})
		l.until("the link is looked at", func() bool { return l.hasAll("a", virtual[:1]) })
		l.router("b", Config{Addresses: virtual}).becomes(Active)
		p.end(syscall.SIGTERM)
		if !l.hasAll("a", virtual[:1]) {
			t.Fatal("removed what is not ours")
		}
		if strings.Contains(p.text(), "to=active") {
			t.Error("Active with an address of somebody else's")
		}

		p = l.router("a", Config{Addresses: virtual, Priority: PriorityOwner})
		p.becomes(Active)
		l.until("the other addresses are there", func() bool { return l.hasAll("a", virtual) })
		p.end(syscall.SIGTERM)
		if !l.hasAll("a", virtual[:1]) {
			t.Error("removed the owner's address")
		}
		if l.hasAny("a", virtual[1:]) {
			t.Error("left a leased address")
		}
	})
}

// A router whose link goes down is out, and announces itself when it is back.
func TestLinkDownAndUp(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		a := l.router("a", Config{Addresses: virtual, Priority: 200, Preempt: true})
		a.becomes(Active)
		b := l.router("b", Config{Addresses: virtual})
		b.becomes(Backup)
		l.in("lan", "ip link set to-a down")
		within(t, "down: out of the election", a.becomes(Initialize), time.Second)
		a.await("what is in the way", func(_ string, s Status) bool { return s.Obstacle == "the interface is down" })
		within(t, "down: the other is Active", b.becomes(Active), time.Second)
		l.until("the addresses are off", func() bool { return !l.hasAny("a", virtual) })
		l.in("lan", "ip link set to-a up")
		a.becomes(Active)
		b.becomes(Backup)
		// The interface itself goes away and comes back.
		l.in("a", "ip link del eth0")
		b.becomes(Active)
		a.becomes(Initialize)
		l.ip("link add eth0 netns " + l.ns("a") + " type veth peer name to-a netns " + l.ns("lan"))
		l.in("lan", "ip link set to-a master br0 up")
		l.in("a", "ip link set eth0 up")
		l.in("a", "ip addr add 192.0.2.1/24 dev eth0")
		a.becomes(Active)
		b.becomes(Backup)
		l.until("the addresses are there", func() bool { return l.hasAll("a", virtual) })
	})
}

// A router that was stopped while another took over does not claim the
// addresses back, unless it may preempt.
func TestStoppedRouterYields(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, l *lab, virtual []netip.Prefix) {
		a := l.router("a", Config{Addresses: virtual, Priority: 200})
		a.becomes(Active)
		b := l.router("b", Config{Addresses: virtual})
		b.becomes(Backup)
		a.signal(syscall.SIGSTOP)
		within(t, "stopped: the other is Active", b.becomes(Active), time.Second)
		a.signal(syscall.SIGCONT)
		a.becomes(Backup)
		l.until("the addresses are off", func() bool { return !l.hasAny("a", virtual) })
		if n := strings.Count(b.text(), "to=backup"); n != 1 {
			t.Errorf("the other became a Backup Router %d times, want only at its start", n)
		}
	})
}

// De-preferred, a router hands over to one that may preempt, and takes back.
func TestDeprefer(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.router("a", Config{Addresses: virtual4, Priority: 200, Preempt: true})
	a.becomes(Active)
	b := l.router("b", Config{Addresses: virtual4, Preempt: true})
	b.becomes(Backup)
	a.set(Health{Serving: true, Priority: 50, Reason: "no room"})
	within(t, "de-preferred: the other is Active", b.becomes(Active), time.Second)
	a.becomes(Backup)
	a.set(Health{Serving: true})
	within(t, "preferred again: Active", a.becomes(Active), time.Second)
}
