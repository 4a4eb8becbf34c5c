package shield

import (
	"encoding/binary"
	"fmt"
)

// State is a state of a BGP session (RFC 4271 section 8.2.2), as seen on the
// wire.
type State uint8

// The states of RFC 4271. A shield is never Active: it does not wait for the
// peer to connect.
const (
	Idle State = iota
	Connect
	Active
	OpenSent
	OpenConfirm
	Established
)

var stateNames = [...]string{"idle", "connect", "active", "open_sent", "open_confirm", "established"}

// String is the state's name in lower case, as in "open_sent".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state_%d", uint8(s))
}

// MarshalText is String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if string(text) == name {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("unknown session state %q", text)
}

// filter decides about each message of the peer. It follows the peer's half of
// the state machine: an OPEN, then a KEEPALIVE, then the established session.
// The zero filter awaits the OPEN.
type filter struct {
	open, confirmed bool
}

// check says whether msg, which readMessage returned, may go to the engine. A
// message that may not come now is a *violation (RFC 4271 section 6.6, RFC
// 6608).
func (f *filter) check(msg []byte) (pass bool, err error) {
	t := TypeOf(msg)
	if t == TypeNotification {
		return true, nil
	}
	switch {
	case !f.open:
		if t != TypeOpen {
			return false, violate(codeState, 1, []byte{byte(t)})
		}
		// Without a hold time a dead peer would be believed for ever.
		if binary.BigEndian.Uint16(msg[headerLength+3:]) == 0 {
			return false, violate(codeOpen, 6, nil)
		}
		f.open = true
		return true, nil
	case !f.confirmed:
		if t != TypeKeepalive {
			return false, violate(codeState, 2, []byte{byte(t)})
		}
		f.confirmed = true
		return true, nil
	}
	switch t {
	case TypeKeepalive, TypeRouteRefresh:
		return true, nil
	case TypeUpdate:
		return false, nil
	}
	return false, violate(codeState, 3, []byte{byte(t)})
}
