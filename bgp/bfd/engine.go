package bfd

import (
	crand "crypto/rand"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// retryInterval is between attempts to open a socket.
	retryInterval = time.Second
	// stopTimeout bounds the farewells when the engine ends.
	stopTimeout = time.Second
	// floodRest is how long a listener is left alone after it was read
	// batch*batches times in one pass and still had more.
	floodRest = time.Millisecond
)

// engine runs all sessions on one thread, and nothing else touches it.
type engine struct {
	control   control
	random    *rand.Rand
	listeners []*listener
	peers     []*peer // those of the plan, and those that take their leave
	byDiscr   map[uint32]*peer
	bySource  map[source]*peer // those of the plan only
	ports     map[uint16]bool  // of all senders

	stopBy  time.Time // zero while not stopping
	backlog time.Time // when to report again to a Manager that has not read; else zero
	strays  strays
	fds     []unix.PollFd
	buf     [maxPacket]byte
}

// Serve is the engine as a process. It must be called first thing in a program
// that Config.Engine names, with descriptor 3 as the control socket, and returns
// when the Manager has told it to end, or is gone. Signals that a terminal
// or a service manager sends to all processes are for the Manager to act on.
func Serve(socket *os.File) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	fd, err := unix.FcntlInt(socket.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("dup control socket", err)
	}
	socket.Close()
	return runEngine(fd, raiseProcess())
}

// runEngine runs an engine on the calling thread until the other end of the
// control socket says so, or is closed. It owns the socket.
func runEngine(controlFD int, ordinary error) error {
	var seed [32]byte
	crand.Read(seed[:]) // never fails
	e := &engine{
		control:  control{fd: controlFD, buf: make([]byte, maxMessage)},
		random:   rand.New(rand.NewChaCha8(seed)),
		byDiscr:  make(map[uint32]*peer),
		bySource: make(map[source]*peer),
		ports:    make(map[uint16]bool),
	}
	defer e.close()
	hello := new(started)
	if ordinary != nil {
		hello.Ordinary = ordinary.Error()
	}
	e.control.send(&report{Started: hello})
	return e.run()
}

