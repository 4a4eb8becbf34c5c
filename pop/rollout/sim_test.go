package rollout

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	simSeeds = flag.Uint64("rollout-seeds", 0, "how many rollouts to simulate; 0: some hundred, fewer with -short")
	simSeed  = flag.Int64("rollout-seed", -1, "the `seed` of one rollout to simulate and to tell about")
)

// What a new config does to a node that takes it.
const (
	harmless = iota
	invalid  // it is refused
	sickens  // the node turns unhealthy a while later, within the soak
	kills    // the agent ends a while later, within the soak, and again whenever it comes back with it
	flickers // the node is unwell for less than the time between two reports
	starves  // the node is withdrawn a while later, healthy all along
	ignored  // the node's agent knows of no rollouts
)

const (
	simTick   = time.Second
	simDoubt  = 3 * time.Second // how long a node does not know how well a new config does
	simTake   = 30 * time.Second
	simReport = 2 * time.Second
	simTTL    = 6 * time.Second // age at which a report counts no more
)

// world is a fleet on virtual time, and a store that comes and goes.
type world struct {
	rng   *rand.Rand
	now   time.Time
	nodes []*simNode
	soak  time.Duration
	bad   int  // what the new config does
	where int  // the PoP at which it does so; -1: at every one
	calm  bool // no more troubles
	tell  func(string, ...any)

	// The store.
	doc     *Rollout // nil before the first
	index   int
	reports map[string]simStored
	away    time.Time // until when nobody reaches it

	problems []string
	tally    map[string]int
}

type simStored struct {
	Report
	at time.Time // of the writing
}

// simNode is a host: what is on its disk, and the agent while it runs.
type simNode struct {
	w         *world
	name      string
	step      int
	cut       time.Time // until when it does not reach the store
	drain     time.Time // until when an operator drains it
	ailing    time.Time // until when something that is no config's doing ails it
	old, new  string
	disk      string    // the config file
	taken     uint64    // on disk: the generation that was begun
	lastGood  string    // on disk
	back      time.Time // when a dead agent comes back; zero while it runs
	slow      time.Time // until when a document is being taken
	taking    uint64
	config    string    // in force
	since     time.Time // of config
	follower  *Follower
	driver    *Driver
	reported  time.Time
	seen      *Rollout // the rollout as this node sees it: up to a few seconds old
	seenIndex int
	fleet     []Report
	looked    time.Time
}

func newWorld(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := &world{rng: rng, now: time.Unix(1e9, 0), where: -1, reports: make(map[string]simStored), tally: make(map[string]int), tell: func(string, ...any) {}}
	// One may be over before a report of a dead node counts no more.
	w.soak = []time.Duration{5 * time.Second, 40 * time.Second}[rng.IntN(2)]
	if rng.IntN(3) > 0 {
		w.bad = 1 + rng.IntN(6)
	}
	pops := 1 + rng.IntN(6)
	if rng.IntN(3) == 0 {
		w.where = rng.IntN(pops)
	}
	for p := range pops {
		for k := range 1 + rng.IntN(3) {
			name := fmt.Sprintf("p%d-%d", p, k)
			n := &simNode{w: w, name: name, step: p, old: Sum([]byte("old " + name)), new: Sum([]byte("new " + name))}
			if rng.IntN(12) == 0 {
				n.new = n.old // nothing to do at this one
			}
			n.disk, n.lastGood = n.old, n.old
			n.start()
			w.nodes = append(w.nodes, n)
		}
	}
	return w
}

func (w *world) chance(perMille int) bool { return !w.calm && w.rng.IntN(1000) < perMille }

func (w *world) lasting(most time.Duration) time.Time {
	return w.now.Add(simTick + time.Duration(w.rng.Int64N(int64(most))))
}

// start is the agent's start: what is on disk is what it begins with.
func (n *simNode) start() {
	n.back, n.taking, n.slow = time.Time{}, 0, time.Time{}
	n.config, n.since = n.disk, n.w.now
	n.follower, n.driver = NewFollower(n.name), new(Driver)
	n.seen, n.fleet, n.looked, n.reported = nil, nil, time.Time{}, time.Time{}
}

