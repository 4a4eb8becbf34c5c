package http2

import (
	"context"
	"net"
	"slices"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// stream is one request and its response. It belongs to its handler but for
// what is guarded by the connection's mutex.
type stream struct {
	conn   *conn
	id     uint32
	x      exchange.Exchange
	ctx    context.Context
	cancel context.CancelFunc
	body   *body  // what the client sends; nil if nothing
	key    string // Sec-WebSocket-Key of a WebSocket
	timer  *time.Timer
	wake   chan struct{} // has a value when what the handler waits for to send may have come

	// What follows is guarded by conn.mu.
	window       int64 // what may be sent; negative after the client made it smaller
	headSent     bool
	remoteClosed bool  // the client has ended its side
	localClosed  bool  // we have ended ours
	err          error // why nothing can be sent any more; nil while it can
}

// recycle makes a stream available for another request. One with a body is left
// alone: a back codec may still try to read it.
func (s *stream) recycle() {
	if s.body != nil {
		return
	}
	select {
	case <-s.wake:
	default:
	}
	front, fields := s.conn.front, s.x.Request.Fields
	clear(fields)
	*s = stream{wake: s.wake, timer: s.timer}
	s.x.Request.Fields = fields[:0]
	front.streams.Put(s)
}

// signal wakes the handler if it waits to send. The connection's mutex is held.
func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
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
	if b.id > c.lastID {
		if b.id%2 == 0 {
			return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 5.1.1
		}
		return c.beginLocked()
	}
	s := c.streams[b.id]
	switch reset, known := c.closed.find(b.id); {
	case s == nil && reset:
		return c.spend(countIgnored) // sent before our RST_STREAM came
	case s == nil && known:
		return h2.ConnectionError(h2.ErrCodeStreamClosed) // RFC 9113, 5.1
	case s == nil:
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 5.1.1
	case s.remoteClosed:
		return h2.StreamError{StreamID: b.id, Code: h2.ErrCodeStreamClosed}
	}
	trailers, ok := b.trailers()
	if !ok || !s.body.lengthMet() {
		return h2.StreamError{StreamID: b.id, Code: h2.ErrCodeProtocol}
	}
	s.body.endLocked(trailers)
	c.remoteClosedLocked(s)
	return nil
}

// beginLocked begins the stream that the block asks for.
func (c *conn) beginLocked() error {
	b := &c.block
	if c.final || c.ctx.Err() != nil {
		return c.spend(countIgnored) // the client was told by GOAWAY that it would not be served
	}
	c.lastID = b.id
	if len(c.streams) >= maxStreams {
		return h2.StreamError{StreamID: b.id, Code: h2.ErrCodeRefusedStream} // RFC 9113, 5.1.2
	}
	s, _ := c.front.streams.Get().(*stream)
	if s == nil {
		s = &stream{wake: make(chan struct{}, 1)}
	}
	fields := s.x.Request.Fields
	s.conn, s.id, s.window, s.remoteClosed = c, b.id, c.peer, b.end
	refused := b.request(&s.x.Request)
	if refused == malformed {
		c.front.streams.Put(s)
		return h2.StreamError{StreamID: b.id, Code: h2.ErrCodeProtocol}
	}
	s.x.Request.Fields, b.fields = b.fields, fields
	s.x.Conn, s.x.Client, s.x.Start = c.info, s, c.lastRead
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	switch {
	case refused != none:
		s.x.Refusal = refused
		s.body = s.newBody()
		s.body.closed = true
	case s.x.Request.Upgrade != "":
		s.acceptWebSocket()
	case !b.end:
		s.acceptBody()
	}
	c.streams[b.id] = s
	if c.active < maxStreams {
		c.active++
		c.dispatchLocked(s)
		return nil
	}
	// The handlers of streams that were reset have not returned yet.
	if len(c.pending) >= maxStreams {
		return floodError(FloodReset)
	}
	c.pending = append(c.pending, s)
	return nil
}

// remoteClosedLocked notes that the client has ended its side.
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
	s.cancel()
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
	if i := slices.Index(c.pending, s); i >= 0 && s.err != nil {
		c.pending = slices.Delete(c.pending, i, i+1) // nobody waits for it
	}
	if len(c.streams) == 0 {
		c.idleSince = time.Now()
		if c.final {
			c.nudgeLocked()
		}
	}
}

// finish ends a stream whose handler has returned.
func (s *stream) finish() {
	c := s.conn
	s.cancel()
	if s.body != nil {
		s.body.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s {
		code := h2.ErrCodeInternal
		if s.localClosed {
			code = h2.ErrCodeNo // we need no more of the request (RFC 9113, 8.1)
		}
		c.resetLocked(s.id, code, net.ErrClosed)
		c.flushLocked()
	}
}

// recent remembers streams that were closed lately: frames for them may still
// be on their way, and are no fault if it was we who reset them.
type recent struct {
	ids  [32]uint32 // ID << 1, and 1 if we reset it; 0 if unused
	next int
}

func (r *recent) add(id uint32, reset bool) {
	entry := id << 1
	if reset {
		entry |= 1
	}
	r.ids[r.next] = entry
	r.next = (r.next + 1) % len(r.ids)
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
