package pop

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/pop/guard"
)

const (
	simReports  = time.Second      // pace of reports, and of every node's own look around
	simTTL      = 5 * time.Second  // age at which a report no longer counts
	simRecovery = 3 * time.Second  // from a restart to a verdict
	simWindow   = 20 * time.Second // of the shared cause
)

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var simPace = configs.Drain{
	Deprefer: configs.Duration(3 * time.Second),
	Withdraw: configs.Duration(2 * time.Second),
	Close:    configs.Duration(2 * time.Second),
}

// simFleet is a fleet on virtual time. Its nodes decide with the code of this
// package, over a store and a network that fail; what the rest of an agent does
// is reduced to its outcome. It checks at every change of a route what must hold.
type simFleet struct {
	*clock
	store    *simStore
	fleet    *fleet.Fleet
	policy   guard.Policy
	nodes    []*simNode
	readers  []*simReader
	drains   map[string]bool           // of nodes
	orders   map[string]fleet.Override // by node
	decoded  map[uint64]fleet.Leases
	changes  []time.Time // when capacity or demand changed, or a node went or came without asking
	reliable bool        // the store always answers
	plans    simPlans
	tell     func(format string, args ...any)
	problems []string
	tally    map[string]int // of what was reached, so that a walk that proves nothing shows
}

// simReader is one way in which nodes see the store: sooner or later.
type simReader struct {
	every time.Duration // between two readings
	stall time.Duration // up to which a reading may come late
	view  *fleet.View
	read  time.Time
}

// newSimFleet makes a fleet of so many PoPs.
func newSimFleet(rng *rand.Rand, pops int, sealer *fleet.Sealer) *simFleet {
	c := &clock{now: simStart, rng: rng}
	f := &simFleet{
		clock: c, drains: make(map[string]bool), orders: make(map[string]fleet.Override), decoded: make(map[uint64]fleet.Leases), tally: make(map[string]int),
		tell: func(string, ...any) {},
		policy: guard.Policy{
			MinPops: 1 + rng.IntN(max(1, pops/2)), MaxOut: 1 + rng.IntN(1+pops/4),
			Share: []float64{0.2, 0.34, 0.5}[rng.IntN(3)], Window: simWindow,
		},
		store: &simStore{clock: c, entries: make(map[string]fleet.Entry), sessions: make(map[fleet.Session]time.Time)},
	}
	f.store.written = f.leasesWritten
	var err error
	f.fleet, err = fleet.New(fleet.Config{Store: f.store, Sealer: sealer, Pause: f.store.pause})
	if err != nil {
		panic(err)
	}
	for _, r := range []simReader{{every: 250 * time.Millisecond}, {every: time.Second, stall: time.Second}, {every: time.Second, stall: 3 * time.Second}} {
		r.view = &fleet.View{}
		f.readers = append(f.readers, &r)
		f.read(&r)
	}
	f.expire()
	spare := 0.3 + 0.6*rng.Float64() // how full the fleet is
	for p := range pops {
		for i := range 1 + rng.IntN(2) {
			n := &simNode{
				sim: f, reader: f.readers[rng.IntN(len(f.readers))],
				name: fmt.Sprintf("p%02d-%d", p, i), pop: fmt.Sprintf("p%02d", p),
				demand: 100 * spare * (0.5 + rng.Float64()) * 0.7, ceiling: 100,
			}
			f.nodes = append(f.nodes, n)
			n.start(health.Healthy)
		}
	}
	f.planAgain()
	return f
}

// read has a reader read the store, again and again.
func (f *simFleet) read(r *simReader) {
	if !f.store.gone {
		view := &fleet.View{Connected: true}
		old := make(map[string]fleet.Seen, len(r.view.Reports))
		for _, s := range r.view.Reports {
			old[s.Node] = s
		}
		for _, n := range f.nodes {
			if n.reports == nil {
				continue
			}
			seen, ok := old[n.name]
			if !ok || seen.Sequence != n.reports.Sequence {
				seen = fleet.Seen{Report: *n.reports, At: f.now}
			}
			view.Reports = append(view.Reports, seen)
		}
		view.Leases = f.leases()
		view.Plan, view.PlanSeen = r.view.Plan, r.view.PlanSeen
		if view.Plan != f.plans.published {
			view.Plan, view.PlanSeen = f.plans.published, f.now
		}
		r.view, r.read = view, f.now
	}
	f.after(r.every+f.upTo(r.stall), func() { f.read(r) })
}

// leases is the document as it is now, without what is dead.
func (f *simFleet) leases() fleet.Leases {
	l := f.decode(f.store.entries["state/leases"])
	dead := func(l fleet.Lease) bool {
		e := f.store.entries["state/holders/"+l.Node]
		return e.Session == "" || e.Session != l.Session
	}
	l.Holders = slices.DeleteFunc(slices.Clone(l.Holders), dead)
	l.Waiting = slices.DeleteFunc(slices.Clone(l.Waiting), dead)
	return l
}

// decode returns what a version of the document says. Of the newest versions it
// remembers that.
func (f *simFleet) decode(e fleet.Entry) fleet.Leases {
	if e.Index == 0 {
		return fleet.Leases{}
	}
	l, ok := f.decoded[e.Index]
	if !ok {
		if err := json.Unmarshal(e.Value, &l); err != nil {
			panic(err)
		}
		if len(f.decoded) > 8 {
			clear(f.decoded)
		}
		f.decoded[e.Index] = l
	}
	return l
}

// end ends a session, and with it what hangs on it.
func (f *simFleet) end(s fleet.Session) {
	f.store.endSession(s)
	for _, n := range f.nodes {
		if n.reportedBy == s {
			n.reports = nil
		}
	}
}

// expire ends the sessions that were not renewed in time, again and again.
func (f *simFleet) expire() {
	for _, n := range f.nodes {
		for _, s := range []fleet.Session{n.session, n.left} {
			if until := f.store.sessions[s]; !until.IsZero() && f.now.After(until) && !f.store.gone {
				f.end(s)
			}
		}
	}
	f.after(time.Second, f.expire)
}

// load is what the node serves: its own clients, and those of others whose
// route is no better than none.
func (f *simFleet) load(n *simNode) float64 {
	if n.onWire != Announced {
		return 0
	}
	homeless, carriers := 0.0, 0
	for _, o := range f.nodes {
		if o.onWire == Announced {
			carriers++
		} else {
			homeless += o.demand
		}
	}
	return n.demand + homeless/float64(carriers)
}

// fail notes what did not hold.
func (f *simFleet) fail(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf("%8.2fs ", f.age())+fmt.Sprintf(format, args...))
}

// age is the time since the fleet began, in seconds.
func (f *simFleet) age() float64 { return f.now.Sub(simStart).Seconds() }

// String describes the fleet as it is now.
func (f *simFleet) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %+v\n", f.policy)
	l := f.leases()
	for _, n := range f.nodes {
		fmt.Fprintf(&b, "%s alive=%v cut=%v %s %s (%s) drain=%s\n", n.name, n.alive, n.cutOff, n.verdict, n.onWire, n.route.reason, n.route.drain.stage)
	}
	for _, h := range l.Holders {
		fmt.Fprintf(&b, "holder %s gone=%v\n", h.Node, h.Gone)
	}
	for _, h := range l.Waiting {
		fmt.Fprintf(&b, "waiting %s\n", h.Node)
	}
	fmt.Fprintf(&b, "freeze %+v\n", l.Freeze)
	return b.String()
}
