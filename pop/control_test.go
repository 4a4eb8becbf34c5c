package pop

import (
	"slices"
	"testing"
	"time"

	"anyedge/internal/health"
	"anyedge/pop/proxy"
)

// serving is simulate from the moment the node is announced.
func serving(t *testing.T, f func(t *testing.T, n *node), replace ...string) {
	t.Helper()
	simulate(t, func(t *testing.T, n *node) {
		n.await(Announced, 10*time.Second)
		n.run(time.Second)
		n.story = nil
		f(t, n)
	}, replace...)
}

func (n *node) tells(want ...string) {
	n.t.Helper()
	if !slices.Equal(n.story, want) {
		n.t.Errorf("what happened: %v, want %v", n.story, want)
	}
}

func TestAnnouncedOnlyAfterEveryAddressServed(t *testing.T) {
	simulate(t, func(t *testing.T, n *node) {
		n.broken["alt"] = true
		n.stays(Withdrawn, 30*time.Second)
		n.broken["alt"] = false
		n.await(Announced, 15*time.Second)
	})
}

func TestCrashWithinGraceChangesNothing(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.respawn = n.c.cfg.Worker.RespawnGrace.Std() - 2*tick
		n.crash("exit status 2")
		n.stays(Announced, time.Minute)
		n.tells()
		if n.store.acquires != 0 {
			t.Error("a lease was asked for")
		}
	})
}

// A node that is de-preferred for something else stays so while its worker is
// away: what was known last stands.
func TestCrashWithinGraceKeepsTheRouteDepreferred(t *testing.T) {
	for name, trouble := range map[string]func(n *node){
		"remote trouble": func(n *node) { n.vitals.Pools[0].Usable = 0 },
		"no room":        func(n *node) { n.use(proxy.ResourceMemory, 95) },
	} {
		t.Run(name, func(t *testing.T) {
			serving(t, func(t *testing.T, n *node) {
				trouble(n)
				n.await(Depreferred, time.Second)
				n.crash("signal: killed")
				n.stays(Depreferred, 10*time.Second)
				n.tells("depreferred")
			})
		})
	}
}

func TestWorkerNotReadyBeyondGraceWithdraws(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.respawn = time.Minute
		n.crash("exit status 2")
		n.stays(Announced, n.c.cfg.Worker.RespawnGrace.Std()-tick)
		n.await(Withdrawn, time.Second)
		n.because("not ready for 2s")
		n.stays(Withdrawn, 50*time.Second)
		n.await(Announced, 20*time.Second)
		// The successor was given the time to prove itself.
		n.tells("withdrawn", "announced")
	})
}

func TestCrashLimitWithdrawsUntilTheWindowHasPassed(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		for range n.c.cfg.Worker.CrashLimit - 1 {
			n.crash("exit status 2")
			n.stays(Announced, 3*time.Second)
		}
		n.crash("exit status 2")
		n.await(Withdrawn, time.Second)
		n.because("crashed 3 times within 1m")
		// The worker that runs now serves: it is left alone, or its end would
		// be the next crash, for ever.
		n.await(Announced, 2*time.Minute)
		n.tells("withdrawn", "announced")
	})
}

func TestHungWorkerIsWithdrawnThenKilledThenAnnouncedAnew(t *testing.T) {
	for name, hang := range map[string]func(n *node){
		"silent":       func(n *node) { n.hung = true },
		"fails probes": func(n *node) { n.broken["web"] = true },
	} {
		t.Run(name, func(t *testing.T) {
			serving(t, func(t *testing.T, n *node) {
				hang(n)
				n.await(Withdrawn, 3*time.Second)
				withdrawn := time.Now()
				n.broken["web"] = false // a new process cures it
				n.await(Announced, 20*time.Second)
				if held := time.Since(withdrawn); held < n.c.cfg.Health.HoldDown.Std() {
					t.Errorf("announced again after %s, the hold-down is %s", held, n.c.cfg.Health.HoldDown)
				}
				n.tells("withdrawn", "killed", "announced")
				if n.store.held != "" {
					n.run(2 * leaseRetry)
				}
				if n.store.held != "" || n.store.releases != 1 {
					t.Errorf("lease held under %q after %d releases, want it given back once", n.store.held, n.store.releases)
				}
			})
		})
	}
}

// Killing cures a hang. A successor gets the time to prove itself however slow
// the checks are, and an address that is missing does not cost one process
// after the other more often than hangPause.
func TestSuccessorIsNotKilledForItsPredecessor(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.hung = true
		n.await(Withdrawn, 3*time.Second)
		n.await(Announced, 2*time.Minute)
		n.tells("withdrawn", "killed", "announced")
	}, "node: {", "health: {rise: 20, hold_down: 100ms}\nnode: {")
}

