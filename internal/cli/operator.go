package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
	"anyedge/pop"
)

// adminFlag says which node to talk to.
func (c *invocation) adminFlag() *netip.AddrPort {
	address := netip.MustParseAddrPort("127.0.0.1:8600")
	c.flags.TextVar(&address, "admin", address, "`ip:port` of the node's admin API")
	return &address
}

// runStatus prints a node's status.
func runStatus(c *invocation) error {
	address := c.adminFlag()
	asJSON := c.flags.Bool("json", false, "print the API's JSON")
	if err := c.parse(0); err != nil {
		return err
	}
	ctx, client := context.Background(), ops.Client{Address: *address}
	if *asJSON {
		var raw json.RawMessage
		if err := client.Get(ctx, "/v1/status", &raw); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "%s\n", raw)
		return err
	}
	var s pop.Status
	var routes pop.Routes
	var pools pop.Pools
	for path, out := range map[string]any{"/v1/status": &s, "/v1/routes": &routes, "/v1/pools": &pools} {
		if err := client.Get(ctx, path, out); err != nil {
			return err
		}
	}
	return printStatus(c.out, time.Now(), s, routes, pools)
}

// printStatus writes a node's status for people.
func printStatus(out io.Writer, now time.Time, s pop.Status, routes pop.Routes, pools pop.Pools) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return now.Sub(t).Round(time.Second).String() + " ago"
	}
	row("node", "%s (PoP %s, region %s)", s.Node, s.Pop, s.Region)
	row("health", "%s: %s", s.Health.State, s.Health.Reason)
	row("announcement", "%s since %s: %s", s.Announcement.State, ago(s.Announcement.Since), s.Announcement.Reason)
	if s.Guard.Refused != "" {
		row("guard", "withdrawal refused: %s", s.Guard.Refused)
	}
	if s.Drain.Stage != pop.DrainNone {
		row("drain", "%s since %s", s.Drain.Stage, ago(s.Drain.Since))
	}
	row("worker", "pid %d, ready %v, %d connections, %d requests, generation %d", s.Worker.PID, s.Worker.Ready, s.Worker.Connections, s.Worker.Requests, s.Worker.Generation)
	for _, u := range s.Worker.Usage {
		row("", "%s %.0f of %.0f (%.0f%%)", u.Resource, u.Used, u.Ceiling, 100*u.Utilization())
	}
	row("config", "generation %d, last good %s", s.Config.Generation, ago(s.Config.LastGood))
	if s.Config.LastError != "" {
		row("", "REFUSED %s: %s", ago(s.Config.FailedAt), strings.ReplaceAll(s.Config.LastError, "\n", "; "))
	}
	row("fleet", "connected %v since %s, %d nodes", s.Fleet.Connected, ago(s.Fleet.Since), s.Fleet.Nodes)
	if routes.BGP != nil {
		for _, n := range routes.BGP.Neighbors {
			row("neighbor", "%s AS%d %s, %d routes sent, %d updates refused", n.Address, n.ASN, n.State, len(n.AdjRIBOut), n.RefusedUpdates)
		}
	}
	for _, p := range pools.Pools {
		row("pool", "%s: %d of %d backends usable", p.Name, p.Usable, len(p.Backends))
	}
	return w.Flush()
}

// runDrain asks for a node, PoP or region to be taken out of service.
func runDrain(c *invocation) error {
	reason := c.flags.String("reason", "", "why, for whoever looks")
	var limit configs.Duration
	c.flags.TextVar(&limit, "for", limit, "end the drain by itself after this long; 0s: never")
	return c.postDrain(true, func(r *DrainRequest) { r.Reason, r.For = *reason, limit })
}

// runUndrain ends a drain.
func runUndrain(c *invocation) error { return c.postDrain(false, func(*DrainRequest) {}) }

func (c *invocation) postDrain(drain bool, fill func(*DrainRequest)) error {
	address := c.adminFlag()
	names := map[string]*string{
		fleet.ScopeNode:   c.flags.String("node", "", "the `name` of a node; without any, the node that is asked"),
		fleet.ScopePop:    c.flags.String("pop", "", "the `name` of a PoP"),
		fleet.ScopeRegion: c.flags.String("region", "", "the `name` of a region"),
	}
	if err := c.parse(0); err != nil {
		return err
	}
	req := DrainRequest{Scope: fleet.ScopeNode, Drain: drain}
	given := 0
	for scope, name := range names {
		if *name != "" {
			req.Scope, req.Name = scope, *name
			given++
		}
	}
	if given > 1 {
		return usagef("give one of --node, --pop and --region")
	}
	if u, err := user.Current(); err == nil {
		req.By = u.Username
	}
	fill(&req)
	return ops.Client{Address: *address}.Post(context.Background(), "/v1/drain", req, nil)
}
