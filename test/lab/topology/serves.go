package topology

import (
	"net/netip"
	"slices"
)

// Serves names the PoP that a client reaches while some PoPs do not announce, or
// "" when none is left: the one with the shortest AS path, and of equal ones the
// one behind the neighbor with the lowest router ID, as every core decides for
// itself.
func (p *Plan) Serves(client string, out ...string) string {
	core := ""
	for _, c := range p.Clients {
		if c.Name == client {
			core = c.Core
		}
	}
	reached := make(map[string]string) // core to PoP
	for {
		// One more AS on the path in every round.
		next := make(map[string]string)
		for _, c := range p.Cores {
			if _, done := reached[c.Name]; !done {
				if pop := p.choose(c.Name, reached, out); pop != "" {
					next[c.Name] = pop
				}
			}
		}
		if len(next) == 0 {
			return reached[core]
		}
		for c, pop := range next {
			reached[c] = pop
		}
	}
}

// choose is the PoP behind the best of a core's neighbors that have a path.
func (p *Plan) choose(core string, reached map[string]string, out []string) string {
	var best netip.Addr
	var pop string
	for _, s := range p.Machine(core).Sessions {
		peer, found := p.Machine(s.Peer), ""
		switch {
		case peer.Role == CoreRouter:
			found = reached[peer.Name]
		case !slices.Contains(out, peer.Pop):
			found = peer.Pop
		}
		if found != "" && (pop == "" || peer.RouterID.Less(best)) {
			best, pop = peer.RouterID, found
		}
	}
	return pop
}
