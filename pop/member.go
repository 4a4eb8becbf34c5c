package pop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/pop/guard"
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
	every   time.Duration // pace of reports
	log     *slog.Logger
	metrics *metrics

	wake chan struct{} // capacity 1: the report changed in substance

	restored fleet.Orders // of an earlier process of this node; not changed once Run runs

	mu      sync.Mutex
	census  census
	asked   *GuardAsk // the last question to the guard; immutable
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
		every:  cfg.Fleet.ReportInterval.Std(),
		wake:   make(chan struct{}, 1),
		census: newCensus(cfg),
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
	if r.State != old.State || r.Announcement != old.Announcement || r.Draining != old.Draining || r.Standby != old.Standby ||
		r.Config != old.Config || !reflect.DeepEqual(r.Rollout, old.Rollout) {
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
		err := errors.Join(m.publish(ctx), m.thaw(ctx))
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
// healthy.
func (m *member) look(now time.Time) fleetView {
	view := m.fleet.View()
	m.mu.Lock()
	m.census.observe(now, view)
	asked := m.asked
	m.mu.Unlock()
	v := fleetView{
		connected: view.Connected,
		frozen:    view.Leases.Freeze != nil,
		session:   m.currentSession(),
		asked:     asked,
	}
	v.orders = view.Orders(m.node.Name, m.node.Pop, m.node.Region, now)
	if view.ConnectedSince.IsZero() { // until the store has been asked, what was in force stays so
		v.orders = v.orders.Or(m.restored.At(now))
	}
	for _, list := range [][]fleet.Lease{view.Leases.Holders, view.Leases.Waiting} {
		v.listed = v.listed || slices.ContainsFunc(list, func(l fleet.Lease) bool { return l.Node == m.node.Name })
	}
	return v
}

// thaw ends a freeze whose cause is gone. Every node tries, so that it does not
// wait for one that wants to withdraw; the first one does it.
func (m *member) thaw(ctx context.Context) error {
	view := m.fleet.View()
	m.mu.Lock()
	thawed := m.census.thawed(time.Now(), view)
	m.mu.Unlock()
	if !thawed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return m.fleet.Thaw(ctx, *view.Leases.Freeze)
}

// acquire implements [leaser].
func (m *member) acquire(ctx context.Context, p plea) error {
	return m.underSession(p, func(session fleet.Session, l fleet.Lease) error {
		load := usage(l.Usage)
		err := m.fleet.AcquireLease(ctx, session, l, func(view *fleet.View, others fleet.Leases) fleet.Ruling {
			m.mu.Lock()
			defer m.mu.Unlock()
			ruling, asked := m.census.rule(time.Now(), view, others, p, load)
			m.asked = asked
			return ruling
		})
		var refusal *guard.Refusal
		if errors.As(err, &refusal) {
			m.metrics.refusals.WithLabelValues(string(refusal.Cause)).Inc()
		}
		return err
	})
}

// update implements [leaser].
func (m *member) update(ctx context.Context, p plea) error {
	return m.underSession(p, func(session fleet.Session, l fleet.Lease) error {
		return m.fleet.UpdateLease(ctx, session, l)
	})
}

// underSession calls f with the session, if there is one, and the lease that a
// plea asks for.
func (m *member) underSession(p plea, f func(fleet.Session, fleet.Lease) error) error {
	m.mu.Lock()
	session := m.session
	l := fleet.Lease{
		Node: m.node.Name, Pop: m.node.Pop, Reason: truncate(p.reason, 512), At: time.Now(),
		Planned: p.planned, Gone: p.gone, Usage: m.report.Usage,
	}
	if m.report.Standby { // it has no clients that would move
		l.Usage = nil
	}
	m.mu.Unlock()
	if session == "" {
		return fleet.ErrSession
	}
	err := f(session, l)
	if errors.Is(err, fleet.ErrSession) {
		m.lost(session)
	}
	return err
}

// release implements [leaser].
func (m *member) release(ctx context.Context) error {
	return m.fleet.ReleaseLease(ctx, m.node.Name)
}
