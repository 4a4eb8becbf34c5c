package configs

import (
	"fmt"
	"strings"
	"time"
)

// How many addresses an advertisement has room for (RFC 9568 section 5.2.5): by
// its counter, and in an IPv6 packet of 1280 octets.
const (
	maxVirtual4 = 255
	maxVirtual6 = 77
)

// checkVRRP applies the rules of the virtual routers.
func (p *Pop) checkVRRP(d *document) {
	const path = at("vrrp")
	if p.BGP != nil && len(p.VRRP) > 0 {
		d.report(path, "bgp and vrrp exclude each other: a Backup would announce by BGP what it does not answer for")
	}
	for i := range p.VRRP {
		p.VRRP[i].check(d, path.index(i))
		p.checkServed(d, path.index(i), &p.VRRP[i])
	}
	d.unique(len(p.VRRP), func(i int) (at, string) {
		v := p.VRRP[i]
		if v.Interface == "" || v.VRID == 0 || v.family() == "" {
			return path, ""
		}
		return path.index(i).key("vrid"), fmt.Sprintf("%s of %d on %s", v.family(), v.VRID, v.Interface)
	})
	p.checkSharedAddresses(d)
}

// checkSharedAddresses reports addresses that are in two virtual routers. A
// link-local one may be on two LANs.
func (p *Pop) checkSharedAddresses(d *document) {
	type place struct {
		path  at
		value string
	}
	var all []place
	for i, v := range p.VRRP {
		for j, a := range v.Addresses {
			value := ""
			if a.IsValid() {
				value = a.Addr().String()
				if a.Addr().IsLinkLocalUnicast() {
					value += " on " + v.Interface
				}
			}
			all = append(all, place{at("vrrp").index(i).key("addresses").index(j), value})
		}
	}
	d.unique(len(all), func(i int) (at, string) { return all[i].path, all[i].value })
}

// checkServed reports the virtual addresses at which no listener serves: the
// node's health says nothing about them, and to take them over serves nobody.
func (p *Pop) checkServed(d *document, path at, v *VRRP) {
	if d.lostWithin("listeners") {
		return
	}
	bound := make(map[string]bool) // addresses, and the families of those bound to all
	for _, l := range p.Listeners {
		if a := l.Address.Addr(); a.IsValid() && a.IsUnspecified() {
			bound[familyOf(a)] = true
		} else if a.IsValid() {
			bound[a.String()] = true
		}
	}
	for i, a := range v.Addresses {
		if !a.IsValid() || a.Addr().IsLinkLocalUnicast() || bound[a.Addr().String()] || bound[familyOf(a.Addr())] {
			continue
		}
		d.report(path.key("addresses").index(i), "no listener is bound to %v", a.Addr())
	}
}

func (v *VRRP) check(d *document, path at) {
	if n := v.Interface; n != "" && (len(n) > 15 || n == "." || n == ".." || strings.ContainsAny(n, "/: \t\n\v\f\r")) {
		d.report(path.key("interface"), "%s is not the name of an interface", quote(n))
	}
	if v.Interval.Std()%(10*time.Millisecond) != 0 {
		d.report(path.key("interval"), "must be a whole number of hundredths of a second, not %v", v.Interval)
	}
	if v.DepreferredPriority >= v.Priority && v.Priority > 1 && !d.lost(path.key("depreferred_priority")) {
		d.report(path.key("depreferred_priority"), "must be less than priority (%d), not %d", v.Priority, v.DepreferredPriority)
	}
	if v.PreemptDelay > 0 && v.Preempt != nil && !*v.Preempt {
		d.report(path.key("preempt_delay"), "there is nothing to delay with preempt: false")
	}
	v.checkAddresses(d, path.key("addresses"))
}

func (v *VRRP) checkAddresses(d *document, path at) {
	family := v.family()
	for i, p := range v.Addresses {
		path, a := path.index(i), p.Addr()
		switch {
		case !p.IsValid():
		case a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
			d.report(path, "%v is not an address of a virtual router", a)
		case family != "" && familyOf(a) != family:
			d.report(path, "%v is not of the family of %v: each family needs a virtual router of its own", a, v.Addresses[0].Addr())
		case i == 0 && a.Is6() && !a.IsLinkLocalUnicast():
			d.report(path, "%v is not link-local, as the first IPv6 address of a virtual router must be (RFC 9568)", a)
		}
	}
	limit := maxVirtual4
	if family == "IPv6" {
		limit = maxVirtual6
	}
	if n := len(v.Addresses); n > limit {
		d.report(path, "an advertisement has room for %d addresses, not for %d", limit, n)
	}
}
