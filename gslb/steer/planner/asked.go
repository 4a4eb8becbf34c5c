package planner

import (
	"net/netip"
	"slices"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/cidr"
)

// unseen bounds what queries alone may claim of a PoP that measures, as a share of
// what is measured there: anybody can ask, from any network.
const unseen = 0.25

// asked is what measurements and queries say of whom a PoP serves.
type asked struct {
	// weights and works are the sums of measurements for each PoP.
	weights, works []float64
	// networks are those with a part in the plan, sorted: the measured ones, and
	// those that only queries tell of, which are in added.
	networks, added []netip.Prefix
	// claims are the queries that have a part, and asks their sum for each PoP.
	claims rtt.QueryTable
	asks   []float64
	// scale is how much work a query stands for, 0 if nothing is known to tell.
	scale float64
}

// measured returns those of networks that are measured, of a's with their rows.
func (a *asked) measured(networks []steer.Measured) []steer.Measured {
	if len(a.added) == 0 {
		return networks
	}
	measured := make([]steer.Measured, 0, len(networks)-len(a.added))
	added := a.added
	for _, m := range networks {
		if len(added) > 0 && m.Prefix == cidr.From(added[0]) {
			added = added[1:]
			continue
		}
		measured = append(measured, m)
	}
	return measured
}

// ask finds out what there is to say. Networks that are not measured and that the
// map of clients does not know have no place, and no part.
func ask(in Input) *asked {
	measured, pops := in.Measured.Networks(), len(in.Pops)
	a := &asked{networks: measured, weights: make([]float64, pops), works: make([]float64, pops), asks: make([]float64, pops)}
	for m := range in.Measured.All() {
		a.weights[m.Pop] += m.Weight
		a.works[m.Pop] += work(&m)
	}
	if len(in.Queries) == 0 {
		return a
	}
	networks := make([]netip.Prefix, len(in.Queries))
	for i, q := range in.Queries {
		networks[i] = q.Prefix
	}
	networks = slices.Compact(networks)
	places := located(networks, in.Clients)
	a.scale = in.perQuery(measured)
	var around []rtt.Measure
	at := 0
	for i, network := range networks {
		next, known := slices.BinarySearchFunc(measured, network, netip.Prefix.Compare)
		around = in.Measured.Lookup(around[:0], network)
		apart := len(around) == 0 && (next == len(measured) || !network.Contains(measured[next].Addr()))
		claims := len(a.claims)
		for ; at < len(in.Queries) && in.Queries[at].Prefix == network; at++ {
			q := in.Queries[at]
			useful := a.weights[q.Pop] == 0 || apart && a.scale > 0
			if useful && (known || places[i] >= 0) && !in.Pops[q.Pop].Anycast {
				a.claims = append(a.claims, q)
				a.asks[q.Pop] += q.Weight
			}
		}
		if len(a.claims) > claims && !known {
			a.added = append(a.added, network)
		}
	}
	a.networks = merged(measured, a.added)
	return a
}

// perQuery is the work that a query stands for: the median over the networks that
// both are known of, as resolvers with many clients ask little more than those with
// few. It is 0 if there are none.
func (in *Input) perQuery(measured []netip.Prefix) float64 {
	works := make([]float64, len(measured))
	i := 0
	for m := range in.Measured.All() {
		for measured[i] != m.Prefix {
			i++
		}
		works[i] += work(&m)
	}
	var ratios []float64
	for at := 0; at < len(in.Queries); {
		network, queries := in.Queries[at].Prefix, 0.0
		for ; at < len(in.Queries) && in.Queries[at].Prefix == network; at++ {
			queries += in.Queries[at].Weight
		}
		if i, ok := slices.BinarySearchFunc(measured, network, netip.Prefix.Compare); ok {
			ratios = append(ratios, works[i]/queries)
		}
	}
	if len(ratios) == 0 {
		return 0
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// merged returns the networks of two sorted lists that share none.
func merged(a, b []netip.Prefix) []netip.Prefix {
	if len(b) == 0 {
		return a
	}
	all := make([]netip.Prefix, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].Compare(b[0]) < 0 {
			all, a = append(all, a[0]), a[1:]
		} else {
			all, b = append(all, b[0]), b[1:]
		}
	}
	return append(append(all, a...), b...)
}
