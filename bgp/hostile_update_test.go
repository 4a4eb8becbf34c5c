package bgp

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"anyedge/bgp/shield"
)

// pathAttribute is one that can be wrong.
type pathAttribute struct {
	flags, code byte
	value       []byte
	length      int // what it says; -1: the truth
}

func attribute(flags, code byte, value ...byte) pathAttribute {
	return pathAttribute{flags, code, value, -1}
}

func (a pathAttribute) append(b []byte) []byte {
	n := a.length
	if n < 0 {
		n = len(a.value)
	}
	b = append(b, a.flags, a.code)
	if a.flags&0x10 != 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	} else {
		b = append(b, byte(n))
	}
	return append(b, a.value...)
}

// updateMessage are the parts of an UPDATE. Lengths of -1 are the truth.
type updateMessage struct {
	withdrawn       []byte
	withdrawnLength int
	attributes      []pathAttribute
	attributeLength int
	nlri            []byte
}

// rightUpdate has every attribute that a peer may send, in no fault of its own.
func rightUpdate() *updateMessage {
	return &updateMessage{
		withdrawn: []byte{24, 10, 9, 8}, withdrawnLength: -1, attributeLength: -1,
		attributes: []pathAttribute{
			attribute(0x40, 1, 0), // ORIGIN
			attribute(0x40, 2, 2, 2, 0, 0, 0xfc, 0x9a, 0, 0, 0xfc, 0x9b),      // AS_PATH
			attribute(0x40, 3, 10, 66, 6, 6),                                  // NEXT_HOP
			attribute(0x80, 4, 0, 0, 0, 5),                                    // MULTI_EXIT_DISC
			attribute(0x40, 5, 0, 0, 0, 100),                                  // LOCAL_PREF
			attribute(0x40, 6),                                                // ATOMIC_AGGREGATE
			attribute(0xc0, 7, 0, 0, 0xfc, 0x9a, 10, 0, 0, 1),                 // AGGREGATOR
			attribute(0xc0, 8, 0xfc, 0x9a, 0, 1),                              // COMMUNITIES
			attribute(0x80, 9, 10, 0, 0, 1),                                   // ORIGINATOR_ID
			attribute(0x80, 10, 10, 0, 0, 1),                                  // CLUSTER_LIST
			attribute(0x80, 14, mpReach(16, 48, 0x20, 1, 0xd, 0xb8, 0, 1)...), // MP_REACH_NLRI
			attribute(0x80, 15, 0, 2, 1, 32, 0x20, 1, 0xd, 0xb8),              // MP_UNREACH_NLRI
			attribute(0xc0, 16, 0, 2, 0xfc, 0x9a, 0, 0, 0, 1),                 // EXTENDED COMMUNITIES
			attribute(0xc0, 17, 2, 1, 0, 1, 0, 1),                             // AS4_PATH
			attribute(0xc0, 18, 0, 1, 0, 1, 10, 0, 0, 1),                      // AS4_AGGREGATOR
			attribute(0xc0, 32, 0, 0, 0xfc, 0x9a, 0, 0, 0, 1, 0, 0, 0, 2),     // LARGE_COMMUNITY
			attribute(0xc0, 35, 0, 0, 0xfc, 0x9a),                             // ONLY_TO_CUSTOMER
			attribute(0xe0, 200, 1, 2, 3),                                     // unknown
		},
		nlri: []byte{24, 198, 51, 100, 16, 10, 77},
	}
}

// mpReach is the value of an MP_REACH_NLRI with a next hop of some length.
func mpReach(nextHop byte, nlri ...byte) []byte {
	value := []byte{0, 2, 1, nextHop}
	for i := range nextHop {
		value = append(value, i)
	}
	return append(append(value, 0), nlri...)
}

func (u *updateMessage) message() []byte {
	var attributes []byte
	for _, a := range u.attributes {
		attributes = a.append(attributes)
	}
	length := func(said, true int) uint16 {
		if said < 0 {
			return uint16(true)
		}
		return uint16(said)
	}
	body := binary.BigEndian.AppendUint16(nil, length(u.withdrawnLength, len(u.withdrawn)))
	body = append(body, u.withdrawn...)
	body = binary.BigEndian.AppendUint16(body, length(u.attributeLength, len(attributes)))
	body = append(body, attributes...)
	body = append(body, u.nlri...)
	return frame(shield.TypeUpdate, body[:min(len(body), 4096-19)]...)
}

// find is an attribute by its code.
func (u *updateMessage) find(code byte) *pathAttribute {
	i := slices.IndexFunc(u.attributes, func(a pathAttribute) bool { return a.code == code })
	if i < 0 {
		u.attributes = append(u.attributes, attribute(0xc0, code))
		i = len(u.attributes) - 1
	}
	return &u.attributes[i]
}

