package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the service manager's end of the socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// notifier makes one for an environment, which it must leave clean.
func notifier(t *testing.T, socket, usec, pid string) (*Notifier, error) {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", usec)
	t.Setenv("WATCHDOG_PID", pid)
	n, err := NewNotifier()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left for children", name, v)
		}
	}
	return n, err
}

func TestNotify(t *testing.T) {
	for kind, name := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@anyedge-daemon-test-%d", os.Getpid()),
	} {
		t.Run(kind, func(t *testing.T) {
			conn := manager(t, name)
			n, err := notifier(t, name, "", "")
			if err != nil {
				t.Fatal(err)
			}
			for _, tt := range []struct {
				say  func() error
				want string
			}{
				{func() error { return n.Ready("serving\nREADY=0") }, "READY=1\nSTATUS=serving READY=0"},
				{n.Stopping, "STOPPING=1"},
			} {
				if err := tt.say(); err != nil {
					t.Fatal(err)
				}
				if got := receive(t, conn); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			}

			before := monotonic(t)
			if err := n.Reloading(); err != nil {
				t.Fatal(err)
			}
			after := monotonic(t)
			usec, ok := strings.CutPrefix(receive(t, conn), "RELOADING=1\nMONOTONIC_USEC=")
			at, err := strconv.ParseInt(usec, 10, 64)
			if !ok || err != nil || at < before || at > after {
				t.Errorf("reload at %q, want %d to %d", usec, before, after)
			}
		})
	}
}

// monotonic is the clock of the service manager in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

func TestNotifyNobody(t *testing.T) {
	n, err := notifier(t, "", "1000000", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready("x"); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Watchdog(ctx, func() bool { t.Error("asked"); return true }); err != nil {
		t.Error(err)
	}
}

func TestNotifyManagerGone(t *testing.T) {
	n, err := notifier(t, filepath.Join(t.TempDir(), "gone"), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready("x"); err == nil || !strings.HasPrefix(err.Error(), "notify the service manager: ") {
		t.Errorf("got %v", err)
	}
}

func TestNewNotifierRefuses(t *testing.T) {
	for _, tt := range []struct{ socket, usec, want string }{
		{"vsock:2:1234", "", `NOTIFY_SOCKET "vsock:2:1234" is neither a path nor an abstract socket`},
		{"/run/notify", "soon", `WATCHDOG_USEC "soon" is not a number of microseconds`},
		{"/run/notify", "0", `WATCHDOG_USEC "0" is not a number of microseconds`},
	} {
		if _, err := notifier(t, tt.socket, tt.usec, ""); err == nil || err.Error() != tt.want {
			t.Errorf("%s %s: %v", tt.socket, tt.usec, err)
		}
	}
}

func TestWatchdog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	conn := manager(t, name)
	n, err := notifier(t, name, "20000", strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked, alive := make(chan struct{}), make(chan bool)
	done := make(chan error)
	go func() {
		done <- n.Watchdog(ctx, func() bool { asked <- struct{}{}; return <-alive })
	}()
	<-asked
	alive <- true
	if got := receive(t, conn); got != "WATCHDOG=1" {
		t.Errorf("got %q", got)
	}
	<-asked
	alive <- false
	<-asked // a message for the answer before would have been sent by now
	alive <- true
	<-asked
	alive <- true
	cancel()
	go func() {
		for range asked {
			alive <- false
		}
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(asked)
	for range 2 {
		receive(t, conn)
	}
	conn.SetReadDeadline(time.Now())
	if n, err := conn.Read(make([]byte, 64)); err == nil {
		t.Errorf("%d bytes though the process was not alive", n)
	}
}

func TestWatchdogOfAnotherProcess(t *testing.T) {
	n, err := notifier(t, "/run/notify", "20000", "1")
	if err != nil {
		t.Fatal(err)
	}
	if n.watchdog != 0 {
		t.Errorf("watchdog of %v for another process", n.watchdog)
	}
}
