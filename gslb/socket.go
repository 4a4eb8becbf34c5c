package gslb

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// socket is one address served over both transports.
type socket struct {
	address netip.AddrPort
	udp     []*os.File // blocking sockets
	tcp     *net.TCPListener
}

func (s *socket) close() {
	for _, each := range s.udp {
		each.Close()
	}
	s.tcp.Close()
}

// listen opens both transports on an address, UDP with so many sockets. Port 0 takes one that is free in
// both.
func listen(address netip.AddrPort, sockets int) (*socket, error) {
	const tries = 16 // for a port free in TCP but taken in UDP
	for i := 1; ; i++ {
		s, err := listenOnce(address, sockets)
		if err == nil || address.Port() != 0 || i == tries || !errors.Is(err, syscall.EADDRINUSE) {
			return s, err
		}
	}
}

func listenOnce(address netip.AddrPort, sockets int) (*socket, error) {
	family := ipFamily(address.Addr())
	// The TCP socket comes first: it tells when another process has the address,
	// which would share UDP without a word.
	tcp, err := net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	s := &socket{address: netip.AddrPortFrom(address.Addr(), tcp.Addr().(*net.TCPAddr).AddrPort().Port()), tcp: tcp}
	for range sockets {
		udp, err := listenUDP("udp"+family, s.address)
		if err != nil {
			s.close()
			return nil, err
		}
		s.udp = append(s.udp, udp)
	}
	return s, nil
}

// ipFamily is the suffix of the networks of an address's family. It keeps [::]
// from taking IPv4 too, and with it mapped addresses and clashes with 0.0.0.0.
func ipFamily(addr netip.Addr) string {
	if addr.Is4() {
		return "4"
	}
	return "6"
}

// askForDestination makes the socket tell which of the host's addresses a packet
// came to, so that the answer can come from there.
func askForDestination(udp *net.UDPConn, addr netip.Addr) error {
	if addr.Is4() {
		return ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagDst, true)
	}
	return ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagDst, true)
}
