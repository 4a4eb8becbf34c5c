package configs

import (
	"cmp"
	"net/netip"
)

// maxShutdownText is the room of a shutdown communication (RFC 9003 section 2).
const maxShutdownText = 255

func (b *BGP) check(d *document) {
	const path = at("bgp")
	d.checkASN(path.key("asn"), b.ASN)
	if b.RouterID.IsValid() && (!b.RouterID.Is4() || b.RouterID.IsUnspecified()) {
		d.report(path.key("router_id"), "must be an IPv4 address other than 0.0.0.0")
	}
	d.uniquePrefixes(path.key("prefixes"), b.Prefixes)
	b.NextHop.check(d, path.key("next_hop"), b.Prefixes)
	d.wholeSeconds(path.key("hold_time"), b.HoldTime)
	if len(b.ShutdownText) > maxShutdownText {
		d.report(path.key("shutdown_text"), "%d bytes, and a shutdown message has room for %d", len(b.ShutdownText), maxShutdownText)
	}
	for i := range b.Neighbors {
		b.Neighbors[i].check(d, path.key("neighbors").index(i), b)
	}
	b.checkActions(d)
	d.unique(len(b.Neighbors), func(i int) (at, string) {
		return path.key("neighbors").index(i).key("address"), text(b.Neighbors[i].Address)
	})
}

// checkASN refuses the numbers that no router may use as its own: RFC 6793
// (23456) and RFC 7300 (the last of 16 and of 32 bits). Zero is missing.
func (d *document) checkASN(path at, asn uint32) {
	switch asn {
	case 23456, 65535, 4294967295:
		d.report(path, "%d is reserved", asn)
	}
}

func (d *document) uniquePrefixes(path at, prefixes []netip.Prefix) {
	d.unique(len(prefixes), func(i int) (at, string) {
		return path.index(i), text(prefixes[i])
	})
}

func (h *NextHop) check(d *document, path at, prefixes []netip.Prefix) {
	for _, family := range []struct {
		key     string
		address netip.Addr
		is4     bool
	}{{"ipv4", h.IPv4, true}, {"ipv6", h.IPv6, false}} {
		path := path.key(family.key)
		if a := family.address; a.IsValid() {
			if a.Is4() != family.is4 || a.IsUnspecified() || a.IsMulticast() {
				d.report(path, "%v is not a unicast address of this family", a)
			}
			continue
		}
		for _, p := range prefixes {
			if p.IsValid() && p.Addr().Is4() == family.is4 {
				d.report(path, "required: %v is announced", p)
				break
			}
		}
	}
}

func (n *Neighbor) check(d *document, path at, b *BGP) {
	d.checkASN(path.key("asn"), n.ASN)
	if n.Address.IsValid() && (n.Address.IsUnspecified() || n.Address.IsMulticast()) {
		d.report(path.key("address"), "%v is not the address of a router", n.Address)
	}
	if n.LocalAddress.IsValid() && n.Address.IsValid() && n.LocalAddress.Is4() != n.Address.Is4() {
		d.report(path.key("local_address"), "%v is not of the family of %v", n.LocalAddress, n.Address)
	}
	if n.ASN == b.ASN && n.ASN != 0 && !d.lost("bgp.asn") {
		d.report(path.key("asn"), "must differ from the own ASN %d: to an internal neighbor a prepended path is a loop", b.ASN)
	}
	d.wholeSeconds(path.key("hold_time"), n.HoldTime)
	d.wholeSeconds(path.key("keepalive_interval"), n.KeepaliveInterval)
	hold := cmp.Or(n.HoldTime, b.HoldTime)
	if k := n.KeepaliveInterval; k > hold/3 {
		d.report(path.key("keepalive_interval"), "must be at most a third of the hold time (%v), not %v", hold, k)
	}
	if n.BFD != nil {
		if detection := n.BFD.Interval * Duration(n.BFD.Multiplier); detection >= hold && !d.lostWithin(path.key("bfd")) {
			d.report(path.key("bfd"), "notices a failure after %v, which is no sooner than the hold time (%v)", detection, hold)
		}
	}
}
