package topology

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Role is what a machine is there for.
type Role string

// The roles.
const (
	CoreRouter Role = "core"
	PopRouter  Role = "router"
	Switch     Role = "switch" // joins the LAN of a PoP
	Node       Role = "node"
	Origin     Role = "origin"
	ClientHost Role = "client"
	ConsulHost Role = "consul"
	DNSHost    Role = "dns"
)

const (
	machineConsul = "consul"
	machineDNS    = "dns"
)

// AS numbers: the service's is private, those of the PoPs' upstreams are for
// documentation (RFC 5398), those of the cores need 32 bits.
const (
	ServiceASN = 64512
	popASN     = 64500
	coreASN    = 65536
)

// Ports.
const (
	PortHTTPS  = 443
	PortHTTP   = 80
	PortAdmin  = 8600 // on loopback of each node
	PortConsul = 8500
	PortDNS    = 53
	portOrigin = 9000
)

const (
	lan          = "lan" // the interface of a member of a PoP's LAN
	routerSuffix = "-router"
)

// Plan is a topology with every name and address fixed.
type Plan struct {
	Topology
	Machines []*Machine
	Links    []Link
}

// Machine is one network namespace.
type Machine struct {
	Name string
	Role Role
	// Pop is the point of presence it stands in; empty outside of any.
	Pop        string
	Interfaces []*Interface
	// Loopback are addresses on lo: the service addresses of a node.
	Loopback []netip.Prefix
	// Gateways are default routes, one of each family; none for routers.
	Gateways []netip.Addr

	// The rest is for routers.

	Daemon   Daemon
	ASN      uint32
	RouterID netip.Addr
	// Networks are announced as its own.
	Networks []netip.Prefix
	Sessions []Session
}

// Interface is one end of a link.
type Interface struct {
	Name string
	// MAC is derived from the names of machine and interface. A namespace that
	// is made anew has the addresses that its neighbors still remember.
	MAC       net.HardwareAddr
	Addresses []netip.Prefix
}

// Link is a cable.
type Link struct{ A, B End }

// End is where a cable is plugged in.
type End struct{ Machine, Interface string }

// String is "machine/interface".
func (e End) String() string { return e.Machine + "/" + e.Interface }

// Session is one side of a BGP session of a router.
type Session struct {
	// Name is a word that is unique in the router, such as "core_us_v6".
	Name string
	// Peer is the machine at the other end.
	Peer    string
	Local   netip.Addr
	Address netip.Addr
	ASN     uint32
	// Node is true when the peer is an edge node: it connects to the router,
	// and one session over IPv4 carries both families.
	Node bool
}

// New fixes everything that the topology leaves open, or reports everything that
// is wrong with it.
func New(t Topology) (*Plan, error) {
	if err := t.validate(); err != nil {
		return nil, err
	}
	p := &Plan{Topology: t}
	for i, c := range t.Cores {
		m := p.add(c.Name, CoreRouter, "")
		m.Daemon, m.ASN, m.RouterID = FRR, coreASN+uint32(i+1), netip.AddrFrom4([4]byte{10, 254, byte(i + 1), 1})
	}
	for _, c := range t.Cores {
		for _, peer := range c.Peers {
			p.peer(p.Machine(c.Name), p.Machine(peer))
		}
	}
	for i := range t.Pops {
		p.addPop(i)
	}
	for _, c := range t.Clients {
		p.attach(p.add(c.Name, ClientHost, ""), c.Core)
	}
	p.attach(p.add(machineConsul, ConsulHost, ""), t.Consul)
	p.attach(p.add(machineDNS, DNSHost, ""), t.DNS)
	return p, nil
}

