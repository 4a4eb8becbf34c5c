package fleet_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/fleettest"
)

// bench is a running Fleet in a synctest bubble.
type bench struct {
	t      *testing.T
	memory *fleet.Memory
	faults *fleettest.Faults
	fleet  *fleet.Fleet
	log    *syncBuffer
	reg    *prometheus.Registry
}

// onBench runs test with a Fleet that runs, and checks that Run ends.
func onBench(t *testing.T, test func(*bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, memory: fleet.NewMemory(), log: new(syncBuffer), reg: prometheus.NewRegistry()}
		b.faults = fleettest.NewFaults(b.memory)
		var err error
		b.fleet, err = fleet.New(fleet.Config{
			Store:   b.faults,
			Sealer:  sealer(t, keyLine(1)),
			Log:     slog.New(slog.NewTextHandler(b.log, nil)),
			Metrics: b.reg,
			ValidRing: func(ring []byte) error {
				if !bytes.HasPrefix(ring, []byte("ring")) {
					return fmt.Errorf("not a ring")
				}
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.fleet.Run(ctx) }()
		test(b)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

// await waits until the View satisfies want, and returns it.
func (b *bench) await(what string, want func(*fleet.View) bool) *fleet.View {
	b.t.Helper()
	return await(b.t, b.fleet, what, time.Minute, want)
}

func await(t testing.TB, f *fleet.Fleet, what string, patience time.Duration, want func(*fleet.View) bool) *fleet.View {
	t.Helper()
	late := time.After(patience)
	for {
		view := f.View()
		if want(view) {
			return view
		}
		select {
		case <-view.Changed():
		case <-late:
			t.Fatalf("not within %v: %s; view %+v", patience, what, view)
		}
	}
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) raw(key, value string) {
	b.t.Helper()
	e, _ := b.memory.Get(b.t.Context(), key)
	_, err := b.memory.CompareAndSwap(b.t.Context(), key, []byte(value), e.Index)
	b.must(err)
}

// metric returns the sum of a metric over its labels.
func (b *bench) metric(name string) float64 {
	b.t.Helper()
	families, err := b.reg.Gather()
	b.must(err)
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == name })
	if i < 0 {
		b.t.Fatalf("no metric %s", name)
	}
	sum := 0.0
	for _, m := range families[i].GetMetric() {
		sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return sum
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), text)
}

func connected(v *fleet.View) bool { return v.Connected }
func lost(v *fleet.View) bool      { return !v.Connected }
func allLost(fleettest.Op, string) fleettest.Fault {
	return fleettest.Lost
}
func allHang(fleettest.Op, string) fleettest.Fault {
	return fleettest.Hang
}

func TestViewShowsEverything(t *testing.T) {
	onBench(t, func(b *bench) {
		ctx, s := t.Context(), session(b.t, b.memory)
		v := b.fleet.View()
		if v.Connected || !v.ConnectedSince.IsZero() || v.LostSince.IsZero() {
			t.Fatalf("at first: %+v", v)
		}
		v = b.await("connection", connected)
		if len(v.Reports) != 0 || v.Inventory == nil || v.ConnectedSince.IsZero() {
			t.Fatalf("connected to an empty store: %+v", v)
		}
		b.must(b.fleet.PutReport(ctx, s, report("iad-1")))
		b.must(b.fleet.PutReport(ctx, s, report("fra-1")))
		b.must(b.fleet.SetDrain(ctx, fleet.Drain{Scope: fleet.ScopeRegion, Name: "eu"}))
		b.must(b.fleet.SetDrain(ctx, fleet.Drain{Scope: fleet.ScopeNode, Name: "fra-1"}))
		b.must(b.fleet.SetInventory(ctx, "api", []fleet.Backend{backend("10.0.0.1:80")}))
		b.must(b.fleet.SetInventory(ctx, "empty", nil))
		index, err := b.fleet.PutRing(ctx, []byte("ring 1"), 0)
		b.must(err)
		b.must(b.fleet.AcquireLease(ctx, s, lease("fra-1"), always))
		v = b.await("everything", func(v *fleet.View) bool { return len(v.Reports) == 2 && len(v.Leases.Holders) == 1 })

		if v.Reports[0].Node != "fra-1" || v.Reports[1].Node != "iad-1" {
			t.Errorf("reports %+v", v.Reports)
		}
		if _, ok := v.Drained("fra-1", "fra", "eu", time.Now()); !ok || len(v.Drains) != 2 || v.Drains[0].Scope != fleet.ScopeNode {
			t.Errorf("drains %+v", v.Drains)
		}
		if set, ok := v.Inventory["empty"]; !ok || set == nil || len(v.Inventory["api"]) != 1 {
			t.Errorf("inventory %+v", v.Inventory)
		}
		if string(v.Ring) != "ring 1" || v.RingIndex != index {
			t.Errorf("ring %q %d, want index %d", v.Ring, v.RingIndex, index)
		}
		if v.Leases.Holders[0].Node != "fra-1" || v.Leases.Holders[0].Session != s {
			t.Errorf("leases %+v", v.Leases)
		}

		b.must(b.fleet.ClearDrain(ctx, fleet.ScopeRegion, "eu"))
		b.must(b.fleet.ReleaseLease(ctx, "fra-1"))
		b.await("drain and lease gone", func(v *fleet.View) bool { return len(v.Drains) == 1 && len(v.Leases.Holders) == 0 })
		if len(v.Drains) != 2 {
			t.Error("an older View changed")
		}
	})
}

