package steer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"anyedge/internal/cidr"
)

// The oracle decides by the documentation alone: it scans every network, takes
// distances by the haversine formula, and finds the scope by trying lengths.

// oracle is the decision for an address: a PoP's name, or "lot".
func oracle(in Input, n Name, f Family, addr netip.Addr) string {
	usable := func(state State) (found []Answer) {
		for _, a := range n.Answers {
			if p := popNamed(in, a.Pop); p.State == state && !p.Drained {
				found = append(found, a)
			}
		}
		return found
	}
	answers := usable(Up)
	if answers == nil {
		answers = usable(Unknown)
	}
	if answers == nil {
		return "everything"
	}
	var having, weighty []Answer
	for _, a := range answers {
		for _, addr := range popNamed(in, a.Pop).Addresses {
			if addr.Is4() == (f == IPv4) {
				having = append(having, a)
				if a.Weight > 0 {
					weighty = append(weighty, a)
				}
				break
			}
		}
	}
	if having == nil {
		return "nothing"
	}
	var in1 *Client
	for i, c := range in.Clients {
		if c.Prefix.Contains(addr) && (in1 == nil || c.Prefix.Bits() > in1.Prefix.Bits()) {
			in1 = &in.Clients[i]
		}
	}
	if in1 == nil {
		switch {
		case len(weighty) == 1:
			return weighty[0].Pop
		case len(having) == 1:
			return having[0].Pop
		}
		return "lot"
	}
	best, at := math.Inf(1), ""
	for _, a := range having {
		p := popNamed(in, a.Pop)
		if d := haversine(p.Lat, p.Lon, in1.Lat, in1.Lon); d < best {
			best, at = d, a.Pop
		}
	}
	return at
}

func popNamed(in Input, name string) Pop {
	for _, p := range in.Pops {
		if p.Name == name {
			return p
		}
	}
	panic("no such pop")
}

func haversine(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	s := func(x float64) float64 { return math.Sin(x/2) * math.Sin(x/2) }
	h := s((lat2-lat1)*rad) + math.Cos(lat1*rad)*math.Cos(lat2*rad)*s((lon2-lon1)*rad)
	return 2 * 6371 * math.Asin(math.Min(1, math.Sqrt(h)))
}

// scopeByTrying is the shortest length whose prefix around addr has one
// decision. Decisions change only where a network begins or ends, so it is
// enough to look there.
func scopeByTrying(decide func(netip.Addr) string, corners []netip.Addr, addr netip.Addr) int {
	want := decide(addr)
lengths:
	for length := 0; ; length++ {
		p, _ := addr.Prefix(length)
		if decide(p.Addr()) != want {
			continue
		}
		for _, c := range corners {
			if p.Contains(c) && decide(c) != want {
				continue lengths
			}
		}
		return length
	}
}

// corners are the addresses at which decisions may change: where networks begin,
// and where the address after their end begins.
func corners(in Input, v4 bool) (all []netip.Addr) {
	for _, c := range in.Clients {
		if c.Prefix.Is4() != v4 {
			continue
		}
		all = append(all, c.Prefix.Addr())
		if next := last(c.Prefix.Netip()).Next(); next.IsValid() {
			all = append(all, next)
		}
	}
	return all
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// world makes an input of random PoPs and networks. Networks have a length from
// low to high and lie in base.
func world(r *rand.Rand, base netip.Prefix, low, high, networks int) Input {
	var in Input
	n := Name{Name: "www.example"}
	for i := range 1 + r.IntN(5) {
		p := Pop{
			Name:  fmt.Sprintf("p%d", i),
			Lat:   r.Float64()*180 - 90,
			Lon:   r.Float64()*360 - 180,
			State: []State{Up, Up, Up, Unknown, Down}[r.IntN(5)],
		}
		p.Drained = r.IntN(8) == 0
		if r.IntN(4) > 0 {
			p.Addresses = append(p.Addresses, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		}
		if r.IntN(3) > 0 {
			p.Addresses = append(p.Addresses, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}))
		}
		in.Pops = append(in.Pops, p)
		n.Answers = append(n.Answers, Answer{p.Name, r.IntN(3)})
	}
	in.Names = []Name{n}
	seen := make(map[netip.Prefix]bool)
	for range networks {
		p, _ := within(r, base).Prefix(low + r.IntN(high-low+1))
		if p.Bits() < base.Bits() || seen[p] {
			continue
		}
		seen[p] = true
		in.Clients = append(in.Clients, Client{cidr.From(p), r.Float64()*180 - 90, r.Float64()*360 - 180})
	}
	return in
}

