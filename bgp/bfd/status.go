package bfd

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Status is one session. It holds no secrets. Counters are up to a second
// behind; a change of anything else is seen at once.
type Status struct {
	Peer         netip.Addr `json:"peer"`
	LocalAddress netip.Addr `json:"local_address,omitzero"`
	State        State      `json:"state"`
	// Since is when the State was entered.
	Since      time.Time  `json:"since,omitzero"`
	Diagnostic Diagnostic `json:"diagnostic"`
	// RemoteState and what else is remote is as the neighbor last said.
	RemoteState      State      `json:"remote_state"`
	RemoteDiagnostic Diagnostic `json:"remote_diagnostic"`

	LocalDiscriminator uint32 `json:"local_discriminator"`
	// RemoteDiscriminator is 0 while the neighbor is not heard.
	RemoteDiscriminator uint32 `json:"remote_discriminator"`

	// TransmitInterval is what holds between two packets to the neighbor,
	// before jitter.
	TransmitInterval time.Duration `json:"transmit_interval_ns"`
	// ReceiveInterval is what holds between two packets of the neighbor; 0
	// while it is not heard. DetectionTime is the silence that is taken for a
	// failure.
	ReceiveInterval  time.Duration `json:"receive_interval_ns"`
	DetectionTime    time.Duration `json:"detection_time_ns"`
	Multiplier       uint8         `json:"multiplier"`
	RemoteMultiplier uint8         `json:"remote_multiplier"`
	// RemoteIndependent is the neighbor's Control Plane Independent bit: its
	// BFD outlives a restart of its BGP.
	RemoteIndependent bool `json:"remote_independent"`
	// RemoteDemand is set while the neighbor has asked for no periodic packets.
	RemoteDemand bool `json:"remote_demand"`

	// Flaps is how often the session left Up, and Failures how often it did
	// so without an operator of either side.
	Flaps    uint64 `json:"flaps"`
	Failures uint64 `json:"failures"`

	PacketsIn  uint64 `json:"packets_in"`  // those accepted
	PacketsOut uint64 `json:"packets_out"` // those sent
	// Drops counts discarded packets of the neighbor by reason.
	Drops map[string]uint64 `json:"drops,omitempty"`
	// SendErrors counts packets that the kernel did not take.
	SendErrors uint64 `json:"send_errors"`
	// DetectMargin is the least time that was left of the Detection Time when
	// a packet came, within the last second of being Up; -1 if unknown.
	DetectMargin time.Duration `json:"detect_margin_ns"`
	// LastError is why the session cannot send or receive now.
	LastError string `json:"last_error,omitempty"`
}

// Change is a session's way from one state to another.
type Change struct {
	Peer     netip.Addr
	From, To State
	// Diagnostic is the local reason.
	Diagnostic Diagnostic
	// Failure is set if the session left Up and no operator of either side
	// asked for it. Only then should routes through the neighbor go (RFC 5882
	// section 3.2). A session that failed and is Up again when this is
	// reported has From and To Up.
	Failure bool
	// At is when To was entered.
	At time.Time
}

// clone is a copy that shares nothing.
func (s *Status) clone() Status {
	c := *s
	c.Drops = maps.Clone(s.Drops)
	return c
}

// Status returns all sessions by address.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Status, 0, len(m.sessions))
	for _, s := range m.sessions {
		if s.inSet {
			all = append(all, s.status.clone())
		}
	}
	slices.SortFunc(all, func(a, b Status) int { return a.Peer.Compare(b.Peer) })
	return all
}
