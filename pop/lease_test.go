package pop

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
)

// follow asks or gives back at a steady pace for so long, as a controller does.
func followLease(t *testing.T, l *lease, d time.Duration, ask bool) permission {
	t.Helper()
	p := wait
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(tick) {
		if ask {
			p = l.ask(t.Context(), time.Now(), plea{reason: "test"})
		} else {
			l.giveBack(t.Context(), time.Now(), false)
		}
		synctest.Wait()
		select {
		case a := <-l.answers:
			l.take(a)
		default:
		}
	}
	return p
}

func TestLeaseAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		store *scripted
		want  permission
	}{
		"granted": {&scripted{}, granted},
		"refused": {&scripted{refusal: tooManyOut}, refused},
		"away":    {&scripted{err: errStore}, unknown},
		"busy":    {&scripted{err: fleet.ErrBusy}, busy},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.store.session = "s1"
				l := newLease(tc.store)
				l.under("s1", true)
				if p := l.ask(t.Context(), time.Now(), plea{reason: "test"}); p != wait {
					t.Errorf("at first %d, want to wait", p)
				}
				l.take(<-l.answers)
				if p := l.ask(t.Context(), time.Now(), plea{reason: "test"}); p != tc.want {
					t.Errorf("answer %d, want %d", p, tc.want)
				}
				if tc.store.acquires != 1 {
					t.Errorf("asked %d times, want once", tc.store.acquires)
				}
				// A grant is not questioned, anything else is asked for again.
				followLease(t, l, 3*leaseRetry, true)
				if again := tc.store.acquires > 1; again == (tc.want == granted) {
					t.Errorf("asked %d times", tc.store.acquires)
				}
				l.settle()
			})
		})
	}
}

// An acquisition that failed may have been recorded all the same.
func TestPersistedButFailedAcquireIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scripted{session: "s1", losing: true}
		l := newLease(store)
		l.under("s1", true)
		if p := followLease(t, l, leaseRetry/2, true); p != unknown || store.held != "s1" {
			t.Fatalf("answer %d, held under %q", p, store.held)
		}
		// To give it back fails once, in the same way, and again without effect.
		followLease(t, l, 2*leaseRetry, false)
		if store.held != "" || store.releases == 0 {
			t.Errorf("held under %q after %d releases", store.held, store.releases)
		}
		store.losing, store.err = false, errStore
		followLease(t, l, 5*leaseRetry, false)
		tried := store.releases
		if tried < 3 {
			t.Errorf("%d releases while none is known to have worked, want one a second", tried)
		}
		store.err = nil
		followLease(t, l, 5*leaseRetry, false)
		if store.releases != tried+1 {
			t.Errorf("%d releases after one that worked", store.releases-tried-1)
		}
		l.settle()
	})
}

func TestNothingOwedNothingGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(scripted)
		followLease(t, newLease(store), 10*leaseRetry, false)
		if store.releases != 0 {
			t.Errorf("%d releases", store.releases)
		}
	})
}

// Whatever is wished for meanwhile, at most one call is under way.
func TestOneCallAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scripted{session: "s1", silent: make(chan struct{})}
		store.calls = func(string) {
			if store.busy > 1 {
				t.Errorf("%d calls at once", store.busy)
			}
		}
		l := newLease(store)
		l.under("s1", true)
		for i := range 200 {
			followLease(t, l, tick, i%40 < 25)
			if i%17 == 0 {
				l.under("s2", true)
				l.under("s1", true)
			}
		}
		if store.acquires == 0 || store.releases == 0 {
			t.Errorf("%d acquisitions, %d releases, want both tried", store.acquires, store.releases)
		}
		l.settle()
	})
}

func TestSettleJoinsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scripted{session: "s1", silent: make(chan struct{})}
		l := newLease(store)
		l.settle() // nothing to wait for
		l.under("s1", true)
		l.ask(t.Context(), time.Now(), plea{reason: "test"})
		began := time.Now()
		l.settle() // or the bubble would end with a goroutine left behind
		if took := time.Since(began); took != leaseCall || store.busy != 0 || l.calling {
			t.Errorf("settled after %s with %d calls under way", took, store.busy)
		}
	})
}

func TestNoSessionNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(scripted)
		l := newLease(store)
		if p := followLease(t, l, leaseTimeout, true); p != wait {
			t.Errorf("answer %d within the time that a store may take, want to wait", p)
		}
		if p := followLease(t, l, leaseTimeout, true); p != unknown {
			t.Errorf("answer %d after that, want %d", p, unknown)
		}
		if store.acquires != 0 {
			t.Errorf("asked %d times", store.acquires)
		}
	})
}

// The answer to a question whose reason has ended is none to the next one.
func TestAnswerToAnotherWishDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scripted{session: "s1", silent: make(chan struct{})}
		l := newLease(store)
		l.under("s1", true)
		l.ask(t.Context(), time.Now(), plea{reason: "gone", gone: true})
		synctest.Wait()
		l.giveBack(t.Context(), time.Now(), false)
		close(store.silent)
		store.silent = nil
		synctest.Wait()
		store.refusal = tooManyOut
		if p := l.ask(t.Context(), time.Now(), plea{reason: "drain"}); p != wait {
			t.Errorf("answer %d, want to wait for one to this wish", p)
		}
		synctest.Wait()
		if p := l.ask(t.Context(), time.Now(), plea{reason: "drain"}); p != refused {
			t.Errorf("answer %d, want refused", p)
		}
	})
}

// A lease that is held is brought up to date when its reason changes, and stays
// held whatever becomes of that; one that is not on record any more is asked for.
func TestHeldLeaseGetsItsNewReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scripted{session: "s1"}
		l := newLease(store)
		l.under("s1", true)
		ask := func(reason string) permission {
			p := wait
			for range 25 {
				p = l.ask(t.Context(), time.Now(), plea{reason: reason})
				time.Sleep(tick)
				synctest.Wait()
			}
			return p
		}
		if p := ask("drain"); p != granted {
			t.Fatalf("answer %d", p)
		}
		if p := ask("not ready"); p != granted || !slices.Equal(store.reasons, []string{"drain", "not ready"}) || store.acquires != 1 {
			t.Errorf("answer %d, reasons %q, asked %d times", p, store.reasons, store.acquires)
		}
		store.err = errStore
		if p := ask("crashed"); p != granted {
			t.Errorf("answer %d of a store that is away, want the lease to stay", p)
		}
		store.err, store.held = nil, ""
		if p := ask("crashed again"); p != granted || store.held != "s1" || store.acquires != 2 {
			t.Errorf("answer %d, held under %q, asked %d times", p, store.held, store.acquires)
		}
		l.settle()
	})
}

func TestNodeOnRecordGivesBackWhatItForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scripted{session: "s1", held: "s1"}
		l := newLease(store)
		time.Sleep(leaseRetry)
		l.giveBack(t.Context(), time.Now(), true)
		l.settle()
		if store.held != "" || store.releases != 1 {
			t.Errorf("held under %q after %d releases", store.held, store.releases)
		}
	})
}
