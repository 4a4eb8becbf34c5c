package gslb

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

// planConfig has names that measurements decide, and three PoPs around the world.
const planConfig = `
node: {name: ns1}
fleet: {consul: {address: "127.0.0.1:1"}, key_file: none, report_interval: 1s, report_ttl: 1m}
listen: ["127.0.0.1:5310"]
zones: [{name: edge.example, file: edge.zone}]
clients: clients.csv
pops:
  - {name: fra, latitude: 50, longitude: 9, addresses: [192.0.2.1]}
  - {name: lhr, latitude: 51, longitude: -6, addresses: [192.0.2.3]}
  - {name: nrt, latitude: 36, longitude: 140, addresses: [192.0.2.2]}
  - {name: all, addresses: [192.0.2.9], anycast: true}
names:
  - {name: fast.edge.example, policy: latency, ttl: 5s, answers: [{pop: fra}, {pop: lhr}, {pop: nrt}]}
  - {name: www.edge.example, policy: capacity, ttl: 5s, answers: [{pop: fra}, {pop: lhr}, {pop: nrt}]}
  - {name: any.edge.example, policy: failover, answers: [{pop: fra}, {pop: all}]}
steering: {interval: 1m, rtt_max_age: 10m}
`

// planNode is a node without sockets, in a bubble with a clock of its own.
type planNode struct {
	*testNode
	store fleet.Store
}

// plans runs f with a node of planConfig that follows its fleet and plans.
func plans(t *testing.T, f func(t *testing.T, n planNode)) {
	synctest.Test(t, func(t *testing.T) {
		store := fleet.NewMemory()
		n := planNode{newTestNode(t, store, nil, planConfig), store}
		ctx, stop := context.WithCancel(t.Context())
		go n.Node.fleet.Run(ctx)
		go n.fleet.Run(ctx)
		go n.follow(ctx)
		go n.planning.run(ctx)
		go n.teller.run(ctx)
		f(t, n)
		stop()
		synctest.Wait()
	})
}

// passes lets time pass, in which the nodes renew what they say of themselves.
func (n planNode) passes(d time.Duration, renew func()) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		renew()
		time.Sleep(min(10*time.Second, time.Until(end)))
	}
	renew()
	synctest.Wait()
}

// loaded reports a healthy PoP with so many connections.
func (n planNode) loaded(pop string, used, ceiling float64) {
	n.t.Helper()
	if err := n.store.RenewSession(n.t.Context(), n.session); err != nil {
		n.t.Fatal(err)
	}
	r := fleet.Report{
		Node: pop + "-1", Pop: pop, State: fleet.StateHealthy, Announcement: fleet.Announced,
		Usage: []fleet.Usage{{Resource: fleet.ResourceConnections, Used: used, Ceiling: ceiling}},
	}
	if err := n.fleet.PutReport(n.t.Context(), n.session, r); err != nil {
		n.t.Fatal(err)
	}
}

// seen is a network that a PoP has measured.
type seen struct {
	prefix string
	rtt    time.Duration
	weight float64
}

func (n planNode) measured(pop string, networks ...seen) {
	n.t.Helper()
	s := rtt.Snapshot{Pop: pop, At: time.Now(), HalfLife: rtt.DefaultHalfLife}
	for _, each := range networks {
		s.Entries = append(s.Entries, rtt.Entry{Prefix: netip.MustParsePrefix(each.prefix), RTT: each.rtt, Weight: each.weight})
	}
	data, err := s.Encode(nil, fleet.MaxRTT)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.fleet.PublishRTT(n.t.Context(), n.session, fleet.RTT{Node: pop + "-1", Pop: pop, At: s.At, Data: data}); err != nil {
		n.t.Fatal(err)
	}
}

// pops counts the PoPs that the /24s of a network are sent to.
func (n planNode) pops(name, network string) string {
	n.t.Helper()
	p := netip.MustParsePrefix(network)
	counts, base := make(map[string]int), p.Addr().As4()
	for i := range 1 << max(0, 24-p.Bits()) {
		b := base
		b[1], b[2] = b[1]+byte(i>>8), b[2]+byte(i)
		r, ok := n.Node.server.view.Load().table.Answer(steer.Query{Name: name, Client: netip.PrefixFrom(netip.AddrFrom4(b), 24)})
		if !ok {
			n.t.Fatalf("%s is not steered", name)
		}
		counts[strings.Join(r.Pops, "+")]++
	}
	var words []string
	for _, pop := range []string{"fra", "lhr", "nrt", "all"} {
		if counts[pop] > 0 {
			words = append(words, fmt.Sprintf("%s:%d", pop, counts[pop]))
		}
	}
	return strings.Join(words, " ")
}

func (n planNode) expect(what, name, network, want string) {
	n.t.Helper()
	if got := n.pops(name, network); got != want {
		n.t.Errorf("%s: %s of %s goes to %s, want %s", what, network, name, got, want)
	}
}

