package bgp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"anyedge/bgp/bfd"
	"anyedge/bgp/shield"
)

// hostRetry is the pause after the host would not give what an engine needs.
const hostRetry = time.Second

// neighbor runs the sessions with one upstream router and knows what is on
// them, from what its shield saw on the wire. It implements shield.Events.
type neighbor struct {
	cfg      Neighbor
	asn      uint32     // ours
	routerID netip.Addr // ours
	inside   netip.Addr // where the engine finds it; no other neighbor's
	paths    PathWatcher
	log      *slog.Logger
	metrics  neighborMetrics
	progress func()        // told when applied changes
	poke     chan struct{} // wakes the applier; holds one
	before   *neighbor     // with the same address, which must be gone first; or nil
	gone     chan struct{} // closed when run has ended
	applying sync.Mutex    // held while the engine's local RIB is changed

	mu     sync.Mutex
	want   view   // the desired set
	wanted uint64 // its number
	// The engine's local RIB, and the number of the set that it has reached.
	// Without an engine there is nothing to reach.
	local      map[netip.Prefix]Announcement
	applied    uint64
	applyError string
	hasEngine  bool

	shutdown *string         // why there must be no session, if so
	allowed  chan struct{}   // closed when shutdown becomes nil
	leave    func(why error) // ends the session; nil between sessions

	shield   *shield.Shield // nil without an engine
	state    State
	since    time.Time // Established since, else down since
	open     *shield.Open
	endOfRIB bool
	sessions uint64 // times Established
	lastErr  string
	received map[shield.Type]uint64
	sent     map[shield.Type]uint64
	refused  uint64
	failures uint64    // of the path
	rib      adjRIBOut // of this session
}

// follow makes n the successor of a neighbor with the same address.
func (n *neighbor) follow(was *neighbor) {
	n.before = was
	was.mu.Lock()
	n.shutdown, n.allowed = was.shutdown, was.allowed
	was.mu.Unlock()
}

// run keeps an engine and a session up until ctx ends. The cause of ctx is a
// *shield.Cease.
func (n *neighbor) run(ctx context.Context) {
	defer close(n.gone)
	if n.before != nil {
		<-n.before.gone
		n.before = nil
	}
	if n.paths != nil {
		stop := n.paths.Watch(n.cfg.Address, n.pathChanged)
		defer stop()
	}
	for {
		err := n.runEngine(ctx)
		if err == nil {
			return
		}
		n.failed(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(hostRetry):
		}
	}
}

// runEngine runs an engine and its sessions until ctx ends. An error means that
// the host would not let it: no loopback port, no memory.
func (n *neighbor) runEngine(ctx context.Context) error {
	e, err := startEngine(n.asn, n.routerID, netip.AddrPort{}, nil, n.log)
	if err != nil {
		return err
	}
	defer e.stop()
	if err := e.acceptLocalOnly(); err != nil {
		return err
	}
	events := &events{n, e}
	sh, err := shield.Listen(shield.Config{
		Peer:         netip.AddrPortFrom(n.cfg.Address, n.cfg.Port),
		ASN:          n.cfg.ASN,
		LocalAddress: n.cfg.LocalAddress,
		Password:     n.cfg.Password,
		TTLSecurity:  n.cfg.TTLSecurity,
		Listen:       n.inside,
	}, events)
	if err != nil {
		return err
	}
	defer sh.Close()
	n.attach(sh)
	defer n.detach()

	// What was Set before is there before the first session.
	n.apply(e)
	var applier sync.WaitGroup
	defer applier.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	applier.Go(func() { n.keepApplied(ctx, e) })
	return n.serve(ctx, e, sh)
}

func (n *neighbor) attach(sh *shield.Shield) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shield, n.local, n.hasEngine, n.applied = sh, make(map[netip.Prefix]Announcement), true, 0
}

func (n *neighbor) detach() {
	n.mu.Lock()
	n.shield, n.local, n.hasEngine = nil, nil, false
	n.mu.Unlock()
	n.progress()
}

