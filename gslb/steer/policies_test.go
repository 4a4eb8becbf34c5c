package steer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/internal/cidr"
)

// sources adds measured and assigned networks to a random world.
func sources(r *rand.Rand, in *Input, base netip.Prefix, low, high, networks int) {
	for range 4 {
		row := make([]int32, len(in.Pops))
		for j := range row {
			row[j] = int32(r.IntN(50)) - 15
		}
		in.Rows = append(in.Rows, row)
	}
	seen := make(map[netip.Prefix]bool)
	prefix := func() netip.Prefix {
		if len(in.Clients) > 0 && r.IntN(3) == 0 {
			return in.Clients[r.IntN(len(in.Clients))].Prefix.Netip() // known of two sources
		}
		p, _ := within(r, base).Prefix(low + r.IntN(high-low+1))
		return p
	}
	for range networks {
		if p := prefix(); !seen[p] {
			seen[p] = true
			in.Measured = append(in.Measured, Measured{cidr.From(p), int32(r.IntN(len(in.Rows)))})
		}
	}
	clear(seen)
	for range networks {
		p := prefix()
		if seen[p] {
			continue
		}
		seen[p] = true
		var shares []Share
		for j := range in.Pops {
			if r.IntN(3) == 0 {
				shares = append(shares, Share{j, float64(1+r.IntN(2)) / 4})
			}
		}
		in.assign(cidr.From(p), shares...)
	}
	slices.SortFunc(in.Measured, func(a, b Measured) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(in.Assigned, func(a, b Assigned) int { return a.Prefix.Compare(b.Prefix) })
}

// assign adds a network to the plan.
func (in *Input) assign(p cidr.Prefix, shares ...Share) {
	in.Assigned = append(in.Assigned, Assigned{p, int32(len(in.Shares))})
	in.Shares = append(in.Shares, shares)
}

// oracleOf decides by the documentation of the policies, for inputs in which the
// oracle of nearest yields a PoP or a lot.
func oracleOf(in Input, n Name, f Family, addr netip.Addr) string {
	usable := usableNames(in, n, f)
	best, decision := -1, oracle(in, n, f, addr)
	for _, c := range in.Clients {
		if c.Prefix.Contains(addr) {
			best = max(best, c.Prefix.Bits())
		}
	}
	if decision == "everything" || decision == "nothing" || n.Policy == Nearest {
		return decision
	}
	for _, m := range in.Measured {
		if !m.Prefix.Contains(addr) || m.Prefix.Bits() < best {
			continue
		}
		least, at := int32(math.MaxInt32), ""
		for _, name := range usable {
			j := slices.IndexFunc(in.Pops, func(p Pop) bool { return p.Name == name })
			if rtt := in.Rows[m.Row][j]; rtt >= 0 && rtt < least {
				least, at = rtt, name
			}
		}
		if at != "" {
			best, decision = m.Prefix.Bits(), at
		}
	}
	if n.Policy != Capacity {
		return decision
	}
	for _, a := range in.Assigned {
		if !a.Prefix.Contains(addr) || a.Prefix.Bits() < best {
			continue
		}
		var parts []string
		for _, s := range in.Shares[a.Shares] {
			if name := in.Pops[s.Pop].Name; slices.Contains(usable, name) {
				parts = append(parts, fmt.Sprint(name, "*", s.Share))
			}
		}
		switch {
		case len(parts) == 1:
			name, _, _ := strings.Cut(parts[0], "*")
			best, decision = a.Prefix.Bits(), name
		case len(parts) > 1:
			length, _ := subnetOf(addr)
			subnet, _ := addr.Prefix(length)
			best, decision = a.Prefix.Bits(), fmt.Sprint("one of ", parts, " for ", subnet)
		}
	}
	return decision
}

func usableNames(in Input, n Name, f Family) (names []string) {
	for _, state := range []State{Up, Unknown} {
		any := false
		for _, a := range n.Answers {
			p := popNamed(in, a.Pop)
			if p.State != state || p.Drained {
				continue
			}
			any = true
			if slices.ContainsFunc(p.Addresses, func(a netip.Addr) bool { return a.Is4() == (f == IPv4) }) {
				names = append(names, p.Name)
			}
		}
		if any {
			return names
		}
	}
	return nil
}

func TestMeasuredAndAssignedNetworksAgainstTheOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, base := range []struct {
		prefix    string
		low, high int
	}{{"0.0.0.0/0", 0, 32}, {"10.1.0.0/16", 16, 28}, {"2001:db8::/32", 32, 64}} {
		prefix := netip.MustParsePrefix(base.prefix)
		for range 60 {
			in := world(r, prefix, base.low, base.high, r.IntN(20))
			sources(r, &in, prefix, base.low, base.high, r.IntN(20))
			in.Names[0].Policy = []Policy{Latency, Capacity}[r.IntN(2)]
			table, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			// Decisions change where any network begins or ends.
			all := in
			all.Clients = slices.Clone(in.Clients)
			for _, m := range in.Measured {
				all.Clients = append(all.Clients, Client{Prefix: m.Prefix})
			}
			for _, a := range in.Assigned {
				all.Clients = append(all.Clients, Client{Prefix: a.Prefix})
			}
			corners := corners(all, prefix.Addr().Is4())
			for f := range families {
				decide := remembered(func(a netip.Addr) string { return oracleOf(in, in.Names[0], f, a) })
				for _, addr := range append([]netip.Addr{within(r, prefix)}, corners...) {
					q := Query{"www.example", f, netip.PrefixFrom(addr, 1+r.IntN(addr.BitLen())), r.Uint64()}
					addr := q.Client.Masked().Addr()
					got, _ := table.Answer(q)
					want := decide(addr)
					// The subnet beside this one is where a split decides anew.
					length, _ := subnetOf(addr)
					edges := append(slices.Clone(corners), beside(addr, length))
					if scope := scopeByTrying(decide, edges, addr); got.Scope != scope && want != "everything" && want != "nothing" {
						t.Fatalf("%v for %v %v: scope %d, want %d (%s)", in.Names[0].Policy, q.Client, f, got.Scope, scope, want)
					}
					switch {
					case want == "lot" && got.Reason != NoPlace, want == "everything" && got.Reason != NoneUsable, want == "nothing" && got.Reason != NoAddress:
						t.Fatalf("%v: %+v, want %s", q.Client, got, want)
					case strings.HasPrefix(want, "one of"):
						if !strings.Contains(want, got.Pops[0]+"*") {
							t.Fatalf("%v: %+v, want %s", q.Client, got, want)
						}
					case want[0] == 'p' && got.Pops[0] != want:
						t.Fatalf("%v: %+v, want %s", q.Client, got, want)
					}
					explained, err := table.Explain(q)
					if err != nil || !slices.Equal(explained.Pops, got.Pops) || explained.Scope != got.Scope || explained.Reason != got.Reason.String() {
						t.Fatalf("%+v is explained as %+v, %v", got, explained, err)
					}
				}
			}
		}
	}
}

