package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	port     = 3784 // RFC 5881 section 4
	minPort  = 49152
	maxPort  = 65535
	maxTTL   = 255
	netCtrl  = 48 << 2 // DSCP CS6, network control
	batch    = 32      // packets of one system call
	batches  = 8       // system calls before others get their turn
	recvSize = 128     // the longest packet of RFC 5880 has 52 bytes
	// recvBuffer holds less than batch*batches packets, so that all that
	// was queued when a pass began is read in it. The kernel doubles it and
	// charges 768 bytes or more for each.
	recvBuffer = 64 << 10
)

// source is what identifies a neighbor that does not know our discriminator
// yet: its address, and the interface of a link-local one.
type source struct {
	addr  netip.Addr // without zone
	index uint32
}

// listener takes packets at one local address, or at all of a family.
type listener struct {
	addr netip.Addr
	fd   int // -1 while it could not be opened
	err  error
	in   *inbox
	// dropped is the kernel's counter as of the last look.
	dropped uint32
	// rest is when to read on after a flood.
	rest time.Time
}

// inbox is memory for one batch.
type inbox struct {
	msgs  [batch]mmsghdr
	iovs  [batch]unix.Iovec
	names [batch]unix.RawSockaddrInet6 // large enough for either family
	data  [batch][recvSize]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func newInbox() *inbox {
	in := new(inbox)
	for i := range in.msgs {
		in.iovs[i].Base = &in.data[i][0]
		in.iovs[i].SetLen(recvSize)
		in.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		in.msgs[i].hdr.Iov = &in.iovs[i]
		in.msgs[i].hdr.SetIovlen(1)
	}
	return in
}

// read fills the inbox as far as packets are there and returns how many. Raw
// system calls that cannot wait keep the scheduler out.
func (in *inbox) read(fd int) int {
	for i := range in.msgs {
		in.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&in.msgs[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// packet returns packet i of the batch and who sent it.
func (in *inbox) packet(i int) ([]byte, source) {
	var from source
	if name := &in.names[i]; name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		from.addr = netip.AddrFrom4(v4.Addr)
	} else {
		from.addr = netip.AddrFrom16(name.Addr)
		if from.addr.IsLinkLocalUnicast() {
			from.index = name.Scope_id
		}
	}
	return in.data[i][:min(in.msgs[i].len, recvSize)], from
}

// open binds the listener.
func (l *listener) open() error {
	fd, err := newSocket(l.addr)
	if err != nil {
		return err
	}
	index, err := zoneIndex(l.addr)
	if err == nil {
		err = l.prepare(fd, index)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	l.fd, l.in, l.dropped = fd, newInbox(), 0
	return nil
}

func (l *listener) prepare(fd int, index uint32) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, recvBuffer); err != nil {
		return os.NewSyscallError("setsockopt SO_RCVBUF", err)
	}
	// RFC 5881 section 5, in the kernel: what comes from farther away must
	// not take a neighbor's place in the buffer, or this thread's time.
	if err := attach(fd, onlyMaxTTL(l.addr)); err != nil {
		return err
	}
	err := unix.Bind(fd, sockaddr(l.addr, index, port))
	return os.NewSyscallError("bind", err)
}

// drops returns how many packets the kernel has dropped since the last call:
// those that came through a router, and those that found the buffer full.
func (l *listener) drops() uint32 {
	const skMeminfoDrops, skMeminfoVars = 8, 9 // linux/sock_diag.h
	var vars [skMeminfoVars]uint32
	size := uint32(unsafe.Sizeof(vars))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(l.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&vars)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	more := vars[skMeminfoDrops] - l.dropped
	l.dropped = vars[skMeminfoDrops]
	return more
}

// newSocket makes a UDP socket of the family of addr with the options that all
// have.
func newSocket(addr netip.Addr) (int, error) {
	family, level, tos := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TOS
	if addr.Is6() {
		family, level, tos = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, level, tos, netCtrl)
	if err == nil && addr.Is6() {
		err = unix.SetsockoptInt(fd, level, unix.IPV6_V6ONLY, 1)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

// sender is the sending socket of one session. Its port is the session's for
// life (RFC 5881 section 4).
type sender struct {
	fd     int // -1 while closed
	port   uint16
	opened time.Time // or tried to
	to     unix.RawSockaddrInet6
	toLen  uintptr
	err    error // of the last attempt to open or send
}

// open binds the socket. taken says which ports other sessions have; pick
// returns a number below its argument.
func (s *sender) open(p *Peer, index uint32, taken map[uint16]bool, pick func(int) int) error {
	local := p.LocalAddress
	if !local.IsValid() {
		local = unspecified(p.Address)
	}
	fd, err := newSocket(p.Address)
	if err != nil {
		return err
	}
	if err := s.prepare(fd, p.Address); err != nil {
		unix.Close(fd)
		return err
	}
	for range 32 {
		n := s.port
		if n == 0 {
			n = uint16(minPort + pick(maxPort-minPort+1))
			if taken[n] {
				continue
			}
		}
		if err = unix.Bind(fd, sockaddr(local, index, int(n))); err == nil {
			s.fd, s.port = fd, n
			taken[n] = true
			s.toLen = putSockaddr(&s.to, p.Address, index, port)
			return nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		delete(taken, s.port)
		s.port = 0
	}
	unix.Close(fd)
	return os.NewSyscallError("bind", err)
}

func (s *sender) prepare(fd int, to netip.Addr) error {
	level, ttl := unix.IPPROTO_IP, unix.IP_TTL
	if to.Is6() {
		level, ttl = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	}
	if err := unix.SetsockoptInt(fd, level, ttl, maxTTL); err != nil {
		return os.NewSyscallError("setsockopt TTL", err)
	}
	// Not by way of a gateway when the link's own route is gone (RFC 5881
	// section 6).
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DONTROUTE, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_DONTROUTE", err)
	}
	return attach(fd, []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}) // it takes nothing
}

// send sends one packet without waiting.
func (s *sender) send(b []byte) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL,
		uintptr(unsafe.Pointer(&s.to)), s.toLen)
	if errno != 0 {
		return errno
	}
	return nil
}

func (s *sender) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// onlyMaxTTL is a filter that keeps packets whose TTL or hop limit is 255.
func onlyMaxTTL(addr netip.Addr) []unix.SockFilter {
	const netHeader = 0xfff00000 // SKF_NET_OFF, -0x100000
	ttl := uint32(8)
	if addr.Is6() {
		ttl = 7
	}
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: netHeader + ttl},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: maxTTL, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
}

func attach(fd int, filter []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER",
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
}

// zoneIndex is the number of the interface that is the address's zone, 0 for
// an address without.
func zoneIndex(addr netip.Addr) (uint32, error) {
	if addr.Zone() == "" {
		return 0, nil
	}
	ifi, err := net.InterfaceByName(addr.Zone())
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", addr.Zone(), err)
	}
	return uint32(ifi.Index), nil
}

func unspecified(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func sockaddr(addr netip.Addr, index uint32, port int) unix.Sockaddr {
	if addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: addr.As16(), Port: port, ZoneId: index}
}

// putSockaddr writes the kernel's form of an address and returns its size.
func putSockaddr(sa *unix.RawSockaddrInet6, addr netip.Addr, index uint32, port uint16) uintptr {
	*sa = unix.RawSockaddrInet6{}
	if addr.Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		v4.Family, v4.Addr = unix.AF_INET, addr.As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&v4.Port))[:], port)
		return unix.SizeofSockaddrInet4
	}
	sa.Family, sa.Addr, sa.Scope_id = unix.AF_INET6, addr.As16(), index
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], port)
	return unix.SizeofSockaddrInet6
}
