package http2

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"anyedge/pop/proxy/exchange"
)

var (
	errTwice = errors.New("the message was begun already")
	errShort = fmt.Errorf("body is shorter than its length: %w", io.ErrUnexpectedEOF)
	errLong  = errors.New("body is longer than its length")
)

// readyLocked waits until there is room for the head of a message, and returns
// why there is none to be sent, if so.
func (s *stream) readyLocked() error {
	s.roomLocked()
	switch {
	case s.err != nil:
		return s.err
	case s.headSent:
		return errTwice
	}
	return nil
}

// roomLocked waits until the peer has taken enough of what is queued. That is
// bounded by the deadline for writes.
func (s *stream) roomLocked() {
	c := s.conn
	for c.out != nil && len(c.out.bytes) >= packetLimit && s.err == nil {
		if !c.writing {
			c.flushLocked()
			continue
		}
		c.room.Wait()
	}
}

// copy sends a head, unless that is nil, with the body that follows it, and
// trailers. length is that of the body, negative if it is unknown.
func (s *stream) copy(head []byte, body io.Reader, length int64, trailers *exchange.Fields, patience time.Duration) error {
	piece := pieces.Get()
	defer pieces.Put(piece)
	for left := length; ; {
		n, err := body.Read(piece[:])
		if length >= 0 {
			left -= int64(n)
			if left == 0 && err == nil {
				// It is complete. The end is to go in the same frame.
				var beyond int
				beyond, err = body.Read(piece[n:])
				left -= int64(beyond)
			}
			if left < 0 {
				return errLong
			}
		}
		end := err == io.EOF
		switch {
		case err != nil && !end:
			return err
		case end && left > 0:
			return errShort
		}
		if err := s.send(head, piece[:n], end, trailers, patience); err != nil || end {
			return err
		}
		head = nil
	}
}

// send sends what there is of a head and a piece of body, and at the end, the
// trailers. It returns when all of it is queued. patience bounds the wait for
// windows to open, unless it is 0; then the error is [os.ErrDeadlineExceeded].
func (s *stream) send(head, data []byte, end bool, trailers *exchange.Fields, patience time.Duration) error {
	var last *[]byte
	if end && trailers != nil && len(*trailers) > 0 {
		last = blocks.Get()
		defer releaseBlock(last)
		*last = appendTrailers(*last, *trailers)
	}
	trailed := last != nil && len(*last) > 0

	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if head != nil {
		if err := s.readyLocked(); err != nil {
			return err
		}
		s.headSent = true
		c.appendHeadersLocked(s.id, head, end && !trailed && len(data) == 0)
	}
	if len(data) > 0 || head == nil && end && !trailed {
		if err := s.sendDataLocked(data, end && !trailed, patience); err != nil {
			return err
		}
	}
	if s.err != nil {
		return s.err
	}
	if trailed {
		c.appendHeadersLocked(s.id, *last, true)
	}
	if end {
		c.localClosedLocked(s)
	}
	c.flushLocked()
	return nil
}

// sendDataLocked queues DATA as the windows allow. It gives up after patience,
// unless that is 0.
func (s *stream) sendDataLocked(data []byte, end bool, patience time.Duration) error {
	c := s.conn
	var expired <-chan time.Time
	for {
		s.roomLocked()
		if s.err != nil {
			c.passOnLocked(s)
			return s.err
		}
		n := min(int64(len(data)), s.window, c.window, frameSize)
		if n > 0 || len(data) == 0 {
			last := n <= 0 || n == int64(len(data))
			c.appendDataLocked(s.id, data[:max(n, 0)], end && last)
			s.window -= max(n, 0)
			c.window -= max(n, 0)
			c.passOnLocked(s)
			if last {
				return nil
			}
			data = data[n:]
			continue
		}
		if expired == nil && patience > 0 {
			if s.timer == nil {
				s.timer = time.NewTimer(patience)
			} else {
				s.timer.Reset(patience)
			}
			defer s.timer.Stop()
			expired = s.timer.C
		}
		if !s.awaitWindowLocked(expired) {
			c.passOnLocked(s)
			c.stalled++
			c.nudgeLocked()
			return os.ErrDeadlineExceeded
		}
	}
}

// awaitWindowLocked waits for a window to open. It returns false if it did not
// in time.
func (s *stream) awaitWindowLocked(expired <-chan time.Time) bool {
	c := s.conn
	if s.window > 0 && !slices.Contains(c.waiting, s) {
		c.waiting = append(c.waiting, s)
	}
	c.flushLocked()
	if s.err != nil || s.window > 0 && c.window > 0 {
		return true // while it was written
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-s.wake:
		return true
	case <-expired:
		return false
	}
}

// passOnLocked ends a stream's wait for the connection's window, and wakes the
// next if there is something left for it.
func (c *conn) passOnLocked(s *stream) {
	if len(c.waiting) == 0 {
		return
	}
	if i := slices.Index(c.waiting, s); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	if c.window > 0 && len(c.waiting) > 0 {
		c.waiting[0].signal()
	}
}
