package shield

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// minSendTimeout is the least default of Config.SendTimeout.
	minSendTimeout = 20 * time.Second
	// farewellTimeout bounds the last message to the peer, and the wait for
	// the peer to have read it.
	farewellTimeout = 500 * time.Millisecond
	// A peer that sends more than paceMessages within paceInterval waits for
	// the rest of it: no peer needs more, and a flood must not cost more. A full
	// table of a million routes still passes in well under a minute.
	paceMessages = 1000
	paceInterval = 100 * time.Millisecond
)

// relay is one session. The outbound goroutine is the only writer to peer, the
// inbound one the only writer to engine, until run has joined both.
type relay struct {
	cfg    *Config
	events Events
	engine *engine
	peer   *net.TCPConn
	ended  chan struct{} // closed by end

	// Owned by inbound.
	forward   filter
	refreshAt time.Time // the read deadline, for the sake of a ROUTE-REFRESH

	mu    sync.Mutex
	cause error // why the session ends; nil while it lives
	// confirmed counts the directions in which a KEEPALIVE followed the OPEN.
	confirmed int
	open      *Open // the peer's, once it has come
	endOfRIB  bool  // the markers are to be sent, and have not been
}

func newRelay(cfg *Config, events Events, engine *engine, peer *net.TCPConn) *relay {
	return &relay{
		cfg: cfg, events: events, engine: engine, peer: peer,
		ended: make(chan struct{}), forward: filter{asn: cfg.ASN},
	}
}

// run relays until the session ends and returns why it did.
func (r *relay) run(ctx context.Context) error {
	r.events.State(OpenSent, nil)
	r.peer.SetReadDeadline(time.Now().Add(r.cfg.OpenTimeout))
	stop := context.AfterFunc(ctx, func() { r.end(ceaseOf(ctx).violation()) })
	defer stop()

	var directions sync.WaitGroup
	directions.Go(func() { r.end(r.outbound()) })
	directions.Go(func() { r.end(r.inbound()) })
	directions.Wait()

	r.mu.Lock()
	cause := r.cause
	r.mu.Unlock()
	var last *violation
	if errors.As(cause, &last) {
		r.sendLast(last)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if last != nil {
		return &last.note
	}
	return cause
}

// ceaseOf is what the peer is told after a cancellation.
func ceaseOf(ctx context.Context) *Cease {
	var c *Cease
	if !errors.As(context.Cause(ctx), &c) {
		c = &Cease{Subcode: CeaseShutdown}
	}
	return c
}

// end records the first cause and makes both directions return.
func (r *relay) end(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil {
		return
	}
	r.cause = cause
	close(r.ended)
	r.engine.SetDeadline(past)
	r.peer.SetReadDeadline(past)
	// A write in progress may finish, so that the last message can follow on a
	// message boundary.
	r.peer.SetWriteDeadline(time.Now().Add(farewellTimeout))
}

// unlessEnded runs f, which sets a deadline, unless end has set its own.
func (r *relay) unlessEnded(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil {
		f()
	}
}

// confirm notes that one direction has seen its first KEEPALIVE. The second
// one makes the session Established.
func (r *relay) confirm() {
	r.mu.Lock()
	r.confirmed++
	done := r.confirmed == 2
	if done && r.cause == nil {
		// With the count, for from then on the deadline is inbound's.
		r.peer.SetReadDeadline(time.Time{})
	}
	r.mu.Unlock()
	if done {
		r.events.State(Established, nil)
	}
}

func (r *relay) established() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.confirmed == 2
}

// inbound relays from the peer to the engine.
func (r *relay) inbound() error {
	in := bufio.NewReaderSize(r.peer, maxLength)
	var pace pace
	for {
		msg, err := readMessage(in)
		now := time.Now()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if late := r.late(now); late != nil {
				return late
			}
		} else if err != nil {
			return r.readError(err)
		} else if err := r.received(msg, now); err != nil {
			return err
		}
		if err := r.flushRefreshes(now); err != nil {
			return err
		}
		if rest := pace.rest(now); rest > 0 {
			select {
			case <-time.After(rest):
			case <-r.ended:
			}
		}
	}
}

// received deals with one message of the peer. The error ends the session.
func (r *relay) received(msg []byte, now time.Time) error {
	f := &r.forward
	was := *f
	t := TypeOf(msg)
	fate, err := f.check(msg, now)
	r.events.Received(t, err != nil || fate == refused)
	if err != nil {
		return err
	}
	switch {
	case f.open != nil && was.open == nil:
		r.mu.Lock()
		r.open = f.open
		r.mu.Unlock()
		r.events.Opened(*f.open)
		r.events.State(OpenConfirm, nil)
		msg = f.open.message(r.cfg.Listen)
	case f.confirmed && !was.confirmed:
		r.confirm()
	}
	if fate == relayed {
		if err := r.tell(msg); err != nil {
			return err
		}
	}
	switch {
	case t == TypeNotification:
		return parseNotification(msg, false)
	case t == TypeKeepalive && !was.confirmed:
		f.keepalive = now
	case (t == TypeKeepalive || t == TypeUpdate) && f.alive(now):
		return r.tell(keepalive)
	}
	return nil
}

