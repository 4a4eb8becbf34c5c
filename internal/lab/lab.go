// Package lab runs a whole edge on one machine: the PoPs, each an agent and a
// worker on loopback addresses of its own, their origins, a DNS node, an
// upstream router, and a relay that takes clients to the PoP which the router's
// best path names, as the Internet would.
//
// The agents, the DNS node and the origins are processes of the same binary,
// started as an operator would start them. The router, the relay and the fleet
// store run inside the lab's own process. Nothing needs root, and nothing
// leaves loopback.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"anyedge/bgp"
	"anyedge/configs"
	"anyedge/internal/daemon"
	"anyedge/internal/fleet"
)

// Options are what the command line says.
type Options struct {
	Config *configs.Lab
	Dir    string    // folder for configs, keys and logs; made if missing
	Binary string    // the anyedge binary that the parts run
	Consul string    // a Consul binary to keep the fleet's state; empty: memory
	Check  bool      // play the story and end
	Out    io.Writer // what the user reads
	Log    *slog.Logger
}

// Lab is a whole edge.
type Lab struct {
	Options
	cfg      *configs.Lab
	dir      string
	layout   layout
	secrets  secrets
	fleetURL string

	store  store
	fleet  *fleet.Fleet
	router *bgp.Router
	relays []*relay
	load   *load

	agents  map[string]*process // by PoP
	dns     *process
	origins []*process
}

// New prepares a lab; nothing is started or written.
func New(o Options) *Lab {
	l := &Lab{Options: o, cfg: o.Config, dir: o.Dir, layout: newLayout(o.Config.Network), agents: make(map[string]*process)}
	l.fleetURL = "http://" + l.layout.fleet().String()
	return l
}

// host is the name that clients ask for.
func (l *Lab) host() string { return "www." + l.cfg.Zone }

// Run starts every part, then plays the story or waits for ctx to end, and
// stops every part again: the agents while the router and the store still run,
// as in a real fleet. With the story it returns an error if a step failed.
func (l *Lab) Run(ctx context.Context) error {
	if l.Check && len(l.cfg.Pops) < 2 {
		return errors.New("the story needs at least two PoPs: one of them goes")
	}
	if err := l.claim(); err != nil {
		return err
	}
	if err := l.writeFiles(time.Now()); err != nil {
		return err
	}
	if err := l.prepare(); err != nil {
		return err
	}
	base, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	group := daemon.NewGroup(l.Log)
	group.Add(
		daemon.NewTask("upstream router", l.router.Run),
		l.store,
		daemon.NewTask("fleet view", l.fleet.Run),
		daemon.NewTask("status page", l.servePage),
	)
	for _, r := range l.relays {
		group.Add(r)
	}
	ended := make(chan error, 1)
	go func() {
		err := group.Run(base)
		cancel(err) // without its surroundings the edge shows nothing
		ended <- err
	}()
	err := l.operate(ctx)
	l.stopProcesses()
	stop(nil)
	return errors.Join(err, <-ended)
}

// claim makes sure that no other lab uses the network.
func (l *Lab) claim() error {
	c, err := net.Listen("tcp", l.layout.status().String())
	if err != nil {
		return fmt.Errorf("network %s is in use or not to be had: %w; choose another with --network, such as 127.78.0.0/16", l.cfg.Network, err)
	}
	return c.Close()
}

// FreeNetwork returns a /16 of loopback that no lab on this machine uses.
func FreeNetwork() (netip.Prefix, error) {
	for second := byte(100); second < 200; second++ {
		network := netip.PrefixFrom(netip.AddrFrom4([4]byte{127, second, 0, 0}), 16)
		c, err := net.Listen("tcp", newLayout(network).status().String())
		if err == nil {
			c.Close()
			return network, nil
		}
	}
	return netip.Prefix{}, errors.New("no free network from 127.100.0.0/16 to 127.199.0.0/16")
}

// prepare builds the parts that run inside this process, and describes those
// that run as their own.
func (l *Lab) prepare() error {
	peers := make([]bgp.RouterPeer, len(l.cfg.Pops))
	for i := range l.cfg.Pops {
		peers[i] = bgp.RouterPeer{Address: l.layout.pop(i), ASN: 64512, Password: l.secrets.bgpPassword}
	}
	var err error
	l.router, err = bgp.NewRouter(bgp.RouterConfig{
		ASN: 64500, RouterID: netip.AddrFrom4([4]byte{10, 0, 0, 1}),
		Listen: l.layout.router(), Peers: peers, HoldTime: 3 * time.Second,
	}, l.Log.With("part", "router"))
	if err != nil {
		return err
	}
	var client fleet.Store
	if l.store, client, err = l.newStore(); err != nil {
		return err
	}
	sealer, err := fleet.LoadSealer(l.path("fleet.key"))
	if err != nil {
		return err
	}
	l.fleet, err = fleet.New(fleet.Config{Store: client, Sealer: sealer, Log: l.Log.With("part", "fleet")})
	if err != nil {
		return err
	}
	for _, port := range []uint16{portTLS, portClear} {
		l.relays = append(l.relays, &relay{listen: l.layout.anycast(port), port: port, best: l.best, log: l.Log})
	}
	for i, p := range l.cfg.Pops {
		l.agents[p.Name] = l.process(p.Name, "pop", "--config", l.path(p.Name+".yaml"))
		for n := range p.Origins + 1 { // one more than the inventory has
			l.origins = append(l.origins, l.process(originName(p, n), "origin",
				"--address", l.layout.origin(i, n).String(), "--name", originName(p, n), "--region", p.Region))
		}
	}
	l.dns = l.process("gslb", "gslb", "--config", l.path("gslb.yaml"))
	l.load = newLoad(l.cfg.Rate, l.host(), l.layout, l.secrets.roots)
	return nil
}