// within is a random address of a prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= byte(r.IntN(2)) << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// check asks for one address and compares with the oracle.
func check(t *testing.T, in Input, table *Table, decide func(netip.Addr) string, f Family, client netip.Prefix, corners []netip.Addr, random uint64) {
	t.Helper()
	addr := client.Masked().Addr()
	got, ok := table.Answer(Query{Name: "www.example", Family: f, Client: client, Random: random})
	if !ok {
		t.Fatal("the name is not there")
	}
	want, reason := decide(addr), got.Reason
	switch want {
	case "everything":
		if reason != NoneUsable || got.Scope != 0 {
			t.Fatalf("%v: got %+v, want everything", client, got)
		}
		return
	case "nothing":
		if reason != NoAddress || got.Scope != 0 || len(got.Addrs) != 0 {
			t.Fatalf("%v: got %+v, want no address", client, got)
		}
		return
	case "lot":
		if reason != NoPlace || len(got.Pops) != 1 {
			t.Fatalf("%v: got %+v, want a lot", client, got)
		}
	default:
		if reason != ByDistance || len(got.Pops) != 1 || got.Pops[0] != want {
			t.Fatalf("%v: got %+v, want %s", client, got, want)
		}
	}
	for _, a := range got.Addrs {
		if a.Is4() != (f == IPv4) {
			t.Fatalf("%v: %v is of the other family", client, a)
		}
	}
	if scope := scopeByTrying(decide, corners, addr); got.Scope != scope {
		t.Fatalf("%v: scope %d, want %d\n%+v", client, got.Scope, scope, in.Clients)
	}
}

// The first byte is the whole universe: networks are at most 8 bits long, so
// 256 addresses stand for all there are, and the oracle tries every one.
func TestEveryAddressOfASmallUniverse(t *testing.T) {
	var universe []netip.Addr
	for i := range 256 {
		universe = append(universe, netip.AddrFrom4([4]byte{byte(i)}))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		in := world(r, netip.MustParsePrefix("0.0.0.0/0"), 0, 8, r.IntN(40))
		table, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		for f := range families {
			decide := remembered(func(a netip.Addr) string { return oracle(in, in.Names[0], f, a) })
			for _, addr := range universe {
				check(t, in, table, decide, f, netip.PrefixFrom(addr, 32), universe, r.Uint64())
			}
		}
	}
}

// Networks of every length, anywhere and crowded together, in both families.
func TestScopeInLargeUniverses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	bases := []struct {
		prefix    string
		low, high int
	}{
		{"0.0.0.0/0", 0, 32},
		{"10.1.2.0/24", 24, 32},
		{"255.255.255.0/24", 24, 32},
		{"::/0", 1, 128},
		{"2001:db8::/32", 32, 64},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120", 120, 128},
	}
	for _, base := range bases {
		for range 25 {
			prefix := netip.MustParsePrefix(base.prefix)
			in := world(r, prefix, base.low, base.high, r.IntN(30))
			table, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			corners := corners(in, prefix.Addr().Is4())
			addrs := append([]netip.Addr{within(r, prefix), within(r, prefix)}, corners...)
			for f := range families {
				decide := remembered(func(a netip.Addr) string { return oracle(in, in.Names[0], f, a) })
				for _, addr := range addrs {
					client := netip.PrefixFrom(addr, 1+r.IntN(addr.BitLen()))
					check(t, in, table, decide, f, client, corners, r.Uint64())
				}
			}
		}
	}
}

// remembered caches a decision function.
func remembered(decide func(netip.Addr) string) func(netip.Addr) string {
	known := make(map[netip.Addr]string)
	return func(a netip.Addr) string {
		d, ok := known[a]
		if !ok {
			d = decide(a)
			known[a] = d
		}
		return d
	}
}
