package gslb

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
)

// zone begins to ask the validator for the names of a zone, and to do at its parent what it
// wants, until the test ends.
func (w *rolloverWorld) zone(t *testing.T, name string) *rolledZone {
	z := w.zones[name]
	z.t = t
	z.await("the nodes have keys", func() bool {
		return !slices.ContainsFunc(w.nodes, func(n *signingNode) bool { return n.keysOf(name).InForce == 0 })
	})
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { z.register(ctx) })
	all.Go(func() { z.watch(ctx) })
	t.Cleanup(func() { stop(); all.Wait() })
	return z
}

// register does what a registry does for a zone (RFC 7344, RFC 8078): it takes CDS
// records over that agree with the CDNSKEY records, and are secure if the zone is.
func (z *rolledZone) register(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, 200*time.Millisecond) {
		cds, err := askResolver(z.validator, z.name, dns.TypeCDS)
		if err != nil || len(cds.Answer) == 0 {
			continue
		}
		cdnskey, err := askResolver(z.validator, z.name, dns.TypeCDNSKEY)
		if err != nil {
			continue
		}
		want, confirmed := []dns.RR(nil), true
		for _, rr := range cds.Answer {
			if ds, ok := rr.(*dns.CDS); ok && ds.Algorithm != 0 {
				want = append(want, ds)
				confirmed = confirmed && slices.ContainsFunc(cdnskey.Answer, func(rr dns.RR) bool {
					k, ok := rr.(*dns.CDNSKEY)
					return ok && k.ToDS(ds.DigestType).Digest == ds.Digest
				})
			} else if ok {
				confirmed = confirmed && slices.ContainsFunc(cdnskey.Answer, func(rr dns.RR) bool {
					k, ok := rr.(*dns.CDNSKEY)
					return ok && k.Algorithm == 0
				})
			}
		}
		if confirmed {
			z.delegate(want, cds.AuthenticatedData && cdnskey.AuthenticatedData)
		}
	}
}

// delegate gives the zone other DS records.
func (z *rolledZone) delegate(ds []dns.RR, secure bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if len(z.ds) > 0 && !secure || slices.Equal(digests(ds), digests(z.ds)) {
		return
	}
	if len(ds) == 0 {
		z.secure.Store(0)
	}
	signed := len(z.ds) > 0
	z.ds = ds
	if err := z.registry.SetZones(z.topZone()); err != nil {
		z.fail("the registry: %v", err)
	}
	if len(ds) > 0 && !signed {
		// Both resolvers may have that there are no DS records, for a second and what
		// they count too much, and then answers.
		z.secure.Store(time.Now().Add(time.Second + rollTTL + 4*time.Second).UnixNano())
	}
}

// digests are those of CDS records.
func digests(records []dns.RR) (list []string) {
	for _, rr := range records {
		list = append(list, rr.(*dns.CDS).Digest)
	}
	slices.Sort(list)
	return list
}

// watch asks the validator all the time: for what it has in its cache, for names that
// nobody has asked for, and for such that only the cache ahead of it has been asked
// for, some time ago.
func (z *rolledZone) watch(ctx context.Context) {
	type kept struct {
		name   string
		exists bool
		at     time.Time
	}
	var old []kept
	for i := 0; ctx.Err() == nil && z.broken.Load() == nil; i++ {
		exists, form := i%2 == 0, []string{"%s%d.any.%s", "%s%d.%s"}[i%2]
		name := fmt.Sprintf(form, "k", i, z.name)
		if _, err := askResolver(z.cache, name, dns.TypeTXT); err == nil {
			old = append(old, kept{name, exists, time.Now()})
		}
		for len(old) > 0 && time.Since(old[0].at) > rollTTL-time.Second {
			z.check(old[0].name, dns.TypeTXT, old[0].exists)
			old = old[1:]
		}
		z.check(fmt.Sprintf(form, "n", i, z.name), dns.TypeTXT, exists)
		z.check("www."+z.name, dns.TypeTXT, true)
		z.check(z.name, dns.TypeSOA, true)
		z.check(z.name, dns.TypeMX, false)
		pause(ctx, 50*time.Millisecond)
	}
}

