package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"anyedge/configs"
	"anyedge/internal/ops"
	"anyedge/pop"
	"anyedge/pop/rollout"
)

// RolloutChange is the body of POST /v1/rollout.
type RolloutChange struct {
	// Action is start, pause, resume or abort.
	Action string            `json:"action"`
	By     string            `json:"by,omitempty"`
	Start  *pop.StartRollout `json:"start,omitempty"` // with start only
}

// RolloutDocument is the body of POST /v1/rollout/documents, and with a sum in
// place of the config the answer.
type RolloutDocument struct {
	Config string `json:"config,omitempty"`
	Sum    string `json:"sum,omitempty"`
}

// rolloutEndpoints are the part of a node's admin API that rolls out configs.
func rolloutEndpoints(a *pop.Agent) []ops.Endpoint {
	return []ops.Endpoint{
		{Method: http.MethodGet, Path: "/v1/rollout", Doc: "the newest rollout of configs, and how far each node is",
			Handle: func(context.Context, ops.Request) (any, error) { return a.Rollout(), nil }},
		{Method: http.MethodPost, Path: "/v1/rollout", Doc: "start, pause, resume or abort a rollout",
			Handle: func(ctx context.Context, r ops.Request) (any, error) { return nil, changeRollout(ctx, a, r) }},
		{Method: http.MethodPost, Path: "/v1/rollout/documents", Doc: "keep a node's config for a rollout to name",
			Handle: func(ctx context.Context, r ops.Request) (any, error) {
				var doc RolloutDocument
				if err := r.Decode(&doc); err != nil {
					return nil, err
				}
				sum, err := a.PutConfig(ctx, []byte(doc.Config))
				return RolloutDocument{Sum: sum}, rolloutError(err)
			}},
	}
}

func changeRollout(ctx context.Context, a *pop.Agent, r ops.Request) error {
	var c RolloutChange
	if err := r.Decode(&c); err != nil {
		return err
	}
	if (c.Start != nil) != (c.Action == "start") {
		return ops.BadRequest("start: goes with action start, and only with it")
	}
	who := actor(r, c.By)
	var err error
	switch c.Action {
	case "start":
		err = a.StartRollout(ctx, who, *c.Start)
	case "pause":
		err = a.PauseRollout(ctx, who)
	case "resume":
		err = a.ResumeRollout(ctx, who)
	case "abort":
		err = a.AbortRollout(ctx, who)
	default:
		return ops.BadRequest("action: %q is not start, pause, resume or abort", c.Action)
	}
	return rolloutError(err)
}

func rolloutError(err error) error {
	if errors.Is(err, pop.ErrRollout) {
		return ops.Conflict("%w", err)
	}
	return taken(err)
}

// runRollout is the family of commands around rollouts.
func runRollout(c *invocation) error {
	verbs := map[string]func(*invocation) error{
		"start": startRollout, "status": rolloutStatus,
		"pause": changeBy("pause"), "resume": changeBy("resume"), "abort": changeBy("abort"),
	}
	if len(c.args) > 0 && verbs[c.args[0]] != nil {
		verb := verbs[c.args[0]]
		c.args = c.args[1:]
		return verb(c)
	}
	if err := c.parse(0); err != nil {
		return err
	}
	return usagef("one of start, status, pause, resume and abort is required")
}

