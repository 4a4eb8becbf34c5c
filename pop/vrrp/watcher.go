package vrrp

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// recheck is the pace at which the interface is looked at without a cause.
const recheck = time.Second

// watcher keeps up with the interface, in a goroutine of its own: questions to
// the kernel wait for the same lock as changes do.
type watcher struct {
	monitor *rtnl // tells of changes
	query   *rtnl
	name    string
	family  Family
	report  func() // called after every look; must not block

	mu   sync.Mutex
	seen sight
}

// sight is what the watcher saw last.
type sight struct {
	looks int // counts
	link  link
	err   error // the interface could not be looked at: link is older
}

// state returns what was seen last.
func (w *watcher) state() sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// look looks at the interface now.
func (w *watcher) look() {
	l, err := w.query.link(w.name, w.family)
	w.mu.Lock()
	if err != nil {
		l = w.seen.link // unknown is not gone
	}
	w.seen = sight{looks: w.seen.looks + 1, link: l, err: err}
	w.mu.Unlock()
	w.report()
}

// run looks whenever something changes, until ctx ends and stop is woken.
func (w *watcher) run(ctx context.Context, stop *waker) {
	for ctx.Err() == nil {
		due := time.Now().Add(recheck)
		for time.Now().Before(due) && ctx.Err() == nil {
			if err := poll(due, stop.fd, w.monitor.fd); err != nil {
				time.Sleep(time.Until(due)) // changes are seen late, but seen
			}
			if w.monitor.changed(w.state().link.index, w.name) {
				break
			}
		}
		w.look()
	}
}

// waker ends another goroutine's poll. It is an eventfd.
type waker struct {
	fd int
}

func newWaker() (*waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return &waker{fd: fd}, os.NewSyscallError("eventfd", err)
}

// wake does not block.
func (w *waker) wake() {
	// It fails only when the counter is full, and whoever polls woken already.
	_, _ = unix.Write(w.fd, binary.NativeEndian.AppendUint64(nil, 1))
}

// clear has the next poll wait again. A wake before it is not lost on whoever
// looks at what it was about afterwards.
func (w *waker) clear() {
	var count [8]byte
	_, _ = unix.Read(w.fd, count[:])
}

func (w *waker) close() { unix.Close(w.fd) }

// poll waits until one of the descriptors can be read from, or a deadline; the
// zero deadline never comes. It may return early.
func poll(deadline time.Time, fds ...int) error {
	list := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		list[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	var timeout *unix.Timespec
	if !deadline.IsZero() {
		left := unix.NsecToTimespec(max(0, time.Until(deadline)).Nanoseconds())
		timeout = &left
	}
	if _, err := unix.Ppoll(list, timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("ppoll", err)
	}
	return nil
}
