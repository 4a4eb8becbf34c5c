package planner

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/assign"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/cidr"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var usual = Config{Target: 0.8, Hysteresis: 3 * time.Millisecond, MoveCap: 0.05, Interval: time.Minute, ShedFrom: 0.85, ShedTo: 1}

// edge is a fleet and its clients in closed loop: where a plan sends clients is
// where their load shows up and where they are measured, both late.
type edge struct {
	pops    []Pop
	names   []string
	nets    []netip.Prefix
	at      [][2]float64
	demand  []float64   // connections of each network
	weights [][]float64 // by network and PoP, as nodes gather them
	// requests are what each connection of a network makes.
	requests []float64
	load     [][]float64 // by PoP, of the last minutes, the newest first
	late     int         // minutes by which reports are late
	now      time.Time
	homes    [][]float64 // by network, shares of PoPs
}

// connections a minute come for each that is open.
const churn = 1.0

func newEdge(late int) *edge {
	e := &edge{now: start, late: late}
	r := rand.New(rand.NewPCG(1, 2))
	for i, at := range [][2]float64{{50, 9}, {51, -6}, {40, -74}, {36, 140}} {
		e.names = append(e.names, fmt.Sprint("p", i))
		e.pops = append(e.pops, Pop{Name: e.names[i], Lat: at[0], Lon: at[1], Open: true, Ceiling: 1000})
	}
	for i := range 120 {
		near := e.pops[i%4]
		e.nets = append(e.nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i), 0, 0}), 24))
		e.at = append(e.at, [2]float64{near.Lat + 8*r.Float64() - 4, near.Lon + 8*r.Float64() - 4})
		e.demand = append(e.demand, 5+20*r.Float64())
		e.weights = append(e.weights, make([]float64, 4))
		e.requests = append(e.requests, 10)
		e.homes = append(e.homes, make([]float64, 4))
		e.homes[i][i%4] = 1
	}
	for range 40 { // nodes have measured for a while
		e.minute()
	}
	return e
}

// minute lets clients make connections where they are sent.
func (e *edge) minute() {
	e.now = e.now.Add(time.Minute)
	keep := math.Exp2(-float64(time.Minute) / float64(rtt.DefaultHalfLife))
	load := make([]float64, len(e.pops))
	for i, shares := range e.homes {
		for j, s := range shares {
			e.weights[i][j] = e.weights[i][j]*keep + churn*e.demand[i]*s
			load[j] += e.demand[i] * s
		}
	}
	e.load = append([][]float64{load}, e.load...)
	e.load = e.load[:min(len(e.load), 8)]
}

// input is what a DNS node knows.
func (e *edge) input() Input {
	in := Input{Now: e.now, Pops: append([]Pop(nil), e.pops...)}
	var snapshots []rtt.Snapshot
	known := e.load[min(e.late, len(e.load)-1)]
	for j := range e.pops {
		in.Pops[j].Load = known[j]
		in.Pops[j].At = e.now.Add(-time.Duration(e.late) * time.Minute)
		s := rtt.Snapshot{Pop: e.names[j], At: e.now, HalfLife: rtt.DefaultHalfLife}
		for i, n := range e.nets {
			if w := e.weights[i][j]; w > rtt.MinWeight {
				s.Entries = append(s.Entries, rtt.Entry{Prefix: n, RTT: e.rtt(i, j), Weight: w, Requests: w * e.requests[i]})
			}
		}
		snapshots = append(snapshots, s)
	}
	for i, n := range e.nets {
		in.Clients = append(in.Clients, steer.Client{Prefix: cidr.From(n), Lat: e.at[i][0], Lon: e.at[i][1]})
	}
	in.Measured = rtt.Merge(e.now, e.names, snapshots)
	return in
}

// rtt is 4 ms and what the distance takes, with a detour that differs by a tenth.
func (e *edge) rtt(network, pop int) time.Duration {
	a, b := onSphere(e.at[network][0], e.at[network][1]), onSphere(e.pops[pop].Lat, e.pops[pop].Lon)
	km := earth * math.Acos(a[0]*b[0]+a[1]*b[1]+a[2]*b[2])
	detour := 13.5 * (1 + 0.1*math.Sin(float64(7*network+3*pop)))
	return time.Duration(4000+detour*km) * time.Microsecond
}

