// Package rtt is a table of round-trip times from client networks to points of
// presence, measured on the connections that clients make anyway, and of how many
// connections and requests they were.
//
// # Flow
//
// A node's Collector takes the RTT of each connection, and requests. From time to
// time it makes a Snapshot, which is encoded and published in the fleet's store, and
// every DNS node merges the snapshots of all nodes into a Table.
//
// # What is kept
//
// Connections are put together by /24 and /48: what an RTT is, is decided by
// where a network is, and EDNS Client Subnet says no more. A network's RTT is the
// geometric mean of its connections, which a few slow ones hardly disturb, and
// each counts half as much after every half-life, as each request does. A network
// that nobody has come from for long so weighs nothing, and is not in the table.
//
// # Privacy
//
// A snapshot names no network that fewer than K clients were seen in. Smaller
// ones are merged upward, with other small ones: from a /24 to its /20, /16, /12
// and /8, from a /48 to its /40, /32, /24 and /16, until together they have K
// clients; those that never do are left out. A client is an IPv4 address, or an
// IPv6 /64, of which one host has many. Nothing is kept of it but one of 64 bits of
// its network's sketch, chosen by a keyed hash; the number of bits that are set
// never exceeds the number of clients.
//
// # Queries
//
// DNS nodes do not see clients, but networks that ask, some of them before anybody
// has measured them. A QueryCounter counts those by the same networks, and its
// QuerySnapshots are published and merged likewise. How many clients a network has
// cannot be told then, so those with few queries are merged upward.
//
// # Concurrency
//
// A Collector is safe for use by several goroutines, a QueryCounter for one. A
// Snapshot and a QuerySnapshot are values, a Table is immutable.
package rtt

import (
	"cmp"
	"hash/maphash"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Defaults of Config.
const (
	DefaultHalfLife = 15 * time.Minute
	DefaultNetworks = 1 << 17
	DefaultK        = 8
)

// Bounds of what is taken for an RTT: anything else is an error of measurement.
const (
	Least    = 100 * time.Microsecond
	Greatest = 3 * time.Second
)

// Config is how a Collector works. Zero fields mean the defaults.
type Config struct {
	// HalfLife is the time in which the weight of a connection halves.
	HalfLife time.Duration
	// Networks is how many are kept at most, at about 100 bytes each. When there
	// are more, the lightest go.
	Networks int
	// K is how many clients a network in a snapshot has at least, 1 to 48.
	K int
}

// Collector gathers the RTTs that one node sees.
type Collector struct {
	cfg  Config
	seed maphash.Seed

	mu       sync.Mutex
	networks map[netip.Prefix]*cell
	period   time.Time // when the sketches were last renewed
}

// cell is what is known about a network.
type cell struct {
	log    float64 // mean of the logarithms of RTTs in µs
	weight float64 // in connections, as of at
	// requests are as of at, too.
	requests float64
	at       time.Time
	// now and before are the sketches of this half-life and the one before.
	now, before uint64
}

// NewCollector returns an empty Collector.
func NewCollector(cfg Config) *Collector {
	cfg.HalfLife = cmp.Or(cfg.HalfLife, DefaultHalfLife)
	cfg.Networks = max(16, cmp.Or(cfg.Networks, DefaultNetworks))
	cfg.K = min(48, max(1, cmp.Or(cfg.K, DefaultK)))
	return &Collector{cfg: cfg, seed: maphash.MakeSeed(), networks: make(map[netip.Prefix]*cell)}
}

// Add takes the RTT of a client's connection, counting it as connections of
// them. What is out of bounds, and addresses that say nothing about a place, are
// ignored.
func (c *Collector) Add(now time.Time, client netip.Addr, rtt time.Duration, connections int) {
	client = client.Unmap()
	if rtt < Least || rtt > Greatest || connections < 1 || !client.IsGlobalUnicast() || client.IsPrivate() {
		return
	}
	network := networkOf(client)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renew(now)
	at := c.networks[network]
	if at == nil {
		if len(c.networks) >= c.cfg.Networks {
			c.shrink(now)
		}
		at = &cell{at: now}
		c.networks[network] = at
	}
	at.decay(now, c.cfg.HalfLife)
	at.add(math.Log(float64(rtt)/1000), float64(connections), 0)
	at.now |= 1 << (maphash.Comparable(c.seed, clientOf(client)) % 64)
}

// AddRequests takes so many requests of a client. Those of a network that no
// connection is known of are ignored: it has no RTT, and so no entry.
func (c *Collector) AddRequests(now time.Time, client netip.Addr, requests int) {
	client = client.Unmap()
	if !client.IsValid() || requests < 1 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.networks[networkOf(client)]; at != nil {
		at.decay(now, c.cfg.HalfLife)
		at.requests += float64(requests)
	}
}

// clientOf returns what stands for one client.
func clientOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, _ := a.WithZone("").Prefix(64)
	return p.Addr()
}

// networkOf returns the network that an address is counted in.
func networkOf(a netip.Addr) netip.Prefix {
	length := 48
	if a.Is4() {
		length = 24
	}
	p, _ := a.WithZone("").Prefix(length)
	return p
}

// decay brings what a cell counts up to now. A clock that goes back changes nothing.
func (c *cell) decay(now time.Time, halfLife time.Duration) {
	if d := now.Sub(c.at); d > 0 {
		keep := math.Exp2(-float64(d) / float64(halfLife))
		c.weight *= keep
		c.requests *= keep
		c.at = now
	}
}

// add puts connections whose RTTs have a mean logarithm into the mean.
func (c *cell) add(log, weight, requests float64) {
	c.weight += weight
	c.log += (log - c.log) * weight / c.weight
	c.requests += requests
}

// clients is a lower bound of how many were seen of late.
func (c *cell) clients() int { return bits.OnesCount64(c.now | c.before) }

// renew begins new sketches once per half-life, and forgets what has no weight.
func (c *Collector) renew(now time.Time) {
	passed := now.Sub(c.period)
	if passed < c.cfg.HalfLife {
		return
	}
	for network, at := range c.networks {
		at.before, at.now = at.now, 0
		if passed >= 2*c.cfg.HalfLife {
			at.before = 0
		}
		if at.decay(now, c.cfg.HalfLife); at.weight < MinWeight {
			delete(c.networks, network)
		}
	}
	c.period = now
}

// shrink drops the lightest eighth of the networks.
func (c *Collector) shrink(now time.Time) {
	weights := make([]float64, 0, len(c.networks))
	for _, at := range c.networks {
		at.decay(now, c.cfg.HalfLife)
		weights = append(weights, at.weight)
	}
	slices.Sort(weights)
	drop := len(weights)/8 + 1
	limit := weights[drop-1]
	for network, at := range c.networks {
		if at.weight <= limit && drop > 0 {
			delete(c.networks, network)
			drop--
		}
	}
}

// Len returns the number of networks kept.
func (c *Collector) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.networks)
}

// Snapshot returns what may be published about the connections so far.
func (c *Collector) Snapshot(now time.Time, pop string) Snapshot {
	c.mu.Lock()
	c.renew(now)
	all := make([]network, 0, len(c.networks))
	for prefix, at := range c.networks {
		at.decay(now, c.cfg.HalfLife)
		all = append(all, network{prefix, *at})
	}
	c.mu.Unlock()
	kept := fold(all, func(at *cell) bool { return at.clients() >= c.cfg.K })
	return Snapshot{Pop: pop, At: now, HalfLife: c.cfg.HalfLife, Entries: entriesOf(kept)}
}