// tell writes one message to the engine.
func (r *relay) tell(msg []byte) error {
	if _, err := r.engine.Write(msg); err != nil {
		return fmt.Errorf("engine ended the session: %w", err)
	}
	return nil
}

// flushRefreshes relays the ROUTE-REFRESHes that have waited long enough, and
// sets the deadline for the others.
func (r *relay) flushRefreshes(now time.Time) error {
	if !r.established() {
		return nil // the read deadline is that of the OPEN exchange
	}
	msgs, next := r.forward.due(now)
	for _, msg := range msgs {
		if err := r.tell(msg); err != nil {
			return err
		}
	}
	if r.refreshAt != next {
		r.refreshAt = next
		r.unlessEnded(func() { r.peer.SetReadDeadline(next) })
	}
	return nil
}

// late says what an expired deadline means: nil if it was that of a
// ROUTE-REFRESH.
func (r *relay) late(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.cause != nil:
		return r.cause
	case r.confirmed == 2:
		return nil
	}
	// The OPEN exchange took too long (RFC 4271 section 8.2.2: the large hold
	// timer of OpenSent).
	return violate(codeHoldTimer, 0, nil)
}

// readError says what a failed read from the peer means.
func (r *relay) readError(err error) error {
	var v *violation
	switch {
	case errors.As(err, &v):
		return v
	case err == io.EOF:
		return errors.New("peer closed the connection")
	}
	return fmt.Errorf("read from peer: %w", err)
}

// pace counts messages.
type pace struct {
	since time.Time
	n     int
}

// rest counts a message and returns how long to wait before the next one.
func (p *pace) rest(now time.Time) time.Duration {
	if now.Sub(p.since) >= paceInterval {
		p.since, p.n = now, 0
	}
	if p.n++; p.n < paceMessages {
		return 0
	}
	return p.since.Add(paceInterval).Sub(now)
}

// outbound relays from the engine to the peer, its OPEN first.
func (r *relay) outbound() error {
	confirmed := false
	for msg := r.engine.open; ; {
		if err := r.send(msg); err != nil {
			return err
		}
		switch TypeOf(msg) {
		case TypeNotification:
			return parseNotification(msg, true)
		case TypeKeepalive:
			if !confirmed {
				confirmed = true
				r.confirm()
			}
		}
		var err error
		if msg, err = r.nextOutbound(); err != nil {
			return err
		}
	}
}

// nextOutbound waits for the engine's next message, and sends the End-of-RIB
// markers on the way when they are asked for.
func (r *relay) nextOutbound() ([]byte, error) {
	for {
		for _, marker := range r.takeEndOfRIB() {
			if err := r.send(marker); err != nil {
				return nil, err
			}
		}
		msg, err := readMessage(r.engine.out)
		if err == nil {
			return msg, nil
		}
		interrupted := false
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.unlessEnded(func() { interrupted = true; r.engine.SetReadDeadline(time.Time{}) })
		}
		if !interrupted {
			// Not wrapped: a fault of the engine is none of the peer's.
			return nil, fmt.Errorf("engine ended the session: %v", err)
		}
	}
}

// askEndOfRIB has outbound send the markers, after what the engine has sent.
func (r *relay) askEndOfRIB() {
	r.unlessEnded(func() {
		if r.confirmed == 2 {
			r.endOfRIB = true
			r.engine.SetReadDeadline(past)
		}
	})
}

func (r *relay) takeEndOfRIB() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.endOfRIB {
		return nil
	}
	r.endOfRIB = false
	return r.open.endOfRIB()
}

// send writes one message to the peer.
func (r *relay) send(msg []byte) error {
	r.unlessEnded(func() { r.peer.SetWriteDeadline(time.Now().Add(r.sendTimeout())) })
	if _, err := r.peer.Write(msg); err != nil {
		return fmt.Errorf("write to peer: %w", err)
	}
	r.events.Sent(msg)
	return nil
}

// sendTimeout is how long a write to the peer may take. RFC 9687 section 3 wants
// it to be longer than the hold time. The caller holds r.mu.
func (r *relay) sendTimeout() time.Duration {
	switch {
	case r.cfg.SendTimeout != 0:
		return r.cfg.SendTimeout
	case r.open == nil:
		return minSendTimeout
	}
	ours := binary.BigEndian.Uint16(r.engine.open[headerLength+3:])
	return max(minSendTimeout, 2*time.Duration(min(ours, r.open.HoldTime))*time.Second)
}

// sendLast tells the peer why the session ends, and waits a moment for the
// peer to close, for a close with unread input would reset the connection and
// could destroy the message on its way.
func (r *relay) sendLast(v *violation) {
	r.peer.SetDeadline(time.Now().Add(farewellTimeout))
	msg := v.message()
	if _, err := r.peer.Write(msg); err != nil {
		return // the peer is gone; so are the routes it had from us
	}
	r.events.Sent(msg)
	r.peer.CloseWrite()
	io.Copy(io.Discard, r.peer)
}
