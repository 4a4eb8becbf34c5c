package planner

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/cidr"
)

// asking is a fleet of three PoPs, of which the last measures nothing, and what its
// DNS nodes were asked.
func asking(queries ...rtt.Query) Input {
	names := []string{"a", "b", "c"}
	p := netip.MustParsePrefix
	in := Input{Now: start, Pops: []Pop{
		{Name: "a", Open: true, Load: 300, Ceiling: 1000, At: start},
		{Name: "b", Lat: 10, Open: true, Load: 200, Ceiling: 1000, At: start},
		{Name: "c", Lat: 20, Open: true, Load: 100, Ceiling: 1000, At: start},
	}}
	for i, network := range []string{"20.0.0.0/24", "20.0.1.0/24", "20.0.2.0/24", "20.9.0.0/16"} {
		in.Clients = append(in.Clients, steer.Client{Prefix: cidr.MustParse(network), Lat: float64(5 * i)})
	}
	entry := func(network string, weight float64) rtt.Entry {
		return rtt.Entry{Prefix: p(network), RTT: 9 * time.Millisecond, Weight: weight}
	}
	in.Measured = rtt.Merge(start, names, []rtt.Snapshot{
		{Pop: "a", At: start, HalfLife: time.Minute, Entries: []rtt.Entry{entry("20.0.0.0/24", 60)}},
		{Pop: "b", At: start, HalfLife: time.Minute, Entries: []rtt.Entry{entry("20.0.0.0/24", 20), entry("20.0.1.0/24", 20)}},
	})
	in.Queries = rtt.MergeQueries(start, names, []rtt.QuerySnapshot{{At: start, HalfLife: time.Minute, Queries: queries}})
	return in
}

func TestQueriesTellOfWhomNobodyMeasured(t *testing.T) {
	p := netip.MustParsePrefix
	for name, c := range map[string]struct {
		queries  []rtt.Query
		want     map[string]float64 // demand by network
		measured int                // networks with round-trip times
		idle     float64            // background at c
	}{
		"no queries": {nil, map[string]float64{"20.0.0.0/24": 400, "20.0.1.0/24": 100}, 2, 100},
		"a PoP that measures nothing has its load divided by them": {
			[]rtt.Query{{Prefix: p("20.0.0.0/24"), Pop: "c", Weight: 30}, {Prefix: p("20.0.2.0/24"), Pop: "c", Weight: 10}},
			map[string]float64{"20.0.0.0/24": 475, "20.0.1.0/24": 100, "20.0.2.0/24": 25}, 2, 0,
		},
		// 20.0.0.0/24 makes 800 of work and 80 queries, 20.0.1.0/24 200 and 20: ten for
		// each query, so that the 6 are 60 beside the 600 at a.
		"clients that nobody has seen have a part in proportion": {
			[]rtt.Query{{Prefix: p("20.0.0.0/24"), Pop: "a", Weight: 80}, {Prefix: p("20.0.1.0/24"), Pop: "b", Weight: 20}, {Prefix: p("20.0.2.0/24"), Pop: "a", Weight: 6}},
			map[string]float64{"20.0.0.0/24": 300*600./660 + 100, "20.0.1.0/24": 100, "20.0.2.0/24": 300 * 60. / 660}, 2, 100,
		},
		"a flood of made-up queries claims a quarter at most": {
			[]rtt.Query{{Prefix: p("20.0.1.0/24"), Pop: "b", Weight: 20}, {Prefix: p("20.9.1.0/24"), Pop: "a", Weight: 1e9}},
			map[string]float64{"20.0.0.0/24": 300/1.25 + 100, "20.0.1.0/24": 100, "20.9.1.0/24": 60}, 2, 100,
		},
		"who is measured, in part or as a part, is not known by them": {
			[]rtt.Query{{Prefix: p("20.0.1.0/24"), Pop: "b", Weight: 20}, {Prefix: p("20.0.0.0/20"), Pop: "a", Weight: 50}},
			map[string]float64{"20.0.0.0/24": 400, "20.0.1.0/24": 100}, 2, 100,
		},
		"nobody knows where these are": {
			[]rtt.Query{{Prefix: p("20.0.1.0/24"), Pop: "b", Weight: 20}, {Prefix: p("30.0.0.0/24"), Pop: "a", Weight: 50}, {Prefix: p("30.0.0.0/24"), Pop: "c", Weight: 50}},
			map[string]float64{"20.0.0.0/24": 400, "20.0.1.0/24": 100}, 2, 100,
		},
		"nothing tells what a query stands for": {
			[]rtt.Query{{Prefix: p("20.0.2.0/24"), Pop: "a", Weight: 50}},
			map[string]float64{"20.0.0.0/24": 400, "20.0.1.0/24": 100}, 2, 100,
		},
	} {
		t.Run(name, func(t *testing.T) {
			pl := New(usual)
			o, err := pl.Step(asking(c.queries...), true)
			if err != nil || o.Mode != Solved {
				t.Fatal(err, o.Mode)
			}
			if len(o.Measured) != c.measured || math.Abs(o.Known-5./6) > 1e-9 || o.Background[2] != c.idle {
				t.Errorf("%d measured, %v known, background %v", len(o.Measured), o.Known, o.Background)
			}
			if len(pl.problem.Clients) != len(c.want) || len(o.Assigned) != len(c.want) {
				t.Errorf("demand of %v", pl.problem.Clients)
			}
			asked := 0.0
			for network, want := range c.want {
				d, ok := o.Demand(netip.PrefixFrom(p(network).Addr().Next(), 32))
				if !ok || d.Prefix != p(network) || math.Abs(d.Amount-want) > 0.01 {
					t.Errorf("demand %+v, want %v of %s", d, want, network)
				}
				if isNew := network != "20.0.0.0/24" && network != "20.0.1.0/24"; d.Asked != isNew {
					t.Errorf("%+v: from queries alone: %v", d, d.Asked)
				}
				asked += want
			}
			if want := asked - 500; want > 1 && c.idle == 0 && math.Abs(o.Asked-want) > 0.01 {
				t.Errorf("%v from queries, want %v", o.Asked, want)
			}
		})
	}
	if _, ok := (&Outcome{}).Demand(p("20.0.0.0/24")); ok {
		t.Error("demand without a plan")
	}
}

// Queries make no demand known where measurements do not: anybody can ask.
func TestQueriesAloneMakeNoPlan(t *testing.T) {
	in := asking(rtt.Query{Prefix: netip.MustParsePrefix("20.0.2.0/24"), Pop: "a", Weight: 500})
	in.Measured = rtt.Merge(start, []string{"a", "b", "c"}, nil)
	if o, err := New(usual).Step(in, true); err != nil || o.Mode != Shedding || !o.ByMap || o.Known != 0 {
		t.Errorf("%v, mode %s, known %v", err, o.Mode, o.Known)
	}
}
