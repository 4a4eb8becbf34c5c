package pop

import (
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
	"anyedge/pop/guard"
	"anyedge/pop/proxy"
)

// decisions are those that were recorded since a number.
func (n *node) decisions(since uint64) []Decision {
	var list []Decision
	for _, d := range n.c.record.newest(recordLength) {
		if d.Number > since {
			list = append(list, d)
		}
	}
	return list
}

func (n *node) lastDecision() Decision {
	list := n.c.record.newest(1)
	if len(list) == 0 {
		n.t.Fatal("nothing is on record")
	}
	return list[0]
}

func TestOnlyChangesAreRecorded(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		before := n.lastDecision()
		if before.Announced != Announced || before.Rule != RuleHealthy || before.Guard.Answer != "not_asked" {
			t.Errorf("%+v", before)
		}
		for i := range 50 { // figures change, nothing else
			n.use(proxy.ResourceMemory, float64(i))
			n.vitals.Connections = int64(i)
			n.run(tick)
		}
		if more := n.decisions(before.Number); len(more) != 0 {
			t.Errorf("%d more were recorded: %+v", len(more), more[0])
		}
		n.use(proxy.ResourceMemory, 95)
		n.run(5 * tick)
		n.use(proxy.ResourceMemory, 96) // the same rule, other figures
		n.run(5 * tick)
		more := n.decisions(before.Number)
		if len(more) != 1 || more[0].Rule != RuleRoom || more[0].Room != "memory at 95% of its ceiling" || more[0].Announced != Depreferred {
			t.Errorf("%+v", more)
		}
	})
}

func TestTheGuardsFiguresAreRecorded(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.store.refusal = tooManyOut
		n.fails()
		n.await(Depreferred, 4*time.Second)
		n.view.asked = &GuardAsk{At: time.Now(), Cause: guard.TooManyOut, Figures: guard.Figures{Out: []string{"iad"}}}
		n.run(tick)
		d := n.lastDecision()
		if d.Wanted != Withdrawn || d.Announced != Depreferred || d.Rule != RuleLocalFailure || d.Guard.Answer != "refused" ||
			d.Guard.Asked == nil || d.Guard.Asked.Figures.Out[0] != "iad" || len(unhealthy(d)) == 0 {
			t.Errorf("%+v", d)
		}
		n.view.connected = false
		n.run(tick)
		if d := n.lastDecision(); d.Guard.Answer != "unreachable" || d.FleetConnected {
			t.Errorf("%+v", d)
		}
	})
}

func unhealthy(d Decision) (names []string) {
	for _, c := range d.Health.Checks {
		if c.State.String() == fleet.StateUnhealthy {
			names = append(names, c.Name)
		}
	}
	return names
}

func TestTheRecordIsBounded(t *testing.T) {
	var r record
	for i := range 3 * recordLength {
		r.add(Decision{Announced: Announcements()[i%2]})
	}
	list := r.newest(1 << 20)
	if len(list) != recordLength || list[0].Number != 2*recordLength+1 || list[recordLength-1].Number != 3*recordLength {
		t.Errorf("%d, from %d to %d", len(list), list[0].Number, list[len(list)-1].Number)
	}
}

func TestADrainIsRecordedStageByStage(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		before := n.lastDecision().Number
		n.view.orders = drained
		n.run(time.Minute)
		var stages []DrainStage
		for _, d := range n.decisions(before) {
			if len(stages) == 0 || stages[len(stages)-1] != d.Drain.Stage {
				stages = append(stages, d.Drain.Stage)
			}
			if d.Drain.Request == nil || d.Rule != RuleDrain {
				t.Errorf("%+v", d)
			}
		}
		if len(stages) != 4 || stages[0] != DrainDeprefer || stages[3] != DrainCompleted {
			t.Errorf("stages %v", stages)
		}
		synctest.Wait()
	})
}
