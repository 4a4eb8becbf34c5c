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
	errTwice = errors.New("the response was begun already")
	errShort = fmt.Errorf("response body is shorter than its length: %w", io.ErrUnexpectedEOF)
	errLong  = errors.New("response body is longer than its length")
)

// Inform implements [exchange.Client]. 101 does not exist (RFC 9113, 8.6).
func (s *stream) Inform(status int, fields exchange.Fields) error {
	if status < 102 || status > 199 {
		return nil
	}
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.readyLocked(); err != nil {
		return err
	}
	c.appendInterimLocked(s.id, status, fields)
	c.flushLocked()
	return s.err
}

func (c *conn) appendInterimLocked(id uint32, status int, fields exchange.Fields) {
	b := blocks.get()
	defer releaseBlock(b)
	*b = appendFields(appendStatus(*b, status), fields)
	c.appendHeadersLocked(id, *b, false)
}

// readyLocked waits until there is room for the head of a response, and returns
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

// roomLocked waits until the client has taken enough of what is queued. That is
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

// Respond implements [exchange.Client].
func (s *stream) Respond(r *exchange.Response) error {
	head := r.Status == 304 || s.x.Request.Method == "HEAD"
	empty := head || r.Status == 204 || r.Body == nil
	if empty && !head && r.Length > 0 {
		return errShort
	}
	block := blocks.get()
	defer releaseBlock(block)
	*block = appendStatus(*block, r.Status)
	if r.Length >= 0 && r.Status != 204 { // RFC 9110, 8.6
		*block = appendLength(*block, r.Length)
	}
	*block = appendFields(*block, r.Fields)
	if r.Last {
		s.conn.drain()
	}
	if empty {
		var trailers *exchange.Fields
		if !head {
			trailers = r.Trailers
		}
		return s.send(*block, nil, true, trailers)
	}
	return s.stream(*block, r)
}

// stream sends a head and the body that follows it. The head does not wait for
// the body, unless that is short or its beginning is at hand.
func (s *stream) stream(head []byte, r *exchange.Response) error {
	if r.Ready == 0 && (r.Length < 0 || r.Length > pieceSize) {
		if err := s.send(head, nil, false, nil); err != nil {
			return err
		}
		head = nil
	}
	piece := pieces.get()
	defer pieces.put(piece)
	for left := r.Length; ; {
		n, err := r.Body.Read(piece[:])
		if r.Length >= 0 {
			left -= int64(n)
			if left == 0 && err == nil {
				// It is complete. The end is to go in the same frame.
				var beyond int
				beyond, err = r.Body.Read(piece[n:])
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
		if err := s.send(head, piece[:n], end, r.Trailers); err != nil || end {
			return err
		}
		head = nil
	}
}

// send sends what there is of a head and a piece of body, and at the end, the
// trailers. It returns when all of it is queued, which is within BodyIdle.
func (s *stream) send(head, data []byte, end bool, trailers *exchange.Fields) error {
	var last *[]byte
	if end && trailers != nil && len(*trailers) > 0 {
		last = blocks.get()
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
		if err := s.sendDataLocked(data, end && !trailed, c.front.config.BodyIdle); err != nil {
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
		c.completed++
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
