// Package pop is the agent of one node: it holds the listening sockets, keeps
// one worker process serving on them, judges whether the node can serve, and
// announces the service prefixes accordingly.
//
// # How it decides
//
// Everything that happens, vitals and exits of the worker, outcomes of requests
// through the service addresses, answers of the fleet store, arrives at one
// goroutine, the controller. After each event it turns all that is known into
// one announcement: a pure function says what is wanted, the guard's lease says
// what is permitted, and the speaker gets the whole desired set. A second
// goroutine, the configurator, turns config, inventory and ticket keys into
// whole snapshots for the worker.
//
// # Concurrency
//
// Agent's exported methods may be called from any goroutine while Run runs.
package pop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/configs"
	"anyedge/internal/audit"
	"anyedge/internal/daemon"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
)

// Options is what an agent is made of.
type Options struct {
	File    string         // the config file, read again by Reload
	Config  *configs.Pop   // its contents
	Source  []byte         // its text; nil keeps the node out of rollouts
	Store   fleet.Store    // where shared state lives
	Sealer  *fleet.Sealer  // nil only with a memory store
	Catalog *fleet.Catalog // Consul's services; nil without Consul
	Worker  []string       // the worker's command line: the binary, then its arguments
	BFD     []string       // likewise of the process that BFD runs in, see [bfd.Config]
	// StateDir is a directory of this node's own, for what a restart has to find
	// again: how far a drain had come, and the orders in force; and for the log
	// of operators' acts. It is made if need be. Empty: nothing is kept, and a
	// restart asks the fleet store.
	StateDir string
	Log      *slog.Logger
	Registry *prometheus.Registry
}

// Agent is a node's agent.
type Agent struct {
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *metrics

	fleet      *fleet.Fleet
	catalog    *catalog
	member     *member
	rotator    *rotator
	measurer   *measurer       // nil if nothing is measured
	upstreams  *upstreams      // nil without BGP
	virtual    *virtualRouters // nil without VRRP
	supervisor *supervisor
	pulse      daemon.Pulse // of the controller
	conf       *configurator
	roller     *roller
	controller *controller
	standing   *stateFile // nil without a state directory
	audit      *audit.Log
	started    *configs.Pop

	events   chan workerEvent
	probes   chan probeResult
	configs  chan *configs.Pop // capacity 1: a new config for the controller
	wake     chan struct{}     // capacity 1: the configurator has something to do
	shedding atomic.Int32      // percent of new requests that the worker is to refuse
	closing  atomic.Bool       // clients are being asked to go
	state    atomic.Pointer[state]
}

// startWait is how long the start waits for the fleet's state, so that the
// first snapshot is whole; the node starts without it if need be.
const startWait = 3 * time.Second