func TestMeasuredLatencyDecides(t *testing.T) {
	plans(t, func(t *testing.T, n planNode) {
		fleetUp := func() { n.loaded("fra", 10, 1000); n.loaded("lhr", 10, 1000); n.loaded("nrt", 10, 1000) }
		n.passes(2*time.Second, fleetUp)
		n.expect("before anything is measured", "fast.edge.example", "198.51.100.0/24", "fra:1")

		// A cable that the map knows nothing of.
		n.measured("fra", seen{"198.51.100.0/24", 40 * time.Millisecond, 50})
		n.measured("nrt", seen{"198.51.100.0/24", 7 * time.Millisecond, 50})
		n.passes(30*time.Second, fleetUp)
		n.expect("measured", "fast.edge.example", "198.51.100.0/24", "nrt:1")
		n.expect("a network that nobody measured", "fast.edge.example", "203.0.113.0/24", "nrt:1")

		e, err := n.Explain(ExplainRequest{Name: "fast.edge.example", Client: netip.MustParsePrefix("198.51.100.0/24")})
		if err != nil {
			t.Fatal(err)
		}
		text := e.String()
		for _, want := range []string{"answer    nrt: 192.0.2.2", "by measured latency of 198.51.100.0/24", "6.9 ms\n", "ms by distance\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}

		n.passes(12*time.Minute, fleetUp)
		n.expect("measured long ago", "fast.edge.example", "198.51.100.0/24", "fra:1")
	})
}

// Clients of Frankfurt in four networks, of which each makes a quarter of its load,
// and one of Tokyo's.
var (
	europe = []seen{
		{"20.0.0.0/24", 10 * time.Millisecond, 100}, {"20.0.1.0/24", 11 * time.Millisecond, 100},
		{"20.0.2.0/24", 12 * time.Millisecond, 100}, {"20.0.3.0/24", 13 * time.Millisecond, 100},
	}
	japan = []seen{{"30.0.0.0/24", 5 * time.Millisecond, 100}}
)

func (n planNode) both() { n.measured("fra", europe...); n.measured("nrt", japan...) }

func TestPlanKeepsPopsWithinTheirCeilings(t *testing.T) {
	plans(t, func(t *testing.T, n planNode) {
		fleetUp := func() { n.loaded("fra", 900, 1000); n.loaded("lhr", 10, 1000); n.loaded("nrt", 100, 1000) }
		n.both()
		n.passes(90*time.Second, fleetUp)
		r := n.Plan()
		if r.Mode != "solved" || r.Networks != 5 || r.Known < 0.98 {
			t.Fatalf("plan %+v", r)
		}
		for _, p := range r.Pops {
			if p.Utilization > 0.8001 {
				t.Errorf("%s is at %v, above the target", p.Name, p.Utilization)
			}
		}
		if fra, lhr := r.Pops[0], r.Pops[1]; fra.Demand < 780 || lhr.Demand+lhr.Background < 90 || fra.Price <= 0 || fra.Lost == nil {
			t.Errorf("fra %+v, lhr %+v", fra, lhr)
		}
		n.expect("Japan", "www.edge.example", "30.0.0.0/24", "nrt:1")
		// The name that follows latency stays.
		n.expect("Europe by latency", "fast.edge.example", "20.0.0.0/22", "fra:4")

		// All of Europe fits into neither of the others alone, but into both.
		if l := r.Pops[0].Lost; l.Verdict != "tight" && l.Verdict != "fits" || !l.Holds {
			t.Errorf("the loss of fra: %+v", l)
		}
		published := n.Node.fleet.View().Plan
		if published == nil || published.By != "ns1" || published.Interval != 60 || published.Without("fra") == nil || !published.Without("fra").Holds {
			t.Fatalf("published %+v", published)
		}

		// Now they are nearly full themselves.
		full := func() { n.loaded("fra", 900, 1000); n.loaded("lhr", 950, 1000); n.loaded("nrt", 900, 1000) }
		n.both()
		n.measured("lhr", seen{"25.0.0.0/24", 4 * time.Millisecond, 100})
		n.passes(2*time.Minute, full)
		r = n.Plan()
		if l := r.Pops[0].Lost; l.Holds || l.Verdict != "overload" || l.Utilization <= 1 {
			t.Errorf("the loss of fra in a full fleet: %+v", l)
		}
		if p := n.Node.fleet.View().Plan.Without("fra"); p.Holds || p.Utilization <= 1 {
			t.Errorf("published %+v", p)
		}
	})
}

func TestPlanGivesTheClientsOfALostPopToOthersAtOnce(t *testing.T) {
	plans(t, func(t *testing.T, n planNode) {
		fleetUp := func() { n.loaded("fra", 400, 1000); n.loaded("lhr", 100, 1000); n.loaded("nrt", 100, 1000) }
		n.both()
		n.passes(90*time.Second, fleetUp)
		n.expect("at first", "www.edge.example", "20.0.0.0/22", "fra:4")
		e, err := n.Explain(ExplainRequest{Name: "www.edge.example.", Client: netip.MustParsePrefix("20.0.0.0/24"), Without: []string{"fra"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Pops) != 1 || e.Pops[0] != "lhr" || len(e.Losses) != 1 || !strings.Contains(e.String(), "loss      of fra holds (fits)") {
			t.Errorf("without fra:\n%s", e)
		}
		if err := n.fleet.SetDrain(t.Context(), fleet.Drain{Scope: fleet.ScopePop, Name: "fra"}); err != nil {
			t.Fatal(err)
		}
		n.passes(3*time.Second, fleetUp)
		n.expect("drained", "www.edge.example", "20.0.0.0/22", "lhr:4")
		if r := n.Plan(); r.Pops[0].Open || r.Pops[0].Demand != 0 || r.Moved.Lost < 300 {
			t.Errorf("%+v", r)
		}
		n.expect("anycast while fra is out", "any.edge.example", "20.0.0.0/24", "all:1")
	})
}

func TestLoadIsShedWhenDemandIsNotKnown(t *testing.T) {
	plans(t, func(t *testing.T, n planNode) {
		calm := func() { n.loaded("fra", 400, 1000); n.loaded("lhr", 100, 1000); n.loaded("nrt", 100, 1000) }
		n.both()
		n.passes(90*time.Second, calm)
		if r := n.Plan(); r.Mode != "solved" {
			t.Fatalf("%+v", r)
		}
		n.passes(12*time.Minute, calm)
		if r := n.Plan(); r.Mode != "shedding" {
			t.Fatalf("%+v", r)
		}
		n.expect("below the watermark nothing moves", "www.edge.example", "20.0.0.0/22", "fra:4")
		n.passes(5*time.Minute, func() { n.loaded("fra", 990, 1000); n.loaded("lhr", 100, 1000); n.loaded("nrt", 100, 1000) })
		if got := n.pops("www.edge.example", "20.0.0.0/22"); !strings.HasPrefix(got, "fra:3 lhr:1") && !strings.HasPrefix(got, "fra:4") {
			t.Errorf("above it: %s", got)
		}
		shed := 0.0
		for _, a := range n.outcome.Assigned {
			for _, s := range n.outcome.Shares[a.Shares] {
				if s.Pop == 1 {
					shed += s.Share
				}
			}
		}
		if shed <= 0 || shed > 1 {
			t.Errorf("%.2f networks were shed to lhr, want a part of one", shed)
		}
		n.both()
		n.passes(2*time.Minute, calm)
		if r := n.Plan(); r.Mode != "solved" {
			t.Errorf("measured again: %+v", r)
		}
	})
}

func TestOverridesOfSteeringExpire(t *testing.T) {
	plans(t, func(t *testing.T, n planNode) {
		fleetUp := func() { n.loaded("fra", 10, 1000); n.loaded("lhr", 10, 1000); n.loaded("nrt", 10, 1000) }
		n.passes(2*time.Second, fleetUp)
		o := fleet.SteerOverride{Names: "*.edge.example", Pops: "fra*", Reason: "fibre cut"}
		if err := n.SetOverride(t.Context(), audit.Actor{By: "ann"}, o, 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		n.passes(time.Second, fleetUp)
		n.expect("overridden", "www.edge.example", "198.51.100.0/24", "lhr:1")
		if e, err := n.Explain(ExplainRequest{Name: "www.edge.example"}); err != nil || !strings.Contains(e.String(), "drops fra: *.edge.example: without fra*") {
			t.Errorf("%v\n%s", err, e)
		}
		n.passes(9*time.Minute, fleetUp)
		n.expect("still", "www.edge.example", "198.51.100.0/24", "lhr:1")
		n.passes(2*time.Minute, fleetUp)
		n.expect("expired", "www.edge.example", "198.51.100.0/24", "fra:1")
		if list := n.Overrides(); len(list) != 0 {
			t.Errorf("%v", list)
		}

		o.Only, o.Pops = true, "nrt"
		if err := n.SetOverride(t.Context(), audit.Actor{By: "ann"}, o, time.Hour); err != nil {
			t.Fatal(err)
		}
		n.passes(time.Second, fleetUp)
		n.expect("only", "www.edge.example", "198.51.100.0/24", "nrt:1")
		if err := n.ClearOverride(t.Context(), audit.Actor{By: "bob"}, o); err != nil {
			t.Fatal(err)
		}
		n.passes(time.Second, fleetUp)
		n.expect("cleared", "www.edge.example", "198.51.100.0/24", "fra:1")
		if acts := n.Audit(audit.Query{Last: 9}); len(acts) != 3 || acts[2].By != "bob" || acts[0].On != "*.edge.example" {
			t.Errorf("%+v", acts)
		}
	})
}
