package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Notifier tells the service manager how the process is doing, in the
// protocol of sd_notify(3). Without a service manager every method does nothing.
//
// Word that does not arrive never harms the service, so a caller may log the
// errors and go on.
type Notifier struct {
	socket   *net.UnixAddr // nil: nobody listens
	watchdog time.Duration // 0: none is asked for
}

// NewNotifier reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and removes
// them from the environment, so that no child speaks for this process. It opens
// nothing; each message is sent on a socket of its own and so survives a restart
// of the service manager.
func NewNotifier() (*Notifier, error) {
	socket := os.Getenv("NOTIFY_SOCKET")
	usec, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	n := new(Notifier)
	if socket == "" {
		return n, nil
	}
	// "@" stands for the NUL byte of an abstract address; package net knows it.
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
		return nil, fmt.Errorf("NOTIFY_SOCKET %q is neither a path nor an abstract socket", socket)
	}
	n.socket = &net.UnixAddr{Name: socket, Net: "unixgram"}
	if usec == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n, nil
	}
	u, err := strconv.ParseUint(usec, 10, 32) // beyond an hour: a mistake
	if err != nil || u == 0 {
		return nil, fmt.Errorf("WATCHDOG_USEC %q is not a number of microseconds", usec)
	}
	n.watchdog = time.Duration(u) * time.Microsecond
	return n, nil
}

// Ready says that the process serves, after a start or a reload. The status is
// one line for people and may be empty.
func (n *Notifier) Ready(status string) error {
	return n.send("READY=1", statusLine(status))
}

// Reloading says that a reload has begun; Ready ends it, whether the new config
// was taken or refused.
func (n *Notifier) Reloading() error {
	// The service manager compares this with its own clock to tell this reload
	// from one that ended before it asked.
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the monotonic clock: %w", err)
	}
	return n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping says that the orderly end has begun.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Watchdog says that the process is alive, at half the time the service manager
// allows, for as long as alive returns true. When it does not, the service
// manager restarts the process. It blocks until ctx ends and returns nil; when
// no watchdog is asked for it only waits.
func (n *Notifier) Watchdog(ctx context.Context, alive func() bool) error {
	if n.watchdog == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(n.watchdog / 2)
	defer ticker.Stop()
	for {
		if alive() {
			// One lost message is covered by the next; lost ones in a row are
			// what a watchdog is for.
			_ = n.send("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// statusLine keeps a status from adding assignments of its own.
func statusLine(status string) string {
	return "STATUS=" + strings.NewReplacer("\n", " ", "\r", " ").Replace(status)
}

// send writes one datagram of newline-separated assignments.
func (n *Notifier) send(assignments ...string) error {
	if n.socket == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, n.socket)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	// A full queue must not hold up the caller.
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	if _, err := conn.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
