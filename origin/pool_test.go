package origin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"anyedge/internal/health"
)

var quiet = slog.New(slog.DiscardHandler)

// addr returns the n-th test address. Nothing is sent there.
func addr(n int) netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:80", n))
}

// backends returns backends 1, 2, … of these weights.
func backends(weights ...int) Set {
	var s Set
	for i, w := range weights {
		s = append(s, Backend{Address: addr(i + 1), Weight: w})
	}
	return s
}

// judgedPool returns a pool that does not run, whose backends have these states.
func judgedPool(t testing.TB, balance string, set Set, states ...health.State) *Pool {
	t.Helper()
	p := NewPool(Config{Name: "test", Balance: balance}, quiet, nil)
	seeds := make(map[netip.AddrPort]health.State)
	for i, s := range states {
		seeds[set[i].Address] = s
	}
	p.Seed(seeds)
	if err := p.Update(set); err != nil {
		t.Fatal(err)
	}
	return p
}

func allHealthy(n int) []health.State {
	return slices.Repeat([]health.State{health.Healthy}, n)
}

func mustPick(t testing.TB, p *Pool, exclude ...netip.AddrPort) *Pick {
	t.Helper()
	pk, err := p.Pick(exclude)
	if err != nil {
		t.Fatal(err)
	}
	return pk
}

func TestRoundRobinHonorsWeightsExactly(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		weights := make([]int, 1+r.IntN(6))
		cycle := 0
		for i := range weights {
			weights[i] = 1 + r.IntN(20)
			cycle += weights[i]
		}
		p := judgedPool(t, RoundRobin, backends(weights...), allHealthy(len(weights))...)
		for range r.IntN(cycle) { // any cycle, not only one from the schedule's start
			mustPick(t, p).Done(nil)
		}
		counts := make(map[netip.AddrPort]int)
		for range 3 * cycle {
			pk := mustPick(t, p)
			counts[pk.Backend().Address]++
			pk.Done(nil)
		}
		for i, w := range weights {
			if got := counts[addr(i+1)]; got != 3*w {
				t.Fatalf("weights %v: backend %d was picked %d times in three cycles", weights, i+1, got)
			}
		}
	}
}

// Picks of many goroutines share the turns: together they are exact too.
func TestRoundRobinIsExactAcrossGoroutines(t *testing.T) {
	p := judgedPool(t, RoundRobin, backends(3, 2, 1), allHealthy(3)...)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 100 {
				pk, err := p.Pick(nil)
				if err != nil {
					t.Error(err)
					return
				}
				pk.Done(nil)
			}
		})
	}
	wg.Wait()
	for i, want := range []uint64{300, 200, 100} {
		b := p.Status().Backends[i]
		if b.Picks != want || b.InFlight != 0 {
			t.Errorf("backend %d: %d picks, %d in flight; want %d and 0", i+1, b.Picks, b.InFlight, want)
		}
	}
}

func TestLeastRequestWithoutLoadHonorsWeights(t *testing.T) {
	p := judgedPool(t, LeastRequest, backends(6, 3, 1), allHealthy(3)...)
	const n = 20000
	for range n {
		mustPick(t, p).Done(nil)
	}
	for i, share := range []float64{0.6, 0.3, 0.1} {
		got := float64(p.Status().Backends[i].Picks) / n
		if got < share-0.03 || got > share+0.03 {
			t.Errorf("backend %d has a share of %.3f, want about %.1f", i+1, got, share)
		}
	}
}

func TestLeastRequestLevelsLoadPerWeight(t *testing.T) {
	p := judgedPool(t, LeastRequest, backends(1, 3), allHealthy(2)...)
	for range 400 { // none ends
		mustPick(t, p)
	}
	s := p.Status()
	// Of two backends both are always drawn, so the balance is exact up to one.
	if a, b := s.Backends[0].InFlight, s.Backends[1].InFlight; a < 99 || a > 101 || a+b != 400 {
		t.Errorf("in flight %d and %d, want 100 and 300", a, b)
	}
}

func TestLeastRequestAvoidsTheBusy(t *testing.T) {
	set := backends(1, 1, 1, 1, 1, 1, 1, 1)
	p := judgedPool(t, LeastRequest, set, allHealthy(len(set))...)
	others := make([]netip.AddrPort, 0, len(set))
	for _, b := range set[1:] {
		others = append(others, b.Address)
	}
	for range 100 {
		mustPick(t, p, others...)
	}
	before := p.Status().Backends[0].Picks
	for range 2000 {
		mustPick(t, p).Done(nil)
	}
	if got := p.Status().Backends[0].Picks - before; got != 0 {
		t.Errorf("the busiest backend got %d more requests while others were idle", got)
	}
}

