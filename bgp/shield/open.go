package shield

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Sizes and codes of an OPEN (RFC 4271 section 4.2, RFC 5492, RFC 9072).
const (
	openLength       = 10 // of a body without optional parameters
	version          = 4
	minHoldTime      = 3
	parameterCaps    = 2
	parameterLong    = 255 // RFC 9072: the parameters have two-octet lengths
	capMultiprotocol = 1   // RFC 4760
	capRouteRefresh  = 2   // RFC 2918
	capNextHop       = 5   // RFC 8950
	capFourOctetAS   = 65  // RFC 6793
	asTrans          = 23456
	afiIPv4          = 1
	afiIPv6          = 2
	safiUnicast      = 1
)

// Open is what a peer's OPEN says, as far as a speaker that only announces
// has a use for it.
type Open struct {
	// ASN is the four-octet number where the peer has one (RFC 6793).
	ASN uint32
	// HoldTime in seconds.
	HoldTime uint16
	// ID is the peer's BGP identifier.
	ID netip.Addr
	// IPv4 and IPv6 are the unicast families that the peer takes. A peer that
	// names no family at all takes IPv4.
	IPv4, IPv6 bool
	// NextHopIPv6 is set if the peer takes IPv4 prefixes with an IPv6 next hop
	// (RFC 8950).
	NextHopIPv6 bool
	// FourOctetAS is set if the peer reads four-octet AS numbers (RFC 6793).
	FourOctetAS bool
}

// parseOpen reads an OPEN that readMessage returned and checks it as RFC 4271
// section 6.2 demands, for a peer of the given AS. The error is a *violation.
func parseOpen(msg []byte, asn uint32) (*Open, error) {
	body := msg[headerLength:]
	if body[0] != version {
		return nil, violate(codeOpen, 1, []byte{0, version}) // Unsupported Version Number
	}
	o := &Open{
		ASN:      uint32(binary.BigEndian.Uint16(body[1:])),
		HoldTime: binary.BigEndian.Uint16(body[3:]),
		ID:       netip.AddrFrom4([4]byte(body[5:9])),
	}
	zero := o.ASN == 0
	families, err := o.parseParameters(body[openLength-1:])
	switch {
	case err != nil:
		return nil, err
	case zero || o.ASN == 0 || o.ASN != asn: // RFC 7607, in two octets and in four
		return nil, violate(codeOpen, 2, nil) // Bad Peer AS
	case o.HoldTime < minHoldTime:
		// Also zero: without a hold time a dead peer would be believed for ever.
		return nil, violate(codeOpen, 6, nil) // Unacceptable Hold Time
	case o.ID.IsUnspecified(): // RFC 6286
		return nil, violate(codeOpen, 3, nil) // Bad BGP Identifier
	case !families:
		o.IPv4 = true
	}
	return o, nil
}

// parseParameters reads the optional parameters, their length first. It reports
// whether the peer named any family.
func (o *Open) parseParameters(b []byte) (families bool, err error) {
	malformed := violate(codeOpen, 0, nil)
	total, width := int(b[0]), 1
	b = b[1:]
	// RFC 9072 section 2: the first type tells, and the length before it does
	// not count, unless it is zero.
	if total > 0 && len(b) > 0 && b[0] == parameterLong {
		if len(b) < 3 {
			return false, malformed
		}
		total, width = int(binary.BigEndian.Uint16(b[1:])), 2
		b = b[3:]
	}
	if total != len(b) {
		return false, malformed
	}
	for len(b) > 0 {
		if len(b) < 1+width {
			return false, malformed
		}
		kind, n := b[0], int(b[1])
		if width == 2 {
			n = int(binary.BigEndian.Uint16(b[1:]))
		}
		b = b[1+width:]
		if n > len(b) {
			return false, malformed
		}
		if kind != parameterCaps {
			return false, violate(codeOpen, 4, nil) // Unsupported Optional Parameter
		}
		named, ok := o.parseCapabilities(b[:n])
		if !ok {
			return false, malformed
		}
		families = families || named
		b = b[n:]
	}
	return families, nil
}

// parseCapabilities reads the value of one capabilities parameter (RFC 5492).
// What it does not know it ignores.
func (o *Open) parseCapabilities(b []byte) (families, ok bool) {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return false, false
		}
		code, value := b[0], b[2:2+int(b[1])]
		b = b[2+len(value):]
		switch code {
		case capMultiprotocol:
			if len(value) != 4 {
				return false, false
			}
			families = true
			// The third octet is reserved.
			if value[3] == safiUnicast {
				switch binary.BigEndian.Uint16(value) {
				case afiIPv4:
					o.IPv4 = true
				case afiIPv6:
					o.IPv6 = true
				}
			}
		case capNextHop:
			if len(value)%6 != 0 {
				return false, false
			}
			for tuple := range slices.Chunk(value, 6) {
				if [6]byte(tuple) == [6]byte{0, afiIPv4, 0, safiUnicast, 0, afiIPv6} {
					o.NextHopIPv6 = true
				}
			}
		case capFourOctetAS:
			if len(value) != 4 {
				return false, false
			}
			o.ASN, o.FourOctetAS = binary.BigEndian.Uint32(value), true
		}
	}
	return families, true
}

// message is an OPEN that says what o says and nothing else, with another
// identifier. It has the route refresh capability in any case: whether the peer
// may ask depends on the engine's (RFC 2918 section 3), yet an engine may look
// for the peer's.
func (o *Open) message(id netip.Addr) []byte {
	var caps []byte
	if o.IPv4 {
		caps = append(caps, capMultiprotocol, 4, 0, afiIPv4, 0, safiUnicast)
	}
	if o.IPv6 {
		caps = append(caps, capMultiprotocol, 4, 0, afiIPv6, 0, safiUnicast)
	}
	if !o.IPv4 && !o.IPv6 {
		// Without any family an engine would assume IPv4.
		caps = append(caps, capMultiprotocol, 4, 0, 0, 0, 0)
	}
	if o.NextHopIPv6 {
		caps = append(caps, capNextHop, 6, 0, afiIPv4, 0, safiUnicast, 0, afiIPv6)
	}
	caps = append(caps, capRouteRefresh, 0)
	as := uint16(asTrans)
	if o.ASN <= 0xffff {
		as = uint16(o.ASN)
	}
	if o.FourOctetAS {
		caps = append(caps, capFourOctetAS, 4)
		caps = binary.BigEndian.AppendUint32(caps, o.ASN)
	}
	body := []byte{version}
	body = binary.BigEndian.AppendUint16(body, as)
	body = binary.BigEndian.AppendUint16(body, o.HoldTime)
	body = append(body, id.AsSlice()...)
	body = append(body, byte(2+len(caps)), parameterCaps, byte(len(caps)))
	return encode(TypeOpen, append(body, caps...))
}

// endOfRIB are the End-of-RIB markers (RFC 4724 section 2) of the families that
// the peer takes.
func (o *Open) endOfRIB() [][]byte {
	var markers [][]byte
	if o.IPv4 {
		markers = append(markers, encode(TypeUpdate, make([]byte, 4)))
	}
	if o.IPv6 {
		// An MP_UNREACH_NLRI (RFC 4760 section 4) without routes.
		markers = append(markers, encode(TypeUpdate, []byte{0, 0, 0, 6, 0x80, 15, 3, 0, afiIPv6, safiUnicast}))
	}
	return markers
}
