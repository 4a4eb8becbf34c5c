package rtt

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var start = time.Unix(1_700_000_000, 0)

// crowd adds n clients of one network, each with one connection.
func crowd(c *Collector, now time.Time, network string, n int, rtt time.Duration) {
	a := netip.MustParsePrefix(network).Addr()
	for i := range n {
		if a = a.Next(); a.Is6() { // to the next /64
			b := a.As16()
			b[7] = byte(i)
			a = netip.AddrFrom16(b)
		}
		c.Add(now, a, rtt, 1)
	}
}

func entry(s Snapshot, network string) (Entry, bool) {
	i := slices.IndexFunc(s.Entries, func(e Entry) bool { return e.Prefix == netip.MustParsePrefix(network) })
	if i < 0 {
		return Entry{}, false
	}
	return s.Entries[i], true
}

func near(a, b, ratio float64) bool { return math.Abs(a-b) <= ratio*math.Abs(b) }

func TestMeanIsGeometricAndDecays(t *testing.T) {
	c := NewCollector(Config{HalfLife: time.Minute, K: 1})
	client := netip.MustParseAddr("198.51.100.7")
	c.Add(start, client, 10*time.Millisecond, 4)
	c.Add(start.Add(time.Minute), client, 40*time.Millisecond, 2) // the four weigh two by now
	e, ok := entry(c.Snapshot(start.Add(2*time.Minute), "fra"), "198.51.100.0/24")
	if !ok || !near(float64(e.RTT), float64(20*time.Millisecond), 1e-6) || !near(e.Weight, 2, 1e-6) {
		t.Fatalf("%+v, want 20ms with weight 2", e)
	}
	if s := c.Snapshot(start.Add(4*time.Minute+time.Second), "fra"); len(s.Entries) != 0 || c.Len() != 0 {
		t.Errorf("%v is still there below the least weight", s.Entries)
	}
}

func TestWhatIsNoMeasureIsIgnored(t *testing.T) {
	c := NewCollector(Config{K: 1})
	for _, test := range []struct {
		addr string
		rtt  time.Duration
		n    int
	}{
		{"198.51.100.7", 0, 1}, {"198.51.100.7", 4 * time.Second, 1}, {"198.51.100.7", time.Second, 0},
		{"10.1.2.3", time.Second, 1}, {"127.0.0.1", time.Second, 1}, {"fd00::1", time.Second, 1}, {"fe80::1", time.Second, 1}, {"0.0.0.0", time.Second, 1},
	} {
		c.Add(start, netip.MustParseAddr(test.addr), test.rtt, test.n)
	}
	c.Add(start, netip.Addr{}, time.Second, 1)
	if c.Len() != 0 {
		t.Errorf("%d networks kept", c.Len())
	}
	c.Add(start, netip.MustParseAddr("::ffff:198.51.100.7"), time.Second, 1)
	if _, ok := entry(c.Snapshot(start, "fra"), "198.51.100.0/24"); !ok {
		t.Error("a mapped address is not counted as IPv4")
	}
}

func TestSmallNetworksAreMergedUpward(t *testing.T) {
	c := NewCollector(Config{K: 8})
	crowd(c, start, "198.51.100.0/24", 60, 10*time.Millisecond)
	crowd(c, start, "198.51.96.0/24", 6, 20*time.Millisecond)
	crowd(c, start, "198.51.97.0/24", 6, 20*time.Millisecond)
	crowd(c, start, "203.0.113.0/24", 3, 30*time.Millisecond)
	crowd(c, start, "2001:db8:1::/48", 60, 40*time.Millisecond)
	for i := range 40 { // many networks with one client each
		crowd(c, start, fmt.Sprintf("2001:db8:aa%02x::/48", i), 1, 50*time.Millisecond)
	}
	s := c.Snapshot(start, "fra")
	for network, want := range map[string]time.Duration{
		"198.51.100.0/24": 10 * time.Millisecond, "198.51.96.0/20": 20 * time.Millisecond,
		"2001:db8:1::/48": 40 * time.Millisecond, "2001:db8:aa00::/40": 50 * time.Millisecond,
	} {
		if e, ok := entry(s, network); !ok || !near(float64(e.RTT), float64(want), 1e-6) {
			t.Errorf("%s: %+v, want %v", network, e, want)
		}
	}
	if len(s.Entries) != 4 {
		t.Errorf("entries %+v: three clients of one network alone must not show", s.Entries)
	}
}

