package exchange

import (
	"errors"
	"strings"
)

// maxOptions bounds what one message may name in Connection. Honest messages
// name one or two; the bound keeps stripping linear in the message's size.
const maxOptions = 32

// ErrConnectionOptions refuses a message whose Connection field names more
// than a sane number of options.
var ErrConnectionOptions = errors.New("too many connection options")

// Hop is what a message's fields said about its connection alone.
type Hop struct {
	Upgrade  string // the protocol asked for or agreed to; empty unless Connection names "upgrade"
	Trailers bool   // trailers are welcome (TE: trailers)
}

// TakeHop removes the fields that are meant for one connection and not for
// the next (RFC 9110, 7.6.1): those that Connection names, and those that are
// so by definition. It returns what they said.
//
// A client may name any field in Connection to have it dropped, so fields of
// our own are only to be added afterwards.
func (f *Fields) TakeHop() (Hop, error) {
	var hop Hop
	var options [maxOptions]string
	named := options[:0]
	upgrade := false
	for option := range f.List("Connection") {
		if len(named) == maxOptions {
			return hop, ErrConnectionOptions
		}
		named = append(named, option)
		upgrade = upgrade || EqualName(option, "upgrade")
	}
	if upgrade {
		hop.Upgrade = f.Join("Upgrade")
	}
	for coding := range f.List("TE") {
		// Weights and parameters are for transfer codings; trailers has none.
		hop.Trailers = hop.Trailers || EqualName(coding, "trailers")
	}
	f.DeleteFunc(func(x Field) bool {
		if hopByHop(x.Name) {
			return true
		}
		for _, option := range named {
			if EqualName(x.Name, option) {
				return true
			}
		}
		return false
	})
	return hop, nil
}

// hopByHop reports whether a field is about one connection whatever the
// Connection field says. Framing fields in a loose spelling, such as
// Content_Length, are too: an origin that takes "_" for "-" would split the
// message by them.
func hopByHop(name string) bool {
	switch len(name) {
	case 2:
		return EqualName(name, "TE")
	case 7:
		return EqualName(name, "Trailer") || EqualName(name, "Upgrade")
	case 10:
		return EqualName(name, "Connection") || EqualName(name, "Keep-Alive")
	case 14:
		return EqualName(name, "HTTP2-Settings") || disguised(name, "Content-Length")
	case 16:
		return EqualName(name, "Proxy-Connection")
	case 17:
		return EqualName(name, "Transfer-Encoding") || disguised(name, "Transfer-Encoding")
	case 18:
		return EqualName(name, "Proxy-Authenticate")
	case 19:
		// For a proxy that asked for it (RFC 9110, 11.7.2). We do not ask.
		return EqualName(name, "Proxy-Authorization")
	case 25:
		return EqualName(name, "Proxy-Authentication-Info")
	}
	return false
}

// disguised reports whether name is a loose spelling of a field.
func disguised(name, field string) bool {
	return len(name) == len(field) && loosePrefix(name, field) && !EqualName(name, field)
}

// TrailerAllowed reports whether a field may travel in a trailer section:
// none that frames, routes, authenticates, identifies or says how to read the
// body (RFC 9110, 6.5.1), because a recipient may merge trailers into the head.
func TrailerAllowed(name string) bool {
	if hopByHop(name) || identifies(name) {
		return false
	}
	for _, banned := range []string{
		"Host", "Content-Length", "Content-Encoding", "Content-Type", "Content-Range",
		"Authorization", "WWW-Authenticate", "Cookie", "Set-Cookie",
		"Cache-Control", "Expect", "Max-Forwards", "Pragma", "Range", "Age", "Date", "Expires",
		"Location", "Retry-After", "Vary", "Via",
	} {
		if EqualName(name, banned) {
			return false
		}
	}
	return name != "" && !strings.HasPrefix(name, ":")
}
