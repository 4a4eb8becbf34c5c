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

func TestQueriesAreCountedByNetwork(t *testing.T) {
	c := NewQueryCounter(time.Minute, 1000)
	for _, q := range []struct {
		client, pop string
		queries     float64
	}{
		{"198.51.100.7/32", "fra", 100}, {"198.51.100.0/24", "fra", 60}, {"198.51.100.0/24", "iad", 50},
		{"198.51.96.0/20", "fra", 40}, {"198.51.101.0/24", "fra", 9}, {"::ffff:198.51.100.9/128", "fra", 40},
		{"2001:db8:1:2::7/128", "iad", 80}, {"2001:db8:2::/56", "iad", 20}, {"2001:db8:3::/48", "iad", 20},
		// Of no use:
		{"10.1.2.3/32", "fra", 99}, {"127.0.0.1/32", "fra", 99}, {"0.0.0.0/0", "fra", 99}, {"203.0.113.0/24", "", 99}, {"203.0.113.0/24", "fra", 0},
		{"192.0.0.0/7", "fra", 99},
	} {
		c.Add(netip.MustParsePrefix(q.client), q.pop, q.queries)
	}
	c.Add(netip.Prefix{}, "fra", 99)
	c.Snapshot(start, 1)
	s := c.Snapshot(start.Add(time.Minute), 16)
	var got []string
	for _, q := range s.Queries {
		got = append(got, fmt.Sprintf("%v %s %.4g", q.Prefix, q.Pop, q.Weight))
	}
	want := []string{"198.51.96.0/20 fra 24.5", "198.51.100.0/24 fra 100", "198.51.100.0/24 iad 25", "2001:db8::/40 iad 20", "2001:db8:1::/48 iad 40"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if s := c.Snapshot(start.Add(20*time.Minute), 1); len(s.Queries) != 0 || len(c.cells) != 0 {
		t.Errorf("after twenty half-lives %d of %d are left", len(s.Queries), len(c.cells))
	}
}

func TestQueriesAreBounded(t *testing.T) {
	c := NewQueryCounter(time.Minute, 100)
	heavy := netip.MustParsePrefix("198.51.100.0/24")
	c.Add(heavy, "fra", 50)
	for i := range 5000 {
		c.Add(netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 1}), 24), "fra", 1)
		if len(c.cells) > 100 {
			t.Fatalf("%d networks after %d", len(c.cells), i)
		}
	}
	if c.cells[queryKey{heavy, "fra"}] != 50 {
		t.Error("the heaviest network was dropped")
	}
}

func randomQueries(r *rand.Rand, n int) QuerySnapshot {
	c := NewQueryCounter(15*time.Minute, n)
	for range n {
		family := r.IntN(2)
		length := lengths[family][min(4, r.IntN(20))]
		a := address(uint64(0x20)<<(lengths[family][0]-8)|r.Uint64N(1<<(lengths[family][0]-8)), family)
		c.Add(netip.PrefixFrom(a, length), fmt.Sprint("p", r.IntN(9)), MinWeight*math.Exp(12*r.Float64()))
	}
	return c.Snapshot(start, 0)
}

func TestQueriesAreEncoded(t *testing.T) {
	s := randomQueries(rand.New(rand.NewPCG(1, 2)), 5000)
	sum := func(s QuerySnapshot) (sum float64) {
		for _, q := range s.Queries {
			sum += q.Weight
		}
		return sum
	}
	whole, err := s.Encode([]byte("before"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeQueries(whole[len("before"):])
	if err != nil || !got.At.Equal(s.At) || got.HalfLife != s.HalfLife || len(got.Queries) != len(s.Queries) {
		t.Fatalf("%v %v with %d of %d entries, %v", got.At, got.HalfLife, len(got.Queries), len(s.Queries), err)
	}
	for i, q := range got.Queries {
		if want := s.Queries[i]; q.Prefix != want.Prefix || q.Pop != want.Pop || !near(q.Weight, want.Weight, 0.06) {
			t.Fatalf("%+v came back as %+v", want, q)
		}
	}
	if again, err := got.Encode([]byte("before"), 1<<20); err != nil || !bytes.Equal(again, whole) {
		t.Errorf("what was decoded does not encode to the same bytes, %v", err)
	}
	for _, limit := range []int{smallest, 8192} {
		b, err := s.Encode(nil, limit)
		if err != nil || len(b) > limit {
			t.Fatalf("limit %d: %d bytes, %v", limit, len(b), err)
		}
		short, err := DecodeQueries(b)
		if err != nil {
			t.Fatal(err)
		}
		if limit == 8192 && (len(short.Queries) < 500 || !near(sum(short), sum(s), 0.15)) {
			t.Errorf("%d entries with %.0f of %.0f queries", len(short.Queries), sum(short), sum(s))
		}
	}
	for _, bad := range []QuerySnapshot{{At: start}, {HalfLife: time.Minute}} {
		if _, err := bad.Encode(nil, 4096); err == nil {
			t.Errorf("%+v encoded", bad)
		}
	}
}

func TestQueriesAreMerged(t *testing.T) {
	p := netip.MustParsePrefix("198.51.100.0/24")
	at := func(age time.Duration, queries ...Query) QuerySnapshot {
		return QuerySnapshot{At: start.Add(-age), HalfLife: time.Minute, Queries: queries}
	}
	table := MergeQueries(start, []string{"fra", "iad"}, []QuerySnapshot{
		at(0, Query{p, "fra", 30}, Query{p, "iad", 5}), at(time.Minute, Query{p, "fra", 20}), // weighs 10 by now
		at(8*time.Minute, Query{p, "iad", 100}), at(0, Query{p, "nowhere", 9}), at(-time.Minute, Query{p, "iad", 2}),
		{Queries: []Query{{p, "iad", 100}}},
	})
	if want := (QueryTable{{p, 0, 40}, {p, 1, 7}}); !slices.Equal(table, want) {
		t.Errorf("%v, want %v", table, want)
	}
}

func FuzzDecodeQueries(f *testing.F) {
	for n := range 4 {
		b, err := randomQueries(rand.New(rand.NewPCG(3, uint64(n))), n*10).Encode(nil, 4096)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeQueries(b)
		if err != nil {
			return
		}
		for i, q := range s.Queries {
			if q.Prefix != q.Prefix.Masked() || q.Pop == "" || !(q.Weight > 0) || math.IsInf(q.Weight, 1) {
				t.Fatalf("entry %+v", q)
			}
			if i > 0 && compareQueries(s.Queries[i-1], q) >= 0 {
				t.Fatalf("%v is after %v", q, s.Queries[i-1])
			}
		}
		again, err := s.Encode(nil, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeQueries(again); err != nil || !slices.Equal(back.Queries, s.Queries) {
			t.Fatalf("encoded again: %d entries of %d, %v", len(back.Queries), len(s.Queries), err)
		}
	})
}

func BenchmarkQuerySnapshot(b *testing.B) {
	c := NewQueryCounter(15*time.Minute, 1<<16)
	r := rand.New(rand.NewPCG(5, 6))
	for range 1 << 16 {
		c.Add(netip.PrefixFrom(address(r.Uint64N(1<<24), 0), 24), fmt.Sprint("p", r.IntN(50)), 500*r.ExpFloat64())
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Snapshot(start, 512).Encode(nil, 64<<10); err != nil {
			b.Fatal(err)
		}
	}
}
