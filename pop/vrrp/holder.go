package vrrp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// renewal is the pace at which leases are renewed, and failures tried again.
	renewal = time.Second
	// minLease is the shortest lease: two renewals may be late.
	minLease = 3 * time.Second
	// maxLease bounds the lifetime by which an address is known as leased.
	maxLease = 4*MaxInterval + minLease
)

// leaseOf is for how long an address outlives the last renewal: no less than it
// takes other routers to miss this one.
func leaseOf(interval time.Duration) time.Duration {
	return max(minLease, (4*interval + time.Second).Truncate(time.Second))
}

// leased reports whether an address has a lease, so that it is ours.
func (a address) leased() bool { return a.valid <= maxLease }

// foreign returns the first of the virtual addresses that is on the interface
// without a lease.
func (l link) foreign(virtual []netip.Prefix) (netip.Addr, bool) {
	for _, a := range l.addresses {
		if !a.leased() && isVirtual(virtual, a.prefix.Addr()) {
			return a.prefix.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// primary is the address that advertisements are sent from: the first of the
// interface's own IPv4 addresses, or link-local IPv6 addresses (RFC 9568
// section 7.2).
func (l link) primary(virtual []netip.Prefix) (netip.Addr, bool) {
	for _, a := range l.addresses {
		addr := a.prefix.Addr()
		if !a.usable || a.secondary || addr.Is6() && !addr.IsLinkLocalUnicast() || addr.IsLoopback() {
			continue
		}
		if !a.leased() || !isVirtual(virtual, addr) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func isVirtual(virtual []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(virtual, func(p netip.Prefix) bool { return p.Addr() == a })
}

// holder keeps the virtual addresses on the interface or off it, whichever was
// asked for last, in a goroutine of its own: changes of addresses wait for a
// lock of the kernel that others may hold for long.
type holder struct {
	conn    *rtnl // owned by run
	virtual []netip.Prefix
	family  Family
	lease   time.Duration
	report  func() // called after every result that differs; must not block

	wake     chan struct{}   // capacity 1: want is new
	finished <-chan struct{} // that of the latest wish brought about; owned by run

	mu     sync.Mutex
	want   wish
	result held
}

// wish is what the holder is to bring about.
type wish struct {
	index int  // the interface; zero if there is none
	hold  bool // the addresses are to be on it
	done  chan struct{}
}

// held is what the holder has brought about.
type held struct {
	holding bool
	// added counts the times that an address was put where it was not, which
	// the neighbors must be told.
	added int
	err   error
}

func newHolder(conn *rtnl, c Config, report func()) *holder {
	return &holder{
		conn: conn, virtual: c.Addresses, family: c.family(), lease: leaseOf(c.Interval), report: report,
		wake: make(chan struct{}, 1),
	}
}

// set asks for the addresses to be on an interface or off it. The channel is
// closed after the first attempt, unless another wish comes first.
func (h *holder) set(index int, hold bool) <-chan struct{} {
	w := wish{index: index, hold: hold, done: make(chan struct{})}
	h.mu.Lock()
	h.want = w
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return w.done
}

// state returns the latest result.
func (h *holder) state() held {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.result
}

// run works until ctx ends. It then brings about the last wish, if it did not
// yet, and leaves it at that.
func (h *holder) run(ctx context.Context) {
	again := time.NewTicker(renewal)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			h.fulfil(false)
			return
		case <-h.wake:
			h.fulfil(false)
		case <-again.C:
			h.fulfil(true)
		}
	}
}

// fulfil brings about the wish if it is new. If told to, it also renews what
// was brought about before, and tries again what failed.
func (h *holder) fulfil(renew bool) {
	h.mu.Lock()
	w, was := h.want, h.result
	h.mu.Unlock()
	fresh := w.done != h.finished
	if !fresh && (!renew || !w.hold && was.err == nil) {
		return
	}
	now := h.apply(w, was)
	h.mu.Lock()
	h.result = now
	h.mu.Unlock()
	if was.holding != now.holding || was.added != now.added || was.err != now.err {
		h.report()
	}
	if fresh {
		h.finished = w.done
		close(w.done)
	}
}

// apply brings a wish about as far as it can.
func (h *holder) apply(w wish, was held) held {
	now := held{added: was.added}
	if w.index == 0 {
		return now
	}
	present, err := h.conn.addresses(w.index, h.family)
	if err != nil {
		now.holding, now.err = was.holding, err
		return now
	}
	if w.hold {
		return h.put(w.index, present, was)
	}
	return h.remove(w.index, present, was)
}

// put puts the virtual addresses on the interface, but for those that somebody
// else put there: they are the address owner's.
func (h *holder) put(index int, present []address, was held) held {
	var errs []error
	now := held{holding: true, added: was.added}
	for _, p := range h.virtual {
		at := slices.IndexFunc(present, func(a address) bool { return a.prefix.Addr() == p.Addr() })
		if at >= 0 && !present[at].leased() {
			continue
		}
		if err := h.conn.put(index, p, h.lease); err != nil {
			errs = append(errs, fmt.Errorf("put %s: %w", p, err))
			now.holding = was.holding
		} else if at < 0 {
			now.added++
		}
	}
	now.err = errors.Join(errs...)
	return now
}

// remove takes the virtual addresses that are leased off the interface.
func (h *holder) remove(index int, present []address, was held) held {
	var errs []error
	now := held{added: was.added}
	for _, a := range present {
		if !a.leased() || !isVirtual(h.virtual, a.prefix.Addr()) {
			continue
		}
		// The lease may have run out since.
		if err := h.conn.remove(index, a.prefix); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove %s: %w", a.prefix, err))
			now.holding = was.holding
		}
	}
	now.err = errors.Join(errs...)
	return now
}
