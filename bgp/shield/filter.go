package shield

import (
	"encoding/binary"
	"fmt"
	"time"
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

// fate is what becomes of a message of the peer.
type fate uint8

const (
	relayed  fate = iota // goes to the engine
	refused              // dropped, for the engine must not see it
	absorbed             // dropped, for the engine needs no more of the kind
	delayed              // a ROUTE-REFRESH that goes to the engine later
)

const (
	// keepaliveInterval is the least time between two KEEPALIVEs to the engine,
	// whatever the peer sends; the shortest hold time is 3 s.
	keepaliveInterval = 100 * time.Millisecond
	// refreshInterval is the least time between two answers to a ROUTE-REFRESH
	// of a family. An engine queues its answers without bound.
	refreshInterval = time.Second
)

// filter decides about each message of the peer. It follows the peer's half of
// the state machine: an OPEN, then a KEEPALIVE, then the established session.
// The zero filter, with the peer's AS, awaits the OPEN.
type filter struct {
	asn       uint32
	open      *Open // nil before the OPEN
	confirmed bool

	keepalive time.Time  // when the engine was last told that the peer lives
	refresh   [2]refresh // by family: IPv4, IPv6
}

// refresh paces the answers to one family's ROUTE-REFRESHes.
type refresh struct {
	last    time.Time
	waiting bool
}

// check says what becomes of msg, which readMessage returned. A message that is
// wrong or may not come now is a *violation (RFC 4271 sections 6.2 and 6.6, RFC
// 6608).
func (f *filter) check(msg []byte, now time.Time) (fate, error) {
	t := TypeOf(msg)
	if t == TypeNotification {
		return relayed, nil
	}
	switch {
	case f.open == nil:
		if t != TypeOpen {
			return refused, violate(codeState, 1, []byte{byte(t)})
		}
		var err error
		f.open, err = parseOpen(msg, f.asn)
		return relayed, err
	case !f.confirmed:
		if t != TypeKeepalive {
			return refused, violate(codeState, 2, []byte{byte(t)})
		}
		f.confirmed = true
		return relayed, nil
	}
	switch t {
	case TypeKeepalive:
		return absorbed, nil // the engine is told by due
	case TypeUpdate:
		return refused, nil
	case TypeRouteRefresh:
		return f.checkRefresh(msg, now), nil
	}
	return refused, violate(codeState, 3, []byte{byte(t)})
}

// checkRefresh decides about a ROUTE-REFRESH. One for a family that the session
// does not carry is ignored (RFC 2918 section 4), and so are the markers of
// enhanced route refresh, which an engine does not offer (RFC 7313).
func (f *filter) checkRefresh(msg []byte, now time.Time) fate {
	body := msg[headerLength:]
	if body[2] != 0 || body[3] != safiUnicast {
		return refused
	}
	var r *refresh
	switch afi := binary.BigEndian.Uint16(body); {
	case afi == afiIPv4 && f.open.IPv4:
		r = &f.refresh[0]
	case afi == afiIPv6 && f.open.IPv6:
		r = &f.refresh[1]
	default:
		return refused
	}
	switch {
	case r.waiting:
		return absorbed // one answer serves both
	case now.Sub(r.last) < refreshInterval:
		r.waiting = true
		return delayed
	}
	r.last = now
	return relayed
}

// alive reports whether the engine must be told now that the peer lives: a
// KEEPALIVE stands for whatever the peer sent, because a KEEPALIVE and an UPDATE
// alike restart the hold timer (RFC 4271 section 4.4).
func (f *filter) alive(now time.Time) bool {
	if !f.confirmed || now.Sub(f.keepalive) < keepaliveInterval {
		return false
	}
	f.keepalive = now
	return true
}

// due returns the delayed ROUTE-REFRESHes that may go to the engine now, and
// when the next one may; the zero time: none waits.
func (f *filter) due(now time.Time) (msgs [][]byte, next time.Time) {
	for i := range f.refresh {
		r := &f.refresh[i]
		if !r.waiting {
			continue
		}
		if at := r.last.Add(refreshInterval); at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		r.last, r.waiting = now, false
		msgs = append(msgs, encode(TypeRouteRefresh, []byte{0, byte(i + 1), 0, safiUnicast}))
	}
	return msgs, next
}