// beside is the first address of the other half of the prefix around one of
// length.
func beside(a netip.Addr, length int) netip.Addr {
	b := a.AsSlice()
	b[(length-1)/8] ^= 1 << (7 - (length-1)%8)
	other, _ := netip.AddrFromSlice(b)
	p, _ := other.Prefix(length)
	return p.Addr()
}

func TestStickyFollowsWeightsAndSubnets(t *testing.T) {
	in := edge()
	in.Names = append(in.Names, Name{"sticky.example", Sticky, 20 * time.Second, []Answer{{"fra", 3}, {"iad", 1}, {"sin", 0}}})
	table := build(t, in)
	lost := edge()
	lost.Names = in.Names
	set(&lost, "iad=down")
	without := build(t, lost)
	count := make(map[string]int)
	for i := range 8000 {
		addr := netip.AddrFrom4([4]byte{100, byte(i >> 8), byte(i), byte(i)})
		q := Query{"sticky.example", IPv4, netip.PrefixFrom(addr, 32), uint64(i)}
		a, _ := table.Answer(q)
		if a.Scope != 24 || a.Reason != BySubnet {
			t.Fatalf("%+v", a)
		}
		q.Client, q.Random = netip.PrefixFrom(addr, 24), 0
		if again, _ := table.Answer(q); again.Pops[0] != a.Pops[0] {
			t.Fatalf("%v: %s for an address, %s for its subnet", addr, a.Pops[0], again.Pops[0])
		}
		count[a.Pops[0]]++
		if b, _ := without.Answer(q); a.Pops[0] != "iad" && b.Pops[0] != a.Pops[0] {
			t.Fatalf("%v moved from %s to %s when iad went", addr, a.Pops[0], b.Pops[0])
		}
	}
	if count["fra"] < 5800 || count["fra"] > 6200 || count["sin"] > 0 {
		t.Errorf("%v, want three quarters at fra, none at sin", count)
	}
	if a, _ := table.Answer(Query{Name: "sticky.example"}); a.Scope != 0 || a.Reason != NoPlace {
		t.Errorf("a client that says nothing gets %+v", a)
	}
	if a, _ := without.Answer(Query{Name: "sticky.example", Client: netip.MustParsePrefix("192.0.2.0/24")}); a.Scope != 0 || a.Pops[0] != "fra" {
		t.Errorf("with one PoP of weight left: %+v", a)
	}
}

