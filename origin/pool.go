// Package origin keeps sets of backends: which are healthy, which one serves the
// next request, and connections to them that are ready before they are needed.
//
// A [Pool] is given its whole set by [Pool.Update], checks each backend
// actively, and hands out one backend per request by [Pool.Pick]. A backend is
// unknown until its checks have judged it. Healthy backends are picked; while
// there is none, unknown ones are, because unknown is not down; unhealthy ones
// never are. So a new backend of a serving pool is checked before it gets
// traffic, and a pool that has just started serves at once.
//
// # Concurrency
//
// All methods may be called by several goroutines at once. Pick reads one
// immutable snapshot, takes no lock and adds to one counter of the pool and two
// of the backend. Every change builds a new snapshot under a lock that Pick
// never takes: a Pick that starts after Update has returned sees the new set.
// What a backend counts is kept beside the snapshots by address, for as long as
// the address is in the set.
package origin

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"anyedge/internal/health"
)

// Pool is a named set of backends.
type Pool struct {
	name    string
	log     *slog.Logger
	metrics *Metrics
	check   checkFunc // one active check; tests replace it

	config  atomic.Pointer[Config]   // with defaults; never mutated after Store
	current atomic.Pointer[snapshot] // never mutated after Store
	turn    atomic.Uint64            // round robin's next turn
	starved atomic.Uint64            // picks that found no backend

	// mu guards what follows and orders the stores to config and current.
	mu      sync.Mutex
	set     Set
	members map[netip.AddrPort]*member // exactly those of set; replaced whole, snapshots share it
	seeds   map[netip.AddrPort]health.State
	start   func(*member) // starts a member's tasks; nil unless Run runs

	// awaited are the backends of the first set that were not checked yet; nil
	// before the first Update. ready is closed when it becomes empty.
	awaited map[netip.AddrPort]bool
	ready   chan struct{}
}

// snapshot is what Pick and Dial read.
type snapshot struct {
	all     []choice // the set in its order
	members map[netip.AddrPort]*member
	usable  schedule
	least   bool // pick by least request
}

// NewPool returns an empty pool. metrics may be nil.
func NewPool(cfg Config, log *slog.Logger, metrics *Metrics) *Pool {
	if metrics == nil {
		metrics = NewMetrics(nil)
	}
	p := &Pool{
		name:    cfg.Name,
		log:     log.With("pool", cfg.Name),
		metrics: metrics,
		check:   checkBackend,
		members: make(map[netip.AddrPort]*member),
		ready:   make(chan struct{}),
	}
	// Pools of many processes must not all begin with the same backend.
	p.turn.Store(randomTurn())
	p.config.Store(cfg.withDefaults())
	p.current.Store(&snapshot{})
	return p
}

// Run checks the backends and keeps connections warm until ctx ends, then closes
// the warm connections, joins all it started and returns nil. It may be called
// once. Pick and Dial work before and after it, with what is known then.
func (p *Pool) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.metrics.add(p)
	defer p.metrics.remove(p)

	var tasks sync.WaitGroup
	p.mu.Lock()
	p.start = func(m *member) {
		ctx, stop := context.WithCancel(ctx)
		m.stop = stop
		tasks.Go(func() { p.keepChecking(ctx, m) })
		tasks.Go(func() { p.keepWarm(ctx, m) })
	}
	for _, m := range p.members {
		p.start(m)
	}
	p.publish()
	p.mu.Unlock()

	<-ctx.Done()
	p.mu.Lock()
	p.start = nil // no Update starts a task from here on
	p.publish()
	p.mu.Unlock()
	tasks.Wait()
	return nil
}

// Update replaces the set. Backends that stay keep health, counters and warm
// connections, whatever else of them changed. New ones are checked at once.
// Removed ones are never picked again once Update has returned, and their warm
// connections are closed; requests that were given one go on. An error names
// every bad backend, and then nothing has changed.
func (p *Pool) Update(set Set) error {
	set, err := set.normal()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()

	members := make(map[netip.AddrPort]*member, len(set))
	var added []*member
	for _, b := range set {
		m := p.members[b.Address]
		if m == nil {
			m = newMember(b.Address, p.seeds[b.Address])
			added = append(added, m)
		}
		members[b.Address] = m
	}
	removed := maps.Clone(p.members)
	maps.DeleteFunc(removed, func(a netip.AddrPort, _ *member) bool { return members[a] != nil })
	p.set, p.members = set, members
	if len(set) > 0 {
		p.seeds = nil
	}
	p.publish()

	first := p.awaited == nil
	if first {
		p.awaited = make(map[netip.AddrPort]bool, len(added))
	}
	for _, m := range added {
		if first {
			p.awaited[m.address] = true
		}
		if p.start != nil {
			p.start(m)
		}
	}
	for _, m := range removed {
		m.retire()
		delete(p.awaited, m.address)
	}
	p.announceReady()
	if len(added)+len(removed) > 0 {
		p.log.Info("backends changed", "backends", len(set), "added", len(added), "removed", len(removed))
	}
	return nil
}

// SetConfig replaces the config; health, counters and warm connections stay.
// The pool keeps its name. Warm connections made with another TLS config are
// closed, and the next checks keep to the new interval at once.
func (p *Pool) SetConfig(cfg Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.config.Swap(cfg.withDefaults())
	for _, m := range p.members {
		if old.TLS != cfg.TLS {
			m.warm.flush()
		}
		signal(m.reconfigured)
	}
	p.publish()
}

// Seed says what is known of backends that this pool has not checked yet, from a
// predecessor's [Status] for example. It is called before Run, before or after
// the first Update. Checks go on from there: a seeded state holds until rise or
// fall of them say otherwise.
func (p *Pool) Seed(states map[netip.AddrPort]health.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.members) == 0 {
		p.seeds = maps.Clone(states)
		return
	}
	for address, m := range p.members {
		m.seed(states[address])
	}
	p.publish()
}

// Ready is closed when every backend of the first set was checked once, or left
// the set before that.
func (p *Pool) Ready() <-chan struct{} { return p.ready }

// checked notes that m has been checked.
func (p *Pool) checked(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.members[m.address] == m {
		delete(p.awaited, m.address)
		p.announceReady()
	}
}

// announceReady closes ready when the time has come. p.mu is held.
func (p *Pool) announceReady() {
	if p.awaited == nil || len(p.awaited) > 0 {
		return
	}
	select {
	case <-p.ready:
	default:
		close(p.ready)
	}
}

// republish is [Pool.publish] for callers that do not hold p.mu.
func (p *Pool) republish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish()
}

// publish builds the snapshot from the set, the config and the members' states,
// and tells every member how many warm connections to hold. p.mu is held.
func (p *Pool) publish() {
	cfg := p.config.Load()
	byState := make(map[health.State][]choice)
	all := make([]choice, 0, len(p.set))
	for _, b := range p.set {
		c := choice{backend: b, member: p.members[b.Address]}
		state := c.member.judged.Load().state
		byState[state] = append(byState[state], c)
		all = append(all, c)
		if state == health.Healthy && p.start != nil {
			c.member.warm.hold(cfg.Warm)
		} else {
			c.member.warm.hold(0)
		}
	}
	usable := byState[health.Healthy]
	if len(usable) == 0 {
		usable = byState[health.Unknown]
	}
	p.current.Store(&snapshot{
		all:     all,
		members: p.members,
		usable:  newSchedule(usable),
		least:   cfg.Balance == LeastRequest,
	})
}
