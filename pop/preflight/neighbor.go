package preflight

import (
	"net/netip"
	"slices"
)

// Neighbor is an upstream router of a node.
type Neighbor struct {
	Address netip.Addr
	// Own is what it gets of every prefix in normal service, in place of the
	// node's routes; nil if it gets those.
	Own *Own
}

// Own is a route that is for one neighbor.
type Own struct {
	Withheld bool `json:"withheld,omitempty"` // it gets none, and Attributes are zero
	Attributes
}

// String returns the route in words; that of nil is that of all neighbors.
func (o *Own) String() string {
	switch {
	case o == nil:
		return "as for all neighbors"
	case o.Withheld:
		return "withheld"
	}
	return o.Attributes.String()
}

func (o *Own) equal(p *Own) bool {
	if o == nil || p == nil {
		return o == p
	}
	return o.Withheld == p.Withheld && o.Attributes.Equal(p.Attributes)
}

// NeighborChange is one neighbor of one node.
type NeighborChange struct {
	Kind     Kind       `json:"kind"`
	Node     string     `json:"node"`
	Pop      string     `json:"pop"`
	Neighbor netip.Addr `json:"neighbor"`
	// From and To are what it gets that the node's other neighbors do not; nil if
	// that is nothing, or there is no such neighbor.
	From *Own `json:"from,omitempty"`
	To   *Own `json:"to,omitempty"`
}

// Restart is a node that has to be restarted to take its config.
type Restart struct {
	Node string   `json:"node"`
	Pop  string   `json:"pop"`
	Keys []string `json:"keys"` // for the change of these
}

// neighbors compares what each neighbor of a node gets, by address.
func (j *judgement) neighbors(p Plan) {
	before := j.now[p.Node].Neighbors
	if len(before) == 0 {
		return // all of it is new, or not known
	}
	var list []netip.Addr
	for _, n := range slices.Concat(before, p.Neighbors) {
		list = append(list, n.Address)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	for _, address := range slices.Compact(list) {
		is := func(n Neighbor) bool { return n.Address == address }
		i, k := slices.IndexFunc(before, is), slices.IndexFunc(p.Neighbors, is)
		c := NeighborChange{Node: p.Node, Pop: p.Pop, Neighbor: address}
		switch {
		case i < 0:
			c.Kind, c.To = Added, p.Neighbors[k].Own
		case k < 0:
			c.Kind, c.From = Removed, before[i].Own
		default:
			c.Kind, c.From, c.To = Changed, before[i].Own, p.Neighbors[k].Own
		}
		if c.Kind != Changed || !c.From.equal(c.To) {
			j.result.Neighbors = append(j.result.Neighbors, c)
		}
	}
}
