package tickets

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// edge is a fleet of nodes on one ring. It plays what the ring's promise allows
// to go wrong: every node's view of the ring is late, clocks differ, rotators
// race, writes get lost or persist although they failed, and at times nobody
// rotates at all.
type edge struct {
	t    *testing.T
	r    *rand.Rand
	s    Schedule
	skew []time.Duration // by node; any two differ by at most Propagation

	now       time.Time
	published []publication // in order of time
	sealed    []ticket      // still to be openable
}

// publication is one version of the ring in the store.
type publication struct {
	at   time.Time
	ring Ring
}

// ticket remembers what sealed a session.
type ticket struct {
	at  time.Time
	key Key
}

func newEdge(t *testing.T, seed uint64) *edge {
	r := rand.New(rand.NewPCG(seed, 2))
	p := time.Duration(1+r.IntN(60)) * time.Second
	e := &edge{
		t: t, r: r, now: start,
		s: Schedule{Rotate: 4*p + time.Duration(r.IntN(3600))*time.Second, Keep: 1 + r.IntN(4), Propagation: p},
	}
	for range 4 {
		e.skew = append(e.skew, time.Duration(r.Int64N(int64(p)))-p/2)
	}
	ring, err := New(e.clock(0), e.s, source(seed))
	if err != nil {
		t.Fatal(err)
	}
	e.published = []publication{{e.now, ring}}
	e.now = e.now.Add(p) // every node has got the first ring
	return e
}

func (e *edge) clock(node int) time.Time { return e.now.Add(e.skew[node]) }

func (e *edge) upTo(limit time.Duration) time.Duration {
	return time.Duration(e.r.Int64N(int64(limit) + 1))
}

// view returns a ring that a node may have: of any age up to Propagation.
func (e *edge) view() Ring {
	asOf := e.now.Add(-e.upTo(e.s.Propagation))
	view := e.published[0].ring
	for _, p := range e.published {
		if !p.at.After(asOf) {
			view = p.ring
		}
	}
	return view
}

// seal makes a ticket at a node with a late view.
func (e *edge) seal(node int) {
	key, ok := e.view().Encrypting(e.clock(node))
	if !ok {
		e.t.Fatal("nothing to seal with")
	}
	e.sealed = append(e.sealed, ticket{e.now, key})
}

// open opens every ticket at a node with a late view, those at least that are
// not older than promised.
func (e *edge) open(node int) {
	promised := e.s.retention() - e.s.Propagation
	e.sealed = slices.DeleteFunc(e.sealed, func(k ticket) bool { return e.now.Sub(k.at) > promised })
	keys := e.view().Decrypting(e.clock(node))
	for _, k := range e.sealed {
		if !slices.Contains(keys, k.key) {
			e.t.Fatalf("%+v: at %v node %d cannot open a ticket of %v sealed with %v; it has %v",
				e.s, e.now.Sub(start), node, k.at.Sub(start), k.key, keys)
		}
	}
}

// rotate lets some nodes race to advance what is in the store.
func (e *edge) rotate() {
	stored := e.published[len(e.published)-1].ring
	contenders := 1 + e.r.IntN(3)
	winner := e.r.IntN(contenders)
	for i := range contenders {
		next, changed, err := stored.Advance(e.clock(e.r.IntN(len(e.skew))), e.s, source(e.r.Uint64()))
		if err != nil {
			e.t.Fatal(err)
		}
		// The loser's result is discarded; the winner's may be lost on the
		// way too. Whether the winner knows that it won makes no difference.
		if changed && i == winner && e.r.IntN(4) > 0 {
			e.published = append(e.published, publication{e.now, next})
		}
	}
}

// Any node opens what any other sealed.
func TestTicketsOpenEverywhere(t *testing.T) {
	edges := 150
	if testing.Short() {
		edges = 15
	}
	for seed := range edges {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			e := newEdge(t, uint64(seed))
			outage := e.now
			for range 1200 {
				e.now = e.now.Add(e.upTo(e.s.Rotate / 8))
				if e.r.IntN(200) == 0 {
					outage = e.now.Add(e.upTo(10 * e.s.Rotate))
				}
				if !e.now.Before(outage) {
					e.rotate()
				}
				e.seal(e.r.IntN(len(e.skew)))
				e.open(e.r.IntN(len(e.skew)))
			}
			last := e.published[len(e.published)-1].ring
			if len(e.published) < 20 || len(last.Keys) > e.s.Keep+3 {
				t.Errorf("%d rotations left %d keys, keep is %d", len(e.published)-1, len(last.Keys), e.s.Keep)
			}
		})
	}
}

// A rotator whose clock is far off costs some resumptions. It must not stop the
// rotation for the others, make them write without end, or leave them without a
// key that all of them have.
func TestRotatorWithAWrongClock(t *testing.T) {
	for _, off := range []time.Duration{-1000 * time.Hour, -5 * time.Hour, -10 * time.Minute, 10 * time.Minute, 5 * time.Hour, 1000 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			r := newRing(t, hourly)
			rnd := source(9)
			writes, fresh := 0, 0
			sealing := make(map[ID]bool)
			const hours = 100
			for minute := range hours * 60 {
				now := start.Add(time.Duration(minute) * time.Minute)
				for _, clock := range []time.Time{now, now.Add(off), now} {
					next, changed, err := r.Advance(clock, hourly, rnd)
					if err != nil {
						t.Fatal(err)
					}
					if changed {
						writes++
					}
					// What the others encrypt with right after the write
					// should have been there before it: late views lack it.
					key, _ := next.Encrypting(now)
					if !slices.ContainsFunc(r.Keys, func(k Key) bool { return k.ID == key.ID }) {
						fresh++
					}
					sealing[key.ID] = true
					r = next
				}
			}
			if fresh > 1 { // a slow clock can do so once, before there are past keys
				t.Errorf("%d keys encrypted as soon as they were published", fresh)
			}
			if writes > 3*hours {
				t.Errorf("%d writes in %d hours", writes, hours)
			}
			if len(sealing) < hours/2 {
				t.Errorf("%d keys used in %d hours", len(sealing), hours)
			}
			if len(r.Keys) > 2*hours {
				t.Errorf("%d keys", len(r.Keys))
			}
		})
	}
}

// Without a store the nodes rotate once more, together, and go on for ever with
// the last key that all of them know.
func TestStoreGone(t *testing.T) {
	r := newRing(t, hourly)
	last := r.Keys[1]
	for _, after := range []time.Duration{time.Hour, 24 * time.Hour, 1000 * time.Hour} {
		if k, ok := r.Encrypting(start.Add(after)); !ok || k != last {
			t.Errorf("after %v: %v, want the last one known", after, k)
		}
	}
}
