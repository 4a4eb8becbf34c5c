package gslb

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// socket is one address served over both transports.
type socket struct {
	address netip.AddrPort
	udp     *net.UDPConn
	tcp     *net.TCPListener
}

func (s *socket) close() {
	s.udp.Close()
	s.tcp.Close()
}

// listen opens both transports on an address. Port 0 takes one that is free in
// both.
func listen(address netip.AddrPort) (*socket, error) {
	const tries = 16 // for a port free in UDP but taken in TCP
	for i := 1; ; i++ {
		s, err := listenOnce(address)
		if err == nil || address.Port() != 0 || i == tries || !errors.Is(err, syscall.EADDRINUSE) {
			return s, err
		}
	}
}

func listenOnce(address netip.AddrPort) (*socket, error) {
	// The explicit family keeps [::] from taking IPv4 too, and with it mapped
	// addresses and clashes with 0.0.0.0.
	family := "6"
	if address.Addr().Is4() {
		family = "4"
	}
	udp, err := net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	if address.Addr().IsUnspecified() {
		if err := askForDestination(udp, address.Addr()); err != nil {
			udp.Close()
			return nil, err
		}
	}
	bound := netip.AddrPortFrom(address.Addr(), udp.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	tcp, err := net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(bound))
	if err != nil {
		udp.Close()
		return nil, err
	}
	return &socket{bound, udp, tcp}, nil
}

// askForDestination makes the socket tell which of the host's addresses a packet
// came to, so that the answer can come from there.
func askForDestination(udp *net.UDPConn, addr netip.Addr) error {
	if addr.Is4() {
		return ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagDst, true)
	}
	return ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagDst, true)
}
