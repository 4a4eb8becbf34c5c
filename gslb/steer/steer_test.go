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

// edge is the input most tests start from: three PoPs on three continents, all
// up, each with both families, and a name for each policy.
func edge() Input {
	pop := func(name string, lat, lon float64, n byte) Pop {
		return Pop{Name: name, Lat: lat, Lon: lon, State: Up, Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{192, 0, 2, n}),
			netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: n}),
		}}
	}
	answers := []Answer{{"fra", 3}, {"iad", 1}, {"sin", 0}}
	return Input{
		Pops: []Pop{pop("fra", 50.11, 8.68, 1), pop("iad", 38.95, -77.45, 2), pop("sin", 1.35, 103.82, 3)},
		Clients: []Client{
			client("198.51.100.0/24", 48.85, 2.35),  // Paris
			client("203.0.113.0/24", 40.71, -74.0),  // New York
			client("2001:db8:a::/48", 35.68, 139.7), // Tokyo
		},
		Names: []Name{
			{"near.example", Nearest, 20 * time.Second, answers},
			{"lot.example", Weighted, 30 * time.Second, answers},
			{"first.example", Failover, 40 * time.Second, answers},
		},
	}
}

func client(prefix string, lat, lon float64) Client {
	return Client{cidr.MustParse(prefix), lat, lon}
}

// set changes PoPs of an input by name: a state, "drained", "v4" or "v6" (keeps
// only that family).
func set(in *Input, changes ...string) {
	for _, c := range changes {
		name, what, _ := strings.Cut(c, "=")
		i := slices.IndexFunc(in.Pops, func(p Pop) bool { return p.Name == name })
		p := &in.Pops[i]
		switch what {
		case "up":
			p.State = Up
		case "down":
			p.State = Down
		case "unknown":
			p.State = Unknown
		case "drained":
			p.Drained = true
		case "v4":
			p.Addresses = p.Addresses[:1]
		case "v6":
			p.Addresses = p.Addresses[1:]
		default:
			panic(c)
		}
	}
}

func build(t *testing.T, in Input) *Table {
	t.Helper()
	table, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestDecisions(t *testing.T) {
	const paris, newYork, nowhere = "198.51.100.7/32", "203.0.113.0/24", "192.168.1.0/24"
	const tokyo = "2001:db8:a:1::/56"
	tests := []struct {
		about   string
		changes string
		name    string
		family  Family
		client  string
		want    string // the PoPs
		scope   int    // 0 also where the lot of the gaps has one winner, the same
		reason  Reason
	}{
		{"nearest, v4 client", "", "near", IPv4, paris, "fra", 24, ByDistance},
		{"nearest, other v4 client", "", "near", IPv4, newYork, "iad", 24, ByDistance},
		{"nearest, v6 client asks for v4", "", "near", IPv4, tokyo, "sin", 48, ByDistance},
		{"nearest, same PoP for v6", "", "near", IPv6, tokyo, "sin", 48, ByDistance},
		{"down is passed over", "fra=down", "near", IPv4, paris, "iad", 0, ByDistance},
		{"drained is passed over", "fra=drained", "near", IPv4, paris, "iad", 0, ByDistance},
		{"up before unknown", "fra=unknown iad=unknown", "near", IPv4, paris, "sin", 0, ByDistance},
		{"unknown before down", "fra=unknown iad=down sin=down", "near", IPv4, tokyo, "fra", 0, ByDistance},
		{"drained and unknown is not usable", "fra=unknown fra=drained iad=unknown sin=down", "near", IPv4, paris, "iad", 0, ByDistance},
		{"all down", "fra=down iad=down sin=down", "near", IPv4, paris, "fra iad sin", 0, NoneUsable},
		{"all down or drained", "fra=drained iad=down sin=drained", "lot", IPv6, paris, "fra iad sin", 0, NoneUsable},
		{"all down under failover", "fra=down iad=down sin=down", "first", IPv6, paris, "fra iad sin", 0, NoneUsable},
		{"no v6 at the nearest", "fra=v4", "near", IPv6, paris, "iad", 0, ByDistance},
		{"which does not matter to v4", "fra=v4", "near", IPv4, paris, "fra", 24, ByDistance},
		{"no v6 at any usable one", "fra=v4 iad=v4 sin=down", "near", IPv6, paris, "", 0, NoAddress},
		{"no v6 at any, under failover", "fra=v4 iad=v4 sin=v4", "first", IPv6, paris, "", 0, NoAddress},
		{"all down, those with v6", "fra=v4 fra=down iad=down sin=down", "near", IPv6, paris, "iad sin", 0, NoneUsable},
		{"failover takes the first", "", "first", IPv4, tokyo, "fra", 0, ByOrder},
		{"then the second", "fra=down", "first", IPv4, tokyo, "iad", 0, ByOrder},
		{"an up one before an earlier unknown one", "fra=unknown", "first", IPv4, tokyo, "iad", 0, ByOrder},
		{"failover skips a PoP without v6", "fra=v4", "first", IPv6, tokyo, "iad", 0, ByOrder},
		{"weight 0 when nothing else is left", "fra=down iad=drained", "lot", IPv4, paris, "sin", 0, ByWeight},
		{"weight 0 up before weight 1 unknown", "fra=unknown iad=unknown", "lot", IPv4, paris, "sin", 0, ByWeight},
		{"no place, one with weight", "fra=down", "near", IPv4, nowhere, "iad", 0, ByDistance},
		{"no place, one left", "fra=down iad=down", "near", IPv4, nowhere, "sin", 0, ByDistance},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			in := edge()
			set(&in, strings.Fields(tt.changes)...)
			got, ok := build(t, in).Answer(Query{tt.name + ".example", tt.family, netip.MustParsePrefix(tt.client), 7})
			if !ok {
				t.Fatal("not a steered name")
			}
			if pops := strings.Join(got.Pops, " "); pops != tt.want || got.Reason != tt.reason {
				t.Errorf("got %q by %v, want %q by %v", pops, got.Reason, tt.want, tt.reason)
			}
			if len(got.Addrs) != len(got.Pops) {
				t.Errorf("%d addresses of %d PoPs", len(got.Addrs), len(got.Pops))
			}
			if tt.reason == ByDistance && tt.client == nowhere {
				return // the scope is that of its gap, which the oracle checks
			}
			if got.Scope != tt.scope {
				t.Errorf("scope %d, want %d", got.Scope, tt.scope)
			}
		})
	}
}

