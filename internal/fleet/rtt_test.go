package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/consultest"
	"anyedge/internal/fleet/fleettest"
)

func roundTrips(node, data string) fleet.RTT {
	pop, _, _ := strings.Cut(node, "-")
	return fleet.RTT{Node: node, Pop: pop, At: time.Unix(1000, 0).UTC(), Data: []byte(data)}
}

// rttIs checks what fra-1 published last.
func rttIs(data string) func(context.Context, *fleet.Fleet, fleet.Store) error {
	return func(ctx context.Context, f *fleet.Fleet, _ fleet.Store) error {
		r, err := f.RTT(ctx, "fra-1")
		if err == nil && string(r.Data) != data {
			err = fmt.Errorf("data %q, want %q", r.Data, data)
		}
		return err
	}
}

// Where clients are can be read by nobody who has only the store, and a value
// counts under its own key only.
func TestRTTIsSealedInTheStore(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx, s := t.Context(), session(t, memory)
	if _, err := f.RTT(ctx, "fra-1"); !errors.Is(err, fleet.ErrNotFound) {
		t.Fatalf("error %v before the first", err)
	}
	if err := f.PublishRTT(ctx, s, roundTrips("fra-1", "very private")); err != nil {
		t.Fatal(err)
	}
	e, err := memory.Get(ctx, "rtt/fra-1")
	if err != nil || bytes.Contains(e.Value, []byte("fra")) || e.Session != s {
		t.Fatalf("stored %q under %q, %v", e.Value, e.Session, err)
	}
	if _, err := memory.CompareAndSwap(ctx, "rtt/iad-1", e.Value, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.RTT(ctx, "iad-1"); err == nil {
		t.Error("a value that was moved to another key was read")
	}
	other, err := fleet.New(fleet.Config{Store: memory, Sealer: sealer(t, keyLine(9))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.RTT(ctx, "fra-1"); err == nil {
		t.Error("read without the key")
	}
}

// A node that starts again replaces what it left, though the session of it lasts.
func TestRTTOfAnEarlierProcessIsReplaced(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	ctx, old, new := t.Context(), session(t, memory), session(t, memory)
	for _, p := range []struct {
		session fleet.Session
		data    string
		want    error
	}{{old, "1", nil}, {old, "2", nil}, {new, "3", nil}, {new, "4", nil}, {old, "5", fleet.ErrSession}} {
		if err := f.PublishRTT(ctx, p.session, roundTrips("fra-1", p.data)); !errors.Is(err, p.want) {
			t.Fatalf("%s: error %v, want %v", p.data, err, p.want)
		}
		if p.want == nil {
			if err := rttIs(p.data)(ctx, f, memory); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Only who asks for them gets round-trip times, and is connected without them.
func TestViewOfRTT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fleet.NewMemory()
		writer := newFleet(t, memory)
		follow := func(rtt bool) *fleet.Fleet {
			f, err := fleet.New(fleet.Config{Store: memory, Sealer: sealer(t, keyLine(1)), FollowRTT: rtt})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx) }()
			t.Cleanup(func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
			return f
		}
		all, some := follow(true), follow(false)
		short, err := memory.NewSession(t.Context(), "short", 10*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []struct {
			session    fleet.Session
			node, data string
		}{{session(t, memory), "sin-1", "s"}, {short, "fra-1", "f"}} {
			if err := writer.PublishRTT(t.Context(), s.session, roundTrips(s.node, s.data)); err != nil {
				t.Fatal(err)
			}
		}
		view := await(t, all, "two nodes", time.Minute, func(v *fleet.View) bool { return len(v.RTT) == 2 })
		if r := view.RTT[0]; r.Node != "fra-1" || r.Pop != "fra" || string(r.Data) != "f" || !r.At.Equal(time.Unix(1000, 0)) {
			t.Errorf("%+v", r)
		}
		e, err := memory.Get(t.Context(), "rtt/sin-1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := memory.CompareAndSwap(t.Context(), e.Key, []byte("damaged"), e.Index); err != nil {
			t.Fatal(err)
		}
		view = await(t, all, "the damage", time.Minute, func(v *fleet.View) bool { return len(v.Rejected) == 1 })
		if len(view.RTT) != 2 || string(view.RTT[1].Data) != "s" {
			t.Errorf("the last good value is gone: %+v", view.RTT)
		}
		await(t, all, "the end of a session", time.Hour, func(v *fleet.View) bool { return len(v.RTT) == 1 })
		if v := some.View(); v.RTT != nil || !v.Connected || len(v.Rejected) > 0 {
			t.Errorf("who did not ask has %+v", v)
		}
	})
}

// A DNS node that cannot read round-trip times knows everything else, and reads
// them when it can.
func TestViewWithoutRTT(t *testing.T) {
	for _, fault := range []fleettest.Fault{fleettest.Lost, fleettest.Hang} {
		synctest.Test(t, func(t *testing.T) {
			memory := fleet.NewMemory()
			faults := fleettest.NewFaults(memory)
			faults.Set(func(_ fleettest.Op, key string) fleettest.Fault {
				if strings.HasPrefix(key, "rtt/") {
					return fault
				}
				return fleettest.None
			})
			f, err := fleet.New(fleet.Config{Store: faults, Sealer: sealer(t, keyLine(1)), FollowRTT: true})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx) }()
			defer func() { cancel(); <-done }()
			connected := await(t, f, "the store", time.Second, func(v *fleet.View) bool { return v.Connected })
			s := session(t, memory)
			if err := newFleet(t, memory).PublishRTT(ctx, s, roundTrips("fra-1", "f")); err != nil {
				t.Fatal(err)
			}
			if err := newFleet(t, memory).PutReport(ctx, s, report("fra-1")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
			if v := f.View(); len(v.Reports) != 1 || v.RTT != nil || !v.Connected || v.ConnectedSince != connected.ConnectedSince {
				t.Errorf("fault %d: %+v", fault, v)
			}
			faults.Set(nil)
			await(t, f, "round-trip times", time.Minute, func(v *fleet.View) bool { return len(v.RTT) == 1 })
		})
	}
}

// A real Consul takes a snapshot of the greatest size under an hour's session, lets
// the next process of the node take it over, and passes it on, as it does the plan.
func TestSteeringOnRealConsul(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t)
	store := dial(t, fleet.ConsulConfig{Address: server.Address()})
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer(t, keyLine(1)), FollowRTT: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	await(t, f, "the store", 10*time.Second, func(v *fleet.View) bool { return v.Connected })
	large := strings.Repeat("x", fleet.MaxRTT)
	for _, data := range []string{"small", large} {
		s, err := store.NewSession(ctx, "rtt", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := f.PublishRTT(ctx, s, roundTrips("fra-1", data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := publish(ctx, f, plan("ns-1", 0)); err != nil {
		t.Fatal(err)
	}
	if err := publish(ctx, f, plan("ns-2", 0)); !errors.Is(err, errStands) {
		t.Errorf("error %v for a second publisher", err)
	}
	v := await(t, f, "both", time.Minute, func(v *fleet.View) bool {
		return v.Plan != nil && len(v.RTT) == 1 && string(v.RTT[0].Data) == large
	})
	if _, fresh := v.PlanAge(time.Now()); !fresh || v.Plan.By != "ns-1" {
		t.Errorf("%+v", v.Plan)
	}
}
