package pop

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
)

func midDrain(now time.Time) standing {
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	return standing{
		Version: standingVersion, Node: "fra-1", Stage: DrainWithdraw, Since: now.Add(-time.Minute),
		Orders: fleet.Orders{
			Drain:    &fleet.Drain{Scope: fleet.ScopePop, Name: "fra", By: "ada", Reason: "disk"},
			Prefixes: []fleet.Drain{{Scope: fleet.ScopeNode, Name: "fra-1", Prefix: prefix}},
		},
	}
}

func TestStateFileIsFoundAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on the way")
	f, left, err := openStateFile(dir, "fra-1", quiet, newMetrics(nil))
	if err != nil || left.Stage != DrainNone || left.Orders.Drain != nil {
		t.Fatalf("%+v, %v", left, err)
	}
	want := midDrain(time.Now().UTC().Round(0))
	f.keep(standing{Version: standingVersion, Node: "fra-1", Stage: DrainDeprefer})
	f.keep(want) // the newest counts
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it is written all the same
	if err := f.run(ctx); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, standingFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%d files are left, want one", len(entries))
	}
	f.keep(want)
	if len(f.pending) != 0 {
		t.Error("what is written already is to be written again")
	}
	_, got, err := openStateFile(dir, "fra-1", quiet, newMetrics(nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

func TestDamagedStateFileCountsAsNone(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"cut off":       `{"version":1,"node":"fra-1","stage":"clo`,
		"another node":  `{"version":1,"node":"fra-2","stage":"close"}`,
		"newer":         `{"version":2,"node":"fra-1","stage":"close"}`,
		"unknown stage": `{"version":1,"node":"fra-1","stage":"gone"}`,
		"bad drain":     `{"version":1,"node":"fra-1","stage":"close","orders":{"drain":{"scope":"planet","name":"earth"}}}`,
		"huge":          strings.Repeat(" ", standingMax+1),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, standingFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, left, err := openStateFile(dir, "fra-1", quiet, newMetrics(nil))
		if err != nil || left.Stage != DrainNone || left.Orders.Drain != nil {
			t.Errorf("%s: %+v, %v", name, left, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openStateFile(file, "fra-1", quiet, newMetrics(nil)); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// A disk that comes back gets what was missed.
func TestStateFileIsWrittenWhenTheDiskIsBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	m := newMetrics(nil)
	f, _, err := openStateFile(dir, "fra-1", quiet, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f.pending = make(chan standing, 1) // of this bubble
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.run(ctx) }()
		f.keep(midDrain(time.Now()))
		time.Sleep(5 * standingRetry / 2)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(standingRetry)
		synctest.Wait()
		if _, err := os.Stat(filepath.Join(dir, standingFile)); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatCountsOfAnEarlierProcess(t *testing.T) {
	now := time.Now()
	s := midDrain(now)
	s.Orders.Drain.Until, s.Orders.Prefixes[0].Until = now.Add(time.Hour), now
	if got := s.at(now); got.Stage != DrainWithdraw || got.Orders.Drain == nil || len(got.Orders.Prefixes) != 0 {
		t.Errorf("%+v", got)
	}
	if got := s.at(now.Add(2 * time.Hour)); got.Stage != DrainNone || got.Orders.Drain != nil {
		t.Errorf("after its end: %+v", got)
	}
	if back := now.Add(-time.Hour); !s.at(back).Since.Equal(back) {
		t.Errorf("the clock was set back, and the stage is of %s", s.at(back).Since)
	}
}

// resumed is a node whose agent was started in the middle of a drain.
func resumed(n *node, stage DrainStage, since time.Time) {
	n.c.route.drain = drain{stage: stage, since: since}
	n.view.orders = drained
}

// An agent that is started in the middle of a drain goes on where it was, and
// the route is never up in between, whether the store answers or not.
func TestDrainGoesOnAfterARestart(t *testing.T) {
	for _, connected := range []bool{true, false} {
		for _, stage := range DrainStages()[1:] {
			simulate(t, func(t *testing.T, n *node) {
				n.view.connected = connected
				n.vitals.Connections = 3
				resumed(n, stage, time.Now().Add(-n.c.cfg.Drain.Deprefer.Std()/2))
				n.stays(Withdrawn, n.c.cfg.Drain.Deprefer.Std()/2-tick)
				if first := n.c.route.drain.stage; stage == DrainDeprefer && first != stage {
					t.Errorf("%s became %s at once", stage, first)
				}
				n.stays(Withdrawn, n.c.cfg.Drain.Withdraw.Std()+n.c.cfg.Drain.Close.Std()+time.Second)
				if n.c.route.drain.stage != DrainCompleted {
					t.Errorf("from %s the drain came to %s", stage, n.c.route.drain.stage)
				}
				if len(n.sets) != 0 {
					t.Errorf("the speaker was told %v", n.sets)
				}
				n.view.orders, n.view.connected = fleet.Orders{}, true
				n.await(Announced, time.Second)
			})
		}
	}
}

// Until the store has been asked for once, what an earlier process knew counts;
// then the store decides.
func TestOrdersOfAnEarlierProcessCountUntilTheStoreAnswers(t *testing.T) {
	store := fleet.NewMemory()
	f, err := fleet.New(fleet.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	m := newMember(f, store, parse(t, testConfig), quiet, newMetrics(nil))
	m.restored = midDrain(time.Now()).Orders
	if o := m.look(time.Now()).orders; o.Drain == nil || len(o.Prefixes) != 1 {
		t.Errorf("before: %+v", o)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	for view := f.View(); !view.Connected; view = f.View() {
		<-view.Changed()
	}
	if o := m.look(time.Now()).orders; o.Drain != nil || len(o.Prefixes) != 0 {
		t.Errorf("after: %+v", o)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDrainOfAPrefixDeprefersIt(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		cfg := n.c.cfg.BGP
		one := cfg.Prefixes[0]
		n.view.orders = fleet.Orders{Prefixes: []fleet.Drain{{Scope: fleet.ScopeNode, Name: "fra-1", Prefix: one}}}
		n.run(tick)
		for _, r := range n.sets[len(n.sets)-1] {
			if want := map[bool]int{true: cfg.Deprefer.Prepend, false: cfg.Announce.Prepend}[r.Prefix == one]; r.Prepend != want {
				t.Errorf("%s is prepended %d times, want %d", r.Prefix, r.Prepend, want)
			}
		}
		n.stays(Announced, time.Minute)
		told := len(n.sets)
		n.view.orders = fleet.Orders{}
		n.run(tick)
		if len(n.sets) != told+1 || n.sets[told][0].Prepend != 0 || n.sets[told][1].Prepend != 0 {
			t.Errorf("in the end: %v", n.sets[told:])
		}
		if n.store.acquires != 0 {
			t.Error("a lease was asked for")
		}
	})
}
