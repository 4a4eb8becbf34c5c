package pop

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"anyedge/configs"
	"anyedge/pop/proxy"
)

// A virtual address is on one node of a PoP at a time, and all of them have to be
// ready for it. So a listener on one is bound although the address may be
// elsewhere, and has a second listening socket, its door, on loopback. The worker
// accepts on both by the same code, under the same certificates, limits and
// protocols, and shuts the door when it stops to accept on the service address.
//
// While the address is on this host, probes go to it, as those of any listener.
// While it is not, they go through the door: a request to the address itself
// would ask another node. What such a probe does not touch is the queue of the
// first socket in the kernel, which no client can reach either then; it is what
// the first probe after a take-over goes through.
//
// Other ways to reach the socket of an address that is elsewhere were left alone.
// A local route to it in the kernel's own table answers ARP for it. One in a table
// behind a rule for this host's own traffic does not, but it is the host's
// configuration, which other managers of the network clean up, which outlives
// an agent that is killed, and IPv4 also wants a listener with IP_TRANSPARENT. A
// BPF program at the socket lookup needs one more privilege and a hook in the
// listener that clients come to. A socket on loopback needs none of that, and goes
// with its process.

// virtualAddresses are the addresses that may be on another host at the moment.
func virtualAddresses(cfg *configs.Pop) []netip.Addr {
	var all []netip.Addr
	for _, v := range cfg.VRRP {
		for _, a := range v.Addresses {
			all = append(all, a.Addr())
		}
	}
	return all
}

// doorKey is the door of a listener on a virtual address.
func doorKey(l configs.Listener) socketKey { return socketKey{l.Name, proxy.Door, l.Address} }

// freebind lets a socket be bound to an address that is not on this host.
func freebind(network, _ string, c syscall.RawConn) (err error) {
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if network == "tcp6" || network == "udp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}

// loopbackOf is where a door for a service address is bound, at any port.
func loopbackOf(service netip.AddrPort) netip.AddrPort {
	if service.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), 0)
}

// door returns where the door of a listener is; invalid if it has none.
func (s *sockets) door(l configs.Listener) netip.AddrPort {
	if held := s.held(doorKey(l)); held != nil {
		return held.bound
	}
	return netip.AddrPort{}
}

// entrance connects to a listener: at its service address, or if that is not on
// this host, at its door.
type entrance struct {
	service netip.AddrPort
	door    netip.AddrPort // invalid if the service address is always here
}

// dial is a DialContext of [net/http.Transport]; the address it is given is that
// of the URL.
func (e entrance) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	to := e.service
	if e.door.IsValid() && !here(ctx, to) {
		to = e.door
	}
	return new(net.Dialer).DialContext(ctx, network, to.String())
}

// here reports whether an address is on this host: then the kernel takes it as
// the source of what is sent to it. Nothing is sent, and unlike a bind this does
// not depend on ip_nonlocal_bind.
func here(ctx context.Context, a netip.AddrPort) bool {
	c, err := new(net.Dialer).DialContext(ctx, "udp", a.String())
	if err != nil {
		return false
	}
	defer c.Close()
	local, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && local.AddrPort().Addr().Unmap() == a.Addr()
}

// isVirtual reports whether an address is one of the virtual ones.
func isVirtual(virtual []netip.Addr, a netip.AddrPort) bool {
	return slices.Contains(virtual, a.Addr())
}
