package pop

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/health"
	"anyedge/pop/rollout"
)

const (
	// rolloutPace is how often a rollout is looked at when nothing changes: a
	// soak ends by the clock.
	rolloutPace = 250 * time.Millisecond
	// rolloutCall bounds one question to the store.
	rolloutCall = 2 * time.Second
	// rolloutRetry is the pause after a return that did not work.
	rolloutRetry = 5 * time.Second
)

// roller is this node's part in rollouts: the thin shell around
// [rollout.Follower] and [rollout.Driver].
type roller struct {
	fleet   *fleet.Fleet
	node    configs.Node
	fixed   map[string]string // of the config that the node was started with, and of each one since
	ttl     time.Duration     // age at which a report counts no more
	log     *slog.Logger
	metrics *metrics
	// reload puts a config in force, or changes nothing.
	reload func(context.Context, *configs.Pop) error

	// turn is held through a whole change of the config in force, by whoever
	// makes it: a rollout or an operator's reload.
	turn sync.Mutex

	mu         sync.Mutex // guards the rest, for short
	files      *configFiles
	follower   *rollout.Follower
	condition  rollout.Condition
	generation uint64 // of the newest rollout seen

	// Owned by Run.
	driver rollout.Driver
	rest   time.Time // no return is tried before
}

func newRoller(f *fleet.Fleet, cfg *configs.Pop, files *configFiles, log *slog.Logger, m *metrics) *roller {
	o := &roller{
		fleet: f, node: cfg.Node, ttl: cfg.Fleet.ReportTTL.Std(), log: log, metrics: m,
		files: files, follower: rollout.NewFollower(cfg.Node.Name),
	}
	// The text, since cfg has the paths as this node sees them. What cannot be
	// parsed is not told, and then nobody can compare.
	if written, err := configs.ParsePop(files.file, files.source); err == nil {
		o.fixed = configs.FixedKeys(written)
	}
	return o
}

// validRollout is [fleet.Config].ValidRollout.
func validRollout(data []byte) error {
	_, err := rollout.Decode(data)
	return err
}

// observe takes the node's condition from the controller.
func (o *roller) observe(s state) {
	c := rollout.Condition{
		Health: healthOf(s.Verdict.State.String()), Why: s.Reason,
		Announced: s.Announced == Announced, Draining: s.Orders.Leaving() || s.Drain.stage != DrainNone && s.Drain.stage != "",
	}
	if c.Health == rollout.Unhealthy {
		c.Why = s.Verdict.Reason
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.condition = c
	o.follower.Observe(o.generation, c)
}

func healthOf(state string) rollout.Health {
	switch state {
	case health.Healthy.String():
		return rollout.Healthy
	case health.Unhealthy.String():
		return rollout.Unhealthy
	}
	return rollout.Unknown
}

// report adds the node's part to its report.
func (o *roller) report(r *fleet.Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r.Config, r.Fixed = o.files.sum(), o.fixed
	tried, failed := o.follower.Failure()
	if part := (fleet.RolloutReport{Taken: o.files.mark.Generation, Tried: tried, Failed: failed}); part != (fleet.RolloutReport{}) {
		r.Rollout = &part
	}
}

// String names the roller as a task.
func (o *roller) String() string { return "rollouts" }

// Run follows rollouts, and drives them, until ctx ends. While the store is out
// of reach it does neither.
func (o *roller) Run(ctx context.Context) error {
	ticker := time.NewTicker(rolloutPace)
	defer ticker.Stop()
	for {
		view := o.fleet.View()
		o.step(ctx, time.Now(), view)
		select {
		case <-ctx.Done():
			return nil
		case <-view.Changed():
		case <-ticker.C:
		}
	}
}

func (o *roller) step(ctx context.Context, now time.Time, view *fleet.View) {
	if !view.Connected {
		o.driver.Lost()
		return
	}
	if view.Rollout == nil {
		return
	}
	r, err := rollout.Decode(view.Rollout)
	if err != nil { // the view holds valid rollouts only
		panic(err)
	}
	o.metrics.showRollout(r)
	if o.next(r) != rollout.Stay && !now.Before(o.rest) {
		o.follow(ctx, now)
	}
	next, change := o.driver.Step(now, r, rolloutReports(view, now, o.ttl))
	if !change {
		return
	}
	data, err := next.Encode()
	if err != nil {
		o.log.Error("rollout cannot be written", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rolloutCall)
	defer cancel()
	switch err := o.fleet.SwapRollout(ctx, view.Rollout, data); {
	case err == nil:
		o.log.Info("rollout moves", "generation", next.Generation, "phase", next.Phase, "turn", next.Turn, "open", next.Open, "reason", next.Reason)
	case !errors.Is(err, fleet.ErrConflict): // else another node was faster
		o.log.Warn("rollout does not move, the fleet store did not take it", "error", err)
	}
}

// rolloutReports puts the fleet's reports into the rollout's terms.
func rolloutReports(view *fleet.View, now time.Time, ttl time.Duration) []rollout.Report {
	var reports []rollout.Report
	for _, s := range view.Reports {
		r := rollout.Report{
			Node: s.Node, Fresh: view.Fresh(s, now, ttl), At: s.At, Config: s.Config, Health: healthOf(s.State),
			Announced: s.Announcement == fleet.Announced,
			Draining:  s.Draining || view.Orders(s.Node, s.Pop, s.Region, now).Leaving(),
		}
		if p := s.Rollout; p != nil {
			r.Taken, r.Tried, r.Failed = p.Taken, p.Tried, p.Failed
		}
		reports = append(reports, r)
	}
	return reports
}

// next asks the follower.
func (o *roller) next(r rollout.Rollout) rollout.Action {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.generation = r.Generation
	return o.follower.Next(r, rollout.Local{Config: o.files.sum(), Taken: o.files.mark.Generation})
}

// follow acts on the rollout as the store has it this instant: a view may be a
// moment old, and a turn may have been taken back in it.
func (o *roller) follow(ctx context.Context, now time.Time) {
	o.turn.Lock()
	defer o.turn.Unlock()
	r, err := o.current(ctx)
	if err != nil {
		o.log.Warn("rollout not followed, the fleet store did not answer", "error", err)
		return
	}
	switch o.next(r) {
	case rollout.Take:
		o.take(ctx, r)
	case rollout.Return:
		if err := o.giveUp(ctx, o.reload); err != nil {
			o.rest = now.Add(rolloutRetry)
			o.log.Error("the config before the rollout could not be put in force again, retrying", "generation", r.Generation, "error", err)
		}
	case rollout.Settle:
		if err := o.settle(); err != nil {
			o.rest = now.Add(rolloutRetry)
			o.log.Error("mark of a rollout not deleted, retrying", "error", err)
		}
	}
}

func (o *roller) current(ctx context.Context) (rollout.Rollout, error) {
	ctx, cancel := context.WithTimeout(ctx, rolloutCall)
	defer cancel()
	data, err := o.fleet.Rollout(ctx)
	if err != nil {
		return rollout.Rollout{}, err
	}
	return rollout.Decode(data)
}

// take puts this node's document of a rollout in force.
func (o *roller) take(ctx context.Context, r rollout.Rollout) {
	call, cancel := context.WithTimeout(ctx, rolloutCall)
	document, err := o.fleet.Document(call, r.Document(o.node.Name))
	cancel()
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		o.log.Warn("document of the rollout not read, retrying", "error", err)
		return
	}
	if err == nil {
		err = o.adopt(ctx, r.Generation, document)
	}
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.follower.Refused(r.Generation, "refused: "+err.Error())
		o.log.Error("rollout refused", "generation", r.Generation, "error", err)
		return
	}
	o.log.Info("config of the rollout in force", "generation", r.Generation)
}