func (e *engine) run() error {
	for {
		if err := e.takePlans(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		// All packets that have come before a session's time is judged: being
		// late here must not look like silence there.
		now := time.Now()
		for _, l := range e.listeners {
			e.read(l, now)
		}
		e.peers = slices.DeleteFunc(e.peers, func(p *peer) bool {
			p.session.advance(now)
			e.transmit(p, now)
			return p.leaving && e.dismiss(p)
		})
		e.reportAll(now)
		if !e.stopBy.IsZero() && (!now.Before(e.stopBy) || e.allDismissed()) {
			return nil
		}
		if err := e.wait(); err != nil {
			return err
		}
	}
}

// wait blocks until a packet, a plan or a deadline comes.
func (e *engine) wait() error {
	at := e.stopBy
	now := time.Now()
	e.fds = append(e.fds[:0], unix.PollFd{Fd: int32(e.control.fd), Events: unix.POLLIN})
	for _, l := range e.listeners {
		switch {
		case l.fd < 0 || now.Before(l.rest):
			at = sooner(at, l.rest)
		default:
			e.fds = append(e.fds, unix.PollFd{Fd: int32(l.fd), Events: unix.POLLIN})
		}
	}
	for _, p := range e.peers {
		at = sooner(at, p.session.deadline())
		if !p.leaving && e.backlog.IsZero() {
			at = sooner(at, p.reportAt)
		}
	}
	at = sooner(at, e.backlog)
	var timeout *unix.Timespec
	if !at.IsZero() {
		ts := unix.NsecToTimespec(int64(max(at.Sub(now), 0)))
		timeout = &ts
	}
	if _, err := unix.Ppoll(e.fds, timeout, nil); err != nil && err != unix.EINTR {
		return os.NewSyscallError("ppoll", err)
	}
	return nil
}

// takePlans applies what the Manager has sent.
func (e *engine) takePlans() error {
	for {
		p, err := e.control.receive()
		if err != nil || p == nil {
			return err
		}
		now := time.Now()
		switch {
		case !e.stopBy.IsZero():
			continue
		case p.Stop:
			e.stop(now)
			continue
		}
		e.apply(p.Peers, now)
		e.control.send(&report{Applied: p.Generation})
	}
}

// apply makes set the peers to watch.
func (e *engine) apply(set []Peer, now time.Time) {
	wanted := make(map[netip.Addr]*Peer, len(set))
	for i := range set {
		wanted[set[i].Address] = &set[i]
	}
	for _, p := range e.peers {
		cfg := wanted[p.cfg.Address]
		switch {
		case p.leaving:
		case cfg == nil || cfg.LocalAddress != p.cfg.LocalAddress:
			p.leaving = true
			e.forgetSource(p)
			p.session.disable(now)
			e.transmit(p, now)
		default:
			p.configure(cfg, now)
			delete(wanted, p.cfg.Address)
		}
	}
	// An old session of a peer that is back has said farewell once.
	e.peers = slices.DeleteFunc(e.peers, func(p *peer) bool {
		back := p.leaving && wanted[p.cfg.Address] != nil
		if back {
			e.release(p)
		}
		return back
	})
	for i := range set {
		if cfg := &set[i]; wanted[cfg.Address] == cfg {
			e.add(cfg, now)
		}
	}
	e.listen(now)
}

// add begins a session.
func (e *engine) add(cfg *Peer, now time.Time) {
	discriminator := e.random.Uint32()
	for discriminator == 0 || e.byDiscr[discriminator] != nil {
		discriminator = e.random.Uint32()
	}
	p := &peer{
		cfg:     *cfg,
		session: newSession(*cfg, discriminator, e.random.Uint32(), e.random, now),
		sender:  sender{fd: -1},
		since:   now,
	}
	p.state = p.session.state
	e.byDiscr[discriminator] = p
	e.peers = append(e.peers, p)
	e.openSender(p, now)
}

// openSender tries to open p's socket, and learns the number of its interface.
func (e *engine) openSender(p *peer, now time.Time) {
	p.sender.close()
	p.sender.opened = now
	index, err := zoneIndex(p.cfg.Address)
	if err == nil {
		err = p.sender.open(&p.cfg, index, e.ports, e.random.IntN)
	}
	p.sender.err = err
	if p.leaving || index == 0 && p.cfg.Address.Zone() != "" {
		return
	}
	e.forgetSource(p)
	p.source = source{p.cfg.Address.WithZone(""), index}
	e.bySource[p.source] = p
}

func (e *engine) forgetSource(p *peer) {
	if e.bySource[p.source] == p {
		delete(e.bySource, p.source)
	}
}

// dismiss releases a leaving peer that knows of it.
func (e *engine) dismiss(p *peer) bool {
	if !p.session.dismissed() {
		return false
	}
	e.release(p)
	return true
}

func (e *engine) release(p *peer) {
	p.sender.close()
	delete(e.ports, p.sender.port)
	delete(e.byDiscr, p.session.local)
}

// listen opens the listeners that the peers of the plan need and closes others.
// One without a local address needs them all, which leaves no port to others.
func (e *engine) listen(now time.Time) {
	var wanted []netip.Addr
	for _, p := range e.peers {
		if !p.cfg.LocalAddress.IsValid() && !p.leaving {
			wanted = append(wanted, unspecified(p.cfg.Address))
		}
	}
	for _, p := range e.peers {
		if p.leaving || slices.Contains(wanted, unspecified(p.cfg.Address)) {
			continue
		}
		wanted = append(wanted, p.cfg.LocalAddress)
	}
	slices.SortFunc(wanted, netip.Addr.Compare)
	wanted = slices.Compact(wanted)
	e.listeners = slices.DeleteFunc(e.listeners, func(l *listener) bool {
		if i := slices.Index(wanted, l.addr); i >= 0 {
			wanted = slices.Delete(wanted, i, i+1)
			return false
		}
		if l.fd >= 0 {
			unix.Close(l.fd)
		}
		return true
	})
	for _, addr := range wanted {
		l := &listener{addr: addr, fd: -1}
		e.listeners = append(e.listeners, l)
		e.reopen(l, now)
	}
}

func (e *engine) reopen(l *listener, now time.Time) {
	if l.err = l.open(); l.err != nil {
		l.rest = now.Add(retryInterval)
	}
}

// read takes the packets that l has.
func (e *engine) read(l *listener, now time.Time) {
	if now.Before(l.rest) {
		return
	}
	if l.fd < 0 {
		e.reopen(l, now)
		return
	}
	for range batches {
		n := l.in.read(l.fd)
		for i := range n {
			b, from := l.in.packet(i)
			e.receive(b, from, now)
		}
		if n < batch {
			return
		}
	}
	l.rest = now.Add(floodRest)
}

// receive takes one packet, RFC 5880 section 6.8.6.
func (e *engine) receive(b []byte, from source, now time.Time) {
	p, raw, why := decode(b)
	var to *peer
	switch {
	case why != kept || p.your == 0:
		to = e.bySource[from]
	default:
		to = e.byDiscr[p.your]
		if to == nil {
			why, to = unknownSession, e.bySource[from]
		}
	}
	switch {
	case to == nil && why == kept:
		e.strays.drops[unknownSession]++
		return
	case to == nil:
		e.strays.drops[why]++
		return
	case why == kept && to.source.index != 0 && from.index != to.source.index:
		why = unknownSession // it is bound to its interface (RFC 5881 section 3)
	case why == kept:
		why = to.session.receive(now, p, raw)
	}
	if why != kept {
		to.drops[why]++
		return
	}
	to.packetsIn++
}

// transmit sends what p's session has to send.
func (e *engine) transmit(p *peer, now time.Time) {
	for {
		b := p.session.next(now, e.buf[:0])
		if b == nil {
			return
		}
		again := now.Sub(p.sender.opened) >= retryInterval
		if p.sender.fd < 0 && again {
			e.openSender(p, now)
			again = false
		}
		if p.sender.fd < 0 {
			p.sendErrors++
			continue
		}
		if err := p.sender.send(b); err != nil {
			p.sendErrors++
			p.sender.err = err
			if again {
				e.openSender(p, now) // the interface may be another by now
			}
			continue
		}
		p.sender.err = nil
		p.packetsOut++
	}
}

// stop takes all sessions down, so that the neighbors see no failure.
func (e *engine) stop(now time.Time) {
	e.stopBy = now.Add(stopTimeout)
	for _, p := range e.peers {
		p.session.disable(now)
	}
}

func (e *engine) allDismissed() bool {
	return !slices.ContainsFunc(e.peers, func(p *peer) bool { return !p.session.dismissed() })
}

func (e *engine) close() {
	for _, p := range e.peers {
		p.sender.close()
	}
	for _, l := range e.listeners {
		if l.fd >= 0 {
			unix.Close(l.fd)
		}
	}
	unix.Close(e.control.fd)
}
