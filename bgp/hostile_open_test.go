package bgp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"anyedge/bgp/shield"
)

// openMessage are the parts of an OPEN that can be wrong.
type openMessage struct {
	version    byte
	asn        uint16
	hold       uint16
	id         [4]byte
	parameters []byte // with their length in front
}

func rightOpen() openMessage {
	return openMessage{4, hostileASN, 90, [4]byte{10, 66, 6, 6}, parameters(
		capability(1, 0, 1, 0, 1), capability(1, 0, 2, 0, 1), capability(2), capability(65, 0, 0, hostileASN>>8, hostileASN&0xff))}
}

func (o openMessage) message() []byte {
	body := []byte{o.version}
	body = binary.BigEndian.AppendUint16(body, o.asn)
	body = binary.BigEndian.AppendUint16(body, o.hold)
	body = append(body, o.id[:]...)
	return frame(shield.TypeOpen, append(body, o.parameters...)...)
}

func plainOpen() []byte { return rightOpen().message() }

func capability(code byte, value ...byte) []byte {
	return append([]byte{code, byte(len(value))}, value...)
}

// parameters has each of some capabilities in a parameter of its own, as some
// implementations do.
func parameters(capabilities ...[]byte) []byte {
	var all []byte
	for _, c := range capabilities {
		all = append(append(all, 2, byte(len(c))), c...)
	}
	return append([]byte{byte(len(all))}, all...)
}

// extended is parameters in the form of RFC 9072, after a length that says
// nothing.
func extended(length byte, capabilities ...[]byte) []byte {
	var all []byte
	for _, c := range capabilities {
		all = append(binary.BigEndian.AppendUint16(append(all, 2), uint16(len(c))), c...)
	}
	return append(binary.BigEndian.AppendUint16([]byte{length, 255}, uint16(len(all))), all...)
}