func TestPlanSplitsFollowTheirShares(t *testing.T) {
	in := edge()
	in.Names = []Name{{"plan.example", Capacity, 20 * time.Second, in.Names[0].Answers}}
	in.assign(cidr.MustParse("100.0.0.0/8"), Share{0, 0.6}, Share{2, 0.4})
	before := build(t, in)
	in.Shares = [][]Share{{{0, 0.5}, {2, 0.5}}}
	after := build(t, in)
	count, moved := 0, 0
	const subnets = 20000
	for i := range subnets {
		q := Query{"plan.example", IPv4, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(i >> 8), byte(i), 0}), 24), 0}
		a, _ := before.Answer(q)
		b, _ := after.Answer(q)
		if a.Pops[0] == "fra" {
			count++
		}
		if a.Pops[0] != b.Pops[0] {
			moved++
			if a.Pops[0] == "sin" {
				t.Fatalf("%v left the PoP that gained", q.Client)
			}
		}
	}
	if share := float64(count) / subnets; math.Abs(share-0.6) > 0.015 {
		t.Errorf("%.3f of subnets at fra, want 0.6", share)
	}
	if share := float64(moved) / subnets; math.Abs(share-0.1) > 0.015 {
		t.Errorf("%.3f of subnets moved, want 0.1", share)
	}
}

func TestOverrides(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, test := range []struct {
		about     string
		overrides []Override
		want      string
	}{
		{"none", nil, "fra"},
		{"without", []Override{{Names: "first.example", Pops: "fra"}}, "iad"},
		{"pattern", []Override{{Names: "*.EXAMPLE.", Pops: "[fi]*"}}, "sin"},
		{"only", []Override{{Names: "*", Pops: "sin", Only: true}}, "sin"},
		{"expired", []Override{{Names: "*", Pops: "fra", Until: now}}, "fra"},
		{"not yet expired", []Override{{Names: "*", Pops: "fra", Until: now.Add(time.Second)}}, "iad"},
		{"of another name", []Override{{Names: "near.*", Pops: "fra"}}, "fra"},
		{"would leave none", []Override{{Names: "*", Pops: "*"}}, "fra"},
		{"one after the other", []Override{{Names: "*", Pops: "fra"}, {Names: "*", Pops: "i*"}}, "sin"},
	} {
		in := edge()
		in.Now, in.Overrides = now, test.overrides
		table := build(t, in)
		got, _ := table.Answer(Query{Name: "first.example"})
		if got.Pops[0] != test.want {
			t.Errorf("%s: %s, want %s", test.about, got.Pops[0], test.want)
		}
		want := time.Time{}
		if test.about == "not yet expired" {
			want = now.Add(time.Second)
		}
		if next := table.NextExpiry(); !next.Equal(want) {
			t.Errorf("%s: next expiry %v, want %v", test.about, next, want)
		}
	}
	// The operator's word goes before health.
	in := edge()
	in.Overrides = []Override{{Names: "*", Pops: "sin", Only: true}}
	set(&in, "sin=down")
	if got, _ := build(t, in).Answer(Query{Name: "first.example"}); got.Pops[0] != "sin" || got.Reason != NoneUsable {
		t.Errorf("pinned to a PoP that is down: %+v", got)
	}
}

