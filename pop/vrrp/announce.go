package vrrp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Ethernet and the protocols over it.
const (
	macLen       = 6
	etherTypeARP = 0x0806
	etherTypeIP6 = 0x86dd
	protoICMPv6  = 58
	naType       = 136        // Neighbor Advertisement, RFC 4861 section 4.4
	naFlags      = 0xa0000000 // Router and Override, not Solicited: RFC 9568 section 6.4.2
	optTarget    = 2          // target link-layer address, RFC 4861 section 4.6.1
)

// announceDelays are the times after the addresses were put on the interface at
// which they are announced: at once for the neighbors that listen, and again,
// ever later, for those that a packet was lost to or whose switch was not ready.
var announceDelays = [...]time.Duration{0, 200 * time.Millisecond, 600 * time.Millisecond, 1400 * time.Millisecond, 3 * time.Second}

// announcer knows when to announce. The zero value never does.
type announcer struct {
	began time.Time
	next  int // index in announceDelays
}

func (a *announcer) start(now time.Time) { *a = announcer{began: now} }

func (a *announcer) stop() { *a = announcer{} }

// deadline is when to announce next; zero if there is no more to do.
func (a *announcer) deadline() time.Time {
	if a.began.IsZero() || a.next == len(announceDelays) {
		return time.Time{}
	}
	return a.began.Add(announceDelays[a.next])
}

// due reports whether to announce now, once for each time that has come.
func (a *announcer) due(now time.Time) bool {
	d := a.deadline()
	if d.IsZero() || now.Before(d) {
		return false
	}
	a.next++
	return true
}

// announcement is the Ethernet frame by which neighbors learn that an address
// is at a MAC address.
func announcement(addr netip.Addr, mac [macLen]byte) []byte {
	if addr.Is6() {
		return neighborAdvertisement(addr, mac)
	}
	return gratuitousARP(addr, mac)
}

// gratuitousARP is a broadcast ARP request whose sender and target are addr
// (RFC 9568 section 8.1.2 with erratum 7949, RFC 5227 section 3).
func gratuitousARP(addr netip.Addr, mac [macLen]byte) []byte {
	f := ethernet([macLen]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, etherTypeARP)
	f = append(f, 0, 1, 8, 0, macLen, 4, 0, 1) // Ethernet, IPv4, sizes, request
	f = append(f, mac[:]...)
	f = append(f, addr.AsSlice()...)
	f = append(f, mac[:]...)
	return append(f, addr.AsSlice()...)
}

// neighborAdvertisement is an unsolicited one to all nodes of the link (RFC 4861
// section 7.2.6, RFC 9568 section 8.2.2). It comes from the address itself.
func neighborAdvertisement(addr netip.Addr, mac [macLen]byte) []byte {
	to := netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1})
	na := []byte{naType, 0, 0, 0}
	na = binary.BigEndian.AppendUint32(na, naFlags)
	na = append(na, addr.AsSlice()...)
	na = append(na, optTarget, 1)
	na = append(na, mac[:]...)
	sum := pseudoHeader(addr, to, len(na), protoICMPv6)
	binary.BigEndian.PutUint16(na[2:], ^fold(add(sum, na)))

	f := ethernet([macLen]byte{0x33, 0x33, 0, 0, 0, 1}, mac, etherTypeIP6)
	f = append(f, 0x60, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(na)))
	f = append(f, protoICMPv6, hopLimit)
	f = append(f, addr.AsSlice()...)
	f = append(f, to.AsSlice()...)
	return append(f, na...)
}

func ethernet(to, from [macLen]byte, etherType uint16) []byte {
	f := make([]byte, 0, 96)
	f = append(f, to[:]...)
	f = append(f, from[:]...)
	return binary.BigEndian.AppendUint16(f, etherType)
}
