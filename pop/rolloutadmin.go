package pop

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"anyedge/configs"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
	"anyedge/pop/preflight"
	"anyedge/pop/rollout"
)

// The pace of a rollout that says nothing else.
const (
	defaultSoak = 2 * time.Minute
	defaultTake = time.Minute
)

// ErrRollout says that a rollout cannot be had as it was asked for. Any other
// error is the fleet store's.
var ErrRollout = errors.New("rollout")

func refuseRollout(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRollout, fmt.Errorf(format, args...))
}

// RolloutStatus is what GET /v1/rollout shows.
type RolloutStatus struct {
	// Rollout is the newest; nil if there never was one.
	Rollout *rollout.Rollout `json:"rollout"`
	// Waits is what keeps the next PoP from its turn, if something does.
	Waits string        `json:"waits,omitempty"`
	Nodes []RolloutNode `json:"nodes"` // in the order of the rollout
}

// RolloutNode is one node of a rollout as its report has it.
type RolloutNode struct {
	Pop  string `json:"pop"`
	Node string `json:"node"`
	// Config is the one in force: "old", "new", "other", or "unknown" if the
	// node is not heard of.
	Config string `json:"config"`
	State  string `json:"state,omitempty"` // of its health
	Failed string `json:"failed,omitempty"`
}

// StartRollout is what an operator asks for.
type StartRollout struct {
	// Documents are the sums of configs that were put before, in any order.
	Documents []string `json:"documents"`
	// Order names every PoP of the set, or none: then the first documents' PoPs
	// come first.
	Order  []string         `json:"order,omitempty"`
	Soak   configs.Duration `json:"soak,omitempty"` // default 2m
	Take   configs.Duration `json:"take,omitempty"` // default 1m
	Note   string           `json:"note,omitempty"`
	Retire []netip.Prefix   `json:"retire,omitempty"` // may lose all their PoPs
	Force  bool             `json:"force,omitempty"`  // whatever the fleet looks like, and whatever needs a restart
}

// Rollout returns the newest rollout as this node sees it.
func (a *Agent) Rollout() RolloutStatus {
	s := RolloutStatus{Nodes: []RolloutNode{}}
	view, now := a.fleet.View(), time.Now()
	if view.Rollout == nil {
		return s
	}
	r, err := rollout.Decode(view.Rollout)
	if err != nil { // the view holds valid rollouts only
		panic(err)
	}
	s.Rollout = &r
	reports := rolloutReports(view, now, a.started.Fleet.ReportTTL.Std())
	s.Waits = r.Waits(reports)
	for _, step := range r.Steps {
		for _, n := range step.Nodes {
			shown := RolloutNode{Pop: step.Pop, Node: n.Name, Config: "unknown"}
			i := slices.IndexFunc(reports, func(rep rollout.Report) bool { return rep.Node == n.Name && rep.Fresh })
			if i >= 0 {
				shown.State = view.Reports[i].State
				switch reports[i].Config {
				case n.New:
					shown.Config = "new"
				case n.Old:
					shown.Config = "old"
				default:
					shown.Config = "other"
				}
				if reports[i].Tried == r.Generation {
					shown.Failed = reports[i].Failed
				}
			}
			s.Nodes = append(s.Nodes, shown)
		}
	}
	return s
}

// PutConfig keeps a node's config in the fleet, for a rollout to name, and
// returns its sum. It must be valid, and hold no secret.
func (a *Agent) PutConfig(ctx context.Context, text []byte) (sum string, err error) {
	if len(text) > fleet.MaxValue {
		return "", refuseRollout("the config has %d bytes, more than %d", len(text), fleet.MaxValue)
	}
	cfg, err := configs.ParsePop("config", text)
	if err != nil {
		return "", refuseRollout("%w", err)
	}
	// There is no key for a secret, only for files with secrets. What is left is
	// what people paste.
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return "", refuseRollout("the config of %s holds a private key: the fleet store keeps it in clear; put it into a file on the node", cfg.Node.Name)
	}
	return a.fleet.PutDocument(ctx, text)
}