// check asks once.
func (z *rolledZone) check(name string, qtype uint16, exists bool) {
	began := time.Now().UnixNano()
	m, err := askResolver(z.validator, name, qtype)
	secure := z.secure.Load()
	switch {
	case err != nil:
		z.fail("%s %s: %v", name, dns.Type(qtype), err)
		return
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		z.fail("not an answer: %v", m)
		return
	case secure != 0 && began > secure && !m.AuthenticatedData:
		z.fail("not secure: %v", m)
		return
	case slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == qtype }) != exists:
		z.fail("not the right answer: %v", m)
		return
	}
	z.answers.Add(1)
	if !m.AuthenticatedData {
		z.insecure.Add(1)
	}
}

// fail notes what went wrong first. The test sees it when it awaits something.
func (z *rolledZone) fail(format string, args ...any) {
	text := time.Now().Format("15:04:05.000 ") + fmt.Sprintf(format, args...)
	z.broken.CompareAndSwap(nil, &text)
}

// await waits until something holds, for no longer than a rollover may take.
func (z *rolledZone) await(what string, holds func() bool) {
	z.t.Helper()
	for end := time.Now().Add(90 * time.Second); !holds(); pause(z.t.Context(), 50*time.Millisecond) {
		switch broken := z.broken.Load(); {
		case broken != nil:
			z.t.Fatalf("before %s: %s\n%+v", what, *broken, z.nodes[0].keysOf(z.name))
		case time.Now().After(end):
			z.t.Fatalf("%s: not in time\n%+v\n%+v", what, z.nodes[0].keysOf(z.name), z.nodes[1].keysOf(z.name))
		}
	}
}

// isSecure reports whether every answer has to be secure now.
func (z *rolledZone) isSecure() bool {
	from := z.secure.Load()
	return from != 0 && time.Now().UnixNano() > from
}

// watched waits for so many answers.
func (z *rolledZone) watched(n int64) {
	z.t.Helper()
	until := z.answers.Load() + n
	z.await("answers", func() bool { return z.answers.Load() >= until })
}

// keysOf is how a node's keys of a zone are.
func (n *signingNode) keysOf(zone string) ZoneKeysStatus {
	n.keys.mu.Lock()
	defer n.keys.mu.Unlock()
	z := n.keys.zones[zone]
	return ZoneKeysStatus{Status: z.ring.Status(time.Now()), InForce: z.inForce}
}

// change has the second node do what an operator wants.
func (z *rolledZone) change(what string, do func(dnssec.Ring, dnssec.Policy, time.Time) (dnssec.Ring, error)) {
	z.t.Helper()
	if err := z.nodes[1].keys.change(z.t.Context(), z.name, do); err != nil {
		z.t.Fatalf("%s: %v", what, err)
	}
}

// roll begins a rollover and waits until it is over, and the keys that it replaces
// are gone.
func (z *rolledZone) roll(what string, role dnssec.Role, replaces func(dnssec.KeyStatus) bool) {
	z.t.Helper()
	z.replaced(what, replaces, func() {
		z.change(what, func(r dnssec.Ring, p dnssec.Policy, now time.Time) (dnssec.Ring, error) {
			return r.Roll(now, p, role, rand.Reader)
		})
	})
}

// rekey has the nodes want other keys, and waits until they are there alone.
func (z *rolledZone) rekey(what string, change func(*dnssec.Policy)) {
	z.t.Helper()
	z.replaced(what, func(dnssec.KeyStatus) bool { return true }, func() {
		for _, n := range z.nodes {
			n.keys.mu.Lock()
			change(&n.keys.zones[z.name].policy)
			n.keys.mu.Unlock()
			n.keys.wake()
		}
	})
}

func (z *rolledZone) replaced(what string, replaces func(dnssec.KeyStatus) bool, begin func()) {
	z.t.Helper()
	began := time.Now()
	var before []uint16
	for _, k := range z.nodes[0].keysOf(z.name).Keys {
		if replaces(k) {
			before = append(before, k.Tag)
		}
	}
	begin()
	z.await(what, func() bool {
		for _, n := range z.nodes {
			s := n.keysOf(z.name)
			for _, k := range s.Keys {
				if k.State != "removed" && (k.State != "active" || slices.Contains(before, k.Tag)) {
					return false
				}
			}
			if s.InForce != s.Generation || s.Waiting != "" {
				return false
			}
		}
		return true
	})
	took := time.Since(began)
	z.watched(50)
	z.t.Logf("%s took %v; %d answers so far", what, took.Round(100*time.Millisecond), z.answers.Load())
}
