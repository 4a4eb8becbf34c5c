// Package cidr has address prefixes without pointers. A netip.Prefix holds one, to
// the zone of its address, so that the garbage collector reads through every list
// of them: through millions where client networks are listed, while queries wait.
package cidr

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// Prefix is a netip.Prefix without zone. It is comparable; its zero value is not
// valid, like that of netip.Prefix.
type Prefix struct {
	// high and low are the bits of the address, from the top of high on.
	high, low uint64
	length    uint8
	family    family
}

type family uint8

const (
	invalid family = iota
	v4
	v6
)

// From returns a prefix, as it is: not masked, and not valid if p is not. IPv4 in
// IPv6 stays IPv6.
func From(p netip.Prefix) Prefix {
	if !p.IsValid() {
		return Prefix{}
	}
	high, low := Words(p.Addr())
	f := v6
	if p.Addr().Is4() {
		f = v4
	}
	return Prefix{high, low, uint8(p.Bits()), f}
}

// MustParse is netip.MustParsePrefix for tests and constants: it panics if s is
// not a prefix.
func MustParse(s string) Prefix { return From(netip.MustParsePrefix(s)) }

// Words returns the bits of an address from the top of high on, where those of an
// IPv4 address are the upper half of high.
func Words(a netip.Addr) (high, low uint64) {
	octets := a.As16()
	high, low = binary.BigEndian.Uint64(octets[:8]), binary.BigEndian.Uint64(octets[8:])
	if a.Is4() {
		return low << 32, 0
	}
	return high, low
}

// Netip returns the prefix as the standard library has it.
func (p Prefix) Netip() netip.Prefix {
	if p.family == invalid {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(p.Addr(), int(p.length))
}

// Addr returns the address, the zero one if p is not valid.
func (p Prefix) Addr() netip.Addr {
	var octets [16]byte
	binary.BigEndian.PutUint64(octets[:8], p.high)
	binary.BigEndian.PutUint64(octets[8:], p.low)
	switch p.family {
	case v4:
		return netip.AddrFrom4([4]byte(octets[:4]))
	case v6:
		return netip.AddrFrom16(octets)
	}
	return netip.Addr{}
}

// IsValid reports whether p is a prefix at all.
func (p Prefix) IsValid() bool { return p.family != invalid }

// Is4 reports whether p is of IPv4.
func (p Prefix) Is4() bool { return p.family == v4 }

// Is4In6 reports whether p holds IPv4 addresses in IPv6 form, ::ffff:0:0/96.
func (p Prefix) Is4In6() bool { return p.family == v6 && p.high == 0 && p.low>>32 == 0xffff }

// Bits returns the length, 0 if p is not valid.
func (p Prefix) Bits() int { return int(p.length) }

// Bit returns a bit of the address, counted from 0 at the top.
func (p *Prefix) Bit(i int) uint64 {
	if i < 64 {
		return p.high >> (63 - i) & 1
	}
	return p.low >> (127 - i) & 1
}

// Masked returns p with the bits beyond its length unset.
func (p Prefix) Masked() Prefix {
	high, low := mask(int(p.length))
	p.high, p.low = p.high&high, p.low&low
	return p
}

// mask returns the words with so many bits set from the top on.
func mask(length int) (high, low uint64) {
	if length <= 64 {
		return ^(^uint64(0) >> length), 0
	}
	return ^uint64(0), ^(^uint64(0) >> (length - 64))
}

// Contains reports whether an address lies in p. IPv4 and IPv4 in IPv6 are
// different addresses, as with netip.Prefix.
func (p Prefix) Contains(a netip.Addr) bool {
	if p.family == invalid || !a.IsValid() || a.Zone() != "" || a.Is4() != p.Is4() {
		return false
	}
	high, low := Words(a)
	maskHigh, maskLow := mask(int(p.length))
	return (high^p.high)&maskHigh == 0 && (low^p.low)&maskLow == 0
}

// Compare orders like netip.Prefix.Compare: those that are not valid first, then by
// family, masked address, length and address.
func (p Prefix) Compare(q Prefix) int {
	m, n := p.Masked(), q.Masked()
	return cmp.Or(
		cmp.Compare(p.family, q.family),
		cmp.Compare(m.high, n.high),
		cmp.Compare(m.low, n.low),
		cmp.Compare(p.length, q.length),
		cmp.Compare(p.high, q.high),
		cmp.Compare(p.low, q.low),
	)
}

// String returns the prefix as CIDR notation has it.
func (p Prefix) String() string { return p.Netip().String() }
