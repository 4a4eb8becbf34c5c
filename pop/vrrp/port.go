package vrrp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// classSelector6 is the traffic class of network control (RFC 2474).
const classSelector6 = 0xc0

// port is the sockets of one interface. It belongs to one goroutine.
type port struct {
	family Family
	index  int
	raw    int // advertisements
	frames int // announcements
	buf    []byte
	oob    []byte
}

// openPort opens the sockets in the network namespace of the calling thread and
// joins the family's multicast group.
func openPort(name string, l link, family Family) (*port, error) {
	const kind = unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	p := &port{family: family, index: l.index, raw: -1, frames: -1, buf: make([]byte, 1<<16), oob: make([]byte, 256)}
	fail := func(what string, err error) (*port, error) {
		p.close()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var err error
	if p.raw, err = unix.Socket(int(family.number()), kind, protocol); err != nil {
		return fail("raw socket", err)
	}
	if err := unix.BindToDevice(p.raw, name); err != nil {
		return fail("bind to interface", err)
	}
	if err := p.configure(); err != nil {
		return fail("socket options", err)
	}
	// Protocol 0: it only sends.
	if p.frames, err = unix.Socket(unix.AF_PACKET, kind, 0); err != nil {
		return fail("packet socket", err)
	}
	return p, nil
}

// configure sets the options of the raw socket and joins the group.
func (p *port) configure() error {
	fd, group := p.raw, p.family.group()
	if p.family == IPv6 {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hopLimit),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, p.index),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, classSelector6),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1),
			unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
				&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(p.index)}),
		)
	}
	on := &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(p.index)}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, hopLimit),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, classSelector6),
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, on),
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, on),
	)
}

func (p *port) close() {
	for _, fd := range []int{p.raw, p.frames} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// send sends an advertisement from an address to the group.
func (p *port) send(payload []byte, from netip.Addr) error {
	var oob []byte
	var to unix.Sockaddr
	if p.family == IPv6 {
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.As16(), Ifindex: uint32(p.index)})
		to = &unix.SockaddrInet6{Addr: p.family.group().As16(), ZoneId: uint32(p.index)}
	} else {
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4(), Ifindex: int32(p.index)})
		to = &unix.SockaddrInet4{Addr: p.family.group().As4()}
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(p.raw, payload, oob, to, 0))
}

// announce sends the frame that tells neighbors where an address is.
func (p *port) announce(addr netip.Addr, mac [macLen]byte) error {
	to := &unix.SockaddrLinklayer{Ifindex: p.index, Halen: macLen}
	return os.NewSyscallError("send frame", unix.Sendto(p.frames, announcement(addr, mac), 0, to))
}

// receive returns the next packet; false if there is none. Its payload is valid
// until the next call.
func (p *port) receive() (packet, bool) {
	for {
		n, oobn, flags, from, err := unix.Recvmsg(p.raw, p.buf, p.oob, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return packet{}, false
		}
		if flags&unix.MSG_TRUNC != 0 {
			continue
		}
		if p.family == IPv4 {
			if got, ok := splitIPv4(p.buf[:n]); ok {
				return got, true
			}
			continue
		}
		if sender, ok := from.(*unix.SockaddrInet6); ok {
			got := packet{from: netip.AddrFrom16(sender.Addr), payload: p.buf[:n]}
			got.to, got.hopLimit = control6(p.oob[:oobn])
			return got, true
		}
	}
}

// control6 returns what the kernel says of a packet beside its payload.
func control6(oob []byte) (to netip.Addr, hops int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, 0
	}
	for _, m := range messages {
		switch {
		case m.Header.Level != unix.IPPROTO_IPV6:
		case m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			to = netip.AddrFrom16([16]byte(m.Data[:16]))
		case m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4:
			hops = int(int32(binary.NativeEndian.Uint32(m.Data)))
		}
	}
	return to, hops
}