func TestSlowStarterIsNotKilled(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.respawn = 10 * time.Second
		n.crash("exit status 2")
		n.await(Withdrawn, 3*time.Second)
		n.await(Announced, 20*time.Second)
		n.tells("withdrawn", "announced")
	})
}

// What the agent itself ended is no crash: after a cured hang the node need not
// wait for the crash window.
func TestKillsAreNotCrashes(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.broken["web"] = true
		n.run(30 * time.Second)
		if kills := len(n.story) - 1; kills < 3 || kills > 7 {
			t.Errorf("%d kills within 30s: %v", kills, n.story)
		}
		n.broken["web"] = false
		n.await(Announced, 20*time.Second)
	})
}

func TestStarvedControllerDoesNotJudgeSilence(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		for _, pause := range []time.Duration{800 * time.Millisecond, 5 * time.Second} {
			time.Sleep(pause) // this process does not run
			// It runs again, and looks several times before the vitals that
			// are waiting reach it.
			for range 5 {
				n.decide()
			}
			n.stays(Announced, time.Minute)
		}
		n.tells()
	})
}

func TestStarvationDoesNotExcuseAHang(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.hung = true
		time.Sleep(5 * time.Second)
		n.await(Withdrawn, 3*time.Second)
	})
}

func TestUnknownChangesNothing(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			time.Sleep(tick) // vitals, but no probe says anything any more
			v := n.vitals
			n.c.event(workerEvent{at: time.Now(), pid: n.pid, vitals: &v})
			n.decide()
		}
		if n.last.Verdict.State != health.Unknown {
			t.Fatalf("verdict %s, want unknown", n.last.Verdict.State)
		}
		n.tells()
		n.because("health unknown, nothing changes")
	})
}

func TestRemoteTroubleOnlyDeprefers(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.vitals.Pools[0].Usable = 0
		n.await(Depreferred, time.Second)
		n.because("remote trouble: pool api")
		n.stays(Depreferred, 5*time.Minute)
		n.vitals.Pools[0].Usable = 1
		n.await(Announced, time.Second)
		n.tells("depreferred", "announced")
		if n.store.acquires != 0 {
			t.Error("a lease was asked for")
		}
	})
}

func TestLackOfRoomOnlyDeprefersUntilBelowTheWarnMark(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		for _, m := range []struct {
			resource string
			used     float64
			want     Announcement
		}{
			{proxy.ResourceConnections, 89, Announced},
			{proxy.ResourceConnections, 90, Depreferred},
			{proxy.ResourceConnections, 71, Depreferred}, // moved load does not swing the route
			{proxy.ResourceConnections, 69, Announced},
			{proxy.ResourceConnections, 75, Announced},
			{proxy.ResourceDescriptors, 99, Depreferred},
			{proxy.ResourceMemory, 75, Announced}, // another resource's warn mark does not hold it
			{proxy.ResourceCPU, 100, Announced},   // busy is slow, not full
		} {
			n.use(m.resource, m.used)
			n.run(time.Second)
			if n.c.route.announced != m.want {
				t.Errorf("%s at %.0f%%: %s (%s), want %s", m.resource, m.used, n.c.route.announced, n.c.route.reason, m.want)
			}
		}
		if n.store.acquires != 0 {
			t.Error("a lease was asked for")
		}
	})
}

func TestNewConfigIsAnnouncedAtOnce(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		next := parse(t, testConfig, "192.0.2.0/24", "198.51.100.0/24")
		n.c.configure(time.Now(), next)
		n.c.set(t.Context())
		n.stays(Announced, 10*time.Second)
		if got := n.sets[len(n.sets)-1]; len(got) != 2 || got[0].Prefix != next.BGP.Prefixes[0] {
			t.Errorf("announced %v, want the new prefix", got)
		}
	})
}

// An address that a new config adds has to serve before the route goes up, but
// its silence does not take a route down.
func TestAddedAddressIsUnknownUntilProbed(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		more := parse(t, testConfig, "routes:", "  - {name: new, address: \"127.0.0.1:8082\", clear: true}\nroutes:")
		n.c.configure(time.Now(), more)
		n.decide()
		if n.last.Verdict.State != health.Unknown || n.c.route.announced != Announced {
			t.Errorf("%s, %s", n.last.Verdict.State, n.c.route.announced)
		}
		n.broken["new"] = true
		n.await(Withdrawn, 3*time.Second)
	})
}
