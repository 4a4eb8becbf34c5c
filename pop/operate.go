package pop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"anyedge/bgp"
	"anyedge/internal/audit"
)

// Errors of what operators ask of the sessions with upstreams.
var (
	// ErrNoBGP: the node has no BGP sessions.
	ErrNoBGP = errors.New("the node has no bgp")
	// ErrLastSession: without this session nobody would get the routes.
	ErrLastSession = errors.New("no other session is established, so that would withdraw every route: drain the node first")
)

// AddBlackhole asks upstreams to discard the traffic to one address for so long,
// up to [MaxBlackhole]. Every neighbor that it names must be one. Who does it is
// who.By.
func (a *Agent) AddBlackhole(ctx context.Context, who audit.Actor, h Blackhole, span time.Duration) error {
	h.By, h.At = who.By, time.Now()
	h.Until = h.At.Add(span)
	e := audit.Entry{Act: audit.Blackhole, On: fmt.Sprint(h.Address), What: h.Reason, Until: h.Until}
	return a.audit.Done(who, e, a.addBlackhole(ctx, h, span))
}

func (a *Agent) addBlackhole(ctx context.Context, h Blackhole, span time.Duration) error {
	if a.upstreams == nil {
		return ErrNoBGP
	}
	if span <= 0 || span > MaxBlackhole {
		return fmt.Errorf("for: %s is not within 0s to %s", span, MaxBlackhole)
	}
	h.Neighbors = slices.Clone(h.Neighbors)
	for i, n := range h.Neighbors {
		if h.Neighbors[i] = n.Unmap(); !a.upstreams.has(h.Neighbors[i]) {
			return fmt.Errorf("%s is not a neighbor", n)
		}
	}
	return a.upstreams.blackholes.add(ctx, h)
}

// RemoveBlackhole takes a blackhole back. It reports whether there was one.
func (a *Agent) RemoveBlackhole(ctx context.Context, who audit.Actor, address netip.Addr) (found bool, err error) {
	if a.upstreams == nil {
		err = ErrNoBGP
	} else {
		found, err = a.upstreams.blackholes.remove(ctx, address)
	}
	return found, a.audit.Done(who, audit.Entry{Act: audit.ClearBlackhole, On: fmt.Sprint(address)}, err)
}

// Blackholes lists the blackholes in force, by address.
func (a *Agent) Blackholes() []Blackhole {
	if a.upstreams == nil {
		return nil
	}
	return a.upstreams.blackholes.all()
}

// ShutdownNeighbor closes the session with a neighbor, tells it the text (RFC
// 9003), and opens no other until EnableNeighbor or the end of the agent. The
// last session is closed by force only, unless the routes are withdrawn.
func (a *Agent) ShutdownNeighbor(who audit.Actor, neighbor netip.Addr, text string, force bool) error {
	e := audit.Entry{Act: audit.Shutdown, On: fmt.Sprint(neighbor), What: text, Forced: force}
	return a.audit.Done(who, e, a.shutdownNeighbor(neighbor.Unmap(), text, force))
}

func (a *Agent) shutdownNeighbor(neighbor netip.Addr, text string, force bool) error {
	if a.upstreams == nil {
		return ErrNoBGP
	}
	s := a.state.Load()
	if !force && s != nil && s.Announced != Withdrawn && a.upstreams.isLast(neighbor) {
		return ErrLastSession
	}
	return a.upstreams.speaker.Shutdown(neighbor, text)
}

// EnableNeighbor takes a shutdown back.
func (a *Agent) EnableNeighbor(who audit.Actor, neighbor netip.Addr) error {
	err := ErrNoBGP
	if a.upstreams != nil {
		err = a.upstreams.speaker.Enable(neighbor)
	}
	return a.audit.Done(who, audit.Entry{Act: audit.Enable, On: fmt.Sprint(neighbor)}, err)
}

// has reports whether there is such a neighbor.
func (u *upstreams) has(neighbor netip.Addr) bool {
	return slices.ContainsFunc(u.speaker.Status().Neighbors, func(n bgp.NeighborStatus) bool { return n.Address == neighbor })
}

// isLast reports whether a neighbor's is the only session that is Established.
func (u *upstreams) isLast(neighbor netip.Addr) bool {
	last := false
	for _, n := range u.speaker.Status().Neighbors {
		if n.State != bgp.Established {
			continue
		}
		if n.Address != neighbor {
			return false
		}
		last = true
	}
	return last
}
