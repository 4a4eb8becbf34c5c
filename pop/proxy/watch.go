package proxy

import (
	"sync"
	"time"
)

// watch gives up on an origin that has kept the worker waiting for a whole
// span. The time in which the worker waits for something else does not count:
// each wait for the origin begins the span anew.
//
// Its methods may be called by several goroutines.
type watch struct {
	expire func(reason error)
	timer  *time.Timer

	mu     sync.Mutex
	span   time.Duration
	reason error     // what an expiry means at present
	due    time.Time // when the present wait expires
	paused int       // reasons to wait for something else
}

// newWatch returns a watch that is running.
func newWatch(span time.Duration, reason error, expire func(reason error)) *watch {
	w := &watch{expire: expire, span: span, reason: reason, due: time.Now().Add(span)}
	w.timer = time.AfterFunc(span, w.expired)
	return w
}

func (w *watch) expired() {
	w.mu.Lock()
	// The wait may have ended, or a new one begun, since the timer fired.
	over, reason := w.paused == 0 && !time.Now().Before(w.due), w.reason
	w.mu.Unlock()
	if over {
		w.expire(reason)
	}
}

// pause says that something else than the origin is waited for.
func (w *watch) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused++
	w.timer.Stop()
}

// resume takes one pause back.
func (w *watch) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused--
	if w.paused == 0 {
		w.due = time.Now().Add(w.span)
		w.timer.Reset(w.span)
	}
}

// next replaces span and reason of the waits that begin from here on.
func (w *watch) next(span time.Duration, reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.span, w.reason = span, reason
}