func (l *Lab) process(name string, args ...string) *process {
	return &process{name: name, path: l.Binary, args: args, dir: l.dir}
}

// best is the next hop of the router's best path for the first IPv4 prefix.
func (l *Lab) best() (netip.Addr, bool) {
	for _, p := range l.cfg.Prefixes {
		if p.Addr().Is4() {
			path, ok := l.router.Best(p)
			return path.NextHop, ok
		}
	}
	return netip.Addr{}, false
}

// bestPop names the PoP that the router's best path leads to, or "".
func (l *Lab) bestPop() string {
	hop, ok := l.best()
	for i, p := range l.cfg.Pops {
		if ok && l.layout.pop(i) == hop {
			return p.Name
		}
	}
	return ""
}

// operate starts the processes, waits until the edge serves, then plays the
// story or tells the user what to try.
func (l *Lab) operate(ctx context.Context) error {
	start := time.Now()
	if err := l.startEdge(ctx); err != nil {
		return err
	}
	if l.Check {
		return l.play(ctx, l.steps())
	}
	fmt.Fprintf(l.Out, "The edge serves, %.1f s after the start.\n\n", time.Since(start).Seconds())
	l.greet()
	return l.watchProcesses(ctx)
}

// startEdge brings everything up and returns when every PoP is announced and
// the best one answers a request.
func (l *Lab) startEdge(ctx context.Context) error {
	for _, p := range l.origins {
		if err := p.start(); err != nil {
			return err
		}
	}
	if err := l.eventually(ctx, "the fleet store answers", 20*time.Second, func(ctx context.Context) error {
		return l.setInventories(ctx)
	}); err != nil {
		return err
	}
	for _, p := range l.agents {
		if err := p.start(); err != nil {
			return err
		}
	}
	if err := l.dns.start(); err != nil {
		return err
	}
	return l.eventually(ctx, "every PoP is announced and serves", 30*time.Second, l.allServe)
}

// setInventories gives every region its origins but the spare one.
func (l *Lab) setInventories(ctx context.Context) error {
	for i, p := range l.cfg.Pops {
		if err := l.setInventory(ctx, i, p.Origins); err != nil {
			return err
		}
	}
	return nil
}

// setInventory puts the first n origins of a region into its pool.
func (l *Lab) setInventory(ctx context.Context, pop, n int) error {
	var set []fleet.Backend
	for o := range n {
		set = append(set, fleet.Backend{Address: l.layout.origin(pop, o), Weight: 1, Zone: l.cfg.Pops[pop].Region})
	}
	return l.fleet.SetInventory(ctx, poolName(l.cfg.Pops[pop]), set)
}

// allServe is nil when the router has a path to every PoP, the preferred one is
// the first, and a client is served.
func (l *Lab) allServe(ctx context.Context) error {
	if err := l.announced(l.cfg.Pops...); err != nil {
		return err
	}
	if best, want := l.bestPop(), l.cfg.Pops[0].Name; best != want {
		return fmt.Errorf("best path leads to %s, want %s", best, want)
	}
	_, err := get(ctx, l.load.clients[2], l.load.urls[0])
	if err != nil {
		return err
	}
	return l.dnsAnswersAll(ctx)
}

// announced is nil when the router has a path to each of the PoPs that is not
// de-preferred.
func (l *Lab) announced(pops ...configs.LabPop) error {
	for _, p := range pops {
		if got := l.routeOf(p.Name); got != "announced" {
			return fmt.Errorf("%s is %s at the router", p.Name, got)
		}
	}
	return nil
}

// routeOf says how the router sees a PoP: announced, depreferred or withdrawn.
func (l *Lab) routeOf(pop string) string {
	for i, p := range l.cfg.Pops {
		if p.Name != pop {
			continue
		}
		for _, path := range l.router.Paths(l.cfg.Prefixes[0]) {
			if path.Neighbor != l.layout.pop(i) {
				continue
			}
			if len(path.ASPath) > 1 {
				return "depreferred"
			}
			return "announced"
		}
	}
	return "withdrawn"
}

// eventually waits until f returns nil. It asks often: what it waits for is
// measured in tens of milliseconds.
func (l *Lab) eventually(ctx context.Context, what string, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
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
			return fmt.Errorf("%s: not within %s: %w", what, limit, last)
		}
	}
}

// watchProcesses returns when ctx ends, and says when a part ends by itself.
// The lab goes on without it: killing parts is what it is for.
func (l *Lab) watchProcesses(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, p := range l.processes() {
		wg.Go(func() {
			select {
			case <-p.ended():
				if ctx.Err() == nil {
					fmt.Fprintf(l.Out, "%s ended; its log is %s\n", p.name, l.path(p.name+".log"))
				}
			case <-ctx.Done():
			}
		})
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

func (l *Lab) processes() []*process {
	all := []*process{l.dns}
	for _, p := range l.agents {
		all = append(all, p)
	}
	return append(all, l.origins...)
}

// stopProcesses ends the agents first, so that routes go before origins do.
func (l *Lab) stopProcesses() {
	var agents []*process
	for _, p := range l.agents {
		agents = append(agents, p)
	}
	stopAll(l.Log, agents)
	stopAll(l.Log, append([]*process{l.dns}, l.origins...))
}

func (l *Lab) path(file string) string { return l.dir + string(os.PathSeparator) + file }
