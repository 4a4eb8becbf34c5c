package edge

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"anyedge/test/lab/topology"
)

// singles is the default lab with one node in every PoP, so that a node's
// failure is its PoP's.
func singles() topology.Topology {
	t := topology.Default()
	for i := range t.Pops {
		t.Pops[i].Nodes = 1
	}
	return t
}

// drillCase is one failure and what it must look like.
type drillCase struct {
	name  string
	event func(ctx context.Context, l *Lab, node string) (time.Time, error)
	undo  func(t *testing.T, l *Lab, node string)
	// moves is how soon a client must be served elsewhere; 0: it stays.
	moves time.Duration
	// told: an UPDATE says so, soon after the agent has decided.
	told bool
}

// The bounds are those of a busy machine; the figures are the benchmark's. What
// only the hold time tells takes 3 s.
var drillCases = []drillCase{
	{"worker killed", func(_ context.Context, l *Lab, node string) (time.Time, error) { return l.KillWorker(node) }, nil, 0, false},
	{"worker hangs", func(_ context.Context, l *Lab, node string) (time.Time, error) { return l.HangWorker(node) }, nil, 3 * time.Second, true},
	{"agent killed", func(_ context.Context, l *Lab, node string) (time.Time, error) { return l.KillAgent(node) },
		func(t *testing.T, l *Lab, node string) { startAgain(t, l, node) }, time.Second, false},
	{"power off", func(ctx context.Context, l *Lab, node string) (time.Time, error) { return l.PowerOff(ctx, node) },
		func(t *testing.T, l *Lab, node string) { must(t, l.PowerOn(t.Context(), node)) }, 6 * time.Second, false},
	{"loss from the node", func(ctx context.Context, l *Lab, node string) (time.Time, error) { return l.Lose(ctx, uplink(l, node)) },
		func(t *testing.T, l *Lab, node string) { must(t, l.Mend(t.Context(), uplink(l, node))) }, 6 * time.Second, false},
	{"loss to the node", func(ctx context.Context, l *Lab, node string) (time.Time, error) {
		return l.Lose(ctx, downlink(l, node))
	},
		func(t *testing.T, l *Lab, node string) { must(t, l.Mend(t.Context(), downlink(l, node))) }, 6 * time.Second, false},
	{"drain", func(ctx context.Context, l *Lab, node string) (time.Time, error) { return l.Drain(ctx, node) },
		func(t *testing.T, l *Lab, node string) {
			_, err := l.Undrain(t.Context(), node)
			must(t, err)
		}, 3 * time.Second, true},
	{"sessions flap", func(ctx context.Context, l *Lab, node string) (time.Time, error) {
		return l.FlapSessions(ctx, l.Plan.Router(l.Plan.Machine(node).Pop).Name)
	}, nil, time.Second, false},
}

// TestDrills plays every failure once behind FRR and once behind BIRD.
func TestDrills(t *testing.T) {
	if os.Getenv("ANYEDGE_LAB") != "all" {
		t.Skip("more than a minute of failures: set ANYEDGE_LAB=all")
	}
	l := upForTest(t, singles())
	for _, side := range []struct{ node, client string }{{"fra-1", "paris"}, {"iad-1", "newyork"}} {
		pop := l.Plan.Machine(side.node).Pop
		for _, c := range drillCases {
			t.Run(fmt.Sprintf("%s/%s", l.Plan.Router(pop).Daemon, c.name), func(t *testing.T) {
				wait := max(c.moves, 2*time.Second)
				f, err := l.Measure(t.Context(), Drill{
					Node: side.node, Client: side.client, Rate: 100, Settle: time.Second, Limit: wait,
					Event: func(ctx context.Context) (time.Time, error) { return c.event(ctx, l, side.node) },
				})
				if c.undo != nil {
					c.undo(t, l, side.node)
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Log(f)
				c.judge(t, f)
				awaitServed(t, l, side.client, pop)
				if err := l.established(t.Context(), l.Plan.Router(pop).Name); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func (c drillCase) judge(t *testing.T, f Failover) {
	moved := f.Served.Sub(f.At)
	switch {
	case c.moves == 0 && (!f.Served.IsZero() || !f.Gone.IsZero()):
		t.Error("the client moved, or the route did")
	case c.moves > 0 && (f.Served.IsZero() || moved > c.moves):
		t.Errorf("served elsewhere after %v, want at most %v", moved, c.moves)
	}
	if after := f.Update.Sub(f.Decided); c.told && (f.Update.IsZero() || f.Decided.IsZero() || after > 500*time.Millisecond) {
		t.Errorf("decided at %v, UPDATE %v later", f.Decided, after)
	}
	if c.moves == 0 {
		if n := len(f.Results.Failed()); n > 2 {
			t.Errorf("%d requests failed, more than were under way", n)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func uplink(l *Lab, node string) topology.End { return l.Plan.Machine(node).Uplink() }

func downlink(l *Lab, node string) topology.End {
	end, _ := l.Plan.Peer(uplink(l, node))
	return end
}
