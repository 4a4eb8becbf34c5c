package dnssec

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// source is a source of randomness that repeats itself from test to test.
func source(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
}

// world is a zone on several nodes, its parent on several servers, and all that
// caches may hold of them. It plays what the rollovers promise to bear: every
// node's view of the ring is late, clocks differ, writers race, the parent's servers
// follow late, resolvers tell what was true a TTL ago, and rings are changed by hand
// and by new policies at any time.
type world struct {
	t     *testing.T
	r     *rand.Rand
	p     Policy
	first Policy

	skew []time.Duration // by node; any two differ by at most Propagation

	now     time.Time
	rings   []written // in order of time
	servers []served  // of the parent: what they give, and what they are going to

	// What was given when last, by content. It may be in a cache for its TTL.
	delegations, keys, data map[string]sample

	trusted map[uint16]bool
}

type written struct {
	at   time.Time
	ring Ring
}

// served is what one server of the parent has: its DS records by tag of the key.
type served struct {
	ds   []DS
	next []DS
	at   time.Time // when next takes the place of ds; zero for nothing to come
}

// sample is an answer that caches may hold.
type sample struct {
	until time.Time
	ds    []DS
	keys  []*RingKey // published
	entry []*RingKey // that signed the published ones
	zone  []*RingKey // that signed the data
	ring  Ring
}

func newWorld(t *testing.T, seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 3))
	w := &world{t: t, r: r, now: start, trusted: make(map[uint16]bool)}
	w.delegations, w.keys, w.data = map[string]sample{}, map[string]sample{}, map[string]sample{}
	w.p = w.policy(time.Duration(1+r.IntN(20)) * time.Minute)
	w.first = w.p
	for range 3 {
		w.skew = append(w.skew, time.Duration(r.Int64N(int64(w.p.Propagation)))-w.p.Propagation/2)
		w.servers = append(w.servers, served{})
	}
	w.serve() // unsigned, for as long as it wants
	ring, _, err := Ring{}.Advance(w.clock(0), "edge.example", w.p, nil, source(seed))
	if err != nil {
		t.Fatal(err)
	}
	w.rings = []written{{w.now, ring}}
	return w
}

// policy returns one of any kind, with the given propagation.
func (w *world) policy(propagation time.Duration) Policy {
	seconds := func(most int) time.Duration { return time.Duration(w.r.IntN(most)) * time.Second }
	p := Policy{
		Algorithm: ECDSAP256SHA256, Split: w.r.IntN(2) == 0, Propagation: propagation,
		KeyTTL: time.Second + seconds(7200), MaxTTL: seconds(7200),
		ParentTTL: seconds(7200), ParentPropagation: seconds(3600),
	}
	if w.r.IntN(2) == 0 {
		p.Algorithm = Ed25519
	}
	if w.r.IntN(3) > 0 {
		p.ZoneLifetime = p.Rollover() + seconds(36000)
		p.EntryLifetime = p.Rollover() + seconds(72000)
	}
	return p
}

func (w *world) clock(node int) time.Time { return w.now.Add(w.skew[node]) }

func (w *world) upTo(limit time.Duration) time.Duration {
	return time.Duration(w.r.Int64N(int64(limit) + 1))
}

// view returns a ring that a node may have; of none it is one of a zone that is not
// signed yet.
func (w *world) view() (Ring, bool) {
	asOf := w.now.Add(-w.upTo(w.p.Propagation))
	for _, v := range slices.Backward(w.rings) {
		if !v.at.After(asOf) {
			return v.ring, true
		}
	}
	return Ring{}, false
}

func (w *world) latest() Ring { return w.rings[len(w.rings)-1].ring }

