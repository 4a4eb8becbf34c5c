package gslb

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/xdp"
	"anyedge/internal/cidr"

	"github.com/miekg/dns"
)

// The size that steering is made for: 10,000 names, in eight sets of candidates out
// of 1,000 PoPs, and 1,000,000 client networks at 10,000 places.
const (
	largePops, largeNames, largeNetworks, largePlaces = 1000, 10_000, 1_000_000, 10_000
)

func largeInput() steer.Input {
	r := rand.New(rand.NewPCG(1, 1))
	var in steer.Input
	var answers []steer.Answer
	for i := range largePops {
		name := fmt.Sprintf("p%03d", i)
		in.Pops = append(in.Pops, steer.Pop{Name: name, Lat: r.Float64()*180 - 90, Lon: r.Float64()*360 - 180, State: steer.Up,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})}})
		answers = append(answers, steer.Answer{Pop: name, Weight: 1})
	}
	places := make([][2]float64, largePlaces)
	for i := range places {
		places[i] = [2]float64{r.Float64()*180 - 90, r.Float64()*360 - 180}
	}
	for i := range largeNetworks {
		at := places[r.IntN(largePlaces)]
		in.Clients = append(in.Clients, steer.Client{Prefix: cidr.From(largeNetwork(i)), Lat: at[0], Lon: at[1]})
	}
	for i := range largeNames {
		in.Names = append(in.Names, steer.Name{Name: fmt.Sprintf("n%d.bench.example", i), Policy: steer.Nearest, TTL: 20 * time.Second,
			Answers: answers[:10+i%8*largePops/8]})
	}
	return in
}

// largeNetwork is one of the client networks, which are in order.
func largeNetwork(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i)}), 24)
}

// What a change of one PoP costs the kernel at that size, from the view on: the
// image made and put in force. Its answers are held against those of the slow path.
func BenchmarkKernelLarge(b *testing.B) {
	in := largeInput()
	s, err := New(Config{Listen: []netip.AddrPort{kernelAt4}, Zones: []Zone{
		{Name: "bench.example", Text: "@ 300 SOA ns1 hostmaster 1 3600 900 604800 60\n@ 300 NS ns1\nns1 300 A 192.0.2.53\n"},
	}}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		b.Fatal(err)
	}
	trial := kernelTrial(b, s.view.Load(), xdp.Options{})
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		in.Pops[i%largePops].Drained = true
		if err := s.Update(table(b, in)); err != nil {
			b.Fatal(err)
		}
		v := s.view.Load()
		b.StartTimer()
		exported, _ := v.export(false)
		if err := trial.Update(exported); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		agree(b, v, trial)
		b.StartTimer()
	}
	b.ReportMetric(float64(trial.Bytes())/(1<<20), "image-MB")
}

// agree asks of steered names for client networks at random.
func agree(b *testing.B, v *view, trial *xdp.Trial) {
	b.Helper()
	const queries = 1000
	answered := 0
	for range queries {
		q := asker(fmt.Sprintf("n%d.bench.example", rand.IntN(largeNames)), dns.TypeA)
		q.SetEdns0(1232, false)
		client := largeNetwork(rand.IntN(largeNetworks))
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: client.Addr().AsSlice()}}
		wire, err := q.Pack()
		if err != nil {
			b.Fatal(err)
		}
		kernel, slow := kernelAndSlow(b, v, trial, netip.MustParseAddrPort("198.51.100.1:4000"), wire)
		if kernel == nil {
			continue
		}
		answered++
		if !bytes.Equal(kernel, slow) {
			b.Fatalf("%v\nkernel %x\nslow   %x", q, kernel, slow)
		}
	}
	if answered < queries*9/10 {
		b.Fatalf("%d of %d answered: %v", answered, queries, trial.Outcomes())
	}
}
