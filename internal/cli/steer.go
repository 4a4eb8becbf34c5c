package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"anyedge/configs"
	"anyedge/gslb"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
)

// SteerOverrideRequest is the body of POST /v1/steer/override.
type SteerOverrideRequest struct {
	Action string           `json:"action"` // only, without or clear
	Names  string           `json:"names"`  // pattern of steered names
	Pops   string           `json:"pops"`   // pattern of PoPs
	By     string           `json:"by"`
	Reason string           `json:"reason,omitempty"`
	For    configs.Duration `json:"for,omitempty"`
}

// The actions of a SteerOverrideRequest, beside actionClear.
const (
	actionOnly    = "only"
	actionWithout = "without"
)

// gslbEndpoints is the admin API of a DNS node.
func gslbEndpoints(n *gslb.Node) []ops.Endpoint {
	get := func(path, doc string, load func(ops.Request) (any, error)) ops.Endpoint {
		return ops.Endpoint{Method: http.MethodGet, Path: path, Doc: doc,
			Handle: func(_ context.Context, r ops.Request) (any, error) { return load(r) }}
	}
	return []ops.Endpoint{
		get("/v1/status", "config, zones, steered names and the PoPs as answers see them", func(ops.Request) (any, error) {
			return n.Overview(), nil
		}),
		get("/v1/plan", "who goes where by the plan in force, and what the loss of each PoP would come to", func(ops.Request) (any, error) {
			return n.Plan(), nil
		}),
		get("/v1/names", "the steered names, with policy and answers", func(ops.Request) (any, error) {
			return map[string]any{"names": n.Names()}, nil
		}),
		get("/v1/steer", "why a client gets the answer it gets; ?name=N&client=PREFIX&family=4|6&without=POP,POP", func(r ops.Request) (any, error) {
			return explainSteering(n, r)
		}),
		get("/v1/steer/override", "every override of steering in force", func(ops.Request) (any, error) {
			return map[string]any{"overrides": n.Overrides()}, nil
		}),
		{Method: http.MethodPost, Path: "/v1/steer/override", Doc: "put an override of steering in force for a while, or clear one",
			Handle: func(ctx context.Context, r ops.Request) (any, error) { return nil, overrideSteering(ctx, n, r) }},
		reloadEndpoint(n.ReloadBy),
		auditEndpoint(n.Audit),
	}
}

// explainSteering carries out a GET /v1/steer.
func explainSteering(n *gslb.Node, r ops.Request) (any, error) {
	ask := gslb.ExplainRequest{Name: r.Query("name")}
	if client := r.Query("client"); client != "" {
		var err error
		if ask.Client, err = clientNetwork(client); err != nil {
			return nil, ops.BadRequest("client: %w", err)
		}
	}
	switch family := r.Query("family"); family {
	case "", "4":
	case "6":
		ask.IPv6 = true
	default:
		return nil, ops.BadRequest("family: %q is not 4 or 6", family)
	}
	if without := r.Query("without"); without != "" {
		ask.Without = strings.Split(without, ",")
	}
	e, err := n.Explain(ask)
	if errors.Is(err, gslb.ErrNotSteered) {
		return nil, ops.NotFound("%w; \"anyedge steer list\" shows those that are", err)
	}
	if err != nil {
		return nil, ops.BadRequest("%w", err)
	}
	return e, nil
}

// clientNetwork reads a network or an address.
func clientNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is not a network such as 203.0.113.0/24, or an address", text)
	}
	return p.Masked(), nil
}

// overrideSteering carries out a POST /v1/steer/override.
func overrideSteering(ctx context.Context, n *gslb.Node, r ops.Request) error {
	var req SteerOverrideRequest
	if err := r.Decode(&req); err != nil {
		return err
	}
	o := fleet.SteerOverride{Names: req.Names, Pops: req.Pops, Only: req.Action == actionOnly, Reason: req.Reason}
	who := actor(r, req.By)
	checked := o // as it would be written
	checked.By, checked.At = who.By, time.Now()
	checked.Until = checked.At.Add(req.For.Std())
	var err error
	switch req.Action {
	case actionClear:
		checked.Reason, checked.Until = "clear", checked.At.Add(1)
		if err = checked.Validate(); err == nil {
			if !slices.ContainsFunc(n.Overrides(), func(in fleet.SteerOverride) bool { return in.Names == o.Names && in.Pops == o.Pops }) {
				return ops.NotFound("no override has the names %q and the PoPs %q; \"anyedge steer override list\" shows those in force", o.Names, o.Pops)
			}
			return taken(n.ClearOverride(ctx, who, o))
		}
	case actionOnly, actionWithout:
		if err = checked.Validate(); err == nil {
			err = n.Concerns(checked)
		}
		if err == nil {
			return taken(n.SetOverride(ctx, who, o, req.For.Std()))
		}
	default:
		err = fmt.Errorf("action: %q is not only, without or clear", req.Action)
	}
	return ops.BadRequest("%w", err)
}

