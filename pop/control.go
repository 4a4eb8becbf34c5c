package pop

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"anyedge/bgp"
	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/pop/headroom"
	"anyedge/pop/proxy"
)

const (
	// workerCheck is the judge's check of the worker process; those of the
	// service addresses are named by checkName.
	workerCheck = "worker"
	// setTimeout bounds the wait for the speaker to take an announcement.
	setTimeout = time.Second
	// hangPause is the least time between two kills of a worker that runs but
	// does not serve: killing cures a hang, not a missing address.
	hangPause = 5 * time.Second
)

// announcer is the controller's view of [bgp.Speaker].
type announcer interface {
	Set(context.Context, []bgp.Announcement) error
}

// controller decides what the node announces. It is owned by one goroutine:
// everything that happens arrives over channels, and one function, step, turns
// all that is known into one announcement.
type controller struct {
	log     *slog.Logger
	metrics *metrics
	speaker announcer                 // nil without BGP
	elector elector                   // nil without VRRP
	kill    func(pid int)             // ends a hung worker
	fleet   func(time.Time) fleetView // what the fleet is known to look like
	changed func(state)               // told after every step that changed something

	cfg    *configs.Pop
	judge  *health.Judge
	route  route
	worker workerState

	stepped   time.Time      // when step last ran
	listening time.Time      // since when step has run without a long pause
	misses    map[string]int // failed requests in a row through this worker, by check
	remote    string         // trouble with something remote, as last known
	room      string         // what there is no room for, as last known
	shedding  string         // the resource that was at its shed mark, if any
	orders    fleet.Orders   // at the last step
	standby   bool           // Active in none of its virtual routers
	shed      shedding
	refused   string // why the speaker did not take the last announcement
	record    record
}

// workerState is what the agent knows of the worker process.
type workerState struct {
	pid     int
	vitals  *proxy.Vitals // the newest, nil before the first
	heard   time.Time     // when they came
	absent  time.Time     // since when none is ready; zero while one is
	crashes []time.Time   // within the crash window
	killed  time.Time     // when a hung one was last killed
	victim  int           // its process id
	exited  string        // how the last one ended
}

func (w *workerState) ready() bool { return w.absent.IsZero() }

// state is a copy of what the controller knows, for those who show it.
type state struct {
	Verdict   health.Verdict
	Announced Announcement
	Reason    string
	Since     time.Time
	Except    exceptions
	Orders    fleet.Orders
	Shed      int  // percent of new requests to refuse
	Standby   bool // Active in none of its virtual routers
	Drain     drain
	Lease     leaseStatus
	Worker    workerState
}

func newController(cfg *configs.Pop, log *slog.Logger, m *metrics, now time.Time) *controller {
	return &controller{
		log: log, metrics: m, cfg: cfg, judge: newJudge(cfg),
		route:  route{announced: Withdrawn, wish: Withdrawn, rule: RuleLifetime, reason: "starting", since: now, drain: drain{stage: DrainNone, since: now}},
		worker: workerState{absent: now},
		misses: make(map[string]int),
	}
}

func newJudge(cfg *configs.Pop) *health.Judge {
	h := cfg.Health
	return health.NewJudge(health.Config{
		Rise: h.Rise, Fall: h.Fall,
		// A check that has been silent for so long says nothing any more.
		Stale:       4 * max(h.ProbeInterval.Std()+h.ProbeTimeout.Std(), h.VitalsTimeout.Std()),
		HoldDown:    h.HoldDown.Std(),
		HoldDownMax: h.HoldDownMax.Std(),
		FlapMemory:  h.FlapMemory.Std(),
	}, checks(cfg)...)
}

func checks(cfg *configs.Pop) []string {
	names := []string{workerCheck}
	for _, l := range cfg.Listeners {
		names = append(names, checkName(l.Name))
	}
	return append(names, vrrpChecks(cfg)...)
}

// configure takes a new config whose identity, speaker and fleet are unchanged.
func (c *controller) configure(now time.Time, cfg *configs.Pop) {
	c.cfg = cfg
	c.judge.SetChecks(now, checks(cfg)...)
}

// event takes something that happened to the worker process.
func (c *controller) event(e workerEvent) {
	w := &c.worker
	if e.vitals == nil {
		w.vitals, w.exited = nil, e.exited
		clear(c.misses)
		if w.ready() {
			w.absent = e.at
		}
		if e.pid == 0 || e.pid != w.victim { // what was killed did not crash
			w.crashes = append(w.crashes, e.at)
			c.metrics.crashes.Inc()
		}
		return
	}
	w.pid, w.vitals, w.heard = e.pid, e.vitals, e.at
	if e.vitals.Ready() {
		w.absent = time.Time{}
	}
}