func TestSeenIsWhenTheReportChanged(t *testing.T) {
	onBench(t, func(b *bench) {
		ctx, s := t.Context(), session(b.t, b.memory)
		b.await("connection", connected)
		at := make(map[string]time.Time)
		for _, node := range []string{"a", "b"} {
			time.Sleep(time.Minute)
			at[node] = time.Now()
			r := report("x")
			r.Node, r.Pop = node, "p"
			b.must(b.fleet.PutReport(ctx, s, r))
		}
		v := b.await("both", func(v *fleet.View) bool { return len(v.Reports) == 2 })
		// A reconnection reads all again, and changes nothing about when.
		b.faults.Set(allLost)
		b.await("loss", lost)
		b.faults.Set(nil)
		v2 := b.await("recovery", connected)
		for node, want := range at {
			for _, v := range []*fleet.View{v, v2} {
				seen, ok := v.Report(node)
				if late := seen.At.Sub(want); !ok || late < 0 || late > time.Second {
					t.Errorf("%s was seen %v after it was written", node, late)
				}
			}
		}
	})
}

func TestSessionEndShowsInTheView(t *testing.T) {
	onBench(t, func(b *bench) {
		ctx := t.Context()
		s, err := b.memory.NewSession(ctx, "n", 10*time.Second)
		b.must(err)
		b.must(b.fleet.PutReport(ctx, s, report("fra-1")))
		b.must(b.fleet.AcquireLease(ctx, s, lease("fra-1"), always))
		b.await("report and lease", func(v *fleet.View) bool { return len(v.Reports) == 1 && len(v.Leases.Holders) == 1 })
		began := time.Now()
		b.await("their end", func(v *fleet.View) bool { return len(v.Reports) == 0 && len(v.Leases.Holders) == 0 })
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("the session ended after %v", took)
		}
	})
}