// openAttacks are generated OPENs, half of them wrong in exactly one way.
func openAttacks(rng *rand.Rand, n int) []attack {
	all := make([]attack, 0, n)
	for len(all) < n {
		o, a := rightOpen(), attack{state: OpenSent, then: notified}
		refuse := func(subcode byte, data ...byte) { a.notification = append([]byte{2, subcode}, data...) }
		some := func(n int) []byte { return randomBytes(rng, n) }
		switch rng.IntN(22) {
		case 0:
			a.name = "another version"
			for o.version = 4; o.version == 4; o.version = byte(rng.Uint32()) {
			}
			refuse(1, 0, 4)
		case 1:
			a.name = "another AS in four octets"
			o.parameters = parameters(capability(65, append([]byte{1}, some(3)...)...))
			refuse(2)
		case 2:
			a.name = "another AS in two octets"
			o.asn, o.parameters = uint16(hostileASN+1+rng.IntN(500)), []byte{0}
			refuse(2)
		case 3:
			a.name = "AS 0" // RFC 7607, also where four octets follow
			o.asn = 0
			if rng.IntN(2) == 0 {
				o.asn, o.parameters = hostileASN, parameters(capability(65, 0, 0, 0, 0))
			}
			refuse(2)
		case 4:
			a.name = "AS_TRANS without a four-octet number"
			o.asn, o.parameters = 23456, []byte{0}
			refuse(2)
		case 5:
			a.name = "hold time"
			o.hold = uint16(rng.IntN(3))
			refuse(6)
		case 6:
			a.name = "no identifier"
			o.id = [4]byte{}
			refuse(3)
		case 7:
			a.name = "unknown parameter"
			kind := byte(3 + rng.IntN(252))
			if rng.IntN(4) == 0 {
				kind = 1 // authentication, deprecated
			}
			value := some(rng.IntN(20))
			o.parameters = append([]byte{byte(2 + len(value)), kind, byte(len(value))}, value...)
			refuse(4)
		case 8:
			a.name = "unknown parameter of extended length"
			value := some(rng.IntN(2000))
			o.parameters = binary.BigEndian.AppendUint16([]byte{255, 255}, uint16(3+len(value)))
			o.parameters = append(binary.BigEndian.AppendUint16(append(o.parameters, 77), uint16(len(value))), value...)
			refuse(4)
		case 9:
			a.name = "a length of all parameters that is not theirs"
			for right := o.parameters[0]; o.parameters[0] == right; {
				o.parameters[0] = byte(rng.Uint32())
			}
			refuse(0)
		case 10:
			a.name = "a parameter beyond the end"
			o.parameters[2] = byte(60 + rng.IntN(190))
			refuse(0)
		case 11:
			a.name = "a capability beyond the end"
			o.parameters = parameters(append(capability(byte(rng.Uint32()), some(4)...), 99, byte(1+rng.IntN(255))))
			refuse(0)
		case 12:
			a.name = "half a capability"
			o.parameters = parameters([]byte{byte(rng.Uint32())})
			refuse(0)
		case 13:
			a.name = "a known capability of a wrong length"
			code := []byte{1, 65}[rng.IntN(2)]
			length := rng.IntN(60)
			if length == 4 {
				length = 5
			}
			o.parameters = parameters(capability(code, some(length)...))
			refuse(0)
		case 14:
			a.name = "next hop capability of a wrong length" // RFC 8950 section 3
			o.parameters = parameters(capability(5, some(6*rng.IntN(20)+1+rng.IntN(5))...))
			refuse(0)
		case 15:
			a.name = "extended length that is not theirs"
			o.parameters = extended(255, some(0), capability(2))
			o.parameters[3] += byte(1 + rng.IntN(50))
			refuse(0)
		case 16:
			a.name, a.then = "unknown capabilities", stays
			var unknown [][]byte
			for range rng.IntN(8) {
				unknown = append(unknown, capability(unknownCapability(rng), some(rng.IntN(20))...))
			}
			o.parameters = parameters(unknown...)
		case 17:
			a.name, a.then = "the same capabilities again and again", stays
			one := [][]byte{capability(1, 0, 2, 0, 1), capability(65, 0, 0, hostileASN>>8, hostileASN&0xff), capability(2)}
			var many []byte
			for len(many) < 230 {
				many = append(many, one[rng.IntN(3)]...)
			}
			o.parameters = parameters(many)
		case 18:
			a.name, a.then = "as many capabilities as an OPEN holds", stays
			var many []byte
			for len(many) < 3000+rng.IntN(500) {
				many = append(many, capability(unknownCapability(rng), some(rng.IntN(256))...)...)
			}
			o.parameters = extended(byte(1+rng.IntN(255)), many, capability(1, 0, 1, 0, 1))
		case 19:
			a.name, a.then = "no parameters", stays
			o.parameters = [][]byte{{0}, {255, 255, 0, 0}, parameters(nil), extended(1, nil)}[rng.IntN(4)]
		case 20:
			a.name, a.then = "families of all kinds", stays
			var families [][]byte
			for range 1 + rng.IntN(30) {
				families = append(families, capability(1, some(4)...))
			}
			o.parameters = parameters(families...)
		case 21:
			a.name, a.then = "hold time and identifier at their ends", stays
			o.hold = []uint16{3, 4, 65535}[rng.IntN(3)]
			o.id = [][4]byte{{255, 255, 255, 255}, {0, 0, 0, 1}, {224, 0, 0, 1}}[rng.IntN(3)]
		}
		a.input = o.message()
		a.drip = len(a.input) < 200 && rng.IntN(8) == 0
		all = append(all, a)
	}
	return all
}

