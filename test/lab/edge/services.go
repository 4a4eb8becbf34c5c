package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"anyedge/internal/fleet"
	"anyedge/test/lab/netns"
	"anyedge/test/lab/topology"
)

const (
	frrFolder = "/usr/lib/frr"
	frrUser   = "frr"
)

// command is a program that runs on a machine.
type command struct {
	name string // of its output: <name>.log
	argv []string
}

// commands are what runs on a machine, in the order of their start.
func (l *Lab) commands(m *topology.Machine) []command {
	anyedge := func(name string, args ...string) []command {
		return []command{{name, append([]string{l.options.Binary, name}, args...)}}
	}
	file := func(name string) string { return l.path(m.Name, name) }
	switch m.Role {
	case topology.CoreRouter, topology.PopRouter:
		if m.Daemon == topology.BIRD {
			return []command{{"bird", l.punctual("bird", "-f", "-c", file("bird.conf"), "-s", file(birdSocket), "-P", file("bird.pid"))}}
		}
		daemons := []string{"zebra", "bgpd"}
		if m.Role == topology.PopRouter {
			daemons = append(daemons, "bfdd")
		}
		var all []command
		for _, daemon := range daemons {
			argv := []string{
				filepath.Join(frrFolder, daemon), "-f", file(daemon + ".conf"), "-i", file(daemon + ".pid"), "-z", file("zserv.sock"),
				"--vty_socket", l.path(m.Name), "-P", "0", "-u", frrUser, "-g", frrUser, "--log", "stdout", "--log-level", "informational",
			}
			if daemon == "bfdd" {
				argv = l.punctual(append(argv, "--bfdctl", file("bfdd.sock"))...)
			}
			all = append(all, command{daemon, argv})
		}
		return all
	case topology.Node:
		return anyedge("pop", "--config", file("pop.yaml"))
	case topology.DNSHost:
		return anyedge("gslb", "--config", file("gslb.yaml"))
	case topology.Origin:
		return anyedge("origin", "--address", m.OriginAddress().String(), "--name", m.Name, "--region", l.Plan.Region(m.Pop))
	case topology.ConsulHost:
		return []command{{"consul", []string{l.options.Consul, "agent", "-dev", "-node=lab", "-log-level=warn", "-config-file=" + file("consul.json")}}}
	}
	return nil
}

// punctual gives a router's BFD real-time priority, as the edge's own has: what a
// lab shows is not how one machine for everybody schedules the routers.
func (l *Lab) punctual(argv ...string) []string {
	if !l.Plan.BFD.On() {
		return argv
	}
	return append([]string{"chrt", "--fifo", "10"}, argv...)
}

// start starts everything that runs on a machine.
func (l *Lab) start(m *topology.Machine) error {
	for _, c := range l.commands(m) {
		ended, err := l.Space(m.Name).Start(l.path(m.Name), l.path(m.Name, c.name+".log"), c.argv...)
		if err != nil {
			return err
		}
		if c.name != "zebra" {
			continue
		}
		// The other daemons of FRR look for zebra once, then every few seconds.
		if err := l.awaitFile(l.path(m.Name, "zserv.sock"), ended); err != nil {
			return fmt.Errorf("zebra: %w: %s", err, l.tail(m.Name, "zebra"))
		}
	}
	return nil
}

// awaitFile waits for a file that a process is about to make.
func (l *Lab) awaitFile(path string, ended <-chan struct{}) error {
	deadline := time.After(10 * time.Second)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ended:
			return errors.New("ended at once")
		case <-deadline:
			return fmt.Errorf("%s is not there", path)
		}
	}
}

// startSurroundings starts everything but the edge itself.
func (l *Lab) startSurroundings(context.Context) error {
	var all []*topology.Machine
	for _, role := range []topology.Role{topology.ConsulHost, topology.CoreRouter, topology.PopRouter, topology.Origin} {
		all = append(all, l.Plan.Of(role, "")...)
	}
	return l.each(all, l.start)
}

