package http2

import (
	h2 "golang.org/x/net/http2"
)

func (c *conn) onWindowUpdate(f *h2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// What DATA has paid for is kept however long the peer takes: a whole window
	// may be on its way before the first update comes.
	if c.updates > 0 {
		c.updates--
	} else if err := c.spend(countWindow); err != nil {
		return err
	}
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			return h2.ConnectionError(h2.ErrCodeFlowControl) // RFC 9113, 6.9.1
		}
		if len(c.waiting) > 0 {
			c.waiting[0].signal()
		}
		return nil
	}
	if c.idleLocked(f.StreamID) {
		return h2.ConnectionError(h2.ErrCodeProtocol) // RFC 9113, 5.1
	}
	s := c.streams[f.StreamID]
	if s == nil {
		return nil
	}
	if s.window += int64(f.Increment); s.window > maxWindow {
		return h2.StreamError{StreamID: s.id, Code: h2.ErrCodeFlowControl} // RFC 9113, 6.9.1
	}
	s.signal()
	return nil
}
