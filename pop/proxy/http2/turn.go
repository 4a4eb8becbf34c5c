package http2

import (
	"context"
	"net"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// turn is one request on a client's connection and its response. It implements
// [exchange.Client], and belongs to its handler but for what is the stream's.
type turn struct {
	stream
	c       *frontConn
	x       exchange.Exchange
	ctx     context.Context
	cancel  context.CancelFunc
	key     string // Sec-WebSocket-Key of a WebSocket
	connect bool   // the client asks for a tunnel to the authority (RFC 9113, 8.5)
}

// recycle makes a turn available for another request. One with a body is left
// alone: a back codec may still try to read it.
func (t *turn) recycle() {
	if t.body != nil {
		return
	}
	select {
	case <-t.wake:
	default:
	}
	front, fields := t.c.front, t.x.Request.Fields
	clear(fields)
	*t = turn{stream: stream{wake: t.wake, timer: t.timer}}
	t.x.Request.Fields = fields[:0]
	front.turns.Put(t)
}

// strayLocked begins the stream that the block asks for, if it asks for one.
func (c *frontConn) strayLocked() error {
	b := &c.block
	if b.id > c.lastID {
		if b.id%2 == 0 {
			return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 5.1.1
		}
		return c.beginLocked()
	}
	switch reset, known := c.closed.find(b.id); {
	case reset:
		return c.spend(countIgnored) // sent before our RST_STREAM came
	case known:
		return h2.ConnectionError(h2.ErrCodeStreamClosed) // RFC 9113, 5.1
	}
	return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 5.1.1
}

// beginLocked begins the stream that the block asks for.
func (c *frontConn) beginLocked() error {
	b := &c.block
	c.lastID = b.id
	if c.final || c.ctx.Err() != nil {
		// The client was told by GOAWAY that it would not be served. What else it
		// has sent for it is ignored as well (RFC 9113, 6.8).
		c.closed.add(b.id, true)
		return c.spend(countIgnored)
	}
	most := c.front.config.MaxStreams
	if len(c.streams) >= most {
		return h2.StreamError{StreamID: b.id, Code: h2.ErrCodeRefusedStream} // RFC 9113, 5.1.2
	}
	t, _ := c.front.turns.Get().(*turn)
	if t == nil {
		t = &turn{stream: stream{wake: make(chan struct{}, 1)}}
	}
	fields := t.x.Request.Fields
	refused := b.request(&t.x.Request, c.front.config.MaxURIBytes)
	if refused == malformed {
		c.front.turns.Put(t)
		return h2.StreamError{StreamID: b.id, Code: h2.ErrCodeProtocol}
	}
	t.x.Request.Fields, b.fields = b.fields, fields
	t.c, t.remoteClosed = c, b.end
	c.openLocked(&t.stream, b.id, t)
	t.x.Conn, t.x.Client, t.x.Start = c.info, t, c.lastRead
	t.ctx, t.cancel = context.WithCancel(c.ctx)
	switch {
	case refused != none:
		t.x.Refusal = refused
		t.newBody().closed = true
	case t.x.Request.Upgrade != "":
		t.acceptWebSocket()
	case t.x.Request.Method == "CONNECT":
		t.connect, t.x.Request.Length = true, 0
		t.acceptTunnel()
	case !b.end:
		t.acceptBody()
	}
	if c.active < most {
		c.active++
		c.dispatchLocked(t)
		return nil
	}
	// The handlers of streams that were reset have not returned yet.
	if len(c.pending) >= most {
		return floodError(FloodReset)
	}
	c.pending = append(c.pending, t)
	return nil
}

// blockLocked implements [user]: after the head only trailers come.
func (t *turn) blockLocked() error { return t.trailersLocked() }

// resetLocked implements [user].
func (t *turn) resetLocked(h2.ErrCode) { t.conn.closeLocked(&t.stream, errReset, false) }

// finish ends a stream whose handler has returned.
func (t *turn) finish() {
	c := t.c
	t.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.body != nil {
		t.body.closeLocked()
	}
	if c.streams[t.id] == &t.stream {
		code := h2.ErrCodeInternal
		if t.localClosed {
			code = h2.ErrCodeNo // we need no more of the request (RFC 9113, 8.1)
		}
		c.resetLocked(t.id, code, net.ErrClosed)
	}
	c.flushLocked()
}
