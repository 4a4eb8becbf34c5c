package gslb

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// start runs a server of the test zones on a free port, and stops it when the
// test ends.
func start(t testing.TB, cfg Config) (s *Server, address string, reg *prometheus.Registry) {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	}
	if cfg.Zones == nil {
		cfg.Zones = testZones()
	}
	reg = prometheus.NewRegistry()
	s, err := New(cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(table(t, steering())); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server did not stop")
		}
	})
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatalf("run: %v", err)
	}
	return s, s.Addresses()[0].String(), reg
}

// exchange sends a query over a network and returns the answer.
func exchange(t testing.TB, network, address string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	got, _, err := c.Exchange(q, address)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestServesBothTransports(t *testing.T) {
	_, address, _ := start(t, Config{})
	for _, network := range []string{"udp", "tcp"} {
		got := exchange(t, network, address, withSubnet("www.edge.example", subnet("203.0.113.0/24")))
		if text(got.Answer) != "www.edge.example. 20 A 192.0.2.2" || got.IsEdns0().Option[0].(*dns.EDNS0_SUBNET).SourceScope != 24 {
			t.Errorf("%s: %v", network, got)
		}
	}
	large := asker("large.edge.example", dns.TypeTXT)
	if got := exchange(t, "udp", address, large); !got.Truncated {
		t.Error("not truncated")
	}
	if got := exchange(t, "tcp", address, large); got.Truncated || len(got.Answer) != 40 {
		t.Errorf("over TCP: %d records", len(got.Answer))
	}
}

// A socket of an unspecified address answers from the address that was asked;
// the client's socket is connected, and takes nothing from another one.
func TestUnspecifiedAddresses(t *testing.T) {
	hosts := [][]string{{"127.0.0.1", "127.0.0.2", "127.9.9.9"}, {"::1"}}
	if probe, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Logf("without IPv6: %v", err)
		hosts = hosts[:1]
	} else {
		probe.Close()
	}
	listen := []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")}
	s, _, _ := start(t, Config{Listen: listen[:len(hosts)]})
	for i, hosts := range hosts {
		for _, host := range hosts {
			address := netip.AddrPortFrom(netip.MustParseAddr(host), s.Addresses()[i].Port()).String()
			for _, network := range []string{"udp", "tcp"} {
				if got := exchange(t, network, address, asker("mail.edge.example", dns.TypeA)); len(got.Answer) != 1 {
					t.Errorf("%s %s: %v", network, address, got)
				}
			}
		}
	}
}

func TestUpdateMovesAnswers(t *testing.T) {
	s, address, _ := start(t, Config{})
	ask := func() string {
		return text(exchange(t, "udp", address, asker("www.edge.example", dns.TypeA)).Answer)
	}
	if got := ask(); got != "www.edge.example. 20 A 192.0.2.1" {
		t.Fatalf("got %s", got)
	}
	in := steering()
	in.Pops[0].Drained = true
	if err := s.Update(table(t, in)); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "www.edge.example. 20 A 192.0.2.2" {
		t.Errorf("drained: got %s", got)
	}
	bad := steering()
	bad.Names[0].Name = "www.elsewhere.example"
	if err := s.Update(table(t, bad)); err == nil {
		t.Error("took a name outside the zones")
	}
	if got := ask(); got != "www.edge.example. 20 A 192.0.2.2" {
		t.Errorf("after a bad table: got %s", got)
	}
	if err := s.Update(nil); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "www.edge.example. 300 A 192.0.2.99" {
		t.Errorf("not steered: got %s", got)
	}
}