// New makes an agent. It reads the secrets that the config names; it opens no
// sockets and starts nothing.
func New(o Options) (*Agent, error) {
	cfg := o.Config
	a := &Agent{
		log: o.Log, registry: o.Registry, metrics: newMetrics(o.Registry), started: cfg,
		events:  make(chan workerEvent, 16),
		probes:  make(chan probeResult, 16),
		configs: make(chan *configs.Pop, 1),
		wake:    make(chan struct{}, 1),
	}
	var err error
	a.fleet, err = fleet.New(fleet.Config{
		Store: o.Store, Sealer: o.Sealer, ValidRing: validRing, ValidRollout: validRollout,
		Log: o.Log.With("part", "fleet"), Metrics: o.Registry,
	})
	if err != nil {
		return nil, err
	}
	a.catalog = newCatalog(o.Catalog, a.wake, o.Log.With("part", "catalog"))
	a.member = newMember(a.fleet, o.Store, cfg, o.Log.With("part", "member"), a.metrics)
	a.rotator = newRotator(a.fleet, cfg.TLS.Tickets, o.Log.With("part", "tickets"))
	if *cfg.Measure.RTT {
		a.measurer = newMeasurer(a.fleet, o.Store, cfg, o.Log.With("part", "rtt"), o.Registry)
	}
	a.supervisor = newSupervisor(o.Worker[0], o.Worker[1:], o.Log.With("part", "supervisor"), a.events)
	if a.measurer != nil {
		a.supervisor.measured = a.measurer.take
	}
	a.conf = newConfigurator(o.File, cfg, a.supervisor, o.Log.With("part", "config"), a.metrics)
	a.conf.adopted = a.adopted
	files, err := openConfigFiles(o.File, o.Source)
	if err != nil {
		return nil, err
	}
	a.roller = newRoller(a.fleet, cfg, files, o.Log.With("part", "rollout"), a.metrics)
	a.roller.reload = func(ctx context.Context, cfg *configs.Pop) error {
		return a.conf.reload(ctx, cfg, a.fleetInputs(cfg, time.Now()))
	}
	if cfg.BGP != nil {
		if a.upstreams, err = newUpstreams(cfg.BGP, o.BFD, o.Log, o.Registry); err != nil {
			return nil, err
		}
	}
	if a.virtual, err = newVirtualRouters(cfg.VRRP, o.Log.With("part", "vrrp"), o.Registry); err != nil {
		return nil, err
	}
	now := time.Now()
	a.controller = a.newController(now)
	var left standing
	if a.standing, left, err = openStateFile(o.StateDir, cfg.Node.Name, o.Log.With("part", "state"), a.metrics); err != nil {
		return nil, err
	}
	if a.audit, err = audit.Open(audit.Config{Dir: o.StateDir, Log: o.Log.With("part", "audit")}); err != nil {
		return nil, err
	}
	a.resume(now, left.at(now))
	return a, nil
}

// String names the agent as a task.
func (a *Agent) String() string { return "agent" }

// Run serves until ctx ends. It then takes the node out in order: the route
// first, then the clients, then the worker.
func (a *Agent) Run(ctx context.Context) error {
	// What the orderly end needs outlives ctx.
	base, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	group := daemon.NewGroup(a.log)
	group.Add(
		daemon.NewTask("fleet view", a.fleet.Run),
		daemon.NewTask("worker supervisor", func(ctx context.Context) error {
			return a.supervisor.run(ctx, func() time.Duration { return a.conf.config().Worker.DrainTimeout.Std() + time.Second })
		}),
		a.member,
	)
	if a.upstreams != nil {
		group.Add(a.upstreams.tasks()...)
	}
	if a.standing != nil {
		group.Add(daemon.NewTask("state file", a.standing.run))
	}
	if a.virtual != nil {
		group.Add(a.virtual.tasks()...)
	}
	ended := make(chan error, 1)
	go func() {
		err := group.Run(base)
		cancel(err)
		ended <- err
	}()

	err := a.serve(ctx)
	a.retire(base)
	stop(nil)
	return errors.Join(err, <-ended)
}

// serve opens the sockets and runs the node until ctx ends.
func (a *Agent) serve(ctx context.Context) error {
	a.restore(ctx)
	a.awaitFleet(ctx)
	cfg := a.started
	if before := a.roller.resume(ctx, cfg); before != nil {
		cfg = before
		a.conf.begin(cfg)
	}
	if err := a.conf.start(ctx, a.fleetInputs(cfg, time.Now())); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if cfg != a.started {
		a.adopted(ctx, cfg, a.conf.files.neighbors)
	}
	group := daemon.NewGroup(a.log)
	group.Add(
		daemon.NewTask("controller", a.control),
		daemon.NewTask("configurator", a.configure),
		daemon.NewTask("prober", a.probe),
		daemon.NewTask("shedding", a.shed),
		a.rotator,
		a.catalog,
		a.roller,
	)
	if a.measurer != nil {
		group.Add(a.measurer)
	}
	return group.Run(ctx)
}

