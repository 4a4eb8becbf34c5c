package gslb

import (
	"encoding/binary"

	"anyedge/gslb/steer"
)

// packed is an answer as it goes out behind the question. It is never changed.
type packed struct {
	flags uint16 // AA and the rcode
	// counts are those of answer, authority and additional records, of the last
	// without the OPT record.
	counts [3]uint16
	body   []byte
	// base is the length of the question's name that body was packed for, and
	// moving is where body has compression pointers to what lies behind the
	// name's first label: a longer name moves that, and the pointers with it.
	base   int
	moving []uint16

	// steered is the name in the steering table whose addresses of a family
	// follow body, as records of the name that owner points to; "" if none do.
	steered string
	family  steer.Family
	owner   uint16

	// secure is set if a signed zone has a part in the answer: who asks for
	// signatures gets another one.
	secure bool
}

// appendTo appends the body for a question whose name has the given length.
func (p *packed) appendTo(msg []byte, nameLength int) []byte {
	at := len(msg)
	msg = append(msg, p.body...)
	if by := nameLength - p.base; by != 0 {
		for _, off := range p.moving {
			pointer := msg[at+int(off):]
			binary.BigEndian.PutUint16(pointer, binary.BigEndian.Uint16(pointer)+uint16(by))
		}
	}
	return msg
}

// answers are the packed answers to the questions for a name, by type. A type
// without one is for the slow path.
type answers struct {
	types []typed
	other typed // of all types that are not in types
}

// typed is the answer to questions for one type, and its forms with signatures;
// nil if it has none, or other ones for each name.
type typed struct {
	qtype uint16
	*packed
	signed *kept
}

func (a *answers) get(qtype uint16) (*packed, *kept) {
	for i := range a.types {
		if t := &a.types[i]; t.qtype == qtype {
			return t.packed, t.signed
		}
	}
	return a.other.packed, a.other.signed
}

// entry is what is packed for a name, and for the names below it that have no
// entry on the way. An entry without answers keeps both to the slow path.
type entry struct{ at, below answers }

// entries are the packed answers of some names.
type entries map[name]*entry
