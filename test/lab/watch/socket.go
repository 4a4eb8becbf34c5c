package watch

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"anyedge/test/lab/netns"
)

// receiveBuffer is large enough for a burst while the watcher does not get to
// run.
const receiveBuffer = 8 << 20

// open makes a non-blocking socket in a namespace and has set prepare it.
func open(s netns.Space, domain, kind, protocol int, name string, set func(fd int) error) (*os.File, error) {
	var fd int
	err := s.Do(func() (err error) {
		fd, err = unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		err = errors.Join(
			os.NewSyscallError("setsockopt SO_RCVBUFFORCE", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)),
			os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)),
			set(fd),
		)
		if err != nil {
			unix.Close(fd)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// receive hands every message to take, with the time at which the kernel had
// it, until ctx ends; then it closes the socket and returns nil. The bytes are
// valid during the call only.
func receive(ctx context.Context, f *os.File, take func(at time.Time, from unix.Sockaddr, data []byte) error) error {
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	buf, oob := make([]byte, 1<<17), make([]byte, 256)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var failure error
		err := raw.Read(func(fd uintptr) bool {
			n, oobn, _, from, failure = unix.Recvmsg(int(fd), buf, oob, 0)
			return !errors.Is(failure, unix.EAGAIN) && !errors.Is(failure, unix.EINTR)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case errors.Is(failure, unix.ENETDOWN):
			continue // the interface went down, as interfaces of a lab do; it may come back
		case failure != nil:
			return os.NewSyscallError("recvmsg", failure)
		}
		if err := take(stamp(oob[:oobn]), from, buf[:n]); err != nil {
			return err
		}
	}
}

// stamp reads the kernel's time from a control message; without any it is now.
func stamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_TIMESTAMPNS || len(m.Data) < 16 {
			continue
		}
		return time.Unix(int64(native.Uint64(m.Data)), int64(native.Uint64(m.Data[8:])))
	}
	return time.Now()
}
