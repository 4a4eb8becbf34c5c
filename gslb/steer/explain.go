package steer

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"anyedge/internal/cidr"
)

// Explanation is a decision with what led to it, stage by stage.
type Explanation struct {
	Name    string       `json:"name"`
	Family  string       `json:"family"` // "A" or "AAAA"
	Client  netip.Prefix `json:"client"` // zero if it did not say
	Policy  string       `json:"policy"`
	Without []string     `json:"without,omitempty"` // PoPs taken as down by request
	// Stages are the filters in their order; those that had nothing to do have an
	// empty Dropped.
	Stages []Stage `json:"stages"`
	// Source says what decided, and Figures what was known of each PoP that was
	// left when the policy chose.
	Source  string   `json:"source"`
	Figures []Figure `json:"figures,omitempty"`

	Pops   []string      `json:"pops"`
	Addrs  []netip.Addr  `json:"addresses"`
	Scope  int           `json:"scope"`
	TTL    time.Duration `json:"ttl_ns"`
	Reason string        `json:"reason"`
}

// Stage is what one filter did.
type Stage struct {
	Filter  string    `json:"filter"` // override, health or family
	Dropped []Dropped `json:"dropped,omitempty"`
	Left    []string  `json:"left"`
	Note    string    `json:"note,omitempty"`
}

// Dropped is a PoP that a filter took out.
type Dropped struct {
	Pop string `json:"pop"`
	Why string `json:"why"`
}

// Figure is what is known of a PoP for a client. Fields without knowledge are
// below 0.
type Figure struct {
	Pop    string  `json:"pop"`
	Weight int     `json:"weight"`
	KM     float64 `json:"km"`
	RTT    float64 `json:"rtt_ms"`
	// Estimated is set by callers who know that RTT is not measured.
	Estimated bool    `json:"estimated,omitempty"`
	Share     float64 `json:"share"` // of a plan
}

// ErrNotSteered is the error of Explain for a name that a table does not have.
var ErrNotSteered = errors.New("not a steered name")

// stage is a Stage of one family, or of all.
type stage struct {
	family Family
	Stage
}

// record tells the trace what a filter did.
func (b *builder) record(f Family, filter string, before, after []candidate, why func(candidate) string, notes ...string) {
	if b.trace == nil {
		return
	}
	s := stage{f, Stage{Filter: filter, Note: strings.Join(notes, " ")}}
	for _, c := range after {
		s.Left = append(s.Left, c.pop.Name)
	}
	for _, c := range before {
		if !slices.Contains(s.Left, c.pop.Name) {
			s.Dropped = append(s.Dropped, Dropped{c.pop.Name, why(c)})
		}
	}
	b.trace(s)
}

// condition says for humans why a PoP may not be usable.
func (s *site) condition() string {
	text := s.State.String()
	if s.Drained {
		text += ", drained"
	}
	if s.Note != "" {
		text += ", " + s.Note
	}
	return text
}

// Explain decides a query like Answer, taking some PoPs as down, and says how. It
// makes the table of that name anew, which takes a second where networks are a
// million: it is for people.
func (t *Table) Explain(q Query, without ...string) (Explanation, error) {
	if t == nil || t.names[q.Name] == nil || q.Family >= families {
		return Explanation{}, fmt.Errorf("%s: %w", q.Name, ErrNotSteered)
	}
	in := t.input
	in.Names = nil
	for _, n := range t.input.Names {
		if Canonical(n.Name) == q.Name {
			in.Names = []Name{n}
		}
	}
	in.Pops = slices.Clone(in.Pops)
	for _, pop := range without {
		i := slices.IndexFunc(in.Pops, func(p Pop) bool { return p.Name == pop })
		if i < 0 {
			return Explanation{}, fmt.Errorf("there is no pop %q", pop)
		}
		in.Pops[i].State, in.Pops[i].Note = Down, "by request"
	}
	e := Explanation{Name: q.Name, Family: "A", Client: q.Client, Policy: in.Names[0].Policy.String(), Without: without, Stages: []Stage{}}
	if q.Family == IPv6 {
		e.Family = "AAAA"
	}
	left := in.Names[0].Answers
	table, err := assemble(in, func(s stage) {
		if s.family == q.Family || s.family == families {
			e.Stages = append(e.Stages, s.Stage)
			left = slices.DeleteFunc(slices.Clone(left), func(a Answer) bool { return !slices.Contains(s.Left, a.Pop) })
		}
	})
	if err != nil {
		return Explanation{}, err
	}
	r, _ := table.Answer(q)
	e.Pops, e.Addrs, e.Scope, e.TTL, e.Reason = r.Pops, r.Addrs, r.Scope, r.TTL, r.Reason.String()
	e.figure(&in, left)
	e.Source = in.source(in.Names[0].Policy, r.Reason, e.Client, e.Figures)
	return e, nil
}

