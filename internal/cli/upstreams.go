package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"text/tabwriter"
	"time"

	"anyedge/configs"
	"anyedge/internal/ops"
	"anyedge/pop"
)

// defaultBlackhole is for how long an address is given up unless somebody says.
const defaultBlackhole = configs.Duration(time.Hour)

// BlackholeRequest is the body of POST /v1/blackholes.
type BlackholeRequest struct {
	Address   netip.Addr `json:"address"`
	Blackhole bool       `json:"blackhole"` // false ends one
	// Neighbors that are to discard the traffic. None: all of them.
	Neighbors []netip.Addr     `json:"neighbors,omitempty"`
	For       configs.Duration `json:"for,omitempty"` // 0: an hour
	By        string           `json:"by,omitempty"`
	Reason    string           `json:"reason,omitempty"`
}

// NeighborRequest is the body of POST /v1/neighbors.
type NeighborRequest struct {
	Address  netip.Addr `json:"address"`
	Shutdown bool       `json:"shutdown"` // false opens the session again
	// Text is for the neighbor to read (RFC 9003).
	Text string `json:"text,omitempty"`
	// Force closes the last session, too.
	Force bool   `json:"force,omitempty"`
	By    string `json:"by,omitempty"`
}

// upstreamEndpoints are what operators ask of the sessions with upstreams.
func upstreamEndpoints(a *pop.Agent) []ops.Endpoint {
	return []ops.Endpoint{
		{Method: http.MethodGet, Path: "/v1/blackholes", Doc: "addresses whose traffic upstreams are asked to discard",
			Handle: func(context.Context, ops.Request) (any, error) {
				return blackholeList{append([]pop.Blackhole{}, a.Blackholes()...)}, nil
			}},
		{Method: http.MethodPost, Path: "/v1/blackholes", Doc: "have upstreams discard the traffic to one attacked address for a while, or end that",
			Handle: func(ctx context.Context, r ops.Request) (any, error) { return nil, blackhole(ctx, a, r) }},
		{Method: http.MethodPost, Path: "/v1/neighbors", Doc: "close the session with a neighbor, or open it again",
			Handle: func(_ context.Context, r ops.Request) (any, error) { return nil, neighbor(a, r) }},
	}
}

// blackholeList is the answer of GET /v1/blackholes.
type blackholeList struct {
	Blackholes []pop.Blackhole `json:"blackholes"`
}

// blackhole carries out a POST /v1/blackholes.
func blackhole(ctx context.Context, a *pop.Agent, r ops.Request) error {
	var req BlackholeRequest
	if err := r.Decode(&req); err != nil {
		return err
	}
	if !req.Address.IsValid() {
		return ops.BadRequest("address: required")
	}
	who := actor(r, req.By)
	if !req.Blackhole {
		found, err := a.RemoveBlackhole(ctx, who, req.Address)
		if err == nil && !found {
			return ops.NotFound("%s is not in a blackhole", req.Address)
		}
		return refusal(err)
	}
	return refusal(a.AddBlackhole(ctx, who, pop.Blackhole{
		Address: req.Address, Neighbors: req.Neighbors, Reason: req.Reason,
	}, cmp.Or(req.For, defaultBlackhole).Std()))
}

// neighbor carries out a POST /v1/neighbors.
func neighbor(a *pop.Agent, r ops.Request) error {
	var req NeighborRequest
	if err := r.Decode(&req); err != nil {
		return err
	}
	who := actor(r, req.By)
	switch {
	case !req.Address.IsValid():
		return ops.BadRequest("address: required")
	case req.Shutdown:
		return refusal(a.ShutdownNeighbor(who, req.Address, req.Text, req.Force))
	case req.Text != "" || req.Force:
		return ops.BadRequest("text and force go with shutdown")
	}
	return refusal(a.EnableNeighbor(who, req.Address))
}

// refusal is the answer to what the agent would not do.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pop.ErrNoBGP), errors.Is(err, pop.ErrLastSession):
		return ops.Conflict("%w", err)
	}
	return ops.BadRequest("%w", err)
}

// runBlackhole is "anyedge blackhole add|remove|list".
func runBlackhole(c *invocation) error {
	admin := c.adminFlag()
	reason := c.flags.String("reason", "", "with add: why, for whoever looks")
	limit := defaultBlackhole
	c.flags.TextVar(&limit, "for", limit, "with add: end it by itself after this long, at most 24h")
	var neighbors []netip.Addr
	c.flags.Func("neighbor", "with add: ask only the neighbor with this `address`; can be given again", func(s string) error {
		n, err := netip.ParseAddr(s)
		neighbors = append(neighbors, n)
		return err
	})
	words, err := c.parseWords()
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return usagef("say what to do: add, remove or list")
	}
	client := ops.Client{Address: *admin}
	if len(words) == 1 && words[0] == "list" {
		return c.listBlackholes(client)
	}
	address, err := addressOf(words, "add", "remove")
	if err != nil {
		return err
	}
	req := BlackholeRequest{Address: address, By: operator()}
	if words[0] == "add" {
		req.Blackhole, req.Neighbors, req.For, req.Reason = true, neighbors, limit, *reason
	}
	return client.Post(context.Background(), "/v1/blackholes", req, nil)
}

func (c *invocation) listBlackholes(client ops.Client) error {
	var list blackholeList
	if err := client.Get(context.Background(), "/v1/blackholes", &list); err != nil {
		return err
	}
	if len(list.Blackholes) == 0 {
		_, err := fmt.Fprintln(c.out, "No address is in a blackhole.")
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tNEIGHBORS\tENDS IN\tBY\tREASON")
	for _, b := range list.Blackholes {
		who := "all"
		if len(b.Neighbors) > 0 {
			who = fmt.Sprint(b.Neighbors)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", b.Address, who, time.Until(b.Until).Round(time.Second), b.By, b.Reason)
	}
	return w.Flush()
}

// runNeighbor is "anyedge neighbor shutdown|enable".
func runNeighbor(c *invocation) error {
	admin := c.adminFlag()
	text := c.flags.String("text", "", "with shutdown: what the neighbor is told (RFC 9003), at most 255 bytes")
	force := c.flags.Bool("force", false, "with shutdown: also when no other session is established")
	words, err := c.parseWords()
	if err != nil {
		return err
	}
	address, err := addressOf(words, "shutdown", "enable")
	if err != nil {
		return err
	}
	req := NeighborRequest{Address: address, Shutdown: words[0] == "shutdown", Text: *text, Force: *force, By: operator()}
	if !req.Shutdown && (req.Text != "" || req.Force) {
		return usagef("--text and --force go with shutdown")
	}
	return ops.Client{Address: *admin}.Post(context.Background(), "/v1/neighbors", req, nil)
}

// addressOf takes the words "VERB ADDRESS" apart.
func addressOf(words []string, verbs ...string) (netip.Addr, error) {
	if len(words) != 2 || words[0] != verbs[0] && words[0] != verbs[1] {
		return netip.Addr{}, usagef("want %s or %s, and an address", verbs[0], verbs[1])
	}
	address, err := netip.ParseAddr(words[1])
	if err != nil {
		return netip.Addr{}, usagef("%q is not an IP address", words[1])
	}
	return address, nil
}
