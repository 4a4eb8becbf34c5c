package configs

import (
	"net/netip"
	"slices"
)

// DefaultLab returns the lab that an absent config file stands for.
func DefaultLab() *Lab {
	l := new(Lab)
	if err := l.Complete(); err != nil {
		panic("configs: default lab: " + err.Error()) // a test completes it
	}
	return l
}

// prepare fills the defaults that a tag cannot hold.
func (l *Lab) prepare(d *document) {
	if l.Prefixes == nil && !d.explicit("prefixes") {
		l.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}
	}
	if l.Pops == nil && !d.explicit("pops") {
		l.Pops = []LabPop{
			{Name: "fra", Region: "eu", Latitude: 50.11, Longitude: 8.68},
			{Name: "iad", Region: "us", Latitude: 39.04, Longitude: -77.49},
			{Name: "sin", Region: "ap", Latitude: 1.35, Longitude: 103.82},
		}
	}
	if l.Clients == nil && !d.explicit("clients") {
		// Documentation networks (RFC 5737, RFC 3849), one near each default
		// PoP: Paris, Tokyo and New York.
		l.Clients = []LabClients{
			{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Latitude: 48.86, Longitude: 2.35},
			{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Latitude: 35.68, Longitude: 139.69},
			{Prefix: netip.MustParsePrefix("2001:db8:100::/40"), Latitude: 40.71, Longitude: -74.01},
		}
	}
}

// check applies the rules that tags cannot state.
func (l *Lab) check(d *document) {
	loopback, system := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/16")
	if n := l.Network; n.IsValid() && (n.Bits() != 16 || !loopback.Contains(n.Addr()) || n.Masked() == system) {
		d.report("network", "must be a /16 inside 127.0.0.0/8 other than 127.0.0.0/16, not %v", n)
	}
	for _, list := range []struct {
		path at
		n    int
	}{{"prefixes", len(l.Prefixes)}, {"pops", len(l.Pops)}, {"clients", len(l.Clients)}} {
		if list.n == 0 {
			d.report(list.path, "must not be empty; leave the key out for the default")
		}
	}
	d.uniquePrefixes("prefixes", l.Prefixes)
	if len(l.Prefixes) > 0 && !slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		d.report("prefixes", "one must be IPv4: the lab's own addresses are, and its clients follow that route")
	}
	for i, p := range l.Pops {
		if p.Name == "gslb" || p.Name == "consul" {
			d.report(at("pops").index(i).key("name"), "%s is the name of another part of the lab", p.Name)
		}
	}
	if len(l.Pops) > 8 {
		d.report("pops", "at most 8, not %d", len(l.Pops))
	}
	d.unique(len(l.Pops), func(i int) (at, string) { return at("pops").index(i).key("name"), l.Pops[i].Name })
	d.unique(len(l.Clients), func(i int) (at, string) {
		return at("clients").index(i).key("prefix"), text(l.Clients[i].Prefix)
	})
}
