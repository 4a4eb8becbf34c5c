package bgp

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/bgp/shield"
)

// Speaker announces a set of prefixes to upstream routers. It is made by
// NewSpeaker.
type Speaker struct {
	cfg     Config // but for the Neighbors
	log     *slog.Logger
	metrics *metrics

	changing sync.Mutex // held while the set of neighbors changes

	mu         sync.Mutex
	neighbors  []*neighbor
	leave      map[*neighbor]context.CancelCauseFunc // of those that run
	inside     map[netip.Addr]bool                   // loopback addresses in use
	desired    []Announcement                        // replaced as a whole, never changed
	blackholes []BlackholeRoute                      // likewise
	wanted     uint64                                // counts changes of both
	running    context.Context                       // what new neighbors run under; nil unless Run runs
	group      sync.WaitGroup                        // neighbors that run; grows while running only
	// progress is closed and replaced when a neighbor has reached a set.
	progress chan struct{}
}

// NewSpeaker checks the config and reports everything that is wrong with it at
// once. It starts nothing. A nil reg leaves the metrics unregistered.
func NewSpeaker(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Speaker, error) {
	if err := cfg.normalize(); err != nil {
		return nil, err
	}
	s := &Speaker{
		cfg:      cfg,
		log:      log,
		metrics:  newMetrics(reg),
		leave:    make(map[*neighbor]context.CancelCauseFunc),
		inside:   make(map[netip.Addr]bool),
		progress: make(chan struct{}),
	}
	for _, n := range cfg.Neighbors {
		s.neighbors = append(s.neighbors, s.newNeighbor(n))
	}
	return s, nil
}

// newNeighbor makes a neighbor that wants what is desired now.
func (s *Speaker) newNeighbor(cfg Neighbor) *neighbor {
	// Any loopback address will do: the port is the kernel's choice, so
	// several Speakers may share a host.
	inside := netip.AddrFrom4([4]byte{127, 77, 0, 1})
	for s.inside[inside] {
		inside = inside.Next()
	}
	s.inside[inside] = true
	n := &neighbor{
		cfg:      cfg,
		asn:      s.cfg.ASN,
		routerID: s.cfg.RouterID,
		inside:   inside,
		paths:    s.cfg.Paths,
		log:      s.log.With(slog.String("neighbor", cfg.Address.String()), slog.Uint64("neighbor_asn", uint64(cfg.ASN))),
		metrics:  s.metrics.neighbor(cfg.Address),
		progress: s.progressed,
		poke:     make(chan struct{}, 1),
		gone:     make(chan struct{}),
		received: make(map[shield.Type]uint64),
		sent:     make(map[shield.Type]uint64),
		rib:      make(adjRIBOut),
	}
	n.set(s.viewFor(cfg.Address), s.wanted)
	return n
}

// viewFor is what a neighbor should get.
func (s *Speaker) viewFor(neighbor netip.Addr) view {
	v := viewOf(s.desired, neighbor)
	v.addBlackholes(s.blackholes, neighbor)
	return v
}

// Run opens the sessions, keeps them up and announces the desired set until
// ctx ends; then it closes them with a Cease that carries the Farewell and
// returns nil. What was Set before is in the local RIBs before the first session
// opens. What the host does not permit, such as a loopback port, is tried again,
// and shown in the Status.
//
// Run may be called once.
func (s *Speaker) Run(ctx context.Context) error {
	s.mu.Lock()
	s.running = context.WithoutCancel(ctx)
	for _, n := range s.neighbors {
		s.start(n)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.running = nil
	for _, leave := range s.leave {
		leave(&shield.Cease{Subcode: shield.CeaseShutdown, Text: s.cfg.Farewell})
	}
	s.mu.Unlock()
	s.group.Wait()
	return nil
}

// start runs a neighbor. The caller holds s.mu, and Run runs.
func (s *Speaker) start(n *neighbor) {
	ctx, leave := context.WithCancelCause(s.running)
	s.leave[n] = leave
	s.group.Go(func() {
		defer leave(nil)
		n.run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.leave, n)
		if !slices.Contains(s.neighbors, n) {
			delete(s.inside, n.inside)
		}
	})
}

// Set makes set the whole set of announcements; nil or an empty set withdraws
// everything. It replaces what was Set before, also by a concurrent call, and
// sends only what differs.
//
// An invalid set is an error and changes nothing. Otherwise the set is stored
// and will be announced, whatever Set returns, to every neighbor as soon as
// its session is Established. While Run runs, Set returns when the local RIBs
// of all neighbors have reached this set or a later one, and failures on the way
// are tried again; if ctx ends first it returns its cause. While Run does not
// run, it returns at once.
func (s *Speaker) Set(ctx context.Context, set []Announcement) error {
	desired, err := normalizeSet(set)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if !slices.EqualFunc(desired, s.desired, func(a, b Announcement) bool { return a.equal(&b) }) {
		s.desired = desired
		s.changed()
	}
	target := s.wanted
	s.mu.Unlock()
	return s.reached(ctx, target)
}

