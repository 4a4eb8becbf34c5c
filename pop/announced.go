package pop

import (
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/pop/preflight"
)

// Fleet is what GET /v1/fleet shows: every node's report as this node has it.
type Fleet struct {
	Connected bool       `json:"connected"`
	Nodes     []Reported `json:"nodes"` // by name
}

// Reported is a node's report.
type Reported struct {
	fleet.Report
	// Fresh is true while the report counts: see [fleet.View.Fresh].
	Fresh bool `json:"fresh"`
}

// Fleet returns what this node knows of the fleet's nodes.
func (a *Agent) Fleet() Fleet {
	view, now := a.fleet.View(), time.Now()
	f := Fleet{Connected: view.Connected, Nodes: []Reported{}}
	for _, s := range view.Reports {
		f.Nodes = append(f.Nodes, Reported{s.Report, view.Fresh(s, now, a.started.Fleet.ReportTTL.Std())})
	}
	return f
}

// Announcers puts reports into preflight's terms.
func Announcers(nodes []Reported) []preflight.Node {
	var list []preflight.Node
	for _, r := range nodes {
		n := preflight.Node{
			Name: r.Node, Pop: r.Pop, Fresh: r.Fresh, Omitted: r.PrefixesOmitted,
			Serving: r.State == fleet.StateHealthy && r.Announcement == fleet.Announced && !r.Draining,
		}
		for _, p := range r.Prefixes {
			n.Routes = append(n.Routes, preflight.Held{
				Route:     preflight.Route{Prefix: p.Prefix, MED: p.MED, Prepend: p.Prepend, Communities: p.Communities},
				Announced: p.Announcement == fleet.Announced,
			})
		}
		list = append(list, n)
	}
	return list
}

// PlanOf returns what a config would announce.
func PlanOf(cfg *configs.Pop) preflight.Plan {
	p := preflight.Plan{Node: cfg.Node.Name, Pop: cfg.Node.Pop, MinPops: *cfg.Guard.MinPops}
	if cfg.BGP == nil {
		return p
	}
	for _, prefix := range cfg.BGP.Prefixes {
		s := normalShape(cfg.BGP)
		p.Routes = append(p.Routes, preflight.Route{Prefix: prefix.Masked(), MED: s.MED, Prepend: s.Prepend, Communities: s.Communities})
	}
	return p
}

// reportedPrefixes are the prefixes of a report, and how many more there are.
func reportedPrefixes(cfg *configs.BGP, a Announcement, ex exceptions) (list []fleet.Prefix, omitted int) {
	if cfg == nil {
		return nil, 0
	}
	s := normalShape(cfg)
	n := min(len(cfg.Prefixes), fleet.MaxPrefixes)
	for _, prefix := range cfg.Prefixes[:n] {
		list = append(list, fleet.Prefix{
			Prefix: prefix.Masked(), Announcement: string(ex.of(prefix, a)), MED: s.MED, Prepend: s.Prepend,
			Communities: s.Communities[:min(len(s.Communities), fleet.MaxCommunities)],
		})
	}
	return list, len(cfg.Prefixes) - n
}
