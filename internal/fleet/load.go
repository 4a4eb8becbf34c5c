package fleet

// Resources of [Usage] that [Report.Load] knows.
const (
	ResourceConnections = "connections" // open client connections
	ResourceCPU         = "cpu"         // processors
)

const (
	// busyAt is the share of the processors from which their use says how many
	// more connections they could serve; below, what is always used tells most.
	busyAt = 0.2
	// fullAt is likewise for what a node uses much of without any client, such as
	// memory.
	fullAt = 0.7
)

// Load is what the node carries, and what it could carry, in one unit: open client
// connections. The ceiling is that of connections, or fewer: as many as would
// bring the node's fullest resource to its ceiling, if each needed as much as
// those that are open. So connections over ceiling is how full the node is. A
// ceiling of 0 is one that is not known.
//
// A client network's demand is its share of the connections and requests at a PoP,
// which its nodes' [RTT] tell, times the connections of those nodes.
func (r *Report) Load() (connections, ceiling float64) {
	for _, u := range r.Usage {
		if u.Resource == ResourceConnections {
			connections, ceiling = u.Used, u.Ceiling
		}
	}
	for _, u := range r.Usage {
		from := fullAt
		if u.Resource == ResourceCPU {
			from = busyAt
		}
		if u.Ceiling > 0 && connections > 0 && u.Used >= from*u.Ceiling {
			ceiling = min(ceiling, connections*u.Ceiling/u.Used)
		}
	}
	return connections, ceiling
}
