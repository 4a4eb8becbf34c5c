package bgp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// LargeCommunity is a community of RFC 8092. Its text is "64500:1:2".
type LargeCommunity struct {
	// GlobalAdmin is the AS that says what Data means.
	GlobalAdmin  uint32
	Data1, Data2 uint32
}

// LargeCommunities are in no particular order.
type LargeCommunities []LargeCommunity

// ParseLargeCommunity reads "asn:data:data" with three numbers up to 4294967295.
func ParseLargeCommunity(s string) (LargeCommunity, error) {
	var parts [3]uint32
	texts := strings.Split(s, ":")
	ok := len(texts) == len(parts)
	for i := 0; ok && i < len(parts); i++ {
		n, err := strconv.ParseUint(texts[i], 10, 32)
		// One spelling only (RFC 8092 section 4).
		ok = err == nil && texts[i] == strconv.FormatUint(n, 10)
		parts[i] = uint32(n)
	}
	if !ok {
		return LargeCommunity{}, fmt.Errorf("%q is not a large community such as 64500:1:2", s)
	}
	return LargeCommunity{parts[0], parts[1], parts[2]}, nil
}

// String is the inverse of ParseLargeCommunity.
func (c LargeCommunity) String() string {
	return fmt.Sprintf("%d:%d:%d", c.GlobalAdmin, c.Data1, c.Data2)
}

// MarshalText is String.
func (c LargeCommunity) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseLargeCommunity.
func (c *LargeCommunity) UnmarshalText(text []byte) (err error) {
	*c, err = ParseLargeCommunity(string(text))
	return err
}

func (c LargeCommunity) compare(d LargeCommunity) int {
	return cmp.Or(cmp.Compare(c.GlobalAdmin, d.GlobalAdmin), cmp.Compare(c.Data1, d.Data1), cmp.Compare(c.Data2, d.Data2))
}

// ExtendedCommunity is a community of RFC 4360: its eight octets, the first one
// highest.
type ExtendedCommunity uint64

// ExtendedCommunities are in no particular order.
type ExtendedCommunities []ExtendedCommunity

// The transitive types with a text of their own (RFC 4360 section 3, RFC 5668),
// and the subtypes.
const (
	typeTwoOctetAS  = 0x00
	typeIPv4        = 0x01
	typeFourOctetAS = 0x02
)

var subtypes = map[string]uint64{"rt": 0x02, "ro": 0x03}

// ParseExtendedCommunity reads a route target "rt:asn:value" or a route origin
// "ro:asn:value". The asn is an AS number, or an IPv4 address; up to 65535 the
// value has four octets, else two. Anything else is written as sixteen
// hexadecimal digits, such as 0x030b000000000064.
func ParseExtendedCommunity(s string) (ExtendedCommunity, error) {
	if digits, ok := strings.CutPrefix(s, "0x"); ok && len(digits) == 16 {
		if v, err := strconv.ParseUint(digits, 16, 64); err == nil {
			return ExtendedCommunity(v), nil
		}
	}
	name, rest, _ := strings.Cut(s, ":")
	admin, text, _ := strings.Cut(rest, ":")
	subtype, ok := subtypes[name]
	value, err := strconv.ParseUint(text, 10, 32)
	if ok && err == nil {
		if asn, err := strconv.ParseUint(admin, 10, 32); err == nil && asn <= 0xffff {
			return ExtendedCommunity(typeTwoOctetAS<<56 | subtype<<48 | asn<<32 | value), nil
		} else if err == nil && value <= 0xffff {
			return ExtendedCommunity(typeFourOctetAS<<56 | subtype<<48 | asn<<16 | value), nil
		}
		if ip, err := netip.ParseAddr(admin); err == nil && ip.Is4() && value <= 0xffff {
			return ExtendedCommunity(typeIPv4<<56 | subtype<<48 | uint64(binary.BigEndian.Uint32(ip.AsSlice()))<<16 | value), nil
		}
	}
	return 0, fmt.Errorf("%q is not an extended community such as rt:64500:1, ro:192.0.2.1:1 or 0x030b000000000064", s)
}

// String is the inverse of ParseExtendedCommunity.
func (c ExtendedCommunity) String() string {
	for name, subtype := range subtypes {
		if uint64(c>>48&0xff) != subtype {
			continue
		}
		switch asn := uint32(c >> 16); c >> 56 {
		case typeTwoOctetAS:
			return fmt.Sprintf("%s:%d:%d", name, uint16(c>>32), uint32(c))
		case typeIPv4:
			ip := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, asn)))
			return fmt.Sprintf("%s:%v:%d", name, ip, uint16(c))
		case typeFourOctetAS:
			if asn > 0xffff { // else the text would mean another type
				return fmt.Sprintf("%s:%d:%d", name, asn, uint16(c))
			}
		}
	}
	return fmt.Sprintf("0x%016x", uint64(c))
}

// MarshalText is String.
func (c ExtendedCommunity) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseExtendedCommunity.
func (c *ExtendedCommunity) UnmarshalText(text []byte) (err error) {
	*c, err = ParseExtendedCommunity(string(text))
	return err
}

// representable reports whether GoBGP reads c back as it is. It knows the
// meaning of some types, and has no room for what is reserved in them.
func (c ExtendedCommunity) representable() bool {
	wire := binary.BigEndian.AppendUint64(nil, uint64(c))
	parsed, err := bgp.ParseExtended(wire)
	if err != nil {
		return false
	}
	back, err := parsed.Serialize()
	return err == nil && bytes.Equal(wire, back)
}
