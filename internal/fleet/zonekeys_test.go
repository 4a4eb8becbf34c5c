package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
)

// newKeyed returns a fleet that follows zones' keys: any that begin with "ring".
func newKeyed(t *testing.T, store fleet.Store, line string) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer(t, line), ValidZoneKeys: func(zone string, ring []byte) error {
		if !bytes.HasPrefix(ring, []byte("ring of "+zone)) {
			return errors.New("no ring of the zone")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestZoneKeys(t *testing.T) {
	ctx, store := t.Context(), fleet.NewMemory()
	f := newKeyed(t, store, keyLine(1))
	if _, err := f.ZoneKeys(ctx, "a.example"); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("before there are any: %v", err)
	}
	first, err := f.PutZoneKeys(ctx, "a.example", []byte("ring of a.example, 1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if e, _ := store.Get(ctx, "dnssec/a.example"); bytes.Contains(e.Value, []byte("ring")) {
		t.Error("the keys are in the store in clear")
	}
	if _, err := f.PutZoneKeys(ctx, "a.example", []byte("ring of a.example, other"), 0); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("a second first ring: %v", err)
	}
	second, err := f.PutZoneKeys(ctx, "a.example", []byte("ring of a.example, 2"), first)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := f.ZoneKeys(ctx, "a.example"); err != nil || string(keys.Ring) != "ring of a.example, 2" || keys.Index != second {
		t.Errorf("%s with index %d, %v", keys.Ring, keys.Index, err)
	}
	for zone, ring := range map[string]string{"A.example": "ring of A.example", "a/b": "ring of a/b", "b.example": "ring of a.example", strings.Repeat("a", 2000): "ring"} {
		if _, err := f.PutZoneKeys(ctx, zone, []byte(ring), 0); err == nil {
			t.Errorf("%q was written for %.20q", ring, zone)
		}
	}
	if _, err := newKeyed(t, store, keyLine(2)).ZoneKeys(ctx, "a.example"); err == nil {
		t.Error("opened with another key")
	}
	if _, err := newFleet(t, store).PutZoneKeys(ctx, "b.example", []byte("ring of b.example"), 0); err == nil {
		t.Error("written by one that has nothing to do with keys")
	}
}

// A ring that cannot be opened, or is of another zone, changes nothing.
func TestZoneKeysAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		store := fleet.NewMemory()
		f, other := newKeyed(t, store, keyLine(1)), newFleet(t, store)
		for _, each := range []*fleet.Fleet{f, other} {
			go each.Run(ctx)
		}
		defer func() { stop(); synctest.Wait() }()
		index, err := f.PutZoneKeys(ctx, "a.example", []byte("ring of a.example"), 0)
		if err != nil {
			t.Fatal(err)
		}
		good, err := f.PutZoneKeys(ctx, "b.example", []byte("ring of b.example"), 0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if keys := f.View().ZoneKeys; len(keys) != 2 || string(keys["a.example"].Ring) != "ring of a.example" || keys["a.example"].Index != index {
			t.Errorf("%v", keys)
		}
		if keys := other.View().ZoneKeys; len(keys) != 0 {
			t.Error("one that has nothing to do with keys reads them")
		}
		e, err := store.Get(ctx, "dnssec/a.example")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.CompareAndSwap(ctx, "dnssec/b.example", e.Value, good); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		view := f.View()
		if string(view.ZoneKeys["b.example"].Ring) != "ring of b.example" || len(view.Rejected) != 1 {
			t.Errorf("a ring moved to another zone: %s, rejected %v", view.ZoneKeys["b.example"].Ring, view.Rejected)
		}
	})
}
