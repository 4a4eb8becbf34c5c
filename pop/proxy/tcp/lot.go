package tcp

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lotPace is how often expired waits are looked for.
	lotPace = time.Second
	// lotEvents is how many sockets are taken from the kernel at once.
	lotEvents = 128
)

// past is a deadline that has passed: it ends what waits.
var past = time.Unix(1, 0)

// Lot waits for sockets to become readable, all of them on one goroutine. A
// socket in it has no goroutine of its own, and so no stack: that is most of what
// an idle connection would hold.
//
// All methods may be called by several goroutines at once.
type Lot struct {
	mu      sync.Mutex
	epoll   int                          // valid while open
	open    bool                         // Run takes events
	spots   map[int32]*Spot              // by descriptor
	waits   map[time.Duration]*list.List // of *Spot, the first to expire in front
	numbers uint32
}

// Spot is the place of one socket in a [Lot].
type Spot struct {
	lot    *Lot
	fd     int32
	number uint32 // tells it from an earlier one of the descriptor
	expiry time.Time
	queue  *list.List
	place  *list.Element // nil once the socket has left
	wake   func(ready bool)
}

// NewLot returns a lot that takes no socket before Run.
func NewLot() *Lot {
	return &Lot{spots: make(map[int32]*Spot), waits: make(map[time.Duration]*list.List)}
}

// Park waits until the socket is readable or its peer has gone; then ready is
// true when wake is called. It is false when wait has passed, within a second,
// when [Spot.Leave] was called, or when Run has ended. wake is called once, on a
// goroutine of its own, and maybe before Park returns.
//
// While it is parked nobody may read or close the socket. Park returns nil if
// the lot cannot take it: then wake is not called.
func (l *Lot) Park(socket syscall.RawConn, wait time.Duration, wake func(ready bool)) *Spot {
	var s *Spot
	socket.Control(func(fd uintptr) { s = l.add(int32(fd), wait, wake) })
	return s
}

func (l *Lot) add(fd int32, wait time.Duration, wake func(ready bool)) *Spot {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open {
		return nil
	}
	l.numbers++
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: fd, Pad: int32(l.numbers)}
	if unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, int(fd), &event) != nil {
		return nil
	}
	queue := l.waits[wait]
	if queue == nil {
		queue = list.New()
		l.waits[wait] = queue
	}
	s := &Spot{lot: l, fd: fd, number: l.numbers, expiry: time.Now().Add(wait), queue: queue, wake: wake}
	s.place = queue.PushBack(s)
	l.spots[fd] = s
	return s
}

// Leave ends the wait. It does nothing if the wait is over.
func (s *Spot) Leave() {
	s.lot.mu.Lock()
	defer s.lot.mu.Unlock()
	s.leaveLocked(false)
}

func (s *Spot) leaveLocked(ready bool) {
	if s.place == nil {
		return
	}
	unix.EpollCtl(s.lot.epoll, unix.EPOLL_CTL_DEL, int(s.fd), nil)
	delete(s.lot.spots, s.fd)
	s.queue.Remove(s.place)
	s.place = nil
	go s.wake(ready)
}

// Run takes sockets until ctx ends, and then wakes all that are parked.
func (l *Lot) Run(ctx context.Context) error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		// Go's poller waits for the descriptor only if it does not block.
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return fmt.Errorf("create epoll: %w", err)
	}
	epoll := os.NewFile(uintptr(fd), "epoll")
	defer epoll.Close()
	raw, err := epoll.SyscallConn()
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.epoll, l.open = fd, true
	l.mu.Unlock()
	defer l.close()
	stop := context.AfterFunc(ctx, func() { epoll.SetReadDeadline(past) })
	defer stop()

	events := make([]unix.EpollEvent, lotEvents)
	for sweep := time.Now().Add(lotPace); ; {
		epoll.SetReadDeadline(sweep)
		if ctx.Err() != nil {
			return nil
		}
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		switch {
		case err == nil:
			l.ready(events[:n])
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("wait for epoll: %w", err)
		}
		if now := time.Now(); !now.Before(sweep) {
			l.expire(now)
			sweep = now.Add(lotPace)
		}
	}
}

func (l *Lot) ready(events []unix.EpollEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		if s := l.spots[e.Fd]; s != nil && s.number == uint32(e.Pad) {
			s.leaveLocked(true)
		}
	}
}

func (l *Lot) expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for wait, queue := range l.waits {
		for e := queue.Front(); e != nil && !now.Before(e.Value.(*Spot).expiry); e = queue.Front() {
			e.Value.(*Spot).leaveLocked(false)
		}
		if queue.Len() == 0 {
			delete(l.waits, wait)
		}
	}
}

func (l *Lot) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spots {
		s.leaveLocked(false)
	}
	l.open = false
}
