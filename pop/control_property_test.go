package pop

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
	"anyedge/pop/proxy"
)

// Whatever happens, in whatever order, what the world of [node] checks at every
// instant holds: the route is withdrawn only with a lease, or by a node that
// cannot serve and cannot ask; it is announced only when every address has
// served; the speaker is told what was decided; the store gets one question at
// a time. And when all troubles end, the node is announced and owes no lease.
func TestWhateverHappensTheInvariantsHold(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 20
	}
	reached := make(map[Announcement]int)
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t)
			defer n.c.route.lease.settle()
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			rng := rand.New(rand.NewPCG(seed, 7))
			for range 60 {
				n.trouble(rng)
				n.run(time.Duration(rng.IntN(4000)) * time.Millisecond)
				reached[n.c.route.announced]++
			}
			n.heal(rng)
			n.run(2 * time.Second) // what began before may still show
			n.await(Announced, 10*time.Minute)
			n.run(3 * leaseRetry)
			if n.store.held != "" || n.store.busy != 0 {
				t.Errorf("in the end the lease is held under %q, %d calls under way", n.store.held, n.store.busy)
			}
			asked := n.store.acquires + n.store.releases
			n.stays(Announced, time.Minute)
			if more := n.store.acquires + n.store.releases - asked; more != 0 {
				t.Errorf("the store was asked %d times by a node that serves", more)
			}
		})
	}
	for _, a := range Announcements() {
		if reached[a] < int(seeds) {
			t.Errorf("the walks were %s at %d moments only: they prove little", a, reached[a])
		}
	}
}

// trouble makes one thing worse or better.
func (n *node) trouble(rng *rand.Rand) {
	switch rng.IntN(14) {
	case 0:
		n.respawn = time.Duration(rng.IntN(6000)) * time.Millisecond
		n.crash("exit status 2")
	case 1:
		n.hung = n.back.IsZero()
	case 2:
		n.hung = false
	case 3:
		l := n.c.cfg.Listeners[rng.IntN(2)].Name
		n.broken[l] = !n.broken[l]
	case 4:
		clear(n.broken)
	case 5:
		n.vitals.Pools[0].Usable = rng.IntN(2)
	case 6:
		n.use(proxy.ResourceMemory, float64(rng.IntN(100)))
	case 7:
		if n.view.orders.Drain == nil {
			n.view.orders.Drain = drained.Drain
		} else {
			n.view.orders.Drain = nil
		}
		n.vitals.Connections = int64(rng.IntN(3))
	case 8:
		n.view.connected = !n.view.connected
	case 9:
		n.store.err, n.store.refusal, n.store.losing = nil, nil, false
		switch rng.IntN(4) {
		case 0:
			n.store.err = errStore
		case 1:
			n.store.refusal = tooManyOut
		case 2:
			n.store.losing = true
		}
	case 10:
		if n.answer(); rng.IntN(2) == 0 {
			n.store.silent = make(chan struct{})
		}
	case 11:
		n.renew(fleet.Session([]string{"", fmt.Sprint("s", rng.Uint32())}[rng.IntN(2)]))
	case 13:
		actions := []string{"", fleet.ActionAnnounce, fleet.ActionDepreference, fleet.ActionWithdraw}
		if action := actions[rng.IntN(4)]; action == "" {
			n.view.orders.Override = nil
		} else {
			n.override(action, false)
		}
	case 12: // this process is starved, the world goes on
		time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
	}
}

// answer lets a silent store answer.
func (n *node) answer() {
	if n.store.silent != nil {
		close(n.store.silent)
		n.store.silent = nil
		synctest.Wait()
	}
}

// heal ends all troubles.
func (n *node) heal(rng *rand.Rand) {
	n.answer()
	if !n.back.IsZero() {
		n.back = time.Now()
	}
	n.hung, n.view.orders, n.view.connected = false, fleet.Orders{}, true
	clear(n.broken)
	n.vitals.Pools[0].Usable = 1
	n.vitals.Usage = nil
	n.store.err, n.store.refusal, n.store.losing = nil, nil, false
	n.renew(fleet.Session(fmt.Sprint("s", rng.Uint32())))
}
