package http2

// maxParked is how many goroutines a connection keeps for its next streams.
const maxParked = 32

// worker is a goroutine that runs handlers, one after the other: its stack has
// grown to what handlers need.
type worker struct{ next chan *turn }

// dispatchLocked has t served on a goroutine of its own.
func (c *frontConn) dispatchLocked(t *turn) {
	if n := len(c.parked); n > 0 {
		w := c.parked[n-1]
		c.parked = c.parked[:n-1]
		w.next <- t
		return
	}
	c.tasks.Go(func() { c.work(t) })
}

// work serves t and what comes after it.
func (c *frontConn) work(t *turn) {
	var w *worker
	for more := true; more; {
		c.front.config.Handler(t.ctx, &t.x)
		t.finish()
		t.recycle()
		c.mu.Lock()
		if t = c.afterLocked(); t != nil {
			c.mu.Unlock()
			continue
		}
		if c.ended || len(c.parked) >= maxParked {
			c.mu.Unlock()
			return
		}
		if w == nil {
			w = &worker{next: make(chan *turn, 1)}
		}
		c.parked = append(c.parked, w)
		c.mu.Unlock()
		t, more = <-w.next
	}
}

// afterLocked notes that a handler has returned, and returns a stream that has
// waited for that.
func (c *frontConn) afterLocked() *turn {
	if len(c.pending) > 0 {
		t := c.pending[0]
		c.pending = c.pending[1:]
		return t
	}
	c.active--
	return nil
}

// retireLocked ends the goroutines that wait for a stream.
func (c *frontConn) retireLocked() {
	for _, w := range c.parked {
		close(w.next)
	}
	c.parked = nil
}
