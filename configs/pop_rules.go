package configs

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// prepare fills the defaults that depend on other fields.
func (p *Pop) prepare(d *document) {
	for i := range p.Listeners {
		l := &p.Listeners[i]
		if l.Protocols == nil && !d.explicit(at("listeners").index(i).key("protocols")) {
			l.Protocols = []string{"h1", "h2"}
			if l.Clear {
				l.Protocols = []string{"h1"}
			}
		}
		if !d.explicit(at("listeners").index(i).key("limits.uri_bytes")) {
			l.Limits.URIBytes = min(8<<10, cmp.Or(l.Limits.HeaderBytes, 32<<10)/2)
		}
	}
	for i := range p.Pools {
		h, path := &p.Pools[i].Health, at("pools").index(i).key("health")
		if h.Type == "" && !d.explicit(path.key("type")) {
			h.Type = "tcp"
			if h.Path != "" {
				h.Type = "http"
			}
		}
		if h.Timeout == 0 && !d.explicit(path.key("timeout")) && h.Interval > 0 {
			h.Timeout = min(h.Interval, Duration(time.Second))
		}
	}
	if p.BGP != nil && p.BGP.Deprefer == nil {
		p.BGP.Deprefer = &RouteShape{MED: 1000, Prepend: 3, Communities: []string{"graceful-shutdown"}}
	}
	p.Admin.prepare(d, "127.0.0.1:8600")
}

func (a *Admin) prepare(d *document, address string) {
	if !a.Address.IsValid() && !d.explicit("admin.address") {
		a.Address = netip.MustParseAddrPort(address)
	}
}

// check applies the rules that relate fields to each other.
func (p *Pop) check(d *document) {
	if p.Node.Pop == "" {
		d.report("node.pop", "required")
	}
	p.Fleet.check(d)
	p.checkListeners(d)
	p.checkTLS(d)
	p.checkRoutes(d)
	d.unique(len(p.Pools), func(i int) (at, string) { return at("pools").index(i).key("name"), p.Pools[i].Name })
	for i := range p.Pools {
		p.Pools[i].check(d, at("pools").index(i), p.Fleet.Consul != nil)
	}
	if p.BGP != nil {
		p.BGP.check(d)
	}
	p.checkVRRP(d)
	h := p.Health
	d.atLeast("health.vitals_timeout", h.VitalsTimeout, 2, "health.vitals_interval", h.VitalsInterval)
	d.atLeast("health.hold_down_max", h.HoldDownMax, 1, "health.hold_down", h.HoldDown)
}

// atLeast reports when the span at path is shorter than n times another.
func (d *document) atLeast(path at, span Duration, n int, other at, otherSpan Duration) {
	if span >= Duration(n)*otherSpan || d.lost(other) {
		return
	}
	if n == 1 {
		d.report(path, "must be at least %s (%v), not %v", other, otherSpan, span)
		return
	}
	d.report(path, "must be at least %d times %s (%v), not %v", n, other, otherSpan, span)
}

// wholeSeconds reports a span that the wire cannot carry.
func (d *document) wholeSeconds(path at, span Duration) {
	if span.Std()%time.Second != 0 {
		d.report(path, "must be a whole number of seconds, not %v", span)
	}
}

func (f *Fleet) check(d *document) {
	const path = at("fleet")
	if !d.lost(path.key("memory")) && !d.lost(path.key("consul")) {
		switch {
		case f.Memory && f.Consul != nil:
			d.report(path, "memory and consul exclude each other")
		case !f.Memory && f.Consul == nil:
			d.report(path, "required: memory: true, or consul")
		}
	}
	d.atLeast(path.key("report_ttl"), f.ReportTTL, 2, path.key("report_interval"), f.ReportInterval)
	if f.Consul != nil {
		if f.KeyFile == "" {
			d.report(path.key("key_file"), "required with consul: secrets are sealed before they leave the node")
		}
		f.Consul.check(d, path.key("consul"))
	}
}

func (c *Consul) check(d *document, path at) {
	if c.Address != "" && !isConsulAddress(c.Address) {
		d.report(path.key("address"), "%s is not host:port, an http or https URL, or unix:///path", quote(c.Address))
	}
	if strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/") {
		d.report(path.key("prefix"), `must end with "/" and not begin with it`)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		d.report(path, "cert_file and key_file belong together")
	}
}

func (p *Pop) checkListeners(d *document) {
	d.unique(len(p.Listeners), func(i int) (at, string) {
		return at("listeners").index(i).key("name"), p.Listeners[i].Name
	})
	d.unique(len(p.Listeners)+1, func(i int) (at, string) {
		if i == len(p.Listeners) {
			return "admin.address", text(p.Admin.Address)
		}
		return at("listeners").index(i).key("address"), text(p.Listeners[i].Address)
	})
	for i, l := range p.Listeners {
		path := at("listeners").index(i)
		if l.Clear && slices.Contains(l.Protocols, "h3") {
			d.report(path.key("protocols"), "h3 needs TLS, which clear: true turns off")
		}
		if l.Limits.URIBytes >= l.Limits.HeaderBytes && !d.lostWithin(path.key("limits")) {
			d.report(path.key("limits.uri_bytes"), "must be less than header_bytes (%v), not %v", l.Limits.HeaderBytes, l.Limits.URIBytes)
		}
	}
}

