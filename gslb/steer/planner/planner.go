// Package planner makes what the policies latency and capacity decide by: from
// what the fleet's nodes have measured and report, the rows of round-trip times
// and the plan of which network goes to which PoP. It joins packages rtt, which
// knows where clients are and how far, and assign, which divides them.
//
// # Demand
//
// Nobody counts the load that a network makes. What is known is how many
// connections each PoP's nodes have open, and from which networks connections and
// requests came, with weights that halve every 15 minutes. A network's work is its
// requests and ten for each connection, or minute of one, which is about what a
// handshake takes. So a network's demand is, summed over PoPs, its share of the work
// there times the load there. The unit is the open connection, as of
// fleet.Report.Load, with as much work as one of the fleet has on average: the load
// and the ceiling of a PoP whose connections have more count as more, or a network
// would have another demand wherever it goes. See Outcome.Heaviness.
//
// Weights are slow and load is not, so load is made as slow: when clients move
// from one PoP to another, both halves of what is known of them move at one pace,
// and their demand stays what it was wherever they are. That is what keeps the plan
// from chasing its own moves. Only what load rises by in all the fleet is new
// demand: it counts at once, is given to the clients of the PoPs where it rises, and
// stays theirs while the means take it in.
//
// Load of a PoP that nothing is known of is nobody's: it takes room from the PoP, and
// is not moved.
//
// # Queries
//
// Clients that no node has measured yet are known to the DNS, which counts queries
// by network and by the PoP that was the answer. They divide the load of a PoP whose
// nodes measure nothing, as connections would. At a PoP that does measure, networks
// that overlap none of the measured ones have a part in its load: each query is as
// much work as, in the middle, those of networks of which both are known. That part
// is a quarter of what is measured at most, for queries are easily made up; and they
// do not make demand known where measurements do not. Queries are few where resolvers
// keep answers, so who is measured is never judged by them.
//
// # Costs
//
// A row has the measured round-trip times, and for PoPs that a network has not been
// seen at an estimate by distance, see rtt.Costs: 13.5 µs per km and the network's
// own last mile. Without estimates a network would stay for ever with the one PoP
// that it was measured at. A network that the map does not know is taken to be
// where the PoP nearest to it by RTT is. Times are rounded to 2 % and places to half
// a degree, so that like networks share a row and noise moves nothing; with more
// rows than memory is for, twice that, and so on.
//
// # When demand is not known
//
// Without round-trip times young enough, or if they account for less than half of
// the load, the plan goes on with the demand that was known last, and a Shedder
// moves load away from PoPs above a watermark by what they report. A fleet that has
// never measured begins with the map of clients, each network to the nearest PoP.
// Without load either, the last plan stays.
//
// # Several DNS nodes
//
// The plan is not shared: each DNS node makes it from what all of them read, at the
// same times by the clock, so that they come to the same one. What differs is the
// plan before, which moves are counted from: a node that has just started has none. So every
// tenth plan has no hysteresis: it goes to the optimum, which is the same for all,
// as far as the cap on moves allows. Plans that differ meanwhile are no danger: each
// is within the ceilings, and so is any mixture of them.
//
// # Concurrency
//
// A Planner is for one goroutine. An Outcome is immutable.
package planner

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/assign"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/cidr"
)

// Config is how a Planner works.
type Config struct {
	// Target, Hysteresis and MoveCap are as of assign.Problem.
	Target     float64
	Hysteresis time.Duration
	MoveCap    float64
	// Interval is the time from one plan to the next, at least the TTL of answers.
	Interval time.Duration
	// ShedFrom and ShedTo are the watermarks, shares of a ceiling.
	ShedFrom, ShedTo float64
}

// realign is how many plans there are to one without hysteresis.
const realign = 10

// listed bounds the routes and clients that an Outcome lists for each loss.
const listed = 8