// No entry stands for fewer than K clients, whoever comes.
func TestPrivacyHoldsForRandomClients(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		k := 1 + r.IntN(20)
		c := NewCollector(Config{K: k})
		clients := make(map[netip.Addr]bool)
		for range 400 {
			a := netip.AddrFrom4([4]byte{byte(20 + r.IntN(3)), byte(r.IntN(3)), byte(r.IntN(20)), byte(r.IntN(1 + r.IntN(200)))})
			clients[a] = true
			c.Add(start, a, 10*time.Millisecond, 1+r.IntN(5))
		}
		entries := c.Snapshot(start, "fra").Entries
		for client := range clients { // each counts for the longest entry around it
			longest := -1
			for i, e := range entries {
				if e.Prefix.Contains(client) && (longest < 0 || e.Prefix.Bits() > entries[longest].Prefix.Bits()) {
					longest = i
				}
			}
			if longest >= 0 {
				entries[longest].RTT++ // of no more use here than to count
			}
		}
		base := c.Snapshot(start, "fra").Entries
		for i, e := range entries {
			if got := int(e.RTT - base[i].RTT); got < k {
				t.Fatalf("round %d: %v stands for %d clients, K is %d", round, e.Prefix, got, k)
			}
		}
	}
}

// A host of IPv6 takes new addresses all the time, and stays one client.
func TestOneHostOfIPv6IsOneClient(t *testing.T) {
	c := NewCollector(Config{K: 2})
	a := netip.MustParseAddr("2001:db8::")
	for range 100 {
		a = a.Next()
		c.Add(start, a, 10*time.Millisecond, 1)
	}
	if s := c.Snapshot(start, "fra"); len(s.Entries) != 0 {
		t.Errorf("%+v shows one client", s.Entries)
	}
}

// A process goes on from what the one before it published, and that fades.
func TestWithAnEarlierSnapshot(t *testing.T) {
	p := netip.MustParsePrefix
	earlier := Snapshot{Pop: "fra", At: start, HalfLife: time.Minute, Entries: []Entry{
		{p("198.51.100.0/24"), 10 * time.Millisecond, 16, 80}, {p("203.0.113.0/24"), 30 * time.Millisecond, 4, 0}, {p("2001:db8::/48"), 50 * time.Millisecond, 1, 0},
	}}
	now := Snapshot{Pop: "fra", At: start.Add(2 * time.Minute), HalfLife: time.Minute, Entries: []Entry{
		{p("192.0.2.0/24"), 20 * time.Millisecond, 2, 7}, {p("198.51.100.0/24"), 40 * time.Millisecond, 4, 4},
	}}
	got := now.With(earlier)
	want := []Entry{
		{p("192.0.2.0/24"), 20 * time.Millisecond, 2, 7}, {p("198.51.100.0/24"), 20 * time.Millisecond, 8, 24}, {p("203.0.113.0/24"), 30 * time.Millisecond, 1, 0},
	}
	if len(got.Entries) != len(want) || got.At != now.At {
		t.Fatalf("%+v, want %+v", got, want)
	}
	for i, e := range got.Entries {
		if e.Prefix != want[i].Prefix || !near(float64(e.RTT), float64(want[i].RTT), 1e-6) || !near(e.Weight, want[i].Weight, 1e-6) || !near(e.Requests, want[i].Requests, 1e-6) {
			t.Errorf("%+v, want %+v", e, want[i])
		}
	}
	if len(now.Entries) != 2 || len(earlier.Entries) != 3 {
		t.Error("what it was made of has changed")
	}
	earlier.Pop = "iad"
	if got := now.With(earlier); len(got.Entries) != 2 {
		t.Errorf("%+v has what another PoP measured", got)
	}
	if got := now.With(Snapshot{}); len(got.Entries) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestSketchesForgetClients(t *testing.T) {
	c := NewCollector(Config{K: 8, HalfLife: time.Minute})
	crowd(c, start, "198.51.100.0/24", 40, 10*time.Millisecond)
	one := netip.MustParseAddr("198.51.100.200")
	for i := range 10 {
		c.Add(start.Add(time.Duration(i)*30*time.Second), one, 10*time.Millisecond, 100)
	}
	if s := c.Snapshot(start.Add(5*time.Minute), "fra"); len(s.Entries) != 0 {
		t.Errorf("%+v shows the one client that is left", s.Entries)
	}
}

func TestNetworksAreBounded(t *testing.T) {
	c := NewCollector(Config{Networks: 100, K: 1})
	c.Add(start, netip.MustParseAddr("198.51.100.1"), 10*time.Millisecond, 50)
	for i := range 5000 {
		c.Add(start, netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 1}), 10*time.Millisecond, 1)
		if c.Len() > 100 {
			t.Fatalf("%d networks after %d", c.Len(), i)
		}
	}
	if _, ok := entry(c.Snapshot(start, "fra"), "198.51.100.0/24"); !ok {
		t.Error("the heaviest network was dropped")
	}
}

