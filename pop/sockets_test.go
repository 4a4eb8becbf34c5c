package pop

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"anyedge/configs"
)

// openSockets counts this process's sockets that clients connect to: those that
// listen, and those of UDP. Others come and go with what earlier tests left to
// end by itself.
func openSockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc to count descriptors: ", err)
	}
	n := 0
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		family, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if family != unix.AF_UNIX && (listens == 1 || kind == unix.SOCK_DGRAM) {
			n++
		}
	}
	return n
}

// freeAddress returns an address that nothing is bound to.
func freeAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// taken returns an address that somebody else listens on.
func taken(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return netip.MustParseAddrPort(l.Addr().String())
}

func connects(address netip.AddrPort) bool {
	c, err := net.Dial("tcp", address.String())
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func TestBindTakesOverWhatIsOpen(t *testing.T) {
	a, b, c := freeAddress(t), freeAddress(t), freeAddress(t)
	before := openSockets(t)
	old, err := bind(t.Context(), []configs.Listener{{Name: "a", Address: a}, {Name: "b", Address: b}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	next, err := bind(t.Context(), []configs.Listener{{Name: "b", Address: b}, {Name: "c", Address: c}}, old)
	if err != nil {
		t.Fatal(err)
	}
	key := socketKey{"b", "tcp", b}
	if next.held(key) == nil || next.held(key) != old.held(key) {
		t.Error("the socket of b was not taken over")
	}
	if got := openSockets(t) - before; got != 3 {
		t.Errorf("%d sockets open, want those of a, b and c", got)
	}
	old.closeExcept(next)
	if connects(a) || !connects(b) || !connects(c) {
		t.Errorf("a, b, c accept: %v, %v, %v, want b and c", connects(a), connects(b), connects(c))
	}
	next.closeExcept(nil)
	if got := openSockets(t) - before; got != 0 {
		t.Errorf("%d sockets left open", got)
	}
}

func TestBindReportsEveryErrorAndKeepsOnlyTheOld(t *testing.T) {
	a, x, y, z := freeAddress(t), freeAddress(t), taken(t), taken(t)
	old, err := bind(t.Context(), []configs.Listener{{Name: "a", Address: a}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer old.closeExcept(nil)
	before := openSockets(t)
	_, err = bind(t.Context(), []configs.Listener{
		{Name: "a", Address: a}, {Name: "x", Address: x}, {Name: "y", Address: y}, {Name: "z", Address: z},
	}, old)
	if err == nil || !strings.Contains(err.Error(), "listener y: ") || !strings.Contains(err.Error(), "listener z: ") {
		t.Errorf("error %v, want it to name y and z", err)
	}
	if got := openSockets(t) - before; got != 0 {
		t.Errorf("%d more sockets open after a failure", got)
	}
	if !connects(a) || connects(x) {
		t.Error("the old socket is closed, or the new one is not")
	}
}

// A listener of HTTP/3 has a UDP socket beside the other, and loses it alone.
func TestBindHTTP3(t *testing.T) {
	a := freeAddress(t)
	before := openSockets(t)
	both, err := bind(t.Context(), []configs.Listener{{Name: "a", Address: a, Protocols: []string{"h2", "h3"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	names, files, err := both.list()
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		udp, err := net.FilePacketConn(files[i])
		if (err == nil) != (n.Network == "udp") || n.Address != a {
			t.Errorf("socket %+v: %v as a packet socket", n, err)
		}
		if err == nil {
			udp.Close()
		}
	}
	closeFiles(files)
	if got := openSockets(t) - before; got != 2 || len(names) != 2 {
		t.Errorf("%d sockets open and %d listed, want two", got, len(names))
	}
	one, err := bind(t.Context(), []configs.Listener{{Name: "a", Address: a, Protocols: []string{"h2"}}}, both)
	if err != nil {
		t.Fatal(err)
	}
	both.closeExcept(one)
	if got := openSockets(t) - before; got != 1 || !connects(a) {
		t.Errorf("%d sockets open, accepting %v: want the TCP one", got, connects(a))
	}
	one.closeExcept(nil)
}

func TestListKeepsNamesAndFilesTogether(t *testing.T) {
	var listeners []configs.Listener
	for _, name := range []string{"a", "b", "c", "d"} {
		listeners = append(listeners, configs.Listener{Name: name, Address: freeAddress(t)})
	}
	s, err := bind(t.Context(), listeners, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.closeExcept(nil)
	names, files, err := s.list()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFiles(files)
	if len(names) != len(listeners) || len(files) != len(listeners) {
		t.Fatalf("%d names, %d files, want %d", len(names), len(files), len(listeners))
	}
	for i, n := range names {
		l, err := net.FileListener(files[i])
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Addr().String(); got != n.Address.String() {
			t.Errorf("the file of %s listens on %s, want %s", n.Name, got, n.Address)
		}
		l.Close()
	}
}
