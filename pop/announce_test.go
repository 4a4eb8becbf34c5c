package pop

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"anyedge/bgp"
	"anyedge/configs"
	"anyedge/internal/fleet"
)

// actionsConfig has two neighbors, of which one is treated apart in every state.
const actionsConfig = `
node: {name: fra-1, pop: fra, region: eu}
fleet: {memory: true}
listeners: [{name: web, address: "127.0.0.1:8080", clear: true}]
routes: [{pool: api}]
pools: [{name: api, backends: [{address: "127.0.0.1:9000"}]}]
bgp:
  asn: 64512
  router_id: 10.0.1.1
  prefixes: [192.0.2.0/24, "2001:db8:1::/48"]
  next_hop: {ipv4: 10.0.1.1, ipv6: "2001:db8::1"}
  actions:
    - {name: prepend-2, prepend: 2}
    - {name: prepend-16, prepend: 16}
    - {name: tag, communities: ["64500:1"], large_communities: ["64500:1:2"], extended_communities: ["rt:64500:1"]}
    - {name: med-0, med: 0}
    - {name: withhold, withhold: true}
  announce: {med: 10, communities: ["64512:100"], actions: [prepend-2]}
  drain: {med: 2000, communities: [graceful-shutdown]}
  neighbors:
    - {address: 10.0.1.254, asn: 64500, actions: {announce: [tag, med-0], deprefer: [prepend-16], drain: [withhold]}}
    - {address: 10.0.1.253, asn: 64499}
    - {address: 10.0.1.252, asn: 64499}
`

// viewOf is what of a set is for one neighbor.
func viewOf(routes []bgp.Announcement, neighbor string) map[netip.Prefix]bgp.Announcement {
	view := make(map[netip.Prefix]bgp.Announcement)
	for _, r := range routes {
		for _, n := range r.Neighbors {
			if n == netip.MustParseAddr(neighbor) {
				r.Neighbors = nil
				view[r.Prefix] = r
			}
		}
	}
	return view
}

func TestAnnouncementsOfEachStateAndNeighbor(t *testing.T) {
	cfg := parse(t, actionsConfig).BGP
	const gshut = uint32(bgp.GracefulShutdown)
	for _, tc := range []struct {
		name      string
		announced Announcement
		draining  bool
		apart     bgp.Announcement // to the first neighbor
		others    bgp.Announcement // to each of the others
	}{
		{"announced", Announced, false,
			bgp.Announcement{
				MED: 0, Prepend: 2, Communities: bgp.Communities{64512<<16 | 100, 64500<<16 | 1},
				LargeCommunities:    bgp.LargeCommunities{{GlobalAdmin: 64500, Data1: 1, Data2: 2}},
				ExtendedCommunities: bgp.ExtendedCommunities{0x0002fbf400000001},
			},
			bgp.Announcement{MED: 10, Prepend: 2, Communities: bgp.Communities{64512<<16 | 100}}},
		{"de-preferred", Depreferred, false,
			bgp.Announcement{MED: 1000, Prepend: 16, Communities: bgp.Communities{gshut}}, // 3 and 16 are 16
			bgp.Announcement{MED: 1000, Prepend: 3, Communities: bgp.Communities{gshut}}},
		{"draining", Depreferred, true,
			bgp.Announcement{MED: 2000, Communities: bgp.Communities{gshut}, Withheld: "action withhold"},
			bgp.Announcement{MED: 2000, Communities: bgp.Communities{gshut}}},
		{"withdrawn", Withdrawn, false,
			bgp.Announcement{Withheld: "withdrawn"}, bgp.Announcement{Withheld: "withdrawn"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			routes := announcements(cfg, tc.announced, nil, tc.draining)
			if err := bgp.CheckAnnouncements(routes); err != nil {
				t.Fatal(err)
			}
			for neighbor, want := range map[string]bgp.Announcement{"10.0.1.254": tc.apart, "10.0.1.253": tc.others, "10.0.1.252": tc.others} {
				view := viewOf(routes, neighbor)
				if len(view) != len(cfg.Prefixes) {
					t.Errorf("%s has %d routes", neighbor, len(view))
				}
				for prefix, got := range view {
					want := want
					want.Prefix, want.NextHop = prefix, cfg.NextHop.IPv4
					if prefix.Addr().Is6() {
						want.NextHop = cfg.NextHop.IPv6
					}
					if tc.announced == Withdrawn { // what it would be does not matter
						if got.Withheld != want.Withheld {
							t.Errorf("%s of %s withheld: %q", prefix, neighbor, got.Withheld)
						}
						continue
					}
					if len(want.LargeCommunities) == 0 {
						want.LargeCommunities, want.ExtendedCommunities = bgp.LargeCommunities{}, bgp.ExtendedCommunities{}
					}
					if !reflect.DeepEqual(got, want) {
						t.Errorf("%s\n got %+v\nwant %+v", neighbor, got, want)
					}
				}
			}
		})
	}
}