// startRollout gives the configs to the fleet and starts.
func startRollout(c *invocation) error {
	address, files := c.adminFlag(), c.configFlag()
	order := c.flags.String("order", "", "the `PoPs` in the order of their turns, with commas; default: the order of the configs")
	var req pop.StartRollout
	c.flags.TextVar(&req.Soak, "soak", configs.Duration(2*time.Minute), "how long each PoP must stay well on its new configs")
	c.flags.TextVar(&req.Take, "take", configs.Duration(time.Minute), "how long its nodes may need to get there")
	c.flags.StringVar(&req.Note, "reason", "", "why, for whoever looks")
	c.flags.BoolVar(&req.Force, "force", false, "start although a prefix would be left with too few PoPs, or a node has to be restarted to take its config")
	c.flags.Func("retire", "a `prefix` that is meant to be announced nowhere any more; can be given again", func(s string) error {
		p, err := netip.ParsePrefix(s)
		req.Retire = append(req.Retire, p.Masked())
		return err
	})
	if err := c.parse(0); err != nil {
		return err
	}
	if len(*files) == 0 {
		return usagef("--config is required")
	}
	if *order != "" {
		req.Order = strings.Split(*order, ",")
	}
	set, err := loadSet(*files)
	if err != nil {
		return err
	}
	ctx, client := context.Background(), ops.Client{Address: *address}
	for _, s := range set {
		var kept RolloutDocument
		if err := client.Post(ctx, "/v1/rollout/documents", RolloutDocument{Config: string(s.source.Data())}, &kept); err != nil {
			return fmt.Errorf("%s: %w", s.source.File(), err)
		}
		req.Documents = append(req.Documents, kept.Sum)
	}
	return client.Post(ctx, "/v1/rollout", RolloutChange{Action: "start", By: operator(), Start: &req}, nil)
}

// operator names who runs the command; "" if nobody knows.
func operator() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

func changeBy(action string) func(*invocation) error {
	return func(c *invocation) error {
		address := c.adminFlag()
		if err := c.parse(0); err != nil {
			return err
		}
		return ops.Client{Address: *address}.Post(context.Background(), "/v1/rollout", RolloutChange{Action: action, By: operator()}, nil)
	}
}

// rolloutStatus shows the newest rollout. With --wait it returns when that has
// ended, with an error unless it is done.
func rolloutStatus(c *invocation) error {
	address := c.adminFlag()
	asJSON := c.jsonFlag()
	wait := c.flags.Bool("wait", false, "wait for the end; the exit status says whether every node has its new config")
	if err := c.parse(0); err != nil {
		return err
	}
	var s pop.RolloutStatus
	for ctx, client := context.Background(), (ops.Client{Address: *address}); ; time.Sleep(time.Second) {
		s = pop.RolloutStatus{} // what an answer leaves out is not what the one before said
		if err := client.Get(ctx, "/v1/rollout", &s); err != nil {
			return err
		}
		if !*wait || s.Rollout == nil || s.Rollout.Phase.Final() {
			break
		}
	}
	var err error
	if *asJSON {
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		err = e.Encode(s)
	} else {
		err = printRollout(c.out, s)
	}
	if err == nil && *wait && s.Rollout != nil && s.Rollout.Phase != rollout.Done {
		err = fmt.Errorf("rollout %d %s: %s", s.Rollout.Generation, s.Rollout.Phase, s.Rollout.Reason)
	}
	return err
}

// printRollout writes a rollout for people.
func printRollout(out io.Writer, s pop.RolloutStatus) error {
	if s.Rollout == nil {
		_, err := fmt.Fprintln(out, "there was no rollout yet")
		return err
	}
	r, w := s.Rollout, tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "rollout\t%d, %s\n", r.Generation, r.Phase)
	if r.Reason != "" {
		fmt.Fprintf(w, "because\t%s\n", r.Reason)
	}
	if r.By != "" || r.Note != "" {
		fmt.Fprintf(w, "started\tby %s: %s\n", r.By, r.Note)
	}
	if s.Waits != "" {
		fmt.Fprintf(w, "waits\t%s\n", s.Waits)
	}
	turns := make(map[string]string)
	for i, step := range r.Steps {
		switch {
		case r.Phase == rollout.Returning || r.Phase == rollout.Failed || r.Phase == rollout.Aborted:
			turns[step.Pop] = "back"
		case i < r.Turn:
			turns[step.Pop] = "soaked"
		case i == r.Turn && r.Open:
			turns[step.Pop] = "soaks"
		default:
			turns[step.Pop] = "to come"
		}
	}
	for _, n := range s.Nodes {
		text := fmt.Sprintf("%s config, %s", n.Config, n.State)
		if n.State == "" {
			text = "not heard of"
		}
		if n.Failed != "" {
			text += ": " + n.Failed
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Pop, turns[n.Pop], n.Node, text)
	}
	return w.Flush()
}
