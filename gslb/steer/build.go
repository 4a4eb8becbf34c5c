package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// builder holds what the names of one Build share.
type builder struct {
	sites   map[string]int
	pops    []site
	clients []Client
	// places are the distinct places of clients; located says which one each
	// client is at.
	places  []place
	located []int32
	// tries are those built so far, by what they depend on: names with the same
	// usable candidates share them.
	tries map[string]*tries
	// verdicts are those decided so far, by all they depend on.
	verdicts map[string]*verdict
	// listed says for each PoP which name listed it last, to find doubles.
	listed []int
	// all are the networks of every source, once merged is set.
	all    [families][]network
	merged bool
	// Scratch, which is large for a million networks or for names with many
	// candidates: of candidates, verdict, locate, newTrie.
	resolved []candidate
	key      []byte
	decided  []decided
	nodes    [][2]int32
	input    *Input
	trace    func(stage) // of each filter, if not nil
}

// site is a PoP as Build prepared it.
type site struct {
	Pop
	place  place
	addrs  [families][]netip.Addr
	choice [families]*choice // it alone
}

// candidate is an answer of a name.
type candidate struct {
	pop    *site
	index  int // of pop in Input.Pops
	weight int
}

// Build returns the table of an input, or every error in it.
func Build(in Input) (*Table, error) { return assemble(in, nil) }

