package configs

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// prepare fills the defaults that depend on other fields.
func (g *GSLB) prepare(d *document) { g.Admin.prepare(d, "127.0.0.1:8601") }

// check applies the rules that relate fields to each other.
func (g *GSLB) check(d *document) {
	g.Fleet.check(d)
	listeners := map[at][]netip.AddrPort{"listen": g.Listen}
	if e := g.Encrypted; e != nil {
		if len(e.DoT)+len(e.DoH) == 0 && !d.lostWithin("encrypted") {
			d.report("encrypted", "neither dot nor doh has an address")
		}
		listeners["encrypted.dot"], listeners["encrypted.doh"] = e.DoT, e.DoH
	}
	type listener struct {
		path    at
		address string
	}
	all := []listener{}
	for _, path := range []at{"listen", "encrypted.dot", "encrypted.doh"} {
		for i, address := range listeners[path] {
			all = append(all, listener{path.index(i), text(address)})
		}
	}
	all = append(all, listener{"admin.address", text(g.Admin.Address)})
	d.unique(len(all), func(i int) (at, string) { return all[i].path, all[i].address })
	if g.XDP != nil {
		if n := g.XDP.Interface; len(n) > 15 || strings.ContainsAny(n, "/ :\t\n") {
			d.report("xdp.interface", "%s is not the name of a network interface", show(n))
		}
		if g.RateLimit != nil && g.RateLimit.Responses == 1 {
			d.report("rate_limit.responses", "the sockets and xdp each have a part of it: at least 2")
		}
	}
	if len(g.NSID) > 128 {
		d.report("nsid", "longer than 128 octets")
	}
	d.unique(len(g.Zones), func(i int) (at, string) {
		return at("zones").index(i).key("name"), canonicalName(g.Zones[i].Name)
	})
	d.unique(len(g.Zones), func(i int) (at, string) {
		if g.Zones[i].DNSSEC == nil {
			return "", ""
		}
		return at("zones").index(i).key("dnssec.key_file"), g.Zones[i].DNSSEC.KeyFile
	})
	d.unique(len(g.Zones), func(i int) (at, string) {
		return at("zones").index(i).key("copy_file"), g.Zones[i].CopyFile
	})
	d.unique(len(g.Keys), func(i int) (at, string) {
		return at("keys").index(i).key("name"), canonicalName(g.Keys[i].Name)
	})
	keys := sortedNames(g.Keys, func(k DNSKey) string { return k.Name })
	for i := range g.Zones {
		z, path := &g.Zones[i], at("zones").index(i)
		z.check(d, path, keys)
		z.DNSSEC.check(d, path.key("dnssec"), g.Fleet.Consul != nil)
		if z.Alias != "" && len(g.Resolvers) == 0 && !d.lostWithin("resolvers") && !d.lostWithin("names") &&
			!slices.ContainsFunc(g.Names, func(n SteeredName) bool { return canonicalName(n.Name) == canonicalName(z.Alias) }) {
			d.report(path.key("alias"), "%s is not steered, and there are no resolvers to ask", show(z.Alias))
		}
	}
	d.unique(len(g.Pops), func(i int) (at, string) { return at("pops").index(i).key("name"), g.Pops[i].Name })
	for i, p := range g.Pops {
		p.check(d, at("pops").index(i))
	}
	d.unique(len(g.Names), func(i int) (at, string) {
		return at("names").index(i).key("name"), canonicalName(g.Names[i].Name)
	})
	zones := map[string]bool{}
	for _, z := range g.Zones {
		zones[canonicalName(z.Name)] = true
	}
	pops := sortedNames(g.Pops, func(p SteerPop) string { return p.Name })
	for i := range g.Names {
		g.Names[i].check(d, at("names").index(i), zones, pops)
	}
	g.checkSteering(d)
}

