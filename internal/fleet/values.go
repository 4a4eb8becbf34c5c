package fleet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What [Report].State can be.
const (
	StateHealthy   = "healthy"
	StateUnhealthy = "unhealthy"
	StateUnknown   = "unknown"
)

// What [Report].Announcement can be.
const (
	Announced   = "announced"
	Depreferred = "depreferred"
	Withdrawn   = "withdrawn"
)

// What [Drain].Scope can be.
const (
	ScopeNode   = "node"
	ScopePop    = "pop"
	ScopeRegion = "region"
)

// What a report has room for. A node writes its report every second, so it must
// stay small.
const (
	MaxPrefixes    = 128
	MaxCommunities = 32 // of one route
	MaxNeighbors   = 64
	maxFixed       = 64
)

// Bounds on what one value may hold.
const (
	maxText     = 1024 // bytes of free text
	maxList     = 256  // addresses or usages of a report
	maxBackends = 1024
	maxWeight   = 1000
)

// Report is what a node says about itself. It stands in the store as long as
// the node renews its session.
type Report struct {
	Node         string  `json:"node"`
	Pop          string  `json:"pop"`
	Region       string  `json:"region,omitempty"`
	Latitude     float64 `json:"latitude"`     // degrees north, -90 to 90
	Longitude    float64 `json:"longitude"`    // degrees east, -180 to 180
	State        string  `json:"state"`        // StateHealthy, StateUnhealthy or StateUnknown
	Announcement string  `json:"announcement"` // Announced, Depreferred or Withdrawn
	// Reason explains State and Announcement to operators.
	Reason string `json:"reason,omitempty"`
	// UnhealthySince is by the node's own clock; zero unless StateUnhealthy.
	UnhealthySince time.Time `json:"unhealthy_since,omitzero"`
	Draining       bool      `json:"draining,omitempty"`
	// Standby is set while the node only stands by for another node of its PoP:
	// it serves nobody, and its room is of use to that node's clients only.
	Standby bool `json:"standby,omitempty"`
	// Addresses are the node's service addresses.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Usage     []Usage      `json:"usage,omitempty"`
	// Prefixes are the service prefixes, at most MaxPrefixes; PrefixesOmitted
	// is how many more there are.
	Prefixes        []Prefix `json:"prefixes,omitempty"`
	PrefixesOmitted int      `json:"prefixes_omitted,omitempty"`
	// Neighbors are the BGP neighbors, at most MaxNeighbors.
	Neighbors []Neighbor `json:"neighbors,omitempty"`
	// Config is the SHA-256 sum of the config in force, in hex; empty if it is
	// not known.
	Config string `json:"config,omitempty"`
	// Fixed are the keys of the config in force whose change needs a restart, each
	// with a sum of its value, by which another config can be compared; empty if
	// they are not known.
	Fixed map[string]string `json:"fixed,omitempty"`
	// Rollout is the node's part in rollouts of configs; nil while it has none.
	Rollout *RolloutReport `json:"rollout,omitempty"`
	// Sequence is set by PutReport to a number that differs from the one
	// before, so that a report that says nothing new is still seen to be new.
	Sequence uint64 `json:"sequence"`
}

// RolloutReport is a node's part in rollouts.
type RolloutReport struct {
	Taken  uint64 `json:"taken,omitempty"`  // the generation it took, until it has kept or left it for good
	Tried  uint64 `json:"tried,omitempty"`  // the generation that Failed is about
	Failed string `json:"failed,omitempty"` // what went wrong with it at this node
}

// Prefix is one service prefix of a node. The attributes are those of normal
// service, whatever is announced now: a route de-preferred for an hour is not
// another route.
type Prefix struct {
	Prefix       netip.Prefix `json:"prefix"`
	Announcement string       `json:"announcement"` // Announced, Depreferred or Withdrawn
	MED          uint32       `json:"med,omitempty"`
	Prepend      int          `json:"prepend,omitempty"`
	Communities  []string     `json:"communities,omitempty"`
}

// Neighbor is an upstream router of a node.
type Neighbor struct {
	Address netip.Addr `json:"address"`
	// Own is what it gets of every prefix in normal service, in place of the
	// attributes of Prefixes; nil if it gets those.
	Own *NeighborRoute `json:"own,omitempty"`
}

