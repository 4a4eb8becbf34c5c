package bfd

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says how a Manager runs.
type Config struct {
	// Engine is a command, with arguments, whose process calls Serve; it is
	// given the control socket as descriptor 3. Empty: the engine runs on a
	// thread of this process, and is as late as the scheduler of a busy process
	// makes it.
	Engine []string
}

// Manager keeps BFD sessions with a set of neighbors. It is made by NewManager.
type Manager struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	mu       sync.Mutex
	peers    []Peer // replaced as a whole, never changed
	wanted   uint64 // counts changes of peers
	applied  uint64 // value of wanted that the engine has reached
	running  bool
	sessions map[netip.Addr]*watched
	strays   stray
	// progress is closed and replaced when applied or running changes.
	progress chan struct{}

	poke  chan struct{} // wakes Run; holds one
	calls sync.Mutex    // held while functions of Watch run
}

// watched is a peer of the set, or one that somebody watches.
type watched struct {
	status   Status
	inSet    bool
	watchers []*watcher
}

type watcher struct{ f func(Change) }

// NewManager returns a Manager without peers. It starts nothing. A nil reg
// leaves the metrics unregistered.
func NewManager(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Manager {
	return &Manager{
		cfg:      cfg,
		log:      log,
		metrics:  newMetrics(reg),
		wanted:   1, // the empty set
		sessions: make(map[netip.Addr]*watched),
		progress: make(chan struct{}),
		poke:     make(chan struct{}, 1),
	}
}

// Set makes peers the whole set of neighbors to watch; nil or an empty set
// watches none. A session whose peer is unchanged is not touched, and one whose
// intervals, multiplier or keys change goes on. Another LocalAddress makes
// another session.
//
// An invalid set is an error and changes nothing. Otherwise the set is stored
// and will be watched, whatever Set returns. While Run runs, Set returns when
// the engine has taken this set or a later one; if ctx ends first it returns its
// cause. While Run does not run, it returns at once.
func (m *Manager) Set(ctx context.Context, peers []Peer) error {
	set, err := normalizeSet(peers)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if !slices.EqualFunc(set, m.peers, func(a, b Peer) bool { return a.equal(&b) }) {
		m.peers = set
		m.wanted++
		m.prune()
	}
	target := m.wanted
	m.mu.Unlock()
	select {
	case m.poke <- struct{}{}:
	default: // Run is about to look anyway
	}
	for {
		m.mu.Lock()
		settled := !m.running || m.applied >= target
		progress := m.progress
		m.mu.Unlock()
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

// prune brings sessions in step with peers.
func (m *Manager) prune() {
	in := make(map[netip.Addr]bool, len(m.peers))
	for i := range m.peers {
		p := &m.peers[i]
		in[p.Address] = true
		w := m.watched(p.Address)
		w.inSet = true
		w.status.LocalAddress = p.LocalAddress
		w.status.Multiplier = p.Multiplier
	}
	for address, w := range m.sessions {
		if in[address] {
			continue
		}
		if w.inSet {
			m.metrics.forget(address)
		}
		w.inSet, w.status = false, idle(address)
		m.tidy(address)
	}
}

// watched returns the entry of an address, a new one if need be.
func (m *Manager) watched(address netip.Addr) *watched {
	w := m.sessions[address]
	if w == nil {
		w = &watched{status: idle(address)}
		m.sessions[address] = w
	}
	return w
}

// tidy removes an entry that nobody needs.
func (m *Manager) tidy(address netip.Addr) {
	if w := m.sessions[address]; w != nil && !w.inSet && len(w.watchers) == 0 {
		delete(m.sessions, address)
	}
}

// idle is the status of a session before the engine has reported one.
func idle(address netip.Addr) Status {
	return Status{Peer: address, State: Down, RemoteState: Down, DetectMargin: noMargin}
}

// Watch calls f with each Change of the session with a neighbor, in order,
// until the returned function is called; when that returns, f does not run and
// will not. Leaving the set is no Change. The neighbor need not be in the set yet. f must not block, for all
// changes wait for it, and must not end its own watch.
func (m *Manager) Watch(neighbor netip.Addr, f func(Change)) (stop func()) {
	neighbor = neighbor.Unmap()
	one := &watcher{f}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watched(neighbor)
	w.watchers = append(slices.Clone(w.watchers), one)
	return func() {
		m.calls.Lock()
		defer m.calls.Unlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		w := m.watched(neighbor)
		w.watchers = slices.DeleteFunc(slices.Clone(w.watchers), func(o *watcher) bool { return o == one })
		m.tidy(neighbor)
	}
}

// took takes a report of the engine.
func (m *Manager) took(r *report) {
	switch {
	case r.Started != nil:
		m.metrics.realtime.Set(1)
		if r.Started.Ordinary != "" {
			m.metrics.realtime.Set(0)
			m.log.Warn("bfd runs without real-time priority", slog.String("error", r.Started.Ordinary))
		}
	case r.Applied != 0:
		m.report(func() { m.applied = r.Applied })
	case r.Strays != nil:
		m.metrics.observeStrays(&m.strays, r.Strays)
		m.strays = *r.Strays
	case r.Session != nil:
		m.update(r.Session)
	}
}

// update takes the new status of one session and tells who wants to know.
func (m *Manager) update(now *Status) {
	m.calls.Lock()
	defer m.calls.Unlock()
	m.mu.Lock()
	w := m.sessions[now.Peer]
	if w == nil || !w.inSet {
		m.mu.Unlock()
		return // just removed
	}
	old := w.status
	if old.LocalDiscriminator != now.LocalDiscriminator {
		// Another session; its counters begin anew.
		old = idle(now.Peer)
		old.State = w.status.State
	}
	w.status = now.clone()
	m.metrics.observe(&old, now)
	watchers := w.watchers
	m.mu.Unlock()

	if now.LastError != "" && now.LastError != old.LastError {
		m.log.Warn("bfd session cannot send or receive", slog.String("neighbor", now.Peer.String()), slog.String("error", now.LastError))
	}
	failed := now.Failures > old.Failures
	if now.State == old.State && !failed {
		return
	}
	level := slog.LevelInfo
	if failed {
		level = slog.LevelWarn
	}
	m.log.Log(context.Background(), level, "bfd session changed",
		slog.String("neighbor", now.Peer.String()),
		slog.String("from", old.State.String()),
		slog.String("to", now.State.String()),
		slog.String("diagnostic", now.Diagnostic.String()),
		slog.String("remote_state", now.RemoteState.String()),
		slog.Bool("failure", failed))
	change := Change{
		Peer: now.Peer, From: old.State, To: now.State,
		Diagnostic: now.Diagnostic, Failure: failed, At: now.Since,
	}
	for _, w := range watchers {
		w.f(change)
	}
}

// lost makes all sessions unknown, for there is no engine. That says nothing
// about the neighbors, so it is no failure.
func (m *Manager) lost() {
	m.mu.Lock()
	var gone []*Status
	for address, w := range m.sessions {
		if w.inSet {
			s := idle(address)
			s.LocalAddress, s.Multiplier, s.Since = w.status.LocalAddress, w.status.Multiplier, time.Now()
			if w.status.State == AdminDown {
				s.State = AdminDown
			}
			gone = append(gone, &s)
		}
	}
	m.applied, m.strays = 0, stray{}
	m.mu.Unlock()
	m.metrics.realtime.Set(0)
	for _, s := range gone {
		m.update(s)
	}
}

// report changes what Set waits for and wakes it.
func (m *Manager) report(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	close(m.progress)
	m.progress = make(chan struct{})
}
