package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/fleettest"
)

var errTaken = errors.New("taken")

// onlyOne decides that nobody else may hold a lease.
func onlyOne(_ *fleet.View, others fleet.Leases) fleet.Ruling {
	if len(others.Holders) > 0 {
		return fleet.Ruling{Refused: fmt.Errorf("%w by %s", errTaken, others.Holders[0].Node)}
	}
	return fleet.Ruling{}
}

func TestLease(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx := t.Context()
	fra, iad := session(t, memory), session(t, memory)
	acquire := func(s fleet.Session, node string) error { return f.AcquireLease(ctx, s, lease(node), onlyOne) }

	if err := acquire(fra, "fra-1"); err != nil {
		t.Fatal(err)
	}
	if err := acquire(iad, "iad-1"); !errors.Is(err, errTaken) || !strings.Contains(err.Error(), "fra-1") {
		t.Fatalf("error %v, want the refusal", err)
	}
	if err := f.ReleaseLease(ctx, "fra-1"); err != nil {
		t.Fatal(err)
	}
	if err := f.ReleaseLease(ctx, "fra-1"); err != nil {
		t.Fatalf("releasing again: %v", err)
	}
	if err := acquire(iad, "iad-1"); err != nil {
		t.Fatal(err)
	}
	// After a release the lease is decided anew, though the session is the same.
	if err := acquire(fra, "fra-1"); !errors.Is(err, errTaken) {
		t.Fatalf("error %v, want the refusal", err)
	}
	if err := memory.EndSession(ctx, iad); err != nil {
		t.Fatal(err)
	}
	if err := acquire(fra, "fra-1"); err != nil {
		t.Fatalf("the holder is dead, but: %v", err)
	}
	if err := acquire(iad, "iad-1"); !errors.Is(err, fleet.ErrSession) {
		t.Fatalf("error %v, want that the session is gone", err)
	}
}

// A release of which only one half reached the store is a release.
func TestHalfReleasedLeaseIsDead(t *testing.T) {
	for _, lost := range []string{"state/leases", "state/holders/fra-1"} {
		t.Run(lost, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := fleet.NewMemory()
				faults := fleettest.NewFaults(memory)
				f := newFleet(t, faults)
				ctx, s := t.Context(), session(t, memory)
				if err := f.AcquireLease(ctx, s, lease("fra-1"), always); err != nil {
					t.Fatal(err)
				}
				faults.Set(func(op fleettest.Op, key string) fleettest.Fault {
					if op.Write() && key == lost {
						return fleettest.Lost
					}
					return fleettest.None
				})
				if err := f.ReleaseLease(ctx, "fra-1"); err != nil {
					t.Fatal(err)
				}
				faults.Set(nil)
				if err := f.AcquireLease(ctx, session(t, memory), lease("iad-1"), onlyOne); err != nil {
					t.Errorf("another node: %v", err)
				}
				if err := f.AcquireLease(ctx, s, lease("fra-1"), onlyOne); !errors.Is(err, errTaken) {
					t.Errorf("the same node again: %v, want a new decision", err)
				}
			})
		})
	}
}

// The session ends between the first and the last step: the lease must not be
// taken for held.
func TestLeaseOfAnEndedSession(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	s := session(t, memory)
	err := f.AcquireLease(t.Context(), s, lease("fra-1"), func(*fleet.View, fleet.Leases) fleet.Ruling {
		return fleet.Ruling{Refused: memory.EndSession(t.Context(), s)}
	})
	if !errors.Is(err, fleet.ErrSession) {
		t.Fatalf("error %v", err)
	}
}

