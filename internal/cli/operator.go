package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"text/tabwriter"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
	"anyedge/pop"
)

// gslbAdminPort is the default one of a DNS node's admin API.
const gslbAdminPort = 8601

// adminFlag says which node to talk to.
func (c *invocation) adminFlag() *netip.AddrPort {
	address := netip.MustParseAddrPort("127.0.0.1:8600")
	c.flags.TextVar(&address, "admin", address, "`ip:port` of the node's admin API")
	return &address
}

// adminNamed reports whether --admin was given.
func (c *invocation) adminNamed() (named bool) {
	c.flags.Visit(func(f *flag.Flag) { named = named || f.Name == "admin" })
	return named
}

// thisNode returns the address that --admin names, or without the flag that of the
// node on this host, of either kind.
func (c *invocation) thisNode(given netip.AddrPort) (netip.AddrPort, error) {
	if c.adminNamed() {
		return given, nil
	}
	client, _, err := c.findNode(context.Background(), given)
	return client.Address, err
}

// findNode asks the node that --admin names for its status. Without the flag it is
// the one on this host, of either kind.
func (c *invocation) findNode(ctx context.Context, given netip.AddrPort) (client ops.Client, status json.RawMessage, err error) {
	client.Address = given
	err = client.Get(ctx, "/v1/status", &status)
	if c.adminNamed() || !errors.Is(err, syscall.ECONNREFUSED) {
		return client, status, err
	}
	client.Address = netip.AddrPortFrom(given.Addr(), gslbAdminPort)
	if dns := client.Get(ctx, "/v1/status", &status); !errors.Is(dns, syscall.ECONNREFUSED) {
		return client, status, dns
	}
	return client, nil, fmt.Errorf("no anyedge admin at %v, and none at %v; --admin names another: %w", given, client.Address, syscall.ECONNREFUSED)
}

// gslbFlag says which DNS node to talk to.
func (c *invocation) gslbFlag() *netip.AddrPort {
	address := netip.MustParseAddrPort("127.0.0.1:8601")
	c.flags.TextVar(&address, "admin", address, "`ip:port` of the DNS node's admin API")
	return &address
}

// jsonFlag says whether to print what the API says.
func (c *invocation) jsonFlag() *bool { return c.flags.Bool("json", false, "print the API's JSON") }

// fetch gets what is at a path into out, or, as JSON, to the output.
func (c *invocation) fetch(address netip.AddrPort, path string, asJSON bool, out any) (printed bool, err error) {
	client := ops.Client{Address: address}
	if !asJSON {
		return false, client.Get(context.Background(), path, out)
	}
	var raw json.RawMessage
	if err := client.Get(context.Background(), path, &raw); err != nil {
		return false, err
	}
	_, err = fmt.Fprintf(c.out, "%s\n", raw)
	return true, err
}

// runStatus prints a node's status.
func runStatus(c *invocation) error {
	address := c.adminFlag()
	asJSON := c.jsonFlag()
	if err := c.parse(0); err != nil {
		return err
	}
	ctx := context.Background()
	client, raw, err := c.findNode(ctx, *address)
	if err != nil {
		return err
	}
	if *asJSON {
		_, err := fmt.Fprintf(c.out, "%s\n", raw)
		return err
	}
	var kind struct{ DNS json.RawMessage }
	if err := json.Unmarshal(raw, &kind); err != nil {
		return err
	}
	if kind.DNS != nil {
		return c.dnsStatus(ctx, client, raw)
	}
	var s pop.Status
	var routes pop.Routes
	var pools pop.Pools
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	for path, out := range map[string]any{"/v1/routes": &routes, "/v1/pools": &pools} {
		if err := client.Get(ctx, path, out); err != nil {
			return err
		}
	}
	return printStatus(c.out, statusRows(time.Now(), s, routes, pools))
}

// printStatus writes a node's status for people.
func printStatus(out io.Writer, rows []statusRow) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\n", r.name, r.text)
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
	var prefix netip.Prefix
	c.flags.TextVar(&prefix, "prefix", prefix, "only this service `prefix`, which is de-preferred and never withdrawn")
	if err := c.parse(0); err != nil {
		return err
	}
	req := DrainRequest{Prefix: prefix, Scope: fleet.ScopeNode, Drain: drain, By: operator()}
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
	fill(&req)
	return ops.Client{Address: *address}.Post(context.Background(), "/v1/drain", req, nil)
}
