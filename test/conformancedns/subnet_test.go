package conformancedns

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/gslb"
	"anyedge/gslb/steer"
	"anyedge/internal/cidr"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	subnetZone    = "edge.example."
	clientsPer    = 5000 // of each steered name
	mapNetworks   = 400
	subnetTimeout = time.Hour // of the answers: none may expire in the test
)

// subnetWorld is PoPs and a map of client networks, one in the other and side by
// side, and all of the Internet has a place: a client without one is for a lot, which
// has no right answer.
func subnetWorld(random *rand.Rand) steer.Input {
	in := steer.Input{Clients: []steer.Client{
		{Prefix: cidr.MustParse("0.0.0.0/0"), Lat: 40, Lon: -75},
		{Prefix: cidr.MustParse("10.0.0.0/8"), Lat: 50, Lon: 8},
		{Prefix: cidr.MustParse("::/0"), Lat: 40, Lon: -75},
		{Prefix: cidr.MustParse("2001:db8::/32"), Lat: 1, Lon: 103},
	}}
	var answers []steer.Answer
	for i := range 6 {
		name := fmt.Sprintf("p%d", i)
		in.Pops = append(in.Pops, steer.Pop{Name: name, Lat: random.Float64()*120 - 60, Lon: random.Float64()*360 - 180, State: steer.Up,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xff, 15: byte(i + 1)})}})
		answers = append(answers, steer.Answer{Pop: name, Weight: 1})
	}
	for _, n := range []string{"a", "b"} {
		in.Names = append(in.Names, steer.Name{Name: n + "." + subnetZone, Policy: steer.Nearest, TTL: subnetTimeout, Answers: answers})
		answers = slices.Clone(answers[:3])
	}
	in.Names = append(in.Names, steer.Name{Name: "sticky." + subnetZone, Policy: steer.Sticky, TTL: subnetTimeout, Answers: answers})
	seen := make(map[netip.Prefix]bool)
	for len(in.Clients) < mapNetworks {
		var p netip.Prefix
		if random.IntN(2) == 0 {
			p = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), byte(random.IntN(256)), byte(random.IntN(256))}), 12+random.IntN(17))
		} else {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(random.IntN(4)), byte(random.IntN(256)), byte(random.IntN(256)), byte(random.IntN(256))}), 36+random.IntN(25))
		}
		if p = p.Masked(); !seen[p] {
			seen[p] = true
			in.Clients = append(in.Clients, steer.Client{Prefix: cidr.From(p), Lat: random.Float64()*120 - 60, Lon: random.Float64()*360 - 180})
		}
	}
	return in
}

// client is a network near those of the map: around or in one of them, or beside.
func client(random *rand.Rand, in *steer.Input) netip.Prefix {
	p := in.Clients[random.IntN(len(in.Clients))].Prefix
	octets := p.Addr().AsSlice()
	for i := max(p.Bits()-random.IntN(3), 0); i < 8*len(octets); i++ {
		octets[i/8] ^= byte(random.IntN(2)) << (7 - i%8)
	}
	addr, _ := netip.AddrFromSlice(octets)
	length := 24
	if addr.Is6() {
		length = 56
	}
	if random.IntN(4) == 0 { // as no resolver should, but some do
		length = addr.BitLen()
	}
	return netip.PrefixFrom(addr, length).Masked()
}

// askFor asks for the addresses of a name for a client network.
func askFor(server netip.Addr, name string, p netip.Prefix) (string, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeA)
	q.SetEdns0(1232, false)
	family := uint16(1)
	if p.Addr().Is6() {
		family = 2
	}
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()})
	c := dns.Client{Timeout: 2 * time.Second}
	got, _, err := c.Exchange(q, netip.AddrPortFrom(server, port).String())
	if err != nil {
		return "", err
	}
	if got.Rcode != dns.RcodeSuccess {
		return "", fmt.Errorf("%s", dns.RcodeToString[got.Rcode])
	}
	var addrs []string
	for _, rr := range got.Answer {
		if a, ok := rr.(*dns.A); ok {
			addrs = append(addrs, a.A.String())
		}
	}
	slices.Sort(addrs)
	return strings.Join(addrs, " "), nil
}

// TestSubnetsBehindACache has Unbound, which sends and caches client subnets, ask
// for thousands of clients. Whatever it has in its cache by the scopes it was
// given, no client may get an answer that is another's.
func TestSubnetsBehindACache(t *testing.T) {
	if os.Getenv("ANYEDGE_CONFORMANCE_DNS") == "" {
		t.Skip(skipText)
	}
	random := rand.New(rand.NewPCG(7871, 1))
	in := subnetWorld(random)
	table, err := steer.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	s, err := gslb.New(gslb.Config{
		Listen: []netip.AddrPort{netip.AddrPortFrom(ours, port)},
		Zones:  []gslb.Zone{{Name: subnetZone, Text: "@ 3600 SOA ns hostmaster 1 2 3 4 300\n@ 3600 NS ns\nns 3600 A " + ours.String() + "\n"}},
	}, slog.New(slog.DiscardHandler), registry)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(table); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	dir := t.TempDir()
	config := write(t, filepath.Join(dir, "unbound.conf"), fmt.Sprintf(`server:
  interface: %[1]s@%[2]d
  directory: %[3]s
  username: ""
  chroot: ""
  pidfile: ""
  do-daemonize: no
  use-syslog: no
  num-threads: 1
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  module-config: "subnetcache iterator"
  send-client-subnet: %[4]s
  client-subnet-always-forward: yes
  max-client-subnet-ipv4: 32
  max-client-subnet-ipv6: 128
  max-ecs-tree-size-ipv4: 100000
  max-ecs-tree-size-ipv6: 100000
remote-control:
  control-enable: no
stub-zone:
  name: %[5]s
  stub-addr: %[4]s@%[2]d
`, unbound, port, dir, ours, subnetZone))
	startPeer(t, unbound, nil, "unbound", "-d", "-c", config)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := askFor(unbound, "ns."+subnetZone, netip.MustParsePrefix("10.0.0.0/24")); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("unbound does not serve: %v", err)
		}
	}

	before := queries(t, registry)
	asked, wrong := 0, 0
	want := make(map[string]string) // right answers by name and client
	for range clientsPer {
		p := client(random, &in)
		for _, n := range in.Names {
			direct, err := askFor(ours, n.Name, p)
			if err != nil || direct == "" {
				t.Fatalf("%s for %v: %q, %v", n.Name, p, direct, err)
			}
			want[n.Name+p.String()] = direct
			cached, err := askFor(unbound, n.Name, p)
			if err != nil {
				t.Fatalf("unbound: %s for %v: %v", n.Name, p, err)
			}
			if asked++; cached != direct {
				if wrong++; wrong <= 10 {
					t.Errorf("%s for %v: %s through the cache, %s directly", n.Name, p, cached, direct)
				}
			}
		}
	}
	missed := int(queries(t, registry)-before) - asked // those of the cache
	different := make(map[string]bool)
	for _, answer := range want {
		different[answer] = true
	}
	t.Logf("%d answers for %d clients, %d of them from the cache, %d wrong; %d different ones", asked, clientsPer, asked-missed, wrong, len(different))
	if missed <= 0 || missed > asked*9/10 || len(different) < 4 {
		t.Errorf("the cache asked %d times for %d answers, %d different: this shows nothing", missed, asked, len(different))
	}
}

// queries is how many queries a server has answered.
func queries(t *testing.T, registry *prometheus.Registry) (total float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "anyedge_gslb_queries_total" {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}
