package http1

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"anyedge/pop/proxy/tcp"
)

const (
	// maxIdle bounds the idle connections kept to one origin.
	maxIdle = 256
	// idleTimeout is how long one is kept. It is short of what origins
	// commonly wait, so that it is rarely they who close first.
	idleTimeout = 45 * time.Second
	// sweepPace is how often old and dead ones are looked for.
	sweepPace = 5 * time.Second
)

// link is a connection to an origin.
type link struct {
	net.Conn
	tcp        *net.TCPConn    // the socket below; nil if there is none
	raw        syscall.RawConn // of tcp
	secure     bool
	generation uint64
	since      time.Time // of its idleness
	read       alarm
	write      alarm
	look       func(fd uintptr) // sets live
	live       bool
}

// alive reports whether an idle connection can still carry a request: the
// origin has neither closed it nor sent anything. What an origin sends without
// being asked would be taken for the answer to the next request.
func (l *link) alive() bool {
	if l.raw == nil {
		return true
	}
	return l.raw.Control(l.look) == nil && l.live
}

func (l *link) lookAt(fd uintptr) {
	var b [1]byte
	// The socket does not block, so the scheduler need not know of the call.
	_, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	l.live = err == syscall.EAGAIN
}

// idle holds the idle connections of a back by origin.
type idle struct {
	generation atomic.Uint64 // connections of an older one are not kept
	stopped    atomic.Bool
	origins    sync.Map // netip.AddrPort -> *stack
}

// stack is the idle connections of one origin, the youngest last.
type stack struct {
	mu    sync.Mutex
	links []*link
}

// newLink makes a link of a new connection.
func (i *idle) newLink(conn net.Conn) *link {
	if c, ok := conn.(*net.TCPConn); ok {
		if cheap, err := tcp.New(c); err == nil {
			conn = cheap
		}
	}
	l := &link{Conn: conn, generation: i.generation.Load(), read: alarm{conn: conn}, write: alarm{conn: conn, write: true}}
	_, l.secure = conn.(*tls.Conn)
	l.tcp, l.raw = socket(conn)
	l.look = l.lookAt
	return l
}

// take returns the youngest connection that is alive, or nil.
func (i *idle) take(to netip.AddrPort, now time.Time) *link {
	s, ok := i.origins.Load(to)
	if !ok {
		return nil
	}
	for {
		l := s.(*stack).pop()
		if l == nil {
			return nil
		}
		if l.generation == i.generation.Load() && now.Sub(l.since) < idleTimeout && l.alive() {
			return l
		}
		l.Close()
	}
}

func (s *stack) pop() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.links) - 1
	if last < 0 {
		return nil
	}
	l := s.links[last]
	s.links[last] = nil
	s.links = s.links[:last]
	return l
}

// put keeps a connection, or closes it.
func (i *idle) put(to netip.AddrPort, l *link, now time.Time) {
	s, ok := i.origins.Load(to)
	if !ok {
		s, _ = i.origins.LoadOrStore(to, new(stack))
	}
	l.since = now
	if !s.(*stack).push(i, l) {
		l.Close()
	}
}

func (s *stack) push(i *idle, l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Asked under the lock, which flush takes after it has changed them.
	if i.stopped.Load() || l.generation != i.generation.Load() || len(s.links) >= maxIdle {
		return false
	}
	s.links = append(s.links, l)
	return true
}

// sweep closes the connections that are old or dead.
func (i *idle) sweep(now time.Time) {
	i.origins.Range(func(_, s any) bool {
		s.(*stack).closeIf(func(l *link) bool { return now.Sub(l.since) >= idleTimeout || !l.alive() })
		return true
	})
}

// flush closes all connections, and lets none in that is in use.
func (i *idle) flush() {
	i.generation.Add(1)
	i.origins.Range(func(_, s any) bool {
		s.(*stack).closeIf(func(*link) bool { return true })
		return true
	})
}

// stop is flush for good.
func (i *idle) stop() {
	i.stopped.Store(true)
	i.flush()
}

func (s *stack) closeIf(dead func(*link) bool) {
	s.mu.Lock()
	var closing []*link
	kept := s.links[:0]
	for _, l := range s.links {
		if dead(l) {
			closing = append(closing, l)
		} else {
			kept = append(kept, l)
		}
	}
	clear(s.links[len(kept):])
	s.links = kept
	s.mu.Unlock()
	for _, l := range closing {
		l.Close()
	}
}