// probed takes the outcome of a request through a service address. While no
// worker is ready it says nothing that is not known already: whether that
// matters is a question of the respawn grace.
func (c *controller) probed(now time.Time, r probeResult) {
	if c.worker.ready() {
		c.judge.Observe(now, r.check, r.ok, r.detail)
		if c.misses[r.check]++; r.ok {
			delete(c.misses, r.check)
		}
	}
	if !r.ok {
		c.metrics.probeFailures.WithLabelValues(r.check).Inc()
	}
}

// observeWorker judges the process by what is known of it now.
func (c *controller) observeWorker(now time.Time) {
	w, cfg := &c.worker, c.cfg.Worker
	w.crashes = slices.DeleteFunc(w.crashes, func(t time.Time) bool { return now.Sub(t) > cfg.CrashWindow.Std() })
	limit := c.cfg.Health.VitalsTimeout.Std()
	if now.Sub(c.stepped) > limit/2 {
		c.listening = now
	}
	c.stepped = now
	switch {
	case len(w.crashes) >= cfg.CrashLimit:
		c.judge.Observe(now, workerCheck, false, fmt.Sprintf("crashed %d times within %s: %s", len(w.crashes), cfg.CrashWindow, w.exited))
	case !w.ready() && now.Sub(w.absent) > cfg.RespawnGrace.Std():
		c.judge.Observe(now, workerCheck, false, fmt.Sprintf("not ready for %s", cfg.RespawnGrace))
	case !w.ready():
		// Within the grace the old judgement stands.
	case now.Sub(w.heard) <= limit:
		c.judge.Observe(now, workerCheck, true, "")
	case c.silent(now):
		c.judge.Observe(now, workerCheck, false, fmt.Sprintf("no vitals for over %s: hung", limit))
	}
}

// silent reports whether a worker that was ready has not been heard of for too
// long. While this process itself did not get to run, vitals may be there
// unread: who was not listening all that time does not judge a silence.
func (c *controller) silent(now time.Time) bool {
	limit := c.cfg.Health.VitalsTimeout.Std()
	return now.Sub(c.worker.heard) > limit && now.Sub(c.listening) > limit
}

// step decides anew from all that is known, and acts. It is called after every
// event and at least twice every vitals interval; a much longer pause means
// that this process was starved.
func (c *controller) step(ctx context.Context, now time.Time) {
	c.observeWorker(now)
	c.observeElection(now)
	c.learn()
	verdict := c.judge.Verdict(now)
	f := facts{
		verdict: verdict.State, why: verdict.Reason,
		serves: passes(verdict),
		remote: c.remote, full: c.room,
		pace:  c.cfg.Drain,
		fleet: c.fleet(now),
	}
	if v := c.worker.vitals; v != nil {
		f.connections = v.Connections
	}
	stage := c.route.drain.stage
	d := c.route.step(ctx, now, f)
	if after := c.route.drain.stage; stage != after && stage != "" {
		c.log.Info("drain stage changed", "from", stage, "to", after)
	}
	c.announce(ctx, now, d, c.exceptions(d, f.fleet.orders))
	c.route.settle(ctx, now, f.fleet.listed)
	c.cureHang(now, verdict)
	c.orders = f.fleet.orders
	c.observeLoad(now)
	c.record.add(c.decision(now, verdict, f.fleet))
	c.changed(c.state(verdict))
}

// passes reports whether every check passes, whatever the hold-down says.
func passes(v health.Verdict) bool {
	return len(v.Checks) > 0 && !slices.ContainsFunc(v.Checks, func(c health.CheckStatus) bool { return c.State != health.Healthy })
}

// exceptions are the prefixes that are announced unlike what was decided. A
// withdrawal that the guard refused leaves none more attractive than the rest.
func (c *controller) exceptions(d decision, o fleet.Orders) exceptions {
	rule := d.rule
	if c.route.wish == Withdrawn {
		rule = RuleLocalFailure
	}
	return except(d.want, rule, o)
}

