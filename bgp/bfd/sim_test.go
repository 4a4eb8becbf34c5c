package bfd

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// world is two sessions and the link between them on virtual time.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	start time.Time
	now   time.Time
	nodes [2]*node
	link  [2]direction // by the sending node
	queue flights
	sent  int // numbers flights
	trace []string
}

type node struct {
	cfg     Peer
	s       *session
	spacing time.Duration // the interval when it last sent
	changed time.Time     // when the state last changed
	seen    State
}

// direction is one way of the link.
type direction struct {
	loss      float64
	cut       bool
	mayLose   int // at most so many in a row
	inARow    int
	lastFlown time.Time // last arrival planned: the link keeps the order
}

const maxDelay = 500 * time.Microsecond

type flight struct {
	at time.Time
	n  int
	to int
	b  []byte
}

type flights []flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	if f[i].at.Equal(f[j].at) {
		return f[i].n < f[j].n
	}
	return f[i].at.Before(f[j].at)
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

func newWorld(t testing.TB, seed uint64, a, b Peer) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), start: time.Unix(1e9, 0)}
	w.now = w.start
	for i, cfg := range []Peer{a, b} {
		w.nodes[i] = &node{cfg: cfg}
		w.boot(i)
	}
	return w
}

// boot gives node i a new session, as after a crash.
func (w *world) boot(i int) {
	n := w.nodes[i]
	n.s = newSession(n.cfg, w.rng.Uint32()|1, w.rng.Uint32(), w.rng, w.now)
	n.changed, n.seen = w.now, n.s.state
	w.logf("node %d boots", i)
}

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%v ", w.now.Sub(w.start))+fmt.Sprintf(format, args...))
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.trace[max(0, len(w.trace)-60):] {
		w.t.Log(line)
	}
	w.t.Fatalf("at %v: %s", w.now.Sub(w.start), fmt.Sprintf(format, args...))
}

// run goes on until the time has passed or done holds, and says which.
func (w *world) run(d time.Duration, done func() bool) bool {
	w.t.Helper()
	end := w.now.Add(d)
	for {
		w.settle()
		if done != nil && done() {
			return true
		}
		next := end
		if len(w.queue) > 0 {
			next = sooner(next, w.queue[0].at)
		}
		for _, n := range w.nodes {
			next = sooner(next, n.s.deadline())
		}
		if next.Before(w.now) {
			w.fatalf("a deadline in the past: %v", next.Sub(w.start))
		}
		w.now = next
		if !next.Before(end) {
			return done == nil
		}
	}
}

// settle does all that is due now.
func (w *world) settle() {
	w.t.Helper()
	for len(w.queue) > 0 && !w.queue[0].at.After(w.now) {
		f := heap.Pop(&w.queue).(flight)
		n := w.nodes[f.to]
		p, raw, why := decode(f.b)
		if why != kept {
			w.fatalf("sent a packet that is dropped: %s", dropNames[why])
		}
		if p.your != 0 && p.your != n.s.local {
			continue // for the session before a reboot
		}
		n.s.receive(w.now, p, raw)
		w.transmit(f.to)
	}
	for i, n := range w.nodes {
		n.s.advance(w.now)
		w.transmit(i)
	}
}

func (w *world) transmit(i int) {
	w.t.Helper()
	n := w.nodes[i]
	if n.s.state != n.seen {
		w.logf("node %d: %v -> %v (%v)", i, n.seen, n.s.state, n.s.diag)
		n.seen, n.changed = n.s.state, w.now
	}
	if n.s.state == Up && n.s.remoteState != Up && n.s.remoteState != Init {
		w.fatalf("node %d is Up with a neighbor that is %v", i, n.s.remoteState)
	}
	for range 10 {
		before, poll, lastTx, spacing := n.s.sent, n.s.poll, n.s.lastTx, n.s.interval()
		b := n.s.next(w.now, nil)
		if b == nil {
			return
		}
		p, _, _ := decode(b)
		switch {
		case p.has(flagPoll) && p.has(flagFinal):
			w.fatalf("node %d polls and answers in one packet", i)
		case p.has(flagFinal):
		case before == n.s.sent && poll == n.s.poll:
			// A periodic packet: section 6.8.7.
			gap, least, most := w.now.Sub(lastTx), spacing*3/4, spacing
			if n.cfg.Multiplier == 1 {
				most = spacing * 9 / 10
			}
			if gap < least || gap > most && n.spacing == spacing {
				w.fatalf("node %d sent after %v, interval %v", i, gap, spacing)
			}
		}
		if !p.has(flagFinal) {
			n.spacing = n.s.interval()
		}
		if p.state != Up && p.desiredTx < slowInterval {
			w.fatalf("node %d is %v and offers to send every %v", i, p.state, p.desiredTx)
		}
		w.fly(i, b)
	}
	w.fatalf("node %d sends without end", i)
}

