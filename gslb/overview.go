package gslb

import "time"

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