// follow sends clients where an outcome says.
func (e *edge) follow(o *Outcome) {
	index := make(map[netip.Prefix]int)
	for i, n := range e.nets {
		index[n] = i
		if len(o.Assigned) > 0 {
			clear(e.homes[i])
		}
	}
	for _, a := range o.Assigned {
		for _, s := range o.Shares[a.Shares] {
			e.homes[index[a.Prefix.Netip()]][s.Pop] = s.Share
		}
	}
}

func (e *edge) fullest() float64 {
	worst := 0.0
	for j, l := range e.load[0] {
		worst = max(worst, l/e.pops[j].Ceiling)
	}
	return worst
}

// Demand that doubles near one PoP, known late: the plan brings all below their
// ceilings, then stays as it is.
func TestPlanSettlesWithLateReports(t *testing.T) {
	for _, late := range []int{0, 2, 5} {
		t.Run(fmt.Sprint(late, " minutes late"), func(t *testing.T) {
			e, p := newEdge(late), New(usual)
			moved, over := 0.0, 0
			for minute := range 120 {
				if minute == 20 {
					for i := range e.demand {
						if i%4 == 0 {
							e.demand[i] *= 2.6
						}
					}
				}
				e.minute()
				o, err := p.Step(e.input(), true)
				if err != nil || o.Mode != Solved {
					t.Fatalf("minute %d: %v, mode %s", minute, err, o.Mode)
				}
				e.follow(o)
				total := 0.0
				for _, d := range e.demand {
					total += d
				}
				if minute > 20+late+10 && e.fullest() > 1 {
					over++
				}
				if minute >= 80 {
					moved += o.Plan.Moved.Planned / total
				}
			}
			t.Logf("fullest %.2f, moved %.3f in the last 40 minutes", e.fullest(), moved)
			if over > 0 || e.fullest() > 0.9 {
				t.Errorf("above a ceiling for %d minutes after the rise was known; the fullest is at %.2f at last", over, e.fullest())
			}
			if moved > 0.1 {
				t.Errorf("%.1f %% of demand moved by choice in the last 40 minutes", 100*moved)
			}
		})
	}
}

// A lost PoP's clients keep their demand wherever they show up, so the clients of
// those who take them in are not driven away.
func TestDemandDoesNotDependOnWhereClientsAre(t *testing.T) {
	e, p := newEdge(0), New(usual)
	at := func() map[netip.Prefix]float64 {
		e.minute()
		o, err := p.Step(e.input(), true)
		if err != nil || o.Mode != Solved {
			t.Fatal(err, o.Mode)
		}
		e.follow(o)
		demand := make(map[netip.Prefix]float64)
		for _, c := range p.problem.Clients {
			demand[c.Prefix.Netip()] = c.Demand
		}
		return demand
	}
	for range 5 {
		at()
	}
	e.pops[0].Open = false
	for minute := range 40 {
		demand := at()
		for i, n := range e.nets {
			if off := demand[n] / e.demand[i]; off < 0.85 || off > 1.15 {
				t.Fatalf("%d minutes after the loss the demand of %v (near p%d) is taken for %.2f times what it is", minute, n, i%4, off)
			}
		}
	}
}

// A node that starts in the middle comes to the plan of one that has been there.
func TestNodesAgreeWhateverTheirPast(t *testing.T) {
	e, old := newEdge(1), New(usual)
	r := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		for i := range e.demand {
			e.demand[i] *= 0.85 + 0.3*r.Float64()
		}
		e.minute()
		o, err := old.Step(e.input(), true)
		if err != nil {
			t.Fatal(err)
		}
		e.follow(o)
	}
	young := New(usual)
	var a, b *Outcome
	for range 45 {
		e.minute()
		in := e.input()
		var errA, errB error
		a, errA = old.Step(in, true)
		b, errB = young.Step(in, true)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		e.follow(a)
	}
	differ := 0.0
	for i := range a.Assigned {
		var x, y [4]float64
		for _, s := range a.Shares[a.Assigned[i].Shares] {
			x[s.Pop] = s.Share
		}
		for _, s := range b.Shares[b.Assigned[i].Shares] {
			y[s.Pop] = s.Share
		}
		for j := range x {
			differ += math.Abs(x[j]-y[j]) / 2
		}
	}
	if differ > 2 {
		t.Errorf("of %d networks %.1f go elsewhere by the younger node", len(a.Assigned), differ)
	}
}