func TestScopeOfSplitNeighbors(t *testing.T) {
	in := edge()
	in.Clients = []Client{
		client("10.0.0.0/9", 50, 8),
		client("10.128.0.0/9", 51, 9),   // the same PoP: they count as one
		client("10.200.1.0/24", 40, 70), // a hole in it
		client("10.200.1.128/25", 50, 8),
	}
	in.Clients[2].Lon = -74
	table := build(t, in)
	for ask, want := range map[string]int{
		"10.1.2.3/32":     9,  // the half without the hole
		"10.255.0.0/16":   11, // down to where the hole's side branches off
		"10.200.1.1/32":   25, // the hole's own half
		"10.200.1.200/32": 25,
		"10.200.0.0/14":   24, // shorter than the scope: its first address stands
		"11.0.0.0/8":      8,
		"0.0.0.0/1":       5,
		"192.0.2.0/24":    1,
		"2001:db8::/32":   0, // no v6 networks at all
		"0.0.0.0/0":       0,
	} {
		got, _ := table.Answer(Query{"near.example", IPv4, netip.MustParsePrefix(ask), 1})
		if got.Scope != want {
			t.Errorf("%s: scope %d, want %d", ask, got.Scope, want)
		}
	}
}

func TestNoClientHasNoPlaceAndScopeZero(t *testing.T) {
	in := edge()
	in.Clients = []Client{client("0.0.0.0/0", 1, 103), client("::/0", 1, 103)} // near sin
	table := build(t, in)
	for _, c := range []netip.Prefix{{}, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		got, _ := table.Answer(Query{"near.example", IPv4, c, 5})
		if got.Reason != NoPlace || got.Scope != 0 || got.Pops[0] == "sin" {
			t.Errorf("%v: got %+v, want a lot among those with weight", c, got)
		}
	}
}

func TestMappedClientIsNotAnIPv4Client(t *testing.T) {
	got, _ := build(t, edge()).Answer(Query{"near.example", IPv4, netip.MustParsePrefix("::ffff:198.51.100.7/128"), 5})
	if got.Reason != NoPlace {
		t.Errorf("got %+v, want no place", got)
	}
}