// runSteer explains a decision of a DNS node, shows its plan, or overrides it.
func runSteer(c *invocation) error {
	if len(c.args) > 0 {
		switch word := c.args[0]; {
		case word == "plan":
			c.args = c.args[1:]
			return c.steerPlan()
		case word == "list":
			c.args = c.args[1:]
			return c.steerList()
		case word == "override":
			c.args = c.args[1:]
			return c.steerOverride()
		case !strings.HasPrefix(word, "-"):
			return usagef("%q is not list, plan or override; without any, say --name and --client", word)
		}
	}
	address := c.gslbFlag()
	name := c.flags.String("name", "", "the steered `name`")
	client := c.flags.String("client", "", "the client's `network` or address; without, one that does not say")
	family := c.flags.String("family", "4", "`4` for A, 6 for AAAA")
	without := c.flags.String("without", "", "`PoPs` to be taken as lost, separated by commas")
	asJSON := c.jsonFlag()
	if err := c.parse(0); err != nil {
		return err
	}
	if *name == "" {
		return usagef("--name is required")
	}
	if *family != "4" && *family != "6" {
		return usagef("--family: %q is not 4 or 6", *family)
	}
	query := url.Values{"name": {*name}, "family": {*family}}
	if *client != "" {
		network, err := clientNetwork(*client)
		if err != nil {
			return usagef("--client: %v", err)
		}
		query.Set("client", network.String())
	}
	if *without != "" {
		query.Set("without", *without)
	}
	var e gslb.Explanation
	if raw, err := c.fetch(*address, "/v1/steer?"+query.Encode(), *asJSON, &e); raw || err != nil {
		return err
	}
	fmt.Fprint(c.out, e.String())
	return nil
}

// steerList prints the steered names.
func (c *invocation) steerList() error {
	address := c.gslbFlag()
	asJSON := c.jsonFlag()
	if err := c.parse(0); err != nil {
		return err
	}
	var answer struct{ Names []gslb.NameStatus }
	if raw, err := c.fetch(*address, "/v1/names", *asJSON, &answer); raw || err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for _, n := range answer.Names {
		if n.AliasOf != "" {
			fmt.Fprintf(w, "%s\talias\t\tof %s\n", n.Name, n.AliasOf)
			continue
		}
		words := make([]string, len(n.Answers))
		for i, a := range n.Answers {
			if words[i] = a.Pop; n.Policy == "weighted" || n.Policy == "sticky" {
				words[i] += fmt.Sprintf(":%d", a.Weight)
			}
		}
		fmt.Fprintf(w, "%s\t%s\tTTL %ds\t%s\n", n.Name, n.Policy, n.TTL, strings.Join(words, " "))
	}
	return w.Flush()
}

// steerPlan prints the plan in force.
func (c *invocation) steerPlan() error {
	address := c.gslbFlag()
	asJSON := c.jsonFlag()
	if err := c.parse(0); err != nil {
		return err
	}
	var r gslb.PlanReport
	if raw, err := c.fetch(*address, "/v1/plan", *asJSON, &r); raw || err != nil {
		return err
	}
	return printPlan(c.out, r)
}