func TestMovesOfChoiceAreCapped(t *testing.T) {
	e, p := newEdge(0), New(usual)
	e.minute()
	if _, err := p.Step(e.input(), true); err != nil {
		t.Fatal(err)
	}
	// A new PoP beside the first: half of its clients gain much.
	for i := range e.nets {
		if i%4 == 0 {
			e.at[i] = [2]float64{36, 140}
		}
	}
	for range 20 {
		e.now = e.now.Add(time.Minute)
		o, err := p.Step(e.input(), true)
		if err != nil {
			t.Fatal(err)
		}
		if share := o.Plan.Moved.Planned / 1800; share > 0.06 {
			t.Errorf("%.3f of demand moved by choice", share)
		}
	}
	// Between two turns nobody moves by choice at all.
	o, err := p.Step(e.input(), false)
	if err != nil || o.Plan.Moved.Planned > 0 {
		t.Errorf("%v, moved %v between turns", err, o.Plan.Moved)
	}
}

func TestWithoutMeasurementsTheMapAndTheLoadDecide(t *testing.T) {
	e, p := newEdge(0), New(usual)
	step := func(load float64) *Outcome {
		e.now = e.now.Add(time.Minute)
		in := e.input()
		in.Measured = rtt.Merge(e.now, e.names, nil)
		for i := range in.Pops {
			in.Pops[i].Load = 100
		}
		in.Pops[0].Load = load
		o, err := p.Step(in, true)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	share := func(o *Outcome, pop int) (n float64) {
		for _, a := range o.Assigned {
			for _, s := range o.Shares[a.Shares] {
				if s.Pop == pop {
					n += s.Share
				}
			}
		}
		return n
	}
	o := step(500)
	if o.Mode != Shedding || !o.ByMap || o.Losses != nil {
		t.Fatalf("mode %s, by map %v, losses %v", o.Mode, o.ByMap, o.Losses)
	}
	if n := share(o, 0); n != 30 {
		t.Errorf("the first PoP has %v networks, want those nearest to it", n)
	}
	for range 8 {
		o = step(1000)
	}
	if n := share(o, 0); n > 29 || n < 20 {
		t.Errorf("full, it has %v networks, want a few less than 30", n)
	}
	if in := e.input(); o != nil {
		e.now = e.now.Add(time.Minute)
		o, err := p.Step(in, true)
		if err != nil || o.Mode != Solved || o.ByMap || len(o.Losses) != 4 {
			t.Errorf("measured: %v, %s, %d losses", err, o.Mode, len(o.Losses))
		}
	}
}

func TestNothingKnownPlansNothing(t *testing.T) {
	in := Input{Now: start, Pops: []Pop{{Name: "a", Open: true}, {Name: "b", Open: true}}, Measured: rtt.Merge(start, []string{"a", "b"}, nil)}
	o, err := New(usual).Step(in, true)
	if err != nil || o.Mode != None || len(o.Assigned) != 0 || !o.Fits([]steer.Pop{{Name: "a"}, {Name: "b"}}) || o.Fits([]steer.Pop{{Name: "b"}, {Name: "a"}}) {
		t.Errorf("%v %+v", err, o)
	}
	in.Clients = []steer.Client{{Prefix: cidr.MustParse("20.0.0.0/24")}}
	if o, err := New(usual).Step(in, true); err != nil || o.Mode != None {
		t.Errorf("a map but no load: %v %s", err, o.Mode)
	}
}

// Load of PoPs that measure nothing takes room and is not moved; anycast has no
// part in the plan.
func TestBackgroundAndAnycast(t *testing.T) {
	network := netip.MustParsePrefix("20.0.0.0/24")
	pops := []Pop{
		{Name: "a", Open: true, Load: 300, Ceiling: 1000, At: start},
		{Name: "all", Open: true, Anycast: true},
		{Name: "b", Lat: 10, Open: true, Load: 200, Ceiling: 1000, At: start},
		{Name: "c", Lat: 20, Open: true, Load: 0, At: start}, // with a ceiling that nobody knows
	}
	in := Input{Now: start, Pops: pops, Measured: rtt.Merge(start, []string{"a", "all", "b", "c"}, []rtt.Snapshot{
		{Pop: "a", At: start, HalfLife: time.Minute, Entries: []rtt.Entry{{Prefix: network, RTT: 9 * time.Millisecond, Weight: 5}}},
	})}
	o, err := New(usual).Step(in, true)
	if err != nil || o.Mode != Solved {
		t.Fatal(err, o.Mode)
	}
	if got := o.Background; got[0] != 0 || got[1] != 0 || got[2] != 200 || got[3] != 0 {
		t.Errorf("background %v", got)
	}
	if c := o.Plan.Pops[2].Ceiling; c != 800 {
		t.Errorf("b has room for %v, want 800", c)
	}
	if !o.Plan.Pops[1].Out || o.Rows[0][1] != assign.Never {
		t.Errorf("anycast takes part: %+v", o.Plan.Pops[1])
	}
	if o.Known != 0.6 {
		t.Errorf("known %v", o.Known)
	}
	lost, shares, err := o.Without([]string{"a"})
	if err != nil || len(lost) != 1 || shares[lost[0].Shares][0].Pop != 2 {
		t.Errorf("without a: %v %v", lost, err)
	}
	if o.Shares[o.Assigned[0].Shares][0].Pop != 0 {
		t.Errorf("assigned %v", o.Assigned)
	}
}

func TestLocatedFindsTheLongestNetworkAround(t *testing.T) {
	var clients []steer.Client
	for _, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.3.0.0/16", "20.0.5.0/24", "2001:db8::/32"} {
		clients = append(clients, steer.Client{Prefix: cidr.MustParse(p)})
	}
	for network, want := range map[string]int32{
		"10.0.9.0/24": 0, "10.1.9.0/24": 1, "10.1.2.0/24": 2, "10.2.0.0/16": 0, "10.3.3.0/24": 3, "11.0.0.0/24": -1,
		"20.0.0.0/20": 4, "2001:db8:5::/48": 5, "2001:db9::/48": -1,
	} {
		if got := located([]netip.Prefix{netip.MustParsePrefix(network)}, clients); got[0] != want {
			t.Errorf("%s is at %d, want %d", network, got[0], want)
		}
	}
	// All at once is as each alone.
	var all []netip.Prefix
	for i := range 4096 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(9 + i/512), byte(i / 128), byte(i * 2), 0}), 24).Masked())
	}
	for i, got := range located(all, clients) {
		want := int32(-1)
		for j, c := range clients {
			if c.Prefix.Bits() <= all[i].Bits() && c.Prefix.Contains(all[i].Addr()) {
				want = int32(j)
			}
		}
		if got != want && i > 0 && all[i-1].Compare(all[i]) <= 0 {
			t.Fatalf("%v is at %d, want %d", all[i], got, want)
		}
	}
}

