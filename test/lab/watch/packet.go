package watch

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"anyedge/test/lab/netns"
)

// segment is a TCP segment as it passed an interface.
type segment struct {
	At       time.Time
	From, To netip.AddrPort
	Sequence uint32
	Syn      bool
	Payload  []byte
}

// openInterface begins to listen on one interface, to both directions.
func openInterface(s netns.Space, iface string) (*os.File, error) {
	f, err := open(s, unix.AF_PACKET, unix.SOCK_RAW, 0, iface+" of "+string(s), func(fd int) error {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		all := uint16(unix.ETH_P_ALL)
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: i.Index}))
	})
	if err != nil {
		return nil, fmt.Errorf("watch %s of %s: %w", iface, s, err)
	}
	return f, nil
}

// segments hands every TCP segment of an interface to take until ctx ends.
func segments(ctx context.Context, f *os.File, take func(segment)) error {
	return receive(ctx, f, func(at time.Time, _ unix.Sockaddr, frame []byte) error {
		if s, ok := parseSegment(frame); ok {
			s.At = at
			take(s)
		}
		return nil
	})
}

const etherHeader = 14

// parseSegment reads an Ethernet frame with TCP over IPv4 or IPv6. Fragments and
// IPv6 extension headers have no place in a lab's TCP and are passed over.
func parseSegment(frame []byte) (s segment, ok bool) {
	if len(frame) < etherHeader {
		return s, false
	}
	packet := frame[etherHeader:]
	var from, to netip.Addr
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		if len(packet) < 20 || packet[9] != unix.IPPROTO_TCP {
			return s, false
		}
		header, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		if total == 0 { // a segment that the interface was to cut, over 64 KB
			total = len(packet)
		}
		if header < 20 || total < header || total > len(packet) {
			return s, false
		}
		from, to = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		packet = packet[header:total] // without the padding of short frames
	case unix.ETH_P_IPV6:
		if len(packet) < 40 || packet[6] != unix.IPPROTO_TCP {
			return s, false
		}
		total := 40 + int(binary.BigEndian.Uint16(packet[4:]))
		if total == 40 {
			total = len(packet)
		}
		if total > len(packet) {
			return s, false
		}
		from, to = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		packet = packet[40:total]
	default:
		return s, false
	}
	if len(packet) < 20 {
		return s, false
	}
	header := int(packet[12]>>4) * 4
	if header < 20 || header > len(packet) {
		return s, false
	}
	const syn = 2
	return segment{
		From:     netip.AddrPortFrom(from, binary.BigEndian.Uint16(packet)),
		To:       netip.AddrPortFrom(to, binary.BigEndian.Uint16(packet[2:])),
		Sequence: binary.BigEndian.Uint32(packet[4:]),
		Syn:      packet[13]&syn != 0,
		Payload:  packet[header:],
	}, true
}

// Flows notes the TCP packets to one address that pass an interface, without
// their contents.
type Flows struct {
	Packets Record[Packet]

	socket *os.File
	to     netip.AddrPort
}

// Packet is a TCP packet on its way to the address that is watched.
type Packet struct {
	At   time.Time
	From netip.AddrPort
	// Syn opens a connection.
	Syn bool
}

// OpenFlows begins to listen for packets to an address on one interface.
func OpenFlows(s netns.Space, iface string, to netip.AddrPort) (*Flows, error) {
	f, err := openInterface(s, iface)
	return &Flows{socket: f, to: to}, err
}

// Run notes until ctx ends.
func (f *Flows) Run(ctx context.Context) error {
	return segments(ctx, f.socket, func(s segment) {
		if s.To == f.to {
			f.Packets.add(Packet{s.At, s.From, s.Syn})
		}
	})
}