// The caller gives up in the middle: what was begun is cleared away.
func TestAbandonedLeaseIsGivenBack(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx, cancel := context.WithCancel(t.Context())
	err := f.AcquireLease(ctx, session(t, memory), lease("fra-1"), func(*fleet.View, fleet.Leases) fleet.Ruling {
		cancel()
		return fleet.Ruling{}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if _, err := memory.Get(t.Context(), "state/holders/fra-1"); !errors.Is(err, fleet.ErrNotFound) {
		t.Fatalf("the holder key is left: %v", err)
	}
}

// A document that cannot be read gives no lease to anybody, or a damaged byte
// could let the whole fleet withdraw.
func TestDamagedLeasesRefuse(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx := t.Context()
	if _, err := memory.CompareAndSwap(ctx, "state/leases", []byte(`{"holders":[{}]}`), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.AcquireLease(ctx, session(t, memory), lease("fra-1"), always); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("error %v", err)
	}
}

// Many nodes want the only lease from a store that loses questions and answers.
// Never do two of them hold it.
func TestLeaseExcludes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes, rounds = 6, 15
		memory := fleet.NewMemory()
		var holding, acquired atomic.Int64
		var running sync.WaitGroup
		for i := range nodes {
			node := fmt.Sprintf("n%d-1", i)
			s := session(t, memory)
			faults := fleettest.NewFaults(memory)
			random := rand.New(rand.NewPCG(uint64(i), 1)) // the faults' own
			pauses := rand.New(rand.NewPCG(uint64(i), 2))
			faults.Set(func(op fleettest.Op, _ string) fleettest.Fault {
				switch random.IntN(8) {
				case 0:
					return fleettest.Lost
				case 1:
					if op.Write() {
						return fleettest.Persisted
					}
				}
				return fleettest.None
			})
			f := newFleet(t, faults)
			ctx, stop := context.WithCancel(t.Context())
			following := make(chan struct{})
			go func() {
				defer close(following)
				if i%2 == 0 { // the others do without a View
					_ = f.Run(ctx)
				}
			}()
			running.Go(func() {
				defer func() { stop(); <-following }()
				for range rounds {
					if err := f.AcquireLease(t.Context(), s, lease(node), onlyOne); err == nil {
						acquired.Add(1)
						if now := holding.Add(1); now != 1 {
							t.Errorf("%d nodes hold the lease", now)
						}
						time.Sleep(10 * time.Millisecond)
						holding.Add(-1)
						for f.ReleaseLease(t.Context(), node) != nil {
							time.Sleep(time.Millisecond)
						}
					}
					time.Sleep(time.Duration(pauses.IntN(50)) * time.Millisecond)
				}
			})
		}
		running.Wait()
		if acquired.Load() < rounds {
			t.Errorf("only %d acquisitions", acquired.Load())
		}
	})
}

// A node that knows the fleet asks the store once. If what it knows is old, it
// asks again at once, and is not refused by what is over.
func TestLeaseOfOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fleet.NewMemory()
		faults := fleettest.NewFaults(memory)
		f := run(t, faults)
		ctx, s, other := t.Context(), session(t, memory), session(t, memory)
		acquire := func(when string, ended bool, want map[fleettest.Op]int) {
			t.Helper()
			time.Sleep(time.Second) // the View is current
			synctest.Wait()
			if ended {
				if err := memory.EndSession(ctx, other); err != nil {
					t.Fatal(err)
				}
			}
			before := counts(faults)
			if err := f.AcquireLease(ctx, s, lease("fra-1"), onlyOne); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			for op, n := range want {
				if got := counts(faults)[op] - before[op]; got != n {
					t.Errorf("%s: %d of %s, want %d", when, got, op, n)
				}
			}
			if err := f.ReleaseLease(ctx, "fra-1"); err != nil {
				t.Fatal(err)
			}
		}
		one := map[fleettest.Op]int{fleettest.OpGet: 0, fleettest.OpList: 0, fleettest.OpSwap: 1, fleettest.OpBind: 0}
		acquire("the first lease", false, one)
		acquire("the second", false, one)
		if err := newFleet(t, memory).AcquireLease(ctx, other, lease("iad-1"), onlyOne); err != nil {
			t.Fatal(err)
		}
		acquire("after the end of another", true, map[fleettest.Op]int{fleettest.OpSwap: 1})
	})
}

func counts(f *fleettest.Faults) map[fleettest.Op]int {
	n := make(map[fleettest.Op]int)
	for _, op := range []fleettest.Op{fleettest.OpGet, fleettest.OpList, fleettest.OpSwap, fleettest.OpBind} {
		n[op] = f.Calls(op)
	}
	return n
}

// A node that could not take its lease back leaves nothing that blocks others
// once its session has ended.
func TestFailedLeaseEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fleet.NewMemory()
		faults := fleettest.NewFaults(memory)
		f := newFleet(t, faults)
		s, err := memory.NewSession(t.Context(), "test", 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		// The store takes the document and then goes silent.
		faults.Set(func(op fleettest.Op, _ string) fleettest.Fault {
			if op == fleettest.OpSwap {
				go faults.Set(func(fleettest.Op, string) fleettest.Fault { return fleettest.Hang })
				return fleettest.Persisted
			}
			return fleettest.None
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.AcquireLease(ctx, s, lease("fra-1"), onlyOne); err == nil {
			t.Fatal("acquired from a silent store")
		}
		faults.Set(nil)
		other := session(t, memory)
		if err := f.AcquireLease(t.Context(), other, lease("iad-1"), onlyOne); !errors.Is(err, errTaken) {
			t.Fatalf("error %v: until the session ends, the lease must count", err)
		}
		time.Sleep(10 * time.Second)
		if err := f.AcquireLease(t.Context(), other, lease("iad-1"), onlyOne); err != nil {
			t.Fatal(err)
		}
	})
}
