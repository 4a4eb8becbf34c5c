package configs

import "slices"

// Steering says how measured latency and load decide, for names whose policy is
// latency or capacity.
type Steering struct {
	// TargetLoad is the share of a PoP's ceiling that the plan fills. Default 80%.
	TargetLoad Percent `yaml:"target_load" default:"80%" range:"10%..100%"`
	// Hysteresis is the round-trip time that a client network must gain for the
	// plan to move it by choice. Default 3ms.
	Hysteresis Duration `yaml:"hysteresis" default:"3ms" range:"1ms..1m"`
	// MoveCap is the share of all demand that may move by choice from one plan to
	// the next. What must leave a PoP that is out or too full does. Default 5%.
	MoveCap Percent `yaml:"move_cap" default:"5%" range:"1%..100%"`
	// Interval is the time from one plan to the next, in whole seconds, at least
	// the TTL of the names that follow it. Equal on all DNS nodes. Default 1m.
	Interval Duration `yaml:"interval" default:"1m" range:"5s..1h"`
	// RTTMaxAge is the age at which a node's round-trip times, and the queries that a
	// DNS node counted, no longer count.
	// Default 15m.
	RTTMaxAge Duration `yaml:"rtt_max_age" default:"15m" range:"2m..24h"`
	// ShedFrom and ShedTo are shares of a ceiling. While demand is not known, the
	// load of a PoP above the first is moved away, more the nearer it is to the
	// second. Default 85%.
	ShedFrom Percent `yaml:"shed_from" default:"85%" range:"10%..100%"`
	// ShedTo is above ShedFrom. Default 100%.
	ShedTo Percent `yaml:"shed_to" default:"100%" range:"10%..100%"`
}

// The policies that decide by what nodes measure.
const (
	policyLatency  = "latency"
	policyCapacity = "capacity"
)

// Measured reports whether a name is steered by what the fleet's nodes measure.
func (n *SteeredName) Measured() bool {
	return n.Policy == policyLatency || n.Policy == policyCapacity
}

// Planned reports whether a name is steered by a plan.
func (n *SteeredName) Planned() bool { return n.Policy == policyCapacity }

// checkSteering applies the rules about names that measurements decide.
func (g *GSLB) checkSteering(d *document) {
	s := &g.Steering
	d.wholeSeconds("steering.interval", s.Interval)
	if s.ShedTo <= s.ShedFrom && !d.lost("steering.shed_from") && !d.lost("steering.shed_to") {
		d.report("steering.shed_to", "must be above shed_from, which is %v", s.ShedFrom)
	}
	anycast := map[string]bool{}
	for _, p := range g.Pops {
		anycast[p.Name] = p.Anycast
	}
	for i := range g.Names {
		n, path := &g.Names[i], at("names").index(i)
		if n.Measured() && g.Fleet.Memory && !d.lostWithin("fleet") {
			d.report(path.key("policy"), "%s needs what other nodes measure, and fleet.memory is a fleet of one", n.Policy)
		}
		if n.Planned() && n.TTL > s.Interval && !d.lost("steering.interval") && !d.lost(path.key("ttl")) {
			d.report(path.key("ttl"), "must not be above steering.interval, which is %v: the cap on moves is for each TTL", s.Interval)
		}
		if slices.Contains([]string{"weighted", "failover", "sticky"}, n.Policy) {
			continue
		}
		for j, a := range n.Answers {
			if anycast[a.Pop] && n.Policy != "" {
				d.report(path.key("answers").index(j).key("pop"), "%s is anycast and has no place; the policy must be weighted, failover or sticky", a.Pop)
			}
		}
	}
}
