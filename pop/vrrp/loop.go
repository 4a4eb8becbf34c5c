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
	// settleTime is for how long a planned hand-over waits for the addresses to
	// be off before it tells the others to take over.
	settleTime = 200 * time.Millisecond
	// burst bounds how many packets are taken before timers get their turn.
	burst = 256
	// quiet is for how long one kind of warning is not repeated.
	quiet = time.Minute
)

// loop is the state of one Run. All of it belongs to Run's goroutine, but for
// what the watcher and the holder own.
//
// It waits in ppoll itself, rather than in goroutines that feed a channel, so
// that every packet that has arrived is seen before a timer is acted on: a
// process that was stopped for a while must hear the others first.
type loop struct {
	*Router
	waker   *waker
	machine *machine
	watcher *watcher
	holder  *holder

	looks    int // of the watcher's, those followed
	link     link
	port     *port // nil while the interface is not to be used
	announce announcer
	told     int                  // of the holder's additions, those announced
	released <-chan struct{}      // closed when the addresses are off, as asked last
	warned   map[string]time.Time // by kind of warning
	heard    *Heard
	since    time.Time

	// The latest errors of each part; nil once it works.
	linkErr, portErr, sendErr, heldErr error
}

func newLoop(r *Router, wake *waker) (*loop, error) {
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR)
	if r.cfg.family() == IPv6 {
		groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV6_IFADDR
	}
	var monitor, query, changes *rtnl
	err := errors.Join(
		open(&monitor, groups),
		open(&query, 0),
		open(&changes, 0),
		permitted(r.cfg.family()),
	)
	if err != nil {
		for _, c := range []*rtnl{monitor, query, changes} {
			if c != nil {
				c.close()
			}
		}
		return nil, err
	}
	return &loop{
		Router: r, waker: wake, machine: newMachine(r.cfg),
		watcher: &watcher{monitor: monitor, query: query, name: r.cfg.Interface, family: r.cfg.family(), report: wake.wake},
		holder:  newHolder(changes, r.cfg, wake.wake),
		warned:  make(map[string]time.Time), since: time.Now(),
	}, nil
}

func open(c **rtnl, groups uint32) (err error) {
	*c, err = openRTNL(groups)
	return err
}

// permitted tells early that the process may not open the sockets it will need.
func permitted(family Family) error {
	fd, err := unix.Socket(int(family.number()), unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	return unix.Close(fd)
}

func (l *loop) close() {
	if l.port != nil {
		l.port.close()
	}
	for _, c := range []*rtnl{l.watcher.monitor, l.watcher.query, l.holder.conn} {
		c.close()
	}
}

// run takes part in the election until ctx ends.
func (l *loop) run(ctx context.Context) error {
	watching, err := newWaker()
	if err != nil {
		return err
	}
	defer watching.close()
	parts, stop := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	defer group.Wait()
	defer func() { stop(); watching.wake() }()

	l.watcher.look()
	group.Go(func() { l.watcher.run(parts, watching) })
	group.Go(func() { l.holder.run(parts) })
	l.settle(l.holder.set(l.watcher.state().link.index, false)) // what an earlier life left

	defer l.retire()
	for ctx.Err() == nil {
		now := time.Now()
		l.take(now)
		l.reconsider(now)
		l.perform(now, l.machine.tick(now))
		l.spread(now)
		l.show()
		if err := l.wait(); err != nil {
			return err
		}
	}
	return nil
}

// retire hands over and takes the addresses off.
func (l *loop) retire() {
	l.perform(time.Now(), l.machine.stop("stopped"))
	l.settle(l.holder.set(l.link.index, false))
	l.show()
}

// settle waits a little for a wish of the holder's.
func (l *loop) settle(done <-chan struct{}) {
	limit := time.NewTimer(settleTime)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	}
}

// wait returns when something happened or a deadline has come.
func (l *loop) wait() error {
	fds := []int{l.waker.fd}
	if l.port != nil {
		fds = append(fds, l.port.raw)
	}
	deadline := l.machine.deadline
	if d := l.announce.deadline(); deadline.IsZero() || !d.IsZero() && d.Before(deadline) {
		deadline = d
	}
	err := poll(deadline, fds...)
	l.waker.clear()
	return err
}

// take takes in what has happened: packets first.
func (l *loop) take(now time.Time) {
	for range burst {
		if l.port == nil {
			break
		}
		p, ok := l.port.receive()
		if !ok {
			break
		}
		l.receive(now, p)
	}
	if s := l.watcher.state(); s.looks != l.looks {
		l.looks = s.looks
		l.follow(now, s)
	}
	if h := l.holder.state(); h.holding && h.added != l.told && l.machine.state == Active {
		l.told = h.added
		l.announce.start(now)
	}
}

// receive passes a packet to the machine if it is valid.
func (l *loop) receive(now time.Time, p packet) {
	a, why := parse(p, l.cfg.VRID)
	if why == discardNone && p.from == l.machine.address {
		// The network sent it back, or another has our address: never an
		// advertisement to answer.
		why = discardOwn
	}
	if why != discardNone {
		l.metrics.discarded[why].Inc()
		if why != discardVRID {
			l.warn(now, string(why), "vrrp packet dropped", "reason", why, "from", p.from)
		}
		return
	}
	l.metrics.received.Inc()
	l.compare(now, a, p.from)
	l.heard = &Heard{From: p.from, Priority: a.priority, Interval: a.interval, At: now}
	l.perform(now, l.machine.receive(now, a, p.from))
}

