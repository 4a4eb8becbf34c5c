package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
	"anyedge/pop"
)

// actionClear ends an override, beside the actions of package fleet.
const actionClear = "clear"

// OverrideRequest is the body of POST /v1/override.
type OverrideRequest struct {
	Scope  string           `json:"scope"` // node, pop, region or fleet
	Name   string           `json:"name"`  // empty: this node's
	Prefix netip.Prefix     `json:"prefix,omitzero"`
	Action string           `json:"action"` // announce, withdraw, depreference or clear
	Force  bool             `json:"force,omitempty"`
	By     string           `json:"by"`
	Reason string           `json:"reason,omitempty"`
	For    configs.Duration `json:"for,omitempty"`
}

// override carries out a POST /v1/override.
func override(ctx context.Context, a *pop.Agent, r ops.Request) error {
	var req OverrideRequest
	if err := r.Decode(&req); err != nil {
		return err
	}
	n := a.Node()
	own := map[string]string{fleet.ScopeNode: n.Name, fleet.ScopePop: n.Pop, fleet.ScopeRegion: n.Region, fleet.ScopeFleet: fleet.FleetName}
	name, known := own[req.Scope]
	if !known {
		return ops.BadRequest("scope: %q is not node, pop, region or fleet", req.Scope)
	}
	if req.Name != "" {
		name = req.Name
	}
	who := actor(r, req.By)
	o := fleet.Override{Scope: req.Scope, Name: name, Prefix: req.Prefix, Action: req.Action, Force: req.Force, Reason: req.Reason}
	checked := o // as it would be written
	checked.By, checked.At = who.By, time.Now()
	checked.Until = checked.At.Add(req.For.Std())
	if req.Action == actionClear {
		checked.Action, checked.Reason, checked.Until = fleet.ActionAnnounce, "clear", checked.At.Add(1)
	}
	err := checked.Validate()
	switch {
	case err != nil:
		return ops.BadRequest("%w", err)
	case req.Action == actionClear:
		err = a.ClearOverride(ctx, who, o)
	default:
		err = a.SetOverride(ctx, who, o, req.For.Std())
	}
	return taken(err)
}

// overrideTerms defines the flags that every override has. Once they are parsed,
// check says which are missing, or are too many to clear one.
func (c *invocation) overrideTerms(span *configs.Duration, reason *string) (check func(clear bool) error) {
	c.flags.TextVar(span, "for", *span, "how long it is in force, at most 168h; required but to clear")
	c.flags.StringVar(reason, "reason", "", "why; required but to clear")
	return func(clear bool) error {
		switch {
		case clear && (*span != 0 || *reason != ""):
			return usagef("clear takes no --for and --reason")
		case !clear && *span <= 0:
			return usagef("--for is required: an override has an end")
		case !clear && *reason == "":
			return usagef("--reason is required: an override says why")
		}
		return nil
	}
}

// runOverride puts an override in force, clears one, or lists them.
func runOverride(c *invocation) error {
	const want = "announce, withdraw, depreference, clear or list"
	if len(c.args) == 0 {
		return usagef("say what to do: %s", want)
	}
	req := OverrideRequest{Scope: fleet.ScopeNode, Action: c.args[0]}
	address := c.adminFlag()
	if req.Action == "list" {
		c.args = c.args[1:]
		if err := c.parse(0); err != nil {
			return err
		}
		return c.listOverrides(ops.Client{Address: *address})
	}
	names := map[string]*string{
		fleet.ScopeNode:   c.flags.String("node", "", "the `name` of a node; without any, the node that is asked"),
		fleet.ScopePop:    c.flags.String("pop", "", "the `name` of a PoP"),
		fleet.ScopeRegion: c.flags.String("region", "", "the `name` of a region"),
	}
	all := c.flags.Bool("fleet", false, "every node of the fleet")
	c.flags.TextVar(&req.Prefix, "prefix", req.Prefix, "only this service `prefix`")
	check := c.overrideTerms(&req.For, &req.Reason)
	c.flags.BoolVar(&req.Force, "force", false, "past the safeguards: withdraw without asking the guard, announce what cannot serve")
	switch req.Action {
	case fleet.ActionAnnounce, fleet.ActionWithdraw, fleet.ActionDepreference, actionClear:
		c.args = c.args[1:]
	default:
		if strings.HasPrefix(req.Action, "-") { // such as -h
			if err := c.parse(0); err != nil {
				return err
			}
		}
		return usagef("%q is not %s", req.Action, want)
	}
	if err := c.parse(0); err != nil {
		return err
	}
	given := 0
	if *all {
		req.Scope, given = fleet.ScopeFleet, 1
	}
	for scope, name := range names {
		if *name != "" {
			req.Scope, req.Name = scope, *name
			given++
		}
	}
	clear := req.Action == actionClear
	switch {
	case given > 1:
		return usagef("give one of --node, --pop, --region and --fleet")
	case clear && req.Force:
		return usagef("clear takes no --force")
	}
	if err := check(clear); err != nil {
		return err
	}
	req.By = operator()
	return ops.Client{Address: *address}.Post(context.Background(), "/v1/override", req, nil)
}

func (c *invocation) listOverrides(client ops.Client) error {
	var answer struct{ Overrides []fleet.Override }
	if err := client.Get(context.Background(), "/v1/override", &answer); err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for _, o := range answer.Overrides {
		action, prefix := o.Action, "all prefixes"
		if o.Force {
			action += " by force"
		}
		if o.Prefix.IsValid() {
			prefix = o.Prefix.String()
		}
		fmt.Fprintf(w, "%s %s\t%s\t%s\tuntil %s\tby %s\t%s\n", o.Scope, o.Name, prefix, action, o.Until.UTC().Format(time.DateTime), o.By, o.Reason)
	}
	return w.Flush()
}
