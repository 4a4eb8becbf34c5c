package pop

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
	"anyedge/pop/guard"
)

// drained asks the node to go.
var drained = fleet.Orders{Drain: &fleet.Drain{Scope: fleet.ScopeNode, Name: "fra-1"}}

var tooManyOut = &guard.Refusal{Cause: guard.TooManyOut, Detail: "iad already out, max_out is 1"}

// fails makes the node unfit to serve for as long as the test lasts.
func (n *node) fails() { n.respawn = time.Hour; n.crash("exit status 2") }

func (n *node) recovers() { n.respawn, n.back = 500*time.Millisecond, time.Now() }

func TestDrainGoesInOrderWithALease(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		pace := n.c.cfg.Drain
		n.vitals.Connections = 7
		n.view.orders = drained
		n.run(tick)
		n.because("drain: de-preferred")
		n.stays(Depreferred, pace.Deprefer.Std()-2*tick)
		if n.store.acquires != 0 {
			t.Error("a lease was asked for before its time")
		}
		n.await(Withdrawn, time.Second)
		for end := time.Now().Add(pace.Withdraw.Std() - 2*tick); time.Now().Before(end); n.run(tick) {
			if n.c.route.drain.closing() {
				t.Fatal("clients asked to go before upstreams could follow")
			}
		}
		n.run(4 * tick)
		if n.c.route.drain.stage != DrainClose {
			t.Errorf("stage %s, want %s", n.c.route.drain.stage, DrainClose)
		}
		n.vitals.Connections = 0
		n.run(time.Second)
		if n.c.route.drain.stage != DrainCompleted {
			t.Errorf("stage %s once clients are gone, want %s", n.c.route.drain.stage, DrainCompleted)
		}
		n.stays(Withdrawn, time.Minute)
		n.view.orders = fleet.Orders{}
		n.await(Announced, time.Second)
		n.run(2 * leaseRetry)
		if n.store.held != "" {
			t.Error("the lease was not given back")
		}
		n.tells("depreferred", "withdrawn", "announced")
	})
}

func TestDrainThatTheGuardRefusesStaysDepreferred(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.store.refusal = tooManyOut
		n.view.orders = drained
		n.await(Depreferred, time.Second)
		for range 600 {
			n.run(tick)
			if n.c.route.announced != Depreferred || n.c.route.drain.closing() {
				t.Fatalf("%s, stage %s", n.c.route.announced, n.c.route.drain.stage)
			}
		}
		n.because("iad already out")
		if a := n.store.acquires; a < 40 || a > 60 {
			t.Errorf("asked %d times in a minute, want about one a second", a)
		}
		n.store.refusal = nil
		n.await(Withdrawn, 3*time.Second)
	})
}

func TestDrainWithoutTheStoreStaysDepreferred(t *testing.T) {
	for name, away := range map[string]func(n *node){
		"not connected": func(n *node) { n.view.connected = false },
		"fails":         func(n *node) { n.store.err = errStore },
		"hangs":         func(n *node) { n.store.silent = make(chan struct{}) },
	} {
		t.Run(name, func(t *testing.T) {
			serving(t, func(t *testing.T, n *node) {
				n.view.orders = drained
				n.await(Depreferred, time.Second)
				away(n)
				n.stays(Depreferred, time.Minute)
				n.because("not withdrawn: fleet store out of reach")
				if n.c.route.drain.closing() {
					t.Error("clients asked to go while the route is up")
				}
			})
		})
	}
}

func TestFailureThatTheGuardRefusesIsDepreferred(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.store.refusal = tooManyOut
		n.fails()
		n.await(Depreferred, 4*time.Second)
		n.because("not ready for 2s; withdraw refused: iad already out")
		n.stays(Depreferred, time.Minute)
		n.store.refusal = nil
		n.await(Withdrawn, 3*time.Second)
		n.tells("depreferred", "withdrawn")
	})
}

