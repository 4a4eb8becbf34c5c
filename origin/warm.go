package origin

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// warmAge bounds how long a connection waits for its first request. Servers
	// commonly give up on a silent connection after 10 to 60 seconds.
	warmAge = 20 * time.Second
	// warmPace is how often dead and old connections are looked for, and how
	// soon a failed dial is tried again.
	warmPace = time.Second
)

// warm holds one backend's idle connections, on which nothing was ever sent.
type warm struct {
	// wake tells the task in keepWarm that a connection is missing.
	wake chan struct{}

	mu         sync.Mutex
	want       int        // connections to hold: 0 unless the backend is healthy, in the set, and the pool runs
	generation int        // connections dialled under an older one are not taken in
	idle       []idleConn // oldest first, never more than want
}

type idleConn struct {
	conn  net.Conn
	since time.Time
}

// hold sets how many connections to keep. What is above n is closed at once.
func (w *warm) hold(n int) {
	w.mu.Lock()
	w.want = n
	if n == 0 {
		w.generation++
	}
	excess := max(0, len(w.idle)-n)
	closing := slices.Clone(w.idle[:excess])
	w.idle = slices.Delete(w.idle, 0, excess)
	w.mu.Unlock()

	closeAll(closing)
	signal(w.wake)
}

// flush closes every connection, and those that are being dialled.
func (w *warm) flush() {
	w.mu.Lock()
	w.generation++
	closing := w.idle
	w.idle = nil
	w.mu.Unlock()

	closeAll(closing)
	signal(w.wake)
}

// take returns the youngest connection that is alive, or nil. The caller owns it.
func (w *warm) take(now time.Time) net.Conn {
	for {
		w.mu.Lock()
		last := len(w.idle) - 1
		if last < 0 {
			w.mu.Unlock()
			return nil
		}
		c := w.idle[last]
		w.idle = slices.Delete(w.idle, last, last+1)
		w.mu.Unlock()

		signal(w.wake)
		if c.usable(now) {
			return c.conn
		}
		c.conn.Close()
	}
}

// sweep closes the connections that are dead or too old.
func (w *warm) sweep(now time.Time) {
	var closing []idleConn
	w.mu.Lock()
	w.idle = slices.DeleteFunc(w.idle, func(c idleConn) bool {
		usable := c.usable(now)
		if !usable {
			closing = append(closing, c)
		}
		return !usable
	})
	w.mu.Unlock()
	closeAll(closing)
}

// missing returns whether a connection should be dialled, and the generation to
// hand it to put with.
func (w *warm) missing() (generation int, missing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.generation, len(w.idle) < w.want
}

// put takes a new connection in, or closes it when it is no longer wanted.
func (w *warm) put(conn net.Conn, generation int, now time.Time) {
	w.mu.Lock()
	wanted := generation == w.generation && len(w.idle) < w.want
	if wanted {
		w.idle = append(w.idle, idleConn{conn, now})
	}
	w.mu.Unlock()
	if !wanted {
		conn.Close()
	}
}

func (w *warm) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.idle)
}

// keepWarm dials the connections that m is missing until ctx ends.
func (p *Pool) keepWarm(ctx context.Context, m *member) {
	tick := time.NewTicker(warmPace)
	defer tick.Stop()
	for {
		wake := m.warm.wake
		if !p.fill(ctx, m) {
			wake = nil // wait out the pace, however often a connection is asked for
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-tick.C:
			m.warm.sweep(time.Now())
		}
	}
}

// fill dials until nothing is missing. It returns false when a dial failed.
func (p *Pool) fill(ctx context.Context, m *member) bool {
	for {
		generation, missing := m.warm.missing()
		if !missing {
			return true
		}
		// Loaded after the generation, so what an old config made is not taken in.
		conn, err := connect(ctx, m.address, p.config.Load())
		if err != nil {
			return false
		}
		m.warm.put(conn, generation, time.Now())
	}
}

func closeAll(conns []idleConn) {
	for _, c := range conns {
		c.conn.Close()
	}
}

func (c idleConn) usable(now time.Time) bool {
	return now.Sub(c.since) < warmAge && alive(c.conn)
}

// alive returns whether a connection that was only opened, and perhaps secured,
// can still carry a request. It asks the kernel, reads nothing and does not
// block. The peer's FIN or reset means dead. In clear text so does data, since
// an HTTP/1 server that speaks first only has an error to tell. With TLS data is
// expected: session tickets (RFC 8446 Section 4.6.1) and HTTP/2's SETTINGS
// (RFC 9113 Section 3.4) come unasked.
//
// This is poll and not a peek, because a peek sees a FIN only when no data
// stands before it.
func alive(conn net.Conn) bool {
	expected := int16(0)
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
		expected = unix.POLLIN
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	fds := []unix.PollFd{{Events: unix.POLLIN | unix.POLLRDHUP}}
	err = raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		for {
			_, err := unix.Poll(fds, 0)
			if err == nil {
				return
			}
			if err != unix.EINTR {
				fds[0].Revents = unix.POLLNVAL
				return
			}
		}
	})
	return err == nil && fds[0].Revents&^expected == 0
}