// figure sets what is known of the answers that are left.
func (e *Explanation) figure(in *Input, left []Answer) {
	at := around(in.Clients, e.Client, clientPrefix)
	measured := around(in.Measured, e.Client, measuredPrefix)
	assigned := around(in.Assigned, e.Client, assignedPrefix)
	for _, a := range left {
		i := slices.IndexFunc(in.Pops, func(p Pop) bool { return p.Name == a.Pop })
		f := Figure{Pop: a.Pop, Weight: a.Weight, KM: -1, RTT: -1, Share: -1}
		if at != nil {
			chord := placeOf(in.Pops[i].Lat, in.Pops[i].Lon).chord(placeOf(at.Lat, at.Lon))
			f.KM = math.Round(2 * earthRadius * math.Asin(min(1, math.Sqrt(chord)/2)))
		}
		if measured != nil && in.Rows[measured.Row][i] >= 0 {
			f.RTT = float64(in.Rows[measured.Row][i]) / 1000
		}
		if assigned != nil {
			f.Share = 0
			for _, s := range in.Shares[assigned.Shares] {
				if s.Pop == i {
					f.Share = s.Share
				}
			}
		}
		e.Figures = append(e.Figures, f)
	}
}

// earthRadius is the mean one in km.
const earthRadius = 6371

// around returns the item of the longest prefix around a client, nil if there is
// none.
func around[T any](items []T, client netip.Prefix, prefix func(T) cidr.Prefix) (longest *T) {
	if !client.IsValid() || client.Bits() == 0 {
		return nil
	}
	addr := client.Masked().Addr()
	for i := range items {
		if p := prefix(items[i]); p.Contains(addr) && (longest == nil || p.Bits() > prefix(*longest).Bits()) {
			longest = &items[i]
		}
	}
	return longest
}

// source says in words what a policy decided by.
func (in *Input) source(policy Policy, reason Reason, client netip.Prefix, figures []Figure) string {
	switch reason {
	case NoneUsable:
		return "no answer is usable, so all are given"
	case NoAddress:
		return "no usable answer has an address of this family"
	case NoPlace:
		return "lot by weight, as nothing is known of the client"
	case ByOrder:
		return "first in order"
	case ByWeight:
		return "lot by weight"
	case BySubnet:
		return "rendezvous of the client's subnet, by weight"
	}
	best, source := -1, "the only answer with weight, as nothing is known of the client"
	consider := func(p cidr.Prefix, text string) {
		if p.Bits() > best {
			best, source = p.Bits(), text+" of "+p.String()
		}
	}
	known := func(of func(Figure) float64, least float64) bool {
		return slices.ContainsFunc(figures, func(f Figure) bool { return of(f) > least })
	}
	if a := around(in.Assigned, client, assignedPrefix); a != nil && policy == Capacity &&
		known(func(f Figure) float64 { return f.Share }, 0) {
		consider(a.Prefix, "plan")
	}
	if m := around(in.Measured, client, measuredPrefix); m != nil && policy != Nearest &&
		known(func(f Figure) float64 { return f.RTT }, -1) {
		consider(m.Prefix, "measured latency")
	}
	if c := around(in.Clients, client, clientPrefix); c != nil {
		consider(c.Prefix, "distance from the place")
	}
	return source
}

// String lays an explanation out for a terminal.
func (e Explanation) String() string {
	var b strings.Builder
	client := "a client that does not say where it is"
	if e.Client.IsValid() && e.Client.Bits() > 0 {
		client = e.Client.String()
	}
	fmt.Fprintf(&b, "%s %s for %s, policy %s", e.Name, e.Family, client, e.Policy)
	if len(e.Without) > 0 {
		fmt.Fprintf(&b, ", without %s", strings.Join(e.Without, " "))
	}
	b.WriteByte('\n')
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %-9s "+format+"\n", append([]any{label}, args...)...)
	}
	for _, s := range e.Stages {
		if s.Note != "" {
			line(s.Filter, "%s", s.Note)
		}
		for _, d := range s.Dropped {
			line(s.Filter, "drops %s: %s", d.Pop, d.Why)
		}
		left := "nothing"
		if len(s.Left) > 0 {
			left = strings.Join(s.Left, " ")
		}
		line(s.Filter, "leaves %s", left)
	}
	for _, f := range e.Figures {
		var known []string
		known = append(known, fmt.Sprintf("weight %d", f.Weight))
		if f.KM >= 0 {
			known = append(known, fmt.Sprintf("%.0f km", f.KM))
		}
		switch {
		case f.RTT >= 0 && f.Estimated:
			known = append(known, fmt.Sprintf("%.1f ms by distance", f.RTT))
		case f.RTT >= 0:
			known = append(known, fmt.Sprintf("%.1f ms", f.RTT))
		}
		if f.Share >= 0 {
			known = append(known, fmt.Sprintf("%.0f %% of the plan", 100*f.Share))
		}
		line(f.Pop, "%s", strings.Join(known, ", "))
	}
	line("decided", "by %s", e.Source)
	addrs := make([]string, len(e.Addrs))
	for i, a := range e.Addrs {
		addrs[i] = a.String()
	}
	line("answer", "%s: %s", strings.Join(e.Pops, " "), strings.Join(addrs, " "))
	line("", "scope /%d, TTL %v, reason %s", e.Scope, e.TTL, e.Reason)
	return b.String()
}