// Shares follow the weights, for the policy and for clients without a place,
// and agree between the families for equal random values.
func TestLots(t *testing.T) {
	in := edge()
	for _, n := range []string{"lot.example", "near.example"} {
		table := build(t, in)
		const rounds = 40000
		won := make(map[string]int)
		for i := range uint64(rounds) {
			v4, _ := table.Answer(Query{n, IPv4, netip.Prefix{}, i})
			v6, _ := table.Answer(Query{n, IPv6, netip.Prefix{}, i})
			if v4.Pops[0] != v6.Pops[0] {
				t.Fatalf("random %d: %s for v4, %s for v6", i, v4.Pops[0], v6.Pops[0])
			}
			won[v4.Pops[0]]++
		}
		// The standard deviation of the share is 0.0022.
		if share := float64(won["fra"]) / rounds; math.Abs(share-0.75) > 0.01 {
			t.Errorf("%s: fra won %v of all, want 0.75", n, share)
		}
		if won["sin"] != 0 {
			t.Errorf("%s: weight 0 won %d times", n, won["sin"])
		}
	}
}

// A PoP that fails moves only those it had, and they spread by weight.
func TestLotMovesLittle(t *testing.T) {
	in := edge()
	in.Names[1].Answers = []Answer{{"fra", 2}, {"iad", 1}, {"sin", 1}}
	before := build(t, in)
	set(&in, "fra=down")
	after := build(t, in)
	r := rand.New(rand.NewPCG(5, 6))
	var moved, toIAD float64
	for range 20000 {
		q := Query{"lot.example", IPv4, netip.Prefix{}, r.Uint64()}
		a, _ := before.Answer(q)
		b, _ := after.Answer(q)
		if a.Pops[0] == "fra" {
			moved++
			if b.Pops[0] == "iad" {
				toIAD++
			}
		} else if a.Pops[0] != b.Pops[0] {
			t.Fatalf("moved from %s to %s", a.Pops[0], b.Pops[0])
		}
	}
	if share := toIAD / moved; math.Abs(share-0.5) > 0.02 {
		t.Errorf("iad got %v of those that moved, want 0.5", share)
	}
}

func TestSharedAddressIsGivenOnce(t *testing.T) {
	in := edge()
	for i := range in.Pops {
		in.Pops[i].Addresses, in.Pops[i].State = in.Pops[0].Addresses, Down
	}
	got, _ := build(t, in).Answer(Query{Name: "first.example"})
	if len(got.Pops) != 3 || len(got.Addrs) != 1 {
		t.Errorf("got %v %v", got.Pops, got.Addrs)
	}
}

func TestNames(t *testing.T) {
	in := edge()
	in.Names[0].Name = "NEAR.Example."
	table := build(t, in)
	if got := strings.Join(table.Names(), " "); got != "first.example lot.example near.example" {
		t.Errorf("got %s", got)
	}
	if got, ok := table.Answer(Query{Name: Canonical("Near.EXAMPLE.")}); !ok || got.TTL != 20*time.Second {
		t.Errorf("got %+v, %v", got, ok)
	}
	if _, ok := table.Answer(Query{Name: "other.example"}); ok {
		t.Error("answered a name that is not steered")
	}
	if _, ok := table.Answer(Query{Name: "near.example", Family: 2}); ok {
		t.Error("answered a third family")
	}
	var none *Table
	if _, ok := none.Answer(Query{Name: "near.example"}); ok || none.Names() != nil || none.Pops() != nil {
		t.Error("the nil table has names")
	}
}

