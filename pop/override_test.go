package pop

import (
	"net/netip"
	"testing"
	"time"

	"anyedge/internal/fleet"
)

// override puts one in force on a node, beside what else is asked of it.
func (n *node) override(action string, force bool) {
	n.view.orders.Override = &fleet.Override{Scope: fleet.ScopeNode, Name: "fra-1", Action: action, Force: force, By: "ada", Reason: "test"}
}

func TestOverrideToWithdrawAsksTheGuard(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.store.refusal = tooManyOut
		n.override(fleet.ActionWithdraw, false)
		n.await(Depreferred, time.Second)
		n.because("override: withdraw; withdraw refused: iad already out")
		n.stays(Depreferred, 10*time.Second)
		n.store.refusal = nil
		n.await(Withdrawn, 3*time.Second)
		n.view.orders.Override = nil
		n.await(Announced, time.Second)
		n.run(2 * leaseRetry)
		if n.store.held != "" {
			t.Error("the lease was not given back")
		}
		n.tells("depreferred", "withdrawn", "announced")
	})
}

// Without the store only force withdraws a node that serves.
func TestForceWithdrawsWithoutTheGuardAndSaysSo(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.view.connected = false
		n.override(fleet.ActionWithdraw, false)
		n.await(Depreferred, time.Second)
		n.stays(Depreferred, 10*time.Second)
		n.expectForced = true
		n.override(fleet.ActionWithdraw, true)
		n.await(Withdrawn, 2*tick)
		if n.store.acquires != 0 {
			t.Error("the guard was asked")
		}
		n.view.connected = true
		n.run(2 * tick)
		if n.store.held == "" {
			t.Error("the others do not know that the node is out")
		}
		n.stays(Withdrawn, 10*time.Second)
	})
}

func TestOverrideHoldsADrainUp(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.view.orders = drained
		n.await(Depreferred, time.Second)
		n.override(fleet.ActionAnnounce, false)
		n.await(Announced, 2*tick)
		n.stays(Announced, time.Minute)
		if n.c.route.drain.stage != DrainNone {
			t.Errorf("the drain is at %s", n.c.route.drain.stage)
		}
		n.view.orders.Override = nil
		n.await(Depreferred, 2*tick) // from the beginning
		n.stays(Depreferred, n.c.cfg.Drain.Deprefer.Std()-2*tick)
		n.await(Withdrawn, time.Second)
	})
}

func TestOverrideToAnnounceDoesNotHoldUpWhatCannotServe(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.override(fleet.ActionAnnounce, false)
		n.fails()
		n.await(Withdrawn, 4*time.Second)
		n.because("not ready for 2s")
		n.recovers()
		n.await(Announced, 3*time.Second) // before the hold-down has passed
		n.because("override: announce")
	})
}

func TestHungWorkerIsCuredWhileForceHoldsTheRouteUp(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.override(fleet.ActionAnnounce, true)
		pid := n.pid
		n.hung = true
		n.stays(Announced, 4*time.Second)
		if n.pid == pid {
			t.Error("the hung worker is still there")
		}
	})
}

func TestExceptions(t *testing.T) {
	p := netip.MustParsePrefix("192.0.2.0/24")
	drain := fleet.Orders{Prefixes: []fleet.Drain{{Prefix: p}}}
	override := func(action string, o fleet.Orders) fleet.Orders {
		o.PrefixOverrides = []fleet.Override{{Prefix: p, Action: action, Force: action == fleet.ActionWithdraw}}
		return o
	}
	for _, tc := range []struct {
		name   string
		all    Announcement
		rule   Rule
		orders fleet.Orders
		want   Announcement
	}{
		{"nothing", Announced, RuleHealthy, fleet.Orders{}, Announced},
		{"drain", Announced, RuleHealthy, drain, Depreferred},
		{"drain of what is less already", Depreferred, RuleRoom, drain, Depreferred},
		{"drain of what is out", Withdrawn, RuleDrain, drain, Withdrawn},
		{"override beats the drain of a prefix", Announced, RuleHealthy, override(fleet.ActionAnnounce, drain), Announced},
		{"de-preferred", Announced, RuleHealthy, override(fleet.ActionDepreference, fleet.Orders{}), Depreferred},
		{"announced in spite of remote trouble", Depreferred, RuleRemote, override(fleet.ActionAnnounce, fleet.Orders{}), Announced},
		{"announced in spite of the node's override", Depreferred, RuleOverride, override(fleet.ActionAnnounce, fleet.Orders{}), Announced},
		{"the node's drain takes it along", Depreferred, RuleDrain, override(fleet.ActionAnnounce, fleet.Orders{}), Depreferred},
		{"a refused withdrawal too", Depreferred, RuleLocalFailure, override(fleet.ActionAnnounce, fleet.Orders{}), Depreferred},
		{"not knowing too", Depreferred, RuleUnknown, override(fleet.ActionAnnounce, fleet.Orders{}), Depreferred},
		{"what is out stays out", Withdrawn, RuleLocalFailure, override(fleet.ActionAnnounce, fleet.Orders{}), Withdrawn},
		{"withdrawn by force", Announced, RuleHealthy, override(fleet.ActionWithdraw, fleet.Orders{}), Withdrawn},
		{"less, and withdrawn by force", Depreferred, RuleRoom, override(fleet.ActionWithdraw, drain), Withdrawn},
	} {
		ex := except(tc.all, tc.rule, tc.orders)
		if got := ex.of(p, tc.all); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		if other := netip.MustParsePrefix("2001:db8::/32"); ex.of(other, tc.all) != tc.all {
			t.Errorf("%s: another prefix is %s", tc.name, ex.of(other, tc.all))
		}
	}
}
