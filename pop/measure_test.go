package pop

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"anyedge/configs"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/fleet"
	"anyedge/internal/fleet/fleettest"
	"anyedge/pop/link"
	"anyedge/pop/proxy"
)

// measuring is a measurer that runs on a store of its own or of several.
type measuring struct {
	*measurer
	stop func()
}

func measure(t *testing.T, store fleet.Store, node, pop string, more ...string) *measuring {
	t.Helper()
	sealer, err := fleet.ParseKeys([]byte(sealingKey))
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer})
	if err != nil {
		t.Fatal(err)
	}
	cfg := parse(t, testConfig+strings.Join(more, "\n"), "name: fra-1, pop: fra", "name: "+node+", pop: "+pop)
	m := &measuring{measurer: newMeasurer(f, store, cfg, quiet, nil)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	m.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(m.stop)
	return m
}

// sees has the measurer take connections of so many clients of a network.
func (m *measuring) sees(network string, clients int, d time.Duration) {
	var r proxy.RTTs
	at := netip.MustParsePrefix(network).Addr()
	for i := range clients {
		if at = at.Next(); at.Is6() { // to the next /64
			b := at.As16()
			b[7] = byte(i)
			at = netip.AddrFrom16(b)
		}
		r.Add(proxy.RTT{Client: at, RTT: d, Connections: 16})
	}
	m.take(r)
}

// reader is a DNS node's part: a Fleet that follows round-trip times.
func reader(t *testing.T, store fleet.Store) *fleet.Fleet {
	t.Helper()
	sealer, err := fleet.ParseKeys([]byte(sealingKey))
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Config{Store: store, Sealer: sealer, FollowRTT: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

// asks has the measurer take requests of one client.
func (m *measuring) asks(client string, requests int) {
	var r proxy.RTTs
	r.AddRequests(netip.MustParseAddr(client), requests)
	m.take(r)
}

// known merges what a reader has, and says what it means for clients: PoP, RTT in
// ms, rounded to tens, and the network that it was measured for.
func known(t *testing.T, f *fleet.Fleet, client string) (list []string) {
	t.Helper()
	pops := []string{"fra", "iad"}
	var snapshots []rtt.Snapshot
	for _, r := range f.View().RTT {
		s, err := rtt.Decode(r.Data)
		if err != nil {
			t.Fatal(err)
		}
		snapshots = append(snapshots, s)
	}
	for _, m := range rtt.Merge(time.Now(), pops, snapshots).Lookup(nil, netip.MustParsePrefix(client)) {
		list = append(list, fmt.Sprintf("%s %d %s", pops[m.Pop], m.RTT.Round(10*time.Millisecond).Milliseconds(), m.Prefix))
	}
	slices.Sort(list)
	return list
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func expect(t *testing.T, f *fleet.Fleet, client string, want ...string) {
	t.Helper()
	if got := known(t, f, client); !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", client, got, want)
	}
}

// From what workers report at several nodes to what a DNS node knows: the means by
// network, and of no network with fewer clients than the config allows.
func TestRTTReachesTheDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleet.NewMemory()
		dns := reader(t, store)
		fra1, fra2, iad := measure(t, store, "fra-1", "fra"), measure(t, store, "fra-2", "fra"), measure(t, store, "iad-1", "iad")
		fra1.sees("203.0.113.0/24", 40, 10*time.Millisecond)
		fra2.sees("203.0.113.0/24", 40, 10*time.Millisecond)
		iad.sees("203.0.113.0/24", 40, 90*time.Millisecond)
		iad.sees("2001:db8:7::/48", 40, 20*time.Millisecond)
		// A family at home is nobody's business; with their neighbors they are many.
		fra1.sees("198.51.100.0/24", 3, 30*time.Millisecond)
		iad.sees("198.51.101.0/24", 40, 50*time.Millisecond)
		for _, small := range []string{"198.51.100.0/24", "198.51.102.0/24", "198.51.103.0/24", "198.51.104.0/24", "198.51.105.0/24"} {
			iad.sees(small, 6, 50*time.Millisecond)
		}
		time.Sleep(rttEvery + 30*time.Second)
		expect(t, dns, "203.0.113.0/24", "fra 10 203.0.113.0/24", "iad 90 203.0.113.0/24")
		expect(t, dns, "2001:db8:7::/48", "iad 20 2001:db8:7::/48")
		expect(t, dns, "198.51.100.0/24", "iad 50 198.51.96.0/20")
		expect(t, dns, "198.51.101.0/24", "iad 50 198.51.101.0/24")
		if r := dns.View().RTT[0]; r.Node != "fra-1" || r.Pop != "fra" || time.Since(r.At) > rttEvery {
			t.Errorf("%+v", r)
		}
	})
}