func TestReloadKeepsTheLastGoodZones(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.zone")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(head + "a 1 A 192.0.2.1\n")
	zones := []Zone{{Name: "edge.example", File: path}, testZones()[1]}
	s, address, reg := start(t, Config{Zones: zones})
	expect := func(want string) {
		t.Helper()
		if got := text(exchange(t, "udp", address, asker("a.edge.example", dns.TypeA)).Answer); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	write(head + "a 1 A 192.0.2.2\n")
	expect("a.edge.example. 1 A 192.0.2.1")
	if err := s.SetZones(zones); err != nil {
		t.Fatal(err)
	}
	expect("a.edge.example. 1 A 192.0.2.2")
	for text, want := range map[string]string{
		head + "a 1 A 192.0.2\n":     path + ":3:",
		"":                           path + ": no SOA record",
		head + "www 1 CNAME a\n":     "steered name www.edge.example: it has a CNAME in " + path,
		head + "empty 1 NS ns.test.": "steered name x.y.empty.edge.example: empty.edge.example. is delegated",
	} {
		write(text)
		if err := s.SetZones(zones); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		expect("a.edge.example. 1 A 192.0.2.2")
	}
	write(head)
	if err := s.SetZones(append(zones, zones[0])); err == nil || err.Error() != "zone edge.example.: listed twice" {
		t.Errorf("got %v", err)
	}
	expect("a.edge.example. 1 A 192.0.2.2")
	expected := "# TYPE " + metricUpdates + " counter\n" +
		metricUpdates + `{kind="table",result="ok"} 1` + "\n" +
		metricUpdates + `{kind="zones",result="ok"} 1` + "\n" +
		metricUpdates + `{kind="zones",result="rejected"} 5` + "\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader("# HELP "+metricUpdates+
		" Configs read again, steering tables, sets of zones and keys of zones handed in; rejected ones changed nothing.\n"+expected), metricUpdates); err != nil {
		t.Error(err)
	}
}

// A zone and its steered names can go only together.
func TestSetReplacesZonesAndTableAtOnce(t *testing.T) {
	s, address, _ := start(t, Config{})
	in := steering()
	in.Names = in.Names[len(in.Names)-1:]
	only := testZones()[1:2]
	if err := s.SetZones(only); err == nil {
		t.Error("zones were taken away from under steered names")
	}
	if err := s.Set(only, table(t, steering())); err == nil {
		t.Error("a table was taken that does not fit the zones")
	}
	if got := exchange(t, "udp", address, asker("www.edge.example", dns.TypeA)); len(got.Answer) != 1 {
		t.Errorf("after refusals: %v", got)
	}
	if err := s.Set(only, table(t, in)); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, "udp", address, asker("www.edge.example", dns.TypeA)); got.Rcode != dns.RcodeRefused {
		t.Errorf("the old zone: %v", got)
	}
	if got := exchange(t, "udp", address, asker("apex.example", dns.TypeA)); len(got.Answer) != 1 {
		t.Errorf("the zone that stayed: %v", got)
	}
}

func TestNewRefuses(t *testing.T) {
	listen := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	for want, cfg := range map[string]Config{
		"no address to listen on":        {Zones: testZones()},
		"edge.example: no SOA record":    {Listen: listen, Zones: []Zone{{Name: "edge.example"}}},
		"zone edge.example.: listed":     {Listen: listen, Zones: []Zone{{Name: "edge.example", Text: head}, {Name: "EDGE.example", Text: head}}},
		"zone: \"a..b\" is not a domain": {Listen: listen, Zones: []Zone{{Name: "a..b"}}},
	} {
		if _, err := New(cfg, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestRunReportsAnAddressInUse(t *testing.T) {
	_, address, _ := start(t, Config{})
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort(address)}}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "listen on "+address) {
		t.Errorf("got %v", err)
	}
}

