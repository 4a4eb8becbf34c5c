package gslb

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/gslb/dnssec"
	"anyedge/internal/fleet"
)

// A change by hand is made to the latest ring that this node knows of, if the store
// has lost it or has an older one.
func TestChangeOfARingThatIsLost(t *testing.T) {
	ctx := t.Context()
	n, err := newSigningNode(t, fleet.NewMemory(), testSealer(t, "5a"), quick())
	if err != nil {
		t.Fatal(err)
	}
	z := n.keys.zones["edge.example"]
	first, _, err := dnssec.Ring{}.Advance(time.Now(), z.name, z.policy, nil, newCounter())
	if err != nil {
		t.Fatal(err)
	}
	leave := func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) { return r.Leave(now, p) }
	if err := n.keys.change(ctx, z.name, leave); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("a zone without keys was changed: %v", err)
	}
	z.ring = first
	z.ring.Generation = 7
	want := uint64(8)
	for _, stored := range []string{"lost", "older"} {
		if err := n.keys.change(ctx, z.name, leave); err != nil {
			t.Fatal(err)
		}
		keys, err := n.fleet.ZoneKeys(ctx, z.name)
		if err != nil {
			t.Fatal(err)
		}
		ring, err := dnssec.ParseRing(z.name, keys.Ring)
		if err != nil || ring.Generation != want || ring.Leaving.IsZero() {
			t.Errorf("%s: the store has %v, %v", stored, ring, err)
		}
		z.ring.Generation, want = 20, 21 // later than what the store has
	}
}

// What the keeper has done between plan and set is not undone.
func TestReloadWhileKeysChange(t *testing.T) {
	n, err := newSigningNode(t, fleet.NewMemory(), testSealer(t, "5a"), quick())
	if err != nil {
		t.Fatal(err)
	}
	zones, err := n.keys.plan(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	z := n.keys.zones["edge.example"]
	if z.ring, _, err = z.ring.Advance(time.Now(), z.name, z.policy, nil, newCounter()); err != nil {
		t.Fatal(err)
	}
	n.keys.set(zones)
	if got := n.keys.zones["edge.example"].ring.Generation; got != z.ring.Generation {
		t.Errorf("generation %d after a reload, %d before", got, z.ring.Generation)
	}
}

// stuckStore is one that does not answer when it is written to.
type stuckStore struct {
	fleet.Store
	stuck atomic.Bool
}

func (s *stuckStore) CompareAndSwap(ctx context.Context, key string, value []byte, prev uint64) (uint64, error) {
	if s.stuck.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return s.Store.CompareAndSwap(ctx, key, value, prev)
}

// Keys change on time while the store takes no writing and does not say so.
func TestKeysChangeWhileTheStoreIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, parent := &stuckStore{Store: fleet.NewMemory()}, &follower{t: t}
		n := runSigningNode(t, store, testSealer(t, "5a"), quick(), parent.ask)
		time.Sleep(2 * time.Hour)
		roll := func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) {
			return r.Roll(now, p, dnssec.ZSK, newCounter())
		}
		if err := n.keys.change(t.Context(), "edge.example", roll); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		store.stuck.Store(true)
		parent.follow(n) // that is to be written
		before := n.validate(parent.ds)
		time.Sleep(2 * time.Hour)
		if after := n.validate(parent.ds); after == before {
			t.Errorf("the zone is signed by %d still", after)
		}
		n.halt()
	})
}
