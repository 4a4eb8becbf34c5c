package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	networks := b.placed(b.lists[0][:0], candidates)
	b.lists[0] = networks
	if policy == Latency || policy == Capacity {
		networks = b.over(b.measured(b.lists[1][:0], candidates), networks)
	}
	if policy == Capacity {
		networks = b.over(b.assigned(b.lists[1][:0], candidates, t), networks)
	}
	firstV6 := len(networks)
	if i := slices.IndexFunc(networks, func(n network) bool { return n.prefix.Addr().Is6() }); i >= 0 {
		firstV6 = i
	}
	t.of[IPv4] = newTrie(networks[:firstV6], outside, &b.nodes)
	t.of[IPv6] = newTrie(networks[firstV6:], outside, &b.nodes)
	b.tries[key.String()] = t
	return t
}

// placed appends the networks on the map to dst, decided by distance.
func (b *builder) placed(dst []network, candidates []candidate) []network {
	decisions := make([]int32, len(b.places))
	for i, p := range b.places {
		decisions[i] = nearest(p, candidates)
	}
	dst = slices.Grow(dst, len(b.clients))
	for i, c := range b.clients {
		dst = append(dst, network{c.Prefix, decisions[b.located[i]]})
	}
	return dst
}

// measured appends the networks from which the latency to any of the candidates is
// known, decided by it.
func (b *builder) measured(dst []network, candidates []candidate) []network {
	decisions := make([]int32, len(b.input.Rows))
	for i, row := range b.input.Rows {
		decisions[i] = fastest(row, candidates)
	}
	dst = slices.Grow(dst, len(b.input.Measured))
	for _, m := range b.input.Measured {
		if decisions[m.Row] >= 0 {
			dst = append(dst, network{m.Prefix, decisions[m.Row]})
		}
	}
	return dst
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

// assigned appends the networks of which the plan gives a part to any of the
// candidates, decided by it. It adds the splits it needs to t; networks that are
// divided alike share one.
func (b *builder) assigned(dst []network, candidates []candidate, t *tries) []network {
	at := make([]int32, len(b.pops)) // of PoPs among the candidates, from 1
	for i, c := range candidates {
		at[c.index] = int32(i) + 1
	}
	known := make(map[string]int32)
	dst = slices.Grow(dst, len(b.input.Assigned))
	for _, a := range b.input.Assigned {
		decision, parts := int32(-1), 0
		for _, s := range a.Shares {
			if i := at[s.Pop] - 1; i >= 0 {
				decision = i
				parts++
			}
		}
		if parts > 1 {
			var l lot
			key := ""
			for _, s := range a.Shares {
				if i := at[s.Pop] - 1; i >= 0 {
					l = append(l, newRunner(int(i), candidates[i], s.Share))
					key += fmt.Sprint(i, s.Share, " ")
				}
			}
			split, ok := known[key]
			if !ok {
				split = int32(len(t.splits))
				known[key] = split
				t.splits = append(t.splits, l)
			}
			decision = int32(len(candidates)) + 1 + split
		}
		if parts > 0 {
			dst = append(dst, network{a.Prefix, decision})
		}
	}
	return dst
}

// over merges two sorted lists of networks; for a prefix in both, first counts.
// Either list may be scratch, and the result is.
func (b *builder) over(first, second []network) []network {
	b.lists[1] = first
	if len(first) == 0 {
		return second
	}
	merged := slices.Grow(b.lists[2][:0], len(first)+len(second))
	for len(first) > 0 && len(second) > 0 {
		order := first[0].prefix.Compare(second[0].prefix)
		if order <= 0 {
			merged = append(merged, first[0])
			first = first[1:]
		} else {
			merged = append(merged, second[0])
		}
		if order >= 0 {
			second = second[1:]
		}
	}
	merged = append(append(merged, first...), second...)
	b.lists[0], b.lists[2] = merged, b.lists[0]
	return merged
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
		err := inOrder(i, m.Prefix, func() netip.Prefix { return in.Measured[i-1].Prefix })
		if err == nil && (m.Row < 0 || int(m.Row) >= len(in.Rows)) {
			err = fmt.Errorf("there is no row %d", m.Row)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("measured[%d]: %w", i, err))
			break
		}
	}
	for i, a := range in.Assigned {
		err := inOrder(i, a.Prefix, func() netip.Prefix { return in.Assigned[i-1].Prefix })
		for _, s := range a.Shares {
			if s.Pop < 0 || s.Pop >= len(in.Pops) || !(s.Share > 0) || s.Share > 1e18 {
				err = errors.Join(err, fmt.Errorf("%v of pop %d is not a share", s.Share, s.Pop))
			}
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
func inOrder(i int, p netip.Prefix, before func() netip.Prefix) error {
	switch {
	case !p.IsValid() || p != p.Masked() || p.Addr().Is4In6():
		return fmt.Errorf("%v is not in its canonical form", p)
	case i > 0 && before().Compare(p) >= 0:
		return fmt.Errorf("%v is not above the prefix before", p)
	}
	return nil
}
