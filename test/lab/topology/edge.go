package topology

import (
	"bytes"
	"fmt"
	"net/netip"
	"path"
	"time"

	"anyedge/configs"
)

const toShared = "../" + Shared + "/"

func span(d time.Duration) configs.Duration { return configs.Duration(d) }

// nodeConfig is the config of an edge node, with a pace that suits a lab.
func (p *Plan) nodeConfig(m *Machine) ([]byte, error) {
	pop := p.Pop(m.Pop)
	router := p.Router(m.Pop)
	minPops := min(1, len(p.Pops)-1)
	return configs.Encode(&configs.Pop{
		Node:      configs.Node{Name: m.Name, Pop: pop.Name, Region: pop.Region, Latitude: pop.Latitude, Longitude: pop.Longitude},
		Fleet:     p.fleetConfig(),
		Listeners: p.listeners(m),
		TLS: configs.TLS{
			Certificates: []configs.Certificate{{CertFile: toShared + CertFile, KeyFile: toShared + KeyFile}},
			Tickets:      configs.Tickets{Propagation: span(5 * time.Second)},
		},
		Routes: []configs.Route{{Pool: "web", Timeout: span(10 * time.Second)}},
		Pools: []configs.Pool{{
			Name:   "web",
			Consul: &configs.ConsulService{Service: "web", Tag: pop.Name},
			Health: configs.PoolHealth{Type: "http", Path: "/healthz", Interval: span(500 * time.Millisecond), Timeout: span(400 * time.Millisecond)},
		}},
		BGP: &configs.BGP{
			ASN: ServiceASN, RouterID: m.Address(false), Prefixes: p.Service,
			NextHop:   configs.NextHop{IPv4: m.Address(false), IPv6: m.Address(true)},
			HoldTime:  span(HoldTime),
			Neighbors: []configs.Neighbor{{Address: router.Address(false), ASN: router.ASN, LocalAddress: m.Address(false), BFD: p.nodeBFD()}},
		},
		Health: configs.Health{
			ProbeInterval: span(250 * time.Millisecond), VitalsInterval: span(100 * time.Millisecond), VitalsTimeout: span(time.Second),
			// One hold-down for every flap: a failure that is played again should look the same.
			Rise: 2, Fall: 2, HoldDown: span(time.Second), HoldDownMax: span(time.Second), FlapMemory: span(10 * time.Second),
		},
		Guard:  configs.Guard{MinPops: &minPops, Share: 50, Window: span(3 * time.Second)},
		Drain:  configs.Drain{Deprefer: span(time.Second), Withdraw: span(time.Second), Close: span(3 * time.Second)},
		Worker: configs.Worker{CrashWindow: span(10 * time.Second), DrainTimeout: span(3 * time.Second)},
	})
}

// nodeBFD is a node's side of BFD with its router, or nil.
func (p *Plan) nodeBFD() *configs.BFD {
	if !p.BFD.On() {
		return nil
	}
	return &configs.BFD{Interval: span(p.BFD.Interval), Multiplier: p.BFD.Multiplier}
}

// listeners are the service addresses, which every node has, and those of the
// node itself, which the DNS leads to.
func (p *Plan) listeners(m *Machine) []configs.Listener {
	var all []configs.Listener
	for i, suffix := range []string{"4", "6"} {
		service, own := p.ServiceAddress(i == 1), m.Address(i == 1)
		all = append(all,
			configs.Listener{Name: "web" + suffix, Address: netip.AddrPortFrom(service, PortHTTPS)},
			configs.Listener{Name: "clear" + suffix, Address: netip.AddrPortFrom(service, PortHTTP), Clear: true},
			configs.Listener{Name: "unicast" + suffix, Address: netip.AddrPortFrom(own, PortHTTPS)},
		)
	}
	return all
}

func (p *Plan) fleetConfig() configs.Fleet {
	return configs.Fleet{
		Consul:         &configs.Consul{Address: p.ConsulAddress().String()},
		KeyFile:        toShared + SealingFile,
		ReportInterval: span(300 * time.Millisecond),
		ReportTTL:      span(2 * time.Second),
	}
}

// dnsFiles are the config of the DNS node, its zone and the places of the
// clients.
func (p *Plan) dnsFiles(files map[string][]byte, m *Machine) error {
	var pops []configs.SteerPop
	var answers []configs.SteerAnswer
	for _, pop := range p.Pops {
		var addrs []netip.Addr
		for _, n := range p.Of(Node, pop.Name) {
			addrs = append(addrs, n.Address(false), n.Address(true))
		}
		pops = append(pops, configs.SteerPop{Name: pop.Name, Latitude: pop.Latitude, Longitude: pop.Longitude, Addresses: addrs})
		answers = append(answers, configs.SteerAnswer{Pop: pop.Name})
	}
	config, err := configs.Encode(&configs.GSLB{
		Node:    configs.Node{Name: m.Name},
		Fleet:   p.fleetConfig(),
		Listen:  []netip.AddrPort{p.DNSAddress(), netip.AddrPortFrom(m.Address(true), PortDNS)},
		Zones:   []configs.Zone{{Name: p.Zone, File: "zone"}},
		Pops:    pops,
		Clients: "clients.csv",
		Names:   []configs.SteeredName{{Name: p.Host(), Policy: "nearest", TTL: span(5 * time.Second), Answers: answers}},
	})
	if err != nil {
		return err
	}
	zone, err := render("zone", map[string]any{
		"Zone": p.Zone, "DNS4": m.Address(false), "DNS6": m.Address(true),
		"Anycast4": p.ServiceAddress(false), "Anycast6": p.ServiceAddress(true),
	})
	if err != nil {
		return err
	}
	var clients bytes.Buffer
	fmt.Fprintln(&clients, "# prefix,latitude,longitude")
	for _, c := range p.Clients {
		for _, a := range p.Machine(c.Name).Interfaces[0].Addresses {
			fmt.Fprintf(&clients, "%s,%g,%g\n", a.Masked(), c.Latitude, c.Longitude)
		}
	}
	files[path.Join(m.Name, "gslb.yaml")] = config
	files[path.Join(m.Name, "zone")] = zone
	files[path.Join(m.Name, "clients.csv")] = clients.Bytes()
	return nil
}