// awaitFleet waits for the fleet's state for as long as a start may.
func (a *Agent) awaitFleet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		view := a.fleet.View()
		if view.Connected {
			return
		}
		select {
		case <-view.Changed():
		case <-ctx.Done():
			a.log.Warn("fleet store does not answer, starting without it")
			return
		}
	}
}

// newController wires the controller to the parts it acts on.
func (a *Agent) newController(now time.Time) *controller {
	c := newController(a.started, a.log.With("part", "controller"), a.metrics, now)
	if a.upstreams != nil {
		c.speaker = a.upstreams.speaker
	}
	if a.virtual != nil {
		c.elector = a.virtual
	}
	c.kill = a.supervisor.kill
	c.fleet = func(now time.Time) fleetView { return a.member.look(now) }
	c.route.lease = newLease(a.member)
	c.changed = a.stateChanged
	return c
}

// control runs the controller: one event, one decision.
func (a *Agent) control(ctx context.Context) error {
	c := a.controller
	defer c.route.lease.settle()
	ticker := time.NewTicker(a.started.Health.VitalsInterval.Std() / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-a.events:
			c.event(e)
		case r := <-a.probes:
			c.probed(time.Now(), r)
		case answer := <-c.route.lease.answers:
			c.route.lease.take(answer)
		case cfg := <-a.configs:
			c.configure(time.Now(), cfg)
			c.set(ctx)
		case <-ticker.C:
		}
		for len(a.events) > 0 { // this goroutine alone receives
			c.event(<-a.events)
		}
		c.step(ctx, time.Now())
		a.pulse.Beat()
	}
}

// aliveFor is how long the controller may go without deciding. It decides many times
// a second.
const aliveFor = 20 * time.Second

// Alive reports whether the agent still decides about its route. It is for a
// watchdog: an agent that hangs would announce whatever happens.
func (a *Agent) Alive() bool { return a.pulse.Within(aliveFor) }

// stateChanged shows and reports what the controller decided. It runs on the
// controller's goroutine.
func (a *Agent) stateChanged(s state) {
	a.state.Store(&s)
	a.metrics.show(s)
	a.shedding.Store(int32(s.Shed))
	a.standing.keep(standing{
		Version: standingVersion, Node: a.started.Node.Name,
		Stage: s.Drain.stage, Since: s.Drain.since, Orders: s.Orders,
	})
	a.roller.observe(s)
	a.member.tell(a.report(s))
	if a.closing.Swap(s.Drain.closing()) != s.Drain.closing() {
		a.poke()
	}
}

