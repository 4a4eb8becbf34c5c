package assign

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Shedder keeps PoPs below a watermark when the demand of clients has become
// unknown, so that Solve has nothing to go by, and only the load of the PoPs is
// still reported. It moves clients of a plan out of PoPs above the low mark, less
// than enough to bring them down to it, more the fuller they are: what stays
// rises from the low mark toward the high one, which it never reaches.
//
// # Why it does not swing
//
// A rule that sheds by the load it sees, and sees that load late, swings: it
// sheds too long, then takes back too much. So a Shedder asks what load a PoP
// would have if nothing were shed. It remembers what it had shed at the time
// that a report is of, as clients followed it over one TTL, and takes that out of
// the report. What it then does depends on the clients and not on what it did
// before. A report that is older than what it remembers is not used, and a PoP
// without a report is taken to have what the plan gave it.
type Shedder struct {
	plan      *Plan
	low, high float64
	ttl       time.Duration
	base      []float64 // the plan's demand of each PoP
	seen      []report  // by PoP
	own       []float64 // load without shedding, smoothed
	history   []change  // of what was shed, the last one in force
}

// report is the load of a PoP at some time.
type report struct {
	at    time.Time
	load  float64
	fresh bool // not yet used
}

// flows has for each PoP the share of its own load that goes to each other one.
type flows [][]float64

// change is what was shed from a time on.
type change struct {
	from time.Time
	flows
}

// remembered bounds the changes that a Shedder keeps.
const remembered = 256

// NewShedder returns a Shedder for the last good plan. The marks are shares of a
// ceiling, 0 < low < high; ttl is how long resolvers keep an answer.
func NewShedder(plan *Plan, low, high float64, ttl time.Duration) (*Shedder, error) {
	if !(low > 0 && low < high && !math.IsInf(high, 1)) || ttl <= 0 {
		return nil, fmt.Errorf("watermarks %v and %v with a TTL of %v make no sense", low, high, ttl)
	}
	n := len(plan.Pops)
	s := &Shedder{plan: plan, low: low, high: high, ttl: ttl, base: make([]float64, n), seen: make([]report, n), own: make([]float64, n)}
	for i, l := range plan.Pops {
		s.base[i], s.own[i] = l.Demand, l.Demand
	}
	return s, nil
}

func noFlows(n int) flows {
	f := make(flows, n)
	for i := range f {
		f[i] = make([]float64, n)
	}
	return f
}

// Observe takes the report that a PoP had a utilization of its ceiling, 0 or more,
// at a time. Reports of unknown PoPs and those not newer than the last are ignored.
func (s *Shedder) Observe(pop string, at time.Time, utilization float64) {
	i := slices.IndexFunc(s.plan.Pops, func(l Load) bool { return l.Name == pop })
	if i < 0 || !finite(utilization) || !at.After(s.seen[i].at) {
		return
	}
	s.seen[i] = report{at, utilization * s.plan.Pops[i].Ceiling, true}
}

// Shed returns the plan to use from now on, once per TTL. Calls have rising
// times. What the plan says of loads and losses is still that of the last good
// one.
func (s *Shedder) Shed(now time.Time) *Plan {
	s.estimate()
	n := len(s.plan.Pops)
	spare, excess := make([]float64, n), make([]float64, n)
	for i, l := range s.plan.Pops {
		if l.Out || l.Ceiling <= 0 {
			continue
		}
		u := s.own[i] / l.Ceiling
		if u <= s.low {
			spare[i] = (s.low - u) * l.Ceiling
			continue
		}
		// The share x of clients that is shed rises linearly from 0 at the low
		// mark to 1 at the high one, of the load (1-x)u that is left. This is
		// where the two meet.
		excess[i] = (u - s.low) / (s.high - s.low + u) * s.own[i]
	}
	plan, flows := s.move(excess, spare)
	s.history = append(s.history, change{now, flows})
	if len(s.history) > remembered {
		s.history = s.history[1:]
	}
	return plan
}

