package http2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"anyedge/pop/proxy/exchange"
)

const (
	// maxLinks bounds the connections to one origin that take requests.
	maxLinks = 8
	// maxLoad bounds the streams on one.
	maxLoad = 100
)

var (
	errStopped = errors.New("the back has ended")
	errNoSlot  = errors.New("no stream came free")
)

// group is the connections to one origin. Its mutex may be locked by who holds
// that of a connection, but not the other way round.
type group struct {
	back *Back
	to   netip.AddrPort

	mu      sync.Mutex
	links   []*link // that take requests
	coming  int     // connections that are dialed, or not greeted yet
	epoch   int     // connections of an older one take no requests
	waiting []*waiter
}

// waiter waits for a stream.
type waiter struct {
	avoid *link
	got   chan grant
}

type grant struct {
	link *link
	err  error
}

// acquire returns a connection on which one more stream may be opened, the least
// loaded one; avoid, which may be nil, only if there is no other. It waits for
// wait at most, unless that is 0. The stream is to be given back by release.
func (g *group) acquire(ctx context.Context, wait time.Duration, avoid *link) (*link, error) {
	g.mu.Lock()
	if l := g.takeLocked(avoid); l != nil {
		g.mu.Unlock()
		return l, nil
	}
	w := &waiter{avoid: avoid, got: make(chan grant, 1)}
	g.waiting = append(g.waiting, w)
	g.dialLocked()
	g.mu.Unlock()

	var expired <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		expired = timer.C
	}
	var err error
	select {
	case got := <-w.got:
		return got.link, got.err
	case <-expired:
		err = fmt.Errorf("%w: %w", errNoSlot, exchange.ErrSlow)
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", exchange.ErrConnect, context.Cause(ctx))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, w); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	} else if got := <-w.got; got.link != nil {
		g.releaseLocked(got.link)
	}
	return nil, err
}

// takeLocked takes a stream of the least loaded connection; nil if there is
// none.
func (g *group) takeLocked(avoid *link) *link {
	var best *link
	for _, l := range g.links {
		if l.load < l.bound && (best == nil || best == avoid || l != avoid && l.load < best.load) {
			best = l
		}
	}
	if best != nil {
		best.load++
	}
	return best
}

// release gives a stream back.
func (g *group) release(l *link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.releaseLocked(l)
}

func (g *group) releaseLocked(l *link) {
	l.load--
	g.serveLocked()
}

// serveLocked gives streams to those who wait, in order.
func (g *group) serveLocked() {
	for len(g.waiting) > 0 {
		l := g.takeLocked(g.waiting[0].avoid)
		if l == nil {
			return
		}
		g.waiting[0].got <- grant{link: l}
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
	}
}

// failLocked tells all who wait that no connection is to be had.
func (g *group) failLocked(err error) {
	for _, w := range g.waiting {
		w.got <- grant{err: fmt.Errorf("%w: %w", exchange.ErrConnect, err)}
	}
	g.waiting = nil
}

// dialLocked has as many connections dialed as those who wait need.
func (g *group) dialLocked() {
	for len(g.waiting) > g.coming*maxLoad && len(g.links)+g.coming < maxLinks {
		epoch := g.epoch
		started := g.back.start(func() {
			conn, err := g.back.config.Dial(g.back.life, g.to)
			if err != nil {
				g.failed(err)
				return
			}
			newLink(g, conn, epoch).serve()
		})
		if !started {
			if len(g.links)+g.coming == 0 {
				g.failLocked(errStopped)
			}
			return
		}
		g.coming++
	}
}

// adopt makes a connection of the group of conn, and returns false if there are
// enough.
func (g *group) adopt(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.links)+g.coming >= maxLinks || !g.back.start(newLink(g, conn, g.epoch).serve) {
		return false
	}
	g.coming++
	return true
}

// failed notes that a connection that was coming does not come. Those who wait
// go on only if there is another one.
func (g *group) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.coming--
	if len(g.links)+g.coming == 0 {
		g.failLocked(err)
	}
}

// add takes a connection that came into use. It returns false if it came too
// late for that.
func (g *group) add(l *link) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.coming--
	l.listed = l.epoch == g.epoch
	if l.listed {
		g.links = append(g.links, l)
		g.serveLocked()
	}
	g.dialLocked()
	return l.listed
}

// rebound sets how many streams a connection may have.
func (g *group) rebound(l *link, bound int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.bound = bound
	g.serveLocked()
}

// remove takes a connection out of use, if it is in use.
func (g *group) remove(l *link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.links, l); i >= 0 {
		g.links = slices.Delete(g.links, i, i+1)
		g.dialLocked()
	}
}

// flush takes all connections out of use.
func (g *group) flush() {
	g.mu.Lock()
	links := g.links
	g.links = nil
	g.epoch++
	g.dialLocked()
	g.mu.Unlock()
	for _, l := range links {
		l.retire()
	}
}