func TestFailureWithoutTheStoreWithdraws(t *testing.T) {
	for name, tc := range map[string]struct {
		away  func(n *node)
		after time.Duration
	}{
		"not connected": {func(n *node) { n.view.connected = false }, 2 * tick},
		"fails":         {func(n *node) { n.store.err = errStore }, 2 * tick},
		"answer lost":   {func(n *node) { n.store.losing = true }, 2 * tick},
		"hangs":         {func(n *node) { n.store.silent = make(chan struct{}) }, leaseTimeout + 2*tick},
	} {
		t.Run(name, func(t *testing.T) {
			serving(t, func(t *testing.T, n *node) {
				tc.away(n)
				n.fails()
				n.stays(Announced, n.c.cfg.Worker.RespawnGrace.Std()-tick)
				n.await(Withdrawn, 3*tick+tc.after)
				n.because("fleet store out of reach")
				n.stays(Withdrawn, time.Minute)
			})
		})
	}
}

// While the question is open the route stays as it is.
func TestLateAnswerIsAwaited(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.store.silent = make(chan struct{})
		n.fails()
		n.stays(Announced, n.c.cfg.Worker.RespawnGrace.Std()+leaseTimeout-4*tick)
		if n.store.acquires != 1 {
			t.Fatalf("asked %d times, want once", n.store.acquires)
		}
		close(n.store.silent)
		n.await(Withdrawn, 2*tick)
		if n.c.route.lease.answer.permission != granted {
			t.Errorf("permission %d, want granted", n.c.route.lease.answer.permission)
		}
	})
}

// An answer may come when the node does not need it any more.
func TestLeaseGrantedTooLateIsGivenBack(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.view.orders = drained
		n.await(Depreferred, time.Second)
		n.store.silent = make(chan struct{})
		n.run(n.c.cfg.Drain.Deprefer.Std() + 2*tick)
		if n.store.busy != 1 {
			t.Fatal("the lease is not being asked for")
		}
		n.view.orders = fleet.Orders{}
		n.await(Announced, time.Second)
		close(n.store.silent)
		n.run(3 * leaseRetry)
		if n.store.acquires != 1 || n.store.held != "" {
			t.Errorf("asked %d times, held under %q, want it given back", n.store.acquires, n.store.held)
		}
		n.tells("depreferred", "announced")
	})
}

func TestLostSessionAsksAnew(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.fails()
		n.await(Withdrawn, 4*time.Second)
		n.renew("")
		n.stays(Withdrawn, 10*time.Second)
		n.renew("s2")
		n.run(2 * tick)
		if n.store.held != "s2" {
			t.Errorf("lease held under %q, want s2", n.store.held)
		}
		n.stays(Withdrawn, 10*time.Second)
		n.tells("withdrawn")
	})
}

// A lease ends with its session: one that was granted under a session which is
// gone by the time the answer comes is none.
func TestLeaseOfAnEndedSessionDoesNotCount(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.store.silent = make(chan struct{})
		n.fails()
		n.run(n.c.cfg.Worker.RespawnGrace.Std() + 3*tick)
		if n.store.busy != 1 {
			t.Fatal("the lease is not being asked for")
		}
		close(n.store.silent)
		synctest.Wait() // granted under s1, and the answer is on its way
		n.renew("s2")
		n.store.refusal = tooManyOut
		n.run(4 * tick)
		if n.c.route.announced != Depreferred {
			t.Errorf("%s (%s), want de-preferred: s2 was refused", n.c.route.announced, n.c.route.reason)
		}
	})
}

// A node between two sessions is not cut off from the store: it has to ask like
// everybody else, within the time that a store may take to answer.
func TestFailureBetweenSessionsAsksUnderTheNextOne(t *testing.T) {
	for name, gone := range map[string]func(n *node){
		"known":     func(n *node) { n.renew("") },
		"not known": func(n *node) { n.store.session = "" }, // until the store says so
	} {
		t.Run(name, func(t *testing.T) {
			serving(t, func(t *testing.T, n *node) {
				n.store.refusal = tooManyOut
				gone(n)
				n.fails()
				n.stays(Announced, n.c.cfg.Worker.RespawnGrace.Std()+5*tick)
				n.renew("s2")
				n.await(Depreferred, 3*tick)
				n.because("iad already out")
			})
		})
	}
}