// report is the node's report of a state. It runs on the controller's
// goroutine.
func (a *Agent) report(s state) fleet.Report {
	n := a.started.Node
	r := fleet.Report{
		Node: n.Name, Pop: n.Pop, Region: n.Region, Latitude: n.Latitude, Longitude: n.Longitude,
		State:        s.Verdict.State.String(),
		Announcement: string(s.Announced),
		Reason:       truncate(s.Reason, 512),
		Draining:     s.Drain.stage != DrainNone,
		Standby:      s.Standby,
	}
	if s.Verdict.State == health.Unhealthy {
		r.UnhealthySince = s.Verdict.Since
	}
	for _, l := range a.started.Listeners {
		if !slices.Contains(r.Addresses, l.Address.Addr()) {
			r.Addresses = append(r.Addresses, l.Address.Addr())
		}
	}
	a.roller.report(&r)
	reportRoutes(&r, a.controller.cfg.BGP, s.Announced, s.Except)
	if v := s.Worker.vitals; v != nil {
		for _, u := range v.Usage {
			r.Usage = append(r.Usage, fleet.Usage(u))
		}
	}
	return r
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// configure keeps the worker's state in step with the fleet and the drain.
func (a *Agent) configure(ctx context.Context) error {
	ticker := time.NewTicker(time.Second) // keys change roles by the clock
	defer ticker.Stop()
	for {
		view := a.fleet.View()
		a.conf.setDraining(ctx, a.closing.Load())
		cfg := a.conf.config()
		a.catalog.follow(cfg)
		a.conf.update(ctx, a.fleetInputs(cfg, time.Now()))
		a.metrics.fleet.Set(truth(view.Connected))
		select {
		case <-ctx.Done():
			return nil
		case <-view.Changed():
		case <-a.wake:
		case <-ticker.C:
		}
	}
}

// fleetInputs is what the fleet says about the worker's state under a config.
func (a *Agent) fleetInputs(cfg *configs.Pop, now time.Time) fleetInputs {
	view := a.fleet.View()
	ring, err := decodeRing(view.Ring)
	if err != nil { // the view holds valid rings only
		panic(err)
	}
	return fleetInputs{inventoryOf(cfg, view, a.catalog), ring.Decrypting(now)}
}

// poke has the configurator look again.
func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// probe keeps one prober per service address of the config in force.
func (a *Agent) probe(ctx context.Context) error {
	for {
		cfg, changed := a.conf.watch()
		round, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for _, l := range cfg.Listeners {
			wg.Go(func() { probe(round, l, a.conf.door(l), cfg.Health, a.conf.token, a.probes) })
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
		cancel()
		wg.Wait()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// adopted passes a config that came into force, with its neighbors, on to those
// who act on it.
func (a *Agent) adopted(ctx context.Context, cfg *configs.Pop, n neighbors) {
	if a.upstreams != nil {
		a.upstreams.set(ctx, n)
		a.upstreams.blackholes.within(ctx, cfg.BGP.Prefixes)
	}
	select {
	case <-a.configs: // one that was not taken yet is out of date
	default:
	}
	a.configs <- cfg
	a.poke()
}

// retire takes the node out in order after its tasks have ended: withdraw, wait
// for upstreams to follow, ask clients to go, wait for them.
func (a *Agent) retire(ctx context.Context) {
	c, pace := a.controller, a.conf.config().Drain
	if c.route.announced != Withdrawn {
		c.route.wish, c.route.rule = Withdrawn, RuleLifetime
		c.announce(ctx, time.Now(), decision{want: Withdrawn, rule: RuleLifetime, reason: "agent stops"}, nil)
		a.stateChanged(c.state(c.judge.Verdict(time.Now())))
		a.follow(ctx, pace.Withdraw.Std(), func() bool { return false })
	}
	if c.worker.ready() {
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			a.conf.setDraining(ctx, true)
		}()
		a.follow(ctx, pace.Close.Std(), func() bool {
			v := c.worker.vitals
			return v == nil || v.Draining && v.Connections == 0
		})
		<-asked
	}
	a.conf.stop()
}

// follow takes the worker's events until done, or for so long.
func (a *Agent) follow(ctx context.Context, limit time.Duration, done func() bool) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for !done() {
		select {
		case e := <-a.events:
			a.controller.event(e)
		case <-timeout.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Reload reads the config file again. A config that does not validate, or that
// the worker refuses, changes nothing; the error says why, and so does the
// status until a reload succeeds.
func (a *Agent) Reload(ctx context.Context) error {
	return a.ReloadBy(ctx, audit.Actor{From: "signal"})
}

// ReloadBy is Reload for somebody in particular.
func (a *Agent) ReloadBy(ctx context.Context, who audit.Actor) error {
	return a.audit.Done(who, audit.Entry{Act: audit.Reload, On: "config " + a.conf.file}, a.reload(ctx))
}

func (a *Agent) reload(ctx context.Context) error {
	return a.roller.reloaded(func() ([]byte, error) {
		cfg, source, err := configs.ReadPop(a.conf.file)
		if err != nil {
			a.conf.refused(err)
			return nil, err
		}
		return source.Data(), a.roller.reload(ctx, cfg)
	})
}