func (n *simNode) die(longest time.Duration) {
	n.back = n.w.lasting(longest)
	n.w.tell("%v %s dies", n.w.now.Unix(), n.name)
}

// connected reports whether the node reaches the store.
func (n *simNode) connected() bool { return n.w.now.After(n.cut) && n.w.now.After(n.w.away) }

// harmed reports whether the new config does its harm at this node now.
func (n *simNode) harmed(kind int) bool {
	return n.w.bad == kind && (n.w.where < 0 || n.w.where == n.step) && n.config == n.new && n.new != n.old &&
		n.w.now.Sub(n.since) >= simDoubt+n.w.soak/4
}

func (n *simNode) condition() Condition {
	c := Condition{Health: Healthy, Draining: n.w.now.Before(n.drain)}
	switch {
	case n.harmed(sickens), n.w.now.Before(n.ailing):
		c.Health, c.Why = Unhealthy, "does not serve"
	case n.harmed(flickers) && n.w.now.Sub(n.since) < simDoubt+n.w.soak/4+simTick:
		c.Health, c.Why = Unhealthy, "flickers"
	case n.w.now.Sub(n.since) < simDoubt && n.config == n.new:
		c.Health = Unknown // new checks have not been heard of
	}
	c.Announced = c.Health != Unhealthy && !c.Draining && !n.harmed(starves)
	return c
}

func (n *simNode) report() Report {
	c := n.condition()
	tried, failed := n.follower.Failure()
	return Report{Node: n.name, Fresh: true, Config: n.config, Health: c.Health, Announced: c.Announced, Draining: c.Draining,
		Taken: n.taken, Tried: tried, Failed: failed}
}

// swap is a compare-and-swap whose answer may be lost.
func (w *world) swap(seen int, r Rollout) {
	if seen != w.index || w.chance(20) {
		return // another was faster, or the question was lost
	}
	data, err := r.Encode()
	if err == nil {
		r, err = Decode(data)
	}
	if err != nil {
		w.problem("a rollout that is not valid: %v", err)
		return
	}
	if old := w.doc; old != nil && (old.Phase != r.Phase || old.Turn != r.Turn) {
		w.tell("%v rollout is %s, turn %d, open %v: %s", w.now.Unix(), r.Phase, r.Turn, r.Open, r.Reason)
	}
	w.doc, w.index = &r, w.index+1
}

// look refreshes what the node sees, now and then, of each part by itself.
func (n *simNode) look() {
	if n.w.rng.IntN(2) == 0 {
		n.seen, n.seenIndex = n.w.doc, n.w.index
	}
	if n.w.rng.IntN(2) == 0 {
		n.fleet = nil
		for name, s := range n.w.reports {
			s.Fresh = n.w.now.Sub(s.at) <= simTTL
			s.Node, s.At = name, s.at
			n.fleet = append(n.fleet, s.Report)
		}
		n.looked = n.w.now
	}
}

// live is one tick of a host.
func (n *simNode) live() {
	w := n.w
	if !n.back.IsZero() {
		if w.now.Before(n.back) {
			return
		}
		n.start()
	}
	if w.chance(2) || n.harmed(kills) {
		n.die(20 * time.Second)
		return
	}
	if n.seen != nil {
		n.follower.Observe(n.seen.Generation, n.condition())
	}
	if n.taking != 0 && !w.now.Before(n.slow) {
		n.took()
	}
	if !n.connected() {
		n.driver.Lost()
		n.fleet, n.looked = nil, time.Time{}
		return
	}
	n.look()
	if w.now.Sub(n.reported) >= simReport {
		w.reports[n.name], n.reported = simStored{n.report(), w.now}, w.now
	}
	if n.seen == nil || n.taking != 0 {
		return
	}
	r := *n.seen
	n.act(r)
	if n.looked.IsZero() {
		return
	}
	if next, change := n.driver.Step(w.now, r, n.fleet); change {
		w.swap(n.seenIndex, next)
	}
}