// NeighborRoute is the route that one neighbor gets of every prefix.
type NeighborRoute struct {
	Withheld    bool     `json:"withheld,omitempty"` // it gets none
	MED         uint32   `json:"med,omitempty"`
	Prepend     int      `json:"prepend,omitempty"`
	Communities []string `json:"communities,omitempty"`
}

// Usage is how much of one bounded resource is in use, both in the resource's
// own unit. A ceiling of 0 is one that is not known.
type Usage struct {
	Resource string  `json:"resource"`
	Used     float64 `json:"used"`
	Ceiling  float64 `json:"ceiling"`
}

// Drain is an operator's wish to take a node, a PoP or a region out of service.
type Drain struct {
	Scope  string    `json:"scope"` // ScopeNode, ScopePop or ScopeRegion
	Name   string    `json:"name"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at,omitzero"`
	// Until ends the drain by the clock of whoever reads it; zero is never.
	Until time.Time `json:"until,omitzero"`
	// Prefix limits the drain to one service prefix, which is then de-preferred
	// and no more: the guard counts PoPs, not prefixes, so nobody could say
	// whether others still announce one that is withdrawn. The zero Prefix is
	// all of the node.
	Prefix netip.Prefix `json:"prefix,omitzero"`
}

// Active reports whether d holds at now.
func (d Drain) Active(now time.Time) bool { return d.Until.IsZero() || now.Before(d.Until) }

// Leases is who may be withdrawn now, and who wants to be.
type Leases struct {
	Holders []Lease `json:"holders"`           // by Node; one for each
	Waiting []Lease `json:"waiting,omitempty"` // by Node; asked and were refused
	Freeze  *Freeze `json:"freeze,omitempty"`  // nil while the fleet is not frozen
}

// Lease is a node's permission to withdraw its routes, or its wish to.
type Lease struct {
	Node   string    `json:"node"`
	Pop    string    `json:"pop"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at,omitzero"` // when it was first asked for, by the node's clock
	// Planned is true for an operator's doing, false for a failure.
	Planned bool `json:"planned,omitempty"`
	// Gone is true if the node had withdrawn before it asked, as it may while
	// the store is out of reach.
	Gone bool `json:"gone,omitempty"`
	// Usage is the node's load when it asked.
	Usage []Usage `json:"usage,omitempty"`
	// Session is set by AcquireLease. The lease, or the wish, is alive as long
	// as the node's holder key is bound to it.
	Session Session `json:"session"`
}

// Freeze records that too much of the fleet turned unhealthy together. It says
// what was found; what follows is the guard's.
type Freeze struct {
	Pops  []string  `json:"pops"`  // that turned unhealthy
	Known int       `json:"known"` // PoPs of the fleet
	By    string    `json:"by"`    // the node that found it
	At    time.Time `json:"at,omitzero"`
}

// Backend is one origin server of an inventory.
type Backend struct {
	Address netip.AddrPort `json:"address"`
	Weight  int            `json:"weight,omitempty"` // 1 to 1000; 0 is written and read as 1
	Zone    string         `json:"zone,omitempty"`
}

// inventory is a set of backends as it is stored.
type inventory struct {
	Backends []Backend `json:"backends"`
}

// Names are safe in a key, a metric label and a DNS label.
var nameRegexp = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func checkName(what, name string) error {
	if !nameRegexp.MatchString(name) {
		return fmt.Errorf("%s: %.80q is not a name: 1 to 63 letters, digits, \".\", \"_\" and \"-\", a letter or digit first", what, name)
	}
	return nil
}

func checkText(what, text string) error {
	if len(text) > maxText {
		return fmt.Errorf("%s: %d bytes, more than %d", what, len(text), maxText)
	}
	return nil
}

func checkOneOf(what, value string, of ...string) error {
	if !slices.Contains(of, value) {
		return fmt.Errorf("%s: %.80q is none of %s", what, value, strings.Join(of, ", "))
	}
	return nil
}

func checkRange(what string, value, low, high float64) error {
	if !(value >= low && value <= high) { // false for NaN
		return fmt.Errorf("%s: %v is not within %v and %v", what, value, low, high)
	}
	return nil
}