// A network's requests are published beside its connections.
func TestRequestsReachTheDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleet.NewMemory()
		dns := reader(t, store)
		fra := measure(t, store, "fra-1", "fra")
		fra.sees("203.0.113.0/24", 40, 10*time.Millisecond)
		fra.sees("198.51.100.0/24", 40, 10*time.Millisecond)
		fra.asks("203.0.113.1", 40*16*100)
		time.Sleep(rttEvery + 30*time.Second)
		s, err := rtt.Decode(dns.View().RTT[0].Data)
		if err != nil || len(s.Entries) != 2 {
			t.Fatalf("%+v, %v", s, err)
		}
		for i, want := range []float64{0, 100} { // for each connection
			if e := s.Entries[i]; math.Abs(e.Requests/e.Weight-want) > 0.04*want {
				t.Errorf("%+v: %.1f requests for each connection, want %v", e, e.Requests/e.Weight, want)
			}
		}
	})
}

// The config says how few clients a network may have to be named.
func TestMinClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleet.NewMemory()
		dns := reader(t, store)
		for pop, clients := range map[string]string{"fra": "48", "iad": "4"} {
			m := measure(t, store, pop+"-1", pop, "measure: {min_clients: "+clients+"}")
			m.sees("203.0.113.0/24", 6, 10*time.Millisecond)
			m.sees("198.51.100.0/24", 3, 10*time.Millisecond)
			m.sees("192.0.2.0/24", 200, 10*time.Millisecond)
		}
		time.Sleep(rttEvery + 30*time.Second)
		expect(t, dns, "203.0.113.0/24", "iad 10 203.0.113.0/24")
		expect(t, dns, "198.51.100.0/24")
		expect(t, dns, "192.0.2.0/24", "fra 10 192.0.2.0/24", "iad 10 192.0.2.0/24")
	})
}

// What a report calls a resource is what the fleet's arithmetic looks for.
func TestReportsSpeakOfTheSameResources(t *testing.T) {
	if fleet.ResourceConnections != proxy.ResourceConnections || fleet.ResourceCPU != proxy.ResourceCPU {
		t.Errorf("%s and %s, %s and %s", fleet.ResourceConnections, proxy.ResourceConnections, fleet.ResourceCPU, proxy.ResourceCPU)
	}
}

// A node that starts again goes on from what it knew; of one that is gone for good
// nothing is left after an hour.
func TestRTTOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fleet.NewMemory()
		dns := reader(t, store)
		first := measure(t, store, "fra-1", "fra")
		first.sees("203.0.113.0/24", 40, 10*time.Millisecond)
		time.Sleep(rttEvery + time.Second)
		first.stop()
		time.Sleep(5 * time.Minute)
		expect(t, dns, "203.0.113.0/24", "fra 10 203.0.113.0/24")
		second := measure(t, store, "fra-1", "fra")
		second.sees("198.51.100.0/24", 40, 20*time.Millisecond)
		for range 3 {
			time.Sleep(rttEvery + 30*time.Second)
			expect(t, dns, "203.0.113.0/24", "fra 10 203.0.113.0/24")
			expect(t, dns, "198.51.100.0/24", "fra 20 198.51.100.0/24")
		}
		second.stop()
		moved := measure(t, store, "fra-1", "iad") // to another PoP, of which it knows nothing
		moved.sees("198.51.100.0/24", 40, 40*time.Millisecond)
		time.Sleep(rttEvery + 30*time.Second)
		expect(t, dns, "203.0.113.0/24")
		expect(t, dns, "198.51.100.0/24", "iad 40 198.51.100.0/24")
		moved.stop()
		time.Sleep(rttKeep + time.Minute)
		if left := dns.View().RTT; len(left) > 0 {
			t.Errorf("an hour later there is %+v", left)
		}
	})
}

