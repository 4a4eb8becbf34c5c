package http2

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
)

// continueWait is the wait for an origin's 100 (Continue).
const continueWait = time.Second

// upload sends a request's body to the origin while the response is waited for.
// A nil upload is one that is over.
type upload struct {
	trip    *trip
	request *exchange.Request
	body    io.Reader
	asked   chan struct{} // closed when the origin said 100; nil if it is not waited for
	quit    chan struct{} // closed when the body is not wanted any more
	done    chan struct{} // closed at the end

	touched atomic.Bool  // the body is or was read
	waiting atomic.Bool  // for the client
	waited  atomic.Int64 // when that ended last, since the process began
	read    atomic.Bool  // the whole body was

	// What follows is guarded by conn.mu.
	ready   bool // asked was closed, or quit was
	stopped bool // quit was closed
}

// epoch is when the process began, more or less.
var epoch = time.Now()

// startUpload begins to send body, which is the request's. The connection's
// mutex is held.
func startUpload(t *trip, body io.Reader) *upload {
	u := &upload{trip: t, request: t.request, body: body, quit: make(chan struct{}), done: make(chan struct{})}
	if t.request.Fields.Has("Expect") {
		u.asked = make(chan struct{})
	}
	go u.run()
	return u
}

func (u *upload) run() {
	defer close(u.done)
	if u.asked != nil {
		timer := time.NewTimer(continueWait)
		defer timer.Stop()
		select {
		case <-u.quit:
			return
		case <-u.asked:
		case <-timer.C: // an origin that knows no 100 (RFC 9110, 10.1.1)
		}
	}
	t := u.trip
	if !u.touch() {
		return
	}
	err := t.stream.copy(nil, u, u.request.Length, u.request.Trailers, 0)
	if isClient(err) || errors.Is(err, errShort) || errors.Is(err, errLong) {
		// The origin must not take what it got for the whole.
		t.conn.mu.Lock()
		defer t.conn.mu.Unlock()
		t.resetLocalLocked(err)
	}
	// If the origin does not take it, it may have answered all the same.
}

// touch begins to read the body, unless it is not wanted.
func (u *upload) touch() bool {
	u.trip.conn.mu.Lock()
	defer u.trip.conn.mu.Unlock()
	u.touched.Store(!u.stopped)
	return !u.stopped
}

// clientError is why a client's body broke off.
type clientError struct{ error }

// Unwrap returns the body's error.
func (e *clientError) Unwrap() error { return e.error }

func isClient(err error) bool {
	_, ok := errors.AsType[*clientError](err)
	return ok
}

// Read reads the request's body, and notes since when the client is waited for.
func (u *upload) Read(p []byte) (int, error) {
	u.waiting.Store(true)
	n, err := u.body.Read(p)
	u.waited.Store(int64(time.Since(epoch)))
	u.waiting.Store(false)
	if err == io.EOF {
		u.read.Store(true)
	} else if err != nil {
		err = &clientError{err}
	}
	return n, err
}

// waitSince returns since when the origin is waited for: since began, but not
// for the time that went into waiting for the client.
func (u *upload) waitSince(began, now time.Time) time.Time {
	switch {
	case u == nil:
	case u.waiting.Load():
		return now
	default:
		if waited := epoch.Add(time.Duration(u.waited.Load())); waited.After(began) {
			return waited
		}
	}
	return began
}

// goOnLocked says that the origin wants the body.
func (u *upload) goOnLocked() {
	if u != nil && u.asked != nil && !u.ready {
		u.ready = true
		close(u.asked)
	}
}

// answeredLocked says that the final response came: a body that the origin has
// not asked for is not sent any more.
func (u *upload) answeredLocked() {
	if u != nil && u.asked != nil && !u.ready && !u.touched.Load() {
		u.quitLocked()
	}
}

// quitLocked says that the body is not wanted any more. The stream is closed, or
// nothing of the body was taken.
func (u *upload) quitLocked() {
	if u != nil && !u.stopped {
		u.ready, u.stopped = true, true
		close(u.quit)
	}
}

// join waits for the end of an upload that was told to quit. A body that was not
// sent to its end is closed.
func (u *upload) join() {
	if u == nil {
		return
	}
	if u.touched.Load() && !u.read.Load() {
		u.request.Body.Close()
	}
	<-u.done
}

// wasTouched reports whether something of the body was taken.
func (u *upload) wasTouched() bool { return u != nil && u.touched.Load() }
