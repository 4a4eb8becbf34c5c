package http2

import (
	"io"
	"os"
	"time"

	"anyedge/pop/proxy/exchange"
)

// rateGrace is how long a body may come as slowly as it will before its rate
// counts.
const rateGrace = 5 * time.Second

// requestBody is a client's body as its exchange reads it. It is never used for
// a second stream: a back codec may read from it after its exchange is over.
type requestBody struct {
	body
	turn     *turn
	trailers exchange.Fields // as the exchange sees them
	patience time.Duration   // of one Read
	timer    *time.Timer
	waited   time.Duration // for the client, in all
	read     int64         // bytes
	expects  bool          // the client waits for 100 (Continue); guarded by conn.mu
}

// newBody makes what follows on the stream its body. The client may send as much
// as was announced.
func (t *turn) newBody() *requestBody {
	b := &requestBody{turn: t, body: body{
		stream: &t.stream, wake: make(chan struct{}, 1), begun: true, recv: streamWindow, size: streamWindow,
	}}
	t.stream.body = &b.body
	return b
}

// acceptBody makes what follows on the stream its request's body. The
// connection's mutex is held.
func (t *turn) acceptBody() {
	b, r, block := t.newBody(), &t.x.Request, &t.conn.block
	b.patience = t.c.front.config.BodyIdle
	b.left, b.declared = r.Length, r.Length >= 0
	b.expects = block.expect != ""
	b.trailers = block.announced()
	r.Body, r.Trailers = b, &b.trailers
}

// Read waits for the next piece for the front's BodyIdle at most, and for all
// pieces of a body of declared length for as long as BodyRate allows, then
// returns [os.ErrDeadlineExceeded].
func (b *requestBody) Read(p []byte) (int, error) {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.expects && !b.closed && b.head == nil && !b.ended && b.err == nil && !b.stream.headSent {
		c.appendInterimLocked(b.stream.id, 100, nil)
	}
	b.expects = false
	var began time.Time
	for {
		n, err := b.readLocked(p)
		c.flushLocked()
		if err != errEmpty {
			if !began.IsZero() {
				b.waited += time.Since(began)
			}
			b.read += int64(n)
			if err == io.EOF {
				b.trailers = b.late
			}
			return n, err
		}
		if began.IsZero() {
			began = time.Now()
			if span := b.allowed(); b.timer == nil {
				b.timer = time.NewTimer(span)
			} else {
				b.timer.Reset(span)
			}
			defer b.timer.Stop()
		}
		c.mu.Unlock()
		expired := false
		select {
		case <-b.wake:
		case <-b.timer.C:
			expired = true
		}
		c.mu.Lock()
		if expired && b.head == nil && !b.ended && b.err == nil && !b.closed {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// allowed returns how long the next piece may take.
func (b *requestBody) allowed() time.Duration {
	rate := b.turn.c.front.config.BodyRate
	if !b.declared || rate <= 0 {
		return b.patience
	}
	due := time.Duration(float64(b.read) / float64(rate) * float64(time.Second))
	return min(b.patience, max(rateGrace, due)-b.waited)
}

// Close implements [exchange.Request].Body.
func (b *requestBody) Close() error {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	b.closeLocked()
	c.flushLocked()
	return nil
}