// value reads a metric without labels.
func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].GetGauge().GetValue() + f.Metric[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestMetricsAndStatus(t *testing.T) {
	s, address, reg := start(t, Config{})
	exchange(t, "udp", address, asker("www.edge.example", dns.TypeA))
	exchange(t, "tcp", address, asker("www.edge.example", dns.TypeAAAA))
	exchange(t, "udp", address, asker("v4only.edge.example", dns.TypeAAAA))
	exchange(t, "udp", address, asker("nope.edge.example", 1000))
	exchange(t, "udp", address, asker("elsewhere.example", dns.TypeA))
	exchange(t, "udp", address, asker("large.edge.example", dns.TypeTXT))
	badvers := asker("www.edge.example", dns.TypeA)
	badvers.SetEdns0(1232, false)
	badvers.IsEdns0().SetVersion(1)
	exchange(t, "udp", address, badvers)
	s.answer(request{msg: []byte{1}, from: netip.MustParseAddr("192.0.2.1"), tcp: true}, nil)
	s.answer(request{msg: make([]byte, 12), from: netip.MustParseAddr("192.0.2.1"), tcp: true}, nil)
	expected := `
# HELP anyedge_gslb_queries_total Queries answered. Types that are asked seldom count as other, unreadable ones as none.
# TYPE anyedge_gslb_queries_total counter
anyedge_gslb_queries_total{qtype="a",rcode="badvers",transport="udp"} 1
anyedge_gslb_queries_total{qtype="a",rcode="noerror",transport="udp"} 1
anyedge_gslb_queries_total{qtype="a",rcode="refused",transport="udp"} 1
anyedge_gslb_queries_total{qtype="aaaa",rcode="noerror",transport="tcp"} 1
anyedge_gslb_queries_total{qtype="aaaa",rcode="noerror",transport="udp"} 1
anyedge_gslb_queries_total{qtype="none",rcode="formerr",transport="tcp"} 1
anyedge_gslb_queries_total{qtype="other",rcode="nxdomain",transport="udp"} 1
anyedge_gslb_queries_total{qtype="txt",rcode="noerror",transport="udp"} 1
# HELP anyedge_gslb_steered_answers_total PoPs given in answers for steered names, by what decided; pop is none if there was no address to give.
# TYPE anyedge_gslb_steered_answers_total counter
anyedge_gslb_steered_answers_total{pop="fra",reason="nearest"} 2
anyedge_gslb_steered_answers_total{pop="none",reason="no_address"} 1
# HELP anyedge_gslb_truncated_answers_total Answers that did not fit into UDP, or were over the rate limit.
# TYPE anyedge_gslb_truncated_answers_total counter
anyedge_gslb_truncated_answers_total 1
# HELP anyedge_gslb_dropped_total Messages and connections that got no answer.
# TYPE anyedge_gslb_dropped_total counter
anyedge_gslb_dropped_total{reason="message"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(expected), metricQueries, metricSteered, metricTruncated, metricDropped); err != nil {
		t.Error(err)
	}
	for _, name := range []string{metricTableAge, metricZonesAge} {
		if age := value(t, reg, name); age <= 0 || age > 60 {
			t.Errorf("%s is %v", name, age)
		}
	}
	if got := value(t, reg, metricPanics); got != 0 {
		t.Errorf("%v faults", got)
	}

	status := s.Status()
	if len(status.Listen) != 1 || len(status.Zones) != 3 || status.Zones[2].Serial != 2026010101 || len(status.Pops) != 3 || status.Pops[0].State != "up" || !slices.Contains(status.Names, "www.edge.example") {
		t.Errorf("status %+v", status)
	}
	if _, err := json.Marshal(status); err != nil {
		t.Error(err)
	}
}

func TestLabelsAreBounded(t *testing.T) {
	labels := make(map[string]bool)
	for qtype := range 1 << 16 {
		labels[qtypeLabel(response{asked: true, qtype: uint16(qtype)})] = true
	}
	if len(labels) != 12 {
		t.Errorf("%d labels for types: %v", len(labels), labels)
	}
}

// A fault of the server costs one query. The view here is broken on purpose.
func TestFaultIsContained(t *testing.T) {
	s, address, reg := start(t, Config{})
	good := s.view.Load()
	s.view.Store(&view{zones: map[name]*zone{"\x07example\x00": {name: "\x07example\x00", nodes: map[name]*node{"\x07example\x00": {}}}}})
	wire, err := asker("example", dns.TypeDS).Pack() // which the fast path leaves alone
	if err != nil {
		t.Fatal(err)
	}
	s.answer(request{msg: wire, from: netip.MustParseAddr("192.0.2.1"), tcp: true}, nil)
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	for value(t, reg, metricPanics) < 2 {
		runtime.Gosched()
	}
	s.view.Store(good)
	c := dns.Client{Timeout: 5 * time.Second}
	got, _, err := c.ExchangeWithConn(asker("mail.edge.example", dns.TypeA), &dns.Conn{Conn: conn})
	if err != nil || len(got.Answer) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	if got := value(t, reg, metricPanics); got != 2 {
		t.Errorf("%v faults, want 2", got)
	}
}

// Queries and updates at the same time, for the race detector; every answer is
// of one table or the other.
func TestUpdatesUnderQueries(t *testing.T) {
	s, address, _ := start(t, Config{})
	drained := steering()
	drained.Pops[0].Drained = true
	tables := []*steer.Table{table(t, steering()), table(t, drained)}
	done := make(chan struct{})
	var updates sync.WaitGroup
	updates.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if err := s.Update(tables[i%2]); err != nil {
				t.Error(err)
			}
			if i%10 == 0 {
				if err := s.SetZones(testZones()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var queries sync.WaitGroup
	for range 4 {
		queries.Go(func() {
			for range 50 {
				got := text(exchange(t, "udp", address, asker("www.edge.example", dns.TypeA)).Answer)
				if got != "www.edge.example. 20 A 192.0.2.1" && got != "www.edge.example. 20 A 192.0.2.2" {
					t.Errorf("got %s", got)
				}
			}
		})
	}
	queries.Wait()
	close(done)
	updates.Wait()
}
