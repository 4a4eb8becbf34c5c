package gslb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// parentPace is how often the resolvers are asked for the DS records of the zones,
// give or take a half.
const parentPace = 10 * time.Minute

// sighting is what the resolvers said about a zone's DS records.
type sighting struct {
	at      time.Time // zero for never
	answers [][]dnssec.DS
	err     error // why some of the resolvers have no answer
	fresh   bool  // nobody has acted on it yet
}

// news returns the answers if they have not been acted on, and are not old, as they
// may be after a time without the store; else nil.
func (s *sighting) news(now time.Time) [][]dnssec.DS {
	if !s.fresh || now.Sub(s.at) > parentPace {
		return nil
	}
	return s.answers
}

// watchParents asks for the zones' DS records, over and over until ctx is done. Ask
// asks for those of one zone.
func (k *keyKeeper) watchParents(ctx context.Context, ask func(ctx context.Context, zone string) sighting) {
	for ctx.Err() == nil {
		k.seeParents(ctx, ask)
		pause(ctx, parentPace/2+rand.N(parentPace))
	}
}

// seeParents asks for the DS records of all zones once.
func (k *keyKeeper) seeParents(ctx context.Context, ask func(ctx context.Context, zone string) sighting) {
	for _, zone := range k.names() {
		s := ask(ctx, zone)
		if ctx.Err() != nil {
			return
		}
		k.mu.Lock()
		if z := k.zones[zone]; z != nil {
			if s.err != nil && (z.parent.err == nil || z.parent.at.IsZero()) {
				k.log.Warn("some resolvers do not tell a zone's DS records", "zone", zone, "error", s.err)
			}
			z.parent = s
		}
		k.mu.Unlock()
	}
	k.wake()
}

// names returns the signed zones that have keys.
func (k *keyKeeper) names() (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, z := range k.zones {
		if z.ring.Generation > 0 {
			names = append(names, name)
		}
	}
	return names
}

// resolvers are those who are asked for DS records. They are asked over TCP, so that
// nobody off the path can make up an answer: one could let a key go too early.
type resolvers []netip.AddrPort

// ask asks all of them.
func (list resolvers) ask(ctx context.Context, zone string) sighting {
	s := sighting{at: time.Now(), fresh: true}
	var errs []error
	for _, resolver := range list {
		answer, err := askDS(ctx, resolver, zone)
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", resolver, err))
			continue
		}
		s.answers = append(s.answers, answer)
	}
	s.err = errors.Join(errs...)
	return s
}

// askDS asks one of them. No DS records are an answer too, not nil, if a zone above
// says so: such an answer makes a zone unsigned, and one of the zone itself, a
// referral or that of a proxy that does not know the type must not.
func askDS(ctx context.Context, resolver netip.AddrPort, zone string) ([]dnssec.DS, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(zone), dns.TypeDS)
	// What is bogus is to be seen too: it may be the very rollover that is stuck.
	q.CheckingDisabled = true
	c := dns.Client{Net: "tcp", Timeout: exchangeTime}
	m, _, err := c.ExchangeContext(ctx, q, resolver.String())
	if err != nil {
		return nil, err
	}
	if m.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("answers %s", dns.RcodeToString[m.Rcode])
	}
	answer := []dnssec.DS{}
	for _, rr := range m.Answer {
		ds, ok := rr.(*dns.DS)
		if !ok || canonical(ds.Hdr.Name) != zone {
			continue
		}
		digest, err := hex.DecodeString(ds.Digest)
		if err != nil {
			return nil, err
		}
		answer = append(answer, dnssec.DS{Tag: ds.KeyTag, Algorithm: ds.Algorithm, Type: ds.DigestType, Digest: digest})
	}
	if len(answer) == 0 && !deniedAbove(m, zone) {
		return nil, errors.New("answers without DS records, and not for a zone above that says that there are none")
	}
	return answer, nil
}

// deniedAbove reports whether a negative answer is that of a zone above (RFC 2308
// section 2.2).
func deniedAbove(m *dns.Msg, zone string) bool {
	return slices.ContainsFunc(m.Ns, func(rr dns.RR) bool {
		owner := canonical(rr.Header().Name)
		return rr.Header().Rrtype == dns.TypeSOA && owner != zone && dns.IsSubDomain(dns.Fqdn(owner), dns.Fqdn(zone))
	})
}
