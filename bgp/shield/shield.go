// Package shield stands between a BGP implementation (the engine) and one BGP
// peer, and lets nothing through that the engine has no use for.
//
// A speaker that only announces has no use for routes, yet a library parses
// every UPDATE before any import policy sees it, and a fault there takes the
// routes of the whole node down. So the engine never talks to the peer: it
// dials the shield's own loopback address, the shield dials the peer, and
// between the two it frames messages (RFC 4271 section 4.1), checks marker,
// length, type and order, refuses every inbound UPDATE, and answers a protocol
// error itself with the NOTIFICATION the RFC asks for. Of the peer's OPEN the
// engine gets a new one, with what the two have in common and no more. What
// leaves the node is relayed unchanged, and End-of-RIB markers are added to it
// when the engine's owner says so. The shield also owns the peer's socket: source
// address, TCP MD5 (RFC 2385) and GTSM (RFC 5082).
//
// The engine keeps the session's timers. KEEPALIVEs and refused UPDATEs reach it
// as a KEEPALIVE from time to time, because either restarts the hold timer (RFC
// 4271 section 4.4). ROUTE-REFRESHes are paced, for an engine queues its answers.
// A flood of any kind makes the peer wait, and costs little.
//
// # Concurrency
//
// A Shield serves one session at a time: Serve must not run twice at once.
// Serve runs one goroutine per direction and joins both. Events are called
// from those goroutines and must not block.
package shield

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// engineWait bounds how long an engine connection is held while the peer
// cannot be reached. GoBGP gives up after 240 s in OpenSent; ending before it
// lets the owner start a fresh attempt instead of an idle hold.
const engineWait = 200 * time.Second

// ErrPeerUnreachable is returned by Serve when the peer could not be reached
// for so long that the engine's connection attempt had to be given up.
var ErrPeerUnreachable = errors.New("peer unreachable")

// errForeign is reported when another process of the host connects to the
// engine side.
var errForeign = errors.New("refused a connection to the engine side from another process")

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// Config describes one peer. Zero durations mean the documented defaults.
type Config struct {
	// Peer is where the BGP peer listens.
	Peer netip.AddrPort
	// ASN is the peer's AS. An OPEN of another one is refused.
	ASN uint32
	// LocalAddress is the source address towards the peer. Zero: the kernel's
	// choice.
	LocalAddress netip.Addr
	// Password is the TCP MD5 key (RFC 2385), at most 80 bytes. Empty: none.
	// It is a secret: it is never part of an error or an event.
	Password string
	// TTLSecurity sends with TTL 255 and takes only packets that arrive with
	// 255 (RFC 5082), so that the peer must be on the same link.
	TTLSecurity bool
	// Listen is the IPv4 loopback address that the engine dials; the port is
	// the kernel's choice. It is the peer's identifier to the engine.
	Listen netip.Addr
	// DialTimeout bounds one connection attempt to the peer. Default 3s.
	DialTimeout time.Duration
	// RetryInterval is the pause between two attempts. Default 500ms.
	RetryInterval time.Duration
	// OpenTimeout bounds the time from the connection to Established.
	// Default 30s.
	OpenTimeout time.Duration
	// SendTimeout ends a session whose peer takes no byte for this long, for
	// such a peer would never learn of a withdrawal (RFC 9687). Default: twice
	// the hold time, but at least 20s.
	SendTimeout time.Duration
}

// Events observes one session. The methods are called synchronously on the
// session's path and must not block.
type Events interface {
	// State reports a new state of the session, or, with an error, a failed
	// attempt within the state. It is called before a message that depends on
	// the state is relayed.
	State(s State, err error)
	// Opened reports the peer's OPEN, before the engine gets it. Unlike the
	// other methods it may take a moment: the session waits.
	Opened(o Open)
	// Received reports a message from the peer whose header is right. A refused
	// one was dropped for what it is, or ends the session.
	Received(t Type, refused bool)
	// Sent reports a whole message that was written to the peer's connection,
	// header included. It is valid only during the call.
	Sent(msg []byte)
}

// Shield is the loopback end of one peer. It is made by Listen.
type Shield struct {
	cfg      Config
	events   Events
	listener *net.TCPListener
	session  atomic.Pointer[relay] // nil between sessions
}

