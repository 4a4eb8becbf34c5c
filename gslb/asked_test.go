package gslb

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/gslb/steer"
	"anyedge/gslb/steer/rtt"
	"anyedge/internal/fleet"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// asks makes a server answer a query a thousand times, over UDP or a stream, and
// returns who was noted how often.
func asks(t *testing.T, s *Server, q *dns.Msg, udp bool) map[note]int {
	t.Helper()
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	r := udpReader{Server: s, tally: newTally(s.m), view: s.view.Load(), now: time.Now()}
	b := newBatch()
	for range 1000 {
		if !udp {
			s.answer(request{msg: wire, from: netip.MustParseAddr("203.0.113.7"), tcp: true}, nil)
			continue
		}
		b.answering = 0
		b.peers[0].Family = unix.AF_INET6
		b.peers[0].Addr = netip.MustParseAddr("::ffff:203.0.113.7").As16()
		b.in[0].length = uint32(copy(b.queries[0][:], wire))
		r.answer(b, 0)
	}
	counts := make(map[note]int)
	noted, _ := s.asked.take(nil)
	for _, n := range noted {
		counts[n]++
	}
	return counts
}

// Queries for steered names are noted by client, whichever path answers them.
func TestQueriesAreNoted(t *testing.T) {
	s, err := New(Config{Listen: []netip.AddrPort{{}}, Zones: testZones()}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(table(t, steering())); err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix
	for name, c := range map[string]struct {
		q    *dns.Msg
		want netip.Prefix // not valid for nobody
	}{
		"a resolver":            {asker("www.edge.example", dns.TypeA), p("203.0.113.7/32")},
		"a client's subnet":     {withSubnet("www.edge.example", subnet("198.51.100.0/24")), p("198.51.100.0/24")},
		"one that does not say": {withSubnet("www.edge.example", subnet("0.0.0.0/0")), netip.Prefix{}},
		"a name not steered":    {asker("mail.edge.example", dns.TypeA), netip.Prefix{}},
		"another type":          {asker("www.edge.example", dns.TypeTXT), netip.Prefix{}},
		"no name":               {asker("nobody.edge.example", dns.TypeA), netip.Prefix{}},
	} {
		for _, udp := range []bool{true, false} {
			counts, sum := asks(t, s, c.q, udp), 0
			for n, count := range counts {
				if sum += count; n.client != c.want || n.pop == "" {
					t.Errorf("%s, UDP %v: noted %+v", name, udp, n)
				}
			}
			if c.want.IsValid() && (sum < 3 || sum > 50) { // 1000/64, four standard deviations
				t.Errorf("%s, UDP %v: %d noted", name, udp, sum)
			}
		}
	}
	reply := &steer.Reply{Pops: []string{"fra", "nrt"}}
	s.asked.note(p("198.51.100.0/24"), reply)
	reply.Pops = reply.Pops[:1]
	for range askMost + 5 {
		s.asked.note(p("198.51.100.0/24"), reply)
	}
	if noted, dropped := s.asked.take(nil); len(noted) != askMost || dropped != 5 {
		t.Errorf("%d noted, %d dropped", len(noted), dropped)
	}
}

// What each query costs on average for being counted; 1/64 of them are noted.
func BenchmarkNote(b *testing.B) {
	var a sampledQueries
	reply := &steer.Reply{Pops: []string{"fra"}}
	client := netip.MustParsePrefix("198.51.100.0/24")
	var used []note
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		if sampled(i) {
			a.note(client, reply)
		}
		if len(a.noted) == askMost {
			used, _ = a.take(used)
		}
	}
}

// From queries at one DNS node to the plan of another: of clients that no agent has
// measured, the plan knows by queries.
func TestQueriesReachThePlan(t *testing.T) {
	plans(t, func(t *testing.T, n planNode) {
		fleetUp := func() { n.loaded("fra", 400, 1000); n.loaded("lhr", 100, 1000); n.loaded("nrt", 100, 1000) }
		note := func(network, pop string, count int) {
			for range count {
				n.Node.server.asked.note(netip.MustParsePrefix(network), &steer.Reply{Pops: []string{pop}})
			}
		}
		n.both()
		note("20.0.0.0/24", "fra", 50)
		note("198.51.100.0/24", "fra", 20) // Paris, which nobody has measured
		note("203.0.113.0/24", "nrt", 7)   // and too few in Osaka
		n.passes(150*time.Second, fleetUp)
		view := n.Node.fleet.View()
		if len(view.Queries) != 1 || view.Queries[0].Node != "ns1" {
			t.Fatalf("published %+v", view.Queries)
		}
		s, err := rtt.DecodeQueries(view.Queries[0].Data)
		if err != nil || len(s.Queries) != 2 {
			t.Fatalf("%+v, %v", s, err)
		}
		r := n.Plan()
		if r.Mode != "solved" || r.Networks != 6 || r.Asked < 20 || r.Asked > 60 {
			t.Errorf("%d networks, %v of %v from queries", r.Networks, r.Asked, r.Demand)
		}
		for network, want := range map[string]string{"198.51.100.0/24": "of 198.51.100.0/24, by queries", "20.0.1.7/32": "of 20.0.1.0/24, by connections and requests"} {
			e, err := n.Explain(ExplainRequest{Name: "www.edge.example", Client: netip.MustParsePrefix(network)})
			if err != nil || !strings.Contains(e.String(), want) {
				t.Errorf("no %q in %v\n%s", want, err, e)
			}
		}
		// A node that measures tells of them itself.
		n.measured("fra", append(slices.Clone(europe), seen{"198.51.100.0/24", 9 * time.Millisecond, 10})...)
		n.passes(90*time.Second, fleetUp)
		if r := n.Plan(); r.Asked != 0 || r.Networks != 6 {
			t.Errorf("measured: %d networks, %v from queries", r.Networks, r.Asked)
		}
	})
}

// A session that ended meanwhile is replaced, and so is what an earlier process left.
func TestQueriesArePublishedAgain(t *testing.T) {
	plans(t, func(t *testing.T, n planNode) {
		session, err := n.store.NewSession(t.Context(), "earlier", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.fleet.PublishQueries(t.Context(), session, fleet.Queries{Node: "ns1", At: time.Now(), Data: []byte{99}}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for range 9 {
				n.Node.server.asked.note(netip.MustParsePrefix("20.0.0.0/24"), &steer.Reply{Pops: []string{"fra"}})
			}
			n.teller.count()
			if err := n.teller.publish(t.Context(), "ns1", time.Now()); err != nil {
				t.Fatal(err)
			}
			e, err := n.store.Get(t.Context(), "queries/ns1")
			if err != nil || e.Session != n.teller.session || e.Session == session {
				t.Fatalf("%+v, %v", e, err)
			}
			if err := n.store.EndSession(t.Context(), n.teller.session); err != nil {
				t.Fatal(err)
			}
		}
	})
}
