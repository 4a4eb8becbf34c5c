package pop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"anyedge/configs"
	"anyedge/pop/proxy"
)

// sockets are the listening sockets of one config, TCP and for HTTP/3 UDP. The agent holds them for
// as long as the config is in force, whatever happens to workers, so
// connections queue in the kernel while no worker accepts.
type sockets struct {
	open map[socketKey]*socket
}

// socket is a bare descriptor. An os.File would be watched by this process's
// poller, and wake the agent for every client that connects.
type socket struct {
	fd    int
	bound netip.AddrPort // a TCP socket's address
}

func (s *socket) close() { unix.Close(s.fd) }

type socketKey struct {
	name    string
	network string // "tcp", "udp" or proxy.Door
	address netip.AddrPort
}

// keys are the sockets that a listener needs, one on a virtual address or not.
func keys(l configs.Listener, virtual bool) []socketKey {
	keys := []socketKey{{l.Name, "tcp", l.Address}}
	if slices.Contains(l.Protocols, "h3") {
		keys = append(keys, socketKey{l.Name, "udp", l.Address})
	}
	if virtual {
		keys = append(keys, doorKey(l))
	}
	return keys
}

// bind opens the sockets of the listeners, taking over those that old already
// has. On error nothing is left open but what old had. The virtual addresses need
// not be on this host.
func bind(ctx context.Context, listeners []configs.Listener, old *sockets, virtual ...netip.Addr) (*sockets, error) {
	s := &sockets{open: make(map[socketKey]*socket)}
	var errs []error
	for _, l := range listeners {
		for _, key := range keys(l, isVirtual(virtual, l.Address)) {
			if held := old.held(key); held != nil {
				s.open[key] = held
				continue
			}
			opened, err := listen(ctx, key, isVirtual(virtual, l.Address))
			if err != nil {
				errs = append(errs, fmt.Errorf("listener %s: %w", l.Name, err))
				continue
			}
			s.open[key] = opened
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.closeExcept(old)
		return nil, err
	}
	return s, nil
}

func listen(ctx context.Context, key socketKey, virtual bool) (*socket, error) {
	var lc net.ListenConfig
	network, address := key.network, key.address
	switch {
	case network == proxy.Door:
		network, address = "tcp", loopbackOf(key.address)
	case virtual:
		lc.Control = freebind
	}
	var bound netip.AddrPort
	var opened interface {
		io.Closer
		syscall.Conn
	}
	if network == "udp" {
		conn, err := lc.ListenPacket(ctx, network, address.String())
		if err != nil {
			return nil, err
		}
		opened = conn.(*net.UDPConn)
	} else {
		l, err := lc.Listen(ctx, network, address.String())
		if err != nil {
			return nil, err
		}
		opened = l.(*net.TCPListener)
		bound = l.Addr().(*net.TCPAddr).AddrPort()
	}
	defer opened.Close() // a duplicate stays
	raw, err := opened.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{bound: bound}
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
		names = append(names, proxy.Socket{Name: key.name, Network: key.network, Address: key.address})
		files = append(files, os.NewFile(uintptr(fd), key.name))
	}
	return names, files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
