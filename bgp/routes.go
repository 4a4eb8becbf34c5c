package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// RouteReason is why a neighbor has a route, or has none.
type RouteReason string

// The reasons of a Route.
const (
	// RouteAnnounced: it was sent as it should be.
	RouteAnnounced RouteReason = "announced"
	// RoutePending: an UPDATE is due. That takes milliseconds.
	RoutePending RouteReason = "pending"
	// RouteSessionDown: there is no Established session.
	RouteSessionDown RouteReason = "session_down"
	// RouteShutdown: an administrator has shut the session down.
	RouteShutdown RouteReason = "shutdown"
	// RouteWithheld: it should not be announced now; see Detail.
	RouteWithheld RouteReason = "withheld"
	// RouteOtherNeighbors: the prefix is announced to other neighbors only.
	RouteOtherNeighbors RouteReason = "other_neighbors"
	// RouteFamily: the neighbor does not take the address family.
	RouteFamily RouteReason = "family_not_negotiated"
	// RouteNextHop: the neighbor takes no IPv6 next hop for an IPv4 prefix (RFC
	// 8950).
	RouteNextHop RouteReason = "next_hop_not_negotiated"
	// RouteFailed: the engine refuses it; it is tried again.
	RouteFailed RouteReason = "apply_failed"
)

// Route is one prefix towards one neighbor.
type Route struct {
	Prefix   netip.Prefix `json:"prefix"`
	Neighbor netip.Addr   `json:"neighbor"`
	// Blackhole is set for what SetBlackholes asked for.
	Blackhole bool `json:"blackhole,omitempty"`
	// Desired is what should be announced, whatever there is in the way; nil:
	// nothing should.
	Desired *Path `json:"desired"`
	// Announced is what was sent in this session and not withdrawn; nil:
	// nothing. It does not say that the neighbor has accepted it.
	Announced *Path `json:"announced"`
	// Reason explains the difference between the two.
	Reason RouteReason `json:"reason"`
	// Detail says more for people to read.
	Detail string `json:"detail,omitempty"`
	// Since is when Announced was sent, or since when the session is down.
	Since time.Time `json:"since,omitzero"`
}

// Routes returns every prefix of the desired set, and what else is announced,
// for every neighbor: by prefix, then in the order of the neighbors. It copies
// what the Speaker keeps anyway and never waits for GoBGP.
func (s *Speaker) Routes() []Route {
	s.mu.Lock()
	neighbors := slices.Clone(s.neighbors)
	prefixes := make(map[netip.Prefix]bool)
	for _, a := range s.desired {
		prefixes[a.Prefix] = true
	}
	for i := range s.blackholes {
		prefixes[s.blackholes[i].prefix()] = true
	}
	s.mu.Unlock()
	routes := []Route{}
	for _, n := range neighbors {
		routes = append(routes, n.routes(prefixes)...)
	}
	slices.SortStableFunc(routes, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return routes
}

// routes is what a neighbor has to say about some prefixes, and those that it
// was sent.
func (n *neighbor) routes(prefixes map[netip.Prefix]bool) []Route {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]Route, 0, len(prefixes))
	for prefix := range prefixes {
		all = append(all, n.route(prefix))
	}
	for prefix := range n.rib {
		if !prefixes[prefix] {
			all = append(all, n.route(prefix))
		}
	}
	return all
}

// route tells about one prefix. The caller holds n.mu.
func (n *neighbor) route(prefix netip.Prefix) Route {
	r := Route{Prefix: prefix, Neighbor: n.cfg.Address, Reason: RouteAnnounced}
	if sent, ok := n.rib[prefix]; ok {
		r.Announced, r.Since = &sent.Path, sent.at
	}
	a, wanted := n.want[prefix]
	r.Blackhole = a.blackhole
	if wanted && a.Withheld == "" {
		path := a.path(n.asn)
		r.Desired = &path
	}
	switch why := n.obstacleNow(&a, wanted); {
	case why == RouteWithheld, why == RouteOtherNeighbors:
		r.Reason, r.Detail = why, a.Withheld
	case why != "":
		r.Reason = why
	case r.Announced == nil || !r.Announced.equal(r.Desired):
		r.Reason = RoutePending
	}
	switch r.Reason {
	case RouteShutdown:
		r.Detail, r.Since = *n.shutdown, n.since
	case RouteSessionDown:
		r.Detail, r.Since = n.state.String(), n.since
		if n.lastErr != "" {
			r.Detail = fmt.Sprintf("%s: %s", n.state, n.lastErr)
		}
	case RouteFailed:
		r.Detail = n.applyError
	case RouteWithheld, RouteOtherNeighbors, RouteFamily, RouteNextHop:
		if r.Announced != nil {
			r.Detail = cmp.Or(r.Detail, string(r.Reason))
			r.Reason = RoutePending
		}
	}
	return r
}

// obstacleNow is what keeps a route from the neighbor, or empty. What should
// not be announced at all comes first.
func (n *neighbor) obstacleNow(a *Announcement, wanted bool) RouteReason {
	switch {
	case !wanted:
		return RouteOtherNeighbors
	case a.Withheld != "":
		return RouteWithheld
	case n.shutdown != nil:
		return RouteShutdown
	case n.state != Established:
		return RouteSessionDown
	}
	if why := obstacle(a, n.open); why != "" {
		return why
	}
	if _, local := n.local[a.Prefix]; !local && n.applyError != "" {
		return RouteFailed
	}
	return ""
}
