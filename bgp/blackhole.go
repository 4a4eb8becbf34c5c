package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// maxBlackholes bounds what an operator can ask upstreams to discard at once.
const maxBlackholes = 128

// BlackholeRoute asks upstreams to discard all traffic to one address (RFC
// 7999), so that an attack on it does not take the rest of its prefix down. The
// host route has the communities BLACKHOLE and NO_EXPORT, and the next hop of
// the announcement around it.
type BlackholeRoute struct {
	// Address within a prefix that is announced.
	Address netip.Addr `json:"address"`
	// Communities and LargeCommunities that an upstream wants to see besides
	// BLACKHOLE.
	Communities      Communities      `json:"communities,omitempty"`
	LargeCommunities LargeCommunities `json:"large_communities,omitempty"`
	// Neighbors is whom to ask. Default: all of them.
	Neighbors []netip.Addr `json:"neighbors,omitempty"`
}

// prefix is the host route's.
func (b *BlackholeRoute) prefix() netip.Prefix {
	return netip.PrefixFrom(b.Address, b.Address.BitLen())
}

// normalizeBlackholes checks a set of blackholes against the announcements and
// returns it in its canonical form.
func normalizeBlackholes(set []BlackholeRoute, announcements []Announcement) ([]BlackholeRoute, error) {
	set = slices.Clone(set)
	var errs []error
	fail := func(i int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("blackholes[%d]: %w", i, fmt.Errorf(format, args...)))
	}
	if len(set) > maxBlackholes {
		errs = append(errs, fmt.Errorf("blackholes: %d are more than %d", len(set), maxBlackholes))
	}
	seen := make(map[netip.Addr]bool)
	for i := range set {
		b := &set[i]
		b.Address = b.Address.Unmap()
		b.Communities = canonical(append(slices.Clone(b.Communities), Blackhole, NoExport), cmp.Compare)
		b.LargeCommunities = canonical(b.LargeCommunities, LargeCommunity.compare)
		var err error
		if b.Neighbors, err = normalizeNames(b.Neighbors); err != nil {
			fail(i, "%w", err)
		}
		switch {
		case !b.Address.IsValid() || b.Address.Zone() != "":
			fail(i, "%v is not a usable address", b.Address)
		case !slices.ContainsFunc(announcements, func(a Announcement) bool { return covers(a.Prefix, b.Address) }):
			fail(i, "%v is not within an announced prefix", b.Address)
		case slices.ContainsFunc(announcements, func(a Announcement) bool { return a.Prefix == b.prefix() }):
			fail(i, "%v is announced itself: withdraw it instead", b.Address)
		case seen[b.Address]:
			fail(i, "%v is listed twice", b.Address)
		case max(len(b.Communities), len(b.LargeCommunities)) > maxCommunities:
			fail(i, "%v has more than %d communities", b.Address, maxCommunities)
		}
		seen[b.Address] = true
	}
	return set, errors.Join(errs...)
}

// covers reports whether an address is one of several in a prefix.
func covers(p netip.Prefix, a netip.Addr) bool { return p.Contains(a) && !p.IsSingleIP() }

// addBlackholes adds the host routes that are for a neighbor to its view. One
// without an announced prefix around it is withheld.
func (v view) addBlackholes(set []BlackholeRoute, neighbor netip.Addr) {
	for i := range set {
		b := &set[i]
		if len(b.Neighbors) > 0 && !slices.Contains(b.Neighbors, neighbor) {
			continue
		}
		route := Announcement{
			Prefix:           b.prefix(),
			Communities:      b.Communities,
			LargeCommunities: b.LargeCommunities,
			Withheld:         "no announced prefix around it",
			blackhole:        true,
		}
		bits := -1
		for prefix, a := range v {
			if covers(prefix, b.Address) && prefix.Bits() > bits && !a.blackhole && a.Withheld == "" {
				bits, route.NextHop, route.Withheld = prefix.Bits(), a.NextHop, ""
			}
		}
		if _, taken := v[route.Prefix]; !taken {
			v[route.Prefix] = route
		}
	}
}