// serve opens one session after the other until ctx ends. GoBGP gets a fresh
// peer for each, for it would idle for five seconds after a session that ended;
// its delay before dialling, one to two seconds, paces the attempts.
func (n *neighbor) serve(ctx context.Context, e *engine, sh *shield.Shield) error {
	for n.mayOpen(ctx) {
		inside := sh.Addr()
		err := e.addPeer(enginePeer{
			address: inside.Addr(), port: inside.Port(), asn: n.cfg.ASN,
			holdTime: n.cfg.HoldTime, keepalive: n.cfg.KeepaliveInterval,
		})
		if err != nil {
			return err
		}
		session, leave := context.WithCancelCause(ctx)
		n.enter(leave)
		cause := sh.Serve(session)
		n.enter(nil)
		leave(nil)
		if ctx.Err() != nil {
			return nil // the engine's stop deletes the peer
		}
		n.failed(cause)
		if err := e.deletePeer(inside.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// mayOpen waits until no administrator forbids a session, and reports whether
// ctx still lives.
func (n *neighbor) mayOpen(ctx context.Context) bool {
	for ctx.Err() == nil {
		n.mu.Lock()
		forbidden, allowed := n.shutdown != nil, n.allowed
		n.mu.Unlock()
		if !forbidden {
			return true
		}
		select {
		case <-allowed:
		case <-ctx.Done():
		}
	}
	return false
}

// enter notes how the session that begins now can be ended; nil: it has ended.
func (n *neighbor) enter(leave func(error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leave = leave
	if leave != nil && n.shutdown != nil {
		leave(n.shutdownCease())
	}
}

func (n *neighbor) shutdownCease() *shield.Cease {
	return &shield.Cease{Subcode: shield.CeaseShutdown, Text: *n.shutdown}
}

// shutDown ends the session and forbids another one; nil permits it again.
func (n *neighbor) shutDown(text *string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.shutdown
	n.shutdown = text
	switch {
	case text != nil && was == nil:
		n.allowed = make(chan struct{})
		if n.leave != nil {
			n.leave(n.shutdownCease())
		}
	case text == nil && was != nil:
		close(n.allowed)
	}
}

// pathChanged ends the session at once when the path to the neighbor has failed
// (RFC 5882 section 4.2, RFC 9384). A path that is not Up for any other reason
// changes nothing, and nothing waits for it to come up.
func (n *neighbor) pathChanged(c bfd.Change) {
	if !c.Failure {
		return
	}
	n.metrics.pathFailures.Inc()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failures++
	if n.leave != nil && n.state >= OpenSent {
		n.leave(&shield.Cease{Subcode: shield.CeaseBFDDown})
	}
}

// failed records why there is no session. Repeated failures are logged once.
func (n *neighbor) failed(err error) {
	text := err.Error()
	n.mu.Lock()
	repeated := text == n.lastErr
	n.lastErr = text
	n.mu.Unlock()
	level := slog.LevelWarn
	if repeated || errors.Is(err, shield.ErrPeerUnreachable) {
		level = slog.LevelDebug
	}
	n.log.Log(context.Background(), level, "bgp session failed", slog.String("error", text))
}

// events is a neighbor as its shield sees it.
type events struct {
	*neighbor
	engine *engine
}

// State implements shield.Events.
func (n *events) State(s State, err error) {
	if err != nil {
		n.failed(err)
		return
	}
	n.mu.Lock()
	was, since := n.state, n.since
	n.state = s
	switch {
	case s == Established:
		n.since = time.Now()
		n.sessions++
		n.lastErr = ""
	case was == Established:
		n.since = time.Now()
	}
	if s < OpenSent {
		clear(n.rib)
		n.endOfRIB = false
		n.metrics.announced.Set(0)
	}
	n.mu.Unlock()
	switch {
	case s == Established:
		n.metrics.up.Set(1)
		n.metrics.sessions.Inc()
		n.log.Info("bgp session established")
		n.finishInitial()
	case was == Established:
		n.metrics.up.Set(0)
		n.log.Warn("bgp session ended", slog.Duration("lasted", time.Since(since).Round(time.Millisecond)))
	}
}

// Opened implements shield.Events: what the neighbor cannot take leaves the
// local RIB before the session is Established.
func (n *events) Opened(o shield.Open) {
	n.mu.Lock()
	n.open = &o
	n.mu.Unlock()
	n.apply(n.engine)
}

// Received implements shield.Events.
func (n *events) Received(t shield.Type, refused bool) {
	n.metrics.received[t].Inc()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.received[t]++
	if refused && t == shield.TypeUpdate {
		n.refused++
		n.metrics.refused.Inc()
	}
}

// Sent implements shield.Events.
func (n *events) Sent(msg []byte) {
	t := shield.TypeOf(msg)
	n.metrics.sent[t].Inc()
	n.mu.Lock()
	n.sent[t]++
	var err error
	if t == shield.TypeUpdate {
		err = n.rib.update(msg, time.Now())
		n.metrics.announced.Set(float64(len(n.rib)))
	}
	n.mu.Unlock()
	if err != nil {
		n.log.Error("adj-rib-out is incomplete", slog.Any("error", err))
	}
	if t == shield.TypeUpdate {
		n.finishInitial()
	}
}

// finishInitial has End-of-RIB sent, once in a session, as soon as all that the
// engine has was sent. GoBGP sends it with graceful restart only, yet it is of
// use without (RFC 4724 section 2).
func (n *neighbor) finishInitial() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != Established || n.endOfRIB || n.shield == nil {
		return
	}
	for prefix := range n.local {
		if _, sent := n.rib[prefix]; !sent {
			return
		}
	}
	n.endOfRIB = true
	n.shield.EndOfRIB()
}
