// Package topology declares the network of a lab as data and derives from it
// everything that the machines of the lab need to be told: addresses, links,
// BGP sessions, and the configs of the routers, the nodes, the DNS and Consul.
//
// A [Topology] is what a person writes. [New] makes a [Plan] of it, in which
// every name and address is fixed; the same topology always gives the same
// plan. [Plan.Files] renders the configs, and [Plan.Serves] says which PoP
// clients should reach, computed here from the graph and not by any router, so
// that a test has something to compare the routers with.
//
// The package does no I/O.
//
// # Concurrency
//
// A Plan is not changed after New and may be used by many goroutines.
package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// Topology is a lab's network.
type Topology struct {
	// Service are the prefixes that every PoP announces, one of each family. The
	// first host address of each is the service address.
	Service []netip.Prefix
	// Zone is the DNS zone of the lab; www.<zone> is what clients ask for.
	Zone string
	// Cores are the routers of the transit core, each an AS of its own. They run
	// FRR.
	Cores []Core
	// Pops are the points of presence, at most 8.
	Pops []Pop
	// Clients are the places that requests come from.
	Clients []Client
	// BFD is spoken between the nodes and the upstream router of every PoP. Zero:
	// none.
	BFD BFD
	// Consul and DNS name the cores that the Consul server and the DNS node
	// are attached to.
	Consul, DNS string
}

// Core is a router of the transit core.
type Core struct {
	Name string
	// Peers are other cores that it has a link and BGP sessions to. One of the
	// two names the other.
	Peers []string
}

// Daemon is a routing daemon.
type Daemon string

// The routing daemons.
const (
	FRR  Daemon = "frr"
	BIRD Daemon = "bird"
)

// Pop is a point of presence: nodes and origins on one LAN behind one upstream
// router.
type Pop struct {
	Name, Region        string
	Latitude, Longitude float64
	// Router is what the upstream router runs.
	Router Daemon
	// Core is what the upstream router is attached to.
	Core string
	// FullTable has the upstream router take the service prefixes from the core
	// too, as a transit provider's does. Otherwise it takes them from the nodes
	// only, as an operator's own does. With it, traffic loops between router
	// and core for the moment in which one has moved and the other has not.
	FullTable bool
	// Nodes is how many run the edge, 1 to 8. The upstream router spreads new
	// connections over them by equal-cost multipath.
	Nodes int
	// Origins is how many demo origins there are, 1 to 8.
	Origins int
}

// BFD are the timers of every BFD session, of both sides.
type BFD struct {
	// Interval is whole milliseconds, 10ms to 1m; zero turns BFD off.
	Interval time.Duration
	// Multiplier is 2 to 255.
	Multiplier int
}

// DefaultBFD notices a failure within 150 ms.
var DefaultBFD = BFD{Interval: 50 * time.Millisecond, Multiplier: 3}

// On reports whether BFD is spoken.
func (b BFD) On() bool { return b.Interval > 0 }

// Milliseconds is the Interval for the configs of routers.
func (b BFD) Milliseconds() int64 { return b.Interval.Milliseconds() }

// Client is a machine that sends requests.
type Client struct {
	Name                string
	Core                string
	Latitude, Longitude float64
}

// Default is the lab that is used unless another is asked for: three PoPs on
// three continents, two of them with two nodes, under FRR and under BIRD.
func Default() Topology {
	return Topology{
		Service: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")},
		Zone:    "edge.example",
		Cores:   []Core{{Name: "core-eu", Peers: []string{"core-us"}}, {Name: "core-us", Peers: []string{"core-ap"}}, {Name: "core-ap"}},
		Pops: []Pop{
			{Name: "fra", Region: "eu", Latitude: 50.11, Longitude: 8.68, Router: FRR, Core: "core-eu", Nodes: 2, Origins: 2},
			{Name: "iad", Region: "us", Latitude: 39.04, Longitude: -77.49, Router: BIRD, Core: "core-us", Nodes: 1, Origins: 1},
			{Name: "sin", Region: "ap", Latitude: 1.35, Longitude: 103.82, Router: BIRD, Core: "core-ap", Nodes: 2, Origins: 1},
		},
		Clients: []Client{
			{Name: "paris", Core: "core-eu", Latitude: 48.86, Longitude: 2.35},
			{Name: "newyork", Core: "core-us", Latitude: 40.71, Longitude: -74.01},
			{Name: "tokyo", Core: "core-ap", Latitude: 35.68, Longitude: 139.69},
		},
		Consul: "core-us", DNS: "core-eu",
	}
}

// Bounds of a topology.
const (
	maxPops    = 8
	maxNodes   = 8
	maxOrigins = 8
	maxCores   = 8
	maxClients = 32
)

// nameForm leaves room for "-router" in an interface name of 15 characters.
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,7}$`)

// validate reports everything that is wrong at once.
func (t *Topology) validate() error {
	var errs []error
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	bound := func(what string, n, least, most int) {
		if n < least || n > most {
			report("%s: %d is not %d to %d", what, n, least, most)
		}
	}
	seen := make(map[string]bool)
	name := func(what, s string) {
		if !nameForm.MatchString(s) {
			report("%s %q: a name is 1 to 8 of a-z, 0-9 and \"-\", a letter first", what, s)
		}
		if seen[s] || s == machineConsul || s == machineDNS {
			report("%s %q: the name is taken", what, s)
		}
		seen[s] = true
	}
	core := func(what, s string) {
		if !slices.ContainsFunc(t.Cores, func(c Core) bool { return c.Name == s }) {
			report("%s: there is no core %q", what, s)
		}
	}
	if len(t.Service) != 2 || !t.Service[0].Addr().Is4() || !t.Service[1].Addr().Is6() {
		report("service: an IPv4 and an IPv6 prefix, in this order")
	}
	bound("cores", len(t.Cores), 1, maxCores)
	bound("pops", len(t.Pops), 1, maxPops)
	bound("clients", len(t.Clients), 1, maxClients)
	var links [][2]string
	for _, c := range t.Cores {
		name("core", c.Name)
		for _, p := range c.Peers {
			core("core "+c.Name, p)
			link := [2]string{min(c.Name, p), max(c.Name, p)}
			if c.Name == p || slices.Contains(links, link) {
				report("core %s: a second link to %s, or one to itself", c.Name, p)
			}
			links = append(links, link)
		}
	}
	for _, p := range t.Pops {
		name("pop", p.Name)
		core("pop "+p.Name, p.Core)
		bound("pop "+p.Name+": nodes", p.Nodes, 1, maxNodes)
		bound("pop "+p.Name+": origins", p.Origins, 1, maxOrigins)
		if p.Router != FRR && p.Router != BIRD {
			report("pop %s: router %q is neither frr nor bird", p.Name, p.Router)
		}
	}
	for _, c := range t.Clients {
		name("client", c.Name)
		core("client "+c.Name, c.Core)
	}
	if b := t.BFD; b.On() && (b.Interval < 10*time.Millisecond || b.Interval > time.Minute || b.Interval%time.Millisecond != 0 || b.Multiplier < 2 || b.Multiplier > 255) {
		report("bfd: %v times %d is not 2 to 255 intervals of 10ms to 1m in whole milliseconds", b.Interval, b.Multiplier)
	}
	core("consul", t.Consul)
	core("dns", t.DNS)
	return errors.Join(errs...)
}