func (w *world) fly(from int, b []byte) {
	d := &w.link[from]
	if d.cut || w.rng.Float64() < d.loss && d.inARow < d.mayLose {
		d.inARow++
		return
	}
	d.inARow = 0
	at := w.now.Add(time.Duration(w.rng.Int64N(int64(maxDelay))))
	if at.Before(d.lastFlown) {
		at = d.lastFlown
	}
	d.lastFlown = at
	w.sent++
	heap.Push(&w.queue, flight{at, w.sent, 1 - from, b})
}

// healthy reports whether both are Up at their negotiated speed and nothing is
// left to agree on.
func (w *world) healthy() bool {
	for i, n := range w.nodes {
		s, o := n.s, w.nodes[1-i]
		if s.state != Up || s.remoteState != Up || s.poll != pollIdle && s.poll != pollSettled ||
			s.activeTx != n.cfg.TransmitInterval || s.activeRx != n.cfg.ReceiveInterval ||
			s.interval() != max(n.cfg.TransmitInterval, o.cfg.ReceiveInterval) ||
			s.detection() != time.Duration(o.cfg.Multiplier)*max(n.cfg.ReceiveInterval, o.cfg.TransmitInterval) {
			return false
		}
	}
	return true
}

func (w *world) describe() string {
	var all string
	for i, n := range w.nodes {
		s := n.s
		all += fmt.Sprintf(" node %d: %v/%v, remote %v, poll %d, tx %v (%v) rx %v (%v), remote rx %v, detection %v, flaps %d, x%d (neighbor's x%d);",
			i, s.state, s.diag, s.remoteState, s.poll, s.activeTx, n.cfg.TransmitInterval,
			s.activeRx, n.cfg.ReceiveInterval, s.remoteMinRx, s.detection(), s.flaps, n.cfg.Multiplier, s.remote.multiplier)
	}
	return all
}

func (w *world) flaps() uint64 { return w.nodes[0].s.flaps + w.nodes[1].s.flaps }

func (w *world) slowest() time.Duration {
	return max(w.nodes[0].s.detection(), w.nodes[1].s.detection())
}

// mustHeal requires both to come up within the time that the worst history
// takes: a neighbor is forgotten, and its sequence number after twice that.
func (w *world) mustHeal() {
	w.t.Helper()
	if !w.run(3*w.slowest()+20*time.Second, w.healthy) {
		w.fatalf("not healthy: %s", w.describe())
	}
}

func randomPeer(rng *rand.Rand, auth Auth) Peer {
	intervals := []time.Duration{10, 15, 50, 100, 300, 1000, 2000}
	pick := func() time.Duration { return intervals[rng.IntN(len(intervals))] * time.Millisecond }
	return Peer{TransmitInterval: pick(), ReceiveInterval: pick(), Multiplier: uint8(1 + rng.IntN(5)), Auth: auth}
}

func randomAuth(rng *rand.Rand) Auth {
	if rng.IntN(3) == 0 {
		return Auth{}
	}
	return Auth{Meticulous: rng.IntN(2) == 0, Keys: []Key{{ID: 7, Secret: "a shared secret"}}}
}

// TestChaos plays random histories. Whatever happened, a healthy link brings
// the sessions up, and then what the protocol promises holds.
func TestChaos(t *testing.T) {
	t.Parallel()
	seeds := uint64(5000)
	if testing.Short() {
		seeds = 500
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 2))
		auth := randomAuth(rng)
		w := newWorld(t, seed, randomPeer(rng, auth), randomPeer(rng, auth))
		w.logf("seed %d", seed)
		for range rng.IntN(5) {
			w.misfortune(rng)
		}
		w.link = [2]direction{}
		for _, n := range w.nodes {
			if n.cfg.AdminDown {
				n.cfg.AdminDown = false
				n.s.configure(n.cfg, w.now)
			}
		}
		w.run(w.slowest(), nil) // what is lost already may still show
		w.mustHeal()
		w.promises(rng)
	}
}