// unknownCapability is any but those whose length the shield has an opinion on.
func unknownCapability(rng *rand.Rand) byte {
	for {
		if c := byte(rng.Uint32()); c != 1 && c != 5 && c != 65 {
			return c
		}
	}
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// framingAttacks are messages that break RFC 4271 section 6.1 or come when they
// must not, in any state of the session, and ends of all kinds.
func framingAttacks(rng *rand.Rand, n int) []attack {
	states := []State{OpenSent, OpenConfirm, Established}
	all := make([]attack, 0, n)
	for len(all) < n {
		a := attack{state: states[rng.IntN(3)], then: notified}
		length := func(n int) { a.notification = []byte{1, 2, byte(n >> 8), byte(n)} }
		rest := randomBytes(rng, rng.IntN(100))
		switch rng.IntN(9) {
		case 0:
			a.name = "bad marker"
			a.input = frame(shield.TypeUpdate, make([]byte, 4+rng.IntN(100))...)
			a.input[rng.IntN(16)] ^= byte(1 + rng.IntN(255))
			a.notification = []byte{1, 1}
		case 1:
			a.name = "too short for a header"
			n := rng.IntN(19)
			a.input = frameAs(byte(1+rng.IntN(5)), n, nil)
			length(n)
		case 2:
			a.name = "too long for a message" // RFC 8654 was not agreed on
			n := 4097 + rng.IntN(65535-4096)
			a.input = frameAs(byte(1+rng.IntN(5)), n, rest)
			length(n)
		case 3:
			a.name = "a length that its type cannot have"
			t := []byte{1, 2, 3, 4, 4, 5, 5}[rng.IntN(7)]
			n := 19 + rng.IntN(map[byte]int{1: 10, 2: 4, 3: 2, 4: 1, 5: 4}[t])
			if t == 4 {
				n = 20 + rng.IntN(4077)
			} else if t == 5 && rng.IntN(2) == 0 {
				n = 24 + rng.IntN(4073)
			}
			a.input = frameAs(t, n, rest)
			length(n)
		case 4:
			a.name = "unknown type"
			t := byte(6 + rng.IntN(250))
			if rng.IntN(10) == 0 {
				t = 0
			}
			a.input = frameAs(t, 19+len(rest), rest)
			a.notification = []byte{1, 3, t}
		case 5:
			a.name = "a message that may not come now" // RFC 6608
			wrong := map[State][]shield.Type{
				OpenSent:    {shield.TypeUpdate, shield.TypeKeepalive, shield.TypeRouteRefresh},
				OpenConfirm: {shield.TypeOpen, shield.TypeUpdate, shield.TypeRouteRefresh},
				Established: {shield.TypeOpen},
			}[a.state]
			t := wrong[rng.IntN(len(wrong))]
			a.input = map[shield.Type][]byte{
				shield.TypeOpen:         plainOpen(),
				shield.TypeUpdate:       malformedUpdate(rng),
				shield.TypeKeepalive:    keepaliveMessage,
				shield.TypeRouteRefresh: frame(shield.TypeRouteRefresh, 0, 1, 0, 1),
			}[t]
			a.notification = []byte{5, map[State]byte{OpenSent: 1, OpenConfirm: 2, Established: 3}[a.state], byte(t)}
		case 6:
			a.name, a.then = "the end within a message", closed
			whole := frame(shield.TypeNotification, append([]byte{6, 2}, rest...)...)
			a.input = whole[:1+rng.IntN(len(whole)-1)]
		case 7:
			a.name, a.then = "a notification of any kind", closed
			a.input = frame(shield.TypeNotification, append(randomBytes(rng, 2), rest...)...)
		case 8:
			a.name = "what is no BGP at all"
			a.input = [][]byte{
				[]byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"),
				{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9},
				bytes.Repeat([]byte{0}, 4096),
				append(append(bytes.Repeat([]byte{0xff}, 15), 0xfe), randomBytes(rng, 40)...),
			}[rng.IntN(4)]
			a.notification = []byte{1, 1}
		}
		a.drip = len(a.input) < 100 && rng.IntN(8) == 0
		all = append(all, a)
	}
	return all
}