// However the store goes away, the View says so within about a second, keeps
// what it knew, asks at a bounded pace, and comes back by itself.
func TestViewSurvivesLoss(t *testing.T) {
	for name, fault := range map[string]func(fleettest.Op, string) fleettest.Fault{
		"refused": allLost,
		"hanging": allHang,
		"silent":  allHang, // and connections stay open
		"writes and pulse only": func(op fleettest.Op, _ string) fleettest.Fault {
			if op == fleettest.OpGet {
				return fleettest.Hang
			}
			return fleettest.None
		},
		"watch only": func(op fleettest.Op, _ string) fleettest.Fault {
			if op == fleettest.OpWatch || op == fleettest.OpList {
				return fleettest.Lost
			}
			return fleettest.None
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(b *bench) {
				var broken atomic.Bool
				b.faults.Set(b.when(&broken, fault))
				b.must(b.fleet.SetInventory(t.Context(), "api", []fleet.Backend{backend("10.0.0.1:80")}))
				before := b.await("inventory", func(v *fleet.View) bool { return v.Connected && len(v.Inventory) == 1 })
				time.Sleep(3 * time.Minute)
				if v := b.fleet.View(); v != before {
					t.Error("a quiet store makes new views")
				}

				gone := time.Now()
				broken.Store(true)
				if name != "silent" {
					b.faults.Set(b.when(&broken, fault))
				}
				v := b.await("loss", lost)
				if took := v.LostSince.Sub(gone); took < 0 || took > 1300*time.Millisecond {
					t.Errorf("the loss showed after %v", took)
				}
				calls := b.calls()
				const outage = 10 * time.Minute
				time.Sleep(outage)
				if v := b.fleet.View(); v.Connected || len(v.Inventory) != 1 {
					t.Errorf("during the outage: %+v", v)
				}
				if asked := b.calls() - calls; asked < 100 || asked > 6*int(outage/time.Second) {
					t.Errorf("asked %d times in %v", asked, outage)
				}
				// A fault that only the pulse feels is preceded by the end of the
				// connections, from which the streams recover.
				n := b.log.count("out of reach")
				if n < 1 || n > 2 {
					t.Errorf("the loss was logged %d times", n)
				}
				if b.metric("anyedge_fleet_connected") != 0 || b.metric("anyedge_fleet_disconnects_total") != float64(n) {
					t.Error("the metrics do not show the loss")
				}

				back := time.Now()
				b.faults.Set(nil)
				v = b.await("recovery", connected)
				if took := v.ConnectedSince.Sub(back); took > 5*time.Second {
					t.Errorf("recovered after %v", took)
				}
				if len(v.Inventory) != 1 || b.metric("anyedge_fleet_connected") != 1 || b.metric("anyedge_fleet_view_age_seconds") > 1 {
					t.Errorf("after recovery: %+v", v)
				}
				b.must(b.fleet.SetInventory(t.Context(), "web", nil))
				b.await("new inventory", func(v *fleet.View) bool { return len(v.Inventory) == 2 })
			})
		})
	}
}

// when applies fault while broken is set.
func (b *bench) when(broken *atomic.Bool, fault func(fleettest.Op, string) fleettest.Fault) func(fleettest.Op, string) fleettest.Fault {
	return func(op fleettest.Op, key string) fleettest.Fault {
		if !broken.Load() {
			return fleettest.None
		}
		return fault(op, key)
	}
}

func (b *bench) calls() int {
	n := 0
	for _, op := range []fleettest.Op{fleettest.OpGet, fleettest.OpList, fleettest.OpWatch} {
		n += b.faults.Calls(op)
	}
	return n
}