// Pop is a point of presence and what its nodes report.
type Pop struct {
	Name     string
	Lat, Lon float64 // degrees
	// Anycast is an entry that all PoPs announce: it has neither place nor clients
	// of its own, and no part in the plan.
	Anycast bool
	// Open means that clients may be sent there.
	Open bool
	// Load and Ceiling are sums over the nodes, in open connections. A ceiling of 0
	// is not known. At is when the newest report came; zero if there is none.
	Load, Ceiling float64
	At            time.Time
}

// Input is what a plan is made from.
type Input struct {
	Now time.Time
	// Pops are those of the steering table, in its order.
	Pops []Pop
	// Measured has the names of Pops, in their order.
	Measured *rtt.Table
	// Queries are of the same PoPs.
	Queries rtt.QueryTable
	// Clients is the map of clients, sorted by steer.CompareClients.
	Clients []steer.Client
}

// Mode says how a plan came about.
type Mode string

// The modes.
const (
	None     Mode = "none"     // nothing is planned: no load, no map, or no name asks for it
	Solved   Mode = "solved"   // from the demand that was measured
	Shedding Mode = "shedding" // demand is not known; by the load of PoPs
)

// Modes lists every mode.
func Modes() []Mode { return []Mode{None, Solved, Shedding} }

// Outcome is what a Step comes to. Its slices belong to a steering table from then
// on: nobody changes them.
type Outcome struct {
	Mode Mode
	// ByMap is true if networks have equal demand, as none was ever measured.
	ByMap bool
	// Known is the share of the load that measurements account for, 0 to 1, and
	// Asked the demand that is from queries, in the unit of Plan.
	Known, Asked float64
	// At is Input.Now; Solved is when Plan was made. The plan in force differs
	// from it while shedding.
	At, Solved time.Time
	Plan       *assign.Plan  // nil in mode None
	Losses     []assign.Loss // of Plan, if it was made from measured demand
	// Loads are of Input.Pops, as reported; Background is the part of it that no
	// network accounts for.
	Loads      []Pop
	Background []float64
	// Heaviness is for each PoP the work of a connection there over that of one of
	// the fleet when Plan was made: what is in connections of the PoP, such as Loads,
	// times that is in the unit of Plan. It is 1 where nothing is measured.
	Heaviness []float64

	Assigned []steer.Assigned
	Shares   [][]steer.Share
	Measured []steer.Measured
	Rows     [][]int32

	problem *assign.Problem // of Plan, nil without
	added   []netip.Prefix  // networks of problem that only queries know
	inForce *assign.Plan
}

// Fits reports whether the outcome is about PoPs of these names in this order.
func (o *Outcome) Fits(pops []steer.Pop) bool {
	return slices.EqualFunc(o.Loads, pops, func(a Pop, b steer.Pop) bool { return a.Name == b.Name })
}

// Without returns what would be assigned if these PoPs were lost, by the plan's
// demand, and the shares that it refers to.
func (o *Outcome) Without(lost []string) ([]steer.Assigned, [][]steer.Share, error) {
	if o.problem == nil || len(lost) == 0 {
		return o.Assigned, o.Shares, nil
	}
	problem := *o.problem
	problem.Pops = slices.Clone(problem.Pops)
	problem.Hysteresis = time.Minute
	for i := range problem.Pops {
		if slices.Contains(lost, problem.Pops[i].Name) {
			problem.Pops[i].Out = true
		}
	}
	plan, err := assign.Solve(problem, o.inForce)
	if err != nil {
		return nil, nil, err
	}
	list, shares := assigned(plan)
	return list, shares, nil
}

// Demand is that of a network of a plan.
type Demand struct {
	Prefix netip.Prefix
	// Amount is in the unit of Plan.
	Amount float64
	// Asked is true if only queries tell of the network.
	Asked bool
}

// Demand returns that of the longest network around a client; false if the plan
// knows none, or does not know demand.
func (o *Outcome) Demand(client netip.Prefix) (d Demand, ok bool) {
	if o.problem == nil || o.ByMap || !client.IsValid() {
		return Demand{}, false
	}
	for bits := client.Bits(); bits >= 0; bits-- {
		network, _ := client.Addr().Prefix(bits)
		i, found := slices.BinarySearchFunc(o.problem.Clients, cidr.From(network), func(c assign.Client, p cidr.Prefix) int { return c.Prefix.Compare(p) })
		if found {
			_, asked := slices.BinarySearchFunc(o.added, network, netip.Prefix.Compare)
			return Demand{network, o.problem.Clients[i].Demand, asked}, true
		}
	}
	return Demand{}, false
}