// malformations are what RFC 7606, RFC 4760, RFC 6793 and RFC 8950 know of, each
// with the section of RFC 7606 where there is one, and a few that they do not.
var malformations = []func(*rand.Rand, *updateMessage){
	// 3 b, c: lengths that contradict each other.
	func(rng *rand.Rand, u *updateMessage) { u.attributeLength = rng.IntN(0x10000) },
	func(rng *rand.Rand, u *updateMessage) { u.withdrawnLength = rng.IntN(0x10000) },
	func(rng *rand.Rand, u *updateMessage) { u.any(rng).length = rng.IntN(256) },
	func(rng *rand.Rand, u *updateMessage) { a := u.any(rng); a.flags |= 0x10; a.length = rng.IntN(0x10000) },
	// 3 c: flags.
	func(rng *rand.Rand, u *updateMessage) { u.any(rng).flags ^= byte(1+rng.IntN(15)) << 4 },
	func(rng *rand.Rand, u *updateMessage) { u.any(rng).flags ^= byte(1 + rng.IntN(15)) },
	// 3 d: mandatory attributes that are not there.
	func(rng *rand.Rand, u *updateMessage) { u.attributes = u.attributes[1+rng.IntN(4):] },
	func(_ *rand.Rand, u *updateMessage) { u.attributes = nil },
	// 3 g: attributes that are there twice, MP_REACH_NLRI above all.
	func(rng *rand.Rand, u *updateMessage) { u.attributes = append(u.attributes, *u.any(rng)) },
	func(_ *rand.Rand, u *updateMessage) { u.attributes = append(u.attributes, *u.find(14)) },
	// 4: attributes of no length.
	func(rng *rand.Rand, u *updateMessage) { u.any(rng).value = nil },
	// 5.2: not in order.
	func(rng *rand.Rand, u *updateMessage) {
		rng.Shuffle(len(u.attributes), func(i, j int) {
			u.attributes[i], u.attributes[j] = u.attributes[j], u.attributes[i]
		})
	},
	// 5.3: prefixes too long, or cut.
	func(rng *rand.Rand, u *updateMessage) { u.nlri = append(u.nlri, byte(33+rng.IntN(223))) },
	func(_ *rand.Rand, u *updateMessage) { u.nlri = u.nlri[:len(u.nlri)-1] },
	func(rng *rand.Rand, u *updateMessage) { u.withdrawn = append(u.withdrawn, byte(33+rng.IntN(223)), 1) },
	func(rng *rand.Rand, u *updateMessage) { u.nlri = append(u.nlri, 24, byte(224+rng.IntN(32)), 0, 0) },
	// 7.1: ORIGIN.
	func(rng *rand.Rand, u *updateMessage) { u.find(1).value = []byte{byte(3 + rng.IntN(253))} },
	func(rng *rand.Rand, u *updateMessage) { u.find(1).value = randomBytes(rng, 2+rng.IntN(9)) },
	// 7.2: AS_PATH with unknown or confederation segments, with more or fewer ASes
	// than it says, with none, with AS 0.
	func(rng *rand.Rand, u *updateMessage) { u.find(2).value[0] = byte(rng.Uint32()) },
	func(rng *rand.Rand, u *updateMessage) { u.find(2).value[1] = byte(rng.Uint32()) },
	func(_ *rand.Rand, u *updateMessage) { u.find(2).value = []byte{2} },
	func(_ *rand.Rand, u *updateMessage) { u.find(2).value = []byte{2, 0} },
	func(_ *rand.Rand, u *updateMessage) { u.find(2).value = []byte{2, 1, 0, 0, 0, 0} },
	func(rng *rand.Rand, u *updateMessage) {
		a := u.find(2)
		a.flags, a.value = 0x50, append([]byte{2, 255}, randomBytes(rng, 4*255)...)
	},
	// 7.3: NEXT_HOP of all lengths and kinds.
	func(rng *rand.Rand, u *updateMessage) { u.find(3).value = randomBytes(rng, rng.IntN(34)) },
	func(rng *rand.Rand, u *updateMessage) {
		u.find(3).value = [][]byte{{0, 0, 0, 0}, {127, 0, 0, 1}, {224, 0, 0, 1}, {255, 255, 255, 255}, {203, 0, 113, 7}}[rng.IntN(5)]
	},
	// 7.4 to 7.10, 7.14, RFC 8092, RFC 9234: lengths.
	func(rng *rand.Rand, u *updateMessage) {
		codes := []byte{4, 5, 6, 7, 8, 9, 10, 16, 18, 32, 35}
		u.find(codes[rng.IntN(len(codes))]).value = randomBytes(rng, rng.IntN(40))
	},
	func(rng *rand.Rand, u *updateMessage) {
		a := u.find([]byte{8, 16, 32}[rng.IntN(3)])
		a.flags, a.value = 0xd0, randomBytes(rng, 12*rng.IntN(250))
	},
	// 7.11: MP_REACH_NLRI with next hops that no family has, or that are cut.
	func(rng *rand.Rand, u *updateMessage) {
		lengths := []byte{0, 1, 3, 4, 5, 8, 12, 15, 17, 24, 31, 32, 33, 48, 128}
		u.find(14).value = mpReach(lengths[rng.IntN(len(lengths))], 48, 0x20, 1, 0xd, 0xb8, 0, 1)
	},
	func(rng *rand.Rand, u *updateMessage) { u.find(14).value[3] = byte(rng.Uint32()) },
	func(rng *rand.Rand, u *updateMessage) {
		u.find(14).value = mpReach(16, byte(129+rng.IntN(127)), 1, 2, 3)
	},
	func(rng *rand.Rand, u *updateMessage) { u.find(14).value = u.find(14).value[:rng.IntN(27)] },
	func(rng *rand.Rand, u *updateMessage) { copy(u.find(14).value, randomBytes(rng, 3)) },
	// RFC 8950: IPv4 prefixes in MP_REACH_NLRI, which nobody has agreed to.
	func(_ *rand.Rand, u *updateMessage) {
		u.find(14).value = mpReach(16, 24, 198, 51, 100)
		u.find(14).value[1] = 1
	},
	// 7.12: MP_UNREACH_NLRI.
	func(rng *rand.Rand, u *updateMessage) { u.find(15).value = randomBytes(rng, rng.IntN(9)) },
	// RFC 6793 section 6: AS4_PATH before AS_PATH, alone, empty, longer, of
	// confederations; AS4_AGGREGATOR alone.
	func(_ *rand.Rand, u *updateMessage) {
		u.attributes = append([]pathAttribute{attribute(0xc0, 17, 2, 2, 0, 1, 0, 1, 0, 1, 0, 2)}, u.attributes[:4]...)
	},
	func(_ *rand.Rand, u *updateMessage) {
		four, two := *u.find(17), *u.find(2)
		u.attributes = []pathAttribute{four, attribute(0x40, 1, 0), attribute(0x40, 3, 10, 66, 6, 6), two}
	},
	func(_ *rand.Rand, u *updateMessage) { u.attributes = []pathAttribute{*u.find(17)} },
	func(_ *rand.Rand, u *updateMessage) { u.find(17).value = nil; u.find(2).value = nil },
	func(rng *rand.Rand, u *updateMessage) {
		u.find(17).value = append([]byte{byte(rng.IntN(6)), 9}, randomBytes(rng, 36)...)
	},
	func(_ *rand.Rand, u *updateMessage) { u.find(7).value = []byte{0xfc, 0x9a, 10, 0, 0, 1} },
	// Attributes that nobody knows, well-known by their flags, and as many as fit.
	func(rng *rand.Rand, u *updateMessage) { *u.any(rng) = attribute(0x40, byte(36+rng.IntN(200)), 1) },
	func(rng *rand.Rand, u *updateMessage) {
		for range 500 {
			u.attributes = append(u.attributes, attribute(0xc0, byte(rng.Uint32()), randomBytes(rng, rng.IntN(6))...))
		}
	},
	func(rng *rand.Rand, u *updateMessage) { u.nlri = randomBytes(rng, 4000) },
}

// any is an attribute; an UPDATE without one gets one.
func (u *updateMessage) any(rng *rand.Rand) *pathAttribute {
	if len(u.attributes) == 0 {
		u.attributes = []pathAttribute{attribute(0x40, 1, 0)}
	}
	return &u.attributes[rng.IntN(len(u.attributes))]
}

// malformedUpdate is wrong in one of these ways, perhaps in some bits as well, or
// has nothing right but its header.
func malformedUpdate(rng *rand.Rand) []byte {
	if rng.IntN(10) == 0 {
		return frame(shield.TypeUpdate, randomBytes(rng, 4+rng.IntN(4096-23+1))...)
	}
	u := rightUpdate()
	malformations[rng.IntN(len(malformations))](rng, u)
	msg := u.message()
	if rng.IntN(4) == 0 {
		for range 1 + rng.IntN(8) {
			msg[19+rng.IntN(len(msg)-19)] ^= 1 << rng.IntN(8)
		}
	}
	return msg
}