func TestPickStates(t *testing.T) {
	const U, H, X = health.Unknown, health.Healthy, health.Unhealthy
	for _, tt := range []struct {
		name   string
		states []health.State
		usable []int // from 1
	}{
		{"empty set", nil, nil},
		{"all unknown are used", []health.State{U, U}, []int{1, 2}},
		{"unknown waits for a judgement while one is healthy", []health.State{U, H, U}, []int{2}},
		{"unknown is used when the rest is unhealthy", []health.State{X, U}, []int{2}},
		{"unhealthy never", []health.State{X, X}, nil},
		{"healthy only", []health.State{H, X, H, U}, []int{1, 3}},
	} {
		for _, balance := range []string{RoundRobin, LeastRequest} {
			t.Run(tt.name+"/"+balance, func(t *testing.T) {
				set := backends(slices.Repeat([]int{2}, len(tt.states))...)
				p := judgedPool(t, balance, set, tt.states...)
				if got := p.Status().Usable; got != len(tt.usable) {
					t.Errorf("Usable = %d, want %d", got, len(tt.usable))
				}
				picked := make(map[netip.AddrPort]bool)
				for range 50 * (len(set) + 1) {
					pk, err := p.Pick(nil)
					if len(tt.usable) == 0 {
						if !errors.Is(err, ErrNoBackend) {
							t.Fatalf("error %v, want ErrNoBackend", err)
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					picked[pk.Backend().Address] = true
					pk.Done(nil)
				}
				if len(picked) != len(tt.usable) {
					t.Errorf("picked %v, want backends %v", picked, tt.usable)
				}
				for _, n := range tt.usable {
					if !picked[addr(n)] {
						t.Errorf("backend %d was never picked", n)
					}
				}
			})
		}
	}
}

func TestLeastRequestNeverPicksUnhealthy(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		n := 1 + r.IntN(6)
		weights, states := make([]int, n), make([]health.State, n)
		for i := range n {
			weights[i] = 1 + r.IntN(9)
			states[i] = health.States()[r.IntN(3)]
		}
		p := judgedPool(t, LeastRequest, backends(weights...), states...)
		for range 200 {
			pk, err := p.Pick(nil)
			if err != nil {
				break
			}
			i := slices.IndexFunc(p.set, func(b Backend) bool { return b == pk.Backend() })
			if states[i] == health.Unhealthy {
				t.Fatalf("weights %v, states %v: picked backend %d", weights, states, i)
			}
			if states[i] == health.Unknown && slices.Contains(states, health.Healthy) {
				t.Fatalf("weights %v, states %v: picked unknown backend %d", weights, states, i)
			}
		}
	}
}

func TestPickExcludes(t *testing.T) {
	for _, balance := range []string{RoundRobin, LeastRequest} {
		t.Run(balance, func(t *testing.T) {
			p := judgedPool(t, balance, backends(50, 1, 1), allHealthy(3)...)
			for range 100 {
				if b := mustPick(t, p, addr(1), addr(3)).Backend(); b.Address != addr(2) {
					t.Fatalf("picked %v although it is excluded", b)
				}
			}
			if _, err := p.Pick([]netip.AddrPort{addr(1), addr(2), addr(3)}); !errors.Is(err, ErrNoBackend) {
				t.Errorf("all excluded: error %v", err)
			}
			if got := p.Status().Starved; got != 1 {
				t.Errorf("Starved = %d, want 1", got)
			}
		})
	}
}

func TestDoneCountsOnce(t *testing.T) {
	p := judgedPool(t, "", backends(1), health.Healthy)
	pk := mustPick(t, p)
	if got := p.Status().Backends[0].InFlight; got != 1 {
		t.Errorf("%d in flight, want 1", got)
	}
	pk.Done(errors.New("reset"))
	pk.Done(nil)
	if b := p.Status().Backends[0]; b.InFlight != 0 || b.Picks != 1 || b.Failures != 1 {
		t.Errorf("after Done twice: %+v", b)
	}
}

func TestUpdateRefusesBadSets(t *testing.T) {
	p := judgedPool(t, "", backends(1), health.Healthy)
	before := p.Status()
	bad := Set{
		{Address: addr(1)},
		{Address: netip.MustParseAddrPort("[::ffff:192.0.2.1]:80")},
		{Address: netip.AddrPort{}},
		{Address: netip.MustParseAddrPort("192.0.2.9:0")},
		{Address: addr(5), Weight: -1},
		{Address: addr(6), Weight: MaxWeight + 1},
	}
	err := p.Update(bad)
	if err == nil {
		t.Fatal("no error")
	}
	if v := bad.Validate(); v == nil || v.Error() != err.Error() {
		t.Errorf("Validate says %v", v)
	}
	for _, want := range []string{
		"backends[1].address: 192.0.2.1:80 is also backends[0]",
		"backends[2].address:", "backends[3].address:", "backends[4].weight:", "backends[5].weight:",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if after := p.Status(); !slices.Equal(after.Backends, before.Backends) {
		t.Errorf("a refused set changed the pool: %+v", after)
	}
}

func TestUpdateKeepsCountersByAddress(t *testing.T) {
	p := judgedPool(t, "", backends(1, 1), allHealthy(2)...)
	held := mustPick(t, p, addr(2))
	mustPick(t, p, addr(2)).Done(errors.New("reset"))
	if err := p.Update(Set{{Address: addr(3)}, {Address: addr(1), Weight: 7, Zone: "b"}}); err != nil {
		t.Fatal(err)
	}
	b := p.Status().Backends[1]
	if b.Picks != 2 || b.Failures != 1 || b.InFlight != 1 || b.Weight != 7 || b.Zone != "b" || b.State != health.Healthy {
		t.Errorf("after Update: %+v", b)
	}
	held.Done(nil)
	if got := p.Status().Backends[1].InFlight; got != 0 {
		t.Errorf("a pick from before the Update left %d in flight", got)
	}
	// An address that left and came back starts anew, and what its first life
	// still had in flight does not touch the second.
	held = mustPick(t, p, addr(3))
	if err := p.Update(Set{{Address: addr(3)}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Update(backends(1)); err != nil {
		t.Fatal(err)
	}
	held.Done(nil)
	if b := p.Status().Backends[0]; b.Picks != 0 || b.InFlight != 0 || b.State != health.Unknown {
		t.Errorf("after coming back: %+v", b)
	}
}

// A pick that begins after Update has returned never gets a backend that the
// set does not have.
func TestUpdateAndPickConcurrently(t *testing.T) {
	sets := []Set{backends(1, 2, 3), {{Address: addr(3)}, {Address: addr(4)}}, {{Address: addr(9)}}}
	for _, balance := range []string{RoundRobin, LeastRequest} {
		t.Run(balance, func(t *testing.T) {
			p := judgedPool(t, balance, sets[0])
			// version is odd while an Update is under way; version/2 counts them.
			var version atomic.Int64
			var checked atomic.Int64
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						v := version.Load()
						pk, err := p.Pick(nil)
						if err != nil {
							t.Error(err)
							return
						}
						pk.Done(nil)
						if v%2 == 1 || version.Load() != v {
							continue
						}
						checked.Add(1)
						set := sets[v/2%int64(len(sets))]
						if !slices.ContainsFunc(set, func(b Backend) bool { return b.Address == pk.Backend().Address }) {
							t.Errorf("picked %v, which is not in %v", pk.Backend(), set)
							return
						}
					}
				})
			}
			for n := 1; n <= 300 || checked.Load() < 1000; n++ {
				version.Add(1)
				if err := p.Update(sets[n%len(sets)]); err != nil {
					t.Error(err)
				}
				version.Add(1)
				p.Status()
				if t.Failed() {
					break
				}
			}
			close(stop)
			wg.Wait()
		})
	}
}

