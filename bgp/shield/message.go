package shield

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Sizes of RFC 4271 section 4.1. Extended messages (RFC 8654) are never
// negotiated.
const (
	markerLength = 16
	headerLength = 19
	maxLength    = 4096
)

// Type is the type of a BGP message.
type Type uint8

// The message types of RFC 4271 section 4.1 and RFC 2918.
const (
	TypeOpen         Type = 1
	TypeUpdate       Type = 2
	TypeNotification Type = 3
	TypeKeepalive    Type = 4
	TypeRouteRefresh Type = 5
)

// Types lists every type the shield knows, in numerical order.
var Types = [...]Type{TypeOpen, TypeUpdate, TypeNotification, TypeKeepalive, TypeRouteRefresh}

var typeNames = [...]string{
	TypeOpen:         "open",
	TypeUpdate:       "update",
	TypeNotification: "notification",
	TypeKeepalive:    "keepalive",
	TypeRouteRefresh: "route_refresh",
}

// String is the type's name in lower case: open, update, notification,
// keepalive or route_refresh.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type_%d", uint8(t))
}

// fits reports whether a message of type t may be n bytes long, header
// included.
func (t Type) fits(n int) bool {
	switch t {
	case TypeOpen:
		return n >= 29
	case TypeUpdate:
		return n >= 23
	case TypeNotification:
		return n >= 21
	case TypeKeepalive:
		return n == headerLength
	case TypeRouteRefresh:
		return n == 23
	}
	return false
}

// keepalive is a whole KEEPALIVE message.
var keepalive = encode(TypeKeepalive, nil)

// encode makes a whole message.
func encode(t Type, body []byte) []byte {
	msg := make([]byte, headerLength, headerLength+len(body))
	for i := range markerLength {
		msg[i] = 0xff
	}
	binary.BigEndian.PutUint16(msg[markerLength:], uint16(headerLength+len(body)))
	msg[headerLength-1] = byte(t)
	return append(msg, body...)
}

// TypeOf is the type of a whole message, such as Events.Sent gets.
func TypeOf(msg []byte) Type { return Type(msg[headerLength-1]) }

// readMessage takes one whole message from r, whose buffer holds maxLength bytes.
// The message is valid until the next read. A header that breaks RFC 4271
// section 6.1 is a *violation, found before the rest has come. A clean end
// between two messages is io.EOF, one within a message io.ErrUnexpectedEOF. After
// a deadline nothing is lost: the call may be repeated.
func readMessage(r *bufio.Reader) ([]byte, error) {
	header, err := r.Peek(headerLength)
	if err != nil {
		if err == io.EOF && len(header) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	for _, b := range header[:markerLength] {
		if b != 0xff {
			return nil, violate(codeHeader, 1, nil) // Connection Not Synchronized
		}
	}
	length := header[markerLength : headerLength-1]
	n := int(binary.BigEndian.Uint16(length))
	if n < headerLength || n > maxLength {
		return nil, violate(codeHeader, 2, length) // Bad Message Length
	}
	t := Type(header[headerLength-1])
	if t < TypeOpen || t > TypeRouteRefresh {
		return nil, violate(codeHeader, 3, []byte{byte(t)}) // Bad Message Type
	}
	if !t.fits(n) {
		return nil, violate(codeHeader, 2, length)
	}
	msg, err := r.Peek(n)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	r.Discard(n) // all of it is buffered
	return msg, nil
}
