package lab

import (
	"fmt"
	"net/netip"

	"anyedge/configs"
)

// Ports of the lab, all above 1024: it needs no privileges.
const (
	portClear = 8080
	portTLS   = 8443
	portDNS   = 5353
	portBGP   = 1179
	portFleet = 8500
	portAdmin = 8600
	portOrig  = 9000
)

// layout gives every part of the lab its address inside the lab's /16:
//
//	x.y.0.1    status page     x.y.0.53   DNS           x.y.0.80  the anycast address
//	x.y.0.2    upstream router x.y.0.3    fleet store
//	x.y.N.1    PoP N           x.y.N.101… its origins
type layout struct {
	network [2]byte
}

func newLayout(network netip.Prefix) layout {
	b := network.Addr().As4()
	return layout{[2]byte{b[0], b[1]}}
}

func (l layout) addr(third, fourth byte) netip.Addr {
	return netip.AddrFrom4([4]byte{l.network[0], l.network[1], third, fourth})
}

func (l layout) status() netip.AddrPort { return netip.AddrPortFrom(l.addr(0, 1), portAdmin) }
func (l layout) router() netip.AddrPort { return netip.AddrPortFrom(l.addr(0, 2), portBGP) }
func (l layout) fleet() netip.AddrPort  { return netip.AddrPortFrom(l.addr(0, 3), portFleet) }
func (l layout) dns() netip.AddrPort    { return netip.AddrPortFrom(l.addr(0, 53), portDNS) }
func (l layout) dnsAdmin() netip.AddrPort {
	return netip.AddrPortFrom(l.addr(0, 53), portAdmin)
}

// anycast is the address that clients use; the relay behind it stands for the
// Internet.
func (l layout) anycast(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(l.addr(0, 80), port)
}

// pop is the address of the n-th PoP, from 0.
func (l layout) pop(n int) netip.Addr { return l.addr(byte(n+1), 1) }

// origin is the address of an origin of the n-th PoP's region, both from 0.
func (l layout) origin(n, origin int) netip.AddrPort {
	return netip.AddrPortFrom(l.addr(byte(n+1), byte(101+origin)), portOrig)
}

// spareOrigin is an origin that runs but is in no inventory, for the story's
// inventory step.
func (l layout) spareOrigin(n int, origins int) netip.AddrPort { return l.origin(n, origins) }

// poolName is the inventory of a region's origins.
func poolName(p configs.LabPop) string { return "web-" + p.Name }

// nodeName is the one node of a PoP.
func nodeName(p configs.LabPop) string { return p.Name + "-1" }

// originName is what a demo origin says it is.
func originName(p configs.LabPop, n int) string { return fmt.Sprintf("%s-origin-%d", p.Name, n+1) }
