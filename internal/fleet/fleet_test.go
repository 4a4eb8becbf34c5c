package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/fleettest"
)

func report(node string) fleet.Report {
	pop, _, _ := strings.Cut(node, "-")
	return fleet.Report{Node: node, Pop: pop, State: fleet.StateHealthy, Announcement: fleet.Announced}
}

func backend(address string) fleet.Backend {
	return fleet.Backend{Address: netip.MustParseAddrPort(address), Weight: 1}
}

func lease(node string) fleet.Lease {
	pop, _, _ := strings.Cut(node, "-")
	return fleet.Lease{Node: node, Pop: pop, Reason: "test"}
}

func always(*fleet.View, fleet.Leases) fleet.Ruling { return fleet.Ruling{} }

func newFleet(t testing.TB, store fleet.Store) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer(t, keyLine(1))})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func session(t testing.TB, store fleet.Store) fleet.Session {
	t.Helper()
	s, err := store.NewSession(context.Background(), "test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.EndSession(context.Background(), s) })
	return s
}

func TestNewNeedsKeysForASharedStore(t *testing.T) {
	if _, err := fleet.New(fleet.Config{}); err == nil {
		t.Error("made without a store")
	}
	if _, err := fleet.New(fleet.Config{Store: newHandled(t)}); err == nil {
		t.Error("made without keys on a shared store")
	}
	if _, err := fleet.New(fleet.Config{Store: fleet.NewMemory()}); err != nil {
		t.Error(err)
	}
}

// An operation is one writing method, with what it needs and what it leaves.
type operation struct {
	name   string
	before func(context.Context, *fleet.Fleet, fleet.Session) error // without faults
	run    func(context.Context, *fleet.Fleet, fleet.Session) error
	holds  func(context.Context, *fleet.Fleet, fleet.Store) error // after success
}

func operations() []operation {
	set := []fleet.Backend{backend("10.0.0.1:80"), backend("10.0.0.2:80")}
	drain := fleet.Drain{Scope: fleet.ScopePop, Name: "fra", Reason: "test"}
	var ringIndex uint64
	has := func(key, text string) func(context.Context, *fleet.Fleet, fleet.Store) error {
		return func(ctx context.Context, _ *fleet.Fleet, store fleet.Store) error {
			e, err := store.Get(ctx, key)
			if err == nil && !strings.Contains(string(e.Value), text) {
				err = fmt.Errorf("%s is %s", key, e.Value)
			}
			return err
		}
	}
	hasNot := func(key string) func(context.Context, *fleet.Fleet, fleet.Store) error {
		return func(ctx context.Context, _ *fleet.Fleet, store fleet.Store) error {
			_, err := store.Get(ctx, key)
			if errors.Is(err, fleet.ErrNotFound) {
				return nil
			}
			return fmt.Errorf("%s is still there: %v", key, err)
		}
	}
	ringIs := func(want string) func(context.Context, *fleet.Fleet, fleet.Store) error {
		return func(ctx context.Context, f *fleet.Fleet, _ fleet.Store) error {
			ring, index, err := f.Ring(ctx)
			if err == nil && (string(ring) != want || index != ringIndex) {
				err = fmt.Errorf("ring %q with index %d, want %q with %d", ring, index, want, ringIndex)
			}
			return err
		}
	}
	putRing := func(ring string, prev *uint64) func(context.Context, *fleet.Fleet, fleet.Session) error {
		return func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error {
			index, err := f.PutRing(ctx, []byte(ring), *prev)
			if err == nil {
				ringIndex = index
			}
			return err
		}
	}
	var none uint64
	return []operation{
		{
			name: "PutReport",
			run: func(ctx context.Context, f *fleet.Fleet, s fleet.Session) error {
				return f.PutReport(ctx, s, report("fra-1"))
			},
			holds: has("reports/fra-1", `"announced"`),
		},
		{
			name: "TakeOver",
			before: func(ctx context.Context, f *fleet.Fleet, s fleet.Session) error {
				return f.PutReport(ctx, s, report("fra-1"))
			},
			run:   func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error { return f.TakeOver(ctx, "fra-1") },
			holds: hasNot("reports/fra-1"),
		},
		{
			name:  "SetDrain",
			run:   func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error { return f.SetDrain(ctx, drain) },
			holds: has("state/drains/pop/fra", `"test"`),
		},
		{
			name: "SetDrain over another",
			before: func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error {
				return f.SetDrain(ctx, fleet.Drain{Scope: fleet.ScopePop, Name: "fra", Reason: "old"})
			},
			run:   func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error { return f.SetDrain(ctx, drain) },
			holds: has("state/drains/pop/fra", `"test"`),
		},
		{
			name:   "ClearDrain",
			before: func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error { return f.SetDrain(ctx, drain) },
			run: func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error {
				return f.ClearDrain(ctx, fleet.ScopePop, "fra")
			},
			holds: hasNot("state/drains/pop/fra"),
		},
		{
			name: "SetInventory",
			run: func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error {
				return f.SetInventory(ctx, "api", set)
			},
			holds: has("state/inventory/api", "10.0.0.2:80"),
		},
		{name: "PutRing", run: putRing("first", &none), holds: ringIs("first")},
		{
			name:   "PutRing over another",
			before: putRing("first", &none),
			run: func(ctx context.Context, f *fleet.Fleet, s fleet.Session) error {
				return putRing("second", &ringIndex)(ctx, f, s)
			},
			holds: ringIs("second"),
		},
		{
			name: "AcquireLease",
			run: func(ctx context.Context, f *fleet.Fleet, s fleet.Session) error {
				return f.AcquireLease(ctx, s, lease("fra-1"), always)
			},
			holds: has("state/leases", `"fra-1"`),
		},
		{
			name: "ReleaseLease",
			before: func(ctx context.Context, f *fleet.Fleet, s fleet.Session) error {
				return f.AcquireLease(ctx, s, lease("fra-1"), always)
			},
			run: func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error {
				return f.ReleaseLease(ctx, "fra-1")
			},
			holds: hasNot("state/holders/fra-1"),
		},
		{
			name: "PublishRTT",
			run: func(ctx context.Context, f *fleet.Fleet, s fleet.Session) error {
				return f.PublishRTT(ctx, s, roundTrips("fra-1", "new"))
			},
			holds: rttIs("new"),
		},
		{
			name: "PublishRTT over another",
			before: func(ctx context.Context, f *fleet.Fleet, s fleet.Session) error {
				return f.PublishRTT(ctx, s, roundTrips("fra-1", "old"))
			},
			run: func(ctx context.Context, f *fleet.Fleet, s fleet.Session) error {
				return f.PublishRTT(ctx, s, roundTrips("fra-1", "new"))
			},
			holds: rttIs("new"),
		},
		{
			name: "PublishPlan",
			run: func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error {
				return publish(ctx, f, plan("ns-1", time.Minute))
			},
			holds: has("plan", `"ns-1"`),
		},
		{
			name: "PublishPlan over one of its own",
			before: func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error {
				return publish(ctx, f, plan("ns-1", 0))
			},
			run: func(ctx context.Context, f *fleet.Fleet, _ fleet.Session) error {
				return publish(ctx, f, plan("ns-1", time.Minute))
			},
			holds: has("plan", "00:01:00"),
		},
	}
}

// trial is one operation on a store of its own.
type trial struct {
	memory  *fleet.Memory
	faults  *fleettest.Faults
	fleet   *fleet.Fleet
	session fleet.Session
	start   uint64 // index before the operation
}

func newTrial(t *testing.T, op operation) *trial {
	t.Helper()
	memory := fleet.NewMemory()
	tr := &trial{memory: memory, faults: fleettest.NewFaults(memory), session: session(t, memory)}
	tr.fleet = newFleet(t, tr.faults)
	if op.before != nil {
		if err := op.before(t.Context(), tr.fleet, tr.session); err != nil {
			t.Fatal(err)
		}
	}
	tr.start = tr.index(t)
	return tr
}

func (tr *trial) index(t *testing.T) uint64 {
	t.Helper()
	_, index, err := tr.memory.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// finish runs the operation and checks what it leaves.
func (tr *trial) finish(t *testing.T, op operation) {
	t.Helper()
	if err := op.run(t.Context(), tr.fleet, tr.session); err != nil {
		t.Fatalf("failed: %v", err)
	}
	tr.faults.Set(nil)
	if err := op.holds(t.Context(), tr.fleet, tr.memory); err != nil {
		t.Fatalf("succeeded, but: %v", err)
	}
}

// nth fails the nth call that matches.
func nth(n int, fault fleettest.Fault, match func(fleettest.Op) bool) func(fleettest.Op, string) fleettest.Fault {
	return func(op fleettest.Op, _ string) fleettest.Fault {
		if !match(op) {
			return fleettest.None
		}
		n--
		if n == 0 {
			return fault
		}
		return fleettest.None
	}
}

// Every single call of every operation is tried as lost and as persisted
// without an answer: the operation succeeds, and has written exactly as often
// as without a fault.
func TestOperationsSurviveEveryFault(t *testing.T) {
	for i, op := range operations() {
		t.Run(op.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				op := operations()[i] // its variables are this run's own
				clean := newTrial(t, op)
				calls := 0
				clean.faults.Set(func(fleettest.Op, string) fleettest.Fault { calls++; return fleettest.None })
				clean.finish(t, op)
				writes := clean.index(t) - clean.start
				if writes == 0 {
					t.Fatal("the operation writes nothing")
				}
				for n := range calls {
					for _, fault := range []fleettest.Fault{fleettest.Lost, fleettest.Persisted} {
						tr := newTrial(t, op)
						tr.faults.Set(nth(n+1, fault, func(fleettest.Op) bool { return true }))
						tr.finish(t, op)
						if got := tr.index(t) - tr.start; got != writes {
							t.Errorf("call %d, fault %d: %d writes, want %d", n+1, fault, got, writes)
						}
					}
				}
			})
		})
	}
}