// A set names its neighbors one by one: one that comes with a reload must not get
// what was meant for the others before it has a place in the set.
func TestEveryAnnouncementNamesItsNeighbors(t *testing.T) {
	for _, text := range []string{testConfig, actionsConfig} {
		cfg := parse(t, text).BGP
		for _, a := range Announcements() {
			for _, r := range announcements(cfg, a, nil, false) {
				if len(r.Neighbors) == 0 {
					t.Errorf("%s: %+v is for everybody", a, r)
				}
			}
		}
	}
}

// A prefix that is drained has the shape of a drain, the others do not.
func TestExceptionsHaveTheShapeOfADrain(t *testing.T) {
	cfg := parse(t, actionsConfig).BGP
	one := cfg.Prefixes[0]
	ex := except(Announced, RuleHealthy, fleet.Orders{Prefixes: []fleet.Drain{{Prefix: one}}})
	for prefix, r := range viewOf(announcements(cfg, Announced, ex, false), "10.0.1.253") {
		if want := map[bool]uint32{true: 2000, false: 10}[prefix == one]; r.MED != want {
			t.Errorf("%s has MED %d, want %d", prefix, r.MED, want)
		}
	}
}

// A drain that begins while the route is de-preferred already changes its shape,
// and its end changes it back.
func TestDrainOfADepreferredNode(t *testing.T) {
	simulate(t, func(t *testing.T, n *node) {
		n.await(Announced, 10*time.Second)
		n.vitals.Pools[0].Usable = 0
		n.await(Depreferred, time.Second)
		med := func() uint32 { return n.sets[len(n.sets)-1][0].MED }
		if med() != 1000 {
			t.Errorf("MED %d while de-preferred", med())
		}
		n.view.orders.Drain = &fleet.Drain{Scope: fleet.ScopeNode, Name: "fra-1"}
		n.run(2 * tick)
		if n.c.route.announced != Depreferred || med() != 2000 {
			t.Errorf("%s with MED %d, the drain's is 2000", n.c.route.announced, med())
		}
		n.view.orders.Drain = nil
		n.run(2 * tick)
		if n.c.route.announced != Depreferred || med() != 1000 {
			t.Errorf("%s with MED %d after the drain", n.c.route.announced, med())
		}
	}, "router_id: 10.0.1.1", "router_id: 10.0.1.1\n  drain: {med: 2000}")
}

// What a valid config may say, the speaker must know.
func TestCommunitiesOfAConfigAreTheSpeakers(t *testing.T) {
	type form struct{ key, text string }
	var forms []form
	for _, text := range []string{"0:0", "65535:65535", "graceful-shutdown", "no-export", "no-advertise", "64512:00", "+1:1", "1_0:1", "1:2:3", "no-export-subconfed", ""} {
		forms = append(forms, form{"communities", text})
	}
	for _, text := range []string{"0:0:0", "4294967295:4294967295:4294967295", "4294967296:0:0", "1:2", "01:2:3", "1:2:3:4", "-1:2:3"} {
		forms = append(forms, form{"large_communities", text})
	}
	for _, text := range []string{
		"rt:0:0", "rt:65535:4294967295", "rt:65536:65535", "rt:65536:65536", "ro:192.0.2.1:65535", "ro:192.0.2.1:65536", "rt:2001::1:1", "xx:1:1",
		"0x030b000000000064", "0X030b000000000064", "0x030B00000000006F", "0x30b", "0x030b00000000006g", "0x_30b000000000064", "0x0002fbf400000001",
	} {
		forms = append(forms, form{"extended_communities", text})
	}
	taken := 0
	for _, f := range forms {
		text := strings.Replace(actionsConfig, "{name: tag, communities: [\"64500:1\"], large_communities: [\"64500:1:2\"], extended_communities: [\"rt:64500:1\"]}",
			"{name: tag, "+f.key+": [\""+f.text+"\"]}", 1)
		cfg, err := configs.ParsePop("pop.yaml", []byte(text))
		if err != nil {
			continue
		}
		taken++
		if err := CheckBGP(cfg); err != nil {
			t.Errorf("%s %q: %v", f.key, f.text, err)
		}
	}
	if taken < 14 {
		t.Errorf("only %d forms are valid", taken)
	}
}

// What only the speaker can tell is told before anything changes.
func TestCheckBGP(t *testing.T) {
	reserved := strings.Replace(actionsConfig, "rt:64500:1", "0x0601020000000001", 1) // a type that has no such bits
	many := strings.Replace(actionsConfig, `communities: ["64500:1"]`, `communities: ["`+strings.Join(distinct(101), `", "`)+`"]`, 1)
	for name, tc := range map[string]struct{ text, want string }{
		"good":     {actionsConfig, ""},
		"reserved": {reserved, "extended community"},
		"too many": {many, "communities are more than 100"},
	} {
		err := CheckBGP(parse(t, tc.text))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func distinct(n int) []string {
	var all []string
	for i := range n {
		all = append(all, bgp.FormatCommunity(uint32(64500<<16+i)))
	}
	return all
}
