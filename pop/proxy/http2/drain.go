package http2

import (
	"math"
	"time"

	h2 "golang.org/x/net/http2"
)

// drain asks the client to begin no further stream. Those whose request is
// already on its way are still served: only once the client must have seen the
// first GOAWAY, a second one names the last stream (RFC 9113, 6.8).
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.final || !c.drainBy.IsZero() {
		return
	}
	c.drainBy = time.Now().Add(c.front.config.HeaderTimeout)
	f := c.packetLocked().framer
	f.WriteGoAway(math.MaxInt32, h2.ErrCodeNo, nil)
	f.WritePing(false, pingDrain)
	c.dispatchLocked(nil)
	c.nudgeLocked()
}

// goAway serves no stream beyond those begun, and ends the connection after
// them.
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.final {
		return
	}
	c.goAwayLocked()
	c.dispatchLocked(nil)
}

func (c *conn) goAwayLocked() {
	c.final = true
	c.packetLocked().framer.WriteGoAway(c.lastID, h2.ErrCodeNo, nil)
	if len(c.streams) == 0 {
		c.nudgeLocked()
	}
}
