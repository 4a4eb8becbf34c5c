package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// RouterConfig describes a Router.
type RouterConfig struct {
	// ASN is the router's autonomous system number.
	ASN uint32
	// RouterID is an IPv4 address that no peer shares (RFC 6286).
	RouterID netip.Addr
	// Listen is where peers connect to; the port must be given.
	Listen netip.AddrPort
	// Peers may connect, each from its own address.
	Peers []RouterPeer
	// HoldTime as in Config. Default 9s.
	HoldTime time.Duration
}

// RouterPeer may connect to a Router.
type RouterPeer struct {
	// Address the peer connects from.
	Address netip.Addr
	// ASN of the peer.
	ASN uint32
	// Password is the TCP MD5 key (RFC 2385). Empty: none.
	Password string
	// TTLSecurity sends with a TTL of 255 and requires it (RFC 5082).
	TTLSecurity bool
}

// RouterPeerStatus is the session with one peer of a Router.
type RouterPeerStatus struct {
	Address netip.Addr `json:"address"`
	ASN     uint32     `json:"asn"`
	State   State      `json:"state"`
}

// Router is an upstream router for one machine: it waits for peers, takes every
// route they announce and selects the best path for each prefix. It forwards
// nothing; the lab's relay and the tests ask it where a packet would go.
type Router struct {
	cfg  RouterConfig
	log  *slog.Logger
	poke chan struct{} // GoBGP has done something; holds one
	view atomic.Pointer[routerView]
}

// routerView is a Router at one moment. It is never mutated after Store.
type routerView struct {
	paths   map[netip.Prefix][]Path // best first
	peers   []RouterPeerStatus
	changed chan struct{} // closed when the next view is in place
}

// NewRouter checks the config. It starts nothing.
func NewRouter(cfg RouterConfig, log *slog.Logger) (*Router, error) {
	cfg.HoldTime = cmp.Or(cfg.HoldTime, defaultHoldTime)
	var errs []error
	if !validASN(cfg.ASN) {
		errs = append(errs, fmt.Errorf("asn: %d is reserved", cfg.ASN))
	}
	if !cfg.RouterID.Is4() {
		errs = append(errs, fmt.Errorf("router_id: %v is not an IPv4 address", cfg.RouterID))
	}
	if !cfg.Listen.IsValid() || cfg.Listen.Port() == 0 {
		errs = append(errs, fmt.Errorf("listen: %v is not an address and port", cfg.Listen))
	}
	if err := checkHoldTime(cfg.HoldTime); err != nil {
		errs = append(errs, fmt.Errorf("hold_time: %w", err))
	}
	for i, p := range cfg.Peers {
		if !p.Address.IsValid() || !validASN(p.ASN) {
			errs = append(errs, fmt.Errorf("peers[%d]: %v AS %d is not a usable peer", i, p.Address, p.ASN))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r := &Router{cfg: cfg, log: log, poke: make(chan struct{}, 1)}
	r.view.Store(r.emptyView())
	return r, nil
}

func (r *Router) emptyView() *routerView {
	v := &routerView{changed: make(chan struct{})}
	for _, p := range r.cfg.Peers {
		v.peers = append(v.peers, RouterPeerStatus{Address: p.Address, ASN: p.ASN, State: Idle})
	}
	return v
}

// Run listens until ctx ends and then closes every session and returns nil. It
// fails if it cannot listen. Run may be called once.
func (r *Router) Run(ctx context.Context) error {
	e, err := startEngine(r.cfg.ASN, r.cfg.RouterID, r.cfg.Listen, r.wake, r.log)
	if err != nil {
		return err
	}
	defer r.publish(r.emptyView())
	defer e.stop()
	for _, p := range r.cfg.Peers {
		if err := e.addPeer(r.enginePeer(p)); err != nil {
			return err
		}
	}
	for {
		if err := r.refresh(e); err != nil {
			return err
		}
		select {
		case <-r.poke:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Router) enginePeer(p RouterPeer) enginePeer {
	return enginePeer{
		address: p.Address, asn: p.ASN, holdTime: r.cfg.HoldTime,
		password: p.Password, ttlSecurity: p.TTLSecurity,
	}
}

// wake runs on GoBGP's loop.
func (r *Router) wake() {
	select {
	case r.poke <- struct{}{}:
	default: // a refresh is due anyway
	}
}

// refresh publishes what GoBGP knows now.
func (r *Router) refresh(e *engine) error {
	states := make(map[netip.Addr]State)
	var spent []netip.Addr
	err := e.peers(func(p *api.Peer) {
		address, _ := netip.ParseAddr(p.Conf.NeighborAddress)
		states[address] = sessionState(p.State.SessionState)
		if states[address] == Idle && p.State.Messages.Sent.Open > 0 {
			spent = append(spent, address)
		}
	})
	if err != nil {
		return fmt.Errorf("list peers: %w", err)
	}
	view := r.emptyView()
	if view.paths, err = e.paths(); err != nil {
		return err
	}
	for i := range view.peers {
		view.peers[i].State = states[view.peers[i].Address]
	}
	r.logTransitions(view.peers)
	r.publish(view)
	// GoBGP turns a peer away for five seconds after its session has ended.
	// A fresh peer may come back at once.
	for _, p := range r.cfg.Peers {
		if !slices.Contains(spent, p.Address) {
			continue
		}
		if err := e.deletePeer(p.Address); err != nil {
			return err
		}
		if err := e.addPeer(r.enginePeer(p)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Router) logTransitions(now []RouterPeerStatus) {
	for i, was := range r.view.Load().peers {
		if up := now[i].State == Established; up != (was.State == Established) {
			r.log.Info("bgp peer changed", slog.String("peer", was.Address.String()), slog.Bool("established", up))
		}
	}
}

// publish makes v the current view and wakes those who wait for a change.
func (r *Router) publish(v *routerView) {
	close(r.view.Swap(v).changed)
}

// sessionState translates GoBGP's numbering.
func sessionState(s api.PeerState_SessionState) State {
	switch s {
	case api.PeerState_CONNECT:
		return Connect
	case api.PeerState_ACTIVE:
		return Active
	case api.PeerState_OPENSENT:
		return OpenSent
	case api.PeerState_OPENCONFIRM:
		return OpenConfirm
	case api.PeerState_ESTABLISHED:
		return Established
	}
	return Idle
}

// Best returns the best path for exactly this prefix.
func (r *Router) Best(prefix netip.Prefix) (Path, bool) {
	paths := r.view.Load().paths[prefix]
	if len(paths) == 0 {
		return Path{}, false
	}
	return paths[0], true
}

// Paths returns every path for exactly this prefix, the best one first. The
// caller must not change what the paths point to.
func (r *Router) Paths(prefix netip.Prefix) []Path {
	return slices.Clone(r.view.Load().paths[prefix])
}

// Peers returns the sessions in the order of the config.
func (r *Router) Peers() []RouterPeerStatus {
	return slices.Clone(r.view.Load().peers)
}

// Changed returns a channel that is closed when a path or a session may have
// changed after the call. To wait for a condition, call Changed first, then
// look, then wait.
func (r *Router) Changed() <-chan struct{} { return r.view.Load().changed }