// act does as the follower says, as the store has it this instant.
func (n *simNode) act(r Rollout) {
	local := Local{n.config, n.taken}
	if n.follower.Next(r, local) == Stay {
		return
	}
	fresh := *n.w.doc
	switch n.follower.Next(fresh, local) {
	case Take:
		if n.w.bad == ignored && (n.w.where < 0 || n.w.where == n.step) {
			return
		}
		if n.w.bad == invalid && (n.w.where < 0 || n.w.where == n.step) {
			n.follower.Refused(fresh.Generation, "not valid")
			n.w.tally["refused"]++
			return
		}
		n.lastGood, n.taken, n.taking = n.config, fresh.Generation, fresh.Generation
		n.slow = n.w.now.Add(time.Duration(n.w.rng.Int64N(int64(3 * time.Second))))
	case Return:
		n.disk, n.taken = n.lastGood, 0
		if n.config != n.disk {
			n.config, n.since = n.disk, n.w.now
			n.w.tell("%v %s returns", n.w.now.Unix(), n.name)
		}
		n.w.tally["returned"]++
	case Settle:
		n.taken = 0
	}
}

// took puts the new document in force.
func (n *simNode) took() {
	n.taking = 0
	n.disk = n.new
	n.config, n.since = n.new, n.w.now
	n.follower.Took(n.condition())
	n.w.tell("%v %s takes", n.w.now.Unix(), n.name)
	if !n.connected() {
		n.w.tally["took as the store went"]++
	}
}

func (w *world) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf("%v ", w.now.Unix())+fmt.Sprintf(format, args...))
}

// onNew lists the PoPs that have a node on its new document.
func (w *world) onNew() []int {
	var pops []int
	for _, n := range w.nodes {
		if n.config == n.new && n.old != n.new && n.back.IsZero() && !slices.Contains(pops, n.step) {
			pops = append(pops, n.step)
		}
	}
	return pops
}

// check states what holds at every instant.
func (w *world) check() {
	r := w.doc
	soaking := 0
	for _, p := range w.onNew() {
		if p >= r.Turn {
			soaking++
		}
		if p > r.Turn {
			w.problem("PoP %d has the new config, it is the turn of %d", p, r.Turn)
		}
	}
	if soaking > 1 {
		w.problem("%d PoPs soak at once", soaking)
	}
	// A config that harms each PoP within its soak never gets past the first.
	if w.bad != harmless && w.where < 0 {
		first := slices.IndexFunc(r.Steps, func(s Step) bool { return s.differs() })
		if first >= 0 && r.Turn > first {
			w.problem("a config that harms every PoP got past PoP %d", first)
		}
	} else if w.bad != harmless && r.Turn > w.where && w.where >= 0 && r.Steps[w.where].differs() {
		w.problem("a config that harms PoP %d got past it", w.where)
	}
}

// differs reports whether a step changes anything.
func (s Step) differs() bool {
	return slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Old != n.New })
}

