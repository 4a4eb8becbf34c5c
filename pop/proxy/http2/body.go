package http2

import (
	"errors"
	"io"
	"net"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// body is what the peer sends on a stream: bytes that wait to be read, within
// the stream's window, and trailers.
type body struct {
	stream *stream
	wake   chan struct{} // has a value when what the reader waits for may have come

	// What follows is guarded by conn.mu.
	head, tail *chunk
	held       int64 // bytes in them
	recv       int64 // what the peer may send
	unread     int64 // what it may send when that is announced
	size       int64 // of the window
	left       int64 // of the declared length
	declared   bool
	begun      bool            // DATA may come
	ended      bool            // all has come
	late       exchange.Fields // trailers that came
	err        error           // why nothing more comes; nil while it may
	closed     bool
}

func (c *conn) onData(f *h2.DataFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idleLocked(f.StreamID) {
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 5.1
	}
	size, data := int64(f.Length), f.Data()
	if size > c.recv {
		return h2.ConnectionError(h2.ErrCodeFlowControl)
	}
	c.recv -= size
	if c.client {
		// An origin gets the connection's window back at once, or one client
		// that reads slowly would hold up others' responses. The windows of the
		// streams bound what is held.
		c.creditLocked(size)
	}
	if len(data) == 0 && !f.StreamEnded() {
		if err := c.spend(countEmpty); err != nil {
			return err
		}
	}
	s := c.streams[f.StreamID]
	if s == nil || s.remoteClosed {
		c.consumedLocked(size)
		if reset, _ := c.closed.find(f.StreamID); s == nil && (reset || c.client) {
			return nil // sent before our RST_STREAM came
		}
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ErrCodeStreamClosed}
	}
	b := s.body
	if size > b.recv {
		c.consumedLocked(size)
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ErrCodeFlowControl}
	}
	b.recv -= size
	b.left -= int64(len(data))
	if !b.begun || b.declared && b.left < 0 || f.StreamEnded() && !b.lengthMet() {
		c.consumedLocked(size)
		return h2.StreamError{StreamID: f.StreamID, Code: h2.ErrCodeProtocol} // RFC 9113, 8.1 and 8.1.1
	}
	padding := size - int64(len(data))
	if b.closed {
		c.consumedLocked(size)
	} else {
		b.appendLocked(data)
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

// consumedLocked lets a client send n more bytes on the connection.
func (c *conn) consumedLocked(n int64) {
	if !c.client {
		c.creditLocked(n)
	}
}

// creditLocked lets the peer send n more bytes on the connection.
func (c *conn) creditLocked(n int64) {
	if c.unread += n; c.unread >= c.limits.conn/2 && !c.ended {
		c.packetLocked().framer.WriteWindowUpdate(0, uint32(c.unread))
		c.recv += c.unread
		c.unread = 0
	}
}

// creditLocked lets the peer send n more bytes on the stream and on the
// connection. A reader that has read all there was gets a larger window: it may
// be what holds the peer up.
func (b *body) creditLocked(n int64) {
	c := b.stream.conn
	c.consumedLocked(n)
	b.unread += n
	if b.ended || b.err != nil || c.ended || b.unread < b.size/2 {
		return
	}
	if b.head == nil && b.size < c.limits.most {
		b.unread += b.size
		b.size *= 2
	}
	c.packetLocked().framer.WriteWindowUpdate(b.stream.id, uint32(b.unread))
	b.recv += b.unread
	b.unread = 0
}

func (b *body) appendLocked(data []byte) {
	b.held += int64(len(data))
	for len(data) > 0 {
		if b.tail == nil || b.tail.w == chunkSize {
			k := chunks.Get()
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
	signal(b.wake)
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
			chunks.Put(k)
		}
	}
	b.held -= int64(n)
	b.creditLocked(int64(n))
	return n
}

// dropLocked forgets what has come and was not read.
func (b *body) dropLocked() {
	for k := b.head; k != nil; {
		next := k.next
		chunks.Put(k)
		k = next
	}
	b.stream.conn.consumedLocked(b.held)
	b.head, b.tail, b.held = nil, nil, 0
}

// endLocked notes that the body is complete.
func (b *body) endLocked(trailers exchange.Fields) {
	b.ended, b.late = true, trailers
	signal(b.wake)
}

// failLocked notes that the rest of the body does not come, if any was to.
func (b *body) failLocked(err error) {
	if !b.ended && b.err == nil {
		b.err = err
		b.dropLocked()
	}
	signal(b.wake)
}

// closeLocked ends every read. Of what still comes, the peer gets back the
// connection's window but not the stream's.
func (b *body) closeLocked() {
	if !b.closed {
		b.closed = true
		b.dropLocked()
		signal(b.wake)
	}
}

// errEmpty means that nothing has come that could be read.
var errEmpty = errors.New("nothing to read")

// readLocked reads what has come. If that is nothing, it queues what was put off
// and returns errEmpty.
func (b *body) readLocked(p []byte) (int, error) {
	switch {
	case b.closed:
		return 0, net.ErrClosed
	case b.head != nil:
		n := b.takeLocked(p)
		if b.head == nil && b.ended {
			return n, io.EOF
		}
		return n, nil
	case b.ended:
		return 0, io.EOF
	case b.err != nil:
		return 0, b.err
	case len(p) == 0:
		return 0, nil
	}
	return 0, errEmpty
}
