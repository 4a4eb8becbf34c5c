// Package edge runs a whole edge in network namespaces: PoPs with nodes, origins
// and upstream routers that are real FRR and BIRD, a transit core, Consul, a
// DNS node, and clients in several places, as a [topology.Plan] has them. It
// plays failures, and measures what clients, routers and cables see of them.
//
// It needs root, and on the machine ip, nft, tcpdump, FRR, BIRD, Consul and the
// product; [Missing] says what is not there.
//
// [Up] brings a lab up and [Down] takes it away, both by the prefix of its
// namespaces' names and its run folder alone: a lab survives the process that
// made it, another process may [Attach] to it, and Down also cleans up after a
// crash. Everything that runs was started with its output in a file of the run
// folder.
//
// # Concurrency
//
// The methods of a Lab may be called at the same time; two events on one machine
// at a time are the caller's to avoid.
package edge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"anyedge/test/lab/netns"
	"anyedge/test/lab/topology"
)

// DefaultPrefix begins the names of a lab's namespaces.
const DefaultPrefix = "aelab-"

// Options are what a lab is made of. They are kept in its run folder.
type Options struct {
	// Topology is the network.
	Topology topology.Topology
	// Prefix of the namespaces' names, which also names the run folder: with
	// "aelab-" that is /run/aelab. Default [DefaultPrefix].
	Prefix string
	// Binary is the product, Consul a Consul server. Both are files.
	Binary, Consul string
	// Log takes what happens, with times. Nil throws it away.
	Log *slog.Logger `json:"-"`
}

// Lab is a lab that is up.
type Lab struct {
	Plan *topology.Plan
	// Dir is the run folder: configs and output by machine, and captures.
	Dir string

	options Options
	log     *slog.Logger
	client  *client
}

// file of the run folder that holds the Options.
const optionsFile = "lab.json"

// Missing says in one error what this machine lacks to run a lab, or returns nil.
func Missing(binary, consul string) error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("not root"))
	}
	for _, tool := range []struct{ name, from string }{
		{"ip", "iproute2"}, {"nft", "nftables"}, {"tcpdump", "tcpdump"},
		{"bird", "bird2"}, {"birdc", "bird2"}, {"vtysh", "frr"}, {frrFolder + "/bgpd", "frr"},
		{binary, "make build"}, {consul, "make consul"},
	} {
		if _, err := exec.LookPath(tool.name); err != nil {
			errs = append(errs, fmt.Errorf("no %s (%s)", tool.name, tool.from))
		}
	}
	return errors.Join(errs...)
}

// Up takes away what is left of a lab of that prefix and brings a new one up.
// It returns when every BGP session is Established, every node announces, and
// every client is served over IPv4 and IPv6 by the PoP that it should be.
//
// After an error the lab is left as it is, to be looked at; Down is still due.
func Up(ctx context.Context, o Options) (*Lab, error) {
	o.Prefix = cmp.Or(o.Prefix, DefaultPrefix)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, file := range []*string{&o.Binary, &o.Consul} {
		abs, err := filepath.Abs(*file)
		if err != nil {
			return nil, err
		}
		*file = abs
	}
	if err := Missing(o.Binary, o.Consul); err != nil {
		return nil, fmt.Errorf("a lab cannot run here: %w", err)
	}
	plan, err := topology.New(o.Topology)
	if err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	if err := Down(ctx, o.Prefix); err != nil {
		return nil, fmt.Errorf("take the old lab away: %w", err)
	}
	l := &Lab{Plan: plan, Dir: folder(o.Prefix), options: o, log: o.Log}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"write the configs", l.writeFiles},
		{"check the configs", l.checkConfigs},
		{"build the network", l.buildNetwork},
		{"start routers, Consul and origins", l.startSurroundings},
		{"reach Consul from every node", l.awaitConsul},
		{"start the edge", l.startEdge},
		{"serve every client", l.awaitService},
	} {
		start := time.Now()
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
		l.log.Info("lab step done", "step", step.what, "took", time.Since(start).Round(time.Millisecond))
	}
	return l, nil
}

// Attach finds a lab that is up.
func Attach(prefix string, log *slog.Logger) (*Lab, error) {
	dir := folder(prefix)
	data, err := os.ReadFile(filepath.Join(dir, optionsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no lab is up: there is no %s", dir)
	}
	if err != nil {
		return nil, err
	}
	l := &Lab{Dir: dir, log: log}
	if err := json.Unmarshal(data, &l.options); err != nil {
		return nil, fmt.Errorf("%s: %w", optionsFile, err)
	}
	l.options.Log = log
	if l.Plan, err = topology.New(l.options.Topology); err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(l.path(topology.Shared, topology.CAFile))
	if err != nil {
		return nil, err
	}
	l.client, err = newClient(l, authority)
	return l, err
}

// Down takes away everything of a lab: the processes in its namespaces,
// whoever started them, the namespaces with their links, and the run folder. It
// is no error when there is nothing.
func Down(ctx context.Context, prefix string) error {
	if len(prefix) < 2 || strings.ContainsAny(prefix, "/.") {
		return fmt.Errorf("%q is no prefix of a lab", prefix)
	}
	return errors.Join(netns.Remove(ctx, prefix), os.RemoveAll(folder(prefix)))
}

// Claim makes the caller the only one that brings labs of a prefix up and down,
// until it calls release or ends, however that happens.
func Claim(prefix string) (release func(), err error) {
	// An abstract socket leaves nothing behind.
	l, err := net.Listen("unix", "@"+prefix+"claim")
	if err != nil {
		return nil, fmt.Errorf("another process uses the lab %q: %w", prefix, err)
	}
	return func() { l.Close() }, nil
}

func folder(prefix string) string { return filepath.Join("/run", strings.TrimRight(prefix, "-")) }

func (l *Lab) path(elem ...string) string { return filepath.Join(append([]string{l.Dir}, elem...)...) }

// Space is the namespace of a machine.
func (l *Lab) Space(machine string) netns.Space { return netns.Space(l.options.Prefix + machine) }

func (l *Lab) spaces() []netns.Space {
	all := make([]netns.Space, len(l.Plan.Machines))
	for i, m := range l.Plan.Machines {
		all[i] = l.Space(m.Name)
	}
	return all
}
