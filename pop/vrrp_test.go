package pop

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/pop/vrrp"
)

// smallPop makes testConfig one of a PoP with VRRP.
var smallPop = []string{
	"127.0.0.1:8080", "192.0.2.1:80", "127.0.0.1:8081", "[2001:db8::1]:80",
	testConfig[strings.Index(testConfig, "bgp:"):], `
vrrp:
  - {interface: eth0, vrid: 51, priority: 200, depreferred_priority: 7, addresses: [192.0.2.1/24]}
  - {interface: eth0, vrid: 51, priority: 200, addresses: ["fe80::1/64", "2001:db8::1/64"]}
`}

// election is the virtual routers of a node, as told.
type election struct {
	n       *node
	routers []vrrp.Status
}

func (e *election) status() []vrrp.Status { return e.routers }

func (e *election) set(a Announcement, reason string) {
	e.n.told = a
	e.n.story = append(e.n.story, string(a))
	if reason == "" {
		e.n.t.Errorf("%s without a reason", a)
	}
}

// standingBy simulates a node in a PoP with VRRP, whose routers have not looked
// at their interface yet.
func standingBy(t *testing.T, f func(t *testing.T, n *node, e *election)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, smallPop...)
		e := &election{n: n, routers: []vrrp.Status{
			{Interface: "eth0", VRID: 51, Family: vrrp.IPv4, State: vrrp.Initialize},
			{Interface: "eth0", VRID: 51, Family: vrrp.IPv6, State: vrrp.Initialize},
		}}
		n.c.speaker, n.c.elector = nil, e
		defer n.c.route.lease.settle()
		f(t, n, e)
	})
}

// enter has all routers be in a state.
func (e *election) enter(s vrrp.State) {
	for i := range e.routers {
		e.routers[i].State, e.routers[i].Since = s, time.Now()
	}
}

func TestElectionFollowsTheAnnouncement(t *testing.T) {
	standingBy(t, func(t *testing.T, n *node, e *election) {
		n.stays(Withdrawn, 10*time.Second) // nobody knows yet whether the interface will do
		e.enter(vrrp.Initialize)
		n.await(Announced, 10*time.Second)
		e.enter(vrrp.Backup)
		n.stays(Announced, 10*time.Second) // standing by is no trouble
		if !n.last.Standby {
			t.Error("a Backup does not stand by")
		}
		e.routers[0].State = vrrp.Active
		n.run(2 * tick)
		if n.last.Standby {
			t.Error("stands by with one of its addresses in service")
		}
		n.vitals.Pools[0].Usable = 0
		n.await(Depreferred, time.Second)
		n.vitals.Pools[0].Usable = 1
		n.await(Announced, time.Second)
		n.hung = true
		n.await(Withdrawn, 5*time.Second)
		n.await(Announced, time.Minute)
		n.tells("announced", "depreferred", "announced", "withdrawn", "killed", "announced")
	})
}

// A node that could not take the addresses does not count as one that can.
func TestObstacleIsAFailureToServe(t *testing.T) {
	standingBy(t, func(t *testing.T, n *node, e *election) {
		e.enter(vrrp.Backup)
		n.await(Announced, 10*time.Second)
		e.routers[1].Obstacle = "the interface is down"
		n.await(Withdrawn, time.Second)
		n.because("the interface is down")
		e.enter(vrrp.Initialize) // as it was told
		n.stays(Withdrawn, time.Minute)
		e.routers[1].Obstacle = ""
		n.await(Announced, time.Minute)
		n.tells("announced", "withdrawn", "announced") // and killed nobody
	})
}

func TestHealthOfTheElection(t *testing.T) {
	for a, want := range map[Announcement]vrrp.Health{
		Announced:   {Serving: true, Reason: "why"},
		Depreferred: {Serving: true, Priority: 7, Reason: "why"},
		Withdrawn:   {Reason: "why"},
	} {
		if got := electionHealth(a, 7, "why"); got != want {
			t.Errorf("%s: %+v, want %+v", a, got, want)
		}
	}
}

func TestVirtualRoutersOfAConfig(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if v, err := newVirtualRouters(nil, log, nil); v != nil || err != nil {
		t.Errorf("%v, %v without any", v, err)
	}
	cfg := parse(t, testConfig, smallPop...)
	v, err := newVirtualRouters(cfg.VRRP, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	checks := checks(cfg)[len(cfg.Listeners)+1:]
	for i, s := range v.status() {
		if s.Priority != 200 || s.State != vrrp.Initialize || vrrpCheck(s.Interface, s.VRID, s.Family) != checks[i] {
			t.Errorf("%+v, its check is %s", s, checks[i])
		}
	}
	if got := v.tasks()[1].String(); got != "vrrp eth0/51/ipv6" {
		t.Errorf("task %s", got)
	}
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::1")}
	for i, a := range virtualAddresses(cfg) {
		if a != want[i] {
			t.Errorf("virtual address %s, want %s", a, want[i])
		}
	}
	cfg.VRRP[0].VRID = 0
	if _, err := newVirtualRouters(cfg.VRRP, log, nil); err == nil || !strings.Contains(err.Error(), "vrrp[0]: ") {
		t.Errorf("a bad one: %v", err)
	}
	if err := configs.RestartNeeded(parse(t, testConfig, smallPop...), cfg); err == nil || !strings.Contains(err.Error(), "vrrp changed") {
		t.Errorf("changed while running: %v", err)
	}
}

// A Backup has no clients that would move, and says that it stands by.
func TestReportOfABackup(t *testing.T) {
	store := fleet.NewMemory()
	p := newPeer(t, store, "osl-1", "osl")
	r := fleet.Report{Node: "osl-1", Pop: "osl", State: fleet.StateHealthy, Announcement: fleet.Announced,
		Usage: []fleet.Usage{{Resource: "connections", Used: 5, Ceiling: 10}}}
	for _, standby := range []bool{true, false} {
		r.Standby = standby
		p.tell(r)
		p.sees(t, "its report", func(v *fleet.View) bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			nodes := p.census.nodes(time.Now(), v)
			return len(nodes) == 1 && nodes[0].Standby == standby && nodes[0].Serving && len(nodes[0].Usage) == 1
		})
		err := p.underSession(plea{}, func(_ fleet.Session, l fleet.Lease) error {
			if (len(l.Usage) == 0) != standby {
				t.Errorf("standby %v: a lease for the load %v", standby, l.Usage)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