// listed returns the entries of cells.
func listed(cells map[netip.Prefix]cell) []Entry {
	var all []network
	for prefix, at := range cells {
		all = append(all, network{prefix, at})
	}
	return entriesOf(fold(all, func(*cell) bool { return true }))
}

// random makes a snapshot with so many networks of both families.
func random(r *rand.Rand, pop string, n int) Snapshot {
	cells := make(map[netip.Prefix]cell)
	for range n {
		family := r.IntN(2)
		length := lengths[family][min(4, r.IntN(20))]
		p := netip.PrefixFrom(address(r.Uint64N(1<<lengths[family][0]), family), length).Masked()
		w := MinWeight * math.Exp(8*r.Float64())
		cells[p] = cell{log: math.Log(1000 * math.Exp(4*r.Float64())), weight: w, requests: w * 0.05 * math.Exp(10*r.Float64()) * float64(r.IntN(2))}
	}
	return Snapshot{Pop: pop, At: start, HalfLife: 15 * time.Minute, Entries: listed(cells)}
}

func TestEncodingKeepsAllButSomePrecision(t *testing.T) {
	s := random(rand.New(rand.NewPCG(3, 4)), "fra", 3000)
	b, err := s.Encode(nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Pop != s.Pop || !got.At.Equal(s.At) || got.HalfLife != s.HalfLife || len(got.Entries) != len(s.Entries) {
		t.Fatalf("%s %v %v with %d entries", got.Pop, got.At, got.HalfLife, len(got.Entries))
	}
	for i, e := range got.Entries {
		want := s.Entries[i]
		if e.Prefix != want.Prefix || !near(float64(e.RTT), float64(want.RTT), 0.021) || !near(e.Weight, want.Weight, 0.2) || !near(e.Requests/e.Weight, want.Requests/want.Weight, 0.035) {
			t.Fatalf("%+v came back as %+v", want, e)
		}
	}
	again, err := got.Encode(nil, 1<<20)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("what was decoded does not encode to the same bytes, %v", err)
	}
}

