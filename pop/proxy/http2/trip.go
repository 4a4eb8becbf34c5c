package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

const (
	// glance is how long an exchange waits for an origin before it begins to
	// look out for the end of its context.
	glance = 250 * time.Millisecond
	// maxInterim bounds the interim responses to one request.
	maxInterim = 32
)

var (
	errStale = errors.New("the connection takes no more requests")
	errOver  = fmt.Errorf("the response ended before the request: %w", net.ErrClosed)
)

// trip is one request to an origin and its response, whose body it is. It
// belongs to the goroutine of its exchange but for what is the stream's.
type trip struct {
	stream
	in       body // of the response
	back     *Back
	link     *link // nil if no stream was opened
	ctx      context.Context
	request  *exchange.Request
	to       netip.AddrPort
	inform   func(status int, fields exchange.Fields)
	response exchange.Response
	trailers exchange.Fields  // of the response, as its receiver sees them
	whole    *[pieceSize]byte // holds the request's body, if that was short and at hand
	watching bool             // over the context
	upload   *upload          // nil if the request's body needs none

	// What follows is guarded by conn.mu.
	key      string    // Sec-WebSocket-Key of a WebSocket
	interims []interim // that are to be passed on
	informed int       // how many came
	answered bool      // the final response's head has come
}

// interim is a response's head that another one follows.
type interim struct {
	status int
	fields exchange.Fields
}

func newTrip(b *Back) *trip {
	return &trip{back: b, stream: stream{wake: make(chan struct{}, 1)}, in: body{wake: make(chan struct{}, 1)}}
}

// renew makes t ready to be tried again.
func (t *trip) renew() {
	for _, wake := range []chan struct{}{t.stream.wake, t.in.wake} {
		select {
		case <-wake:
		default:
		}
	}
	if t.whole != nil {
		pieces.Put(t.whole)
	}
	fields, late := t.response.Fields, t.in.late
	clear(fields)
	clear(late)
	*t = trip{
		back: t.back, ctx: t.ctx, request: t.request, to: t.to, inform: t.inform,
		stream:   stream{wake: t.stream.wake, timer: t.timer},
		in:       body{wake: t.in.wake, late: late[:0]},
		response: exchange.Response{Fields: fields[:0]},
	}
}

// free makes t ready for another request.
func (t *trip) free() {
	t.renew()
	t.ctx, t.request, t.to, t.inform = nil, nil, netip.AddrPort{}, nil
	t.back.trips.Put(t)
}

// try sends the request on a connection of which a stream was acquired, and
// reads the response's head.
func (t *trip) try(l *link) error {
	if err := t.send(l); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	if err := t.awaitHead(); err != nil {
		err = t.blame(err)
		t.abandon(err)
		return fmt.Errorf("read response: %w", err)
	}
	return nil
}

// send opens the stream with the request's head, and with its body if that is
// at hand. Otherwise the body is left to an upload.
func (t *trip) send(l *link) error {
	r := t.request
	websocket := exchange.EqualName(r.Upgrade, "websocket")
	if err := t.takeWhole(); err != nil {
		l.group.release(l)
		return err
	}
	head := blocks.Get()
	defer releaseBlock(head)
	*head = appendRequest(*head, r, t.to, l.secure, websocket)

	t.conn, t.link = &l.conn, l
	l.mu.Lock()
	defer l.mu.Unlock()
	t.roomLocked()
	var refused error
	switch {
	case l.final || l.ended || l.broken:
		refused = errStale
		l.group.remove(l)
	case l.lastID >= math.MaxInt32-1:
		refused = errStale
		l.group.remove(l)
		l.retireLocked()
	case websocket && !l.websocket:
		refused = ErrNoWebSocket
	}
	if refused != nil {
		t.link = nil
		l.group.release(l)
		return refused
	}
	if websocket {
		t.key = r.Fields.Get("Sec-WebSocket-Key")
	}
	l.lastID = (l.lastID + 1) | 1
	t.in = body{
		stream: &t.stream, wake: t.in.wake, late: t.in.late, recv: linkStreamWindow, size: linkStreamWindow,
	}
	t.body, t.headSent = &t.in, true
	l.openLocked(&t.stream, l.lastID, t)
	l.appendHeadersLocked(t.id, *head, r.Body == nil && !websocket)
	switch {
	case websocket:
	case r.Body == nil:
		l.localClosedLocked(&t.stream)
	case t.whole == nil:
		t.upload = startUpload(t, r.Body)
	case min(t.window, l.window) >= r.Length:
		l.appendDataLocked(t.id, t.whole[:r.Length], true)
		t.window -= r.Length
		l.window -= r.Length
		l.localClosedLocked(&t.stream)
	default:
		t.upload = startUpload(t, bytes.NewReader(t.whole[:r.Length]))
	}
	l.flushLocked()
	return nil
}