// StartRollout starts a rollout of configs that were put before. Who does it is
// who.By. It refuses one beside another, one of nodes that are not heard of, one
// that nodes would have to be restarted for, and one that would leave a prefix with
// too few PoPs, as "anyedge check --against-fleet" does.
func (a *Agent) StartRollout(ctx context.Context, who audit.Actor, req StartRollout) error {
	r, err := a.startRollout(ctx, who, req)
	e := audit.Entry{Act: audit.Rollout, On: "the fleet", What: "start: " + req.Note, Forced: req.Force}
	if err == nil {
		e.On = fmt.Sprintf("rollout %d", r.Generation)
	}
	return a.audit.Done(who, e, err)
}

func (a *Agent) startRollout(ctx context.Context, who audit.Actor, req StartRollout) (rollout.Rollout, error) {
	view, now := a.fleet.View(), time.Now()
	if !view.Connected {
		return rollout.Rollout{}, errors.New("the fleet store is out of reach")
	}
	var steps []rollout.Step
	var set []*configs.Pop
	for _, sum := range req.Documents {
		text, err := a.fleet.Document(ctx, sum)
		if errors.Is(err, fleet.ErrNotFound) {
			return rollout.Rollout{}, refuseRollout("there is no document %.80q", sum)
		}
		if err != nil {
			return rollout.Rollout{}, err
		}
		cfg, err := configs.ParsePop("config", text)
		if err != nil {
			return rollout.Rollout{}, refuseRollout("%w", err)
		}
		node, err := a.rolloutNode(view, now, cfg, sum)
		if err != nil {
			return rollout.Rollout{}, err
		}
		set = append(set, cfg)
		i := slices.IndexFunc(steps, func(s rollout.Step) bool { return s.Pop == cfg.Node.Pop })
		if i < 0 {
			i, steps = len(steps), append(steps, rollout.Step{Pop: cfg.Node.Pop})
		}
		steps[i].Nodes = append(steps[i].Nodes, node)
	}
	steps, err := inOrder(steps, req.Order)
	if err != nil {
		return rollout.Rollout{}, err
	}
	if !req.Force {
		if err := refusal(Preflight(a.Fleet().Nodes, set, req.Retire)); err != nil {
			return rollout.Rollout{}, err
		}
	}
	r, err := a.changeRollout(ctx, func(prev *rollout.Rollout) (rollout.Rollout, error) {
		return rollout.Start(prev, rollout.Rollout{
			Steps: steps, By: who.By, Note: req.Note, At: now,
			Soak: rollout.Span(cmp.Or(req.Soak.Std(), defaultSoak)), Take: rollout.Span(cmp.Or(req.Take.Std(), defaultTake)),
		})
	})
	if err != nil {
		return rollout.Rollout{}, err
	}
	if err := a.fleet.PruneDocuments(ctx, req.Documents); err != nil {
		a.log.Warn("documents of earlier rollouts not deleted", "error", err)
	}
	return r, nil
}

// rolloutNode finds the node that a config is for.
func (a *Agent) rolloutNode(view *fleet.View, now time.Time, cfg *configs.Pop, sum string) (rollout.Node, error) {
	rep, ok := view.Report(cfg.Node.Name)
	switch {
	case !ok || !view.Fresh(rep, now, a.started.Fleet.ReportTTL.Std()):
		return rollout.Node{}, refuseRollout("node %s is not heard of", cfg.Node.Name)
	case rep.Config == "":
		return rollout.Node{}, refuseRollout("node %s does not say what config it runs", cfg.Node.Name)
	case rep.Rollout != nil && rep.Rollout.Taken != 0:
		return rollout.Node{}, refuseRollout("node %s has yet to settle after rollout %d", cfg.Node.Name, rep.Rollout.Taken)
	case rep.Pop != cfg.Node.Pop:
		return rollout.Node{}, refuseRollout("node %s is in PoP %s, not %s", cfg.Node.Name, rep.Pop, cfg.Node.Pop)
	}
	return rollout.Node{Name: cfg.Node.Name, Old: rep.Config, New: sum}, nil
}