// awaitConsul waits until every node and the DNS reach Consul, which says that
// the routers have found each other, and Consul has a leader.
func (l *Lab) awaitConsul(ctx context.Context) error {
	hosts := slices.Concat(l.Plan.Of(topology.Node, ""), l.Plan.Of(topology.DNSHost, ""))
	return l.each(hosts, func(m *topology.Machine) error {
		return l.Eventually(ctx, "Consul answers", 20*time.Second, func(ctx context.Context) error {
			var leader string
			err := l.get(ctx, m.Name, "http://"+l.Plan.ConsulAddress().String()+"/v1/status/leader", &leader)
			if err == nil && leader == "" {
				err = errors.New("it has no leader")
			}
			return err
		})
	})
}

// startEdge starts the nodes and the DNS.
func (l *Lab) startEdge(context.Context) error {
	return l.each(slices.Concat(l.Plan.Of(topology.Node, ""), l.Plan.Of(topology.DNSHost, "")), l.start)
}

// awaitService waits for what Up promises.
func (l *Lab) awaitService(ctx context.Context) error {
	const limit = 30 * time.Second
	if err := l.each(l.Plan.Of(topology.Node, ""), func(m *topology.Machine) error {
		return l.Eventually(ctx, "announces", limit, func(ctx context.Context) error { return l.announces(ctx, m.Name) })
	}); err != nil {
		return err
	}
	routers := slices.Concat(l.Plan.Of(topology.CoreRouter, ""), l.Plan.Of(topology.PopRouter, ""))
	if err := l.each(routers, func(m *topology.Machine) error {
		return l.Eventually(ctx, "has its sessions", limit, func(ctx context.Context) error {
			if m.Role == topology.PopRouter {
				if err := l.pathsUp(ctx, m.Name); err != nil {
					return err
				}
			}
			return l.established(ctx, m.Name)
		})
	}); err != nil {
		return err
	}
	return l.each(l.Plan.Of(topology.ClientHost, ""), func(m *topology.Machine) error {
		for _, v6 := range []bool{false, true} {
			if _, err := l.AwaitServed(ctx, m.Name, v6, limit, l.Plan.Serves(m.Name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// AwaitCalm waits until a node announces, to every neighbor of it, a client is
// served by its PoP, and the fleet has no withdrawal of its on record: until
// the next event meets what the last one met.
func (l *Lab) AwaitCalm(ctx context.Context, node, client string, v6 bool, limit time.Duration) error {
	router := l.Plan.Router(l.Plan.Machine(node).Pop)
	err := l.Eventually(ctx, node+" announces again", limit, func(ctx context.Context) error {
		return errors.Join(l.announces(ctx, node), l.established(ctx, router.Name), l.pathsUp(ctx, router.Name), l.unleased(ctx))
	})
	if err != nil {
		return err
	}
	_, err = l.AwaitServed(ctx, client, v6, limit, router.Pop)
	return err
}

// unleased is nil while no node holds a lease to withdraw or waits for one, and
// the fleet is not frozen.
func (l *Lab) unleased(ctx context.Context) error {
	const folder, key = "anyedge/state/", "anyedge/state/leases"
	var entries []struct {
		Key   string
		Value []byte
	}
	consul := l.Plan.Of(topology.ConsulHost, "")[0].Name
	if err := l.get(ctx, consul, fmt.Sprintf("http://%s/v1/kv/%s?recurse", l.Plan.ConsulAddress(), folder), &entries); err != nil {
		return err
	}
	for _, e := range entries {
		if e.Key != key {
			continue
		}
		var leases fleet.Leases
		if err := json.Unmarshal(e.Value, &leases); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if len(leases.Holders)+len(leases.Waiting) > 0 || leases.Freeze != nil {
			return fmt.Errorf("leases are out: %s", e.Value)
		}
	}
	return nil
}

// Eventually asks f again until it returns nil, or gives up with its last error.
func (l *Lab) Eventually(ctx context.Context, what string, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // else it says only that time ran out
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %s: %w", limit, what, last)
		}
	}
}

// tail is the end of a program's output.
func (l *Lab) tail(machine, name string) string {
	data, err := os.ReadFile(l.path(machine, name+".log"))
	if err != nil {
		return err.Error()
	}
	const most = 2000
	if len(data) > most {
		data = data[len(data)-most:]
	}
	return strings.TrimSpace(string(data))
}

// find returns the processes of the product on a machine that run a subcommand.
func (l *Lab) find(machine, subcommand string) ([]netns.Process, error) {
	return l.Space(machine).Find(func(p netns.Process) bool { return len(p.Args) > 1 && p.Args[1] == subcommand })
}
