package vrrp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// A simulated LAN on virtual time. A run has three parts: a storm, in which
// packets are lost and routers fail, are stopped, sleep, and are cut off; a
// calm in which the survivors must come to terms; and trials on the calm LAN,
// in which every takeover has a bound.

// node is a router of the LAN.
type node struct {
	id     int
	m      *machine
	addr   netip.Addr
	cfg    Config
	up     bool // the process runs
	asleep time.Time
	inbox  []delivery
	holds  bool      // the addresses are on its interface
	since  time.Time // since when it holds or does not
	began  time.Time // the latest start
}

type delivery struct {
	at   time.Time
	from netip.Addr
	a    advertisement
}

type lan struct {
	t     *testing.T
	seed  uint64
	rnd   *rand.Rand
	now   time.Time
	nodes []*node
	loss  float64
	delay time.Duration // the longest
	side  []bool        // of a partition, by node; nil when there is none
	calm  bool          // nothing is lost, nobody sleeps: the strict rules hold
	trail []string
}

func newLAN(t *testing.T, seed uint64) *lan {
	l := &lan{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 9568)), now: time.Unix(1_000_000, 0), delay: 2 * ms}
	interval := []time.Duration{10 * ms, 100 * ms, 1000 * ms}[l.rnd.IntN(3)]
	l.delay = min(l.delay, interval/50)
	owner := l.rnd.IntN(8) == 0
	for i := range 2 + l.rnd.IntN(3) {
		cfg := Config{Interval: interval, Priority: uint8(1 + l.rnd.IntN(254)), Preempt: l.rnd.IntN(2) == 0}
		if l.rnd.IntN(3) == 0 { // ties
			cfg.Priority = 100
		}
		if l.rnd.IntN(4) == 0 { // routers need not agree on it
			cfg.Interval = interval * time.Duration(1+l.rnd.IntN(5))
		}
		if cfg.Preempt && l.rnd.IntN(2) == 0 {
			cfg.PreemptDelay = time.Duration(l.rnd.IntN(20)) * cfg.Interval
		}
		if i == 0 && owner {
			cfg.Priority, cfg.Preempt, cfg.PreemptDelay = PriorityOwner, false, 0
		}
		l.nodes = append(l.nodes, &node{id: i, cfg: cfg, m: newMachine(cfg), addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}), up: true, since: l.now})
	}
	return l
}

func (l *lan) note(format string, args ...any) {
	l.trail = append(l.trail, fmt.Sprintf("%v %s", l.now.Sub(time.Unix(1_000_000, 0)), fmt.Sprintf(format, args...)))
	if len(l.trail) > 400 {
		l.trail = l.trail[200:]
	}
}

func (l *lan) fail(format string, args ...any) {
	l.t.Helper()
	var nodes strings.Builder
	for _, n := range l.nodes {
		fmt.Fprintf(&nodes, "%d: priority %d (now %d) interval %v preempt %v %v\n", n.id, n.cfg.Priority, n.m.priority, n.cfg.Interval, n.cfg.Preempt, n.cfg.PreemptDelay)
	}
	tail := l.trail[max(0, len(l.trail)-60):]
	l.t.Fatalf("seed %d at %v: %s\n%s%s", l.seed, l.now.Sub(time.Unix(1_000_000, 0)), fmt.Sprintf(format, args...), &nodes, strings.Join(tail, "\n"))
}

// apply carries out a node's actions.
func (l *lan) apply(n *node, actions []action) {
	for _, a := range actions {
		switch a {
		case advertise:
			l.send(n, n.m.priority)
		case resign:
			l.send(n, 0)
		case acquire, release:
			if n.holds == (a == acquire) {
				l.fail("router %d: acquires or releases twice", n.id)
			}
			if a == acquire {
				l.justified(n)
			}
			n.holds, n.since = a == acquire, l.now
			l.note("%d %s: %s", n.id, n.m.state, n.m.reason)
		}
	}
	if n.holds != (n.m.state == Active) {
		l.fail("router %d: %s, holding %v", n.id, n.m.state, n.holds)
	}
}

