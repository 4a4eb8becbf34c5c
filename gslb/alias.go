package gslb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"anyedge/gslb/steer"

	"github.com/miekg/dns"
)

// resolved is the addresses of an apex alias's target, by family and in order,
// and how long they may be kept, in seconds. It is never changed.
type resolved struct {
	addrs map[steer.Family][]netip.Addr
	ttl   uint32
}

// Bounds on the TTL of resolved addresses, and the pause after a failure.
const (
	minAliasTTL = 5
	maxAliasTTL = 300
	aliasRetry  = 5 * time.Second
)

// alias puts the addresses of another name at a zone's apex, where there cannot
// be a CNAME record: those of a steered name by its decisions, with all that they
// know of health and place, those of others as resolvers give them.
func (v *view) alias(z *zone, known map[name]*resolved) error {
	if v.over[z.name] != "" {
		return errors.New("it is steered and an alias")
	}
	v.over[z.name] = v.over[z.alias]
	if r := known[z.name]; r != nil && v.over[z.name] == "" {
		v.aliased[z.name] = r
	}
	return nil
}

// isAlias reports whether the addresses at a name are those of another that is
// not steered.
func (v *view) isAlias(z *zone, n name) bool {
	return z.alias != "" && n == z.name && v.over[n] == ""
}

// answerAlias adds the addresses of an alias's target.
func (v *view) answerAlias(r *result, z *zone, qtype uint16, owner string, s *signing) {
	known := v.aliased[z.name]
	if known == nil { // not resolved so far
		r.rcode, r.authoritative = dns.RcodeServerFailure, false
		return
	}
	if addrs := known.addrs[family(qtype)]; len(addrs) > 0 {
		set := addresses(addrs, owner, qtype, known.ttl)
		r.answer = s.signed(append(r.answer, set...), set, owner)
		return
	}
	negative := dns.Copy(z.negative)
	negative.Header().Ttl = min(negative.Header().Ttl, known.ttl)
	r.authority = append(r.authority, negative)
	s.deny(qtype, negative.Header().Ttl)
}

// chase keeps the addresses of an alias's target, until ctx is done. When they
// cannot be had the last ones stay.
func (s *Server) chase(ctx context.Context, l *link) {
	apex, _ := parseName(l.zone.Name) // it was loaded
	failing := false
	for ctx.Err() == nil {
		wait := aliasRetry
		if z := s.view.Load().zones[apex]; z != nil && s.view.Load().isAlias(z, apex) {
			r, err := s.lookUp(ctx, l.zone.Alias)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !failing: // the status has the newest error
				s.log.Warn("alias not resolved, the last addresses stay", "zone", l.zone.Name, "target", l.zone.Alias, "error", err)
			case err == nil:
				if failing {
					s.log.Info("alias resolved again", "zone", l.zone.Name, "target", l.zone.Alias)
				}
				s.putAlias(l, apex, r)
				wait = time.Duration(r.ttl) * time.Second
			}
			failing = err != nil
			s.followed(l, err, wait, time.Time{})
		}
		pause(ctx, wait)
	}
}

// putAlias takes addresses that are not those in use.
func (s *Server) putAlias(l *link, apex name, r *resolved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[apex] != l || reflect.DeepEqual(s.aliased[apex], r) {
		return
	}
	next := make(map[name]*resolved, len(s.aliased)+1)
	for n, known := range s.aliased {
		next[n] = known
	}
	next[apex] = r
	before := s.aliased
	s.aliased = next
	if err := s.setView(s.zones, s.table); err != nil {
		s.aliased = before // it is reported where the zones are
	}
}

// lookUp asks the resolvers for the addresses of a name, one after the other
// until one has answered for both families.
func (s *Server) lookUp(ctx context.Context, target string) (*resolved, error) {
	errs := []error{errors.New("no resolver knows it")}
	for _, resolver := range s.cfg.Resolvers {
		r := &resolved{addrs: make(map[steer.Family][]netip.Addr), ttl: maxAliasTTL}
		err := errors.Join(s.lookUpFamily(ctx, resolver, target, dns.TypeA, r), s.lookUpFamily(ctx, resolver, target, dns.TypeAAAA, r))
		if err == nil && len(r.addrs[steer.IPv4])+len(r.addrs[steer.IPv6]) == 0 {
			err = errors.New("it has no address")
		}
		if err == nil {
			r.ttl = max(r.ttl, minAliasTTL)
			return r, nil
		}
		errs = append(errs, fmt.Errorf("%v: %w", resolver, err))
	}
	return nil, errors.Join(errs...)
}

func (s *Server) lookUpFamily(ctx context.Context, resolver netip.AddrPort, target string, qtype uint16, r *resolved) error {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(target), qtype)
	q.SetEdns0(udpPayload, false)
	c := dns.Client{Timeout: exchangeTime}
	m, _, err := c.ExchangeContext(ctx, q, resolver.String())
	if err == nil && m.Truncated {
		c.Net = "tcp"
		m, _, err = c.ExchangeContext(ctx, q, resolver.String())
	}
	if err != nil {
		return err
	}
	if m.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("%s: %s", dns.Type(qtype), dns.RcodeToString[m.Rcode])
	}
	var addrs []netip.Addr
	for _, rr := range m.Answer {
		r.ttl = min(r.ttl, rr.Header().Ttl) // of the aliases on the way too
		var addr netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if addr.IsValid() && (qtype == dns.TypeA) == addr.Is4() {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	r.addrs[family(qtype)] = slices.Compact(addrs)
	return nil
}
