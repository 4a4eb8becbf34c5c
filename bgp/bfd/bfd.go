// Package bfd watches the paths to neighbors on the same link with
// Bidirectional Forwarding Detection: RFC 5880 in asynchronous mode, over one
// hop as RFC 5881 has it, IPv4 and IPv6, down to an interval of 10 ms. Demand
// mode and the Echo function are honored where a neighbor asks and never
// offered.
//
// A Manager is given the whole set of neighbors that should be watched. A
// neighbor whose timers change keeps its session: a Poll Sequence tells the
// other side. A neighbor that leaves the set, and every neighbor when Run ends,
// is told by AdminDown, which is no failure to it.
//
// # The engine
//
// The state machine of a session is pure: it takes packets and the time, and
// gives packets, deadlines and states. The engine around it runs all sessions
// on one thread that makes its own system calls. In Go such a thread still
// waits for its turn whenever it returns from the kernel, and with busy
// goroutines beside it that is tens of milliseconds, with a busy host beside
// them hundreds. So the engine belongs in a process of its own, which Config
// names and in which every thread has real-time priority, if the host permits
// it. Without such a process it runs on a thread of this one.
//
// Either way the engine reads one end of a socket pair. When that closes
// unannounced, because the process of the Manager died, the engine falls silent
// at once: the neighbors must find out.
//
// # Concurrency
//
// The methods of Manager may be called from any goroutine and never wait for
// a packet. Run may be called once and joins all it started. Functions given to
// Watch are called from one goroutine, in order.
package bfd

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	minInterval       = 10 * time.Millisecond
	maxInterval       = time.Minute
	defaultInterval   = 50 * time.Millisecond
	defaultMultiplier = 3
	// maxPeers keeps a set within one message to the engine, and a pass over
	// all sessions short.
	maxPeers = 256
)

// State is the state of a session, RFC 5880 section 4.1.
type State uint8

// The states of a session, with their values on the wire.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

var stateNames = [...]string{"admin_down", "down", "init", "up"}

// String is the state's name: admin_down, down, init or up.
func (s State) String() string { return nameOf(stateNames[:], uint8(s)) }

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(text []byte) error { return parse(stateNames[:], text, (*uint8)(s)) }

// Diagnostic is why a session last changed state, RFC 5880 section 4.1.
type Diagnostic uint8

// The diagnostics that a session of this package gives. Neighbors may send
// others.
const (
	NoDiagnostic Diagnostic = 0
	TimeExpired  Diagnostic = 1 // no packet within the Detection Time
	SignaledDown Diagnostic = 3 // the neighbor's session went down
	AdminReason  Diagnostic = 7 // taken down by an operator
)

var diagnosticNames = [...]string{
	"none", "time_expired", "echo_failed", "signaled_down", "forwarding_plane_reset",
	"path_down", "concatenated_path_down", "admin_down", "reverse_concatenated_path_down",
}

// String is a short name of the diagnostic, such as time_expired.
func (d Diagnostic) String() string { return nameOf(diagnosticNames[:], uint8(d)) }

// MarshalText implements encoding.TextMarshaler.
func (d Diagnostic) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Diagnostic) UnmarshalText(text []byte) error {
	return parse(diagnosticNames[:], text, (*uint8)(d))
}

func nameOf(names []string, v uint8) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("reserved_%d", v)
}

func parse(names []string, text []byte, v *uint8) error {
	if i := slices.Index(names, string(text)); i >= 0 {
		*v = uint8(i)
		return nil
	}
	_, err := fmt.Sscanf(string(text), "reserved_%d", v)
	return err
}

// Peer is a neighbor to watch. It must be on the same link.
type Peer struct {
	// Address of the neighbor. A link-local address needs its zone, the name
	// of an interface, and belongs to that interface only.
	Address netip.Addr
	// LocalAddress is the source of packets and the only address they are
	// taken at. Default: any. If one peer of a family has none, packets for
	// all peers of that family are taken at any address.
	LocalAddress netip.Addr
	// TransmitInterval is the shortest interval at which to send while the
	// session is Up. Default 50ms; 10ms to 1m.
	TransmitInterval time.Duration
	// ReceiveInterval is the shortest interval at which the neighbor may
	// send. Default TransmitInterval; 10ms to 1m.
	ReceiveInterval time.Duration
	// Multiplier is how many intervals of silence the neighbor takes for a
	// failure of ours. Default 3. Its own multiplier is the neighbor's choice.
	Multiplier uint8
	// Auth of both directions. Default: none.
	Auth Auth
	// AdminDown holds the session down, without a failure on either side.
	AdminDown bool
}

