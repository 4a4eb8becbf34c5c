package steer

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"anyedge/internal/cidr"
)

// locate returns the tries that decide among candidates by the client's network.
func (b *builder) locate(policy Policy, candidates []candidate, l lot) *tries {
	outside := int32(len(candidates))
	if len(l) == 1 {
		outside = l[0].candidate // a lot with one winner is that winner's decision
	}
	var key strings.Builder
	fmt.Fprintf(&key, "%v %d", policy, outside)
	for _, c := range candidates {
		key.WriteByte(' ')
		key.WriteString(strconv.Itoa(c.index))
	}
	if known := b.tries[key.String()]; known != nil {
		return known
	}
	t := new(tries)
	decide := b.decider(policy, candidates, t)
	for family := range families {
		networks := b.networks()[family]
		list := slices.Grow(b.decided[:0], len(networks))
		for _, n := range networks {
			if decision := decide(n); decision >= 0 {
				list = append(list, decided{n.Prefix, decision})
			}
		}
		b.decided = list
		t.of[family] = newTrie(list, outside, &b.nodes)
	}
	t.regions = Regions{t, len(candidates)}
	b.tries[key.String()] = t
	return t
}

// network is a prefix of one family with what each source has on it: an index of
// the source, or -1. Its like by the million are without pointers, so that the
// garbage collector passes them by.
type network struct {
	cidr.Prefix
	client, measured, assigned int32
}

// networks returns the networks of all sources by family, sorted and unique.
func (b *builder) networks() *[families][]network {
	if b.merged {
		return &b.all
	}
	b.merged = true
	in := b.input
	for f := range families {
		b.all[f] = make([]network, 0, max(countOf(b.clients, f, clientPrefix), countOf(in.Measured, f, measuredPrefix), countOf(in.Assigned, f, assignedPrefix)))
	}
	var client, measured, assigned int
	for client < len(b.clients) || measured < len(in.Measured) || assigned < len(in.Assigned) {
		// The least of the three, and who has it.
		least := cidr.Prefix{}
		consider := func(p cidr.Prefix) {
			if !least.IsValid() || p.Compare(least) < 0 {
				least = p
			}
		}
		if client < len(b.clients) {
			consider(b.clients[client].Prefix)
		}
		if measured < len(in.Measured) {
			consider(in.Measured[measured].Prefix)
		}
		if assigned < len(in.Assigned) {
			consider(in.Assigned[assigned].Prefix)
		}
		n := network{least, -1, -1, -1}
		if client < len(b.clients) && b.clients[client].Prefix == least {
			n.client = int32(client)
			client++
		}
		if measured < len(in.Measured) && in.Measured[measured].Prefix == least {
			n.measured = int32(measured)
			measured++
		}
		if assigned < len(in.Assigned) && in.Assigned[assigned].Prefix == least {
			n.assigned = int32(assigned)
			assigned++
		}
		f := IPv6
		if least.Is4() {
			f = IPv4
		}
		b.all[f] = append(b.all[f], n)
	}
	return &b.all
}

func clientPrefix(c Client) cidr.Prefix     { return c.Prefix }
func measuredPrefix(m Measured) cidr.Prefix { return m.Prefix }
func assignedPrefix(a Assigned) cidr.Prefix { return a.Prefix }

// countOf returns how many items are of a family; those of IPv4 come first.
func countOf[T any](items []T, f Family, prefix func(T) cidr.Prefix) int {
	v4 := sort.Search(len(items), func(i int) bool { return !prefix(items[i]).Is4() })
	if f == IPv4 {
		return v4
	}
	return len(items) - v4
}

// decider returns what decides a network among candidates, as the policy says; -1
// is for a network of which it knows nothing. It adds the splits it needs to t.
func (b *builder) decider(policy Policy, candidates []candidate, t *tries) func(network) int32 {
	placed, measured, assigned := b.placed(candidates), []int32(nil), []int32(nil)
	if policy == Latency || policy == Capacity {
		measured = b.measured(candidates)
	}
	if policy == Capacity {
		assigned = b.assigned(candidates, t)
	}
	return func(n network) int32 {
		if assigned != nil && n.assigned >= 0 {
			if decision := assigned[b.input.Assigned[n.assigned].Shares]; decision >= 0 {
				return decision
			}
		}
		if measured != nil && n.measured >= 0 {
			if decision := measured[b.input.Measured[n.measured].Row]; decision >= 0 {
				return decision
			}
		}
		if n.client >= 0 {
			return placed[b.located[n.client]]
		}
		return -1
	}
}

