package soak

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"anyedge/configs"
	"anyedge/origin"
	"anyedge/pop/proxy"
)

// group is a pool with its origins.
type group struct {
	name    string
	back    *back
	flaky   bool
	origins []*place
}

// place is where an origin is, or was and may be again.
type place struct {
	at  netip.AddrPort
	now *server // nil if there is none
}

// chaos changes what the edge is to do, and takes origins away and back.
type chaos struct {
	soak     *soak
	rand     *rand.Rand
	groups   []*group
	draining bool
}

func (c *chaos) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(20+c.rand.IntN(200)) * time.Millisecond):
		}
		switch c.rand.IntN(10) {
		case 0, 1, 2:
			c.origins()
		case 3, 4, 5:
			c.pools()
		case 6:
			c.listeners()
		case 7, 8:
			c.drain()
		case 9:
			c.bad()
		}
	}
}

// origins kills an origin of a flaky pool, or starts it again.
func (c *chaos) origins() {
	g := pick(c.rand, c.groups...)
	if !g.flaky {
		return
	}
	o := pick(c.rand, g.origins...)
	if o.now != nil {
		c.soak.event("origins killed")
		o.now.kill(c.rand.IntN(2) == 0)
		o.now = nil
		return
	}
	if err := o.start(c.soak, g.back); err == nil {
		c.soak.event("origins started again")
	}
}

// start starts an origin at its place.
func (o *place) start(s *soak, b *back) (err error) {
	o.now, err = startServer(s, o.at, b.secured(s.edge))
	if err == nil {
		o.at = o.now.address()
	}
	return err
}

// pools changes the backends of a pool.
func (c *chaos) pools() { c.poolOf(pick(c.rand, c.groups...)) }

func (c *chaos) poolOf(g *group) {
	set := g.set(c.rand)
	c.apply("pools changed", func(s *proxy.Snapshot) {
		for i := range s.Pools {
			if p := &s.Pools[i]; p.Config.Name == g.name {
				p.Backends = set
				p.Config.Balance = pick(c.rand, origin.RoundRobin, origin.LeastRequest)
			}
		}
	})
}

// set draws a set of two of the group's backends, or all of them.
func (g *group) set(r *rand.Rand) (set origin.Set) {
	for len(set) < 2 {
		set = nil
		for _, o := range g.origins {
			if r.IntN(3) > 0 {
				set = append(set, origin.Backend{Address: o.at, Weight: 1 + r.IntN(3)})
			}
		}
	}
	return set
}

// listeners changes a listener, whose clients are asked to go.
func (c *chaos) listeners() {
	c.apply("listeners changed", func(s *proxy.Snapshot) {
		l := &s.Listeners[c.rand.IntN(len(s.Listeners))]
		if len(l.TrustedHops) > 0 {
			l.TrustedHops = nil
		} else {
			l.TrustedHops = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
	})
}

func (c *chaos) drain() {
	c.draining = !c.draining
	if c.draining {
		c.soak.event("drains")
		c.soak.edge.worker.Drain()
	} else {
		c.soak.edge.worker.Undrain()
	}
}

// bad applies a snapshot that must be refused.
func (c *chaos) bad() {
	err := c.soak.edge.apply(func(s *proxy.Snapshot) {
		switch c.rand.IntN(3) {
		case 0:
			s.Listeners = append(s.Listeners, configs.Listener{Name: "nowhere"})
		case 1:
			s.Routes = append(s.Routes, configs.Route{Pool: "nobody"})
		case 2:
			s.Pools = append(s.Pools, s.Pools[0])
		}
	})
	if err == nil {
		c.soak.wrong("apply", "a bad snapshot was applied")
	}
	c.soak.event("bad snapshots refused")
}

func (c *chaos) apply(event string, change func(*proxy.Snapshot)) {
	if err := c.soak.edge.apply(change); err != nil {
		c.soak.wrong("apply", "a good snapshot was refused: "+err.Error())
		return
	}
	c.soak.event(event)
}
