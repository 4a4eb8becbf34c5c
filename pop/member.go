package pop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/pop/guard"
	"anyedge/pop/headroom"
)

const (
	// sessionTTL is how long the fleet keeps what is bound to a node that has
	// gone silent. Readers do not wait for it: they look at a report's age.
	sessionTTL = 10 * time.Second
	// sessionRenewal is the pace at which the session is renewed.
	sessionRenewal = sessionTTL / 4
	// writeTimeout bounds one write to the fleet store.
	writeTimeout = 2 * time.Second
)

// member is this node's part in the fleet: its session, its report, and the
// withdraw lease that it asks for.
type member struct {
	fleet   *fleet.Fleet
	store   fleet.Store
	node    configs.Node
	policy  guard.Policy
	ttl     time.Duration // age at which a report no longer counts
	every   time.Duration // pace of reports
	log     *slog.Logger
	metrics *metrics

	wake chan struct{} // capacity 1: the report changed in substance

	mu      sync.Mutex
	tracker guard.Tracker
	report  fleet.Report
	session fleet.Session // empty while there is none

	// Owned by Run.
	renewed   time.Time
	tookOver  bool // what an earlier process of this node left is gone
	wasFailed bool
}

func newMember(f *fleet.Fleet, store fleet.Store, cfg *configs.Pop, log *slog.Logger, m *metrics) *member {
	n := cfg.Node
	return &member{
		fleet: f, store: store, node: n, log: log, metrics: m,
		policy: guard.Policy{
			MinPops: *cfg.Guard.MinPops, MaxOut: cfg.Guard.MaxOut,
			Share: cfg.Guard.Share.Fraction(), Window: cfg.Guard.Window.Std(),
		},
		ttl: cfg.Fleet.ReportTTL.Std(), every: cfg.Fleet.ReportInterval.Std(),
		wake: make(chan struct{}, 1),
		report: fleet.Report{
			Node: n.Name, Pop: n.Pop, Region: n.Region, Latitude: n.Latitude, Longitude: n.Longitude,
			State: fleet.StateUnknown, Announcement: fleet.Withdrawn, Reason: "starting",
		},
	}
}

func (m *member) String() string { return "fleet member" }

// tell takes the newest report and has it published at once if it differs from
// the one before in more than its load.
func (m *member) tell(r fleet.Report) {
	m.mu.Lock()
	old := m.report
	m.report = r
	m.mu.Unlock()
	if r.State != old.State || r.Announcement != old.Announcement || r.Draining != old.Draining {
		m.poke()
	}
}

// poke has Run publish at once.
func (m *member) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run keeps the session alive and the report fresh until ctx ends, then takes
// both back.
func (m *member) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.every)
	defer ticker.Stop()
	for {
		err := m.publish(ctx)
		if ctx.Err() == nil && (err != nil) != m.wasFailed {
			if m.wasFailed = err != nil; m.wasFailed {
				m.log.Warn("report not published, retrying", "error", err)
			} else {
				m.log.Info("report published")
			}
		}
		select {
		case <-ctx.Done():
			m.leave()
			return nil
		case <-ticker.C:
		case <-m.wake:
		}
	}
}

// publish writes the report under a live session.
func (m *member) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	session, err := m.liveSession(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	r := m.report
	m.mu.Unlock()
	err = m.fleet.PutReport(ctx, session, r)
	switch {
	case errors.Is(err, fleet.ErrSession):
		m.lost(session)
	case errors.Is(err, fleet.ErrConflict):
		return fmt.Errorf("another node named %s is part of the fleet: %w", m.node.Name, err)
	}
	return err
}