// Listen binds the engine side of a peer's shield. It starts nothing; the
// caller must Close the Shield.
func Listen(cfg Config, events Events) (*Shield, error) {
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 3*time.Second)
	cfg.RetryInterval = cmp.Or(cfg.RetryInterval, 500*time.Millisecond)
	cfg.OpenTimeout = cmp.Or(cfg.OpenTimeout, 30*time.Second)
	if !cfg.Listen.Is4() || !cfg.Listen.IsLoopback() {
		return nil, fmt.Errorf("listen for the engine: %v is not an IPv4 loopback address", cfg.Listen)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(cfg.Listen, 0).String())
	if err != nil {
		return nil, fmt.Errorf("listen for the engine: %w", err)
	}
	return &Shield{cfg: cfg, events: events, listener: l.(*net.TCPListener)}, nil
}

// Addr is the address the engine must dial instead of the peer's.
func (s *Shield) Addr() netip.AddrPort {
	return s.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Close releases the engine side. It must not be called while Serve runs.
func (s *Shield) Close() error { return s.listener.Close() }

// Serve carries one session: it waits for the engine, connects to the peer,
// however often that takes, and relays until the session ends. Both
// connections are closed when it returns.
//
// The error says how the session ended and is never nil: a *Notification when
// one was exchanged, ErrPeerUnreachable when the peer never answered, the
// cause of ctx after a cancellation, else what happened to a connection. If the
// cause is a *Cease, that is what the peer was told, else that of an
// administrative shutdown.
func (s *Shield) Serve(ctx context.Context) error {
	defer s.events.State(Idle, nil)
	s.events.State(Connect, nil)
	engine, err := s.accept(ctx)
	if err != nil {
		return err
	}
	defer engine.Close()
	peer, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer peer.Close()
	r := newRelay(&s.cfg, s.events, engine, peer)
	s.session.Store(r)
	defer s.session.Store(nil)
	return r.run(ctx)
}

// EndOfRIB has the End-of-RIB marker (RFC 4724 section 2) sent for each family
// that the peer takes, after all that was sent before. It is to be called once
// in a session that is Established, and may be called from within an event; it
// does not wait.
func (s *Shield) EndOfRIB() {
	if r := s.session.Load(); r != nil {
		r.askEndOfRIB()
	}
}

// engine is a connection of the engine that has sent its OPEN.
type engine struct {
	*net.TCPConn
	out  *bufio.Reader // what follows
	open []byte
}

// accept waits for the engine's connection and its OPEN. Connections of other
// processes are closed at once, so nobody on the host can speak BGP to the
// peer in this node's name.
func (s *Shield) accept(ctx context.Context) (*engine, error) {
	if err := s.listener.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("accept the engine: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { s.listener.SetDeadline(past) })
	defer stop()
	for {
		c, err := s.listener.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil, context.Cause(ctx)
		case errors.Is(err, net.ErrClosed):
			return nil, fmt.Errorf("accept the engine: %w", err)
		case err != nil: // out of descriptors, aborted connection
			s.events.State(Connect, fmt.Errorf("accept the engine: %w", err))
			if !pause(ctx, s.cfg.RetryInterval) {
				return nil, context.Cause(ctx)
			}
			continue
		}
		if !ours(c) {
			c.Close()
			s.events.State(Connect, errForeign)
			continue
		}
		if e := s.readOpen(ctx, c); e != nil {
			return e, nil
		}
		c.Close() // a left-over of an earlier attempt
	}
}

// readOpen reads the engine's OPEN, which it sends right after connecting. It
// returns nil if there is none.
func (s *Shield) readOpen(ctx context.Context, c *net.TCPConn) *engine {
	c.SetReadDeadline(time.Now().Add(s.cfg.OpenTimeout))
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(past) })
	out := bufio.NewReaderSize(c, maxLength)
	msg, err := readMessage(out)
	if !stop() || err != nil || TypeOf(msg) != TypeOpen {
		return nil
	}
	c.SetReadDeadline(time.Time{})
	return &engine{c, out, bytes.Clone(msg)}
}

// dial connects to the peer, trying again until it succeeds, ctx ends, or the
// engine would not wait any longer.
func (s *Shield) dial(ctx context.Context) (*net.TCPConn, error) {
	patience, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	for {
		c, err := s.dialOnce(patience)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s.events.State(Connect, err)
		if !pause(patience, s.cfg.RetryInterval) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("%w: %w", ErrPeerUnreachable, err)
		}
	}
}

func (s *Shield) dialOnce(ctx context.Context) (*net.TCPConn, error) {
	d := net.Dialer{
		Timeout:   s.cfg.DialTimeout,
		Control:   s.cfg.control,
		KeepAlive: -1, // BGP has its own
	}
	d.SetMultipathTCP(false) // it knows no TCP MD5
	if s.cfg.LocalAddress.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.cfg.LocalAddress, 0))
	}
	c, err := d.DialContext(ctx, "tcp", s.cfg.Peer.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// pause waits for d and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