// Rows stay within memory whatever the number of networks, by telling less apart.
func TestRowsAreShared(t *testing.T) {
	names := []string{"a", "b"}
	var s [2]rtt.Snapshot
	r := rand.New(rand.NewPCG(5, 6))
	for j := range s {
		s[j] = rtt.Snapshot{Pop: names[j], At: start, HalfLife: time.Minute}
		for i := range 1000 {
			s[j].Entries = append(s[j].Entries, rtt.Entry{
				Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24),
				RTT:    time.Duration(1+99*r.Float64()) * time.Millisecond, Weight: 4,
			})
		}
	}
	in := Input{Now: start, Pops: []Pop{{Name: "a"}, {Name: "b", Lat: 40}}, Measured: rtt.Merge(start, names, s[:])}
	networks := in.Measured.Networks()
	for _, c := range []struct{ step, most float64 }{{step, 1000}, {0.1, 900}, {1, 40}} {
		rows, list := rows{in: in}, make([]steer.Measured, len(networks))
		rows.forget(in.Pops)
		rows.step, rows.grid = c.step, grid
		if rows.fill(list, networks, located(networks, nil), 10) {
			t.Errorf("step %v: no more than ten rows", c.step)
		}
		if !rows.fill(list, networks, located(networks, nil), int(c.most)) {
			t.Errorf("step %v: more than %v rows", c.step, c.most)
		}
		all := rows.all
		for i, m := range list {
			for j, got := range all[m.Row] {
				want := float64(s[j].Entries[i].RTT.Microseconds())
				if off := math.Abs(math.Log(float64(got) / want)); off > c.step/2+0.001 {
					t.Fatalf("step %v: %v has %d µs to %s, want %v", c.step, m.Prefix, got, names[j], want)
				}
			}
		}
	}
}