// observeLoad decides what to shed: a node that is kept up by the guard, or that
// is out of room, refuses what it cannot carry.
func (c *controller) observeLoad(now time.Time) {
	against := c.route.announced != Withdrawn && (c.route.wish == Withdrawn || c.room != "")
	var usage []headroom.Usage
	if v := c.worker.vitals; v != nil {
		usage = v.Usage
	}
	before := c.shed.percent
	c.shed.step(now, against, usage)
	if after := c.shed.percent; (before == 0) != (after == 0) {
		c.log.Warn("shedding changes", "sheds", after > 0, "reason", c.route.reason)
	}
}

// announce makes the decision the speaker's desired state.
func (c *controller) announce(ctx context.Context, now time.Time, d decision, ex exceptions) {
	before := c.route.announced
	if !c.route.follow(now, d, ex) {
		return
	}
	c.log.Info("announcement changes", "from", before, "to", d.want, "reason", d.reason, "prefixes_apart", len(ex))
	if before != d.want {
		c.metrics.transitions.WithLabelValues(string(d.want)).Inc()
	}
	c.set(ctx)
}

// set hands the present announcement to the speaker, which keeps it as its
// desired state whatever becomes of this call.
func (c *controller) set(ctx context.Context) {
	if c.elector != nil {
		c.elector.set(c.route.announced, c.route.reason)
	}
	if c.speaker == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, setTimeout)
	defer cancel()
	c.refused = ""
	if err := c.speaker.Set(ctx, announcements(c.cfg.BGP, c.route.announced, c.route.except, c.route.draining)); err != nil {
		c.refused = err.Error()
		c.log.Error("speaker did not take the announcement yet", "announcement", c.route.announced, "error", err)
	}
}

// cureHang kills a worker that runs but does not serve, after the route has
// been dealt with: it is down, or an override keeps it up. Its successor gets the
// same sockets.
func (c *controller) cureHang(now time.Time, v health.Verdict) {
	w := &c.worker
	kept := c.route.announced == Announced && c.route.rule != RuleOverride
	if v.State != health.Unhealthy || kept || now.Sub(w.killed) < hangPause {
		return
	}
	check := c.hung(now)
	if check == "" {
		return
	}
	c.log.Warn("worker hangs, killed", "pid", w.pid, "check", check, "reason", v.Reason)
	c.metrics.hangs.Inc()
	w.killed, w.victim = now, w.pid
	c.kill(w.pid)
}

// hung names the check by which the present worker counts as hung: it runs, and
// does not serve. What the judge still holds against the node for an earlier
// process is not its fault.
func (c *controller) hung(now time.Time) string {
	switch {
	case !c.worker.ready():
		return ""
	case c.silent(now):
		return workerCheck
	}
	for _, l := range c.cfg.Listeners {
		if check := checkName(l.Name); c.misses[check] >= c.cfg.Health.Fall {
			return check
		}
	}
	return ""
}

// learn takes in what the worker says about its surroundings. While none says
// anything, what was known last stands.
func (c *controller) learn() {
	if v := c.worker.vitals; v != nil {
		c.remote, c.room = remoteTrouble(v), c.lackOfRoom(v)
	}
}

// remoteTrouble names a pool without any usable backend.
func remoteTrouble(v *proxy.Vitals) string {
	for _, p := range v.Pools {
		if p.Usable == 0 {
			return fmt.Sprintf("pool %s has no usable backend", p.Name)
		}
	}
	return ""
}

// hardCeilings are the resources whose end refuses clients. CPU is not one:
// a busy processor is slow, and says little about how much more it could do.
var hardCeilings = []string{proxy.ResourceConnections, proxy.ResourceDescriptors, proxy.ResourceMemory}

// lackOfRoom names a hard ceiling that was reached to the shed mark, until its use
// has fallen below the warn mark again: the route must not swing with the load
// that it moves.
func (c *controller) lackOfRoom(v *proxy.Vitals) string {
	for _, u := range v.Usage {
		if !slices.Contains(hardCeilings, u.Resource) {
			continue
		}
		level := headroom.LevelOf(u)
		if level == headroom.Shed || level == headroom.Warn && c.shedding == u.Resource {
			c.shedding = u.Resource
			return fmt.Sprintf("%s at %.0f%% of its ceiling", u.Resource, 100*u.Utilization())
		}
	}
	c.shedding = ""
	return ""
}

func (c *controller) state(v health.Verdict) state {
	return state{
		Verdict: v, Announced: c.route.announced, Reason: c.route.reason, Since: c.route.since,
		Except: c.route.except, Orders: c.orders, Shed: int(math.Round(c.shed.percent)), Standby: c.standby,
		Drain: c.route.drain, Lease: c.route.lease.answer, Worker: c.worker,
	}
}