// While every write fails, an operation may fail, and must not claim success
// for nothing. When the store is well again, the same operation succeeds.
func TestOperationsSurviveLastingFaults(t *testing.T) {
	for i, op := range operations() {
		for name, fault := range map[string]fleettest.Fault{"lost": fleettest.Lost, "persisted": fleettest.Persisted} {
			t.Run(op.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					op := operations()[i]
					tr := newTrial(t, op)
					tr.faults.Set(func(op fleettest.Op, _ string) fleettest.Fault {
						if op.Write() {
							return fault
						}
						return fleettest.None
					})
					err := op.run(t.Context(), tr.fleet, tr.session)
					tr.faults.Set(nil)
					if err == nil {
						if fault == fleettest.Lost {
							t.Error("succeeded although every write was lost")
						}
						if err := op.holds(t.Context(), tr.fleet, tr.memory); err != nil {
							t.Errorf("succeeded, but: %v", err)
						}
						return
					}
					if !errors.Is(err, fleettest.ErrFault) {
						t.Errorf("error %v does not tell the cause", err)
					}
					tr.finish(t, op)
				})
			})
		}
	}
}

// Whatever hangs, an operation ends with its context.
func TestOperationsEndWithTheirContext(t *testing.T) {
	for i, op := range operations() {
		t.Run(op.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				op := operations()[i]
				tr := newTrial(t, op)
				tr.faults.Set(func(fleettest.Op, string) fleettest.Fault { return fleettest.Hang })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				if err := op.run(ctx, tr.fleet, tr.session); err == nil {
					t.Error("succeeded on a store that hangs")
				}
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestOperationsValidate(t *testing.T) {
	memory := fleet.NewMemory()
	f, err := fleet.New(fleet.Config{Store: memory, ValidRing: func(ring []byte) error {
		if string(ring) != "good" {
			return errors.New("not good")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, s := t.Context(), session(t, memory)
	_, ringErr := f.PutRing(ctx, []byte("bad"), 0)
	bad := report("fra-1")
	bad.State = "sunny"
	for name, err := range map[string]error{
		"PutReport":     f.PutReport(ctx, s, bad),
		"TakeOver":      f.TakeOver(ctx, "a/b"),
		"SetDrain":      f.SetDrain(ctx, fleet.Drain{Scope: "planet", Name: "earth"}),
		"ClearDrain":    f.ClearDrain(ctx, fleet.ScopeNode, "../ring"),
		"SetInventory":  f.SetInventory(ctx, "api", []fleet.Backend{{}}),
		"SetInventory2": f.SetInventory(ctx, "", nil),
		"PutRing":       ringErr,
		"AcquireLease":  f.AcquireLease(ctx, s, fleet.Lease{Node: "fra-1"}, always),
		"ReleaseLease":  f.ReleaseLease(ctx, ""),
		"PublishRTT":    f.PublishRTT(ctx, s, fleet.RTT{Node: "fra-1"}),
		"PublishRTT2":   f.PublishRTT(ctx, s, roundTrips("fra-1", strings.Repeat("x", fleet.MaxRTT+1))),
		"PublishPlan":   publish(ctx, f, fleet.Plan{By: "ns-1"}),
	} {
		if err == nil {
			t.Errorf("%s took what is not valid", name)
		}
	}
	if entries, _, err := memory.List(ctx, ""); err != nil || len(entries) != 0 {
		t.Errorf("something was written: %v %v", entries, err)
	}
}

func TestPutReportSessions(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx, old, new := t.Context(), session(t, memory), session(t, memory)
	if err := f.PutReport(ctx, old, report("fra-1")); err != nil {
		t.Fatal(err)
	}
	first, err := memory.Get(ctx, "reports/fra-1")
	if err != nil {
		t.Fatal(err)
	}
	// The same report again is a change, because time has passed.
	if err := f.PutReport(ctx, old, report("fra-1")); err != nil {
		t.Fatal(err)
	}
	if again, err := memory.Get(ctx, "reports/fra-1"); err != nil || again.Index == first.Index {
		t.Fatalf("an unchanged report was not written again: %v", err)
	}
	if err := f.PutReport(ctx, new, report("fra-1")); !errors.Is(err, fleet.ErrConflict) {
		t.Fatalf("error %v, want a conflict with the other session", err)
	}
	if err := f.TakeOver(ctx, "fra-1"); err != nil {
		t.Fatal(err)
	}
	if err := f.PutReport(ctx, new, report("fra-1")); err != nil {
		t.Fatal(err)
	}
	if err := f.PutReport(ctx, old, report("fra-1")); !errors.Is(err, fleet.ErrSession) {
		t.Fatalf("error %v, want that the session is gone", err)
	}
}

func TestRingIsSealedInTheStore(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx := t.Context()
	if _, _, err := f.Ring(ctx); !errors.Is(err, fleet.ErrNotFound) {
		t.Fatalf("error %v", err)
	}
	first, err := f.PutRing(ctx, []byte("very secret"), 0)
	if err != nil {
		t.Fatal(err)
	}
	e, err := memory.Get(ctx, "state/ring")
	if err != nil || strings.Contains(string(e.Value), "secret") {
		t.Fatalf("stored %q, %v", e.Value, err)
	}
	if _, err := f.PutRing(ctx, []byte("late"), 0); !errors.Is(err, fleet.ErrConflict) {
		t.Fatalf("error %v, want a conflict", err)
	}
	if _, err := f.PutRing(ctx, []byte("next"), first); err != nil {
		t.Fatal(err)
	}
	// A node without the key says so, with the index.
	other, err := fleet.New(fleet.Config{Store: memory, Sealer: sealer(t, keyLine(9))})
	if err != nil {
		t.Fatal(err)
	}
	if ring, index, err := other.Ring(ctx); err == nil || ring != nil || index <= first {
		t.Fatalf("got %q %d %v", ring, index, err)
	}
}

// Of many nodes that rotate at once, exactly one wins each round.
func TestOneRotatorWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fleet.NewMemory()
		var prev uint64
		for round := range 5 {
			results := make(chan error, 8)
			for node := range 8 {
				faults := fleettest.NewFaults(memory)
				faults.Set(nth(1+node%3, fleettest.Fault(node%3), func(fleettest.Op) bool { return true }))
				f := newFleet(t, faults)
				go func() {
					_, err := f.PutRing(t.Context(), fmt.Appendf(nil, "round %d by %d", round, node), prev)
					results <- err
				}()
			}
			var won []error
			for range 8 {
				err := <-results
				if err == nil {
					won = append(won, err)
				} else if !errors.Is(err, fleet.ErrConflict) {
					t.Fatal(err)
				}
			}
			if len(won) != 1 {
				t.Fatalf("%d nodes won round %d", len(won), round)
			}
			e, err := memory.Get(t.Context(), "state/ring")
			if err != nil {
				t.Fatal(err)
			}
			prev = e.Index
		}
	})
}

func TestInventoryIsCanonical(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx := t.Context()
	set := []fleet.Backend{backend("10.0.0.2:80"), backend("10.0.0.1:80")}
	if err := f.SetInventory(ctx, "api", set); err != nil {
		t.Fatal(err)
	}
	before, err := memory.Get(ctx, "state/inventory/api")
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(set)
	if err := f.SetInventory(ctx, "api", set); err != nil {
		t.Fatal(err)
	}
	if after, err := memory.Get(ctx, "state/inventory/api"); err != nil || after.Index != before.Index {
		t.Errorf("the same set in another order was written again: %v", err)
	}
}
