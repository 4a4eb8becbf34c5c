package lab

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"anyedge/configs"
	"anyedge/gslb"
	"anyedge/gslb/steer"
	"anyedge/internal/ops"
)

// dnsTimeout bounds one query.
const dnsTimeout = time.Second

// lookup asks the lab's DNS node for www as a resolver would on behalf of a
// client network.
func (l *Lab) lookup(ctx context.Context, client netip.Prefix) (gslb.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	return gslb.Lookup(ctx, l.layout.dns(), l.host(), steer.IPv4, client)
}

// popsOf names the PoPs that an answer leads to.
func (l *Lab) popsOf(a gslb.Answer) []string {
	var names []string
	for i, p := range l.cfg.Pops {
		if slices.Contains(a.Addresses, l.layout.pop(i)) {
			names = append(names, p.Name)
		}
	}
	return names
}

// dnsSteers asks for two client networks that are near different PoPs, and
// checks that each answer's scope is exact by asking around it.
func (l *Lab) dnsSteers(ctx context.Context) (string, error) {
	type steered struct {
		client netip.Prefix
		pop    string
		scope  int
	}
	var seen []steered
	for _, c := range l.cfg.Clients {
		a, err := l.lookup(ctx, c.Prefix)
		if err != nil {
			return "", err
		}
		pops := l.popsOf(a)
		if len(pops) != 1 {
			return "", fmt.Errorf("clients in %s were sent to %v, want one PoP", c.Prefix, pops)
		}
		if err := l.scopeExact(ctx, c, a); err != nil {
			return "", err
		}
		if !slices.ContainsFunc(seen, func(s steered) bool { return s.pop == pops[0] }) {
			seen = append(seen, steered{c.Prefix, pops[0], a.Scope})
		}
	}
	if len(seen) < 2 {
		return "", fmt.Errorf("all client networks were sent to one PoP: %v", seen)
	}
	a, b := seen[0], seen[1]
	return fmt.Sprintf("%s to %s (scope /%d), %s to %s (scope /%d)", a.client, a.pop, a.scope, b.client, b.pop, b.scope), nil
}

// scopeExact checks an answer's scope from outside: whoever shares the scope
// gets the same answer, and in the other half of the next wider network
// somebody gets another.
func (l *Lab) scopeExact(ctx context.Context, c configs.LabClients, a gslb.Answer) error {
	bits := c.Prefix.Addr().BitLen()
	if a.Scope <= 0 || a.Scope > bits {
		return fmt.Errorf("scope /%d for %s", a.Scope, c.Prefix)
	}
	same := netip.PrefixFrom(c.Prefix.Addr(), a.Scope).Masked()
	twin := netip.PrefixFrom(flip(same.Addr(), a.Scope-1), a.Scope)
	inside := []netip.Addr{same.Addr(), last(same)}
	beside := []netip.Addr{twin.Addr(), last(twin)}
	for _, other := range l.cfg.Clients {
		switch {
		case same.Contains(other.Prefix.Addr()):
			inside = append(inside, other.Prefix.Addr())
		case twin.Contains(other.Prefix.Addr()):
			beside = append(beside, other.Prefix.Addr())
		}
	}
	// Clients in no network get a lot, which may fall like the answer: ask often.
	differs := func(addrs []netip.Addr) (bool, error) {
		for range 16 {
			for _, addr := range addrs {
				b, err := l.lookup(ctx, netip.PrefixFrom(addr, bits))
				if err != nil {
					return false, err
				}
				if !slices.Equal(l.popsOf(a), l.popsOf(b)) {
					return true, nil
				}
			}
		}
		return false, nil
	}
	if d, err := differs(inside); err != nil {
		return err
	} else if d {
		return fmt.Errorf("scope /%d of %s is too wide: others in %s get another answer", a.Scope, c.Prefix, same)
	}
	if d, err := differs(beside); err != nil {
		return err
	} else if !d {
		return fmt.Errorf("scope /%d of %s is too narrow: %s gets the same answer", a.Scope, c.Prefix, twin)
	}
	return nil
}

// flip inverts one bit of an address, counted from the left.
func flip(a netip.Addr, bit int) netip.Addr {
	b := a.AsSlice()
	b[bit/8] ^= 0x80 >> (bit % 8)
	f, _ := netip.AddrFromSlice(b)
	return f
}

// last is the highest address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// steeringExplained checks that the DNS node's account of a decision is what it
// answers, and that without that PoP it names another.
func (l *Lab) steeringExplained(ctx context.Context) (string, error) {
	client := l.cfg.Clients[0].Prefix
	explain := func(without string) (e gslb.Explanation, err error) {
		query := url.Values{"name": {l.host()}, "client": {client.String()}, "without": {without}}
		err = ops.Client{Address: l.layout.dnsAdmin()}.Get(ctx, "/v1/steer?"+query.Encode(), &e)
		return e, err
	}
	a, err := l.lookup(ctx, client)
	if err != nil {
		return "", err
	}
	answered := l.popsOf(a)
	e, err := explain("")
	if err != nil {
		return "", err
	}
	if !slices.Equal(e.Pops, answered) || len(answered) != 1 || e.Scope != a.Scope {
		return "", fmt.Errorf("clients in %s are sent to %v (scope /%d), and the account says %v (scope /%d)", client, answered, a.Scope, e.Pops, e.Scope)
	}
	other, err := explain(answered[0])
	if err != nil {
		return "", err
	}
	if len(other.Pops) != 1 || other.Pops[0] == answered[0] {
		return "", fmt.Errorf("without %s clients in %s would be sent to %v", answered[0], client, other.Pops)
	}
	return fmt.Sprintf("%s to %s by %s, without it to %s", client, answered[0], e.Source, other.Pops[0]), nil
}

// dnsAvoids is nil once no client network is sent to the n-th PoP.
func (l *Lab) dnsAvoids(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, c := range l.cfg.Clients {
			a, err := l.lookup(ctx, c.Prefix)
			if err != nil {
				return err
			}
			if slices.Contains(a.Addresses, l.layout.pop(n)) {
				return fmt.Errorf("clients in %s are still sent to %s", c.Prefix, l.cfg.Pops[n].Name)
			}
		}
		return nil
	}
}

// dnsAnswersAll is nil when every PoP that is nearest to a client network is
// the answer for it, which shows that the DNS takes all PoPs for up.
func (l *Lab) dnsAnswersAll(ctx context.Context) error {
	for _, c := range l.cfg.Clients {
		a, err := l.lookup(ctx, c.Prefix)
		if err != nil {
			return err
		}
		if want := l.nearest(c); !slices.Equal(l.popsOf(a), []string{want}) {
			return fmt.Errorf("clients in %s are sent to %v, want %s", c.Prefix, l.popsOf(a), want)
		}
	}
	return nil
}
