package bfd

import (
	"encoding/binary"
	"math"
	"time"
)

// Sizes and values of RFC 5880 section 4.1.
const (
	version      = 1
	headerLength = 24
	maxPacket    = headerLength + authLength
)

const (
	flagPoll        = 1 << 5
	flagFinal       = 1 << 4
	flagIndependent = 1 << 3 // Control Plane Independent
	flagAuth        = 1 << 2
	flagDemand      = 1 << 1
	flagMultipoint  = 1 << 0
)

// packet is a BFD Control packet without its authentication section.
type packet struct {
	diag       Diagnostic
	state      State
	flags      uint8
	multiplier uint8
	my, your   uint32 // discriminators
	desiredTx  time.Duration
	requiredRx time.Duration
	// requiredEcho is zero in what is sent: the Echo function is not offered.
	requiredEcho time.Duration
}

func (p *packet) has(flag uint8) bool { return p.flags&flag != 0 }

// drop is why a received packet was discarded.
type drop uint8

const (
	kept           drop = iota
	badVersion          // not version 1
	badLength           // shorter or longer than it may be
	badMultiplier       // Detect Mult of zero
	multipoint          // the Multipoint bit is set
	noSender            // My Discriminator of zero
	unknownSession      // no session with Your Discriminator, or with this sender
	badState            // Your Discriminator of zero, but a session under way
	badAuth             // authentication missing, unexpected, replayed or wrong
	heldDown            // the session is AdminDown
	drops               // how many there are
)

var dropNames = [drops]string{
	"", "version", "length", "multiplier", "multipoint", "my_discriminator",
	"unknown_session", "state", "authentication", "admin_down",
}

// decode reads a UDP payload and makes those checks of RFC 5880 section 6.8.6
// that need no session, in the section's order. It returns the packet and the
// bytes it takes up; the payload may be longer.
func decode(b []byte) (packet, []byte, drop) {
	switch {
	case len(b) > 0 && b[0]>>5 != version:
		return packet{}, nil, badVersion
	case len(b) < headerLength:
		return packet{}, nil, badLength
	}
	p := packet{
		diag:         Diagnostic(b[0] & 0x1f),
		state:        State(b[1] >> 6),
		flags:        b[1] & 0x3f,
		multiplier:   b[2],
		my:           binary.BigEndian.Uint32(b[4:]),
		your:         binary.BigEndian.Uint32(b[8:]),
		desiredTx:    micros(b[12:]),
		requiredRx:   micros(b[16:]),
		requiredEcho: micros(b[20:]),
	}
	length, least := int(b[3]), headerLength
	if p.has(flagAuth) {
		least += 2 // an authentication type and length
	}
	switch {
	case length < least || length > len(b):
		return p, nil, badLength
	case p.multiplier == 0:
		return p, nil, badMultiplier
	case p.has(flagMultipoint):
		return p, nil, multipoint
	case p.my == 0:
		return p, nil, noSender
	case p.your == 0 && p.state != Down && p.state != AdminDown:
		return p, nil, badState
	}
	return p, b[:length], kept
}

// append adds p in wire form to b. Its length covers the header only.
func (p *packet) append(b []byte) []byte {
	b = append(b, version<<5|byte(p.diag), byte(p.state)<<6|p.flags, p.multiplier, headerLength)
	b = binary.BigEndian.AppendUint32(b, p.my)
	b = binary.BigEndian.AppendUint32(b, p.your)
	b = appendMicros(b, p.desiredTx)
	b = appendMicros(b, p.requiredRx)
	return appendMicros(b, p.requiredEcho)
}

func micros(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

func appendMicros(b []byte, d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(min(d.Microseconds(), math.MaxUint32)))
}
