package bgp

import (
	"net/netip"
	"slices"
	"time"

	"anyedge/bgp/shield"
)

// Status is a Speaker at one moment. It holds no secrets.
type Status struct {
	ASN      uint32     `json:"asn"`
	RouterID netip.Addr `json:"router_id"`
	// Announcements is what should be announced, as a neighbor would see it,
	// by prefix; a prefix that differs between neighbors comes several times.
	// See Routes for what each neighbor gets.
	Announcements []Path `json:"announcements"`
	// Blackholes is what upstreams should discard.
	Blackholes []BlackholeRoute `json:"blackholes,omitempty"`
	// Neighbors in the order of the Config.
	Neighbors []NeighborStatus `json:"neighbors"`
}

// NeighborStatus is one upstream router as seen on the wire. Counters begin
// when a neighbor is configured, or configured otherwise.
type NeighborStatus struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	ASN     uint32     `json:"asn"`
	State   State      `json:"state"`
	// EstablishedSince is zero unless State is Established.
	EstablishedSince time.Time `json:"established_since,omitzero"`
	// DownSince is when the last session ended; zero if there was none, or if
	// State is Established.
	DownSince time.Time `json:"down_since,omitzero"`
	// Sessions is how many times a session was Established.
	Sessions uint64 `json:"sessions"`
	// PathFailures is how many times the PathWatcher reported a failure.
	PathFailures uint64 `json:"path_failures,omitempty"`
	// LastError is why the last attempt or session ended; empty while
	// Established.
	LastError string `json:"last_error,omitempty"`
	// Shutdown is the text of an administrative shutdown in force, which may be
	// empty; nil: there is none.
	Shutdown *string `json:"shutdown,omitempty"`
	// Negotiated is what the neighbor agreed to; nil before its OPEN.
	Negotiated *Negotiated `json:"negotiated,omitempty"`
	// EndOfRIB is set once all that was to be announced at the beginning of the
	// session is sent (RFC 4724 section 2).
	EndOfRIB bool `json:"end_of_rib,omitempty"`
	// RefusedUpdates is how many UPDATEs of the neighbor were dropped.
	RefusedUpdates uint64 `json:"refused_updates"`
	// Received counts all messages of the neighbor that have a right header,
	// refused ones and those that ended a session included.
	Received MessageCounts `json:"received"`
	// Sent counts what was written to the neighbor's connection.
	Sent MessageCounts `json:"sent"`
	// AdjRIBOut is what the UPDATEs written to the neighbor's connection in the
	// current session have announced and not withdrawn since, by prefix; empty
	// without a session. It does not say that the neighbor has accepted a
	// route.
	AdjRIBOut []Path `json:"adj_rib_out"`
}

// Negotiated is what a session can carry, and how.
type Negotiated struct {
	IPv4 bool `json:"ipv4"`
	IPv6 bool `json:"ipv6"`
	// NextHopIPv6: IPv4 prefixes may have an IPv6 next hop (RFC 8950).
	NextHopIPv6 bool `json:"next_hop_ipv6"`
	FourOctetAS bool `json:"four_octet_as"`
	// HoldTime is the smaller of the two offers.
	HoldTime time.Duration `json:"hold_time_ns"`
}

// MessageCounts counts messages by type.
type MessageCounts struct {
	Open         uint64 `json:"open"`
	Update       uint64 `json:"update"`
	Notification uint64 `json:"notification"`
	Keepalive    uint64 `json:"keepalive"`
	RouteRefresh uint64 `json:"route_refresh"`
}

func countMessages(byType map[shield.Type]uint64) MessageCounts {
	return MessageCounts{
		Open:         byType[shield.TypeOpen],
		Update:       byType[shield.TypeUpdate],
		Notification: byType[shield.TypeNotification],
		Keepalive:    byType[shield.TypeKeepalive],
		RouteRefresh: byType[shield.TypeRouteRefresh],
	}
}

// Status returns the current state. It copies what the Speaker keeps anyway
// and never waits for GoBGP.
func (s *Speaker) Status() Status {
	st := Status{
		ASN:           s.cfg.ASN,
		RouterID:      s.cfg.RouterID,
		Announcements: []Path{},
		Neighbors:     []NeighborStatus{},
	}
	s.mu.Lock()
	for _, a := range s.desired {
		if a.Withheld == "" {
			st.Announcements = append(st.Announcements, a.path(s.cfg.ASN))
		}
	}
	st.Blackholes = slices.Clone(s.blackholes)
	neighbors := slices.Clone(s.neighbors)
	s.mu.Unlock()
	for _, n := range neighbors {
		st.Neighbors = append(st.Neighbors, n.status())
	}
	return st
}

// status is the neighbor's part of Status.
func (n *neighbor) status() NeighborStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	st := NeighborStatus{
		Address:        n.cfg.Address,
		Port:           n.cfg.Port,
		ASN:            n.cfg.ASN,
		State:          n.state,
		Sessions:       n.sessions,
		PathFailures:   n.failures,
		LastError:      n.lastErr,
		EndOfRIB:       n.endOfRIB,
		RefusedUpdates: n.refused,
		Received:       countMessages(n.received),
		Sent:           countMessages(n.sent),
		AdjRIBOut:      n.rib.sorted(),
	}
	if n.shutdown != nil {
		text := *n.shutdown
		st.Shutdown = &text
	}
	if n.state == Established {
		st.EstablishedSince = n.since
	} else {
		st.DownSince = n.since
	}
	if n.state >= OpenConfirm {
		st.Negotiated = &Negotiated{
			IPv4: n.open.IPv4, IPv6: n.open.IPv6,
			NextHopIPv6: n.open.NextHopIPv6, FourOctetAS: n.open.FourOctetAS,
			HoldTime: min(n.cfg.HoldTime, time.Duration(n.open.HoldTime)*time.Second),
		}
	}
	return st
}