// misfortune is one thing that may happen to a link or its ends.
func (w *world) misfortune(rng *rand.Rand) {
	i := rng.IntN(2)
	n := w.nodes[i]
	switch rng.IntN(6) {
	case 0:
		w.link[i] = direction{loss: rng.Float64(), mayLose: 1000}
	case 1:
		w.link[i] = direction{cut: true}
	case 2:
		w.link = [2]direction{}
	case 3:
		w.boot(i)
	case 4:
		peer := randomPeer(rng, n.cfg.Auth)
		peer.AdminDown = n.cfg.AdminDown
		n.cfg = peer
		n.s.configure(n.cfg, w.now)
		w.logf("node %d: %v/%v x%d", i, n.cfg.TransmitInterval, n.cfg.ReceiveInterval, n.cfg.Multiplier)
	case 5:
		n.cfg.AdminDown = !n.cfg.AdminDown
		n.s.configure(n.cfg, w.now)
		w.logf("node %d: admin down %v", i, n.cfg.AdminDown)
	}
	w.run(time.Duration(rng.Int64N(int64(4*time.Second))), nil)
	for i, n := range w.nodes {
		if n.cfg.AdminDown && n.s.state != AdminDown {
			w.fatalf("node %d left AdminDown by itself", i)
		}
	}
}

// promises checks a healthy pair: changes of timers and loss short of the
// multiplier do no harm, an operator's stop is no failure, and a dead link is
// noticed in time.
func (w *world) promises(rng *rand.Rand) {
	a, b := w.nodes[0], w.nodes[1]
	flaps := w.flaps()
	for _, n := range []*node{a, b}[:rng.IntN(3)] {
		multiplier := n.cfg.Multiplier
		n.cfg = randomPeer(rng, n.cfg.Auth)
		n.cfg.Multiplier = max(multiplier, n.cfg.Multiplier)
		n.s.configure(n.cfg, w.now)
	}
	w.mustHeal()
	for i, n := range w.nodes {
		if n.cfg.Multiplier > 2 {
			w.link[i] = direction{loss: 0.5, mayLose: int(n.cfg.Multiplier) - 2}
		}
	}
	w.run(3*w.slowest(), nil)
	if !w.healthy() || w.flaps() != flaps {
		w.fatalf("flapped without reason: %s", w.describe())
	}
	w.link = [2]direction{}
	w.run(w.slowest(), nil)

	i := rng.IntN(2)
	n, other := w.nodes[i], w.nodes[1-i]
	failures := a.s.failures + b.s.failures
	switch rng.IntN(3) {
	case 0: // an operator
		n.cfg.AdminDown = true
		n.s.configure(n.cfg, w.now)
		w.run(5*maxDelay, nil)
		if other.s.state != Down || other.s.diag != SignaledDown || !n.s.dismissed() {
			w.fatalf("after AdminDown: neighbor %v/%v, dismissed %v", other.s.state, other.s.diag, n.s.dismissed())
		}
		w.run(2*w.slowest(), nil)
		if other.s.state != Down || a.s.failures+b.s.failures != failures {
			w.fatalf("AdminDown became a failure: %v", other.s.state)
		}
	case 1: // both ways dead
		w.link = [2]direction{{cut: true}, {cut: true}}
		cut := w.now
		detect := [2]time.Duration{a.s.detection(), b.s.detection()}
		w.run(w.slowest()+maxDelay, nil)
		for i, n := range w.nodes {
			took := n.changed.Sub(cut)
			if n.s.state != Down || n.s.diag != TimeExpired || took > detect[i]+maxDelay {
				w.fatalf("node %d after a cut: %v/%v, took %v of %v", i, n.s.state, n.s.diag, took, detect[i])
			}
			if n.s.failures == 0 {
				w.fatalf("node %d counts no failure", i)
			}
		}
	case 2: // one way dead: the other end learns it from us
		w.link[1-i].cut = true
		cut, detect := w.now, n.s.detection()
		w.run(detect+3*maxDelay, nil)
		if n.s.state != Down || n.s.diag != TimeExpired || n.changed.Sub(cut) > detect+maxDelay {
			w.fatalf("deaf node: %v/%v", n.s.state, n.s.diag)
		}
		if other.s.state == Up || other.s.diag != SignaledDown && other.s.state == Down {
			w.fatalf("the heard node: %v/%v", other.s.state, other.s.diag)
		}
	}
}