// assemble is Build; trace, if not nil, is told what each filter does.
func assemble(in Input, trace func(stage)) (*Table, error) {
	b := builder{sites: make(map[string]int), tries: make(map[string]*tries), verdicts: make(map[string]*verdict), input: &in, trace: trace}
	errs := append(b.addPops(in.Pops), b.addClients(in.Clients)...)
	errs = append(errs, in.checkSources()...)
	b.listed = make([]int, len(b.pops))
	t := &Table{names: make(map[string]*name), pops: slices.Clone(in.Pops), input: in}
	for i, n := range in.Names {
		key := Canonical(n.Name)
		candidates, err := b.candidates(i, n)
		switch {
		case err != nil:
		case key == "":
			err = errors.New("no name")
		case t.names[key] != nil:
			err = fmt.Errorf("%s: listed twice", n.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("names[%d]: %w", i, err))
			continue
		}
		t.names[key] = &name{ttl: n.TTL}
		if len(errs) > 0 {
			continue // no table will come of it
		}
		candidates = b.override(key, candidates)
		for f := range families {
			t.names[key].families[f] = b.verdict(n.Policy, candidates, f)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

func (b *builder) addPops(pops []Pop) (errs []error) {
	for i, p := range pops {
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("pops[%d]: "+format, append([]any{i}, args...)...))
		}
		if _, known := b.sites[p.Name]; known || p.Name == "" {
			fail("name %q is empty or used twice", p.Name)
		}
		if err := checkPlace(p.Lat, p.Lon); err != nil {
			fail("%w", err)
		}
		if p.State > Down {
			fail("%v is not a state", p.State)
		}
		s := site{Pop: p, place: placeOf(p.Lat, p.Lon)}
		for _, a := range p.Addresses {
			switch {
			case !a.IsValid() || a.Zone() != "" || a.Is4In6():
				fail("%q cannot be an answer", a)
			case a.Is4():
				s.addrs[IPv4] = append(s.addrs[IPv4], a)
			default:
				s.addrs[IPv6] = append(s.addrs[IPv6], a)
			}
		}
		for f := range families {
			s.choice[f] = joined([]candidate{{pop: &s}}, f)
		}
		b.sites[p.Name] = i
		b.pops = append(b.pops, s)
	}
	return errs
}

func (b *builder) addClients(clients []Client) (errs []error) {
	if !slices.IsSortedFunc(clients, CompareClients) {
		clients = slices.SortedFunc(slices.Values(clients), CompareClients)
	}
	b.clients = clients
	b.located = make([]int32, len(clients))
	index := make(map[[2]float64]int32)
	for i, c := range clients {
		switch {
		case !c.Prefix.IsValid():
			errs = append(errs, errors.New("clients: a prefix is not valid"))
		case c.Prefix != c.Prefix.Masked() || c.Prefix.Is4In6():
			errs = append(errs, fmt.Errorf("clients: %v is not in its canonical form", c.Prefix))
		case i > 0 && c.Prefix == clients[i-1].Prefix:
			errs = append(errs, fmt.Errorf("clients: %v is listed twice", c.Prefix))
		}
		if err := checkPlace(c.Lat, c.Lon); err != nil {
			errs = append(errs, fmt.Errorf("clients: %v: %w", c.Prefix, err))
			continue // NaN must not get into the map
		}
		at, known := index[[2]float64{c.Lat, c.Lon}]
		if !known {
			at = int32(len(b.places))
			index[[2]float64{c.Lat, c.Lon}] = at
			b.places = append(b.places, placeOf(c.Lat, c.Lon))
		}
		b.located[i] = at
	}
	return errs
}

func checkPlace(lat, lon float64) error {
	if !(math.Abs(lat) <= 90) || !(math.Abs(lon) <= 180) {
		return fmt.Errorf("%v,%v is not a latitude and a longitude", lat, lon)
	}
	return nil
}

// candidates resolves the answers of name i. The result is scratch, good until
// the next name.
func (b *builder) candidates(i int, n Name) ([]candidate, error) {
	if int(n.Policy) >= len(policies) {
		return nil, fmt.Errorf("%s: %v is not a policy", n.Name, n.Policy)
	}
	if n.TTL < 0 || n.TTL > 24*time.Hour || n.TTL%time.Second != 0 {
		return nil, fmt.Errorf("%s: TTL %v is not in whole seconds up to a day", n.Name, n.TTL)
	}
	if len(n.Answers) == 0 {
		return nil, fmt.Errorf("%s: no answers", n.Name)
	}
	candidates := b.resolved[:0]
	for _, a := range n.Answers {
		at, known := b.sites[a.Pop]
		switch {
		case !known:
			return nil, fmt.Errorf("%s: there is no pop %q", n.Name, a.Pop)
		case a.Weight < 0:
			return nil, fmt.Errorf("%s: pop %q has a negative weight", n.Name, a.Pop)
		case b.listed[at] == i+1:
			return nil, fmt.Errorf("%s: pop %q is listed twice", n.Name, a.Pop)
		}
		b.listed[at] = i + 1
		candidates = append(candidates, candidate{&b.pops[at], at, a.Weight})
	}
	b.resolved = candidates
	return candidates, nil
}

// verdict returns what a name with these candidates does for a family. Names with
// the same candidates share it.
func (b *builder) verdict(policy Policy, candidates []candidate, f Family) *verdict {
	b.key = append(b.key[:0], byte(policy), byte(f))
	for _, c := range candidates {
		b.key = binary.AppendUvarint(binary.AppendUvarint(b.key, uint64(c.index)), uint64(c.weight))
	}
	v := b.verdicts[string(b.key)]
	if v == nil {
		decided := b.decide(policy, candidates, f)
		decided.decisions = decided.ahead()
		v = &decided
		b.verdicts[string(b.key)] = v
	}
	return v
}

// decide works out what a name with these candidates does for a family.
func (b *builder) decide(policy Policy, candidates []candidate, f Family) verdict {
	usable := usable(candidates)
	b.record(f, "health", candidates, usable, func(c candidate) string { return c.pop.condition() })
	if len(usable) == 0 {
		all := withAddress(candidates, f)
		return verdict{always: joined(all, f), reason: NoneUsable}
	}
	having := withAddress(usable, f)
	b.record(f, "family", usable, having, func(candidate) string { return "no address of this family" })
	usable = having
	if len(usable) == 0 {
		return verdict{always: &choice{}, reason: NoAddress}
	}
	v := verdict{lot: newLot(usable)}
	for i := range usable {
		v.choices = append(v.choices, usable[i].pop.choice[f])
	}
	switch policy {
	case Failover:
		v.always, v.reason = v.choices[0], ByOrder
	case Weighted:
		v.reason = ByWeight
	case Sticky:
		v.reason = BySubnet
	case Nearest:
		v.tries, v.reason = b.locate(policy, usable, v.lot), ByDistance
	case Latency:
		v.tries, v.reason = b.locate(policy, usable, v.lot), ByLatency
	case Capacity:
		v.tries, v.reason = b.locate(policy, usable, v.lot), ByPlan
	}
	return v
}

// usable returns the candidates that may answer; none if none may.
func usable(candidates []candidate) []candidate {
	for _, state := range []State{Up, Unknown} {
		var found []candidate
		for _, c := range candidates {
			if c.pop.State == state && !c.pop.Drained {
				found = append(found, c)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

func withAddress(candidates []candidate, f Family) (having []candidate) {
	for _, c := range candidates {
		if len(c.pop.addrs[f]) > 0 {
			having = append(having, c)
		}
	}
	return having
}

// joined returns the choice of all the candidates together. PoPs may share an
// address; it is given once.
func joined(candidates []candidate, f Family) *choice {
	var c choice
	for _, each := range candidates {
		c.pops = append(c.pops, each.pop.Name)
		for _, a := range each.pop.addrs[f] {
			if !slices.Contains(c.addrs, a) {
				c.addrs = append(c.addrs, a)
			}
		}
	}
	return &c
}
