package gslb

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Overview is how a node is doing.
type Overview struct {
	Node   string       `json:"node"`
	DNS    Status       `json:"dns"`
	Config ConfigStatus `json:"config"`
	// FleetConnected says that the fleet store answers, FleetSince since when it
	// does or does not.
	FleetConnected bool      `json:"fleet_connected"`
	FleetSince     time.Time `json:"fleet_since"`
	// FleetRejected are keys of the store whose value is not valid; the last good
	// one stays.
	FleetRejected []string `json:"fleet_rejected,omitempty"`
}

// Overview returns how the node is doing.
func (n *Node) Overview() Overview {
	view := n.fleet.View()
	o := Overview{
		Node: n.config().Node.Name, DNS: n.Status(), Config: n.Config(),
		FleetConnected: view.Connected, FleetSince: view.LostSince, FleetRejected: view.Rejected,
	}
	if view.Connected {
		o.FleetSince = view.ConnectedSince
	}
	return o
}

// Ready returns a channel that is closed when Run listens on every address.
func (n *Node) Ready() <-chan struct{} { return n.server.Ready() }

// NameStatus is how a name is steered.
type NameStatus struct {
	Name   string `json:"name"`
	Policy string `json:"policy"`
	TTL    int    `json:"ttl_seconds"`
	// Answers are the PoPs that it can be answered with, in the order of the config.
	Answers []NameAnswer `json:"answers"`
	// AliasOf is the name whose addresses it has, for the apex of a zone with an
	// alias; the rest is then that name's, or empty if that is not steered.
	AliasOf string `json:"alias_of,omitempty"`
}

// NameAnswer is one of the answers of a name.
type NameAnswer struct {
	Pop    string `json:"pop"`
	Weight int    `json:"weight"`
}

// Names returns how the names of the config are steered, in order.
func (n *Node) Names() []NameStatus {
	cfg := n.config()
	names := []NameStatus{}
	for _, c := range steerNames(cfg) {
		each := NameStatus{Name: canonical(c.Name), Policy: c.Policy.String(), TTL: int(c.TTL / time.Second)}
		for _, a := range c.Answers {
			each.Answers = append(each.Answers, NameAnswer{a.Pop, a.Weight})
		}
		names = append(names, each)
	}
	for _, z := range cfg.Zones {
		if z.Alias == "" {
			continue
		}
		apex := NameStatus{Answers: []NameAnswer{}}
		if i := slices.IndexFunc(names, func(s NameStatus) bool { return s.Name == canonical(z.Alias) }); i >= 0 {
			apex = names[i]
		}
		apex.Name, apex.AliasOf = canonical(z.Name), canonical(z.Alias)
		names = append(names, apex)
	}
	slices.SortFunc(names, func(a, b NameStatus) int { return strings.Compare(a.Name, b.Name) })
	return names
}

// steered returns the steered name that decides for a name: itself, the wildcard that
// stands for it, or where its aliases lead; "" if none does.
func (s *Server) steered(text string) string {
	v := s.view.Load()
	for range maxChain {
		n, err := parseName(text)
		if err != nil {
			return ""
		}
		z := v.zoneOf(n)
		if z == nil || z.unavailable {
			return ""
		}
		m := z.find(n, v.over, false)
		if m.outcome != found {
			return ""
		}
		alias := m.node.get(dns.TypeCNAME)
		if alias == nil {
			return v.over[m.owner]
		}
		text = alias[0].(*dns.CNAME).Target
	}
	return ""
}
