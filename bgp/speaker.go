package bgp

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// applyRetry is the pause after a failed change of the local RIB.
const applyRetry = 500 * time.Millisecond

// Speaker announces a set of prefixes to upstream routers. It is made by
// NewSpeaker.
type Speaker struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	neighbors []*neighbor

	mu      sync.Mutex
	desired map[netip.Prefix]Announcement // replaced as a whole, never changed
	wanted  uint64                        // counts changes of desired
	applied uint64                        // value of wanted that the local RIB has reached
	running bool
	// progress is closed and replaced when applied or running changes.
	progress chan struct{}

	poke chan struct{} // wakes the applier; holds one
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
		progress: make(chan struct{}),
		poke:     make(chan struct{}, 1),
	}
	for i, n := range cfg.Neighbors {
		s.neighbors = append(s.neighbors, newNeighbor(n, i, cfg.HoldTime, log, s.metrics))
	}
	return s, nil
}

// Run opens the sessions, keeps them up and announces the desired set until
// ctx ends; then it closes them with a Cease and returns nil. What was Set
// before is in the local RIB before the first session opens. Any other return
// means that the host would not let it work: no loopback port, no memory.
//
// Run may be called once.
func (s *Speaker) Run(ctx context.Context) error {
	e, err := startEngine(s.cfg.ASN, s.cfg.RouterID, netip.AddrPort{}, nil, s.log)
	if err != nil {
		return err
	}
	defer e.stop()
	if err := e.acceptLocalOnly(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	ready := make(chan struct{})
	var failure error
	var fail sync.Once
	var group sync.WaitGroup
	start := func(f func() error) {
		group.Go(func() {
			if err := f(); err != nil {
				fail.Do(func() { failure = err })
				cancel(err)
			}
		})
	}
	start(func() error { s.keepApplied(ctx, e, ready); return nil })
	select {
	case <-ready:
		for _, n := range s.neighbors {
			start(func() error { return n.run(ctx, e) })
		}
	case <-ctx.Done():
	}
	group.Wait()
	return failure
}

// Set makes set the whole set of announcements; nil or an empty set withdraws
// everything. It replaces what was Set before, also by a concurrent call, and
// sends only what differs.
//
// An invalid set is an error and changes nothing. Otherwise the set is stored
// and will be announced, whatever Set returns, to every neighbor as soon as
// its session is Established. While Run runs, Set returns when the local RIB
// has reached this set or a later one, and failures on the way are tried again;
// if ctx ends first it returns its cause. While Run does not run, it returns at
// once.
func (s *Speaker) Set(ctx context.Context, set []Announcement) error {
	desired, err := normalizeSet(set)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if !maps.EqualFunc(desired, s.desired, func(a, b Announcement) bool { return a.equal(&b) }) {
		s.desired = desired
		s.wanted++
		s.metrics.desired.Set(float64(len(desired)))
	}
	target := s.wanted
	s.mu.Unlock()
	select {
	case s.poke <- struct{}{}:
	default: // the applier is about to look anyway
	}
	for {
		s.mu.Lock()
		settled := !s.running || s.applied >= target
		progress := s.progress
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

// keepApplied brings GoBGP's local RIB to the desired set, again and again,
// until ctx ends. It closes ready after the first attempt.
func (s *Speaker) keepApplied(ctx context.Context, e *engine, ready chan<- struct{}) {
	s.report(func() { s.running = true })
	defer s.report(func() { s.running = false })
	rib := make(map[netip.Prefix]Announcement) // what GoBGP has
	for ctx.Err() == nil {
		s.mu.Lock()
		desired, target := s.desired, s.wanted
		s.mu.Unlock()
		var retry <-chan time.Time
		if err := s.apply(e, rib, desired); err != nil {
			s.metrics.applyFailures.Inc()
			s.log.Error("apply announcements failed", slog.Any("error", err))
			retry = time.After(applyRetry)
		} else {
			s.report(func() { s.applied = target })
		}
		if ready != nil {
			close(ready)
			ready = nil
		}
		select {
		case <-s.poke:
		case <-retry:
		case <-ctx.Done():
		}
	}
}

// report changes what Set waits for and wakes it.
func (s *Speaker) report(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.progress)
	s.progress = make(chan struct{})
}

// apply changes GoBGP's local RIB from rib to desired, withdrawals first, and
// keeps rib in step. A prefix that fails does not keep the others back.
func (s *Speaker) apply(e *engine, rib, desired map[netip.Prefix]Announcement) error {
	var errs []error
	for _, prefix := range slices.SortedFunc(maps.Keys(rib), netip.Prefix.Compare) {
		if _, keep := desired[prefix]; keep {
			continue
		}
		if err := e.withdraw(rib[prefix], s.cfg.ASN); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(rib, prefix)
		s.log.Info("prefix withdrawn", slog.String("prefix", prefix.String()))
	}
	for _, prefix := range slices.SortedFunc(maps.Keys(desired), netip.Prefix.Compare) {
		a := desired[prefix]
		if old, ok := rib[prefix]; ok && old.equal(&a) {
			continue
		}
		if err := e.announce(a, s.cfg.ASN); err != nil {
			errs = append(errs, err)
			continue
		}
		rib[prefix] = a
		s.log.Info("prefix announced",
			slog.String("prefix", prefix.String()),
			slog.String("next_hop", a.NextHop.String()),
			slog.Uint64("med", uint64(a.MED)),
			slog.Int("prepend", a.Prepend),
			slog.Any("communities", a.Communities))
	}
	return errors.Join(errs...)
}
