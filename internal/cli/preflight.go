package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
	"anyedge/pop"
	"anyedge/pop/preflight"
)

// fleetWait bounds the wait for the fleet store.
const fleetWait = 10 * time.Second

// popConfig is one file of a set.
type popConfig struct {
	cfg    *configs.Pop
	source *configs.Source
}

// loadSet reads the configs of a set of nodes.
func loadSet(files []string) ([]popConfig, error) {
	var set []popConfig
	names := make(map[string]string)
	for _, file := range files {
		cfg, source, err := configs.ReadPop(file)
		if err != nil {
			return nil, err
		}
		if other, twice := names[cfg.Node.Name]; twice {
			return nil, source.Problem("node.name", "%s is the node of %s already", cfg.Node.Name, other)
		}
		names[cfg.Node.Name] = file
		set = append(set, popConfig{cfg, source})
	}
	return set, nil
}

// checkAgainstFleet judges a set of valid configs against the fleet.
func (c *invocation) checkAgainstFleet(files []string, admin netip.AddrPort, retire []netip.Prefix, asJSON bool) error {
	set, err := loadSet(files)
	if err != nil {
		return err
	}
	nodes, err := readFleet(context.Background(), set[0].cfg, admin)
	if err != nil {
		return err
	}
	var written []*configs.Pop
	for _, s := range set {
		cfg, err := configs.ParsePop(s.source.File(), s.source.Data())
		if err != nil {
			return err
		}
		written = append(written, cfg)
	}
	result := pop.Preflight(nodes, written, retire)
	if asJSON {
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		err = e.Encode(result)
	} else {
		err = printPreflight(c.out, result, len(set), len(nodes))
	}
	if err != nil || result.OK {
		return err
	}
	refused := 0
	for _, p := range result.Prefixes {
		if p.Refused != "" {
			refused++
		}
		for _, s := range set {
			for _, name := range p.Culprits {
				if name == s.cfg.Node.Name {
					fmt.Fprintln(c.errOut, s.source.Problem("bgp.prefixes", "%v: %s", p.Prefix, p.Refused).Error())
				}
			}
		}
	}
	return fmt.Errorf("this set must not go out, prefixes left with too few PoPs: %d", refused)
}

// printPreflight writes a judgement for people.
func printPreflight(out io.Writer, r preflight.Result, files, nodes int) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	same := 0
	for _, p := range r.Prefixes {
		if len(p.Changes) == 0 && p.Refused == "" {
			same++
			continue
		}
		fmt.Fprintf(w, "%v\thealthy at %s, then %s\n", p.Prefix, pops(p.Before), pops(p.After))
		for _, c := range p.Changes {
			fmt.Fprintf(w, "  %s\t%s (PoP %s)\t%s -> %s\n", c.Kind, c.Node, c.Pop, attributes(c.From), attributes(c.To))
		}
		if p.Refused != "" {
			fmt.Fprintf(w, "  refused\t%s\n", p.Refused)
		}
	}
	for _, c := range r.Neighbors {
		fmt.Fprintf(w, "neighbor %v\t%s\t%s (PoP %s)\t%s\n", c.Neighbor, c.Kind, c.Node, c.Pop, neighborChange(c))
	}
	for _, n := range r.Restarts {
		fmt.Fprintf(w, "restart\t%s (PoP %s)\tto take the change of %s\n", n.Node, n.Pop, strings.Join(n.Keys, ", "))
	}
	fmt.Fprintf(w, "configs: %d, nodes in the fleet: %d, prefixes unchanged: %d, min_pops: %d\n", files, nodes, same, r.MinPops)
	return w.Flush()
}

func pops(names []string) string {
	if len(names) == 0 {
		return "no PoP"
	}
	return fmt.Sprintf("%d (%s)", len(names), strings.Join(names, ", "))
}

func attributes(r *preflight.Route) string {
	if r == nil {
		return "not announced"
	}
	return r.String()
}

// neighborChange says what a neighbor gets before and after.
func neighborChange(c preflight.NeighborChange) string {
	switch c.Kind {
	case preflight.Added:
		return c.To.String()
	case preflight.Removed:
		return c.From.String()
	}
	return c.From.String() + " -> " + c.To.String()
}

// readFleet returns what the fleet's nodes report: through a node's admin API if
// one is given or the config has a store in memory, else from the store itself.
func readFleet(ctx context.Context, cfg *configs.Pop, admin netip.AddrPort) ([]pop.Reported, error) {
	if !admin.IsValid() && cfg.Fleet.Consul == nil {
		admin = cfg.Admin.Address
	}
	if !admin.IsValid() {
		return watchFleet(ctx, cfg.Fleet)
	}
	var f pop.Fleet
	if err := (ops.Client{Address: admin}).Get(ctx, "/v1/fleet", &f); err != nil {
		return nil, err
	}
	if !f.Connected {
		return nil, fmt.Errorf("the node at %s is out of touch with the fleet store: what it knows may be old", admin)
	}
	return f.Nodes, nil
}

// watchFleet reads the store until every report in it has been seen to change,
// or has had the time to: the report of a node that died stays for a while, and
// looks like any other.
func watchFleet(ctx context.Context, cfg configs.Fleet) ([]pop.Reported, error) {
	store, sealer, _, err := openFleet(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	limit := time.After(fleetWait) // nil once the store has answered
	var ripe <-chan time.Time      // nil before
	for {
		view := f.View()
		if view.Connected && ripe == nil {
			limit, ripe = nil, time.After(cfg.ReportTTL.Std())
		}
		nodes, old := alive(view)
		if view.Connected && old == 0 {
			return nodes, nil
		}
		select {
		case <-view.Changed():
		case <-ripe:
			if !view.Connected {
				return nil, errors.New("the fleet store was lost while its reports were read")
			}
			return nodes, nil
		case <-limit:
			return nil, fmt.Errorf("the fleet store did not answer within %s", fleetWait)
		}
	}
}

// alive returns the reports of a View, fresh if they have changed since the
// store was reached, and how many have not.
func alive(view *fleet.View) (nodes []pop.Reported, old int) {
	for _, s := range view.Reports {
		fresh := s.At.After(view.ConnectedSince)
		if !fresh {
			old++
		}
		nodes = append(nodes, pop.Reported{Report: s.Report, Fresh: fresh})
	}
	return nodes, old
}
