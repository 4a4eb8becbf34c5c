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
	// by prefix.
	Announcements []Path `json:"announcements"`
	// Neighbors in the order of the Config.
	Neighbors []NeighborStatus `json:"neighbors"`
}

// NeighborStatus is one upstream router as seen on the wire. Counters cover
// the Speaker's lifetime.
type NeighborStatus struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	ASN     uint32     `json:"asn"`
	State   State      `json:"state"`
	// EstablishedSince is zero unless State is Established.
	EstablishedSince time.Time `json:"established_since,omitzero"`
	// Sessions is how many times a session was Established.
	Sessions uint64 `json:"sessions"`
	// LastError is why the last attempt or session ended; empty while
	// Established.
	LastError string `json:"last_error,omitempty"`
	// RefusedUpdates is how many UPDATEs of the neighbor were dropped.
	RefusedUpdates uint64 `json:"refused_updates"`
	// Received counts all messages of the neighbor, refused ones included.
	Received MessageCounts `json:"received"`
	// Sent counts what was written to the neighbor's connection.
	Sent MessageCounts `json:"sent"`
	// AdjRIBOut is what the UPDATEs written to the neighbor's connection in the
	// current session have announced and not withdrawn since, by prefix; empty
	// without a session. It does not say that the neighbor has accepted a
	// route.
	AdjRIBOut []Path `json:"adj_rib_out"`
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
		st.Announcements = append(st.Announcements, a.path(s.cfg.ASN))
	}
	s.mu.Unlock()
	slices.SortFunc(st.Announcements, byPrefix)
	for _, n := range s.neighbors {
		st.Neighbors = append(st.Neighbors, n.status())
	}
	return st
}