func (r *Report) validate() error {
	errs := []error{
		checkName("node", r.Node),
		checkName("pop", r.Pop),
		checkRange("latitude", r.Latitude, -90, 90),
		checkRange("longitude", r.Longitude, -180, 180),
		checkOneOf("state", r.State, StateHealthy, StateUnhealthy, StateUnknown),
		checkOneOf("announcement", r.Announcement, Announced, Depreferred, Withdrawn),
		checkText("reason", r.Reason),
		checkText("config", r.Config),
	}
	if r.Rollout != nil {
		errs = append(errs, checkText("rollout.failed", r.Rollout.Failed))
	}
	if r.Region != "" {
		errs = append(errs, checkName("region", r.Region))
	}
	if len(r.Addresses) > maxList {
		errs = append(errs, fmt.Errorf("addresses: more than %d", maxList))
	}
	for i, a := range r.Addresses {
		if !a.IsValid() {
			errs = append(errs, fmt.Errorf("addresses[%d]: not an address", i))
		}
	}
	errs = append(errs, checkUsage(r.Usage)...)
	errs = append(errs, checkPrefixes(r.Prefixes)...)
	errs = append(errs, checkNeighbors(r.Neighbors)...)
	if len(r.Fixed) > maxFixed {
		errs = append(errs, fmt.Errorf("fixed: more than %d", maxFixed))
	}
	for key, sum := range r.Fixed {
		errs = append(errs, checkText("fixed", key), checkText("fixed", sum))
	}
	return errors.Join(errs...)
}

func checkPrefixes(list []Prefix) (errs []error) {
	if len(list) > MaxPrefixes {
		errs = append(errs, fmt.Errorf("prefixes: more than %d", MaxPrefixes))
	}
	for i, p := range list {
		if !p.Prefix.IsValid() {
			errs = append(errs, fmt.Errorf("prefixes[%d]: not a prefix", i))
		}
		errs = append(errs, checkOneOf(fmt.Sprintf("prefixes[%d].announcement", i), p.Announcement, Announced, Depreferred, Withdrawn))
		errs = append(errs, checkCommunities(fmt.Sprintf("prefixes[%d].communities", i), p.Communities)...)
	}
	return errs
}

func checkNeighbors(list []Neighbor) (errs []error) {
	if len(list) > MaxNeighbors {
		errs = append(errs, fmt.Errorf("neighbors: more than %d", MaxNeighbors))
	}
	for i, n := range list {
		if !n.Address.IsValid() {
			errs = append(errs, fmt.Errorf("neighbors[%d].address: not an address", i))
		}
		if n.Own != nil {
			errs = append(errs, checkCommunities(fmt.Sprintf("neighbors[%d].own.communities", i), n.Own.Communities)...)
		}
	}
	return errs
}

func checkCommunities(what string, list []string) (errs []error) {
	if len(list) > MaxCommunities {
		errs = append(errs, fmt.Errorf("%s: more than %d", what, MaxCommunities))
	}
	for _, c := range list {
		errs = append(errs, checkText(what, c))
	}
	return errs
}

// Validate says what is wrong with d, or returns nil.
func (d Drain) Validate() error {
	return errors.Join(
		checkOneOf("scope", d.Scope, ScopeNode, ScopePop, ScopeRegion),
		checkName("name", d.Name),
		checkPrefix("prefix", d.Prefix),
		checkText("by", d.By),
		checkText("reason", d.Reason),
	)
}

func (l *Lease) validate() error {
	errs := []error{checkName("node", l.Node), checkName("pop", l.Pop), checkText("reason", l.Reason)}
	return errors.Join(append(errs, checkUsage(l.Usage)...)...)
}

func (l *Leases) validate() error {
	errs := append(checkLeases("holders", l.Holders), checkLeases("waiting", l.Waiting)...)
	if f := l.Freeze; f != nil {
		errs = append(errs, checkName("freeze.by", f.By), checkRange("freeze.known", float64(f.Known), 1, math.MaxInt32))
		for i, pop := range f.Pops {
			errs = append(errs, checkName(fmt.Sprintf("freeze.pops[%d]", i), pop))
		}
	}
	return errors.Join(errs...)
}

