package steer

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// What is told ahead is what queries get, for every policy: each region is one
// decision, and its length the scope; what is undecided differs by lot or subnet.
func TestDecisionsAreWhatQueriesGet(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	undecided, decided := 0, 0
	for range 200 {
		base := netip.MustParsePrefix("10.0.0.0/8")
		if r.IntN(2) == 0 {
			base = netip.MustParsePrefix("2001:db8::/32")
		}
		in := world(r, base, base.Bits()+1, base.Bits()+20, 1+r.IntN(30))
		sources(r, &in, base, base.Bits()+1, base.Bits()+20, 1+r.IntN(30))
		in.Names[0].Policy = Policy(r.IntN(len(policies)))
		table := build(t, in)
		for _, n := range table.Names() {
			for f := range families {
				d, ttl := table.Decisions(n, f)
				ask := func(client netip.Prefix, want, scope int) {
					t.Helper()
					q := Query{Name: n, Family: f, Client: client, Random: r.Uint64()}
					got, _ := table.Answer(q)
					if want == Undecided {
						undecided++
						return
					}
					decided++
					if !slices.Equal(got.Addrs, d.Addrs[want]) || got.Scope != scope || got.TTL != ttl {
						t.Fatalf("%s %d for %v: %+v, told %v, scope %d", n, f, client, got, d.Addrs[want], scope)
					}
				}
				for range 3 {
					ask(netip.Prefix{}, d.Nowhere, 0)
					ask(netip.PrefixFrom(netip.IPv6Unspecified(), 0), d.Nowhere, 0)
				}
				if d.Regions == nil {
					ask(netip.PrefixFrom(within(r, base), base.Addr().BitLen()), d.Nowhere, 0)
					continue
				}
				for client := range families {
					next := netip.IPv6Unspecified()
					if client == IPv4 {
						next = netip.IPv4Unspecified()
					}
					for p, decision := range d.Regions.All(client) {
						if p.Addr() != next || p != p.Masked() {
							t.Fatalf("%v after %v", p, next)
						}
						next = last(p).Next()
						for _, a := range []netip.Addr{p.Addr(), last(p), within(r, p)} {
							if a != netip.IPv4Unspecified() && a != netip.IPv6Unspecified() {
								ask(netip.PrefixFrom(a, a.BitLen()), decision, p.Bits())
							}
						}
					}
					if next.IsValid() {
						t.Fatalf("nothing from %v on", next)
					}
				}
			}
		}
	}
	if decided < 10_000 || undecided < 1000 {
		t.Errorf("%d decided, %d undecided", decided, undecided)
	}
	var none *Table
	if d, _ := none.Decisions("www.example", IPv4); d != nil {
		t.Error("no table decides")
	}
	for range (*Regions)(nil).All(IPv4) {
		t.Error("no regions")
	}
}
