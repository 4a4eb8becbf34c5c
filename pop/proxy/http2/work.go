package http2

// maxParked is how many goroutines a connection keeps for its next streams.
const maxParked = 32

// worker is a goroutine that runs handlers, one after the other: its stack has
// grown to what handlers need.
type worker struct{ next chan *stream }

// dispatchLocked has s served on a goroutine of its own, or if s is nil, what is
// queued written.
func (c *conn) dispatchLocked(s *stream) {
	if n := len(c.parked); n > 0 {
		w := c.parked[n-1]
		c.parked = c.parked[:n-1]
		w.next <- s
		return
	}
	c.tasks.Go(func() { c.work(s) })
}

// work serves s and what comes after it.
func (c *conn) work(s *stream) {
	var w *worker
	for {
		served := s != nil
		if served {
			c.front.config.Handler(s.ctx, &s.x)
			s.finish()
			s.recycle()
		}
		c.mu.Lock()
		if !served {
			c.flushLocked()
		}
		if s = c.afterLocked(served); s == nil {
			if c.ended || len(c.parked) >= maxParked {
				c.mu.Unlock()
				return
			}
			if w == nil {
				w = &worker{next: make(chan *stream, 1)}
			}
			c.parked = append(c.parked, w)
		}
		c.mu.Unlock()
		if s == nil {
			var more bool
			if s, more = <-w.next; !more {
				return
			}
		}
	}
}

// afterLocked notes that a handler has returned, if served is set, and returns
// a stream that has waited for that.
func (c *conn) afterLocked(served bool) *stream {
	if !served {
		return nil
	}
	if len(c.pending) > 0 {
		s := c.pending[0]
		c.pending = c.pending[1:]
		return s
	}
	c.active--
	return nil
}

// retireLocked ends the goroutines that wait for a stream.
func (c *conn) retireLocked() {
	for _, w := range c.parked {
		close(w.next)
	}
	c.parked = nil
}