// liveSession returns the session, renewed when it is time, or a new one. The
// first one ends what an earlier process of this node may have left behind.
func (m *member) liveSession(ctx context.Context) (fleet.Session, error) {
	if !m.tookOver {
		if err := m.fleet.TakeOver(ctx, m.node.Name); err != nil {
			return "", err
		}
		m.tookOver = true
	}
	session := m.currentSession()
	if session == "" {
		s, err := m.store.NewSession(ctx, m.node.Name, sessionTTL)
		if err != nil {
			return "", err
		}
		m.setSession(s)
		m.renewed = time.Now()
		return s, nil
	}
	if time.Since(m.renewed) < sessionRenewal {
		return session, nil
	}
	err := m.store.RenewSession(ctx, session)
	switch {
	case err == nil:
		m.renewed = time.Now()
	case errors.Is(err, fleet.ErrSession):
		m.lost(session)
	}
	return session, err
}

// leave ends the session, and with it the report and the lease.
func (m *member) leave() {
	session := m.currentSession()
	if session == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := m.store.EndSession(ctx, session); err != nil {
		m.log.Warn("session not ended, it runs out by itself", "error", err)
	}
}

func (m *member) currentSession() fleet.Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session
}

func (m *member) setSession(s fleet.Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session = s
}

// lost notes that a session has ended, and has Run get another one at once.
func (m *member) lost(s fleet.Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == s {
		m.session = ""
		m.poke()
	}
}

// look returns what the controller needs to know, and keeps track of who is
// healthy. While the store is out of reach nobody's health is known.
func (m *member) look(now time.Time) fleetView {
	view := m.fleet.View()
	if view.Connected {
		m.mu.Lock()
		m.tracker.Observe(now, healthyPops(view, now, m.ttl))
		m.mu.Unlock()
	}
	_, drained := view.Drained(m.node.Name, m.node.Pop, m.node.Region, now)
	return fleetView{connected: view.Connected, drain: drained, session: m.currentSession()}
}

// healthyPops says of every PoP that is heard of whether a node of it can
// serve, or is out on purpose.
func healthyPops(view *fleet.View, now time.Time, ttl time.Duration) map[string]bool {
	pops := make(map[string]bool)
	for _, r := range view.Reports {
		fresh := view.Fresh(r, now, ttl)
		pops[r.Pop] = pops[r.Pop] || fresh && (r.State != fleet.StateUnhealthy || r.Draining)
	}
	return pops
}

// acquire implements [leaser].
func (m *member) acquire(ctx context.Context, reason string) error {
	session := m.currentSession()
	if session == "" {
		return fleet.ErrSession
	}
	l := fleet.Lease{Node: m.node.Name, Pop: m.node.Pop, Reason: reason, At: time.Now()}
	err := m.fleet.AcquireLease(ctx, session, l, func(view *fleet.View, others fleet.Leases) error {
		return guard.Decide(m.policy, m.request(time.Now(), view, others))
	})
	if errors.Is(err, fleet.ErrSession) {
		m.lost(session)
	}
	var refusal *guard.Refusal
	if errors.As(err, &refusal) {
		m.metrics.refusals.WithLabelValues(string(refusal.Cause)).Inc()
	}
	return err
}

// release implements [leaser].
func (m *member) release(ctx context.Context) error {
	return m.fleet.ReleaseLease(ctx, m.node.Name)
}

// request puts the fleet, as the view shows it, into the guard's terms.
func (m *member) request(now time.Time, view *fleet.View, others fleet.Leases) guard.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	req := guard.Request{Node: m.node.Name, Pop: m.node.Pop, Usage: usage(m.report.Usage)}
	for _, r := range view.Reports {
		if !view.Fresh(r, now, m.ttl) {
			continue
		}
		req.Nodes = append(req.Nodes, guard.Node{
			Name: r.Node, Pop: r.Pop,
			Serving: r.State == fleet.StateHealthy && r.Announcement == fleet.Announced && !r.Draining,
			Usage:   usage(r.Usage),
		})
	}
	for _, l := range others.Holders {
		req.Out = append(req.Out, l.Pop)
	}
	req.Sick, req.Known = m.tracker.Sick(now, m.policy.Window)
	return req
}

func usage(in []fleet.Usage) []headroom.Usage {
	out := make([]headroom.Usage, len(in))
	for i, u := range in {
		out[i] = headroom.Usage(u)
	}
	return out
}
