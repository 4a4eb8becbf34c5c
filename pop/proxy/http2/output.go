package http2

import (
	"runtime"
	"time"

	h2 "golang.org/x/net/http2"
)

const (
	// packetLimit is how much may be queued before bodies wait, in bytes.
	packetLimit = 64 << 10
	// writeSize is how much is written within one deadline. It is what fits
	// one TLS record.
	writeSize = 16 << 10
	// writeTurns is how many packets one goroutine writes before it leaves the
	// rest to another: it may have a request to finish.
	writeTurns = 4
)

// packetLocked returns the packet that frames to the peer are appended to.
func (c *conn) packetLocked() *packet {
	if c.out == nil {
		c.out = packets.Get()
	}
	return c.out
}

// flushLocked sends the packet, unless a writer is at work, who will then. It
// gives up the lock while it writes.
func (c *conn) flushLocked() {
	if c.out == nil || c.writing {
		return
	}
	c.writing = true
	// Other goroutines may be about to send. What they append until we come
	// back goes into the same write.
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	for turn := 0; c.out != nil; turn++ {
		if turn == writeTurns && !c.ended {
			c.writing = false
			c.tasks.Go(c.flush)
			return
		}
		p := c.out
		c.out = nil
		c.writeLocked(p.bytes)
		p.release()
		c.room.Broadcast()
	}
	c.writing = false
	c.room.Broadcast()
	if c.doneLocked() {
		c.nudgeLocked()
	}
}

// flush is flushLocked for a goroutine of its own.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
}

// writeLocked writes b, giving up the lock meanwhile.
func (c *conn) writeLocked(b []byte) {
	for len(b) > 0 && !c.broken {
		piece := b[:min(len(b), writeSize)]
		b = b[len(piece):]
		c.armWriteLocked()
		c.mu.Unlock()
		_, err := c.nc.Write(piece)
		c.mu.Lock()
		if err != nil {
			c.broken = true
			c.nudgeLocked()
		}
	}
}

// armWriteLocked gives the peer at least limits.write to take a write, and half
// as long again at most: setting a deadline has its price.
func (c *conn) armWriteLocked() {
	if c.ended {
		return // close has set the last one
	}
	span := c.limits.write
	if now := time.Now(); c.writeBy.Sub(now) < span {
		c.writeBy = now.Add(span + span/2)
		c.nc.SetWriteDeadline(c.writeBy)
	}
}

// appendHeadersLocked appends a header block in as many frames as it takes.
func (c *conn) appendHeadersLocked(id uint32, block []byte, end bool) {
	p := c.packetLocked()
	if !c.tableSet {
		c.tableSet = true
		block = append([]byte{noTable}, block...)
	}
	first := block[:min(len(block), frameSize)]
	block = block[len(first):]
	p.framer.WriteHeaders(h2.HeadersFrameParam{
		StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(block) == 0,
	})
	for len(block) > 0 {
		next := block[:min(len(block), frameSize)]
		block = block[len(next):]
		p.framer.WriteContinuation(id, len(block) == 0, next)
	}
}

// appendDataLocked appends a DATA frame. Through the framer, data would be
// copied twice.
func (c *conn) appendDataLocked(id uint32, data []byte, end bool) {
	p := c.packetLocked()
	var flags h2.Flags
	if end {
		flags = h2.FlagDataEndStream
	}
	n := len(data)
	p.bytes = append(p.bytes, byte(n>>16), byte(n>>8), byte(n), byte(h2.FrameData), byte(flags),
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	p.bytes = append(p.bytes, data...)
	c.updates += 2 + n>>10
	c.pings++
	if c.client {
		c.late++ // an origin that has closed the stream may reset it for each
	}
}