// trouble is what befalls the fleet in a tick.
func (w *world) trouble() {
	if w.chance(4) {
		w.away = w.lasting(30 * time.Second)
		w.tally["outage"]++
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	switch {
	case w.chance(5):
		n.cut = w.lasting(10 * time.Second)
	case w.chance(3):
		n.drain = w.lasting(20 * time.Second)
	case w.chance(1):
		n.ailing = w.lasting(10 * time.Second)
	case w.chance(2):
		w.operator(func(r Rollout) (Rollout, error) { return Pause(r, "op") })
	case w.chance(1):
		w.operator(func(r Rollout) (Rollout, error) { return Abort(r, "op") })
	}
	if w.rng.IntN(20) == 0 || w.calm {
		w.operator(Resume)
	}
}

func (w *world) operator(f func(Rollout) (Rollout, error)) {
	if w.now.After(w.away) {
		if next, err := f(*w.doc); err == nil {
			w.swap(w.index, next)
		}
	}
}

// tick advances the world, and says if a config changed while the store was
// away, but for what was begun before.
func (w *world) tick() {
	w.now = w.now.Add(simTick)
	w.trouble()
	for _, i := range w.rng.Perm(len(w.nodes)) {
		n := w.nodes[i]
		before, begun, running := n.config, n.taking != 0, n.back.IsZero()
		n.live()
		if running && n.back.IsZero() && n.config != before && !n.connected() && !begun {
			w.problem("%s changed its config without the store", n.name)
		}
		w.check()
	}
}

// begin starts a rollout of the whole fleet.
func (w *world) begin() {
	next := Rollout{Soak: Span(w.soak), Take: Span(simTake)}
	for _, n := range w.nodes {
		if n.step == len(next.Steps) {
			next.Steps = append(next.Steps, Step{Pop: fmt.Sprintf("p%d", n.step)})
		}
		s := &next.Steps[n.step]
		s.Nodes = append(s.Nodes, Node{n.name, n.old, n.new})
	}
	r, err := Start(nil, next)
	if err != nil {
		panic(err)
	}
	for w.doc == nil { // a lost question is asked again
		w.swap(w.index, r)
	}
}

// play runs one rollout, troubles and all, until it has ended and the fleet has
// come to rest.
func (w *world) play() {
	w.begin()
	troubled := w.rng.IntN(4) > 0
	w.calm = !troubled
	for i := range 4000 {
		if i == 900 {
			w.calm = true
		}
		w.tick()
		r := *w.doc
		if r.Phase.Final() && w.settled(r) {
			w.finish(r, troubled)
			return
		}
		if len(w.problems) > 0 {
			return
		}
	}
	r := *w.doc
	w.problem("no end: %s, turn %d, open %v, waits for %q", r.Phase, r.Turn, r.Open, r.Waits(w.nodes[0].fleet))
}

// settled reports whether every agent runs and has drawn its conclusion.
func (w *world) settled(r Rollout) bool {
	return !slices.ContainsFunc(w.nodes, func(n *simNode) bool {
		return !n.back.IsZero() || n.taken == r.Generation || n.taking != 0
	})
}

// finish states what holds at the end.
func (w *world) finish(r Rollout, troubled bool) {
	w.tally[string(r.Phase)]++
	for _, n := range w.nodes {
		want := n.old
		if r.Phase == Done {
			want = n.new
		}
		if n.config != want || n.disk != want {
			w.problem("%s, but %s runs the wrong config", r.Phase, n.name)
		}
	}
	changes := slices.ContainsFunc(r.Steps, Step.differs)
	harmful := w.bad != harmless && changes && (w.where < 0 || r.Steps[w.where].differs())
	switch {
	case r.Phase == Done && harmful:
		w.problem("a harmful config is everywhere")
	case r.Phase != Done && !harmful && !troubled:
		w.problem("a good config in a calm fleet: %s, %s", r.Phase, r.Reason)
	case r.Phase == Failed && r.Reason == "":
		w.problem("failed for no reason")
	}
	for _, word := range []string{"died", "ended while", "unhealthy", "not announced", "not valid", "flickers", "have passed", "aborted"} {
		if strings.Contains(r.Reason, word) {
			w.tally["because "+word]++
		}
	}
}

// Whatever befalls a fleet while a config is rolled out, never more than one PoP
// soaks, a config that harms a PoP within its soak never gets past it, nobody
// moves without the store, and in the end all nodes have the new config, or all
// the old one.
func TestRolloutUnderRandomTroubles(t *testing.T) {
	first, last := uint64(0), uint64(500)
	if testing.Short() {
		last = 150
	}
	if *simSeeds > 0 {
		last = *simSeeds
	}
	if *simSeed >= 0 {
		first, last = uint64(*simSeed), uint64(*simSeed)+1
	}
	reached := make(map[string]int)
	for seed := first; seed < last; seed++ {
		w := newWorld(seed)
		if *simSeed >= 0 {
			w.tell = t.Logf
		}
		w.play()
		for what, times := range w.tally {
			reached[what] += times
		}
		if len(w.problems) > 0 {
			t.Fatalf("seed %d, %d nodes, config %d at %d:\n%s", seed, len(w.nodes), w.bad, w.where, strings.Join(w.problems[:min(len(w.problems), 5)], "\n"))
		}
	}
	t.Logf("seeds %d to %d: %v", first, last-1, reached)
	if *simSeed >= 0 {
		return
	}
	for _, what := range []string{
		"done", "failed", "aborted", "refused", "returned", "outage", "took as the store went",
		"because died", "because ended while", "because unhealthy", "because not announced", "because not valid", "because flickers", "because have passed",
	} {
		if reached[what] == 0 {
			t.Errorf("never reached: %s", what)
		}
	}
}
