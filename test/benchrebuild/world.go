package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"anyedge/gslb/steer"
	"anyedge/internal/cidr"
)

const zone = "bench.example"

// size is how large a world is.
type size struct{ pops, names, networks int }

var full = size{pops: 1000, names: 10_000, networks: 1_000_000}

// Of the networks, one in v6Share is an IPv6 one. Each is at one of so many
// places.
const (
	v6Share = 10
	places  = 10_000
)

// input returns a world that is the same every time. Names have ten to all of
// the PoPs as candidates, in eight sets.
func input(s size) steer.Input {
	random := rand.New(rand.NewPCG(1, 1))
	somewhere := func() (lat, lon float64) { return random.Float64()*180 - 90, random.Float64()*360 - 180 }
	in := steer.Input{
		Pops:     make([]steer.Pop, s.pops),
		Clients:  make([]steer.Client, s.networks),
		Assigned: make([]steer.Assigned, s.networks),
		Shares:   make([][]steer.Share, s.pops),
		Names:    make([]steer.Name, s.names),
	}
	answers := make([]steer.Answer, s.pops)
	for i := range in.Pops {
		lat, lon := somewhere()
		name := fmt.Sprintf("p%03d", i)
		in.Pops[i] = steer.Pop{Name: name, Lat: lat, Lon: lon, State: steer.Up, Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)}),
		}}
		answers[i] = steer.Answer{Pop: name, Weight: 1}
		in.Shares[i] = []steer.Share{{Pop: i, Share: 1}}
	}
	var at [places][2]float64
	for i := range at {
		at[i][0], at[i][1] = somewhere()
	}
	for i := range s.networks {
		p := cidr.From(network(s, i))
		place := at[random.IntN(places)]
		in.Clients[i] = steer.Client{Prefix: p, Lat: place[0], Lon: place[1]}
		in.Assigned[i] = steer.Assigned{Prefix: p, Shares: int32(random.IntN(s.pops))}
	}
	for i := range in.Names {
		candidates := min(10+i%8*s.pops/8, s.pops)
		in.Names[i] = steer.Name{Name: name(i), Policy: steer.Capacity, TTL: 20 * time.Second, Answers: answers[:candidates]}
	}
	return in
}

func name(i int) string { return fmt.Sprintf("n%d.%s", i, zone) }

// network is one of the client networks, which are in order: /24s, then /48s.
func network(s size, i int) netip.Prefix {
	if v4 := s.networks - s.networks/v6Share; i >= v4 {
		i -= v4
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, byte(i >> 16), byte(i >> 8), byte(i)}), 48)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i)}), 24)
}

// change makes the change in the fleet that rebuild i is for: another PoP is
// drained; and with odd ones a name comes or goes.
func change(in *steer.Input, i int) {
	for p := range in.Pops {
		in.Pops[p].Drained = p == i%len(in.Pops)
	}
	if keepsNames(i) {
		return
	}
	last := &in.Names[len(in.Names)-1]
	last.Name = fmt.Sprintf("m%d.%s", i, zone)
}

func keepsNames(i int) bool { return i%2 == 0 }

// records is the zone.
func records() string {
	var b strings.Builder
	b.WriteString("@ 300 SOA ns1 hostmaster 1 3600 900 604800 60\n@ 300 NS ns1\nns1 300 A 192.0.2.53\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "h%d 300 A 192.0.2.%d\n", i, i%250+1)
	}
	return b.String()
}