func (z *Zone) check(d *document, path at, keys []string) {
	if (z.File == "") == (len(z.Primaries) == 0) && !d.lostWithin(path.key("file")) && !d.lostWithin(path.key("primaries")) {
		d.report(path, "needs either a file or primaries")
	}
	if z.Alias != "" && len(z.Primaries) > 0 {
		d.report(path.key("alias"), "a copy cannot have an alias")
	}
	if z.CopyFile != "" && len(z.Primaries) == 0 && !d.lostWithin(path.key("primaries")) {
		d.report(path.key("copy_file"), "keeps the copy of a zone with primaries, and this one has none")
	}
	refer := func(path at, key string) {
		if key != "" {
			d.refer(path, key, keys, "keys", "entry of keys")
		}
	}
	for i, p := range z.Primaries {
		refer(path.key("primaries").index(i).key("key"), p.Key)
	}
	if z.DNSSEC != nil && len(z.Primaries) > 0 {
		d.report(path.key("dnssec"), "a copy is served as it is, so it is signed by its primaries or not at all")
	}
	if z.Transfer == nil {
		return
	}
	path = path.key("transfer")
	if len(z.Transfer.Allow)+len(z.Transfer.Keys) == 0 && !d.lostWithin(path) {
		d.report(path, "allows nobody: allow or keys is needed")
	}
	for i, key := range z.Transfer.Keys {
		refer(path.key("keys").index(i), key)
	}
	for i, p := range z.Transfer.Notify {
		refer(path.key("notify").index(i).key("key"), p.Key)
	}
}

// check looks at how a zone is signed; nil is not at all.
func (s *ZoneDNSSEC) check(d *document, path at, shared bool) {
	if s == nil || d.lost(path) {
		return
	}
	if s.KeyFile == "" && !shared && !d.lostWithin("fleet") {
		d.report(path.key("key_file"), "required without fleet.consul: the keys must survive a restart")
	}
	// A rollover takes the TTLs and four times the propagation; two must not meet.
	least := 4*s.Propagation + s.MaxTTL + Duration(time.Hour)
	if life := s.ZSKLifetime; s.Keys == "ksk_zsk" && life != nil && *life != 0 && *life < 2*least {
		d.report(path.key("zsk_lifetime"), "must be 0s or at least %v, twice as long as a rollover takes by propagation and max_ttl, not %v", 2*least, *life)
	}
}

func (p *SteerPop) check(d *document, path at) {
	path = path.key("addresses")
	d.unique(len(p.Addresses), func(i int) (at, string) {
		return path.index(i), text(p.Addresses[i])
	})
	for i, a := range p.Addresses {
		if a.IsValid() && (a.IsUnspecified() || a.IsMulticast() || a.Zone() != "") {
			d.report(path.index(i), "%v is not an address that clients can reach", a)
		}
	}
}

func (n *SteeredName) check(d *document, path at, zones map[string]bool, pops []string) {
	if n.Name != "" && !inZone(n.Name, zones) && !d.lostWithin("zones") {
		d.report(path.key("name"), "%s lies in none of the zones", show(n.Name))
	}
	d.wholeSeconds(path.key("ttl"), n.TTL)
	d.unique(len(n.Answers), func(i int) (at, string) {
		return path.key("answers").index(i).key("pop"), n.Answers[i].Pop
	})
	total := 0
	for i, a := range n.Answers {
		d.refer(path.key("answers").index(i).key("pop"), a.Pop, pops, "pops", "entry of pops")
		if a.Weight != nil {
			total += *a.Weight
		}
	}
	if (n.Policy == "weighted" || n.Policy == "sticky") && len(n.Answers) > 0 && total == 0 && !d.lostWithin(path.key("answers")) {
		d.report(path.key("answers"), "at least one weight must be above 0")
	}
}

// inZone reports whether name is in or below one of the zones, whose names are
// canonical.
func inZone(name string, zones map[string]bool) bool {
	for rest, more := canonicalName(name), true; more; {
		if zones[rest] && rest != "" {
			return true
		}
		_, rest, more = strings.Cut(rest, ".")
	}
	return false
}