func checkLeases(list string, leases []Lease) (errs []error) {
	seen := make(map[string]bool, len(leases))
	for i := range leases {
		l := &leases[i]
		if err := l.validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s[%d]: %w", list, i, err))
		}
		if l.Session == "" {
			errs = append(errs, fmt.Errorf("%s[%d]: no session", list, i))
		}
		if seen[l.Node] {
			errs = append(errs, fmt.Errorf("%s[%d]: node %q again", list, i, l.Node))
		}
		seen[l.Node] = true
	}
	return errs
}

func checkUsage(list []Usage) (errs []error) {
	if len(list) > maxList {
		errs = append(errs, fmt.Errorf("usage: more than %d", maxList))
	}
	for i, u := range list {
		errs = append(errs,
			checkName(fmt.Sprintf("usage[%d].resource", i), u.Resource),
			checkRange(fmt.Sprintf("usage[%d].used", i), u.Used, 0, math.MaxFloat64),
			checkRange(fmt.Sprintf("usage[%d].ceiling", i), u.Ceiling, 0, math.MaxFloat64))
	}
	return errs
}

// normalize returns set validated as a whole, in order of address, with default
// weights filled in. It does not change set.
func normalize(set []Backend) ([]Backend, error) {
	if len(set) > maxBackends {
		return nil, fmt.Errorf("%d backends, more than %d", len(set), maxBackends)
	}
	var errs []error
	seen := make(map[netip.AddrPort]int, len(set))
	out := append([]Backend{}, set...)
	for i := range out {
		b := &out[i]
		b.Weight = cmp.Or(b.Weight, 1)
		b.Address = netip.AddrPortFrom(b.Address.Addr().Unmap(), b.Address.Port())
		if !b.Address.IsValid() || b.Address.Port() == 0 {
			errs = append(errs, fmt.Errorf("backends[%d].address: no address or no port", i))
		} else if first, again := seen[b.Address]; again {
			errs = append(errs, fmt.Errorf("backends[%d].address: %v again, as in backends[%d]", i, b.Address, first))
		} else {
			seen[b.Address] = i
		}
		if b.Weight < 1 || b.Weight > maxWeight {
			errs = append(errs, fmt.Errorf("backends[%d].weight: %d is not within 1 and %d", i, b.Weight, maxWeight))
		}
		if err := checkText(fmt.Sprintf("backends[%d].zone", i), b.Zone); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Backend) int { return a.Address.Compare(b.Address) })
	return out, nil
}

// decodeReport and its siblings turn a stored value into a valid one. Fields
// they do not know are passed over, so that nodes of two versions can share a
// fleet.
func decodeReport(node string, value []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(value, &r); err != nil {
		return Report{}, err
	}
	if r.Node != node {
		return Report{}, fmt.Errorf("node %.80q under the key of %q", r.Node, node)
	}
	return r, r.validate()
}

func decodeDrain(scope, name string, value []byte) (Drain, error) {
	var d Drain
	if err := json.Unmarshal(value, &d); err != nil {
		return Drain{}, err
	}
	if d.Scope != scope || d.Name != name || d.Prefix.IsValid() {
		return Drain{}, fmt.Errorf("%.80q under the key of %q", d.Scope+"/"+d.Name, scope+"/"+name)
	}
	return d, d.Validate()
}

func decodeLeases(value []byte) (Leases, error) {
	var l Leases
	if err := json.Unmarshal(value, &l); err != nil {
		return Leases{}, err
	}
	return l, l.validate()
}

func decodeInventory(value []byte) ([]Backend, error) {
	// A document without "backends" is a mistake, not an empty pool.
	var doc struct{ Backends *[]Backend }
	if err := json.Unmarshal(value, &doc); err != nil {
		return nil, err
	}
	if doc.Backends == nil {
		return nil, errors.New("no backends field")
	}
	return normalize(*doc.Backends)
}

// encode fails for times that JSON has no words for, such as the year 10000,
// and for values that are too large.
func encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err == nil && len(data) > MaxValue {
		err = fmt.Errorf("%d bytes, more than %d", len(data), MaxValue)
	}
	return data, err
}