func printPlan(out io.Writer, r gslb.PlanReport) error {
	fmt.Fprintln(out, r.Summary)
	if r.Level > 0 {
		fmt.Fprintf(out, "%d networks, %s %s; PoPs filled to %.0f %% at most, %.0f %% is the target\n",
			r.Networks, figure(r.Demand), r.Unit, 100*r.Level, 100*r.Target)
		fmt.Fprintf(out, "mean round trip %.1f ms, at most %.1f ms above the best possible; moved %s by choice, %s held by the cap\n",
			r.Cost, r.Gap, figure(r.Moved.Planned), figure(r.Moved.Held))
		if r.Asked > 0 {
			fmt.Fprintf(out, "%s of the demand is known from queries alone\n", figure(r.Asked))
		}
	}
	if len(r.Pops) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PoP\tload\tplanned\tceiling\tfull\tif it were lost")
	for _, row := range planRows(r) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// planRows are the PoPs of a plan, a line each.
func planRows(r gslb.PlanReport) [][]string {
	var rows [][]string
	for _, p := range r.Pops {
		name, ceiling, full := p.Name, "unknown", "-"
		if !p.Open {
			name += " (out)"
		}
		if p.Ceiling > 0 {
			ceiling, full = figure(p.Ceiling), fmt.Sprintf("%.0f %%", 100*p.Utilization)
		}
		planned := "-"
		if r.Level > 0 {
			planned = figure(p.Demand + p.Background)
		}
		rows = append(rows, []string{name, figure(p.Load), planned, ceiling, full, lossWords(p.Lost)})
	}
	return rows
}

// lossWords says what the loss of a PoP comes to.
func lossWords(l *gslb.LostPop) string {
	if l == nil {
		return "-"
	}
	words := string(l.Verdict)
	if l.Worst != "" {
		words += fmt.Sprintf(": %s at %.0f %%", l.Worst, 100*l.Utilization)
	}
	var routes []string
	for _, r := range l.Routes {
		if r.From == l.Pop && l.Displaced > 0 {
			to := r.To
			if to == "" {
				to = "nowhere"
			}
			routes = append(routes, fmt.Sprintf("%.0f %% to %s", 100*r.Demand/l.From(), to))
		}
	}
	if len(routes) > 0 {
		words += "; " + strings.Join(routes[:min(3, len(routes))], ", ")
	}
	return words
}

func figure(v float64) string {
	if v >= 10 || v == float64(int64(v)) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// steerOverride puts an override of steering in force, clears one, or lists them.
func (c *invocation) steerOverride() error {
	const want = "only, without, clear or list"
	if len(c.args) == 0 {
		return usagef("override: say what to do: %s", want)
	}
	req := SteerOverrideRequest{Action: c.args[0]}
	address := c.gslbFlag()
	if req.Action == "list" {
		c.args = c.args[1:]
		if err := c.parse(0); err != nil {
			return err
		}
		return c.listSteerOverrides(*address)
	}
	c.flags.StringVar(&req.Names, "name", "", "steered names: one, or a `pattern` such as '*.edge.example'")
	c.flags.StringVar(&req.Pops, "pop", "", "PoPs: one, or a `pattern` such as 'fra*'")
	check := c.overrideTerms(&req.For, &req.Reason)
	if slices.Contains([]string{actionOnly, actionWithout, actionClear}, req.Action) {
		c.args = c.args[1:]
	} else if !strings.HasPrefix(req.Action, "-") { // such as -h
		return usagef("override: %q is not %s", req.Action, want)
	}
	if err := c.parse(0); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(req.Action, "-"):
		return usagef("override: say what to do: %s", want)
	case req.Names == "" || req.Pops == "":
		return usagef("--name and --pop are required")
	}
	if err := check(req.Action == actionClear); err != nil {
		return err
	}
	req.By = operator()
	return ops.Client{Address: *address}.Post(context.Background(), "/v1/steer/override", req, nil)
}

// steerAction is the action that an override was made by.
func steerAction(o fleet.SteerOverride) string {
	if o.Only {
		return actionOnly
	}
	return actionWithout
}

func (c *invocation) listSteerOverrides(address netip.AddrPort) error {
	var answer struct{ Overrides []fleet.SteerOverride }
	if err := (ops.Client{Address: address}).Get(context.Background(), "/v1/steer/override", &answer); err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for _, o := range answer.Overrides {
		fmt.Fprintf(w, "%s\t%s %s\tuntil %s\tby %s\t%s\n", o.Names, steerAction(o), o.Pops, o.Until.UTC().Format(time.DateTime), o.By, o.Reason)
	}
	return w.Flush()
}