// justified fails if a router takes over, on a calm LAN, from another that has
// been Active and heard all along, without the right to preempt it.
func (l *lan) justified(n *node) {
	if !l.calm {
		return
	}
	for _, o := range l.nodes {
		if o == n || !o.up || !o.holds || l.now.Sub(o.since) < 8*o.cfg.Interval {
			continue
		}
		heard := l.now.Sub(n.began)
		if o.cfg.Interval+2*l.delay > 3*n.cfg.Interval && heard < 8*n.cfg.Interval {
			continue // it gave up waiting before it could hear the slow one
		}
		switch {
		case n.m.priority == PriorityOwner:
		case n.m.priority <= o.m.priority:
			l.fail("router %d takes over from %d of no lower priority", n.id, o.id)
		case !n.cfg.Preempt:
			l.fail("router %d preempts %d, and must not", n.id, o.id)
		case heard < n.cfg.PreemptDelay:
			l.fail("router %d preempts %d after %v", n.id, o.id, heard)
		}
	}
}

func (l *lan) send(n *node, priority uint8) {
	for _, o := range l.nodes {
		if o == n || !o.up || l.side != nil && l.side[n.id] != l.side[o.id] || l.rnd.Float64() < l.loss {
			continue
		}
		at := l.now.Add(time.Duration(1 + l.rnd.Int64N(int64(l.delay))))
		for _, d := range o.inbox { // a LAN keeps order
			if d.from == n.addr && d.at.After(at) {
				at = d.at
			}
		}
		o.inbox = append(o.inbox, delivery{at, n.addr, advertisement{vrid: 51, priority: priority, interval: n.cfg.Interval}})
	}
}

// next is when something happens next.
func (l *lan) next() time.Time {
	var first time.Time
	consider := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, n := range l.nodes {
		if !n.up {
			continue
		}
		due := n.m.deadline
		for _, d := range n.inbox {
			if due.IsZero() || d.at.Before(due) {
				due = d.at
			}
		}
		if !due.IsZero() && due.Before(n.asleep) {
			due = n.asleep
		}
		consider(due)
	}
	return first
}

// run lets the LAN live until a time.
func (l *lan) run(until time.Time) {
	for {
		at := l.next()
		if at.IsZero() || at.After(until) {
			l.now = until
			return
		}
		if at.After(l.now) {
			l.now = at
		}
		for _, n := range l.nodes {
			if n.up && !l.now.Before(n.asleep) {
				l.turn(n)
			}
		}
		l.overlap()
	}
}

// turn is what the loop does: packets first, then timers.
func (l *lan) turn(n *node) {
	var later []delivery
	inbox := n.inbox
	n.inbox = nil
	for _, d := range inbox {
		if d.at.After(l.now) {
			later = append(later, d)
			continue
		}
		l.apply(n, n.m.receive(l.now, d.a, d.from))
	}
	n.inbox = append(later, n.inbox...)
	l.apply(n, n.m.tick(l.now))
}

// overlap fails if two routers are Active on a calm LAN for longer than it takes
// an advertisement and its answer to pass.
func (l *lan) overlap() {
	if !l.calm {
		return
	}
	for i, a := range l.nodes {
		for _, b := range l.nodes[:i] {
			if a.up && b.up && a.holds && b.holds {
				since := a.since
				if b.since.After(since) {
					since = b.since
				}
				if l.now.Sub(since) > 2*l.delay {
					l.fail("routers %d and %d are both Active since %v", a.id, b.id, l.now.Sub(since))
				}
			}
		}
	}
}

func (l *lan) start(n *node) {
	if n.up && n.m.state == Initialize {
		n.began = l.now
		l.note("%d starts", n.id)
		l.apply(n, n.m.start(l.now, n.addr))
	}
}

func (l *lan) stop(n *node) {
	if n.up {
		l.note("%d stops", n.id)
		l.apply(n, n.m.stop("stopped"))
	}
}

// crash is the end of a process: its addresses go with it.
func (l *lan) crash(n *node) {
	l.note("%d crashes", n.id)
	n.up, n.holds, n.since, n.inbox, n.m = false, false, l.now, nil, newMachine(n.cfg)
}

// disturb has something happen to a router, or to the network.
func (l *lan) disturb() {
	n := l.nodes[l.rnd.IntN(len(l.nodes))]
	switch l.rnd.IntN(9) {
	case 0:
		l.crash(n)
	case 1, 2:
		n.up = true
		l.start(n)
	case 3:
		l.stop(n)
	case 4:
		n.asleep = l.now.Add(time.Duration(l.rnd.IntN(8)) * n.cfg.Interval)
	case 5:
		l.side = nil
		if l.rnd.IntN(2) == 0 {
			for range l.nodes {
				l.side = append(l.side, l.rnd.IntN(2) == 0)
			}
		}
	case 6:
		l.loss = l.rnd.Float64() * 0.7
	case 7, 8:
		if n.up {
			p := uint8(1 + l.rnd.IntN(int(n.cfg.Priority)))
			l.note("%d has priority %d", n.id, p)
			l.apply(n, n.m.prioritize(l.now, p))
		}
	}
}

