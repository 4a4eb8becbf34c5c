// Package bgp announces service prefixes to upstream routers and takes them
// back. Speaker is the announcing side; Router is an upstream for one machine,
// used by the lab and by tests. This is the only package that imports GoBGP.
//
// A Speaker is given the whole set of announcements that should exist, and the
// whole set of neighbors, and works out what to send to whom. An announcement
// may be meant for some neighbors only, so one prefix may look different to each.
// A Speaker learns no routes: package shield drops every UPDATE of a neighbor
// before GoBGP could parse it, and an import policy that accepts local routes
// only stands behind that. Graceful restart is never negotiated, for the data
// path dies with the host, and hold times are short: when the process dies the
// kernel closes the sessions and the neighbors withdraw at once.
//
// # One engine for each neighbor
//
// Every neighbor has a GoBGP server of its own, whose local RIB is exactly what
// that neighbor should get. GoBGP could make differences by export policies in
// one server, but a change of policy and a change of routes are two steps there,
// with a wrong announcement between them, and one loop serves all sessions. Here
// a change is one step for a neighbor, no neighbor waits for another, and one
// that is reconfigured leaves the others alone.
//
// # Concurrency
//
// The methods of Speaker and Router may be called from any goroutine. Run may
// be called once; it joins everything it started, GoBGP's own loops included.
// Status, Routes and the Router's readers never wait for GoBGP.
//
// GoBGP keeps its best path options in package variables and writes them when
// a server starts. All servers of a process write the same values here, so
// several Speakers and Routers may share a process.
package bgp

import (
	"net/netip"
	"slices"
	"time"

	"anyedge/bgp/bfd"
	"anyedge/bgp/shield"
)

// State is the state of a session, in the words of RFC 4271 section 8.2.2.
type State = shield.State

// The states of a session.
const (
	Idle        = shield.Idle
	Connect     = shield.Connect
	Active      = shield.Active
	OpenSent    = shield.OpenSent
	OpenConfirm = shield.OpenConfirm
	Established = shield.Established
)

// Config describes a Speaker.
type Config struct {
	// ASN is the own autonomous system number, 1 to 4294967294.
	ASN uint32
	// RouterID is an IPv4 address that no other speaker of the own AS has (RFC
	// 6286).
	RouterID netip.Addr
	// HoldTime is offered to every neighbor that has none of its own; the
	// smaller offer wins. Whole seconds, 3s to 65535s. Default 9s.
	HoldTime time.Duration
	// Neighbors are the upstream routers, each address once.
	Neighbors []Neighbor
	// Farewell is what neighbors are told when Run ends (RFC 9003), at most 255
	// bytes. Default "anyedge: speaker stopped".
	Farewell string
	// Paths tells of paths to neighbors that fail. Nil: only the hold time and
	// the kernel tell.
	Paths PathWatcher `json:"-"`
}

// Neighbor is an upstream router, always of another autonomous system. The
// Speaker connects to it and carries IPv4 and IPv6 unicast over the one
// session, whatever the family of its address.
type Neighbor struct {
	// Address of the router. A link-local one needs its zone.
	Address netip.Addr
	// Port of the router. Default 179.
	Port uint16
	// ASN of the router. A session with another one is refused.
	ASN uint32
	// LocalAddress is the source of the session. Default: the kernel's choice.
	LocalAddress netip.Addr
	// Password is the TCP MD5 key (RFC 2385), at most 80 bytes. It is a
	// secret and appears in no log, error or Status.
	Password string
	// TTLSecurity sends with a TTL of 255 and requires it (RFC 5082).
	TTLSecurity bool
	// HoldTime as in Config. Default: that of the Config.
	HoldTime time.Duration
	// KeepaliveInterval is the pace of KEEPALIVEs if the neighbor accepts the
	// HoldTime; to a smaller one belongs a third of it. Whole seconds, at most a
	// third of HoldTime (RFC 4271 section 4.4). Default: a third of HoldTime.
	KeepaliveInterval time.Duration
}

// PathWatcher tells of changes of the path to a neighbor. A [bfd.Manager] is
// one.
type PathWatcher interface {
	// Watch calls f with each change until stop is called; when that returns, f
	// does not run. f does not block.
	Watch(neighbor netip.Addr, f func(bfd.Change)) (stop func())
}

// Path is a route as it is on the wire.
type Path struct {
	Prefix  netip.Prefix `json:"prefix"`
	NextHop netip.Addr   `json:"next_hop"`
	// Neighbor the path was learned from; zero for a path of our own.
	Neighbor netip.Addr `json:"neighbor,omitzero"`
	// ASPath starts with the AS nearest to the reader; sets are flattened.
	ASPath      []uint32    `json:"as_path"`
	MED         uint32      `json:"med"`
	Communities Communities `json:"communities"`

	LargeCommunities    LargeCommunities    `json:"large_communities,omitempty"`
	ExtendedCommunities ExtendedCommunities `json:"extended_communities,omitempty"`
}

// byPrefix orders paths by prefix.
func byPrefix(a, b Path) int { return a.Prefix.Compare(b.Prefix) }

func (p *Path) equal(q *Path) bool {
	return p.Prefix == q.Prefix && p.NextHop == q.NextHop && p.MED == q.MED &&
		slices.Equal(p.ASPath, q.ASPath) && slices.Equal(p.Communities, q.Communities) &&
		slices.Equal(p.LargeCommunities, q.LargeCommunities) &&
		slices.Equal(p.ExtendedCommunities, q.ExtendedCommunities)
}
