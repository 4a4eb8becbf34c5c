package fleet_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
)

func TestMemorySessionEndsExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fleet.NewMemory()
		s, err := m.NewSession(t.Context(), "n", 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Bind(t.Context(), "k", nil, s); err != nil {
			t.Fatal(err)
		}
		for range 3 { // renewed at the last moment, three times
			time.Sleep(10*time.Second - time.Nanosecond)
			if err := m.RenewSession(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10*time.Second - time.Nanosecond)
		if _, err := m.Get(t.Context(), "k"); err != nil {
			t.Fatalf("gone too early: %v", err)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if _, err := m.Get(t.Context(), "k"); !errors.Is(err, fleet.ErrNotFound) {
			t.Fatalf("not gone in time: %v", err)
		}
	})
}

func TestMemoryWatchSleepsThroughChangesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fleet.NewMemory()
		_, index, err := m.List(t.Context(), "p/")
		if err != nil {
			t.Fatal(err)
		}
		// Some changes before the call and some during it.
		change := func(from int) {
			for i := range 400 {
				if _, err := m.CompareAndSwap(t.Context(), fmt.Sprintf("q/%d", from+i), []byte("x"), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		change(0)
		go func() {
			time.Sleep(time.Second)
			change(1000)
		}()
		began := time.Now()
		entries, next, err := m.Watch(t.Context(), "p/", index)
		if err != nil || len(entries) != 0 || next < index {
			t.Fatalf("%v %d %v", entries, next, err)
		}
		if took := time.Since(began); took < 5*time.Second {
			t.Errorf("returned after %v with nothing changed", took)
		}
		// Too much has changed to be sure: it must not sleep.
		change(2000)
		change(3000)
		change(4000)
		began = time.Now()
		if _, _, err := m.Watch(t.Context(), "p/", next); err != nil || time.Since(began) != 0 {
			t.Errorf("slept %v over changes it does not remember, %v", time.Since(began), err)
		}
	})
}