// compare tells of what a valid advertisement and the config do not agree on
// (RFC 9568 section 7.1 and erratum 8298). It changes nothing.
func (l *loop) compare(now time.Time, a advertisement, from netip.Addr) {
	if a.interval != l.cfg.Interval {
		l.metrics.mismatches["interval"].Inc()
		l.warn(now, "interval mismatch", "another router has another interval", "from", from, "interval", a.interval)
	}
	same := len(a.addresses) == len(l.cfg.Addresses)
	for _, p := range l.cfg.Addresses {
		same = same && slices.Contains(a.addresses, p.Addr())
	}
	if !same {
		l.metrics.mismatches["addresses"].Inc()
		l.warn(now, "addresses mismatch", "another router has other virtual addresses", "from", from, "addresses", a.addresses)
	}
	if a.priority == PriorityOwner && l.machine.priority == PriorityOwner {
		l.warn(now, "two owners", "another router claims to own the addresses too", "from", from)
	}
}

// follow takes in what was seen of the interface, and opens or closes its
// sockets.
func (l *loop) follow(now time.Time, s sight) {
	was := l.link
	l.link = s.link
	if l.linkErr = s.err; s.err != nil {
		l.fail(now, failLink, s.err)
	}
	if l.port != nil && (l.port.index != l.link.index || !l.link.up) {
		l.port.close()
		l.port = nil
	}
	if l.portErr = nil; l.port == nil && l.link.up && l.link.ethernet {
		if l.port, l.portErr = openPort(l.cfg.Interface, l.link, l.cfg.family()); l.portErr != nil {
			l.fail(now, failLink, l.portErr)
		}
	}
	if l.machine.state == Active && l.link.mac != was.mac {
		l.announce.start(now)
	}
}

// reconsider applies what is known of the node and the interface.
func (l *loop) reconsider(now time.Time) {
	health := l.wanted()
	primary, why := l.obstacle()
	if !health.Serving {
		if why = "not serving"; health.Reason != "" {
			why += ": " + health.Reason
		}
	}
	switch {
	case why != "":
		l.perform(now, l.machine.stop(why))
		l.machine.priority = health.Priority
	case l.machine.state == Initialize:
		l.machine.priority = health.Priority
		l.perform(now, l.machine.start(now, primary))
	default:
		l.machine.address = primary
		l.perform(now, l.machine.prioritize(now, health.Priority))
	}
}

// obstacle returns the primary address, or what about the interface keeps the
// router out of the election.
func (l *loop) obstacle() (primary netip.Addr, why string) {
	primary, found := l.link.primary(l.cfg.Addresses)
	foreign, conflict := l.link.foreign(l.cfg.Addresses)
	switch {
	case l.link.index == 0:
		why = "the interface does not exist"
	case !l.link.ethernet:
		why = "the interface is not Ethernet"
	case !l.link.up:
		why = "the interface is down"
	case !found:
		why = "the interface has no usable address of its own"
	case conflict && l.cfg.Priority != PriorityOwner:
		why = fmt.Sprintf("%s is on the interface, put there by somebody else", foreign)
	case l.port == nil:
		why = "the interface cannot be opened"
	}
	return primary, why
}

// perform carries actions out.
func (l *loop) perform(now time.Time, actions []action) {
	for _, a := range actions {
		switch a {
		case advertise:
			l.send(now, l.machine.priority)
		case resign:
			l.settle(l.released)
			l.send(now, 0)
		case acquire:
			l.told = -1
			l.holder.set(l.link.index, true)
		case release:
			l.announce.stop()
			l.released = l.holder.set(l.link.index, false)
		}
	}
}

// send sends an advertisement.
func (l *loop) send(now time.Time, priority uint8) {
	if l.port == nil {
		return
	}
	a := advertisement{vrid: l.cfg.VRID, priority: priority, interval: l.cfg.Interval}
	for _, p := range l.cfg.Addresses {
		a.addresses = append(a.addresses, p.Addr())
	}
	from := l.machine.address
	if l.sendErr = l.port.send(a.marshal(from, l.cfg.family(), l.cfg.PlainChecksum), from); l.sendErr != nil {
		l.fail(now, failSend, l.sendErr)
		return
	}
	l.metrics.sent.Inc()
}

// spread announces the addresses when it is time.
func (l *loop) spread(now time.Time) {
	if l.port == nil || !l.announce.due(now) {
		return
	}
	for _, p := range l.cfg.Addresses {
		if err := l.port.announce(p.Addr(), l.link.mac); err != nil {
			l.fail(now, failAnnounce, err)
			continue
		}
		l.metrics.announcements.Inc()
	}
}

// show publishes the status.
func (l *loop) show() {
	held := l.holder.state()
	if held.err != l.heldErr {
		if l.heldErr = held.err; held.err != nil {
			l.fail(time.Now(), failAddress, held.err)
		}
	}
	s := l.Status()
	if s.State != l.machine.state {
		l.since = time.Now()
	}
	s.State, s.Since, s.Reason, s.Priority = l.machine.state, l.since, l.machine.reason, l.machine.priority
	s.Holding, s.Heard, s.Error = held.holding, l.heard, ""
	s.Primary, _ = l.link.primary(l.cfg.Addresses)
	_, s.Obstacle = l.obstacle()
	if err := errors.Join(l.linkErr, l.portErr, held.err, l.sendErr); err != nil {
		s.Error = err.Error()
	}
	l.publish(s)
}

// fail counts a failure, and warns of it.
func (l *loop) fail(now time.Time, what string, err error) {
	l.metrics.failures[what].Inc()
	l.warn(now, what, "vrrp operation failed, it is tried again", "operation", what, "error", err)
}

// warn logs, at most once in a while for each kind (RFC 9568 section 7.1).
func (l *loop) warn(now time.Time, kind, message string, args ...any) {
	if last, ok := l.warned[kind]; ok && now.Sub(last) < quiet {
		return
	}
	l.warned[kind] = now
	l.log.Warn(message, args...)
}
