package pop

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"

	"anyedge/bgp"
	"anyedge/configs"
)

// withheldWithdrawn is why a prefix is not announced while the node is
// withdrawn, for those who look at the routes.
const withheldWithdrawn = "withdrawn"

// announcements returns the routes for an announcement, but for exceptions: those
// that are withdrawn stay in the set and are withheld. Draining says that a
// de-preferred route is on its way out by an operator's hand; the exceptions are
// that, too.
func announcements(cfg *configs.BGP, a Announcement, ex exceptions, draining bool) []bgp.Announcement {
	return routesIn(cfg, func(p netip.Prefix) string {
		switch own := ex.of(p, a); {
		case own == Withdrawn:
			return ""
		case own == Depreferred && (draining || own != a):
			return configs.StateDrain
		case own == Depreferred:
			return configs.StateDeprefer
		}
		return configs.StateAnnounce
	})
}

// routesIn returns the routes of prefixes in the given states, of which "" is
// withdrawn. Each names the neighbors that it is for: a neighbor that is new
// gets nothing that was meant for the others.
func routesIn(cfg *configs.BGP, state func(netip.Prefix) string) []bgp.Announcement {
	table := actions(cfg)
	var routes []bgp.Announcement
	for _, p := range slices.SortedFunc(slices.Values(cfg.Prefixes), netip.Prefix.Compare) {
		s, withheld := state(p), ""
		if s == "" {
			s, withheld = configs.StateAnnounce, withheldWithdrawn
		}
		base := shaped(cfg, table, s)
		base.Prefix, base.NextHop, base.Withheld = p, cfg.NextHop.IPv4, cmp.Or(withheld, base.Withheld)
		if p.Addr().Is6() {
			base.NextHop = cfg.NextHop.IPv6
		}
		var groups []bgp.Announcement // alike but for their neighbors
		for i := range cfg.Neighbors {
			n := &cfg.Neighbors[i]
			one := apply(table, base, n.Actions.In(s))
			k := slices.IndexFunc(groups, func(g bgp.Announcement) bool {
				g.Neighbors = nil
				return reflect.DeepEqual(g, one)
			})
			if k < 0 {
				groups, k = append(groups, one), len(groups)
			}
			groups[k].Neighbors = append(groups[k].Neighbors, n.Address)
		}
		routes = append(routes, groups...)
	}
	return routes
}

// shaped is what all neighbors get of any prefix in a state, but for the actions
// of a neighbor.
func shaped(cfg *configs.BGP, table bgp.Actions, state string) bgp.Announcement {
	shape := cfg.Shape(state)
	base := bgp.Announcement{MED: shape.MED, Prepend: shape.Prepend}
	base.Communities, base.LargeCommunities, base.ExtendedCommunities =
		communities(shape.Communities, shape.LargeCommunities, shape.ExtendedCommunities)
	return apply(table, base, shape.Actions)
}

// apply applies actions of a config that was validated: every name is in the table.
func apply(table bgp.Actions, a bgp.Announcement, names []string) bgp.Announcement {
	a, err := table.Apply(a, names...)
	if err != nil {
		panic(err)
	}
	return a
}

// actions is a config's table in the speaker's terms.
func actions(cfg *configs.BGP) bgp.Actions {
	table := make(bgp.Actions, len(cfg.Actions))
	for _, a := range cfg.Actions {
		action := bgp.Action{Prepend: a.Prepend, MED: a.MED, Withhold: a.Withhold}
		action.Communities, action.LargeCommunities, action.ExtendedCommunities =
			communities(a.Communities, a.LargeCommunities, a.ExtendedCommunities)
		table[a.Name] = action
	}
	return table
}

// communities parses the communities of a config, which was validated against
// the same syntax.
func communities(standard, large, extended []string) (bgp.Communities, bgp.LargeCommunities, bgp.ExtendedCommunities) {
	return parsed(standard, bgp.ParseCommunity), parsed(large, bgp.ParseLargeCommunity), parsed(extended, bgp.ParseExtendedCommunity)
}

func parsed[C any](texts []string, parse func(string) (C, error)) []C {
	all := make([]C, 0, len(texts))
	for _, text := range texts {
		c, err := parse(text)
		if err != nil {
			panic(err)
		}
		all = append(all, c)
	}
	return all
}
