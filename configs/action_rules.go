package configs

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// communityLists are the three kinds of communities of a shape or an action.
type communityLists struct{ standard, large, extended []string }

// checkActions applies the rules of the table of actions and of those who use it.
func (b *BGP) checkActions(d *document) {
	const root = at("bgp")
	table := root.key("actions")
	d.unique(len(b.Actions), func(i int) (at, string) { return table.index(i).key("name"), b.Actions[i].Name })
	for i, a := range b.Actions {
		path := table.index(i)
		d.checkCommunities(path, communityLists{a.Communities, a.LargeCommunities, a.ExtendedCommunities})
		changes := a.Prepend != 0 || a.MED != nil || len(a.Communities)+len(a.LargeCommunities)+len(a.ExtendedCommunities) > 0
		switch {
		case d.lostWithin(path):
		case a.Withhold && changes:
			d.report(path.key("withhold"), "leaves no route that the other keys could change")
		case !a.Withhold && !changes:
			d.report(path, "changes nothing: give prepend, med, communities or withhold")
		}
	}
	names := sortedNames(b.Actions, func(a Action) string { return a.Name })
	refer := func(path at, list []string) {
		d.unique(len(list), func(i int) (at, string) { return path.index(i), list[i] })
		for i, name := range list {
			d.refer(path.index(i), name, names, table, "action")
		}
	}
	for _, state := range RouteStates() {
		if state == StateDrain && b.Drain == nil {
			continue // that of deprefer
		}
		s, path := b.Shape(state), root.key(state)
		d.checkCommunities(path, communityLists{s.Communities, s.LargeCommunities, s.ExtendedCommunities})
		refer(path.key("actions"), s.Actions)
	}
	for i := range b.Neighbors {
		a, path := &b.Neighbors[i].Actions, root.key("neighbors").index(i).key("actions")
		refer(path.key(StateAnnounce), a.Announce)
		refer(path.key(StateDeprefer), a.Deprefer)
		refer(path.key(StateDrain), a.Drain)
	}
	for _, state := range RouteStates() {
		b.checkSomebodyGets(d, state)
	}
}

// checkSomebodyGets reports actions that together keep the routes from every
// neighbor. That is a withdrawal, for which the guard is to be asked.
func (b *BGP) checkSomebodyGets(d *document, state string) {
	if len(b.Neighbors) == 0 || d.lostWithin("bgp.actions") {
		return
	}
	own := func(n Neighbor) bool { return n.Actions.Drain != nil }
	if state == StateDrain && b.Drain == nil && !slices.ContainsFunc(b.Neighbors, own) {
		return // all as in deprefer
	}
	withholds := func(names []string) bool {
		return slices.ContainsFunc(b.Actions, func(a Action) bool { return a.Withhold && slices.Contains(names, a.Name) })
	}
	path := at("bgp").key(state).key("actions")
	if withholds(b.Shape(state).Actions) {
		if state == StateDrain && b.Drain == nil {
			return // said of deprefer
		}
	} else {
		path = at("bgp").key("neighbors").index(0).key("actions").key(state)
		if slices.ContainsFunc(b.Neighbors, func(n Neighbor) bool { return !withholds(n.Actions.In(state)) }) {
			return
		}
	}
	d.report(path, "the route would be withheld from every neighbor: that is a withdrawal, which only the guard permits")
}

// checkCommunities checks the communities of what is at path.
func (d *document) checkCommunities(path at, lists communityLists) {
	for _, kind := range []struct {
		key   string
		list  []string
		valid func(string) bool
		want  string
	}{
		{"communities", lists.standard, isCommunity, "asn:value with numbers up to 65535, nor graceful-shutdown, no-export or no-advertise"},
		{"large_communities", lists.large, isLargeCommunity, "asn:data:data with numbers up to 4294967295"},
		{"extended_communities", lists.extended, isExtendedCommunity, "rt:asn:value, ro:asn:value or 0x and sixteen hexadecimal digits"},
	} {
		path := path.key(kind.key)
		d.unique(len(kind.list), func(i int) (at, string) { return path.index(i), kind.list[i] })
		for i, c := range kind.list {
			switch {
			case isBlackhole(c):
				d.report(path.index(i), "%s would have upstreams discard the clients' traffic (RFC 7999)", quote(c))
			case !kind.valid(c):
				d.report(path.index(i), "%s is not %s", quote(c), kind.want)
			}
		}
	}
}

// isBlackhole reports whether s is the community BLACKHOLE.
func isBlackhole(s string) bool { return s == "blackhole" || s == "65535:666" }

// isLargeCommunity reports whether s is "asn:data:data" in the one spelling that
// RFC 8092 section 4 has.
func isLargeCommunity(s string) bool {
	parts := strings.Split(s, ":")
	return len(parts) == 3 && !slices.ContainsFunc(parts, func(p string) bool { return !isNumber(p, 32) })
}

// isExtendedCommunity reports whether s is a route target, a route origin or
// the eight octets of an extended community (RFC 4360).
func isExtendedCommunity(s string) bool {
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		_, err := strconv.ParseUint(digits, 16, 64)
		return err == nil && len(digits) == 16
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 || parts[0] != "rt" && parts[0] != "ro" {
		return false
	}
	if ip, err := netip.ParseAddr(parts[1]); err == nil {
		return ip.Is4() && isNumber(parts[2], 16)
	}
	return isNumber(parts[1], 16) && isNumber(parts[2], 32) || isNumber(parts[1], 32) && isNumber(parts[2], 16)
}

// isNumber reports whether s is an unsigned number of so many bits.
func isNumber(s string, bits int) bool {
	n, err := strconv.ParseUint(s, 10, bits)
	return err == nil && s == fmt.Sprint(n)
}
