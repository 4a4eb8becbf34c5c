package pop

import (
	"net/netip"
	"strings"

	"anyedge/bgp"
	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/pop/preflight"
)

// Preflight judges a set of configs against the fleet's reports: see
// [preflight.Judge]. The paths in the configs are as they are written, since no
// node knows how another finds its files.
func Preflight(nodes []Reported, set []*configs.Pop, retire []netip.Prefix) preflight.Result {
	var plans []preflight.Plan
	for _, cfg := range set {
		p := planOf(cfg)
		for _, r := range nodes {
			if r.Node == cfg.Node.Name && len(r.Fixed) > 0 {
				p.Restart = configs.ChangedKeys(r.Fixed, configs.FixedKeys(cfg))
			}
		}
		plans = append(plans, p)
	}
	return preflight.Judge(announcers(nodes), plans, retire)
}

// announcers puts reports into preflight's terms.
func announcers(nodes []Reported) []preflight.Node {
	var list []preflight.Node
	for _, r := range nodes {
		n := preflight.Node{
			Name: r.Node, Pop: r.Pop, Fresh: r.Fresh, Omitted: r.PrefixesOmitted, Neighbors: compared(r.Neighbors),
			Serving: r.serving(),
		}
		for _, p := range r.Prefixes {
			n.Routes = append(n.Routes, preflight.Held{
				Route:     preflight.Route{Prefix: p.Prefix, Attributes: preflight.Attributes{MED: p.MED, Prepend: p.Prepend, Communities: p.Communities}},
				Announced: p.Announcement == fleet.Announced,
			})
		}
		list = append(list, n)
	}
	return list
}

// planOf returns what a config would announce.
func planOf(cfg *configs.Pop) preflight.Plan {
	p := preflight.Plan{Node: cfg.Node.Name, Pop: cfg.Node.Pop, MinPops: *cfg.Guard.MinPops}
	if cfg.BGP == nil {
		return p
	}
	all, own := normalService(cfg.BGP)
	for _, prefix := range cfg.BGP.Prefixes {
		p.Routes = append(p.Routes, preflight.Route{Prefix: prefix.Masked(), Attributes: all})
	}
	p.Neighbors = compared(own)
	return p
}

// compared puts neighbors into preflight's terms.
func compared(neighbors []fleet.Neighbor) []preflight.Neighbor {
	var list []preflight.Neighbor
	for _, n := range neighbors {
		one := preflight.Neighbor{Address: n.Address}
		if o := n.Own; o != nil {
			one.Own = &preflight.Own{Withheld: o.Withheld, Attributes: preflight.Attributes{MED: o.MED, Prepend: o.Prepend, Communities: o.Communities}}
		}
		list = append(list, one)
	}
	return list
}

// reportRoutes adds the prefixes and the neighbors of a config to a report.
func reportRoutes(r *fleet.Report, cfg *configs.BGP, a Announcement, ex exceptions) {
	if cfg == nil {
		return
	}
	all, own := normalService(cfg)
	n := min(len(cfg.Prefixes), fleet.MaxPrefixes)
	for _, prefix := range cfg.Prefixes[:n] {
		r.Prefixes = append(r.Prefixes, fleet.Prefix{
			Prefix: prefix.Masked(), Announcement: string(ex.of(prefix, a)), MED: all.MED, Prepend: all.Prepend, Communities: all.Communities,
		})
	}
	r.PrefixesOmitted = len(cfg.Prefixes) - n
	r.Neighbors = own
}

// normalService is what neighbors get of every prefix in normal service: all of
// them, and those for which it is something else. It is cut to what a report has
// room for, also where it is compared with one.
func normalService(cfg *configs.BGP) (all preflight.Attributes, neighbors []fleet.Neighbor) {
	table := actions(cfg)
	base := shaped(cfg, table, configs.StateAnnounce)
	all = attributesOf(base)
	for i := range cfg.Neighbors[:min(len(cfg.Neighbors), fleet.MaxNeighbors)] {
		n := &cfg.Neighbors[i]
		one := fleet.Neighbor{Address: n.Address}
		if names := n.Actions.In(configs.StateAnnounce); len(names) > 0 {
			one.Own = ownRoute(apply(table, base, names))
		}
		neighbors = append(neighbors, one)
	}
	return all, neighbors
}

func ownRoute(a bgp.Announcement) *fleet.NeighborRoute {
	if a.Withheld != "" {
		return &fleet.NeighborRoute{Withheld: true}
	}
	own := attributesOf(a)
	return &fleet.NeighborRoute{MED: own.MED, Prepend: own.Prepend, Communities: own.Communities}
}

func attributesOf(a bgp.Announcement) preflight.Attributes {
	texts := strings.Fields(a.Communities.String())
	for _, c := range a.LargeCommunities {
		texts = append(texts, c.String())
	}
	for _, c := range a.ExtendedCommunities {
		texts = append(texts, c.String())
	}
	return preflight.Attributes{MED: a.MED, Prepend: a.Prepend, Communities: texts[:min(len(texts), fleet.MaxCommunities)]}
}