// serve has every server give every answer, into caches.
func (w *world) serve() {
	for node := range w.skew {
		var s sample
		if ring, ok := w.view(); ok {
			s = w.answer(ring, w.clock(node))
		}
		name := func(keys []*RingKey) string {
			text := ""
			for _, k := range keys {
				text += fmt.Sprint(" ", k.Role, k.Tag())
			}
			return text
		}
		keyTTL, maxTTL := s.ring.KeyTTL, min(s.ring.MaxTTL, w.p.MaxTTL)
		if len(s.ring.Keys) == 0 {
			keyTTL, maxTTL = w.first.KeyTTL, w.first.MaxTTL
		}
		w.cache(w.keys, name(s.keys)+" by"+name(s.entry), keyTTL, s)
		w.cache(w.data, "by"+name(s.zone), maxTTL, s)
	}
	for i := range w.servers {
		server := &w.servers[i]
		if ended(server.at, w.now) {
			server.ds, server.at = server.next, time.Time{}
		}
		w.cache(w.delegations, fmt.Sprint(server.ds), w.p.ParentTTL, sample{ds: server.ds})
	}
	for _, cache := range []map[string]sample{w.delegations, w.keys, w.data} {
		for name, s := range cache {
			if s.until.Before(w.now) {
				delete(cache, name)
			}
		}
	}
}

// cache keeps an answer for its TTL.
func (w *world) cache(in map[string]sample, name string, ttl time.Duration, s sample) {
	s.until = w.now.Add(ttl)
	if before, ok := in[name]; ok && before.until.After(s.until) {
		s.until = before.until
	}
	in[name] = s
}

// answer is what a node with a ring gives.
func (w *world) answer(ring Ring, clock time.Time) sample {
	s := sample{ring: ring}
	if ended(ring.Unsigned, clock) {
		return s
	}
	pick := func(at []int) (keys []*RingKey) {
		for _, i := range at {
			keys = append(keys, &ring.Keys[i])
		}
		return keys
	}
	p := ring.phase(clock)
	s.keys, s.entry, s.zone = pick(p.published), pick(p.entry), pick(p.zone)
	return s
}

// validate lets resolvers with every mix of what caches hold validate. It holds
// signers to the strictest reading of RFC 4035 section 2.2: an answer is signed by
// every algorithm of the keys, and the keys by every algorithm of the DS records.
func (w *world) validate() {
	for _, d := range w.delegations {
		if len(d.ds) == 0 {
			continue // insecure: nothing is checked
		}
		for _, k := range w.keys {
			for _, ds := range d.ds {
				if !slices.ContainsFunc(d.ds, func(other DS) bool {
					return other.Algorithm == ds.Algorithm && slices.ContainsFunc(k.entry, func(key *RingKey) bool { return key.Tag() == other.Tag })
				}) {
					w.fail("DNSKEY records", d, k, sample{})
				}
			}
			for _, data := range w.data {
				for _, key := range k.keys {
					if !slices.ContainsFunc(data.zone, func(signer *RingKey) bool {
						return signer.Algorithm == key.Algorithm && slices.ContainsFunc(k.keys, func(o *RingKey) bool { return o.Tag() == signer.Tag() })
					}) {
						w.fail("data", d, k, data)
					}
				}
				for _, signer := range data.zone {
					w.trusted[signer.Tag()] = true
				}
			}
		}
	}
}

func (w *world) fail(what string, d, k, data sample) {
	tags := func(keys []*RingKey) (text []string) {
		for _, key := range keys {
			text = append(text, fmt.Sprint(key.Role, " ", key.Tag(), " alg ", key.Algorithm))
		}
		return text
	}
	w.t.Fatalf("at %v a validator fails on the %s\npolicy %+v\nds %v\nkeys %v signed by %v\ndata signed by %v\nring %+v",
		w.now.Sub(start), what, w.p, d.ds, tags(k.keys), tags(k.entry), tags(data.zone), w.latest().Keys)
}

// advance lets some nodes race to advance what is in the store.
func (w *world) advance() {
	stored, won := w.latest(), w.r.IntN(3)
	for i := range 3 {
		var seen [][]DS
		if w.r.IntN(3) > 0 {
			for range 1 + w.r.IntN(2) {
				seen = append(seen, w.resolver())
			}
		}
		next, changed, err := stored.Advance(w.clock(w.r.IntN(len(w.skew))), stored.Zone, w.p, seen, source(w.r.Uint64()))
		if err != nil {
			w.t.Fatal(err)
		}
		if changed && i == won && w.r.IntN(4) > 0 {
			w.rings = append(w.rings, written{w.now, next})
		}
	}
}