// SetBlackholes makes set the whole set of addresses whose traffic upstreams
// should discard; nil ends that. It is for an operator's command only: nothing
// that decides by itself may call it. Every address must be within a prefix of
// the announcements that are Set; while such a prefix is withdrawn, so is the
// blackhole. Otherwise it is like Set.
func (s *Speaker) SetBlackholes(ctx context.Context, set []BlackholeRoute) error {
	s.mu.Lock()
	blackholes, err := normalizeBlackholes(set, s.desired)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.blackholes = blackholes
	s.changed()
	target := s.wanted
	s.mu.Unlock()
	return s.reached(ctx, target)
}

// changed hands the desired set on to the neighbors. The caller holds s.mu.
func (s *Speaker) changed() {
	s.wanted++
	prefixes := make(map[netip.Prefix]bool)
	for _, n := range s.neighbors {
		v := s.viewFor(n.cfg.Address)
		n.set(v, s.wanted)
		for prefix, a := range v {
			if a.Withheld == "" {
				prefixes[prefix] = true
			}
		}
	}
	s.metrics.desired.Set(float64(len(prefixes)))
}

// reached waits until all neighbors have reached a set.
func (s *Speaker) reached(ctx context.Context, number uint64) error {
	for {
		s.mu.Lock()
		progress := s.progress
		settled := !slices.ContainsFunc(s.neighbors, func(n *neighbor) bool { return !n.reached(number) })
		s.mu.Unlock()
		if settled {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// progressed wakes those who wait in reached.
func (s *Speaker) progressed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.progress)
	s.progress = make(chan struct{})
}

// SetNeighbors makes set the whole set of neighbors. One that is in the old set
// with the very same fields is not touched: its session goes on. One that
// changed gets a new session; the old one ends with a Cease for a change of
// configuration (RFC 4486). One that left is told so.
//
// An invalid set is an error and changes nothing. Otherwise the set is in force
// whatever SetNeighbors returns. While Run runs, it returns when the sessions
// that had to end have ended, and new ones are on their way; if ctx ends first,
// which it should not in less than a second, it returns its cause.
func (s *Speaker) SetNeighbors(ctx context.Context, set []Neighbor) error {
	set, err := s.cfg.normalizeNeighbors(set)
	if err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	old := make(map[netip.Addr]*neighbor, len(s.neighbors))
	for _, n := range s.neighbors {
		old[n.cfg.Address] = n
	}
	next := make([]*neighbor, 0, len(set))
	var left []*neighbor
	for _, cfg := range set {
		was := old[cfg.Address]
		delete(old, cfg.Address)
		if was != nil && was.cfg == cfg {
			next = append(next, was)
			continue
		}
		n := s.newNeighbor(cfg)
		next = append(next, n)
		if was != nil {
			n.follow(was)
			left = append(left, was)
			s.end(was, shield.CeaseConfigChange)
		}
		if s.running != nil {
			s.start(n)
		}
	}
	for address, n := range old {
		left = append(left, n)
		s.end(n, shield.CeaseDeconfigured)
		s.metrics.forget(address)
	}
	s.neighbors = next
	s.mu.Unlock()
	for _, n := range left {
		select {
		case <-n.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// end has a neighbor go. The caller holds s.mu.
func (s *Speaker) end(n *neighbor, subcode uint8) {
	if leave, runs := s.leave[n]; runs {
		leave(&shield.Cease{Subcode: subcode})
		return
	}
	close(n.gone)
	delete(s.inside, n.inside)
}

// SetFarewell replaces the Config's Farewell. Text of more than 255 bytes, or not
// UTF-8, is an error and changes nothing.
func (s *Speaker) SetFarewell(text string) error {
	if err := checkText(text); err != nil {
		return fmt.Errorf("farewell: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Farewell = cmp.Or(text, defaultFarewell)
	return nil
}

// Shutdown closes the session with a neighbor, tells it why (RFC 9003: at most
// 255 bytes; may be empty), and opens no other one until Enable, also if the
// neighbor's configuration changes meanwhile. It does not wait.
func (s *Speaker) Shutdown(neighbor netip.Addr, text string) error {
	if err := checkText(text); err != nil {
		return fmt.Errorf("shutdown text: %w", err)
	}
	return s.permit(neighbor, &text)
}

// Enable takes a Shutdown back.
func (s *Speaker) Enable(neighbor netip.Addr) error { return s.permit(neighbor, nil) }

func (s *Speaker) permit(neighbor netip.Addr, shutdown *string) error {
	neighbor = neighbor.Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.neighbors {
		if n.cfg.Address == neighbor {
			n.shutDown(shutdown)
			return nil
		}
	}
	return fmt.Errorf("%v is not a neighbor", neighbor)
}