func TestSeedBeforeAndAfterUpdate(t *testing.T) {
	states := map[netip.AddrPort]health.State{addr(1): health.Healthy, addr(2): health.Unhealthy}
	for _, first := range []string{"seed", "update"} {
		p := NewPool(Config{}, quiet, nil)
		if first == "seed" {
			p.Seed(states)
		}
		if err := p.Update(backends(1, 1, 1)); err != nil {
			t.Fatal(err)
		}
		if first == "update" {
			p.Seed(states)
		}
		var got []health.State
		for _, b := range p.Status().Backends {
			got = append(got, b.State)
		}
		if want := []health.State{health.Healthy, health.Unhealthy, health.Unknown}; !slices.Equal(got, want) {
			t.Errorf("%s first: states %v, want %v", first, got, want)
		}
	}
}

func TestStatusJSON(t *testing.T) {
	p := judgedPool(t, "", Set{{Address: addr(1), Zone: "a"}}, health.Healthy)
	mustPick(t, p)
	out, err := json.Marshal(p.Status())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"name":"test"`, `"balance":"round_robin"`, `"usable":1`, `"address":"192.0.2.1:80"`, `"weight":1`,
		`"zone":"a"`, `"state":"healthy"`, `"in_flight":1`, `"picks":1`, `"failures":0`, `"warm":0`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s is not in %s", want, out)
		}
	}
	var back Status
	if err := json.Unmarshal(out, &back); err != nil || back.Backends[0].State != health.Healthy {
		t.Errorf("round trip: %+v, %v", back, err)
	}
	if out, _ := json.Marshal(NewPool(Config{}, quiet, nil).Status()); !strings.Contains(string(out), `"backends":[]`) {
		t.Errorf("an empty pool prints %s", out)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, balance := range []string{RoundRobin, LeastRequest} {
		b.Run(balance, func(b *testing.B) {
			p := judgedPool(b, balance, backends(1, 2, 3, 4, 5, 6, 7, 8), allHealthy(8)...)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					pk, err := p.Pick(nil)
					if err != nil {
						b.Error(err)
						return
					}
					pk.Done(nil)
				}
			})
		})
	}
}

func TestPickAllocatesOnlyThePick(t *testing.T) {
	for _, balance := range []string{RoundRobin, LeastRequest} {
		p := judgedPool(t, balance, backends(1, 2, 3), allHealthy(3)...)
		exclude := []netip.AddrPort{addr(2)}
		if n := testing.AllocsPerRun(100, func() { mustPick(t, p, exclude...).Done(nil) }); n > 1 {
			t.Errorf("%s: %v allocations per pick", balance, n)
		}
	}
}

// run runs p until the test ends or the returned function is called, which
// returns after Run has.
func run(t *testing.T, p *Pool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
