package shield

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// sendTimeout closes a session whose peer takes no byte for this long:
	// such a peer would never learn of a withdrawal (RFC 9687).
	sendTimeout = 20 * time.Second
	// farewellTimeout bounds the last message to the peer, and the wait for
	// the peer to have read it.
	farewellTimeout = 500 * time.Millisecond
	// substituteInterval is the least time between two KEEPALIVEs that stand
	// for refused UPDATEs; the shortest hold time is 3 s.
	substituteInterval = time.Second
)

// relay is one session. The outbound goroutine is the only writer to peer, the
// inbound one the only writer to engine, until run has joined both.
type relay struct {
	cfg          *Config
	events       Events
	engine, peer *net.TCPConn

	mu    sync.Mutex
	cause error // why the session ends; nil while it lives
	// confirmed counts the directions in which a KEEPALIVE followed the OPEN.
	confirmed int
}

// run relays until the session ends and returns why it did. open is the
// engine's OPEN, not yet sent.
func (r *relay) run(ctx context.Context, open []byte) error {
	r.events.State(OpenSent, nil)
	r.peer.SetReadDeadline(time.Now().Add(r.cfg.OpenTimeout))
	stop := context.AfterFunc(ctx, func() { r.end(farewell(r.cfg.Farewell)) })
	defer stop()

	var directions sync.WaitGroup
	directions.Go(func() { r.end(r.outbound(open)) })
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

// end records the first cause and makes both directions return.
func (r *relay) end(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil {
		return
	}
	r.cause = cause
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
	r.mu.Unlock()
	if done {
		r.unlessEnded(func() { r.peer.SetReadDeadline(time.Time{}) })
		r.events.State(Established, nil)
	}
}

// inbound relays from the peer to the engine.
func (r *relay) inbound() error {
	in := bufio.NewReaderSize(r.peer, maxLength)
	buf := make([]byte, maxLength)
	var f filter
	var relayed time.Time // when the engine last got a message
	for {
		msg, err := readMessage(in, buf)
		if err != nil {
			return r.readError(err)
		}
		was := f
		pass, err := f.check(msg)
		if err != nil {
			return err
		}
		t := TypeOf(msg)
		r.events.Received(t, !pass)
		if !pass {
			if time.Since(relayed) < substituteInterval {
				continue
			}
			msg = keepalive
		}
		switch {
		case f.open && !was.open:
			r.events.State(OpenConfirm, nil)
		case f.confirmed && !was.confirmed:
			r.confirm()
		}
		if _, err := r.engine.Write(msg); err != nil {
			return fmt.Errorf("engine ended the session: %w", err)
		}
		relayed = time.Now()
		if t == TypeNotification {
			return parseNotification(msg, false)
		}
	}
}

// readError says what a failed read from the peer means.
func (r *relay) readError(err error) error {
	var v *violation
	switch {
	case errors.As(err, &v):
		return v
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The only deadline before the end is that of the OPEN exchange (RFC
		// 4271 section 8.2.2: the large hold timer of OpenSent).
		return violate(codeHoldTimer, 0, nil)
	case err == io.EOF:
		return errors.New("peer closed the connection")
	}
	return fmt.Errorf("read from peer: %w", err)
}

// outbound relays from the engine to the peer, open first.
func (r *relay) outbound(open []byte) error {
	out := bufio.NewReaderSize(r.engine, maxLength)
	buf := make([]byte, maxLength)
	confirmed := false
	for msg := open; ; {
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
		if msg, err = readMessage(out, buf); err != nil {
			// Not wrapped: a fault of the engine is none of the peer's.
			return fmt.Errorf("engine ended the session: %v", err)
		}
	}
}

// send writes one message to the peer.
func (r *relay) send(msg []byte) error {
	r.unlessEnded(func() { r.peer.SetWriteDeadline(time.Now().Add(sendTimeout)) })
	if _, err := r.peer.Write(msg); err != nil {
		return fmt.Errorf("write to peer: %w", err)
	}
	r.events.Sent(msg)
	return nil
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