func TestExplainLaysOutEachStage(t *testing.T) {
	in := edge()
	in.Now = time.Unix(1_700_000_000, 0)
	in.Names = []Name{{"plan.example", Capacity, 20 * time.Second, in.Names[0].Answers}}
	in.Rows = [][]int32{{12_100, 95_000, -1}}
	in.Measured = []Measured{{cidr.MustParse("198.51.100.0/24"), 0}}
	in.assign(cidr.MustParse("198.51.96.0/20"), Share{0, 0.7}, Share{1, 0.3})
	in.assign(cidr.MustParse("198.51.100.0/24"), Share{0, 1})
	in.Overrides = []Override{{Names: "*.example", Pops: "sin", Until: in.Now.Add(time.Hour), Why: "maintenance"}}
	in.Pops[0].Note = "report 2s old"
	table := build(t, in)
	q := Query{"plan.example", IPv4, netip.MustParsePrefix("198.51.100.0/24"), 1}
	for _, test := range []struct {
		without []string
		want    string
	}{
		{nil, `plan.example A for 198.51.100.0/24, policy capacity
  override  drops sin: *.example: without sin until 2023-11-14T23:13:20Z (maintenance)
  override  leaves fra iad
  health    leaves fra iad
  family    leaves fra iad
  fra       weight 3, 478 km, 12.1 ms, 100 % of the plan
  iad       weight 1, 6190 km, 95.0 ms, 0 % of the plan
  decided   by plan of 198.51.100.0/24
  answer    fra: 192.0.2.1
            scope /24, TTL 20s, reason capacity
`},
		{[]string{"fra"}, `plan.example A for 198.51.100.0/24, policy capacity, without fra
  override  drops sin: *.example: without sin until 2023-11-14T23:13:20Z (maintenance)
  override  leaves fra iad
  health    drops fra: down, by request
  health    leaves iad
  family    leaves iad
  iad       weight 1, 6190 km, 95.0 ms, 0 % of the plan
  decided   by measured latency of 198.51.100.0/24
  answer    iad: 192.0.2.2
            scope /0, TTL 20s, reason capacity
`},
	} {
		e, err := table.Explain(q, test.without...)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.String(); got != test.want {
			t.Errorf("got\n%s\nwant\n%s", got, test.want)
		}
	}
	if _, err := table.Explain(q, "nowhere"); err == nil || !strings.Contains(err.Error(), `no pop "nowhere"`) {
		t.Errorf("error %v", err)
	}
	if _, err := table.Explain(Query{Name: "other.example"}); err == nil {
		t.Error("a name that is not steered is explained")
	}
}

func TestBuildRefusesBadSources(t *testing.T) {
	for _, test := range []struct {
		damage func(*Input)
		want   string
	}{
		{func(in *Input) { in.Rows = [][]int32{{1}} }, "rows[0]: 1 times for 3 pops"},
		{func(in *Input) { in.Measured = []Measured{{cidr.MustParse("10.0.0.0/8"), 0}} }, "measured[0]: there is no row 0"},
		{func(in *Input) { in.assign(cidr.MustParse("10.0.0.1/8")) }, "assigned[0]: 10.0.0.1/8 is not in its canonical form"},
		{func(in *Input) { in.assign(cidr.MustParse("10.0.0.0/8"), Share{3, 1}) }, "shares[0]: 1 of pop 3 is not a share"},
		{func(in *Input) { in.Assigned = []Assigned{{cidr.MustParse("10.0.0.0/8"), 0}} }, "assigned[0]: there are no shares 0"},
		{func(in *Input) {
			p := cidr.MustParse("10.0.0.0/8")
			in.assign(p)
			in.assign(p)
		}, "assigned[1]: 10.0.0.0/8 is not above"},
		{func(in *Input) { in.Overrides = []Override{{Names: "[", Pops: "*"}} }, `overrides[0]: "[" is not a pattern`},
	} {
		in := edge()
		test.damage(&in)
		if _, err := Build(in); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

// The size that a table must be built for in two seconds on one core.
func BenchmarkBuildLarge(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	var in Input
	const pops, places, networks = 1000, 10000, 1_000_000
	var answers []Answer
	for i := range pops {
		p := Pop{Name: fmt.Sprintf("p%03d", i), Lat: r.Float64()*180 - 90, Lon: r.Float64()*360 - 180, State: Up}
		p.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)})}
		in.Pops = append(in.Pops, p)
		answers = append(answers, Answer{p.Name, 1})
		in.Shares = append(in.Shares, []Share{{i, 1}})
	}
	var at [places][2]float64
	for i := range at {
		at[i] = [2]float64{r.Float64()*180 - 90, r.Float64()*360 - 180}
	}
	for i := range networks {
		p := cidr.From(netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(11 + i>>16), byte(i >> 8), byte(i), 0}), 24))
		in.Assigned = append(in.Assigned, Assigned{p, int32(r.IntN(pops))})
		in.Clients = append(in.Clients, Client{p, at[i%places][0], at[i%places][1]})
	}
	for i := range 10_000 {
		in.Names = append(in.Names, Name{fmt.Sprintf("n%d.example", i), Capacity, 20 * time.Second, answers[:10+i%8*100]})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(in); err != nil {
			b.Fatal(err)
		}
	}
}
