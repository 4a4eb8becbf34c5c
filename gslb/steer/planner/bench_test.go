package planner

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/cidr"
)

// BenchmarkStep is a turn of a large fleet: 50 PoPs, 200,000 networks of which each
// is measured at two.
func BenchmarkStep(b *testing.B) {
	const pops, networks = 50, 200_000
	r := rand.New(rand.NewPCG(7, 8))
	in := Input{Now: start}
	var names []string
	snapshots := make([]rtt.Snapshot, pops)
	for j := range pops {
		names = append(names, fmt.Sprint("p", j))
		in.Pops = append(in.Pops, Pop{Name: names[j], Lat: 160*r.Float64() - 80, Lon: 360*r.Float64() - 180, Open: true, Load: 600 + 400*r.Float64(), Ceiling: 1200, At: start})
		snapshots[j] = rtt.Snapshot{Pop: names[j], At: start, HalfLife: rtt.DefaultHalfLife}
	}
	for i := range networks {
		n := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(16 + i>>16), byte(i >> 8), byte(i), 0}), 24)
		home := r.IntN(pops)
		in.Clients = append(in.Clients, steer.Client{Prefix: cidr.From(n), Lat: in.Pops[home].Lat, Lon: in.Pops[home].Lon + 4*r.Float64() - 2})
		for _, j := range []int{home, (home + 1) % pops} {
			snapshots[j].Entries = append(snapshots[j].Entries, rtt.Entry{Prefix: n, RTT: time.Duration(2+200*r.Float64()) * time.Millisecond, Weight: 1 + 50*r.Float64()})
		}
	}
	p := New(usual)
	turn := func() {
		in.Now = in.Now.Add(time.Minute)
		in.Measured = rtt.Merge(in.Now, names, snapshots)
		o, err := p.Step(in, true)
		if err != nil || o.Mode != Solved || len(o.Losses) != pops {
			b.Fatal(err, o.Mode)
		}
	}
	turn() // the first one finds no memory to use again
	b.ReportAllocs()
	for b.Loop() {
		turn()
	}
}