// Rows that stay are the same memory in the next turn, rows that nobody has any more
// go some time, and no row is that of other PoPs.
func TestRowsAreKept(t *testing.T) {
	in := func(turn int, lat float64) Input {
		s := rtt.Snapshot{Pop: "a", At: start, HalfLife: time.Minute}
		for i := range 3000 { // one in ten has another time in the next turn
			code := i
			if i%10 == 0 {
				code += 3000 * turn
			}
			s.Entries = append(s.Entries, rtt.Entry{
				Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24),
				RTT:    time.Duration(math.Exp(8+0.02*float64(code%400))) * time.Microsecond, Weight: 5,
			})
		}
		in := Input{Now: start, Pops: []Pop{{Name: "a"}, {Name: "b", Lat: lat}}, Measured: rtt.Merge(start, []string{"a", "b"}, []rtt.Snapshot{s})}
		for i, e := range s.Entries { // at places of their own
			in.Clients = append(in.Clients, steer.Client{Prefix: cidr.From(e.Prefix), Lat: float64(i%170) - 85, Lon: float64(i / 10)})
		}
		return in
	}
	p := New(usual)
	before := p.Rows(in(0, 40))
	kept := 0
	for turn := 1; turn < 30; turn++ {
		o := p.Rows(in(turn, 40))
		fresh := New(usual).Rows(in(turn, 40))
		for i := range o.Measured {
			row := o.Rows[o.Measured[i].Row]
			if &row[0] == &before.Rows[before.Measured[i].Row][0] {
				kept++
			}
			if want := fresh.Rows[fresh.Measured[i].Row]; !slices.Equal(row, want) {
				t.Fatalf("turn %d: network %d has %v, want %v", turn, i, row, want)
			}
		}
		if n := len(p.rows.lines); n > len(o.Rows)*3/2+stale {
			t.Errorf("turn %d: %d rows kept for %d", turn, n, len(o.Rows))
		}
		before = o
	}
	if share := float64(kept) / (29 * 3000); share < 0.75 || share > 0.95 {
		t.Errorf("%.2f of rows were the memory of the turn before", share)
	}
	moved, fresh := p.Rows(in(29, 50)), New(usual).Rows(in(29, 50))
	for i, m := range moved.Measured {
		if row, want := moved.Rows[m.Row], fresh.Rows[fresh.Measured[i].Row]; !slices.Equal(row, want) {
			t.Fatalf("after b has moved, network %d has %v, want %v", i, row, want)
		}
	}
}

// Heavy clients are as heavy wherever they are: the demand of a network does not
// depend on whom it shares a PoP with.
func TestDemandDoesNotDependOnTheNeighbors(t *testing.T) {
	e, p := newEdge(0), New(usual)
	for i := range e.nets { // those near the first two PoPs make many requests, of which CPU is the ceiling
		if e.requests[i] = 2; i%4 < 2 {
			e.requests[i] = 200
		}
	}
	for range 40 {
		e.minute()
	}
	at := func() (demand map[netip.Prefix]float64) {
		e.minute()
		o, err := p.Step(e.input(), true)
		if err != nil || o.Mode != Solved {
			t.Fatal(err, o.Mode)
		}
		e.follow(o)
		demand = make(map[netip.Prefix]float64)
		for _, c := range p.problem.Clients {
			demand[c.Prefix.Netip()] = c.Demand
		}
		return demand
	}
	before := at()
	heavy, light := before[e.nets[0]]/e.demand[0], before[e.nets[3]]/e.demand[3]
	if ratio := heavy / light; math.Abs(ratio-210.0/12) > 3 {
		t.Errorf("a connection with 200 requests counts as much as %.1f with 2", ratio)
	}
	e.pops[0].Open = false // its heavy clients go to others
	for minute := range 40 {
		demand := at()
		for i, n := range e.nets {
			if off := demand[n] / before[n]; off < 0.85 || off > 1.15 {
				t.Fatalf("%d minutes after the loss the demand of %v (near p%d) is taken for %.2f times what it was", minute, n, i%4, off)
			}
		}
	}
}