// A store that answers but gives no session is as good as none.
func TestFailureWithoutAnySessionWithdraws(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.renew("")
		n.fails()
		n.await(Withdrawn, n.c.cfg.Worker.RespawnGrace.Std()+leaseTimeout+3*tick)
		n.because("fleet store out of reach")
	})
}

func TestWithdrawnNodeLetsOthersKnow(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.view.connected = false
		n.fails()
		n.await(Withdrawn, 4*time.Second)
		if n.store.acquires != 0 {
			t.Error("asked a store that is out of reach")
		}
		n.view.connected = true
		n.run(2 * tick)
		if n.store.held != "s1" {
			t.Error("a withdrawn node holds no lease although the store is back")
		}
		n.recovers()
		n.await(Announced, 20*time.Second)
		n.run(2 * leaseRetry)
		if n.store.held != "" {
			t.Error("the lease was not given back")
		}
	})
}

// The recorded reason is for the operators of other nodes.
func TestLeaseRecordsTheReason(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.fails()
		n.await(Withdrawn, 4*time.Second)
		if len(n.store.reasons) != 1 || n.store.reasons[0] != "worker: not ready for 2s" {
			t.Errorf("reasons %q", n.store.reasons)
		}
	})
}

func TestScriptedStoreRefusesLikeTheFleet(t *testing.T) {
	s := &scripted{session: "s1", refusal: tooManyOut}
	var r *guard.Refusal
	if err := s.acquire(t.Context(), plea{}); !errors.As(err, &r) || s.held != "" {
		t.Errorf("%v, held %q", err, s.held)
	}
	s = &scripted{}
	if err := s.acquire(t.Context(), plea{}); !errors.Is(err, fleet.ErrSession) {
		t.Errorf("%v, want %v", err, fleet.ErrSession)
	}
}

// While the store is busy nothing is known to be permitted, and the store is not
// away either.
func TestFailureWithABusyStoreIsDepreferred(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.store.err = fleet.ErrBusy
		n.fails()
		n.await(Depreferred, 4*time.Second)
		n.because("fleet store answers too late")
		n.stays(Depreferred, time.Minute)
		n.store.err = errStore
		n.await(Withdrawn, 3*time.Second)
	})
}

// A node that knew of a freeze when it lost the store keeps to it.
func TestFreezeOutlivesTheStore(t *testing.T) {
	for name, away := range map[string]func(n *node){
		"not connected": func(n *node) { n.view.connected = false },
		"fails":         func(n *node) { n.store.err = errStore },
	} {
		t.Run(name, func(t *testing.T) {
			serving(t, func(t *testing.T, n *node) {
				n.view.frozen = true
				away(n)
				n.fails()
				n.await(Depreferred, 4*time.Second)
				n.because("the fleet was frozen")
				n.stays(Depreferred, time.Minute)
				n.view.frozen = false
				n.await(Withdrawn, 3*time.Second)
			})
		})
	}
}

// What the store said last lapses with it, and so does a refusal on display.
func TestRefusalLapsesWithTheStore(t *testing.T) {
	serving(t, func(t *testing.T, n *node) {
		n.store.refusal = tooManyOut
		n.fails()
		n.await(Depreferred, 4*time.Second)
		n.view.connected = false
		n.await(Withdrawn, 3*tick)
		n.because("fleet store out of reach")
		if n.last.Lease.refusal != nil {
			t.Errorf("still shows %v", n.last.Lease.refusal)
		}
		n.store.refusal, n.view.connected = nil, true
		n.run(2 * leaseRetry)
		if n.store.held != "s1" || !n.c.route.lease.asked.gone {
			t.Errorf("held under %q, asked as %+v: the others do not know that it is out", n.store.held, n.c.route.lease.asked)
		}
	})
}
