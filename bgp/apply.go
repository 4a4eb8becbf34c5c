package bgp

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"anyedge/bgp/shield"
)

// applyRetry is the pause after a failed change of the local RIB.
const applyRetry = 500 * time.Millisecond

// set makes v what the neighbor should get.
func (n *neighbor) set(v view, number uint64) {
	n.mu.Lock()
	n.want, n.wanted = v, number
	n.mu.Unlock()
	select {
	case n.poke <- struct{}{}:
	default: // the applier is about to look anyway
	}
}

// reached reports whether the engine, if there is one, has a set or a later one.
func (n *neighbor) reached(number uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.hasEngine || n.applied >= number
}

// keepApplied brings the engine's local RIB to the desired set, again and
// again, until ctx ends.
func (n *neighbor) keepApplied(ctx context.Context, e *engine) {
	for {
		var retry <-chan time.Time
		if !n.apply(e) {
			retry = time.After(applyRetry)
		}
		select {
		case <-n.poke:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

// apply changes the engine's local RIB to what the neighbor should get and can
// take, and reports whether that is so now.
func (n *neighbor) apply(e *engine) bool {
	n.applying.Lock()
	defer n.applying.Unlock()
	n.mu.Lock()
	want, number, open := n.want, n.wanted, n.open
	n.mu.Unlock()
	desired := make(map[netip.Prefix]Announcement, len(want))
	for prefix, a := range want {
		if obstacle(&a, open) == "" {
			desired[prefix] = a
		}
	}
	err := n.change(e, desired)
	n.mu.Lock()
	n.applyError = ""
	if err != nil {
		n.applyError = err.Error()
	} else {
		n.applied = number
	}
	n.mu.Unlock()
	if err != nil {
		n.metrics.applyFailures.Inc()
		n.log.Error("apply announcements failed", slog.Any("error", err))
		return false
	}
	n.progress()
	n.finishInitial()
	return true
}

// change brings the engine to desired, withdrawals first, and n.local with it.
// A prefix that fails does not keep the others back.
func (n *neighbor) change(e *engine, desired map[netip.Prefix]Announcement) error {
	local := n.local // written here only
	var errs []error
	for _, prefix := range slices.SortedFunc(maps.Keys(local), netip.Prefix.Compare) {
		if _, keep := desired[prefix]; keep {
			continue
		}
		if err := e.withdraw(local[prefix], n.asn); err != nil {
			errs = append(errs, err)
			continue
		}
		n.mu.Lock()
		delete(local, prefix)
		n.mu.Unlock()
		n.log.Info("prefix withdrawn", slog.String("prefix", prefix.String()))
	}
	for _, prefix := range slices.SortedFunc(maps.Keys(desired), netip.Prefix.Compare) {
		a := desired[prefix]
		if old, ok := local[prefix]; ok && old.sameRoute(&a) {
			continue
		}
		if err := e.announce(a, n.asn); err != nil {
			errs = append(errs, err)
			continue
		}
		n.mu.Lock()
		local[prefix] = a
		n.mu.Unlock()
		n.log.Info("prefix announced",
			slog.String("prefix", prefix.String()),
			slog.String("next_hop", a.NextHop.String()),
			slog.Uint64("med", uint64(a.MED)),
			slog.Int("prepend", a.Prepend),
			slog.Any("communities", a.Communities),
			slog.Bool("blackhole", a.blackhole))
	}
	return errors.Join(errs...)
}

// obstacle is why a neighbor whose OPEN is known gets no route for a, or empty.
func obstacle(a *Announcement, open *shield.Open) RouteReason {
	switch {
	case a.Withheld != "":
		return RouteWithheld
	case open == nil:
		return ""
	case a.Prefix.Addr().Is4() && !open.IPv4, a.Prefix.Addr().Is6() && !open.IPv6:
		return RouteFamily
	case a.Prefix.Addr().Is4() && a.NextHop.Is6() && !open.NextHopIPv6:
		return RouteNextHop
	}
	return ""
}