func (p *Pop) checkTLS(d *document) {
	const path = at("tls")
	for i, l := range p.Listeners {
		if !l.Clear && len(p.TLS.Certificates) == 0 && !d.lost(at("listeners").index(i).key("clear")) {
			d.report(path.key("certificates"), "required: listener %s terminates TLS; say clear: true if it should not", show(l.Name))
		}
	}
	t := p.TLS.Tickets
	d.atLeast(path.key("tickets.rotate"), t.Rotate, 4, path.key("tickets.propagation"), t.Propagation)
}

func (p *Pop) checkRoutes(d *document) {
	names := sortedNames(p.Pools, func(p Pool) string { return p.Name })
	for i, r := range p.Routes {
		path := at("routes").index(i)
		if h := r.Match.Host; h != "" && !isHost(strings.TrimPrefix(h, "*.")) {
			d.report(path.key("match.host"), "%s is not a host name, an IP address or *.suffix", quote(h))
		}
		if r.Match.Path != "" && (r.Match.Path[0] != '/' || strings.ContainsAny(r.Match.Path, " ?#")) {
			d.report(path.key("match.path"), `%s is not a path: it begins with "/" and has no "?", "#" or space`, quote(r.Match.Path))
		}
		d.refer(path.key("pool"), r.Pool, names, "pools", "pool")
		if r.Connect && r.Match.Path != "" {
			d.report(path.key("match.path"), "a route with connect: true has no path: CONNECT names none")
		}
		for _, pool := range p.Pools {
			if r.Connect && pool.Name == r.Pool && pool.Protocol != "h1" {
				d.report(path.key("pool"), "tunnels of CONNECT speak no protocol, so their pool %s cannot have protocol: %s", pool.Name, pool.Protocol)
			}
		}
	}
	d.unique(len(p.Routes), func(i int) (at, string) {
		m, path := p.Routes[i].Match, at("routes").index(i).key("match")
		if d.lostWithin(path) {
			return path, ""
		}
		if p.Routes[i].Connect {
			return path, "CONNECT " + strings.ToLower(m.Host)
		}
		return path, strings.ToLower(m.Host) + cmp.Or(m.Path, "/")
	})
}

func (p *Pool) check(d *document, path at, consul bool) {
	var given []string
	if len(p.Backends) > 0 || d.lost(path.key("backends")) {
		given = append(given, "backends")
	}
	if p.Inventory != "" || d.lost(path.key("inventory")) {
		given = append(given, "inventory")
	}
	if p.Consul != nil || d.lost(path.key("consul")) {
		given = append(given, "consul")
	}
	switch len(given) {
	case 0:
		d.report(path, "required: one of backends, inventory and consul")
	case 1:
	default:
		d.report(path, "only one of %s can be the source of the backends", strings.Join(given, " and "))
	}
	if p.Consul != nil && !consul && !d.lost("fleet.consul") {
		d.report(path.key("consul"), "needs fleet.consul")
	}
	if p.Protocol == "auto" && p.TLS == nil && !d.lost(path.key("tls")) {
		d.report(path.key("protocol"), "auto needs tls, whose handshake agrees on the protocol")
	}
	d.unique(len(p.Backends), func(i int) (at, string) {
		path := path.key("backends").index(i).key("address")
		return path, text(p.Backends[i].Address)
	})
	for i, b := range p.Backends {
		if b.Address.IsValid() && (b.Address.Addr().IsUnspecified() || b.Address.Addr().IsMulticast()) {
			d.report(path.key("backends").index(i).key("address"), "%v is not the address of a host", b.Address.Addr())
		}
	}
	p.Health.check(d, path.key("health"))
}

func (h *PoolHealth) check(d *document, path at) {
	switch {
	case h.Type == "http" && h.Path == "":
		d.report(path.key("path"), "required by the http check")
	case h.Type == "tcp" && h.Path != "":
		d.report(path.key("path"), "the tcp check requests no path")
	case h.Path != "" && (h.Path[0] != '/' || strings.ContainsAny(h.Path, " #")):
		d.report(path.key("path"), `%s is not a path to request: it begins with "/" and has no "#" or space`, quote(h.Path))
	}
	if h.Host != "" && !isHost(h.Host) && !isHostPort(h.Host) {
		d.report(path.key("host"), "%s is not a host name with or without a port", quote(h.Host))
	}
	d.atLeast(path.key("interval"), h.Interval, 1, path.key("timeout"), h.Timeout)
}