// slowest is the longest that any router of the LAN waits for an Active one: an
// interval may have been learned from any other.
func (l *lan) slowest() time.Duration {
	var longest time.Duration
	for _, n := range l.nodes {
		longest = max(longest, n.cfg.Interval)
	}
	return 4 * longest
}

// active is the one Active router; it fails unless there is exactly one, and it
// is one that may be.
func (l *lan) active() *node {
	var found *node
	for _, n := range l.nodes {
		if n.up && n.holds {
			if found != nil {
				l.fail("routers %d and %d are Active", found.id, n.id)
			}
			found = n
		}
	}
	if found == nil {
		l.fail("no router is Active")
	}
	for _, n := range l.nodes {
		if n.m.state == Backup && n.m.priority > found.m.priority && (n.cfg.Preempt || n.m.priority == PriorityOwner) {
			l.fail("router %d is Active; %d, which may preempt, is not", found.id, n.id)
		}
	}
	return found
}

// settle gives the LAN the time to settle that it may need.
func (l *lan) settle() {
	l.run(l.now.Add(2*l.slowest() + l.longestDelay()))
}

func (l *lan) longestDelay() time.Duration {
	var longest time.Duration
	for _, n := range l.nodes {
		longest = max(longest, n.cfg.PreemptDelay+l.slowest())
	}
	return longest
}

// takesOver runs until somebody but the given router is Active, and fails if
// that takes too long.
func (l *lan) takesOver(gone *node, limit time.Duration, what string) {
	began := l.now
	for l.now.Sub(began) <= limit {
		for _, n := range l.nodes {
			if n != gone && n.up && n.holds {
				return
			}
		}
		at := l.next()
		if at.IsZero() {
			break
		}
		l.run(at)
	}
	l.fail("%s: nobody took over within %v", what, limit)
}

// bound is how long the first of the others may wait, by a rule for each.
func (l *lan) bound(gone *node, wait func(*node) time.Duration) (limit time.Duration, any bool) {
	for _, n := range l.nodes {
		if n != gone && n.m.state == Backup {
			if w := wait(n); !any || w < limit {
				limit, any = w, true
			}
		}
	}
	return limit + 2*l.delay, any
}

func simulate(t *testing.T, seed uint64) {
	l := newLAN(t, seed)
	for _, n := range l.nodes {
		l.start(n)
	}
	l.loss = l.rnd.Float64() * 0.5
	for range 30 {
		l.run(l.now.Add(time.Duration(l.rnd.Int64N(int64(l.slowest())))))
		l.disturb()
	}
	// Calm: everybody runs and hears everybody, but one or two may not serve.
	l.loss, l.side = 0, nil
	for i, n := range l.nodes {
		n.asleep = time.Time{}
		n.up = true
		if i < 2 || l.rnd.IntN(4) > 0 {
			l.start(n)
		} else {
			l.stop(n)
		}
	}
	l.settle()
	l.calm = true
	l.active()

	for range 6 {
		a := l.active()
		// On a calm LAN, every Backup Router has just heard the Active one, or
		// ignores it.
		switch l.rnd.IntN(4) {
		case 0:
			limit, any := l.bound(a, func(n *node) time.Duration {
				i := max(n.m.learned, a.cfg.Interval)
				return 3*i + i*time.Duration(256-int(n.m.priority))/256
			})
			l.crash(a)
			if any {
				l.takesOver(a, limit, "crash")
			}
			a.up = true
		case 1:
			limit, any := l.bound(a, func(n *node) time.Duration {
				return max(n.m.learned, a.cfg.Interval) * time.Duration(256-int(n.m.priority)) / 256
			})
			l.stop(a)
			if any {
				l.takesOver(a, limit, "planned stop")
			}
		case 2:
			n := l.nodes[l.rnd.IntN(len(l.nodes))]
			n.up = true
			l.start(n)
		case 3:
			p := uint8(1 + l.rnd.IntN(int(a.cfg.Priority)))
			l.note("%d has priority %d", a.id, p)
			l.apply(a, a.m.prioritize(l.now, p))
		}
		l.settle()
		if a.up && a.m.state == Initialize {
			a.m.priority = a.cfg.Priority
			l.start(a)
			l.settle()
		}
		l.active()
	}
}

func TestSimulation(t *testing.T) {
	seeds := uint64(3000)
	if testing.Short() {
		seeds = 1000
	}
	for seed := range seeds {
		simulate(t, seed)
	}
}
