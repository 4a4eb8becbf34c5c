package watch

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"anyedge/test/lab/netns"
)

// Wire watches the BGP messages that pass an interface.
type Wire struct {
	Messages Record[Message]

	socket  *os.File
	streams map[direction]*stream
}

// MessageType is the type of a BGP message (RFC 4271 section 4.1, RFC 2918).
type MessageType uint8

// The message types.
const (
	Open         MessageType = 1
	Update       MessageType = 2
	Notification MessageType = 3
	Keepalive    MessageType = 4
	RouteRefresh MessageType = 5
)

// Message is a BGP message as it passed.
type Message struct {
	At       time.Time
	From, To netip.Addr
	Type     MessageType
	// Announced and Withdrawn are the prefixes of an UPDATE, of both families.
	Announced, Withdrawn []netip.Prefix
}

// Announces reports whether the message announces a prefix.
func (m Message) Announces(p netip.Prefix) bool { return slices.Contains(m.Announced, p) }

// Withdraws reports whether the message withdraws a prefix.
func (m Message) Withdraws(p netip.Prefix) bool { return slices.Contains(m.Withdrawn, p) }

const bgpPort = 179

// OpenWire begins to listen on an interface.
func OpenWire(s netns.Space, iface string) (*Wire, error) {
	f, err := openInterface(s, iface)
	return &Wire{socket: f, streams: make(map[direction]*stream)}, err
}

// Run notes until ctx ends.
func (w *Wire) Run(ctx context.Context) error {
	return segments(ctx, w.socket, w.take)
}

// direction is one half of a TCP connection.
type direction struct{ from, to netip.AddrPort }

// stream is what is known of one half: the sequence number of the byte that
// comes next, and the beginning of a message whose end did not come yet.
type stream struct {
	next    uint32
	pending []byte
}

var marker = bytes.Repeat([]byte{0xff}, 16)

const (
	bgpHeader  = 19
	maxMessage = 65535 // RFC 8654
)

// take adds a segment to its stream and notes the messages that it completes.
// Who begins to listen in the middle of a connection starts at the next segment
// that begins with a marker.
func (w *Wire) take(s segment) {
	if s.From.Port() != bgpPort && s.To.Port() != bgpPort {
		return
	}
	d := direction{s.From, s.To}
	if s.Syn {
		w.streams[d] = &stream{next: s.Sequence + 1}
		return
	}
	if len(s.Payload) == 0 {
		return
	}
	st := w.streams[d]
	if st == nil {
		if !bytes.HasPrefix(s.Payload, marker) {
			return
		}
		st = &stream{next: s.Sequence}
		w.streams[d] = st
	}
	skip := int32(st.next - s.Sequence) // what came before is sent again
	switch {
	case skip < 0: // something is missing
		delete(w.streams, d)
		return
	case int(skip) >= len(s.Payload):
		return
	}
	st.next = s.Sequence + uint32(len(s.Payload))
	st.pending = append(st.pending, s.Payload[skip:]...)
	for len(st.pending) >= bgpHeader {
		n := int(binary.BigEndian.Uint16(st.pending[16:]))
		if !bytes.HasPrefix(st.pending, marker) || n < bgpHeader {
			delete(w.streams, d)
			return
		}
		if len(st.pending) < n {
			return
		}
		m := Message{At: s.At, From: s.From.Addr(), To: s.To.Addr(), Type: MessageType(st.pending[18])}
		if m.Type == Update {
			m.parseUpdate(st.pending[bgpHeader:n])
		}
		w.Messages.add(m)
		st.pending = st.pending[n:]
	}
}

// Path attributes that carry prefixes (RFC 4760).
const (
	mpReach   = 14
	mpUnreach = 15
)

// parseUpdate reads the prefixes of an UPDATE (RFC 4271 section 4.3). What does
// not parse ends it: this is a witness, not a judge.
func (m *Message) parseUpdate(body []byte) {
	withdrawn, rest, ok := block(body)
	if !ok {
		return
	}
	attributes, announced, ok := block(rest)
	if !ok {
		return
	}
	m.Withdrawn = prefixes(withdrawn, 4)
	m.Announced = prefixes(announced, 4)
	for len(attributes) >= 3 {
		flags, kind := attributes[0], attributes[1]
		n, header := int(attributes[2]), 3
		const extended = 0x10
		if flags&extended != 0 {
			if len(attributes) < 4 {
				return
			}
			n, header = int(binary.BigEndian.Uint16(attributes[2:])), 4
		}
		if len(attributes) < header+n {
			return
		}
		value := attributes[header : header+n]
		attributes = attributes[header+n:]
		switch kind {
		case mpReach: // AFI, SAFI, length and bytes of the next hop, a reserved byte
			if len(value) >= 5 && len(value) >= 5+int(value[3]) {
				m.Announced = append(m.Announced, prefixes(value[5+value[3]:], width(value))...)
			}
		case mpUnreach: // AFI, SAFI
			if len(value) >= 3 {
				m.Withdrawn = append(m.Withdrawn, prefixes(value[3:], width(value))...)
			}
		}
	}
}

// block splits off what a 16-bit length is before.
func block(b []byte) (head, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return nil, nil, false
	}
	return b[2 : 2+n], b[2+n:], true
}

// width is the size of an address of the AFI that a value begins with.
func width(value []byte) int {
	if binary.BigEndian.Uint16(value) == 2 {
		return 16
	}
	return 4
}

func prefixes(b []byte, width int) []netip.Prefix {
	var all []netip.Prefix
	for len(b) > 0 {
		bits := int(b[0])
		n := (bits + 7) / 8
		if bits > 8*width || len(b) < 1+n {
			return all
		}
		var address [16]byte
		copy(address[:], b[1:1+n])
		a, _ := netip.AddrFromSlice(address[:width])
		all = append(all, netip.PrefixFrom(a, bits))
		b = b[1+n:]
	}
	return all
}

// String is for a log.
func (m Message) String() string {
	names := map[MessageType]string{Open: "OPEN", Update: "UPDATE", Notification: "NOTIFICATION", Keepalive: "KEEPALIVE", RouteRefresh: "ROUTE-REFRESH"}
	s := fmt.Sprintf("%s %s > %s %s", m.At.Format("15:04:05.000000"), m.From, m.To, names[m.Type])
	if len(m.Announced) > 0 {
		s += fmt.Sprintf(" announces %v", m.Announced)
	}
	if len(m.Withdrawn) > 0 {
		s += fmt.Sprintf(" withdraws %v", m.Withdrawn)
	}
	return s
}
