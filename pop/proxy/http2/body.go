package http2

import (
	"io"
	"net"
	"os"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// body is what the client sends on a stream. It is never used for a second
// stream: a back codec may read from it after its exchange is over.
type body struct {
	stream   *stream
	conn     *conn
	trailers exchange.Fields // as the exchange sees them
	patience time.Duration   // of one Read; 0 without bound
	wake     chan struct{}   // has a value when what Read waits for may have come
	timer    *time.Timer

	// What follows is guarded by conn.mu.
	head, tail *chunk
	recv       int64 // what the client may send
	unread     int64 // what it may send when that is announced
	left       int64 // of the declared length; negative without one
	declared   bool
	expects    bool            // the client waits for 100 (Continue)
	ended      bool            // all has come
	late       exchange.Fields // trailers that came, until Read has returned io.EOF
	err        error           // why nothing more comes; nil while it may
	closed     bool
}

// newBody returns the body of a stream that may send as much as was announced.
func (s *stream) newBody() *body {
	return &body{stream: s, conn: s.conn, recv: streamWindow, wake: make(chan struct{}, 1)}
}

// acceptBody makes what follows on the stream its request's body. The
// connection's mutex is held.
func (s *stream) acceptBody() {
	b, r := s.newBody(), &s.x.Request
	b.patience = s.conn.front.config.BodyIdle
	b.left, b.declared = r.Length, r.Length >= 0
	b.expects = s.conn.block.expect != ""
	b.trailers = s.conn.block.announced()
	r.Body, r.Trailers = b, &b.trailers
	s.body = b
}

func (c *conn) onData(f *h2.DataFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID > c.lastID {
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 5.1
	}
	size, data := int64(f.Length), f.Data()
	if size > c.recv {
		return h2.ConnectionError(h2.ErrCodeFlowControl)
	}
	c.recv -= size
	if len(data) == 0 && !f.StreamEnded() {
		if err := c.spend(countEmpty); err != nil {
			return err
		}
	}
	s := c.streams[f.StreamID]
	if s == nil || s.remoteClosed {
		c.creditLocked(size)
		if reset, _ := c.closed.find(f.StreamID); s == nil && reset {
			return nil // sent before our RST_STREAM came
		}
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ErrCodeStreamClosed}
	}
	b := s.body
	if size > b.recv {
		c.creditLocked(size)
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ErrCodeFlowControl}
	}
	b.recv -= size
	b.left -= int64(len(data))
	if b.declared && b.left < 0 || f.StreamEnded() && !b.lengthMet() {
		c.creditLocked(size)
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ErrCodeProtocol} // RFC 9113, 8.1.1
	}
	padding := size - int64(len(data))
	if b.closed {
		c.creditLocked(size)
	} else {
		b.appendLocked(data)
		c.creditLocked(padding)
		b.creditLocked(padding)
	}
	if f.StreamEnded() {
		b.endLocked(nil)
		c.remoteClosedLocked(s)
	}
	return nil
}

// lengthMet reports whether as much has come as was declared.
func (b *body) lengthMet() bool { return !b.declared || b.left == 0 }

// creditLocked lets the client send n more bytes on the connection.
func (c *conn) creditLocked(n int64) {
	if c.unread += n; c.unread >= connWindow/2 && !c.ended {
		c.packetLocked().framer.WriteWindowUpdate(0, uint32(c.unread))
		c.recv += c.unread
		c.unread = 0
	}
}

// creditLocked lets the client send n more bytes on the stream.
func (b *body) creditLocked(n int64) {
	if b.unread += n; b.unread >= streamWindow/2 && !b.ended && b.err == nil && !b.conn.ended {
		b.conn.packetLocked().framer.WriteWindowUpdate(b.stream.id, uint32(b.unread))
		b.recv += b.unread
		b.unread = 0
	}
}

func (b *body) appendLocked(data []byte) {
	for len(data) > 0 {
		if b.tail == nil || b.tail.w == chunkSize {
			k := chunks.get()
			k.next, k.r, k.w = nil, 0, 0
			if b.tail == nil {
				b.head = k
			} else {
				b.tail.next = k
			}
			b.tail = k
		}
		n := copy(b.tail.bytes[b.tail.w:], data)
		b.tail.w += n
		data = data[n:]
	}
	b.signal()
}

// takeLocked moves what has come to p.
func (b *body) takeLocked(p []byte) (n int) {
	for b.head != nil && n < len(p) {
		k := b.head
		moved := copy(p[n:], k.bytes[k.r:k.w])
		k.r += moved
		n += moved
		if k.r == k.w {
			if b.head = k.next; b.head == nil {
				b.tail = nil
			}
			chunks.put(k)
		}
	}
	return n
}

// dropLocked forgets what has come and was not read.
func (b *body) dropLocked() {
	n := int64(0)
	for k := b.head; k != nil; {
		next := k.next
		n += int64(k.w - k.r)
		chunks.put(k)
		k = next
	}
	b.head, b.tail = nil, nil
	b.conn.creditLocked(n)
}

// endLocked notes that the body is complete.
func (b *body) endLocked(trailers exchange.Fields) {
	b.ended, b.late = true, trailers
	b.signal()
}

// failLocked notes that the rest of the body does not come, if any was to.
func (b *body) failLocked(err error) {
	if !b.ended && b.err == nil {
		b.err = err
		b.dropLocked()
	}
	b.signal()
}

func (b *body) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Read waits for the next piece for the front's BodyIdle at most, then returns
// [os.ErrDeadlineExceeded].
func (b *body) Read(p []byte) (int, error) {
	c := b.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.expects && !b.closed && b.head == nil && !b.ended && b.err == nil && !b.stream.headSent {
		c.appendInterimLocked(b.stream.id, 100, nil)
	}
	b.expects = false
	var expired <-chan time.Time
	for {
		switch {
		case b.closed:
			return 0, net.ErrClosed
		case b.head != nil:
			n := b.takeLocked(p)
			c.creditLocked(int64(n))
			b.creditLocked(int64(n))
			c.flushLocked()
			return n, nil
		case b.ended:
			b.trailers = b.late
			return 0, io.EOF
		case b.err != nil:
			return 0, b.err
		case len(p) == 0:
			return 0, nil
		}
		c.flushLocked()
		if expired == nil && b.patience > 0 {
			if b.timer == nil {
				b.timer = time.NewTimer(b.patience)
			} else {
				b.timer.Reset(b.patience)
			}
			defer b.timer.Stop()
			expired = b.timer.C
		}
		c.mu.Unlock()
		timedOut := false
		select {
		case <-b.wake:
		case <-expired:
			timedOut = true
		}
		c.mu.Lock()
		if timedOut && b.head == nil && !b.ended && b.err == nil && !b.closed {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Close implements [exchange.Request].Body. Of what still comes, the client
// gets back the connection's window but not the stream's.
func (b *body) Close() error {
	c := b.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.dropLocked()
		b.signal()
		c.flushLocked()
	}
	return nil
}
