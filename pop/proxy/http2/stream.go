package http2

import (
	"time"

	h2 "golang.org/x/net/http2"
)

// stream is one request and its response, as far as both ends of a connection
// see it alike. It belongs to the goroutine of its exchange but for what is
// guarded by the connection's mutex.
type stream struct {
	conn  *conn
	id    uint32
	user  user
	body  *body // what the peer sends; nil if nothing
	timer *time.Timer
	wake  chan struct{} // has a value when what the sender waits for may have come

	// What follows is guarded by conn.mu.
	window       int64 // what may be sent; negative after the peer made it smaller
	headSent     bool  // the response's, or the request's
	remoteClosed bool  // the peer has ended its side
	localClosed  bool  // we have ended ours
	err          error // why nothing can be sent any more; nil while it can
}

// user is what a stream is used for: a [turn] or a [trip]. The reading goroutine
// calls it, with the connection's mutex held.
type user interface {
	// blockLocked takes a header block that came on the open stream.
	blockLocked() error
	// resetLocked takes the peer's RST_STREAM.
	resetLocked(code h2.ErrCode)
}

// signal wakes the sender if it waits. The connection's mutex is held.
func (s *stream) signal() { signal(s.wake) }

// signal wakes who waits for wake, now or next.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

func (c *conn) onHeaders(f *h2.HeadersFrame) error {
	c.block.begin(f, c.lastRead)
	return c.onBlock(f.HeaderBlockFragment(), f.HeadersEnded())
}

func (c *conn) onContinuation(f *h2.ContinuationFrame) error {
	b := &c.block
	if b.frames++; b.frames > maxContinuations {
		return floodError(FloodContinuation)
	}
	if len(f.HeaderBlockFragment()) == 0 {
		if err := c.spend(countEmpty); err != nil {
			return err
		}
	}
	return c.onBlock(f.HeaderBlockFragment(), f.HeadersEnded())
}

// onBlock takes a part of a header block, and does what the whole asks for.
func (c *conn) onBlock(fragment []byte, last bool) error {
	b := &c.block
	if err := b.add(fragment, last); err != nil || !last {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[b.id]
	switch {
	case s == nil:
		return c.side.strayLocked()
	case s.remoteClosed:
		return h2.StreamError{StreamID: b.id, Code: h2.ErrCodeStreamClosed}
	}
	return s.user.blockLocked()
}

// openLocked makes s the stream of the given ID.
func (c *conn) openLocked(s *stream, id uint32, u user) {
	s.conn, s.id, s.user, s.window = c, id, u, c.peer
	if c.streams == nil {
		c.streams = make(map[uint32]*stream)
	}
	c.streams[id] = s
}

// trailersLocked ends the peer's side with the block that came, which is a
// trailer section.
func (s *stream) trailersLocked() error {
	c := s.conn
	trailers, ok := c.block.trailers(s.body.late[:0])
	if !ok || !s.body.lengthMet() {
		return h2.StreamError{StreamID: s.id, Code: h2.ErrCodeProtocol}
	}
	s.body.endLocked(trailers)
	c.remoteClosedLocked(s)
	return nil
}

// remoteClosedLocked notes that the peer has ended its side.
func (c *conn) remoteClosedLocked(s *stream) {
	s.remoteClosed = true
	if s.localClosed {
		c.forgetLocked(s, false)
	}
}

// localClosedLocked notes that we have ended our side.
func (c *conn) localClosedLocked(s *stream) {
	s.localClosed = true
	if s.remoteClosed {
		c.forgetLocked(s, false)
	}
}

// resetLocked resets a stream unless it is closed: whoever waits on it gets err.
func (c *conn) resetLocked(id uint32, code h2.ErrCode, err error) {
	if s := c.streams[id]; s != nil {
		c.closeLocked(s, err, true)
	} else if reset, _ := c.closed.find(id); reset {
		return
	} else {
		c.closed.add(id, true)
	}
	if !c.ended {
		c.packetLocked().framer.WriteRSTStream(id, code)
	}
}

// closeLocked closes a stream at once: whoever waits on it gets err. reset says
// that it is our doing.
func (c *conn) closeLocked(s *stream, err error, reset bool) {
	if s.err == nil {
		s.err = err
	}
	if s.body != nil {
		s.body.failLocked(err)
	}
	s.signal()
	c.forgetLocked(s, reset)
}

// forgetLocked removes a stream that is closed.
func (c *conn) forgetLocked(s *stream, reset bool) {
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	c.closed.add(s.id, reset)
	if c.client {
		c.late += 4
	} else if s.err == nil {
		c.completed++
	}
	c.side.forgottenLocked(s)
	if len(c.streams) == 0 {
		c.idleSince = time.Now()
		if c.final {
			c.nudgeLocked()
		}
	}
}

// recent remembers streams that were closed lately: frames for them may still
// be on their way, and are no fault if it was we who reset them.
type recent struct {
	ids  [32]uint32 // ID << 1, and 1 if we reset it; 0 if unused
	next uint8
}

func (r *recent) add(id uint32, reset bool) {
	entry := id << 1
	if reset {
		entry |= 1
	}
	r.ids[r.next] = entry
	r.next = (r.next + 1) % uint8(len(r.ids))
}

// find reports whether a stream was closed lately, and whether we reset it.
func (r *recent) find(id uint32) (reset, known bool) {
	for _, entry := range r.ids {
		if entry>>1 == id {
			known = true
			reset = reset || entry&1 == 1
		}
	}
	return reset, known
}
