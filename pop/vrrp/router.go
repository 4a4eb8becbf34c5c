package vrrp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Router is one virtual router of one interface and family.
type Router struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	mu     sync.Mutex
	health Health
	status Status
	waker  *waker // nil unless Run runs
}

// Status is what a Router does now.
type Status struct {
	Interface string         `json:"interface"`
	VRID      uint8          `json:"vrid"`
	Family    Family         `json:"family"`
	Addresses []netip.Prefix `json:"addresses"`

	State State `json:"state"`
	// Since is when State began; zero before Run.
	Since time.Time `json:"since,omitzero"`
	// Reason says why the router is in State, for humans.
	Reason string `json:"reason"`
	// Priority is the one in effect.
	Priority uint8 `json:"priority"`
	// Holding is whether the virtual addresses are on the interface.
	Holding bool `json:"holding"`
	// Primary is the address that advertisements are sent from; invalid while
	// the interface has none.
	Primary netip.Addr `json:"primary,omitzero"`
	// Obstacle is what keeps the router out of the election whatever its Health:
	// something about the interface. Empty if nothing does, and before Run.
	Obstacle string `json:"obstacle,omitempty"`
	// Heard is the latest valid advertisement of another router; nil if there
	// was none.
	Heard *Heard `json:"heard,omitempty"`
	// Error is what went wrong last and has not been put right.
	Error string `json:"error,omitempty"`
}

// Heard is an advertisement of another router.
type Heard struct {
	From     netip.Addr    `json:"from"`
	Priority uint8         `json:"priority"` // 0: it stopped being Active
	Interval time.Duration `json:"interval_ns"`
	At       time.Time     `json:"at"`
}

// New makes a router. It opens nothing and starts nothing. The router takes no
// part in the election until Set says that the node serves. reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Router, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("vrrp: %w", err)
	}
	cfg = cfg.withDefaults()
	vrid := strconv.Itoa(int(cfg.VRID))
	r := &Router{
		cfg: cfg,
		log: log.With("interface", cfg.Interface, "vrid", cfg.VRID, "family", cfg.family()),
		metrics: newMetrics(reg, prometheus.Labels{
			"interface": cfg.Interface, "vrid": vrid, "family": string(cfg.family())}),
		status: Status{
			Interface: cfg.Interface, VRID: cfg.VRID, Family: cfg.family(), Addresses: cfg.Addresses,
			State: Initialize, Reason: "not started", Priority: cfg.Priority,
		},
	}
	r.metrics.show(r.status)
	return r, nil
}

// String names the router as a task.
func (r *Router) String() string {
	return fmt.Sprintf("vrrp %s/%d/%s", r.cfg.Interface, r.cfg.VRID, r.cfg.family())
}

// Set tells the node's health. It does not wait for what follows. The zero
// Health, not serving, holds before the first call.
func (r *Router) Set(h Health) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h != r.health {
		r.health = h
		if r.waker != nil {
			r.waker.wake()
		}
	}
}

// Status returns what the router does now. Addresses must not be changed.
func (r *Router) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run takes part in the election until ctx ends. It then takes the virtual
// addresses off the interface and, if it was Active, hands over by an
// advertisement of priority 0. It first removes addresses that an earlier
// process left.
//
// It needs CAP_NET_RAW and CAP_NET_ADMIN; without them it returns an error. An
// interface that is missing, down or without an address is waited for.
func (r *Router) Run(ctx context.Context) error {
	wake, err := newWaker()
	if err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	r.mu.Lock()
	r.waker = wake
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.waker = nil
		wake.close()
	}()

	l, err := newLoop(r, wake)
	if err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	defer l.close()
	ended := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() { wake.wake(); close(ended) })
	defer func() {
		if !unwatch() {
			<-ended // it must not write to a descriptor that is closed
		}
	}()
	if err := l.run(ctx); err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	return nil
}

// wanted returns the health to act on, its priority filled in.
func (r *Router) wanted() Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.health
	if h.Priority == 0 || h.Priority > r.cfg.Priority {
		h.Priority = r.cfg.Priority
	}
	return h
}

// publish makes a status the present one, and says so.
func (r *Router) publish(s Status) {
	r.mu.Lock()
	was := r.status
	r.status = s
	r.mu.Unlock()
	r.metrics.show(s)
	if was.State == s.State {
		return
	}
	r.metrics.transitions[s.State].Inc()
	r.log.Info("vrrp state changed", "from", was.State, "to", s.State, "reason", s.Reason, "priority", s.Priority)
	if r.cfg.OnChange != nil {
		r.cfg.OnChange(s)
	}
}
