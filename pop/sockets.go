package pop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"anyedge/configs"
	"anyedge/pop/proxy"
)

// sockets are the listening sockets of one config. The agent holds them for
// as long as the config is in force, whatever happens to workers, so
// connections queue in the kernel while no worker accepts.
type sockets struct {
	open map[socketKey]*os.File
}

type socketKey struct {
	name    string
	address netip.AddrPort
}

// bind opens the sockets of the listeners, taking over those that old already
// has. On error nothing is left open but what old had.
func bind(ctx context.Context, listeners []configs.Listener, old *sockets) (*sockets, error) {
	s := &sockets{open: make(map[socketKey]*os.File)}
	var errs []error
	for _, l := range listeners {
		key := socketKey{l.Name, l.Address}
		if f := old.file(key); f != nil {
			s.open[key] = f
			continue
		}
		f, err := listen(ctx, l.Address)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %s: %w", l.Name, err))
			continue
		}
		s.open[key] = f
	}
	if err := errors.Join(errs...); err != nil {
		s.closeExcept(old)
		return nil, err
	}
	return s, nil
}

func listen(ctx context.Context, address netip.AddrPort) (*os.File, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	defer l.Close() // File duplicates it
	return l.(*net.TCPListener).File()
}

func (s *sockets) file(key socketKey) *os.File {
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
	for key, f := range s.open {
		if keep.file(key) != f {
			f.Close()
		}
	}
}

// list returns names and descriptors in the same order.
func (s *sockets) list() ([]proxy.Socket, []*os.File) {
	names := make([]proxy.Socket, 0, len(s.open))
	files := make([]*os.File, 0, len(s.open))
	for key, f := range s.open {
		names = append(names, proxy.Socket{Name: key.name, Address: key.address})
		files = append(files, f)
	}
	return names, files
}
