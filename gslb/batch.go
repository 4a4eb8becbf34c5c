package gslb

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams go in and out by one system call.
	batchSize = 32
	// maxDatagram is more than any query has. What is longer is cut and then
	// malformed.
	maxDatagram = 4096
	// controlSize is room for the packet information of either family.
	controlSize = 64
)

// message is the kernel's struct mmsghdr.
type message struct {
	unix.Msghdr
	length uint32
}

// batch is the buffers of one UDP socket: what came in by one system call, and
// the answers that go out by another. The system calls are made directly,
// because those of the net package take one datagram each and those of x/net
// allocate.
//
// The batch belongs to one goroutine.
type batch struct {
	in, out   [batchSize]message
	vectors   [2 * batchSize]unix.Iovec
	peers     [batchSize]unix.RawSockaddrInet6 // or the shorter one of IPv4
	controls  [batchSize][controlSize]byte
	queries   [batchSize][maxDatagram]byte
	buffers   [batchSize][udpPayload]byte
	answering int // how many of out are to be sent
}

func newBatch() *batch {
	b := new(batch)
	for i := range b.in {
		m := &b.in[i].Msghdr
		m.Name = (*byte)(unsafe.Pointer(&b.peers[i]))
		m.Iov = &b.vectors[i]
		m.SetIovlen(1)
		m.Control = &b.controls[i][0]
		m.Iov.Base = &b.queries[i][0]
		m.Iov.SetLen(maxDatagram)
		b.out[i].Iov = &b.vectors[batchSize+i]
		b.out[i].SetIovlen(1)
	}
	return b
}

// receive waits for datagrams and takes as many as there are, of which it
// returns the number. The socket is a blocking one: a thread that waits in the
// system call itself needs one call for each batch, where the runtime's poller
// would make three.
func (b *batch) receive(fd uintptr) (int, error) {
	b.answering = 0
	for i := range b.in {
		b.in[i].Namelen = unix.SizeofSockaddrInet6
		b.in[i].SetControllen(controlSize)
	}
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in[0])), batchSize, unix.MSG_WAITFORONE, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// query returns a datagram received, and who sent it: an address without zone.
func (b *batch) query(i int) ([]byte, netip.Addr) {
	var from netip.Addr
	if peer := &b.peers[i]; peer.Family == unix.AF_INET {
		from = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(peer)).Addr)
	} else {
		from = netip.AddrFrom16(peer.Addr).Unmap()
	}
	return b.queries[i][:b.in[i].length], from
}

// buffer is room for the answer to a datagram.
func (b *batch) buffer(i int) []byte { return b.buffers[i][:0] }

// answer puts the answer to a datagram received among those to be sent. The
// caller leaves it alone until they were.
func (b *batch) answer(i int, msg []byte) {
	in, out := &b.in[i], &b.out[b.answering]
	out.Name, out.Namelen = in.Name, in.Namelen
	out.Iov.Base = &msg[0]
	out.Iov.SetLen(len(msg))
	out.Control = nil
	out.SetControllen(0)
	if in.Controllen > 0 {
		out.Control = in.Control
		out.SetControllen(int(in.Controllen))
		anyInterface(b.controls[i][:in.Controllen])
	}
	b.answering++
}

// anyInterface makes of the packet information that came with a query the one
// for its answer: from the address that it came to, over the interface that the
// routes say, which need not be the one that it came from. Link-local addresses
// mean nothing without the interface.
func anyInterface(control []byte) {
	data := control[min(unix.CmsgSpace(0), len(control)):]
	switch len(data) {
	case unix.CmsgSpace(unix.SizeofInet4Pktinfo) - unix.CmsgSpace(0):
		binary.NativeEndian.PutUint32(data, 0)
	case unix.CmsgSpace(unix.SizeofInet6Pktinfo) - unix.CmsgSpace(0):
		if !netip.AddrFrom16([16]byte(data)).IsLinkLocalUnicast() {
			binary.NativeEndian.PutUint32(data[16:], 0)
		}
	}
}

// send sends the answers and returns how many could not be sent. They are for
// different clients: what is wrong with one does not hold up the others.
func (b *batch) send(fd uintptr) (failed int) {
	for at := 0; at < b.answering; {
		n, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[at])), uintptr(b.answering-at), 0, 0, 0)
		switch errno {
		case 0:
			at += int(n)
		case unix.EINTR:
		default:
			failed++
			at++
		}
	}
	b.answering = 0
	return failed
}

// listenUDP opens a blocking socket beside others of the same address, between
// which the kernel spreads the clients.
func listenUDP(network string, address netip.AddrPort) (*os.File, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error { return setOptions(fd, network) })
	}}
	conn, err := config.ListenPacket(context.Background(), network, address.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	udp := conn.(*net.UDPConn)
	if address.Addr().IsUnspecified() {
		if err := askForDestination(udp, address.Addr()); err != nil {
			return nil, err
		}
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	// A copy that the runtime's poller does not know: it would wake for every
	// datagram, with nobody to tell.
	var socket *os.File
	err = control(raw, func(fd int) error {
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		if err := unix.SetNonblock(fd, false); err != nil {
			unix.Close(fd)
			return os.NewSyscallError("fcntl", err)
		}
		socket = os.NewFile(uintptr(fd), address.String())
		return nil
	})
	return socket, err
}

// receiveBuffer holds what comes while a reader waits for its core: some
// milliseconds of full load, in octets as the kernel counts them.
const receiveBuffer = 4 << 20

func setOptions(fd int, network string) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return os.NewSyscallError("SO_REUSEPORT", err)
	}
	// Without CAP_NET_ADMIN it is as large as net.core.rmem_max allows.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return os.NewSyscallError("SO_RCVBUF", err)
		}
	}
	// No fragments (RFC 9715), and no trust in what ICMP says about a path.
	level, option, probe := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if network == "udp6" {
		level, option, probe = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	return os.NewSyscallError("IP_MTU_DISCOVER", unix.SetsockoptInt(fd, level, option, probe))
}

// control calls f with the descriptor of a socket.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if failed := raw.Control(func(fd uintptr) { err = f(int(fd)) }); failed != nil {
		return failed
	}
	return err
}
