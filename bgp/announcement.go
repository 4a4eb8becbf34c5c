package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

const maxPrepend = 16

// Announcement is one route as it should be announced.
//
// An announcement that names no neighbor is for all of them, except those that
// another announcement of the same prefix names.
type Announcement struct {
	// Prefix without host bits.
	Prefix netip.Prefix `json:"prefix"`
	// NextHop is where neighbors forward to. It is always sent as given, also
	// when it is not the session's own address. An IPv4 prefix may have an IPv6
	// next hop; a neighbor that has not agreed to that (RFC 8950) gets no route
	// then.
	NextHop netip.Addr `json:"next_hop"`
	// MED is the multi-exit discriminator; lower is preferred. It is always
	// sent, for routers disagree about what a missing one means.
	MED uint32 `json:"med"`
	// Prepend repeats the own ASN this many more times, 0 to 16.
	Prepend int `json:"prepend"`
	// Communities of the three kinds; order and repetitions do not matter.
	// BLACKHOLE is refused: see [Speaker.SetBlackholes].
	Communities         Communities         `json:"communities"`
	LargeCommunities    LargeCommunities    `json:"large_communities,omitempty"`
	ExtendedCommunities ExtendedCommunities `json:"extended_communities,omitempty"`
	// Neighbors is whom this announcement is for; none: see above. A neighbor
	// that is not configured may be named.
	Neighbors []netip.Addr `json:"neighbors,omitempty"`
	// Withheld, if not empty, is why the prefix is not announced now. Unlike a
	// prefix that is left out of the set, a withheld one stays visible in
	// [Speaker.Routes], with this reason.
	Withheld string `json:"withheld,omitempty"`

	blackhole bool // made from a Blackhole
}

// CheckAnnouncements reports everything that is wrong with a set, as Set would.
func CheckAnnouncements(set []Announcement) error {
	_, err := normalizeSet(set)
	return err
}

// normalizeSet checks a set of announcements and returns it in its canonical
// form and order.
func normalizeSet(set []Announcement) ([]Announcement, error) {
	set = slices.Clone(set)
	type recipient struct {
		prefix   netip.Prefix
		neighbor netip.Addr // zero: all
	}
	seen := make(map[recipient]bool)
	var errs []error
	for i := range set {
		a := &set[i]
		if err := a.normalize(); err != nil {
			errs = append(errs, fmt.Errorf("announcements[%d]: %w", i, err))
			continue
		}
		for _, n := range a.Neighbors {
			if seen[recipient{a.Prefix, n}] {
				errs = append(errs, fmt.Errorf("announcements[%d]: %v is listed twice for %v", i, a.Prefix, n))
			}
			seen[recipient{a.Prefix, n}] = true
		}
		if all := (recipient{prefix: a.Prefix}); len(a.Neighbors) == 0 {
			if seen[all] {
				errs = append(errs, fmt.Errorf("announcements[%d]: %v is listed twice", i, a.Prefix))
			}
			seen[all] = true
		}
	}
	slices.SortFunc(set, func(a, b Announcement) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), slices.CompareFunc(a.Neighbors, b.Neighbors, netip.Addr.Compare))
	})
	return set, errors.Join(errs...)
}

func (a *Announcement) normalize() error {
	var err error
	if a.Neighbors, err = normalizeNames(a.Neighbors); err != nil {
		return fmt.Errorf("%v: %w", a.Prefix, err)
	}
	a.NextHop = a.NextHop.Unmap()
	a.Communities = canonical(a.Communities, cmp.Compare)
	a.LargeCommunities = canonical(a.LargeCommunities, LargeCommunity.compare)
	a.ExtendedCommunities = canonical(a.ExtendedCommunities, cmp.Compare)
	a.blackhole = false
	switch {
	case !a.Prefix.IsValid() || a.Prefix != a.Prefix.Masked() || a.Prefix.Addr().Is4In6():
		return fmt.Errorf("%v is not a prefix without host bits", a.Prefix)
	case !a.NextHop.IsValid() || a.NextHop.IsUnspecified() || a.NextHop.IsMulticast() || a.NextHop.Zone() != "":
		return fmt.Errorf("%v: next hop %v is not a usable address", a.Prefix, a.NextHop)
	case a.NextHop.Is4() && a.Prefix.Addr().Is6():
		return fmt.Errorf("%v: next hop %v is of the other family", a.Prefix, a.NextHop)
	case a.Prepend < 0 || a.Prepend > maxPrepend:
		return fmt.Errorf("%v: prepend %d is not within 0 to %d", a.Prefix, a.Prepend, maxPrepend)
	}
	if err := checkCommunities(a.Communities, a.LargeCommunities, a.ExtendedCommunities); err != nil {
		return fmt.Errorf("%v: %w", a.Prefix, err)
	}
	return nil
}

// normalizeNames brings the addresses of neighbors into their canonical form.
func normalizeNames(names []netip.Addr) ([]netip.Addr, error) {
	names = slices.Clone(names)
	for i, n := range names {
		if !n.IsValid() {
			return nil, fmt.Errorf("neighbors[%d] is not an address", i)
		}
		names[i] = n.Unmap()
	}
	return canonical(names, netip.Addr.Compare), nil
}

// canonical is a sorted copy of s without repetitions.
func canonical[S ~[]E, E comparable](s S, compare func(a, b E) int) S {
	s = slices.Clone(s)
	slices.SortFunc(s, compare)
	return slices.Compact(s)
}

// path is a as a neighbor sees it.
func (a *Announcement) path(asn uint32) Path {
	return Path{
		Prefix:      a.Prefix,
		NextHop:     a.NextHop,
		ASPath:      slices.Repeat([]uint32{asn}, a.Prepend+1),
		MED:         a.MED,
		Communities: a.Communities,

		LargeCommunities:    a.LargeCommunities,
		ExtendedCommunities: a.ExtendedCommunities,
	}
}

// sameRoute reports whether a neighbor sees no difference between a and b.
func (a *Announcement) sameRoute(b *Announcement) bool {
	p, q := a.path(0), b.path(0)
	return p.equal(&q)
}

func (a *Announcement) equal(b *Announcement) bool {
	return a.sameRoute(b) && a.Withheld == b.Withheld && a.blackhole == b.blackhole &&
		slices.Equal(a.Neighbors, b.Neighbors)
}

// view is what one neighbor should get, by prefix. It holds what is withheld,
// too. A view is never changed.
type view map[netip.Prefix]Announcement

// viewOf picks from a normalized set what is for a neighbor.
func viewOf(set []Announcement, neighbor netip.Addr) view {
	v := make(view)
	for _, a := range set {
		_, taken := v[a.Prefix]
		if slices.Contains(a.Neighbors, neighbor) || len(a.Neighbors) == 0 && !taken {
			v[a.Prefix] = a
		}
	}
	return v
}
