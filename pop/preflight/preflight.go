// Package preflight compares what a set of new configs would announce with what
// the fleet announces now, and says which prefixes would be left with too few
// PoPs behind them.
//
// A reload is judged by one node, for itself. A prefix that every node loses by
// a reload of its own, each of them valid, is lost all the same; only the fleet
// as a whole shows it. So the whole set is judged together, before any node
// takes its part.
//
// The package does no I/O and reads no clock: the caller says which nodes are
// heard of now.
package preflight

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Route is how a prefix is announced in normal service, to every neighbor that has
// nothing of its own.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Attributes
}

// Attributes are what neighbors see of a route.
type Attributes struct {
	MED         uint32   `json:"med"`
	Prepend     int      `json:"prepend"`
	Communities []string `json:"communities,omitempty"` // of all kinds, in any order
}

// Equal reports whether upstreams see no difference between two routes.
func (a Attributes) Equal(o Attributes) bool {
	sorted := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	return a.MED == o.MED && a.Prepend == o.Prepend && slices.Equal(sorted(a.Communities), sorted(o.Communities))
}

// String returns the attributes in words.
func (a Attributes) String() string {
	s := fmt.Sprintf("MED %d, prepend %d", a.MED, a.Prepend)
	if len(a.Communities) > 0 {
		s += ", " + strings.Join(a.Communities, " ")
	}
	return s
}

// Node is a node of the fleet as its report has it.
type Node struct {
	Name, Pop string
	// Fresh is true if the report is recent enough to count.
	Fresh bool
	// Serving is true if the node is healthy, announced (not de-preferred) and
	// not being drained.
	Serving bool
	Routes  []Held
	// Omitted is how many routes the report had no room for.
	Omitted int
	// Neighbors are the node's neighbors; none if it does not say.
	Neighbors []Neighbor
}

// Held is a route that a node has now.
type Held struct {
	Route
	// Announced is false while this prefix is de-preferred or withdrawn.
	Announced bool
}

// Plan is what one new config would announce.
type Plan struct {
	Node, Pop string
	Routes    []Route
	Neighbors []Neighbor
	// Restart are the keys whose change the node takes by a restart only.
	Restart []string
	// MinPops is the config's bound on the PoPs that must serve a prefix.
	MinPops int
}

// Kind is what happens to a prefix at a node.
type Kind string

// The kinds of changes.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
)

// Change is one prefix at one node.
type Change struct {
	Kind Kind   `json:"kind"`
	Node string `json:"node"`
	Pop  string `json:"pop"`
	From *Route `json:"from,omitempty"` // nil if added
	To   *Route `json:"to,omitempty"`   // nil if removed
}

// Prefix is one prefix that the set announces, or announces no more.
type Prefix struct {
	Prefix netip.Prefix `json:"prefix"`
	// Before and After are the PoPs with a healthy node that announces the
	// prefix, in order.
	Before  []string `json:"healthy_before"`
	After   []string `json:"healthy_after"`
	Changes []Change `json:"changes"`
	// Refused is why the set must not go out; empty if it may, as far as this
	// prefix goes.
	Refused string `json:"refused,omitempty"`
	// Culprits are the nodes whose plans a refusal is about: those that take
	// the prefix away, or else those that announce it.
	Culprits []string `json:"culprits,omitempty"`
}

// Result is the judgement of a set.
type Result struct {
	MinPops  int      `json:"min_pops"` // the strictest of the set
	Prefixes []Prefix `json:"prefixes"` // in order
	// Neighbors are the changes of what single neighbors get, by node.
	Neighbors []NeighborChange `json:"neighbors,omitempty"`
	// Restarts are the nodes that do not take their configs by a reload, or a
	// rollout, by name.
	Restarts []Restart `json:"restarts,omitempty"`
	// Notes are what an operator should know of the comparison itself.
	Notes []string `json:"notes,omitempty"`
	// OK is true if no prefix is refused.
	OK bool `json:"ok"`
}

// Judge compares a set with the fleet. A node that is not in the set keeps what
// it has. Prefixes that the set neither has nor takes away are left out.
//
// A PoP counts for a prefix after the change if one of its nodes serves now and
// announces the prefix then: a node nobody hears of may come up, but nobody can
// know. Prefixes in retire may lose all their PoPs.
func Judge(fleet []Node, set []Plan, retire []netip.Prefix) Result {
	j := judgement{now: make(map[string]Node), plan: make(map[string]Plan)}
	for _, n := range fleet {
		j.now[n.Name] = n
	}
	for _, p := range set {
		j.plan[p.Node] = p
		j.result.MinPops = max(j.result.MinPops, p.MinPops)
	}
	j.result.OK, j.result.Prefixes = true, []Prefix{}
	j.notes(set)
	for _, prefix := range j.touched() {
		p := j.prefix(prefix)
		if len(p.After) < j.result.MinPops && !(slices.Contains(retire, prefix) && len(p.After) == 0) {
			j.refuse(&p)
		}
		j.result.Prefixes = append(j.result.Prefixes, p)
	}
	for _, name := range slices.Sorted(maps.Keys(j.plan)) {
		p := j.plan[name]
		j.neighbors(p)
		if len(p.Restart) > 0 {
			j.result.Restarts = append(j.result.Restarts, Restart{name, p.Pop, p.Restart})
		}
	}
	return j.result
}

