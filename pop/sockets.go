package pop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"anyedge/configs"
	"anyedge/pop/proxy"
)

// sockets are the listening sockets of one config. The agent holds them for
// as long as the config is in force, whatever happens to workers, so
// connections queue in the kernel while no worker accepts.
type sockets struct {
	open map[socketKey]*socket
}

// socket is a bare descriptor. An os.File would be watched by this process's
// poller, and wake the agent for every client that connects.
type socket struct{ fd int }

func (s *socket) close() { unix.Close(s.fd) }

type socketKey struct {
	name    string
	address netip.AddrPort
}

// bind opens the sockets of the listeners, taking over those that old already
// has. On error nothing is left open but what old had.
func bind(ctx context.Context, listeners []configs.Listener, old *sockets) (*sockets, error) {
	s := &sockets{open: make(map[socketKey]*socket)}
	var errs []error
	for _, l := range listeners {
		key := socketKey{l.Name, l.Address}
		if held := old.held(key); held != nil {
			s.open[key] = held
			continue
		}
		opened, err := listen(ctx, l.Address)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %s: %w", l.Name, err))
			continue
		}
		s.open[key] = opened
	}
	if err := errors.Join(errs...); err != nil {
		s.closeExcept(old)
		return nil, err
	}
	return s, nil
}

func listen(ctx context.Context, address netip.AddrPort) (*socket, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	defer l.Close() // a duplicate stays
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil, err
	}
	s := new(socket)
	if controlErr := raw.Control(func(fd uintptr) { s.fd, err = duplicate(int(fd)) }); controlErr != nil {
		return nil, controlErr
	}
	return s, err
}

func duplicate(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

func (s *sockets) held(key socketKey) *socket {
	if s == nil {
		return nil
	}
	return s.open[key]
}

// closeExcept closes the sockets that keep, which may be nil, does not have.
func (s *sockets) closeExcept(keep *sockets) {
	if s == nil {
		return
	}
	for key, held := range s.open {
		if keep.held(key) != held {
			held.close()
		}
	}
}

// list returns names, and duplicates of the descriptors in the same order, which
// the caller closes.
func (s *sockets) list() ([]proxy.Socket, []*os.File, error) {
	var names []proxy.Socket
	var files []*os.File
	for key, held := range s.open {
		fd, err := duplicate(held.fd)
		if err != nil {
			closeFiles(files)
			return nil, nil, fmt.Errorf("listener %s: %w", key.name, err)
		}
		names = append(names, proxy.Socket{Name: key.name, Address: key.address})
		files = append(files, os.NewFile(uintptr(fd), key.name))
	}
	return names, files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