// Auth is keyed SHA1 authentication, RFC 5880 section 6.7.4. Without keys there
// is none. It has a price: sequence numbers begin at random, so after a restart
// of either side the other refuses packets until it has heard none for twice the
// Detection Time, which is 6 s with a multiplier of 3.
type Auth struct {
	// Meticulous refuses a sequence number that came before. The neighbor must
	// be set alike.
	Meticulous bool
	// Keys in use. The first one signs and each is accepted, so that a key can
	// be replaced without losing the session.
	Keys []Key
}

// Key is a shared key.
type Key struct {
	// ID names the key to the neighbor; unique among the keys of a peer.
	ID uint8
	// Secret is 1 to 20 bytes. It appears in no log, error or Status.
	Secret string
}

// normalize fills in defaults and reports everything that is wrong with p.
func (p *Peer) normalize() error {
	p.Address, p.LocalAddress = p.Address.Unmap(), p.LocalAddress.Unmap()
	p.TransmitInterval = cmp.Or(p.TransmitInterval, defaultInterval)
	p.ReceiveInterval = cmp.Or(p.ReceiveInterval, p.TransmitInterval)
	p.Multiplier = cmp.Or(p.Multiplier, defaultMultiplier)
	p.Auth.Keys = slices.Clone(p.Auth.Keys)
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if a := p.Address; !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		fail("address: %v is not a usable address", a)
	} else if a.Is6() && a.IsLinkLocalUnicast() != (a.Zone() != "") {
		fail("address: %v: a link-local address needs a zone, and no other has one", a)
	}
	switch a := p.LocalAddress; {
	case !a.IsValid():
	case a.IsUnspecified() || a.IsMulticast():
		fail("local_address: %v is not a usable address", a)
	case a.Is4() != p.Address.Is4():
		fail("local_address: %v and %v are of different families", a, p.Address)
	case a.Is6() && a.IsLinkLocalUnicast():
		if p.Address.Zone() == "" {
			fail("local_address: %v is link-local and %v is not", a, p.Address)
		}
		p.LocalAddress = a.WithZone(p.Address.Zone())
	}
	if d := p.TransmitInterval; d < minInterval || d > maxInterval {
		fail("transmit_interval: %v is not within %v to %v", d, minInterval, maxInterval)
	}
	if d := p.ReceiveInterval; d < minInterval || d > maxInterval {
		fail("receive_interval: %v is not within %v to %v", d, minInterval, maxInterval)
	}
	seen := make(map[uint8]bool)
	for i, k := range p.Auth.Keys {
		if n := len(k.Secret); n < 1 || n > hashLength {
			fail("auth.keys[%d]: a secret has 1 to %d bytes", i, hashLength)
		}
		if seen[k.ID] {
			fail("auth.keys[%d]: id %d is used twice", i, k.ID)
		}
		seen[k.ID] = true
	}
	return errors.Join(errs...)
}

// equal reports whether p and q are the same after normalize.
func (p *Peer) equal(q *Peer) bool {
	return p.Address == q.Address && p.LocalAddress == q.LocalAddress &&
		p.TransmitInterval == q.TransmitInterval && p.ReceiveInterval == q.ReceiveInterval &&
		p.Multiplier == q.Multiplier && p.AdminDown == q.AdminDown &&
		p.Auth.Meticulous == q.Auth.Meticulous && slices.Equal(p.Auth.Keys, q.Auth.Keys)
}

// Check reports everything that is wrong with a set of peers, as Manager.Set would.
func Check(peers []Peer) error {
	_, err := normalizeSet(peers)
	return err
}

// normalizeSet checks a set of peers and returns it in canonical form.
func normalizeSet(peers []Peer) ([]Peer, error) {
	var errs []error
	if len(peers) > maxPeers {
		errs = append(errs, fmt.Errorf("peers: %d are more than %d", len(peers), maxPeers))
	}
	set := slices.Clone(peers)
	seen := make(map[netip.Addr]bool)
	for i := range set {
		p := &set[i]
		if err := p.normalize(); err != nil {
			errs = append(errs, fmt.Errorf("peers[%d]: %w", i, err))
			continue
		}
		// RFC 5881 section 3: one session between two systems on a link.
		if seen[p.Address] {
			errs = append(errs, fmt.Errorf("peers[%d].address: %v is listed twice", i, p.Address))
		}
		seen[p.Address] = true
	}
	return set, errors.Join(errs...)
}