type judgement struct {
	now    map[string]Node
	plan   map[string]Plan
	result Result
}

func (j *judgement) note(format string, args ...any) {
	j.result.Notes = append(j.result.Notes, fmt.Sprintf(format, args...))
}

func (j *judgement) notes(set []Plan) {
	for _, p := range set {
		n, known := j.now[p.Node]
		switch {
		case !known:
			j.note("%s is not part of the fleet now: it does not count as an announcer", p.Node)
		case !n.Fresh:
			j.note("%s has not been heard of lately: it does not count as an announcer", p.Node)
		case !n.Serving:
			j.note("%s does not serve now: it does not count as an announcer", p.Node)
		}
		if known && n.Pop != p.Pop {
			j.note("%s moves from PoP %s to %s", p.Node, n.Pop, p.Pop)
		}
		if known && len(n.Routes) > 0 && len(n.Neighbors) == 0 {
			j.note("%s does not say who its neighbors are: what each of them gets is not compared", p.Node)
		}
		if n.Omitted > 0 {
			j.note("%s announces %d prefixes more than its report has room for: those of them that change count as added", p.Node, n.Omitted)
		}
	}
}

// touched returns the prefixes that the set's nodes have now or then, in order.
func (j *judgement) touched() []netip.Prefix {
	var list []netip.Prefix
	for name, p := range j.plan {
		for _, r := range p.Routes {
			list = append(list, r.Prefix)
		}
		for _, h := range j.now[name].Routes {
			list = append(list, h.Prefix)
		}
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
	})
	return slices.Compact(list)
}

func (j *judgement) prefix(prefix netip.Prefix) Prefix {
	p := Prefix{Prefix: prefix, Changes: []Change{}}
	for _, n := range j.now {
		from, announced := n.route(prefix)
		if n.Fresh && n.Serving && announced {
			p.Before = append(p.Before, n.Pop)
		}
		if _, planned := j.plan[n.Name]; !planned && from != nil && n.Fresh && n.Serving && announced {
			p.After = append(p.After, n.Pop)
		}
	}
	for _, plan := range j.plan {
		n := j.now[plan.Node]
		from, announced := n.route(prefix)
		to := plan.route(prefix)
		// A route that is new to a node goes out with the others.
		if to != nil && n.Fresh && n.Serving && (announced || from == nil) {
			p.After = append(p.After, plan.Pop)
		}
		c := Change{Node: plan.Node, Pop: plan.Pop, From: from, To: to}
		switch {
		case from == nil && to == nil:
			continue
		case from == nil:
			c.Kind = Added
		case to == nil:
			c.Kind = Removed
		case !from.Equal(to.Attributes):
			c.Kind = Changed
		default:
			continue
		}
		p.Changes = append(p.Changes, c)
	}
	p.Before, p.After = distinct(p.Before), distinct(p.After)
	slices.SortFunc(p.Changes, func(a, b Change) int { return strings.Compare(a.Node, b.Node) })
	return p
}

// refuse says why, and whose doing it is.
func (j *judgement) refuse(p *Prefix) {
	j.result.OK = false
	p.Refused = fmt.Sprintf("%d of the %d PoPs that min_pops asks for would announce it in good health", len(p.After), j.result.MinPops)
	if len(p.After) > 0 {
		p.Refused += ": " + strings.Join(p.After, ", ")
	}
	for _, c := range p.Changes {
		if c.Kind == Removed {
			p.Culprits = append(p.Culprits, c.Node)
		}
	}
	if p.Culprits != nil {
		return
	}
	for name, plan := range j.plan {
		if plan.route(p.Prefix) != nil {
			p.Culprits = append(p.Culprits, name)
		}
	}
	slices.Sort(p.Culprits)
}

// route returns the node's route for prefix, or nil, and whether it is
// announced.
func (n Node) route(prefix netip.Prefix) (*Route, bool) {
	for i := range n.Routes {
		if n.Routes[i].Prefix == prefix {
			return &n.Routes[i].Route, n.Routes[i].Announced
		}
	}
	return nil, false
}

func (p Plan) route(prefix netip.Prefix) *Route {
	for i := range p.Routes {
		if p.Routes[i].Prefix == prefix {
			return &p.Routes[i]
		}
	}
	return nil
}

// distinct returns names in order, each once, and never nil.
func distinct(names []string) []string {
	out := append([]string{}, names...)
	slices.Sort(out)
	return slices.Compact(out)
}