// resolver returns DS records that may be in a cache.
func (w *world) resolver() []DS {
	n := w.r.IntN(len(w.delegations))
	for _, name := range sortedNames(w.delegations) {
		if n == 0 {
			return w.delegations[name].ds
		}
		n--
	}
	panic("no delegation")
}

func sortedNames(m map[string]sample) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// poll has the parent look for CDS records at some node, and do as they say (RFC
// 7344 section 4.1): it needs no ring, only what the node answers.
func (w *world) poll() {
	for _, server := range w.servers {
		if !server.at.IsZero() {
			return // busy with the change before
		}
	}
	ring, ok := w.view()
	clock := w.clock(w.r.IntN(len(w.skew)))
	if !ok || ended(ring.Unsigned, clock) {
		return
	}
	var want []DS
	if p := ring.phase(clock); !ended(ring.Leaving, clock) {
		if p.parent < 0 {
			return
		}
		ds, err := ring.Keys[p.parent].DS(ring.Zone)
		if err != nil {
			w.t.Fatal(err)
		}
		want = []DS{ds}
		if have := w.servers[0].ds; w.r.IntN(3) == 0 && len(have) == 1 && have[0].Tag != ds.Tag {
			want = append(want, have[0]) // the one before goes later
		}
	}
	for i := range w.servers {
		w.servers[i].next, w.servers[i].at = want, w.now.Add(w.upTo(w.p.ParentPropagation))
	}
}

// operate does something by hand.
func (w *world) operate() {
	r, now := w.latest(), w.clock(w.r.IntN(len(w.skew)))
	var err error
	switch w.r.IntN(5) {
	case 0, 1:
		r, err = r.Roll(now, w.p, []Role{ZSK, KSK, CSK}[w.r.IntN(3)], source(w.r.Uint64()))
	case 2:
		parent, most := w.p, w.p.Propagation
		w.p = w.policy(most)
		// How the parent is, it stays.
		w.p.ParentTTL, w.p.ParentPropagation = parent.ParentTTL, parent.ParentPropagation
		if len(r.alive(w.now)) > 2 {
			w.p.MaxTTL = min(w.p.MaxTTL, parent.MaxTTL)
		}
		return
	case 3:
		if w.r.IntN(4) > 0 {
			return
		}
		r, err = r.Leave(now, w.p)
	case 4:
		if r.Leaving.IsZero() {
			return
		}
		r, err = r.Stay(now, w.p, source(w.r.Uint64()))
	}
	if err == nil && r.Generation != w.latest().Generation {
		w.rings = append(w.rings, written{w.now, r})
	}
}

func (r Ring) alive(now time.Time) (keys []RingKey) {
	return slices.DeleteFunc(slices.Clone(r.Keys), func(k RingKey) bool { return k.gone(now) })
}

// No validator ever fails, whatever is in its caches.
func TestValidatorsNeverNotice(t *testing.T) {
	worlds := 100
	if testing.Short() {
		worlds = 20
	}
	if text := os.Getenv("ANYEDGE_DNSSEC_WORLDS"); text != "" {
		worlds, _ = strconv.Atoi(text)
	}
	relied := 0
	for seed := range worlds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(seed))
			for range 1500 {
				w.now = w.now.Add(w.upTo(5 * time.Minute))
				if w.r.IntN(4) == 0 {
					w.advance()
				}
				if w.r.IntN(20) == 0 {
					w.poll()
				}
				if w.r.IntN(150) == 0 || !w.latest().Leaving.IsZero() && w.r.IntN(30) == 0 {
					w.operate()
				}
				w.serve()
				w.validate()
			}
			if n := len(w.latest().Keys); n > 8 {
				t.Errorf("%d keys in the ring", n)
			}
			relied += len(w.trusted)
		})
	}
	if relied < 3*worlds {
		t.Errorf("validators relied on %d keys in %d zones: too few to prove anything", relied, worlds)
	}
}