// While the store is away nothing waits; what comes too fast is counted. A session
// that has ended meanwhile is replaced.
func TestRTTWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fleet.NewMemory()
		faults := fleettest.NewFaults(memory)
		dns := reader(t, memory)
		m := measure(t, faults, "fra-1", "fra")
		m.sees("203.0.113.0/24", 40, 10*time.Millisecond)
		time.Sleep(rttEvery + 30*time.Second)
		expect(t, dns, "203.0.113.0/24", "fra 10 203.0.113.0/24")
		e, err := memory.Get(t.Context(), "rtt/fra-1")
		if err != nil {
			t.Fatal(err)
		}
		if err := memory.EndSession(t.Context(), e.Session); err != nil {
			t.Fatal(err)
		}
		faults.Set(func(fleettest.Op, string) fleettest.Fault { return fleettest.Hang })
		time.Sleep(rttEvery - 29*time.Second) // it is publishing
		synctest.Wait()
		began := time.Now()
		for range 2 * rttQueue {
			m.sees("198.51.100.0/24", 40, 10*time.Millisecond)
		}
		if time.Since(began) > 0 || counted(t, m.metrics.dropped) != 40*rttQueue {
			t.Errorf("%v for taking; %v dropped", time.Since(began), counted(t, m.metrics.dropped))
		}
		time.Sleep(3 * rttEvery)
		if counted(t, m.metrics.publications.WithLabelValues("failed")) < 2 {
			t.Error("no failure counted")
		}
		faults.Set(nil)
		time.Sleep(2*rttEvery + 30*time.Second)
		expect(t, dns, "203.0.113.0/24", "fra 10 203.0.113.0/24")
		expect(t, dns, "198.51.100.0/24", "fra 10 198.51.100.0/24")
	})
}

// A value that cannot be read, such as one that was sealed with a key of the past,
// does not keep a node from publishing.
func TestUnreadableRTTIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fleet.NewMemory()
		if _, err := memory.CompareAndSwap(t.Context(), "rtt/fra-1", []byte("of another key"), 0); err != nil {
			t.Fatal(err)
		}
		dns := reader(t, memory)
		measure(t, memory, "fra-1", "fra").sees("203.0.113.0/24", 40, 10*time.Millisecond)
		time.Sleep(rttEvery + 30*time.Second)
		expect(t, dns, "203.0.113.0/24", "fra 10 203.0.113.0/24")
	})
}

// What a worker says reaches the measurer; a worker that says nonsense is out of
// step.
func TestSupervisorPassesRTTsOn(t *testing.T) {
	s := newSupervisor("", nil, quiet, nil)
	var got []proxy.RTT
	s.measured = func(r proxy.RTTs) { got = slices.Collect(r.All()) }
	want := proxy.RTT{Client: netip.MustParseAddr("203.0.113.1"), RTT: 10 * time.Millisecond, Connections: 16}
	var r proxy.RTTs
	r.Add(want)
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.handle(t.Context(), nil, link.Message{Kind: proxy.KindRTT, Body: body}); err != nil || !slices.Equal(got, []proxy.RTT{want}) {
		t.Errorf("got %v, %v", got, err)
	}
	if err := s.handle(t.Context(), nil, link.Message{Kind: proxy.KindRTT, Body: []byte("[")}); err == nil {
		t.Error("took nonsense")
	}
}

// The config turns it off at the source.
func TestMeasuringIsConfigured(t *testing.T) {
	for text, want := range map[string]bool{"": true, "\nmeasure: {rtt: false}": false, "\nmeasure: {min_clients: 4}": true} {
		cfg := parse(t, testConfig+text)
		if got := buildSnapshot(cfg, &material{}, nil, nil).MeasureRTT; got != want {
			t.Errorf("%q: measures %v", text, got)
		}
		if err := configs.RestartNeeded(parse(t, testConfig), cfg); (err != nil) != (text != "") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
