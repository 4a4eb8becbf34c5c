package shield

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ipv6MinHopCount is IPV6_MINHOPCOUNT of linux/in6.h, absent from x/sys.
const ipv6MinHopCount = 73

// control sets the options of the peer's socket before it connects.
func (c *Config) control(_, _ string, raw syscall.RawConn) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) { err = c.setOptions(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

func (c *Config) setOptions(fd int) error {
	if c.Password != "" {
		sig := md5Signature(c.Peer.Addr(), c.Password)
		if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, sig); err != nil {
			return os.NewSyscallError("setsockopt TCP_MD5SIG", err)
		}
	}
	if !c.TTLSecurity {
		return nil
	}
	level, ttl, minTTL := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_MINTTL
	if c.Peer.Addr().Is6() {
		level, ttl, minTTL = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ipv6MinHopCount
	}
	if err := unix.SetsockoptInt(fd, level, ttl, 255); err != nil {
		return os.NewSyscallError("setsockopt TTL", err)
	}
	return os.NewSyscallError("setsockopt minimum TTL", unix.SetsockoptInt(fd, level, minTTL, 255))
}

// md5Signature is the kernel's form of a TCP MD5 key for one peer (tcp(7)).
func md5Signature(peer netip.Addr, password string) *unix.TCPMD5Sig {
	sig := &unix.TCPMD5Sig{Keylen: uint16(len(password))}
	copy(sig.Key[:], password)
	// Data holds sockaddr_in or sockaddr_in6 after the family: the port, for
	// IPv6 the flow label, then the address.
	if peer.Is4() {
		sig.Addr.Family = unix.AF_INET
		copy(sig.Addr.Data[2:], peer.AsSlice())
	} else {
		sig.Addr.Family = unix.AF_INET6
		copy(sig.Addr.Data[6:], peer.AsSlice())
	}
	return sig
}

// ours reports whether the other end of the accepted loopback connection c is
// a socket of this process: one of its descriptors has the same two addresses,
// swapped. A connection's pair of addresses is unique in a network namespace.
// When /proc cannot tell, the answer is no.
func ours(c *net.TCPConn) bool {
	local := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	remote := c.LocalAddr().(*net.TCPAddr).AddrPort()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return false
	}
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if sa, err := unix.Getsockname(fd); err != nil || addrPort(sa) != local {
			continue
		}
		if sa, err := unix.Getpeername(fd); err == nil && addrPort(sa) == remote {
			return true
		}
	}
	return false
}

// addrPort is the address of an IP socket, else the zero AddrPort.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
