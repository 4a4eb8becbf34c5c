package pop

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"anyedge/bgp"
)

const (
	// MaxBlackhole is the longest that an address may be given up at a time.
	MaxBlackhole = 24 * time.Hour
	// blackholeRetry is the pause before the end of a blackhole that the speaker
	// did not take is tried again.
	blackholeRetry = time.Second
)

// Blackhole is a service address that operators have given up for a while: the
// upstreams are asked to discard all traffic to it (RFC 7999), so that an attack
// on it does not take the others down with it.
type Blackhole struct {
	Address netip.Addr `json:"address"`
	// Neighbors that are asked. None: all of them.
	Neighbors []netip.Addr `json:"neighbors,omitempty"`
	By        string       `json:"by,omitempty"`
	Reason    string       `json:"reason,omitempty"`
	At        time.Time    `json:"at"`
	Until     time.Time    `json:"until"`
}

// blackholer is the view that blackholes have of [bgp.Speaker].
type blackholer interface {
	SetBlackholes(context.Context, []bgp.BlackholeRoute) error
}

// blackholes keeps what operators have given up, and ends it in time. Nothing
// else may begin one. They live in this process only: an agent that starts
// discards nobody's traffic.
type blackholes struct {
	speaker blackholer
	log     *slog.Logger
	poke    chan struct{} // capacity 1: the list has changed

	mu   sync.Mutex // held through a change, the speaker's part of it included
	list []Blackhole
	due  bool // the speaker has not taken the list
}

func newBlackholes(speaker blackholer, log *slog.Logger) *blackholes {
	return &blackholes{speaker: speaker, log: log, poke: make(chan struct{}, 1)}
}

// add begins a blackhole, or replaces that of the same address.
func (b *blackholes) add(ctx context.Context, h Blackhole) error {
	h.Address = h.Address.Unmap()
	b.mu.Lock()
	defer b.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(b.list), func(o Blackhole) bool { return o.Address == h.Address })
	next = append(next, h)
	slices.SortFunc(next, func(a, b Blackhole) int { return a.Address.Compare(b.Address) })
	return b.set(ctx, next)
}

// remove ends a blackhole. It reports whether there was one.
func (b *blackholes) remove(ctx context.Context, address netip.Addr) (bool, error) {
	address = address.Unmap()
	b.mu.Lock()
	defer b.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(b.list), func(o Blackhole) bool { return o.Address == address })
	if len(next) == len(b.list) {
		return false, nil
	}
	return true, b.set(ctx, next)
}

// all lists the blackholes by address.
func (b *blackholes) all() []Blackhole {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.list)
}

// within ends the blackholes outside of the prefixes, which a reload has taken
// from the node.
func (b *blackholes) within(ctx context.Context, prefixes []netip.Prefix) {
	b.end(ctx, "its prefix is not announced any more", func(h Blackhole) bool {
		return !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(h.Address) && !p.IsSingleIP() })
	})
}

// end ends the blackholes that are over. They are off the list whatever the
// speaker says: it is asked again.
func (b *blackholes) end(ctx context.Context, why string, over func(Blackhole) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var next []Blackhole
	for _, h := range b.list {
		if !over(h) {
			next = append(next, h)
			continue
		}
		b.due = true
		b.log.Warn("blackhole ends", "address", h.Address, "reason", why)
	}
	if !b.due {
		return
	}
	b.list = next
	if err := b.set(ctx, next); err != nil {
		b.log.Error("speaker did not take the end of a blackhole, retrying", "error", err)
	}
}

// set hands a list to the speaker. That the speaker is slow is no error: the list
// is in force. The caller holds mu.
func (b *blackholes) set(ctx context.Context, list []Blackhole) error {
	routes := make([]bgp.BlackholeRoute, len(list))
	for i, h := range list {
		routes[i] = bgp.BlackholeRoute{Address: h.Address, Neighbors: h.Neighbors}
	}
	ctx, cancel := context.WithTimeout(ctx, setTimeout)
	defer cancel()
	if err := b.speaker.SetBlackholes(ctx, routes); err != nil && ctx.Err() == nil {
		return err
	}
	b.list, b.due = list, false
	select {
	case b.poke <- struct{}{}:
	default:
	}
	return nil
}

// next is when the next blackhole ends, or the speaker is asked again.
func (b *blackholes) next(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.due {
		return blackholeRetry
	}
	wait := MaxBlackhole
	for _, h := range b.list {
		wait = min(wait, max(0, h.Until.Sub(now)))
	}
	return wait
}

// run ends each blackhole at its time.
func (b *blackholes) run(ctx context.Context) error {
	for {
		timer := time.NewTimer(b.next(time.Now()))
		select {
		case <-timer.C:
			b.end(ctx, "its time is up", func(h Blackhole) bool { return !time.Now().Before(h.Until) })
		case <-b.poke:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}