// Planner makes plans, each from the one before.
type Planner struct {
	cfg     Config
	tracker tracker
	rows    rows
	solver  assign.Solver
	// problem is the last one with a demand that was measured, or with that of the
	// map; solved is its plan, and inForce what became of it by shedding.
	problem *assign.Problem
	added   []netip.Prefix // as of Outcome
	byMap   bool
	solved  *assign.Plan
	at      time.Time // of solved
	// heaviness is Outcome.Heaviness, of solved.
	heaviness []float64
	asked     float64 // Outcome.Asked, likewise
	inForce   *assign.Plan
	losses    []assign.Loss
	shedder   *assign.Shedder // nil while demand is known
}

// New returns a Planner without a plan.
func New(cfg Config) *Planner { return &Planner{cfg: cfg} }

// Reset changes the config. The plan in force stays the one that moves are counted
// from.
func (p *Planner) Reset(cfg Config) {
	p.cfg, p.shedder = cfg, nil
}

// Rows returns the networks with round-trip times and nothing planned: all that
// the policy latency needs.
func (p *Planner) Rows(in Input) *Outcome {
	o := &Outcome{Mode: None, At: in.Now, Loads: in.Pops}
	o.Measured, o.Rows = p.rows.of(in, in.Measured.Networks())
	return o
}

// Step makes the next plan. turn says that an interval has passed since the last
// one; without it, PoPs have come or gone in between, and only clients that must
// move do.
//
// An error means that the input is malformed; the plan in force stays.
func (p *Planner) Step(in Input, turn bool) (*Outcome, error) {
	o := &Outcome{Mode: None, At: in.Now, Loads: in.Pops}
	asked := ask(in)
	var networks []steer.Measured
	networks, o.Rows = p.rows.of(in, asked.networks)
	o.Measured = asked.measured(networks)
	problem := p.measured(in, o, asked, networks)
	known := problem != nil
	if !known {
		problem = p.assumed(in)
	}
	if problem == nil {
		return o, nil
	}
	problem.Target, problem.MoveCap, problem.Hysteresis = p.cfg.Target, p.cfg.MoveCap, p.cfg.Hysteresis
	switch {
	case !turn:
		problem.Hysteresis = time.Minute // nobody gains that
	case in.Now.Unix()/int64(p.cfg.Interval/time.Second)%realign == 0:
		problem.Hysteresis = 0
	}
	if known || p.shedder == nil || !sameOpen(problem.Pops, p.solved) {
		plan, err := p.solver.Solve(*problem, p.inForce)
		if err != nil {
			return nil, err
		}
		p.problem, p.solved, p.inForce, p.at = problem, plan, plan, in.Now
		if known || p.byMap { // else the demand is that of before, and so is its unit
			p.heaviness, p.added, p.asked = o.Heaviness, asked.added, o.Asked
		}
		p.shedder, p.losses, p.byMap = nil, nil, !known && p.byMap
		if !p.byMap {
			p.losses = p.solver.Losses(listed)
		}
	}
	o.Mode = Solved
	if !known {
		o.Mode = Shedding
		if err := p.shed(in, turn); err != nil {
			return nil, err
		}
	}
	o.Plan, o.Solved, o.Losses, o.ByMap, o.Heaviness = p.solved, p.at, p.losses, p.byMap, p.heaviness
	o.Assigned, o.Shares = assigned(p.inForce)
	o.problem, o.inForce, o.added, o.Asked = p.problem, p.inForce, p.added, p.asked
	return o, nil
}

// mapped bounds the networks of a map that is planned by for want of measurements.
const mapped = 1 << 17

