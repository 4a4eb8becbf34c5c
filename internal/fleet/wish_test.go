package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/fleettest"
)

// document reads the document of leases.
func document(t *testing.T, f *fleet.Fleet, s fleet.Session) fleet.Leases {
	t.Helper()
	var seen fleet.Leases
	err := f.AcquireLease(t.Context(), s, lease("reader-1"), func(_ *fleet.View, others fleet.Leases) fleet.Ruling {
		seen = others
		return fleet.Ruling{Freeze: others.Freeze}
	})
	if err == nil {
		err = f.ReleaseLease(t.Context(), "reader-1")
	}
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func nodes(list []fleet.Lease) []string {
	var names []string
	for _, l := range list {
		names = append(names, l.Node)
	}
	return names
}

// Who is refused is on record until it is granted, gives up or dies.
func TestRefusedWishIsOnRecord(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx, fra, iad, reader := t.Context(), session(t, memory), session(t, memory), session(t, memory)
	refuse := func(*fleet.View, fleet.Leases) fleet.Ruling { return fleet.Ruling{Refused: errTaken} }
	expect := func(when string, holders, waiting []string) fleet.Leases {
		t.Helper()
		doc := document(t, f, reader)
		if !slices.Equal(nodes(doc.Holders), holders) || !slices.Equal(nodes(doc.Waiting), waiting) {
			t.Fatalf("%s: holders %v, waiting %v; want %v and %v", when, nodes(doc.Holders), nodes(doc.Waiting), holders, waiting)
		}
		return doc
	}

	wish := lease("fra-1")
	wish.At, wish.Planned, wish.Usage = time.Unix(1000, 0), true, []fleet.Usage{{Resource: "connections", Used: 7, Ceiling: 10}}
	for range 2 { // once more changes nothing, its time included
		if err := f.AcquireLease(ctx, fra, wish, refuse); !errors.Is(err, errTaken) {
			t.Fatal(err)
		}
		doc := expect("refused", nil, []string{"fra-1"})
		if w := doc.Waiting[0]; !w.At.Equal(time.Unix(1000, 0)) || !w.Planned || w.Session != fra || !slices.Equal(w.Usage, wish.Usage) && w.Usage[0].Used != 7 {
			t.Errorf("on record: %+v", w)
		}
		wish.At, wish.Usage = time.Unix(2000, 0), []fleet.Usage{{Resource: "connections", Used: 5, Ceiling: 10}}
	}
	if err := f.AcquireLease(ctx, iad, lease("iad-1"), refuse); !errors.Is(err, errTaken) {
		t.Fatal(err)
	}
	expect("two refused", nil, []string{"fra-1", "iad-1"})
	if err := f.AcquireLease(ctx, fra, wish, always); err != nil {
		t.Fatal(err)
	}
	doc := expect("granted", []string{"fra-1"}, []string{"iad-1"})
	if h := doc.Holders[0]; !h.At.Equal(time.Unix(1000, 0)) || h.Usage[0].Used != 5 {
		t.Errorf("a lease has the time of its wish and its newest load, got %+v", h)
	}
	if err := memory.EndSession(ctx, iad); err != nil {
		t.Fatal(err)
	}
	expect("the other died", []string{"fra-1"}, nil)
	if err := f.ReleaseLease(ctx, "fra-1"); err != nil {
		t.Fatal(err)
	}
	expect("given back", nil, nil)
	if err := f.AcquireLease(ctx, fra, wish, refuse); !errors.Is(err, errTaken) {
		t.Fatal(err)
	}
	if err := f.ReleaseLease(ctx, "fra-1"); err != nil {
		t.Fatal(err)
	}
	expect("a wish given up", nil, nil)
}

func TestUpdateLease(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx, s := t.Context(), session(t, memory)
	l := lease("fra-1")
	l.At = time.Unix(1000, 0)
	if err := f.UpdateLease(ctx, s, l); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("without a document: %v", err)
	}
	if err := f.AcquireLease(ctx, s, l, always); err != nil {
		t.Fatal(err)
	}
	l.Reason, l.Planned, l.At = "better", true, time.Unix(2000, 0)
	if err := f.UpdateLease(ctx, s, l); err != nil {
		t.Fatal(err)
	}
	if h := document(t, f, session(t, memory)).Holders[0]; h.Reason != "better" || !h.Planned || !h.At.Equal(time.Unix(1000, 0)) || h.Session != s {
		t.Errorf("on record: %+v", h)
	}
	if err := f.UpdateLease(ctx, session(t, memory), l); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("under another session: %v", err)
	}
	if err := f.UpdateLease(ctx, s, fleet.Lease{Node: "fra-1"}); err == nil {
		t.Error("wrote a lease without a PoP")
	}
}

// A freeze stands until it is thawed, and only the one that was looked at is.
func TestFreezeIsOnRecord(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx, s := t.Context(), session(t, memory)
	freeze := fleet.Freeze{Pops: []string{"fra", "iad"}, Known: 5, By: "fra-1", At: time.Unix(1000, 0).UTC()}
	err := f.AcquireLease(ctx, s, lease("fra-1"), func(*fleet.View, fleet.Leases) fleet.Ruling {
		return fleet.Ruling{Refused: errTaken, Freeze: &freeze}
	})
	if !errors.Is(err, errTaken) {
		t.Fatal(err)
	}
	frozen := func() bool {
		t.Helper()
		got := document(t, f, session(t, memory)).Freeze
		if got != nil && fmt.Sprint(*got) != fmt.Sprint(freeze) {
			t.Fatalf("on record: %+v", got)
		}
		return got != nil
	}
	if err := f.ReleaseLease(ctx, "fra-1"); err != nil {
		t.Fatal(err)
	}
	if !frozen() {
		t.Error("the freeze ended with the wish that found it")
	}
	for _, other := range []fleet.Freeze{
		{Pops: freeze.Pops, Known: 5, By: "iad-1", At: freeze.At},
		{Pops: freeze.Pops, Known: 5, By: "fra-1", At: freeze.At.Add(1)},
		{Pops: []string{"fra", "iad", "sin"}, Known: 5, By: "fra-1", At: freeze.At},
	} {
		if err := f.Thaw(ctx, other); err != nil || !frozen() {
			t.Errorf("%+v: %v, or thawed another", other, err)
		}
	}
	for range 2 {
		if err := f.Thaw(ctx, freeze); err != nil || frozen() {
			t.Errorf("%v, or still frozen", err)
		}
	}
}

// A store that answers, but never all of it in time, is not one that is away.
func TestBusyStoreIsToldFromSilentOne(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault func(op fleettest.Op, key string) fleettest.Fault
		busy  bool
	}{
		{"silent", func(fleettest.Op, string) fleettest.Fault { return fleettest.Hang }, false},
		{"answers, then takes too long", func(op fleettest.Op, key string) fleettest.Fault {
			if op == fleettest.OpSwap {
				return fleettest.Hang
			}
			return fleettest.None
		}, true},
		{"fails", func(op fleettest.Op, key string) fleettest.Fault {
			if op == fleettest.OpSwap {
				return fleettest.Lost
			}
			return fleettest.None
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := fleet.NewMemory()
				faults := fleettest.NewFaults(memory)
				f := newFleet(t, faults)
				s := session(t, memory)
				faults.Set(tc.fault)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err := f.AcquireLease(ctx, s, lease("fra-1"), always)
				if err == nil || errors.Is(err, fleet.ErrBusy) != tc.busy {
					t.Errorf("error %v, want busy %v", err, tc.busy)
				}
			})
		})
	}
}
