package http1

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

var errClosed = errors.New("the body was closed")

// requestBody is the body of a client's request.
type requestBody struct {
	turn   *turn
	closed atomic.Bool
	ended  atomic.Bool // it was read to its end

	mu      sync.Mutex // held by Read
	decoder decoder
}

func (b *requestBody) begin(t *turn, k kind, length int64) {
	b.turn = t
	b.decoder.begin(&t.c.in, k, length, &t.trailers, t.c.front.config.MaxHeaderBytes)
}

// Read waits for the next piece for the front's BodyIdle, then returns
// [os.ErrDeadlineExceeded].
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.turn.c
	if err := b.turn.sendContinue(); err != nil {
		return 0, err
	}
	c.read.arm(time.Now(), c.front.config.BodyIdle)
	if b.closed.Load() { // asked after the deadline was set, see Close
		return 0, errClosed
	}
	n, err := b.decoder.Read(p)
	switch {
	case err == io.EOF:
		b.ended.Store(true)
		b.turn.hangup.release()
	case b.closed.Load() && isTimeout(err):
		err = errClosed
	}
	return n, err
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
	b.closed.Store(false)
	b.ended.Store(false)
}