// assumed returns the last problem with the PoPs of now, or one that knows the map
// only; nil if there is neither.
func (p *Planner) assumed(in Input) *assign.Problem {
	problem := new(assign.Problem)
	same := p.problem != nil && slices.EqualFunc(p.problem.Pops, in.Pops, func(a assign.Pop, b Pop) bool { return a.Name == b.Name })
	if same && !p.byMap {
		*problem = *p.problem
		problem.Pops = slices.Clone(problem.Pops)
		for i, pop := range in.Pops {
			problem.Pops[i].Out = !pop.Open || pop.Anycast
		}
		return problem
	}
	if len(in.Clients) == 0 || len(in.Clients) > mapped {
		return nil
	}
	least := math.Inf(1)
	for _, pop := range in.Pops {
		ceiling := p.tracker.ceiling(pop)
		problem.Pops = append(problem.Pops, assign.Pop{Name: pop.Name, Ceiling: ceiling, Out: !pop.Open || pop.Anycast || ceiling == 0})
		if ceiling > 0 {
			least = min(least, ceiling)
		}
	}
	if math.IsInf(least, 1) {
		return nil // nothing is known of any PoP
	}
	// So little demand that it fits into any PoP: whoever is nearest gets it.
	each := least * p.cfg.Target / float64(len(in.Clients)) / 2
	in.Measured = rtt.Merge(in.Now, nil, nil)
	networks := make([]netip.Prefix, len(in.Clients))
	for i, c := range in.Clients {
		networks[i] = c.Prefix.Netip()
	}
	measured, lines := new(rows).of(in, networks)
	problem.Rows, problem.Clients = lines, clientsOf(measured, each)
	p.byMap = true
	return problem
}

// clientsOf returns networks with an equal demand.
func clientsOf(networks []steer.Measured, demand float64) []assign.Client {
	clients := make([]assign.Client, len(networks))
	for i, m := range networks {
		clients[i] = assign.Client{Prefix: m.Prefix, Row: m.Row, Demand: demand}
	}
	return clients
}

// shed brings the plan in force up to date with the load that PoPs report.
func (p *Planner) shed(in Input, turn bool) error {
	if p.shedder == nil {
		s, err := assign.NewShedder(p.solved, p.cfg.ShedFrom, p.cfg.ShedTo, p.cfg.Interval)
		if err != nil {
			return err
		}
		p.shedder, turn = s, true
	}
	if !turn {
		return nil
	}
	for _, pop := range in.Pops {
		if pop.Ceiling > 0 && !pop.At.IsZero() && !pop.Anycast {
			p.shedder.Observe(pop.Name, pop.At, pop.Load/pop.Ceiling)
		}
	}
	p.inForce = p.shedder.Shed(in.Now)
	return nil
}

// sameOpen reports whether a plan is about these PoPs, with the same ones out.
func sameOpen(pops []assign.Pop, plan *assign.Plan) bool {
	return plan != nil && slices.EqualFunc(pops, plan.Pops, func(a assign.Pop, b assign.Load) bool {
		return a.Name == b.Name && a.Out == b.Out
	})
}

// assigned returns a plan as a steering table takes it, and the shares that it
// refers to.
func assigned(plan *assign.Plan) ([]steer.Assigned, [][]steer.Share) {
	all := make([][]steer.Share, len(plan.Pops)) // at first those of one PoP alone
	for i := range all {
		all[i] = []steer.Share{{Pop: i, Share: 1}}
	}
	list := make([]steer.Assigned, 0, plan.Len())
	for prefix, fractions := range plan.All() {
		switch len(fractions) {
		case 0:
		case 1:
			list = append(list, steer.Assigned{Prefix: prefix, Shares: int32(fractions[0].Pop)})
		default:
			shares := make([]steer.Share, len(fractions))
			for i, f := range fractions {
				shares[i] = steer.Share{Pop: f.Pop, Share: f.Share}
			}
			list = append(list, steer.Assigned{Prefix: prefix, Shares: int32(len(all))})
			all = append(all, shares)
		}
	}
	return list, all
}