// placed decides each of the places by distance.
func (b *builder) placed(candidates []candidate) []int32 {
	decisions := make([]int32, len(b.places))
	for i, p := range b.places {
		decisions[i] = nearest(p, candidates)
	}
	return decisions
}

// measured decides each row by latency.
func (b *builder) measured(candidates []candidate) []int32 {
	decisions := make([]int32, len(b.input.Rows))
	for i, row := range b.input.Rows {
		decisions[i] = fastest(row, candidates)
	}
	return decisions
}

// fastest returns the index of the candidate with the least time in a row, the
// first of equals; -1 if nothing is known of any.
func fastest(row []int32, candidates []candidate) int32 {
	best := int32(-1)
	for i, c := range candidates {
		if t := row[c.index]; t >= 0 && (best < 0 || t < row[candidates[best].index]) {
			best = int32(i)
		}
	}
	return best
}

// assigned decides each of the plan's shares, -1 if they give no part to any of the
// candidates. It adds the splits it needs to t; shares that divide alike have one.
func (b *builder) assigned(candidates []candidate, t *tries) []int32 {
	at := make([]int32, len(b.pops)) // of PoPs among the candidates, from 1
	for i, c := range candidates {
		at[c.index] = int32(i) + 1
	}
	known := make(map[string]int32)
	decisions := make([]int32, len(b.input.Shares))
	for i, shares := range b.input.Shares {
		decisions[i] = -1
		parts := 0
		for _, s := range shares {
			if c := at[s.Pop] - 1; c >= 0 {
				decisions[i] = c
				parts++
			}
		}
		if parts < 2 {
			continue
		}
		var l lot
		key := ""
		for _, s := range shares {
			if c := at[s.Pop] - 1; c >= 0 {
				l = append(l, newRunner(int(c), candidates[c], s.Share))
				key += fmt.Sprint(c, s.Share, " ")
			}
		}
		split, ok := known[key]
		if !ok {
			split = int32(len(t.splits))
			known[key] = split
			t.splits = append(t.splits, l)
		}
		decisions[i] = int32(len(candidates)) + 1 + split
	}
	return decisions
}

// checkSources returns the errors in what is measured and assigned, the first of
// each kind.
func (in *Input) checkSources() (errs []error) {
	for i, row := range in.Rows {
		if len(row) != len(in.Pops) {
			errs = append(errs, fmt.Errorf("rows[%d]: %d times for %d pops", i, len(row), len(in.Pops)))
			break
		}
	}
	for i, m := range in.Measured {
		err := inOrder(i, m.Prefix, func() cidr.Prefix { return in.Measured[i-1].Prefix })
		if err == nil && (m.Row < 0 || int(m.Row) >= len(in.Rows)) {
			err = fmt.Errorf("there is no row %d", m.Row)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("measured[%d]: %w", i, err))
			break
		}
	}
	for i, shares := range in.Shares {
		for _, s := range shares {
			if s.Pop < 0 || s.Pop >= len(in.Pops) || !(s.Share > 0) || s.Share > 1e18 {
				errs = append(errs, fmt.Errorf("shares[%d]: %v of pop %d is not a share", i, s.Share, s.Pop))
			}
		}
	}
	for i, a := range in.Assigned {
		err := inOrder(i, a.Prefix, func() cidr.Prefix { return in.Assigned[i-1].Prefix })
		if err == nil && (a.Shares < 0 || int(a.Shares) >= len(in.Shares)) {
			err = fmt.Errorf("there are no shares %d", a.Shares)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("assigned[%d]: %w", i, err))
			break
		}
	}
	for i, o := range in.Overrides {
		if err := o.check(); err != nil {
			errs = append(errs, fmt.Errorf("overrides[%d]: %w", i, err))
		}
	}
	return errs
}

// inOrder checks a prefix and that it is above the one before it.
func inOrder(i int, p cidr.Prefix, before func() cidr.Prefix) error {
	switch {
	case !p.IsValid() || p != p.Masked() || p.Is4In6():
		return fmt.Errorf("%v is not in its canonical form", p)
	case i > 0 && before().Compare(p) >= 0:
		return fmt.Errorf("%v is not above the prefix before", p)
	}
	return nil
}
