package topology

import (
	"bytes"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"anyedge/configs"
)

func newPlan(t *testing.T, top Topology) *Plan {
	t.Helper()
	p, err := New(top)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestServesByShortestPath(t *testing.T) {
	p := newPlan(t, Default())
	for _, c := range []struct {
		client string
		out    []string
		want   string
	}{
		{"paris", nil, "fra"},
		{"newyork", nil, "iad"},
		{"tokyo", nil, "sin"},
		{"paris", []string{"fra"}, "iad"},
		{"tokyo", []string{"sin"}, "iad"},
		{"newyork", []string{"iad"}, "fra"}, // as far as sin; core-eu has the lower router ID
		{"paris", []string{"fra", "iad"}, "sin"},
		{"newyork", []string{"iad", "fra"}, "sin"},
		{"paris", []string{"fra", "iad", "sin"}, ""},
	} {
		if got := p.Serves(c.client, c.out...); got != c.want {
			t.Errorf("%s without %v: %q, want %q", c.client, c.out, got, c.want)
		}
	}
}

// What machines are told about each other fits together.
func TestPlanIsConsistent(t *testing.T) {
	top := Default()
	for i := range top.Pops {
		top.Pops[i].Nodes, top.Pops[i].Origins = maxNodes, maxOrigins
	}
	p := newPlan(t, top)
	addresses := make(map[netip.Addr]string)
	macs := make(map[string]string)
	for _, m := range p.Machines {
		names := make(map[string]bool)
		for _, i := range m.Interfaces {
			at := m.Name + "/" + i.Name
			if len(i.Name) > 15 || names[i.Name] {
				t.Errorf("%s: the name is too long, or there twice", at)
			}
			names[i.Name] = true
			if other, taken := macs[i.MAC.String()]; taken || i.MAC[0]&3 != 2 {
				t.Errorf("%s: MAC %s, which %s has", at, i.MAC, other)
			}
			macs[i.MAC.String()] = at
			for _, a := range i.Addresses {
				if other, taken := addresses[a.Addr()]; taken {
					t.Errorf("%s: %s, which %s has", at, a, other)
				}
				addresses[a.Addr()] = m.Name
			}
		}
	}
	for _, m := range p.Machines {
		for _, s := range m.Sessions {
			if addresses[s.Local] != m.Name || addresses[s.Address] != s.Peer {
				t.Errorf("%s: session %+v does not lead there", m.Name, s)
			}
			if peer := p.Machine(s.Peer); !s.Node && peer.ASN != s.ASN {
				t.Errorf("%s: session with AS %d, the peer has %d", m.Name, s.ASN, peer.ASN)
			}
		}
		for _, g := range m.Gateways {
			onLink := slices.ContainsFunc(m.Interfaces[0].Addresses, func(a netip.Prefix) bool { return a.Masked().Contains(g) })
			if !onLink || p.Machine(addresses[g]).Daemon == "" {
				t.Errorf("%s: gateway %s is no router on its link", m.Name, g)
			}
		}
	}
	for _, k := range p.Links {
		if b, ok := p.Peer(k.A); !ok || b != k.B {
			t.Errorf("the peer of %s is %s, want %s", k.A, b, k.B)
		}
	}
}

func TestNewReportsEverythingWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Topology)
		want   []string
	}{
		"families":       {func(t *Topology) { slices.Reverse(t.Service) }, []string{"in this order"}},
		"names":          {func(t *Topology) { t.Pops[0].Name, t.Clients[0].Name = "Frankfurt", "iad" }, []string{`"Frankfurt"`, `client "iad": the name is taken`}},
		"reserved":       {func(t *Topology) { t.Clients[0].Name = "consul" }, []string{"taken"}},
		"unknown core":   {func(t *Topology) { t.Pops[1].Core, t.DNS = "nowhere", "nor-here" }, []string{`pop iad: there is no core "nowhere"`, `dns: there is no core "nor-here"`}},
		"counts":         {func(t *Topology) { t.Pops[0].Nodes, t.Pops[1].Origins = 0, 9 }, []string{"pop fra: nodes: 0 is not 1 to 8", "pop iad: origins: 9"}},
		"router":         {func(t *Topology) { t.Pops[0].Router = "openbgpd" }, []string{"neither frr nor bird"}},
		"link twice":     {func(t *Topology) { t.Cores[1].Peers = append(t.Cores[1].Peers, "core-eu") }, []string{"second link to core-eu"}},
		"link to itself": {func(t *Topology) { t.Cores[2].Peers = []string{"core-ap"} }, []string{"to itself"}},
		"nothing":        {func(t *Topology) { *t = Topology{} }, []string{"service:", "cores: 0", "pops: 0", "clients: 0"}},
	} {
		top := Default()
		top.Cores, top.Pops, top.Clients, top.Service = slices.Clone(top.Cores), slices.Clone(top.Pops), slices.Clone(top.Clients), slices.Clone(top.Service)
		c.change(&top)
		_, err := New(top)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q, want %q in it", name, err, want)
			}
		}
	}
}

func TestFilesAreComplete(t *testing.T) {
	p := newPlan(t, Default())
	files, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"core-eu/bgpd.conf", "core-eu/zebra.conf", "fra-router/bgpd.conf", "fra-router/bfdd.conf", "iad-router/bird.conf", "consul/consul.json", "dns/zone", "dns/clients.csv"} {
		if len(files[name]) == 0 {
			t.Errorf("no %s", name)
		}
	}
	for _, n := range p.Of(Node, "") {
		cfg, err := configs.ParsePop(n.Name, files[n.Name+"/pop.yaml"])
		if err != nil {
			t.Errorf("%s: %v\n%s", n.Name, err, files[n.Name+"/pop.yaml"])
			continue
		}
		if cfg.BGP.HoldTime.Std() != HoldTime || cfg.BGP.NextHop.IPv6 != n.Address(true) {
			t.Errorf("%s: BGP %+v", n.Name, cfg.BGP)
		}
	}
	if _, err := configs.ParseGSLB("dns", files["dns/gslb.yaml"]); err != nil {
		t.Error(err)
	}
}

// The routers' own parsers take what is rendered, if they are here.
func TestRoutersTakeTheirConfigs(t *testing.T) {
	top := Default()
	top.Pops[2].FullTable = true
	p := newPlan(t, top)
	files, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for name, config := range files {
		var program string
		var args []string
		switch filepath.Base(name) {
		case "bird.conf":
			program, args = "/usr/sbin/bird", []string{"-p", "-c", "/dev/stdin"}
		case "bgpd.conf":
			program, args = "/usr/lib/frr/bgpd", []string{"-C", "-f", "/dev/stdin"}
		default:
			continue
		}
		if _, err := exec.LookPath(program); err != nil {
			continue
		}
		checked++
		cmd := exec.Command(program, args...)
		cmd.Stdin = bytes.NewReader(config)
		if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("Unknown command")) {
			t.Errorf("%s: %v: %s\n%s", name, err, out, config)
		}
	}
	if checked == 0 {
		t.Skip("neither FRR nor BIRD is here")
	}
}