// Machine returns the machine of a name, or nil.
func (p *Plan) Machine(name string) *Machine {
	for _, m := range p.Machines {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Of returns the machines of a role, in a PoP if one is named.
func (p *Plan) Of(role Role, pop string) []*Machine {
	var found []*Machine
	for _, m := range p.Machines {
		if m.Role == role && (pop == "" || m.Pop == pop) {
			found = append(found, m)
		}
	}
	return found
}

// Router returns the upstream router of a PoP.
func (p *Plan) Router(pop string) *Machine { return p.Machine(pop + routerSuffix) }

// Pop returns the PoP of a name, or nil.
func (p *Plan) Pop(name string) *Pop {
	for i := range p.Pops {
		if p.Pops[i].Name == name {
			return &p.Pops[i]
		}
	}
	return nil
}

// Region returns the region of a PoP.
func (p *Plan) Region(pop string) string { return p.Pop(pop).Region }

// ServiceAddress returns the address that clients connect to.
func (p *Plan) ServiceAddress(v6 bool) netip.Addr { return p.Service[family(v6)].Addr().Next() }

// Prefix returns the service prefix of a family.
func (p *Plan) Prefix(v6 bool) netip.Prefix { return p.Service[family(v6)] }

// Host is the name that clients ask for.
func (p *Plan) Host() string { return "www." + p.Zone }

// Address returns the first address of a family on the machine's first
// interface.
func (m *Machine) Address(v6 bool) netip.Addr { return m.Interfaces[0].Addresses[family(v6)].Addr() }

// Peer returns the end at the other side of a link.
func (p *Plan) Peer(e End) (End, bool) {
	for _, l := range p.Links {
		switch e {
		case l.A:
			return l.B, true
		case l.B:
			return l.A, true
		}
	}
	return End{}, false
}

// Uplink is the end at which a node is plugged in.
func (m *Machine) Uplink() End { return End{m.Name, m.Interfaces[0].Name} }

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func (p *Plan) add(name string, role Role, pop string) *Machine {
	m := &Machine{Name: name, Role: role, Pop: pop}
	p.Machines = append(p.Machines, m)
	return m
}

// connect plugs a cable in. Each interface has the name of the machine at the
// other end, but for the members of a LAN.
func (p *Plan) connect(a, b *Machine, nameA, nameB string, addrA, addrB []netip.Prefix) {
	for _, side := range []struct {
		m    *Machine
		name string
		addr []netip.Prefix
	}{{a, nameA, addrA}, {b, nameB, addrB}} {
		side.m.Interfaces = append(side.m.Interfaces, &Interface{side.name, mac(side.m.Name, side.name), side.addr})
	}
	p.Links = append(p.Links, Link{End{a.Name, nameA}, End{b.Name, nameB}})
}

// peer joins two routers by a link of its own and a session per family.
func (p *Plan) peer(a, b *Machine) {
	n := byte(len(p.Links))
	addr := func(last byte) []netip.Prefix {
		return []netip.Prefix{v4(10, 255, n, last, 31), v6(0xff, uint16(n), uint16(last), 127)}
	}
	addrA, addrB := addr(0), addr(1)
	p.connect(a, b, b.Name, a.Name, addrA, addrB)
	for f := range 2 {
		a.Sessions = append(a.Sessions, Session{sessionName(b.Name, f), b.Name, addrA[f].Addr(), addrB[f].Addr(), b.ASN, false})
		b.Sessions = append(b.Sessions, Session{sessionName(a.Name, f), a.Name, addrB[f].Addr(), addrA[f].Addr(), a.ASN, false})
	}
}

// attach gives a host a network of its own behind a core.
func (p *Plan) attach(m *Machine, core string) {
	n := byte(len(p.Of(ClientHost, "")) + len(p.Of(ConsulHost, "")) + len(p.Of(DNSHost, "")))
	c := p.Machine(core)
	router := []netip.Prefix{v4(10, 20, n, 1, 24), v6(0x20, uint16(n), 1, 64)}
	host := []netip.Prefix{v4(10, 20, n, 2, 24), v6(0x20, uint16(n), 2, 64)}
	p.connect(m, c, c.Name, m.Name, host, router)
	m.gateways(router)
	c.Networks = append(c.Networks, router[0].Masked(), router[1].Masked())
}

func (m *Machine) gateways(router []netip.Prefix) {
	for _, r := range router {
		m.Gateways = append(m.Gateways, r.Addr())
	}
}

// addPop makes a PoP: a switch, and on it a router, nodes and origins.
func (p *Plan) addPop(i int) {
	pop, n := p.Pops[i], byte(i+1)
	addr := func(last4 byte, last6 uint16) []netip.Prefix {
		return []netip.Prefix{v4(10, n, 0, last4, 24), v6(0x10, uint16(n), last6, 64)}
	}
	router := p.add(pop.Name+routerSuffix, PopRouter, pop.Name)
	gateway := addr(1, 1)
	router.Daemon, router.ASN, router.RouterID = pop.Router, popASN+uint32(n), gateway[0].Addr()
	router.Networks = []netip.Prefix{gateway[0].Masked(), gateway[1].Masked()}
	sw := p.add(pop.Name+"-switch", Switch, pop.Name)
	p.connect(router, sw, lan, router.Name, gateway, nil)
	for k := range pop.Nodes {
		node := p.add(fmt.Sprintf("%s-%d", pop.Name, k+1), Node, pop.Name)
		p.connect(node, sw, lan, node.Name, addr(byte(11+k), uint16(0x11+k)), nil)
		node.gateways(gateway)
		for _, v6 := range []bool{false, true} {
			a := p.ServiceAddress(v6)
			node.Loopback = append(node.Loopback, netip.PrefixFrom(a, a.BitLen()))
		}
		router.Sessions = append(router.Sessions, Session{
			Name: word(node.Name), Peer: node.Name, Local: router.Address(false), Address: node.Address(false), ASN: ServiceASN, Node: true,
		})
	}
	for k := range pop.Origins {
		origin := p.add(fmt.Sprintf("%s-origin-%d", pop.Name, k+1), Origin, pop.Name)
		p.connect(origin, sw, lan, fmt.Sprintf("origin-%d", k+1), addr(byte(101+k), uint16(0x101+k)), nil)
		origin.gateways(gateway)
	}
	p.peer(router, p.Machine(pop.Core))
}

// word is a name as BIRD wants it.
func word(name string) string { return strings.ReplaceAll(name, "-", "_") }

func sessionName(peer string, family int) string { return word(peer) + [2]string{"_v4", "_v6"}[family] }

func v4(a, b, c, d byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, c, d}), bits)
}

// v6 is 2001:db8:<net>:<sub>::<host>.
func v6(net, sub, host uint16, bits int) netip.Prefix {
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(net >> 8), byte(net), byte(sub >> 8), byte(sub), 14: byte(host >> 8), 15: byte(host)}
	return netip.PrefixFrom(netip.AddrFrom16(a), bits)
}

// mac is a locally administered unicast address.
func mac(machine, iface string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(machine + "/" + iface))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}
