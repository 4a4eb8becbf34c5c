package vrrp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// The format of an advertisement (RFC 9568 section 5.2).
const (
	protocol          = 112 // IANA's number for VRRP
	hopLimit          = 255 // sent and required (sections 5.1.1.3 and 5.1.2.3)
	headerLen         = 8
	version           = 3
	typeAdvertisement = 1
	checksumAt        = 6
)

// advertisement is the contents of a VRRP packet.
type advertisement struct {
	vrid      uint8
	priority  uint8 // 0 when the sender stops being Active
	interval  time.Duration
	addresses []netip.Addr
}

// packet is a received VRRP packet with what matters of its IP header.
type packet struct {
	from, to netip.Addr // without zones
	hopLimit int
	payload  []byte
}

// discard says why a packet was dropped. The values are in the order of the
// checks (RFC 9568 section 7.1).
type discard string

const (
	discardNone        discard = ""
	discardOwn         discard = "own_address" // a copy of what this router sent
	discardDestination discard = "destination"
	discardHopLimit    discard = "hop_limit"
	discardVersion     discard = "version"
	discardType        discard = "type"
	discardTruncated   discard = "truncated"
	discardChecksum    discard = "checksum"
	discardVRID        discard = "vrid" // of another virtual router: no fault
	discardInterval    discard = "interval"
	discardCount       discard = "address_count"
)

// discards lists every reason.
func discards() []discard {
	return []discard{discardOwn, discardDestination, discardHopLimit, discardVersion, discardType,
		discardTruncated, discardChecksum, discardVRID, discardInterval, discardCount}
}

// marshal returns the packet's payload as sent from one address to the
// family's group.
func (a advertisement) marshal(from netip.Addr, family Family, plain bool) []byte {
	b := make([]byte, headerLen, headerLen+16*len(a.addresses))
	b[0] = version<<4 | typeAdvertisement
	b[1] = a.vrid
	b[2] = a.priority
	b[3] = uint8(len(a.addresses))
	binary.BigEndian.PutUint16(b[4:], uint16(a.interval/centisecond)) // the upper 4 bits are reserved
	for _, addr := range a.addresses {
		b = append(b, addr.AsSlice()...)
	}
	var sum uint32
	if family == IPv6 || !plain {
		sum = pseudoHeader(from, family.group(), len(b), protocol)
	}
	binary.BigEndian.PutUint16(b[checksumAt:], ^fold(add(sum, b)))
	return b
}

// parse checks a packet and returns its contents, or why it is dropped. The
// order of the checks is that of RFC 9568 section 7.1, errata 8298 (an address
// owner does not drop what others send), 8299 and 8301 included.
func parse(p packet, vrid uint8) (advertisement, discard) {
	family, size := IPv4, 4
	if p.from.Is6() {
		family, size = IPv6, 16
	}
	b := p.payload
	switch {
	case p.to != family.group():
		return advertisement{}, discardDestination
	case p.hopLimit != hopLimit:
		return advertisement{}, discardHopLimit
	case len(b) == 0:
		return advertisement{}, discardTruncated
	case b[0]>>4 != version:
		return advertisement{}, discardVersion
	case b[0]&0xf != typeAdvertisement:
		return advertisement{}, discardType
	case len(b) < headerLen || len(b) < headerLen+int(b[3])*size:
		return advertisement{}, discardTruncated
	case !intact(p, family):
		return advertisement{}, discardChecksum
	case b[1] != vrid:
		return advertisement{}, discardVRID
	}
	a := advertisement{
		vrid:     b[1],
		priority: b[2],
		interval: time.Duration(binary.BigEndian.Uint16(b[4:])&0xfff) * centisecond,
	}
	switch {
	case a.interval == 0:
		return advertisement{}, discardInterval
	case b[3] == 0:
		return advertisement{}, discardCount
	}
	for list := b[headerLen : headerLen+int(b[3])*size]; len(list) > 0; list = list[size:] {
		addr, _ := netip.AddrFromSlice(list[:size])
		a.addresses = append(a.addresses, addr)
	}
	return a, discardNone
}

// intact reports whether the checksum holds. Over IPv4 it does with and without
// the pseudo-header: implementations are of two minds, and neither says which
// in the packet.
func intact(p packet, family Family) bool {
	sum := add(0, p.payload)
	if fold(sum+pseudoHeader(p.from, p.to, len(p.payload), protocol)) == 0xffff {
		return true
	}
	return family == IPv4 && fold(sum) == 0xffff
}

// splitIPv4 takes an IPv4 packet, as a raw socket delivers it, apart.
func splitIPv4(b []byte) (packet, bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return packet{}, false
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || total < header || total > len(b) {
		return packet{}, false
	}
	return packet{
		from:     netip.AddrFrom4([4]byte(b[12:16])),
		to:       netip.AddrFrom4([4]byte(b[16:20])),
		hopLimit: int(b[8]),
		payload:  b[header:total],
	}, true
}

// pseudoHeader is the sum of the pseudo-header of RFC 9293 section 3.1 or
// RFC 8200 section 8.1.
func pseudoHeader(from, to netip.Addr, length int, protocol uint8) uint32 {
	return add(add(uint32(length)+uint32(protocol), from.AsSlice()), to.AsSlice())
}

// add adds b's 16-bit words to a sum.
func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// fold brings a sum to 16 bits in one's complement.
func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
