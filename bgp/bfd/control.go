package bfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// The Manager and its engine exchange JSON messages over a socket pair that
// keeps message boundaries.

// plan is what the Manager tells the engine: the whole set of peers.
type plan struct {
	Generation uint64
	Peers      []Peer // normalized
	// Stop asks to take all sessions down and to end.
	Stop bool
}

// report is what the engine tells the Manager. Each has one field set.
type report struct {
	Started *started `json:",omitempty"`
	// Applied is the generation of the plan that holds now.
	Applied uint64 `json:",omitempty"`
	// Session is the whole status of one session, sent when anything but a
	// counter changes and else every second.
	Session *Status `json:",omitempty"`
	Strays  *stray  `json:",omitempty"`
}

// started says how the engine runs.
type started struct {
	// Ordinary is why the thread has no real-time priority; empty if it has.
	Ordinary string
}

// stray counts packets that belong to no peer, since the engine started.
type stray struct {
	Drops map[string]uint64 // by reason
	// Kernel counts packets dropped before they were read: those whose TTL or
	// hop limit was not 255, and those that found the buffer full.
	Kernel uint64
}

// maxMessage is the most bytes of a message between Manager and engine.
const maxMessage = 160 << 10

// controlPair makes the two ends. Both are closed on exec.
func controlPair() (manager, engine int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("control socket: %w", err)
	}
	return pair[0], pair[1], nil
}

// control is the engine's end.
type control struct {
	fd  int
	buf []byte
}

// receive returns the next plan, or nil if there is none yet. io.EOF means that
// the Manager is gone.
func (c *control) receive() (*plan, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET), err == nil && n == 0:
			return nil, io.EOF
		case err != nil:
			return nil, fmt.Errorf("control socket: %w", err)
		}
		p := new(plan)
		if err := json.Unmarshal(c.buf[:n], p); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		return p, nil
	}
}

// send passes a report on. It reports false if the Manager must first read
// what it has.
func (c *control) send(r *report) bool {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // no type in a report can fail
	}
	return unix.Sendto(c.fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) == nil
}