// takeWhole reads a short body that is at hand, unless it did so for another
// connection.
func (t *trip) takeWhole() error {
	r := t.request
	if t.whole != nil || r.Body == nil || r.Length < 0 || r.Ready < r.Length || r.Length >= pieceSize || r.Trailers != nil && len(*r.Trailers) > 0 {
		return nil
	}
	t.whole = pieces.Get()
	for n := 0; ; {
		m, err := r.Body.Read(t.whole[n : r.Length+1])
		n += m
		switch {
		case int64(n) > r.Length:
			return errLong
		case err == io.EOF && int64(n) < r.Length:
			return errShort
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// awaitHead waits for the head of the final response.
func (t *trip) awaitHead() error {
	c := t.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	var began time.Time
	for {
		switch {
		case len(t.interims) > 0:
			next := t.interims[0]
			t.interims = t.interims[1:]
			c.mu.Unlock()
			t.inform(next.status, next.fields)
			c.mu.Lock()
			began = time.Time{}
		case t.answered:
			t.beginLocked()
			return nil
		case t.in.err != nil:
			return t.in.err
		default:
			if began.IsZero() {
				began = time.Now()
			}
			if err := t.awaitLocked(began, t.request.HeadWait); err != nil {
				return err
			}
		}
	}
}

// awaitLocked waits until something happens on the stream, and gives up the lock
// meanwhile. span bounds the wait, which has begun at began, unless it is 0.
func (t *trip) awaitLocked(began time.Time, span time.Duration) error {
	c := t.conn
	c.mu.Unlock()
	defer c.mu.Lock()
	left := time.Hour
	if span > 0 {
		now := time.Now()
		if left = span - now.Sub(t.upload.waitSince(began, now)); left <= 0 {
			t.link.doubted(began)
			return exchange.ErrSlow
		}
	}
	var done <-chan struct{}
	if t.watching {
		done = t.ctx.Done()
	} else {
		left = min(left, glance)
	}
	if t.timer == nil {
		t.timer = time.NewTimer(left)
	} else {
		t.timer.Reset(left)
	}
	select {
	case <-t.in.wake:
	case <-t.timer.C:
		t.watching = true
		return nil
	case <-done:
		return context.Cause(t.ctx)
	}
	t.timer.Stop()
	return nil
}

// blame returns what err comes to if nothing of a response came.
func (t *trip) blame(err error) error {
	t.conn.mu.Lock()
	defer t.conn.mu.Unlock()
	if _, ended := errors.AsType[*endError](err); ended && t.informed == 0 && !t.answered {
		return fmt.Errorf("%w: %w", exchange.ErrUnanswered, err)
	}
	return err
}

// repeatable reports whether the request may be sent again after err.
func (t *trip) repeatable(err error) bool {
	if t.whole != nil || t.upload.wasTouched() {
		return false
	}
	if errors.Is(err, exchange.ErrRefused) {
		return true
	}
	if !errors.Is(err, exchange.ErrUnanswered) || t.id == 1 || t.request.Body != nil {
		return false
	}
	switch t.request.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// Read reads the response's body.
func (t *trip) Read(p []byte) (int, error) {
	c := t.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	var began time.Time
	for {
		n, err := t.in.readLocked(p)
		c.flushLocked()
		if err == io.EOF {
			t.trailers = t.in.late
			t.overLocked()
			return n, err
		}
		if err != errEmpty {
			return n, err
		}
		if began.IsZero() {
			began = time.Now()
		}
		if err := t.awaitLocked(began, t.request.BodyWait); err != nil {
			t.resetLocalLocked(err)
			return 0, err
		}
	}
}

// overLocked ends the request after the whole response, unless all of it was
// taken from the client: then it is about to end by itself.
func (t *trip) overLocked() {
	if t.upload != nil && !t.localClosed && !t.upload.read.Load() {
		t.resetLocalLocked(errOver)
		t.upload.quitLocked()
	}
}

// resetLocalLocked resets the stream if it is open: whoever waits on it gets
// err.
func (t *trip) resetLocalLocked(err error) {
	c := t.conn
	if c.streams[t.id] == &t.stream {
		c.resetLocked(t.id, h2.ErrCodeCancel, err)
		c.flushLocked()
	}
}

// Close ends the use of the response. It is called once.
func (t *trip) Close() error {
	t.abandon(net.ErrClosed)
	if t.response.Tunnel == nil { // a tunnel may be closed once more
		t.free()
	}
	return nil
}

// abandon ends the use of the stream, and of the request's body if it was not
// sent to its end.
func (t *trip) abandon(err error) {
	c := t.conn
	c.mu.Lock()
	t.resetLocalLocked(err)
	t.in.closeLocked()
	t.upload.quitLocked()
	c.mu.Unlock()
	t.upload.join()
}

// doubted asks the origin for a sign of life, unless something came since began.
func (l *link) doubted(began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doubt.IsZero() && !l.ended {
		l.doubt = began
		l.nudgeLocked()
	}
}
