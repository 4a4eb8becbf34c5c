package http1

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// rateGrace is for how long a client is waited for, in all, before the average
// pace of its body begins to be measured.
const rateGrace = 5 * time.Second

var errClosed = errors.New("the body was closed")

// requestBody is the body of a client's request.
type requestBody struct {
	turn   *turn
	closed atomic.Bool
	ended  atomic.Bool // it was read to its end

	mu      sync.Mutex // held by Read
	decoder decoder
	length  int64         // that was declared; -1 if none was
	waited  time.Duration // for the client; counted if the body is held to a pace
}

func (b *requestBody) begin(t *turn, k kind, length int64) {
	b.turn, b.length = t, length
	b.decoder.begin(&t.c.in, k, length, &t.trailers, t.c.front.config.MaxHeaderBytes, t.c.front.limits.fields)
}

// Read waits for the next piece for the front's BodyIdle, or for as long as its
// BodyRate allows, then returns [os.ErrDeadlineExceeded]. It reads no clock for
// what is at hand.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.turn.c
	if err := b.turn.sendContinue(); err != nil {
		return 0, err
	}
	waits, paced := b.length < 0 || c.in.buffered() == 0, b.length >= 0 && c.front.config.BodyRate > 0
	var began time.Time
	if waits {
		span := c.front.config.BodyIdle
		if paced {
			span = min(span, b.allowance())
			if span <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
		}
		began = time.Now()
		c.read.arm(began, span)
	}
	if b.closed.Load() { // asked after the deadline was set, see Close
		return 0, errClosed
	}
	n, err := b.decoder.Read(p)
	if waits && paced {
		b.waited += time.Since(began)
	}
	switch {
	case err == io.EOF:
		b.ended.Store(true)
		b.turn.hangup.release()
	case b.closed.Load() && isTimeout(err):
		err = errClosed
	}
	return n, err
}

// allowance returns for how long the client may still be waited for: the grace,
// and what its body takes at the front's BodyRate.
func (b *requestBody) allowance() time.Duration {
	received := b.length - b.decoder.left
	seconds := float64(received) / float64(b.turn.c.front.config.BodyRate)
	// A span that is too long for a Duration is as good as none.
	return rateGrace + time.Duration(min(seconds, 1e9)*float64(time.Second)) - b.waited
}

// Close implements [exchange.Request].Body.
func (b *requestBody) Close() error {
	if b.ended.Load() || b.closed.Swap(true) {
		return nil
	}
	// A Read under way comes back at once; one that set its deadline after this
	// one has not asked closed yet.
	c := b.turn.c
	c.net.SetReadDeadline(past)
	b.mu.Lock()
	defer b.mu.Unlock()
	c.read.forget()
	return nil
}

// finish ends the use of the body, and returns whether it was read to its end.
func (b *requestBody) finish() bool {
	if !b.ended.Load() {
		b.Close()
	}
	return b.ended.Load()
}

func (b *requestBody) clean() {
	b.turn = nil
	b.decoder = decoder{}
	b.length, b.waited = 0, 0
	b.closed.Store(false)
	b.ended.Store(false)
}
