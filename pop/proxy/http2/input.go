package http2

import (
	"errors"
	"io"
	"os"
	"time"

	h2 "golang.org/x/net/http2"
)

const (
	// linger is how long a quiet connection keeps its buffers and goroutines.
	linger = 250 * time.Millisecond
	// farewell bounds the sending of our last words.
	farewell = time.Second
	// parting is how long a client has then to read them, and all before them,
	// and to close.
	parting = 5 * time.Second
)

// Why a connection ends with nobody to blame.
var (
	errIdle   = errors.New("idle")
	errGone   = errors.New("asked to go, and all streams are over")
	errBroken = errors.New("write failed")
	errSlow   = errors.New("frame or header block took too long")
	errDead   = errors.New("no answer to a ping")
)

// reader buffers and parses what the peer sends.
type reader struct {
	conn   *conn
	framer *h2.Framer
	r, w   int // what of bytes is unread
	bytes  [frameSize]byte
}

func newReader() *reader {
	r := new(reader)
	r.framer = newFramer(r)
	return r
}

func newFramer(r *reader) *h2.Framer {
	framer := h2.NewFramer(nil, r)
	framer.SetReuseFrames()
	framer.SetMaxReadFrameSize(frameSize)
	return framer
}

// Read implements [io.Reader] for the framer, within a frame.
func (r *reader) Read(p []byte) (int, error) {
	if r.empty() {
		r.r, r.w = 0, 0
		n, err := r.conn.receive(r.bytes[:], true)
		if n == 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		r.w = n
	}
	n := copy(p, r.bytes[r.r:r.w])
	r.r += n
	return n, nil
}

func (r *reader) empty() bool { return r.r == r.w }

// borrow gives the connection a reader.
func (c *conn) borrow() {
	c.reader = readers.Get()
	c.reader.conn, c.reader.r, c.reader.w = c, 0, 0
}

// park gives the reader back. A framer that is within a frame or a header block
// is of no use to others.
func (c *conn) park() {
	if c.reader == nil {
		return
	}
	c.reader.conn = nil
	if c.inFrame || c.block.open {
		c.reader.framer = newFramer(c.reader)
	}
	readers.Put(c.reader)
	c.reader = nil
	if !c.block.open {
		c.block.shrink()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == 0 {
		c.streams = nil // a map keeps the room for the most that it has held
	}
}

// next returns the next frame, which is valid until the next call. Between
// frames it waits without a reader if the wait is long.
func (c *conn) next() (h2.Frame, error) {
	if c.reader == nil || c.reader.empty() && !c.block.open {
		if err := c.await(); err != nil {
			return nil, err
		}
	}
	c.frameAt, c.patience = c.lastRead, c.limits.frame
	if c.block.open {
		c.frameAt = c.block.since
	}
	c.inFrame = true
	header, err := c.reader.framer.ReadFrameHeader()
	if err != nil {
		return nil, err
	}
	if header.Type == h2.FrameData {
		c.patience = c.limits.data
	}
	frame, err := c.reader.framer.ReadFrameForHeader(header)
	c.inFrame = err != nil
	if err != nil && header.Type == h2.FrameHeaders {
		// Its block was not decoded, so the decoder is out of step (RFC 9113, 4.3).
		var e h2.StreamError
		if errors.As(err, &e) {
			err = h2.ConnectionError(e.Code)
		}
	}
	return frame, err
}

// await waits for the first bytes of a frame.
func (c *conn) await() error {
	if c.reader != nil {
		n, err := c.receive(c.reader.bytes[:], false)
		if n > 0 {
			c.reader.r, c.reader.w = 0, n
			return nil
		}
		if !errors.Is(err, errParked) {
			return err
		}
		c.park()
	}
	var first [frameHeader]byte
	n, err := c.receive(first[:], false)
	if n == 0 {
		return err
	}
	c.borrow()
	c.reader.w = copy(c.reader.bytes[:], first[:n])
	return nil
}

// errParked says that the wait for the next frame is going to be long.
var errParked = errors.New("nothing came for a while")

// receive reads from the peer. Before it waits, what is queued for the peer is
// sent. partial is set within a frame or header block.
func (c *conn) receive(p []byte, partial bool) (int, error) {
	for {
		c.mu.Lock()
		if c.out != nil && !c.writing {
			c.tasks.Go(c.flush) // we must not wait for the peer to read
		}
		c.mu.Unlock()
		n, err := c.nc.Read(p)
		if n > 0 {
			c.lastRead = time.Now()
			c.pinged = time.Time{}
			if c.reader == nil {
				c.mu.Lock()
				c.armLocked(c.lastRead.Add(linger))
				c.mu.Unlock()
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if err := c.reconsider(partial); err != nil {
			return 0, err
		}
	}
}

// reconsider is called when the read deadline has passed, because a wait is
// over or because of nudgeLocked. It sets the next deadline, or returns why the
// connection is to end or to park.
func (c *conn) reconsider(partial bool) error {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nudged = false
	if c.broken {
		return errBroken
	}
	partial = partial || !c.settled
	next, err := c.side.dueLocked(now, !partial && c.reader == nil)
	switch {
	case err != nil:
		return err
	case c.doneLocked():
		return errGone
	case partial:
		by := c.frameAt.Add(c.patience)
		if !now.Before(by) {
			return errSlow
		}
		next = earlier(next, earlier(by, now.Add(linger)))
	case c.reader != nil:
		quiet := c.lastRead.Add(linger)
		if !now.Before(quiet) {
			c.armLocked(now) // come back at once, without a reader
			return errParked
		}
		next = earlier(next, quiet)
	}
	c.armLocked(next)
	return nil
}

// doneLocked reports whether there is nothing left to do: the streams are over,
// and the peer has taken, if slowly, what was sent on them.
func (c *conn) doneLocked() bool {
	return c.final && len(c.streams) == 0 && c.out == nil && !c.writing
}

// earlier returns the earlier of two times. The zero time stands for never.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}

// armLocked sets the read deadline. Only the reading goroutine does so, but for
// nudgeLocked.
func (c *conn) armLocked(at time.Time) {
	if !c.nudged {
		c.nc.SetReadDeadline(at)
	}
}

// nudgeLocked makes the reading goroutine reconsider.
func (c *conn) nudgeLocked() {
	if !c.nudged && !c.ended {
		c.nudged = true
		c.nc.SetReadDeadline(past)
	}
}

var past = time.Unix(1, 0)