func TestStoreThatWasNeverThere(t *testing.T) {
	onBench(t, func(b *bench) {
		b.faults.Set(allLost)
		time.Sleep(time.Minute)
		if v := b.fleet.View(); v.Connected || !v.ConnectedSince.IsZero() {
			t.Errorf("%+v", v)
		}
		if age := b.metric("anyedge_fleet_view_age_seconds"); age < 59 {
			t.Errorf("view age %v", age)
		}
		if n := b.log.count("out of reach"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		b.faults.Set(nil)
		b.await("connection", connected)
	})
}

// The store is replaced by an empty one whose index begins anew, with an outage
// in between or without anybody noticing.
func TestReplacedStore(t *testing.T) {
	for _, outage := range []bool{true, false} {
		t.Run(fmt.Sprintf("outage=%v", outage), func(t *testing.T) {
			onBench(t, func(b *bench) {
				ctx, s := t.Context(), session(b.t, b.memory)
				for range 100 {
					b.must(b.fleet.PutReport(ctx, s, report("fra-1")))
				}
				b.await("report", func(v *fleet.View) bool { return v.Connected && len(v.Reports) == 1 })
				if outage {
					b.faults.Set(allLost)
					b.await("loss", lost)
				}
				empty := fleet.NewMemory()
				b.faults.SetStore(empty)
				if outage {
					b.faults.Set(nil)
				}
				b.await("the report's end", func(v *fleet.View) bool { return v.Connected && len(v.Reports) == 0 })
				b.must(b.fleet.PutReport(ctx, session(b.t, empty), report("iad-1")))
				b.await("a new report", func(v *fleet.View) bool { return len(v.Reports) == 1 && v.Reports[0].Node == "iad-1" })
			})
		})
	}
}

// The new store has the same values under the same indexes, bound to another
// session: that is a change.
func TestReplacedStoreWithEqualIndexes(t *testing.T) {
	onBench(t, func(b *bench) {
		other := fleet.NewMemory()
		first, second := session(b.t, b.memory), session(b.t, other)
		document := fmt.Sprintf(`{"holders":[{"node":"fra-1","pop":"fra","session":%q}]}`, second)
		for store, s := range map[*fleet.Memory]fleet.Session{b.memory: first, other: second} {
			b.must(store.Bind(t.Context(), "state/holders/fra-1", []byte("x"), s))
			_, err := store.CompareAndSwap(t.Context(), "state/leases", []byte(document), 0)
			b.must(err)
		}
		if v := b.await("connection", connected); len(v.Leases.Holders) != 0 {
			t.Fatalf("a lease of another session is alive: %+v", v.Leases)
		}
		b.faults.SetStore(other)
		b.faults.Set(nil)
		b.await("the lease", func(v *fleet.View) bool { return len(v.Leases.Holders) == 1 })
	})
}

func TestBadValueKeepsTheLastGoodOne(t *testing.T) {
	onBench(t, func(b *bench) {
		ctx, s := t.Context(), session(b.t, b.memory)
		b.must(b.fleet.PutReport(ctx, s, report("fra-1")))
		b.must(b.fleet.SetDrain(ctx, fleet.Drain{Scope: fleet.ScopePop, Name: "fra"}))
		b.must(b.fleet.SetInventory(ctx, "api", []fleet.Backend{backend("10.0.0.1:80")}))
		b.must(b.fleet.AcquireLease(ctx, s, lease("fra-1"), always))
		_, err := b.fleet.PutRing(ctx, []byte("ring 1"), 0)
		b.must(err)
		complete := func(v *fleet.View) bool {
			return len(v.Reports) == 1 && len(v.Drains) == 1 && len(v.Inventory["api"]) == 1 &&
				len(v.Leases.Holders) == 1 && string(v.Ring) == "ring 1"
		}
		b.await("all values", complete)
		seen := b.fleet.View().Reports[0].At

		good := make(map[string]string)
		bad := map[string]string{
			"reports/fra-1":        `{"node":"fra-1"}`,
			"state/drains/pop/fra": `{"scope":"pop","name":"iad"}`,
			"state/inventory/api":  `{"backends":[{"address":"10.0.0.1:80"},{"address":"oops"}]}`,
			"state/leases":         `{`,
			"state/ring":           "in clear",
			"state/inventory/new":  `[]`, // has no last good value
		}
		var keys []string
		for key, value := range bad {
			keys = append(keys, key)
			if e, err := b.memory.Get(ctx, key); err == nil {
				good[key] = string(e.Value)
			}
			b.raw(key, value)
		}
		slices.Sort(keys)
		v := b.await("rejections", func(v *fleet.View) bool { return slices.Equal(v.Rejected, keys) })
		if !complete(v) || !v.Reports[0].At.Equal(seen) {
			t.Errorf("a good value was given up: %+v", v)
		}
		if _, ok := v.Inventory["new"]; ok {
			t.Error("a bad value without a good one is shown")
		}
		// Read again, they are neither counted nor logged again.
		b.faults.Set(allLost)
		b.await("loss", lost)
		b.faults.Set(nil)
		b.await("recovery", connected)
		b.raw("state/inventory/other", `{"backends":[]}`)
		b.await("something else", func(v *fleet.View) bool { return len(v.Inventory) == 2 })
		if n := b.log.count("rejected"); n != len(bad) || b.metric("anyedge_fleet_rejected_values_total") != float64(len(bad)) {
			t.Errorf("logged %d times for %d bad values", n, len(bad))
		}
		for key, value := range good {
			b.raw(key, value)
		}
		b.await("all good again", func(v *fleet.View) bool {
			return complete(v) && slices.Equal(v.Rejected, []string{"state/inventory/new"})
		})
		e, err := b.memory.Get(ctx, "state/inventory/new")
		b.must(err)
		_, err = b.memory.CompareAndSwap(ctx, e.Key, nil, e.Index)
		b.must(err)
		b.await("nothing rejected", func(v *fleet.View) bool { return len(v.Rejected) == 0 })
	})
}

func TestUnknownKeysArePassedOver(t *testing.T) {
	onBench(t, func(b *bench) {
		b.raw("state/later-version", "?")
		b.raw("state/drains", "?")
		b.raw("elsewhere", "?")
		b.must(b.fleet.SetDrain(t.Context(), fleet.Drain{Scope: fleet.ScopePop, Name: "fra"}))
		v := b.await("drain", func(v *fleet.View) bool { return len(v.Drains) == 1 })
		if len(v.Rejected) != 0 {
			t.Errorf("rejected %v", v.Rejected)
		}
	})
}

// Many nodes report all the time. The reader must not read everything for each.
func TestReadingsAreFewerThanReports(t *testing.T) {
	onBench(t, func(b *bench) {
		b.await("connection", connected)
		s := session(b.t, b.memory)
		const nodes, seconds = 50, 20
		before := b.faults.Calls(fleettest.OpWatch)
		for range seconds {
			for i := range nodes {
				r := report("x")
				r.Node, r.Pop = fmt.Sprintf("n%02d", i), "p"
				b.must(b.fleet.PutReport(t.Context(), s, r))
				time.Sleep(time.Second / nodes)
			}
		}
		readings := b.faults.Calls(fleettest.OpWatch) - before
		if readings < 2*seconds || readings > 6*seconds {
			t.Errorf("%d readings of %d reports", readings, nodes*seconds)
		}
		v := b.await("all", func(v *fleet.View) bool { return len(v.Reports) == nodes })
		for _, r := range v.Reports {
			if age := time.Since(r.At); age > 1500*time.Millisecond {
				t.Errorf("%s is %v old", r.Node, age)
			}
		}
	})
}

// A change after silence is seen at once: pacing delays only what follows.
func TestChangeIsSeenAtOnce(t *testing.T) {
	onBench(t, func(b *bench) {
		b.await("connection", connected)
		time.Sleep(time.Second)
		began := time.Now()
		b.must(b.fleet.SetDrain(t.Context(), fleet.Drain{Scope: fleet.ScopePop, Name: "fra"}))
		b.await("drain", func(v *fleet.View) bool { return len(v.Drains) == 1 })
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

// staleStore has no leader: only ListStale answers.
type staleStore struct {
	*fleettest.Faults
	memory *fleet.Memory
}

func (s staleStore) ListStale(ctx context.Context, prefix string) ([]fleet.Entry, error) {
	entries, _, err := s.memory.List(ctx, prefix)
	return entries, err
}

// A node that starts while the store has no leader takes what any server
// remembers, and does not take it for current. Later stale readings are not
// taken: they may be older than what is known.
func TestStaleFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fleet.NewMemory()
		store := staleStore{fleettest.NewFaults(memory), memory}
		f := newFleet(t, store)
		set := []fleet.Backend{backend("10.0.0.1:80")}
		if err := f.SetInventory(t.Context(), "api", set); err != nil {
			t.Fatal(err)
		}
		if err := f.PutReport(t.Context(), session(t, memory), report("fra-1")); err != nil {
			t.Fatal(err)
		}
		store.Set(allLost)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		v := await(t, f, "stale inventory", time.Minute, func(v *fleet.View) bool { return len(v.Inventory["api"]) == 1 })
		if v.Connected || !v.ConnectedSince.IsZero() || len(v.Reports) != 1 {
			t.Errorf("without a leader: %+v", v)
		}
		if err := newFleet(t, memory).SetInventory(t.Context(), "api", append(set, backend("10.0.0.2:80"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if v := f.View(); len(v.Inventory["api"]) != 1 {
			t.Error("a second stale reading was taken")
		}
		store.Set(nil)
		await(t, f, "fresh inventory", time.Minute, func(v *fleet.View) bool { return v.Connected && len(v.Inventory["api"]) == 2 })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkViewOfManyReports(b *testing.B) {
	for _, nodes := range []int{100, 1000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			memory := fleet.NewMemory()
			f := newFleet(b, memory)
			s := session(b, memory)
			for i := range nodes {
				r := report("x")
				r.Node, r.Pop = fmt.Sprintf("n%04d", i), "p"
				if err := f.PutReport(b.Context(), s, r); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				done := make(chan error, 1)
				reader := newFleet(b, memory)
				go func() { done <- reader.Run(ctx) }()
				await(b, reader, "all", time.Minute, func(v *fleet.View) bool { return len(v.Reports) == nodes })
				cancel()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