// inOrder sorts steps by the names of their PoPs; none leaves them as they are.
func inOrder(steps []rollout.Step, order []string) ([]rollout.Step, error) {
	if len(order) == 0 {
		return steps, nil
	}
	var sorted []rollout.Step
	for _, pop := range order {
		i := slices.IndexFunc(steps, func(s rollout.Step) bool { return s.Pop == pop })
		if i < 0 {
			return nil, refuseRollout("order: no config is for PoP %s", pop)
		}
		sorted = append(sorted, steps[i])
	}
	for _, s := range steps {
		if !slices.Contains(order, s.Pop) {
			return nil, refuseRollout("order: PoP %s is missing", s.Pop)
		}
	}
	return sorted, nil
}

// refusal is why a set must not go out, or nil.
func refusal(r preflight.Result) error {
	var lines []string
	for _, n := range r.Restarts {
		lines = append(lines, fmt.Sprintf("%s needs a restart to take the change of %s", n.Node, strings.Join(n.Keys, ", ")))
	}
	for _, p := range r.Prefixes {
		if p.Refused != "" {
			lines = append(lines, fmt.Sprintf("%v: %s (%s)", p.Prefix, p.Refused, strings.Join(p.Culprits, ", ")))
		}
	}
	if lines == nil {
		return nil
	}
	return refuseRollout("%s", strings.Join(lines, "; "))
}

// PauseRollout keeps every PoP where it is.
func (a *Agent) PauseRollout(ctx context.Context, who audit.Actor) error {
	return a.wish(ctx, who, "pause", func(r rollout.Rollout) (rollout.Rollout, error) { return rollout.Pause(r, who.By) })
}

// ResumeRollout ends a pause.
func (a *Agent) ResumeRollout(ctx context.Context, who audit.Actor) error {
	return a.wish(ctx, who, "resume", rollout.Resume)
}

// AbortRollout sends every node back to the config it had.
func (a *Agent) AbortRollout(ctx context.Context, who audit.Actor) error {
	return a.wish(ctx, who, "abort", func(r rollout.Rollout) (rollout.Rollout, error) { return rollout.Abort(r, who.By) })
}

func (a *Agent) wish(ctx context.Context, who audit.Actor, what string, change func(rollout.Rollout) (rollout.Rollout, error)) error {
	e := audit.Entry{Act: audit.Rollout, On: "the fleet", What: what}
	r, err := a.changeRollout(ctx, func(r *rollout.Rollout) (rollout.Rollout, error) {
		if r == nil {
			return rollout.Rollout{}, errors.New("there is none")
		}
		return change(*r)
	})
	if err == nil {
		e.On = fmt.Sprintf("rollout %d", r.Generation)
	}
	return a.audit.Done(who, e, err)
}

// changeRollout changes the rollout as the store has it now, nil for none. It
// tries again when a node moves it on meanwhile.
func (a *Agent) changeRollout(ctx context.Context, change func(*rollout.Rollout) (rollout.Rollout, error)) (rollout.Rollout, error) {
	for {
		seen, err := a.fleet.Rollout(ctx)
		var r *rollout.Rollout
		switch {
		case errors.Is(err, fleet.ErrNotFound):
		case err != nil:
			return rollout.Rollout{}, err
		default:
			now, err := rollout.Decode(seen)
			if err != nil {
				return rollout.Rollout{}, err
			}
			r = &now
		}
		next, err := change(r)
		if err != nil {
			return rollout.Rollout{}, refuseRollout("%w", err)
		}
		data, err := next.Encode()
		if err != nil {
			return rollout.Rollout{}, err
		}
		if err = a.fleet.SwapRollout(ctx, seen, data); !errors.Is(err, fleet.ErrConflict) || ctx.Err() != nil {
			return next, err
		}
	}
}
