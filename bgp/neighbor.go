package bgp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"anyedge/bgp/shield"
)

// farewell is what neighbors are told when the Speaker stops (RFC 9003).
const farewell = "anyedge: speaker stopped"

// neighbor runs the sessions with one upstream router and knows what is on
// them, from what its shield saw on the wire. It implements shield.Events.
type neighbor struct {
	cfg     Neighbor
	inside  netip.Addr // where GoBGP finds it; no other neighbor's
	hold    time.Duration
	log     *slog.Logger
	metrics neighborMetrics

	mu       sync.Mutex
	state    State
	since    time.Time // Established since; zero in other states
	sessions uint64    // times Established
	lastErr  string
	received map[shield.Type]uint64
	sent     map[shield.Type]uint64
	refused  uint64
	rib      adjRIBOut // of this session
}

func newNeighbor(cfg Neighbor, index int, hold time.Duration, log *slog.Logger, m *metrics) *neighbor {
	return &neighbor{
		cfg: cfg,
		// Any loopback address will do: the port is the kernel's choice, so
		// several Speakers may share a host.
		inside:   netip.AddrFrom4([4]byte{127, 77, byte(index >> 8), byte(index)}).Next(),
		hold:     hold,
		log:      log.With(slog.String("neighbor", cfg.Address.String()), slog.Uint64("neighbor_asn", uint64(cfg.ASN))),
		metrics:  m.neighbor(cfg.Address),
		received: make(map[shield.Type]uint64),
		sent:     make(map[shield.Type]uint64),
		rib:      make(adjRIBOut),
	}
}

// run opens one session after the other until ctx ends. GoBGP gets a fresh peer
// for each, for it would idle for five seconds after a session that ended; its
// delay before dialling, one to two seconds, paces the attempts.
func (n *neighbor) run(ctx context.Context, e *engine) error {
	sh, err := shield.Listen(shield.Config{
		Peer:         netip.AddrPortFrom(n.cfg.Address, n.cfg.Port),
		LocalAddress: n.cfg.LocalAddress,
		Password:     n.cfg.Password,
		TTLSecurity:  n.cfg.TTLSecurity,
		Listen:       n.inside,
		Farewell:     farewell,
	}, n)
	if err != nil {
		return err
	}
	defer sh.Close()
	inside := sh.Addr()
	for {
		err := e.addPeer(enginePeer{address: inside.Addr(), port: inside.Port(), asn: n.cfg.ASN, holdTime: n.hold})
		if err != nil {
			return err
		}
		cause := sh.Serve(ctx)
		if ctx.Err() != nil {
			return nil // the engine's stop deletes the peer
		}
		n.failed(cause)
		if err := e.deletePeer(inside.Addr()); err != nil {
			return err
		}
	}
}

// State implements shield.Events.
func (n *neighbor) State(s State, err error) {
	if err != nil {
		n.failed(err)
		return
	}
	n.mu.Lock()
	was, since := n.state, n.since
	n.state, n.since = s, time.Time{}
	if s == Established {
		n.since = time.Now()
		n.sessions++
		n.lastErr = ""
	}
	if s < OpenSent {
		clear(n.rib)
		n.metrics.announced.Set(0)
	}
	n.mu.Unlock()
	switch {
	case s == Established:
		n.metrics.up.Set(1)
		n.metrics.sessions.Inc()
		n.log.Info("bgp session established")
	case was == Established:
		n.metrics.up.Set(0)
		n.log.Warn("bgp session ended", slog.Duration("lasted", time.Since(since).Round(time.Millisecond)))
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

// Received implements shield.Events.
func (n *neighbor) Received(t shield.Type, refused bool) {
	n.metrics.received[t].Inc()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.received[t]++
	if refused {
		n.refused++
		n.metrics.refused.Inc()
	}
}

// Sent implements shield.Events.
func (n *neighbor) Sent(msg []byte) {
	t := shield.TypeOf(msg)
	n.metrics.sent[t].Inc()
	n.mu.Lock()
	n.sent[t]++
	var err error
	if t == shield.TypeUpdate {
		err = n.rib.update(msg)
		n.metrics.announced.Set(float64(len(n.rib)))
	}
	n.mu.Unlock()
	if err != nil {
		n.log.Error("adj-rib-out is incomplete", slog.Any("error", err))
	}
}

// status is the neighbor's part of Status.
func (n *neighbor) status() NeighborStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	return NeighborStatus{
		Address:          n.cfg.Address,
		Port:             n.cfg.Port,
		ASN:              n.cfg.ASN,
		State:            n.state,
		EstablishedSince: n.since,
		Sessions:         n.sessions,
		LastError:        n.lastErr,
		RefusedUpdates:   n.refused,
		Received:         countMessages(n.received),
		Sent:             countMessages(n.sent),
		AdjRIBOut:        n.rib.sorted(),
	}
}
