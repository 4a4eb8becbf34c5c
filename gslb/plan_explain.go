package gslb

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"anyedge/configs"
	"anyedge/gslb/steer"
	"anyedge/gslb/steer/planner"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/fleet"
)

// Explanation is a decision, stage by stage, and the plan's word on lost PoPs.
type Explanation struct {
	steer.Explanation
	// Plan says how the plan in force came about; empty if the policy asks for
	// none.
	Plan string `json:"plan,omitempty"`
	// Connections are how many, decayed, the measured times of this client are the
	// mean of, by PoP.
	Connections map[string]float64 `json:"connections,omitempty"`
	// Demand is what the plan takes the client's network to ask for; nil if the plan
	// does not know the network.
	Demand *NetworkDemand `json:"demand,omitempty"`
	// Losses are the plan's answers for Explanation.Without.
	Losses []LostPop `json:"losses,omitempty"`
}

// NetworkDemand is the demand of a client network.
type NetworkDemand struct {
	Network netip.Prefix `json:"network"`
	// Amount is in the unit of a PlanReport.
	Amount float64 `json:"amount"`
	From   string  `json:"from"` // what tells of it: DemandMeasured or DemandAsked
}

// What demand is known from.
const (
	DemandMeasured = "connections and requests"
	DemandAsked    = "queries"
)

// ExplainRequest is a query to be explained.
type ExplainRequest struct {
	Name string // steered, or one that a steered name decides for
	IPv6 bool   // AAAA instead of A
	// Client is the network that asks; zero if it does not say.
	Client  netip.Prefix
	Without []string // PoPs to be taken as lost
}

// ErrNotSteered is the error of Explain for a name that is not steered.
var ErrNotSteered = steer.ErrNotSteered

// Explain decides as the table in force would, and says how. It takes about a
// second where networks are a million.
func (n *Node) Explain(r ExplainRequest) (Explanation, error) {
	n.mu.Lock()
	in, outcome, cfg := n.input, n.outcome, n.cfg
	n.mu.Unlock()
	q := steer.Query{Name: steer.Canonical(cmp.Or(n.server.steered(r.Name), r.Name)), Client: r.Client}
	if r.IPv6 {
		q.Family = steer.IPv6
	}
	in.Names = slices.DeleteFunc(slices.Clone(in.Names), func(c steer.Name) bool { return steer.Canonical(c.Name) != q.Name })
	planned := outcome != nil && outcome.Mode != planner.None && len(in.Names) == 1 && in.Names[0].Policy == steer.Capacity
	in.Assigned = nil
	if planned {
		var err error
		if in.Assigned, in.Shares, err = outcome.Without(r.Without); err != nil {
			return Explanation{}, err
		}
	}
	table, err := steer.Build(in)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{}
	if e.Explanation, err = table.Explain(q, r.Without...); err != nil {
		return Explanation{}, err
	}
	if outcome == nil {
		return e, nil
	}
	e.measured(cfg, n.fleet.View())
	if planned {
		report := reportOf(cfg, outcome)
		e.Plan = report.Summary
		if d, ok := outcome.Demand(e.Client); ok {
			e.Demand = &NetworkDemand{d.Prefix, d.Amount, DemandMeasured}
			if d.Asked {
				e.Demand.From = DemandAsked
			}
		}
		for _, p := range report.Pops {
			if p.Lost != nil && slices.Contains(r.Without, p.Name) {
				e.Losses = append(e.Losses, *p.Lost)
			}
		}
	}
	return e, nil
}

// String lays an explanation out for a terminal.
func (e Explanation) String() string {
	var b strings.Builder
	b.WriteString(e.Explanation.String())
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %-9s "+format+"\n", append([]any{label}, args...)...)
	}
	if e.Plan != "" {
		line("plan", "%s", e.Plan)
	}
	if d := e.Demand; d != nil {
		line("demand", "%.4g %s of %s, by %s", d.Amount, planUnit, d.Network, d.From)
	}
	for _, l := range e.Losses {
		holds := "holds"
		if !l.Holds {
			holds = "does not hold"
		}
		line("loss", "of %s %s (%s): %.4g connections move, the fullest PoP is then %s at %.0f %%", l.Pop, holds, l.Verdict, l.Displaced, cmp.Or(l.Worst, "none"), 100*l.Utilization)
	}
	return b.String()
}

// measured tells round-trip times that were measured from those that are estimated
// by distance.
func (e *Explanation) measured(cfg *configs.GSLB, view *fleet.View) {
	if !e.Client.IsValid() {
		return
	}
	in := planInput(cfg, view, time.Now())
	known := in.Measured.Lookup(nil, e.Client)
	for i := range e.Figures {
		f := &e.Figures[i]
		at := slices.IndexFunc(known, func(m rtt.Measure) bool { return in.Pops[m.Pop].Name == f.Pop })
		if f.Estimated = at < 0 && f.RTT >= 0; at >= 0 && f.RTT >= 0 {
			if e.Connections == nil {
				e.Connections = make(map[string]float64)
			}
			e.Connections[f.Pop] = known[at].Weight
		}
	}
}