func TestEncodingFitsItsLimit(t *testing.T) {
	s := random(rand.New(rand.NewPCG(5, 6)), "fra", 20000)
	sum := func(s Snapshot) (sum float64) {
		for _, e := range s.Entries {
			sum += e.Weight
		}
		return sum
	}
	all, _ := s.Encode(nil, 1<<20)
	if perEntry := float64(len(all)) / float64(len(s.Entries)); perEntry > 9 {
		t.Errorf("%.1f bytes for an entry", perEntry)
	}
	for _, limit := range []int{smallest, 4096, 50_000} {
		b, err := s.Encode([]byte("before"), limit)
		if err != nil || len(b)-len("before") > limit {
			t.Fatalf("limit %d: %d bytes, %v", limit, len(b), err)
		}
		got, err := Decode(b[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		if limit == 50_000 && (len(got.Entries) < 3000 || !near(sum(got), sum(s), 0.1)) {
			t.Errorf("%d of %d entries with %.0f of weight %.0f", len(got.Entries), len(s.Entries), sum(got), sum(s))
		}
	}
	for _, bad := range []Snapshot{{Pop: "", At: start, HalfLife: time.Minute}, {Pop: "fra", At: start}, {Pop: "fra", HalfLife: time.Minute}} {
		if _, err := bad.Encode(nil, 4096); err == nil {
			t.Errorf("%+v encoded", bad)
		}
	}
}

// What a node of the version before has published: it says nothing of requests.
func TestOlderVersionIsRead(t *testing.T) {
	b := []byte{1, 3, 'f', 'r', 'a', 0xc0, 0xd4, 0x90, 0xcd, 0x06, 0x84, 0x07, // 2026-03-01 12:00, 900 s
		2, 0x80, 0x80, 0x50, 113, 5, 1, 140, 31, // 20.0.0.0/24 and 20.0.1.0/24
		1, 0x80, 0x80, 0xe0, 0xed, 0x90, 0x80, 0x08, 98, 1<<5 | 9} // 2001:db8::/40
	s, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if s.Pop != "fra" || s.HalfLife != DefaultHalfLife || len(s.Entries) != 3 || s.Entries[1].Prefix.String() != "20.0.1.0/24" {
		t.Errorf("%+v", s)
	}
	for _, e := range s.Entries {
		if !near(e.Requests, usual*e.Weight, 1e-9) {
			t.Errorf("%+v makes unusually many requests", e)
		}
	}
	if _, err := Decode(append([]byte{version + 1}, b[1:]...)); err == nil {
		t.Error("read a version to come")
	}
}

// Requests count where connections are known, fade alike, and are merged alike.
func TestRequests(t *testing.T) {
	c := NewCollector(Config{K: 8, HalfLife: time.Minute})
	client := netip.MustParseAddr("198.51.100.1")
	c.AddRequests(start, client, 64) // nobody is known there yet
	crowd(c, start, "198.51.100.0/24", 60, 10*time.Millisecond)
	crowd(c, start, "203.0.113.0/24", 6, 10*time.Millisecond)
	crowd(c, start, "203.0.112.0/24", 6, 10*time.Millisecond)
	for _, one := range []string{"198.51.100.1", "::ffff:198.51.100.9", "203.0.112.1", "203.0.113.1", "192.0.2.1"} {
		c.AddRequests(start, netip.MustParseAddr(one), 64)
	}
	c.AddRequests(start, client, 0)
	c.AddRequests(start, netip.Addr{}, 64)
	s := c.Snapshot(start.Add(time.Minute), "fra")
	for _, network := range []string{"198.51.100.0/24", "203.0.112.0/20"} {
		if e, ok := entry(s, network); !ok || !near(e.Requests, 64, 1e-9) {
			t.Errorf("%s after a half-life: %+v, want 64 requests", network, e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for n := range 4 {
		b, err := random(rand.New(rand.NewPCG(7, uint64(n))), "fra", n*10).Encode(nil, 4096)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		for i, e := range s.Entries {
			if e.Prefix != e.Prefix.Masked() || e.RTT < Least || e.RTT > Greatest+time.Millisecond || !(e.Weight > 0) || !(e.Requests >= 0) {
				t.Fatalf("entry %+v", e)
			}
			if i > 0 && s.Entries[i-1].Prefix.Compare(e.Prefix) >= 0 {
				t.Fatalf("%v is after %v", e.Prefix, s.Entries[i-1].Prefix)
			}
		}
		again, err := s.Encode(nil, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Decode(again); err != nil || len(back.Entries) != len(s.Entries) {
			t.Fatalf("encoded again: %d entries of %d, %v", len(back.Entries), len(s.Entries), err)
		}
	})
}

func TestMergeAveragesNodesAndAgesThem(t *testing.T) {
	p := netip.MustParsePrefix("198.51.100.0/24")
	at := func(pop string, age time.Duration, rtt time.Duration, weight float64) Snapshot {
		return Snapshot{Pop: pop, At: start.Add(-age), HalfLife: time.Minute, Entries: []Entry{{p, rtt, weight, 5 * weight}}}
	}
	table := Merge(start, []string{"fra", "iad"}, []Snapshot{
		at("fra", 0, 10*time.Millisecond, 3), at("fra", time.Minute, 40*time.Millisecond, 6), // weighs 3 by now
		at("iad", 4*time.Minute, 90*time.Millisecond, 7), // too old
		at("nowhere", 0, time.Millisecond, 100),
		at("iad", -time.Minute, 80*time.Millisecond, 1), // a clock ahead counts as now
	})
	got := table.Lookup(nil, p)
	if len(got) != 2 || got[0].Pop != 0 || !near(float64(got[0].RTT), float64(20*time.Millisecond), 1e-4) || !near(got[0].Weight, 6, 1e-6) || !near(got[0].Requests, 30, 1e-6) ||
		!near(float64(got[1].RTT), float64(80*time.Millisecond), 1e-4) {
		t.Errorf("%+v", got)
	}
}

// Lookup against a scan of all entries.
func TestLookupTakesTheLongestNetworkForEachPop(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	pops := []string{"a", "b", "c"}
	for range 30 {
		var snapshots []Snapshot
		for _, pop := range pops {
			cells := make(map[netip.Prefix]cell)
			for range 60 {
				family := r.IntN(2)
				length := lengths[family][r.IntN(5)]
				n := 0xC6<<16 | r.Uint64N(1<<10)<<6
				if family == 1 {
					n = 0x2001<<32 | r.Uint64N(1<<10)<<22
				}
				cells[netip.PrefixFrom(address(n, family), length).Masked()] = cell{log: 8 + r.Float64(), weight: 1}
			}
			snapshots = append(snapshots, Snapshot{Pop: pop, At: start, HalfLife: time.Minute, Entries: listed(cells)})
		}
		table := Merge(start, pops, snapshots)
		for _, network := range table.Networks() {
			got := table.Lookup(nil, network)
			for pop, s := range snapshots {
				want := Entry{}
				for _, e := range s.Entries {
					if e.Prefix.Bits() <= network.Bits() && e.Prefix.Contains(network.Addr()) && (!want.Prefix.IsValid() || e.Prefix.Bits() > want.Prefix.Bits()) {
						want = e
					}
				}
				i := slices.IndexFunc(got, func(m Measure) bool { return m.Pop == pop })
				switch {
				case i < 0 && !want.Prefix.IsValid():
				case i < 0 || got[i].Prefix != want.Prefix || !near(float64(got[i].RTT), float64(want.RTT), 1e-4):
					t.Fatalf("%v to %s: %+v, want %+v", network, pops[pop], got, want)
				}
			}
		}
	}
	if got := Merge(start, pops, nil).Lookup(nil, netip.Prefix{}); got != nil {
		t.Errorf("%+v for no client", got)
	}
}

func TestCostsEstimateWhatIsNotMeasured(t *testing.T) {
	km := []float64{100, 1000, 8000}
	costs := make([]int32, 3)
	Costs(costs, km, nil)
	if !slices.Equal(costs, []int32{9350, 21500, 116000}) {
		t.Errorf("by distance alone %v", costs)
	}
	Costs(costs, km, []Measure{{Pop: 1, RTT: 33500 * time.Microsecond}}) // 20 ms beyond the path
	if !slices.Equal(costs, []int32{21350, 33500, 128000}) {
		t.Errorf("with a slow last mile %v", costs)
	}
	Costs(costs, km, []Measure{{Pop: 2, RTT: 90 * time.Millisecond}}) // faster than thought
	if costs[0] != 1350 || costs[2] != 90000 {
		t.Errorf("with a fast path %v", costs)
	}
}

func BenchmarkCollector(b *testing.B) {
	c := NewCollector(Config{})
	addrs := make([]netip.Addr, 1<<16)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), byte(i)})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Add(start, addrs[i%len(addrs)], 20*time.Millisecond, 1)
	}
}

func BenchmarkEncode(b *testing.B) {
	s := random(rand.New(rand.NewPCG(1, 1)), "fra", 80000)
	for b.Loop() {
		out, err := s.Encode(nil, 512<<10)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(out))/float64(len(s.Entries)), "B/entry")
	}
}

// BenchmarkPublish is what a busy node does once a minute: tens of thousands of
// networks, most of few clients, are put together until they fit.
func BenchmarkPublish(b *testing.B) {
	c := NewCollector(Config{})
	r := rand.New(rand.NewPCG(5, 6))
	for range 1_000_000 {
		client := netip.AddrFrom4([4]byte{20, byte(r.IntN(256)), byte(20 * r.ExpFloat64()), byte(r.IntN(256))})
		c.Add(start, client, 20*time.Millisecond, 16)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Snapshot(start, "fra").Encode(nil, 64<<10); err != nil {
			b.Fatal(err)
		}
	}
}