// estimate brings own up to date with the reports.
func (s *Shedder) estimate() {
	n := len(s.own)
	raw := slices.Clone(s.own)
	then := make([]flows, n)
	for i, r := range s.seen {
		if r.fresh {
			then[i] = s.inForce(r.at)
		}
	}
	// A report is what stayed plus what came from others. Each is solved for its
	// own load in turn; a few rounds suffice as most load stays.
	for range 16 {
		for i, r := range s.seen {
			if then[i] == nil {
				continue
			}
			stayed, came := 1.0, 0.0
			for k := range n {
				stayed -= then[i][i][k]
				came += raw[k] * then[i][k][i]
			}
			raw[i] = max(0, r.load-came) / max(stayed, 0.1)
		}
	}
	for i := range s.seen {
		if then[i] != nil {
			s.own[i] += (raw[i] - s.own[i]) / 2
			s.seen[i].fresh = false
		}
	}
}

// inForce returns what clients followed at a time, the mean over the TTL before
// it; nil if that is not remembered any more.
func (s *Shedder) inForce(at time.Time) flows {
	start := at.Add(-s.ttl)
	if len(s.history) == remembered && start.Before(s.history[0].from) {
		return nil
	}
	mean := noFlows(len(s.own))
	for i, c := range s.history {
		from, to := c.from, at
		if i+1 < len(s.history) && s.history[i+1].from.Before(to) {
			to = s.history[i+1].from
		}
		if from.Before(start) {
			from = start
		}
		share := float64(to.Sub(from)) / float64(s.ttl)
		if share <= 0 {
			continue
		}
		for a, row := range c.flows {
			for b, x := range row {
				mean[a][b] += share * x
			}
		}
	}
	return mean
}

// escape is a client that could leave its PoP.
type escape struct {
	client, to int32
	regret     int64
}

// move sheds the excess of each PoP into the spare room of others. The clients
// that lose least go first, in an order that loads do not change, so that a
// little more or less shedding moves few.
func (s *Shedder) move(excess, spare []float64) (*Plan, flows) {
	p := *s.plan
	p.homes = slices.Clone(p.homes)
	p.shares = maps.Clone(p.shares)
	moved := noFlows(len(excess))
	for i := range excess {
		if s.base[i] == 0 {
			continue
		}
		scale := s.own[i] / s.base[i]
		// Those whose best PoP has filled up meanwhile get the next one.
		for left, again := excess[i], true; left > 0 && again; {
			again = false
			for _, e := range p.escapes(int32(i), spare) {
				demand := p.clients[e.client].Demand * scale
				part := min(demand, left, spare[e.to])
				if part <= 0 {
					continue
				}
				again = true
				if part < demand {
					f := part / demand
					p.shares[e.client] = []Fraction{{i, 1 - f}, {int(e.to), f}}
					slices.SortFunc(p.shares[e.client], func(a, b Fraction) int { return cmp.Compare(b.Share, a.Share) })
				} else {
					p.homes[e.client] = e.to
				}
				left -= part
				spare[e.to] -= part
				moved[i][e.to] += part / s.own[i]
			}
		}
	}
	return &p, moved
}

// escapes lists the whole clients of a PoP with the best other one that has room
// to spare.
func (p *Plan) escapes(pop int32, spare []float64) []escape {
	var list []escape
	for i, home := range p.homes {
		if _, divided := p.shares[int32(i)]; home != pop || divided {
			continue
		}
		row := p.rows[p.clients[i].Row]
		to := int32(-1)
		for j, cost := range row {
			if cost != Never && int32(j) != pop && spare[j] > 0 && (to < 0 || cost < row[to]) {
				to = int32(j)
			}
		}
		if to >= 0 {
			list = append(list, escape{int32(i), to, int64(row[to]) - int64(row[pop])})
		}
	}
	slices.SortStableFunc(list, func(a, b escape) int { return cmp.Compare(a.regret, b.regret) })
	return list
}
