package http1

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// halfClosed is for how long a client that has ended its sending direction is
// taken to be there while nothing is sent to it.
const halfClosed = 2 * time.Second

// hangup is the context of one exchange: it ends when the client hangs up, or
// with its base. Nothing looks out for the client before somebody asks for
// Done, so that an exchange that is over soon costs nothing.
//
// A client that ends its sending direction may still read, and nothing tells it
// from one that has closed its connection but the reset that meets what is sent
// to it. So it counts as gone once nothing was sent to it for [halfClosed].
type hangup struct {
	c    *conn
	base context.Context

	mu       sync.Mutex
	done     chan struct{} // nil until somebody asked
	err      error
	held     bool          // the socket is read by somebody else
	over     bool          // the exchange is, or has left HTTP
	watching chan struct{} // closed when watch has returned; nil if it was not begun
	stopBase func() bool
}

func (h *hangup) begin(c *conn) { h.c, h.base = c, c.base }

// Deadline implements [context.Context]. There is none.
func (h *hangup) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements [context.Context].
func (h *hangup) Value(key any) any { return h.base.Value(key) }

// Err implements [context.Context].
func (h *hangup) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return h.err
	}
	return h.base.Err()
}

// Done implements [context.Context], and begins to look out for the client.
func (h *hangup) Done() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done == nil {
		h.done = make(chan struct{})
		h.stopBase = context.AfterFunc(h.base, h.cancel)
		h.watchLocked()
	}
	return h.done
}

// hold keeps h from the socket while a request's body is read: a client that
// hangs up is then noticed by the read.
func (h *hangup) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = true
}

// release is the end of hold.
func (h *hangup) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = false
	h.watchLocked()
}

func (h *hangup) watchLocked() {
	if h.done == nil || h.held || h.over || h.err != nil || h.watching != nil || h.c.raw == nil {
		return
	}
	h.watching = make(chan struct{})
	h.c.net.SetReadDeadline(time.Time{})
	go h.watch()
}

// watch waits until the client hangs up or stop is called.
func (h *hangup) watch() {
	defer close(h.watching)
	err := h.await(unix.POLLRDHUP)
	if isTimeout(err) {
		return
	}
	if err == nil { // it may have closed one half only
		for left := halfClosed; left > 0; left = halfClosed - h.c.sinceSent() {
			if !h.limit(left) {
				return
			}
			if !isTimeout(h.await(0)) {
				break
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.cancelLocked()
	}
}

// await waits for an event of the client's socket: one of events, or the end of
// both its directions.
func (h *hangup) await(events int16) error {
	return h.c.raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		for {
			if _, err := unix.Poll(fds, 0); err != unix.EINTR {
				return err != nil || fds[0].Revents != 0
			}
		}
	})
}

// limit lets the next await end after span. It returns false if the watch is to
// end.
func (h *hangup) limit(span time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over { // else the deadline is not ours any more
		h.c.net.SetReadDeadline(time.Now().Add(span))
	}
	return !h.over
}

func (h *hangup) cancel() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cancelLocked()
}

func (h *hangup) cancelLocked() {
	if h.err == nil {
		h.err = context.Canceled
		close(h.done)
	}
}

// stop ends the watch: the connection is read by others again.
func (h *hangup) stop() {
	h.mu.Lock()
	h.over = true
	watching := h.watching
	h.mu.Unlock()
	if watching != nil {
		h.c.net.SetReadDeadline(past)
		<-watching
		h.c.read.forget()
	}
}

// end is the end of the exchange. It returns a context for another one.
func (h *hangup) end() *hangup {
	h.stop()
	if h.done == nil {
		h.c, h.base, h.held, h.over = nil, nil, false, false
		return h
	}
	h.stopBase()
	h.cancel()
	return nil // others may still hold it
}