func (o *roller) adopt(ctx context.Context, generation uint64, document []byte) error {
	cfg, _, err := configs.InterpretPop(o.files.file, document)
	if err != nil {
		return err
	}
	o.mu.Lock()
	err = o.files.begin(generation, document)
	o.mu.Unlock()
	if err != nil {
		return err
	}
	if err := o.reload(ctx, cfg); err != nil {
		return errors.Join(err, o.settle()) // nothing has changed
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.follower.Took(o.condition)
	if err := o.files.put(document); err != nil {
		// It is in force, and gone with this process.
		o.log.Error("config of the rollout not written", "error", err)
	}
	return nil
}

// giveUp puts the config before the rollout in force again. A config that an
// operator has put there since is his.
func (o *roller) giveUp(ctx context.Context, reload func(context.Context, *configs.Pop) error) error {
	if o.files.sum() == o.files.mark.Config {
		text, err := o.files.lastGood()
		if err != nil {
			return err
		}
		cfg, _, err := configs.InterpretPop(o.files.file, text)
		if err != nil {
			return err
		}
		if err := reload(ctx, cfg); err != nil {
			return err
		}
		o.mu.Lock()
		err = o.files.put(text)
		o.mu.Unlock()
		if err != nil {
			return err
		}
	}
	o.log.Info("config before the rollout in force", "generation", o.files.mark.Generation)
	o.metrics.rolloutReturns.Inc()
	return o.settle()
}

// settle deletes the mark.
func (o *roller) settle() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files.end()
}

// resume decides which config a node begins with: if the rollout that it was
// part of is over and lost, or on its way back, the one before, which is
// returned. Nil is the one that it was started with.
func (o *roller) resume(ctx context.Context, started *configs.Pop) *configs.Pop {
	view := o.fleet.View()
	if !view.Connected || view.Rollout == nil || o.files.mark.Generation == 0 {
		return nil
	}
	r, err := o.current(ctx)
	if err != nil || o.next(r) != rollout.Return {
		return nil
	}
	var before *configs.Pop
	err = o.giveUp(ctx, func(_ context.Context, cfg *configs.Pop) error {
		before = cfg
		return configs.RestartNeeded(started, cfg)
	})
	if err != nil {
		o.log.Error("the config before the rollout cannot be begun with, retrying once the node serves", "error", err)
		return nil
	}
	return before
}

// reloaded runs a reload of the config file that an operator asked for, and
// notes what is in force then.
func (o *roller) reloaded(reload func() ([]byte, error)) error {
	o.turn.Lock()
	defer o.turn.Unlock()
	text, err := reload()
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files.source = text
	return nil
}