func TestBuildRefuses(t *testing.T) {
	tests := []struct {
		change func(*Input)
		want   string
	}{
		{func(in *Input) { in.Pops[1].Name = "fra" }, `pops[1]: name "fra" is empty or used twice`},
		{func(in *Input) { in.Pops[1].Lat = 91 }, "pops[1]: 91,-77.45 is not a latitude"},
		{func(in *Input) { in.Pops[1].Lon = math.NaN() }, "pops[1]: 38.95,NaN is not"},
		{func(in *Input) { in.Pops[1].State = 9 }, "pops[1]: State(9) is not a state"},
		{func(in *Input) { in.Pops[2].Addresses = []netip.Addr{{}} }, "pops[2]: "},
		{func(in *Input) { in.Pops[2].Addresses = []netip.Addr{netip.MustParseAddr("::ffff:1.2.3.4")} }, "cannot be an answer"},
		{func(in *Input) { in.Pops[2].Addresses = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} }, "cannot be an answer"},
		{func(in *Input) { in.Clients[0].Prefix = cidr.Prefix{} }, "not valid"},
		{func(in *Input) { in.Clients[0].Prefix = cidr.MustParse("198.51.100.1/24") }, "canonical"},
		{func(in *Input) { in.Clients[0].Prefix = cidr.MustParse("::ffff:1.2.3.0/120") }, "canonical"},
		{func(in *Input) { in.Clients[1] = in.Clients[0] }, "198.51.100.0/24 is listed twice"},
		{func(in *Input) { in.Clients[1].Lat = math.Inf(1) }, "203.0.113.0/24: +Inf"},
		{func(in *Input) { in.Names[1].Name = "Near.example." }, "names[1]: Near.example.: listed twice"},
		{func(in *Input) { in.Names[1].Name = "." }, "names[1]: no name"},
		{func(in *Input) { in.Names[1].Policy = 6 }, "Policy(6) is not a policy"},
		{func(in *Input) { in.Names[1].TTL = time.Millisecond }, "TTL 1ms"},
		{func(in *Input) { in.Names[1].TTL = -time.Second }, "TTL -1s"},
		{func(in *Input) { in.Names[1].Answers = nil }, "no answers"},
		{func(in *Input) { in.Names[1].Answers = []Answer{{"ams", 1}} }, `there is no pop "ams"`},
		{func(in *Input) { in.Names[1].Answers = []Answer{{"fra", -1}} }, "negative weight"},
		{func(in *Input) { in.Names[1].Answers = []Answer{{"fra", 1}, {"fra", 1}} }, `"fra" is listed twice`},
	}
	for _, tt := range tests {
		in := edge()
		tt.change(&in)
		table, err := Build(in)
		if err == nil || table != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

func TestBuildReportsAllErrorsAtOnce(t *testing.T) {
	in := edge()
	in.Pops[0].Lat, in.Clients[0].Lon, in.Names[0].Answers, in.Names[2].TTL = 100, 300, nil, -1
	_, err := Build(in)
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 4 {
		t.Errorf("got %d errors, want 4:\n%v", len(lines), err)
	}
}

func TestBuildLeavesItsInputAlone(t *testing.T) {
	in := edge()
	slices.Reverse(in.Clients)
	before := slices.Clone(in.Clients)
	build(t, in)
	if !slices.Equal(in.Clients, before) {
		t.Error("the clients were put in another order")
	}
}

func TestTextOfEnums(t *testing.T) {
	for _, p := range []Policy{Nearest, Weighted, Failover} {
		if got, err := ParsePolicy(p.String()); err != nil || got != p {
			t.Errorf("%v: got %v, %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("roundest"); err == nil {
		t.Error("parsed a policy that does not exist")
	}
	seen := make(map[string]bool)
	for r := ByDistance; r <= NoAddress; r++ {
		if seen[r.String()] {
			t.Errorf("%v is used twice", r)
		}
		seen[r.String()] = true
	}
	if (Reason(99)).String() != "Reason(99)" || (State(99)).String() != "State(99)" {
		t.Error("a bad value must show")
	}
}

func TestAnswerDoesNotAllocate(t *testing.T) {
	table := build(t, edge())
	client := netip.MustParsePrefix("2001:db8:a:1::/56")
	for _, name := range table.Names() {
		q := Query{Name: name, Family: IPv6, Client: client, Random: 1}
		if n := testing.AllocsPerRun(100, func() { table.Answer(q) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// large is a map of the size that operators have.
func large() Input {
	in := edge()
	r := rand.New(rand.NewPCG(7, 8))
	seen := make(map[netip.Prefix]bool)
	in.Clients = nil
	for len(in.Clients) < 200_000 {
		p, _ := within(r, netip.MustParsePrefix("0.0.0.0/0")).Prefix(16 + r.IntN(9))
		if !seen[p] {
			seen[p] = true
			in.Clients = append(in.Clients, Client{cidr.From(p), float64(r.IntN(180) - 90), float64(r.IntN(360) - 180)})
		}
	}
	slices.SortFunc(in.Clients, CompareClients)
	return in
}

func BenchmarkBuild(b *testing.B) {
	in := large()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	table, err := Build(large())
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range table.Names() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := uint32(0)
			for b.Loop() {
				i += 2654435761
				addr := netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
				table.Answer(Query{name, IPv4, netip.PrefixFrom(addr, 24), uint64(i)})
			}
		})
	}
}
