package planner

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/assign"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/cidr"
)

const (
	// perConnection is how many requests a connection, or a minute of one, is as
	// much work as.
	perConnection = 10
	// few is the weight of connections below which what a PoP's own are like is
	// little known, and heaviest bounds what comes of it.
	few      = 100
	heaviest = 10.0
)

// work is what the connections of a measure come to, in requests.
func work(m *rtt.Measure) float64 { return m.Requests + perConnection*m.Weight }

// heaviness is Outcome.Heaviness, from the weights and works of each PoP. It goes at
// their pace, whatever loads do.
func heaviness(weights, works []float64) []float64 {
	weight, all := 0.0, 0.0
	for i := range weights {
		weight += weights[i]
		all += works[i]
	}
	heaviness := make([]float64, len(weights))
	for i := range heaviness {
		heaviness[i] = 1
		if weights[i] > 0 {
			mean := all / weight
			each := (works[i] + few*mean) / (weights[i] + few)
			heaviness[i] = max(1/heaviest, min(heaviest, each/mean))
		}
	}
	return heaviness
}

// measured returns the problem with the demand of now, nil if that is not known.
// networks are those of a.
func (p *Planner) measured(in Input, o *Outcome, a *asked, networks []steer.Measured) *assign.Problem {
	o.Background = make([]float64, len(in.Pops))
	o.Heaviness = heaviness(a.weights, a.works)
	told := slices.Clone(a.weights) // who a PoP's clients are, by connections or else by queries
	for i := range told {
		if told[i] == 0 {
			told[i] = a.asks[i]
		}
	}
	loads, risen := p.tracker.loads(in.Now, in.Pops, told, o.Heaviness)
	all, unmeasured, reported := 0.0, 0.0, false
	for i, load := range loads {
		reported = reported || !in.Pops[i].At.IsZero()
		all += load + risen[i]
		if a.weights[i] == 0 {
			unmeasured += load + risen[i]
		}
		if told[i] == 0 {
			o.Background[i] = load
		}
	}
	switch {
	case all > 0:
		o.Known = 1 - unmeasured/all
	case reported && len(o.Measured) > 0: // that there is no load
		o.Known = 1
	}
	if len(o.Measured) == 0 || o.Known < 0.5 {
		return nil
	}
	problem := &assign.Problem{Rows: o.Rows, Clients: clientsOf(networks, 0)}
	o.Asked = p.divide(problem.Clients, in, a, loads, risen)
	for i, pop := range in.Pops {
		ceiling := p.tracker.ceiling(pop) * o.Heaviness[i]
		if ceiling == 0 { // not known: it can carry what it does, and no more
			ceiling = (loads[i] + risen[i]) / p.cfg.Target
		}
		problem.Pops = append(problem.Pops, assign.Pop{
			Name: pop.Name, Ceiling: max(0, ceiling-o.Background[i]), Out: !pop.Open || pop.Anycast})
	}
	return problem
}

// divide gives the clients their parts of the PoPs' loads, and returns what of it
// goes by queries.
func (p *Planner) divide(clients []assign.Client, in Input, a *asked, loads, risen []float64) (asked float64) {
	i := 0 // both lists below are in the order of clients
	give := func(network netip.Prefix, pop int, part float64) (demand float64) {
		for clients[i].Prefix != cidr.From(network) {
			i++
		}
		demand = part * loads[pop]
		clients[i].Demand += demand
		more := part * risen[pop]
		if more > 0 {
			p.tracker.extra[clients[i].Prefix] += more
		}
		return demand + more
	}
	added := make([]float64, len(in.Pops)) // work that only queries tell of
	for i := range added {
		added[i] = min(unseen*a.works[i], a.scale*a.asks[i])
	}
	for m := range in.Measured.All() {
		give(m.Prefix, m.Pop, work(&m)/(a.works[m.Pop]+added[m.Pop]))
	}
	i = 0
	for _, c := range a.claims {
		part := c.Weight / a.asks[c.Pop]
		if works := a.works[c.Pop]; works > 0 {
			part *= added[c.Pop] / (works + added[c.Pop])
		}
		asked += give(c.Prefix, c.Pop, part)
	}
	if len(p.tracker.extra) > 0 {
		for i := range clients {
			clients[i].Demand += p.tracker.extra[clients[i].Prefix]
		}
	}
	return asked
}

// tracker remembers the load and the ceilings of PoPs.
type tracker struct {
	at       time.Time
	mean     map[string]float64 // load as reported, at the pace of the weights
	ceilings map[string]float64 // the last that was known
	// extra is demand that is new and not yet in the means, by network. It goes at
	// the pace at which they come to have it.
	extra map[cidr.Prefix]float64
}

// loads returns the mean load of each PoP, and by how much of what it has above
// that its clients' demand has risen since the last call. Load of a PoP without
// weights, whose clients nobody knows, is as it is. Both are in connections of the
// fleet, and pops in their own. Heaviness goes at the pace of the weights by itself.
func (t *tracker) loads(now time.Time, pops []Pop, weights, heaviness []float64) (means, risen []float64) {
	if t.mean == nil {
		t.mean, t.ceilings, t.extra = make(map[string]float64), make(map[string]float64), make(map[cidr.Prefix]float64)
	}
	keep := math.Exp2(-max(0, float64(now.Sub(t.at))) / float64(rtt.DefaultHalfLife))
	t.at = now
	means, risen = make([]float64, len(pops)), make([]float64, len(pops))
	more, rises, extra := 0.0, 0.0, 0.0
	for i, pop := range pops {
		if pop.Anycast {
			continue
		}
		mean, known := t.mean[pop.Name]
		if !known || weights[i] == 0 {
			mean = pop.Load
		}
		mean = pop.Load + (mean-pop.Load)*keep
		if known || !pop.At.IsZero() {
			t.mean[pop.Name] = mean
		}
		means[i] = mean * heaviness[i]
		above := (pop.Load - mean) * heaviness[i]
		more += above
		risen[i] = max(0, above)
		rises += risen[i]
		if pop.Ceiling > 0 {
			t.ceilings[pop.Name] = pop.Ceiling
		}
	}
	for network, e := range t.extra {
		if e *= keep; e < 1e-3 {
			delete(t.extra, network)
			continue
		}
		t.extra[network] = e
		extra += e
	}
	// What all PoPs have above their means is demand that is new; what only some
	// have came from others.
	share := 0.0
	switch {
	case more > extra:
		share = (more - extra) / rises
	case extra > 0:
		less := max(0, more) / extra
		for network := range t.extra {
			t.extra[network] *= less
		}
	}
	for i := range risen {
		risen[i] *= share
	}
	return means, risen
}

// ceiling returns a PoP's ceiling, the last one if it is not known now, 0 if it
// never was.
func (t *tracker) ceiling(p Pop) float64 { return cmp.Or(p.Ceiling, t.ceilings[p.Name]) }
