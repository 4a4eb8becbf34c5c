// Package steer decides which points of presence answer for a name. It turns
// what is known about the PoPs and about where clients are into a Table, and
// the Table answers queries. It is pure: no clock, no I/O, no randomness of its
// own.
//
// A steered name has candidates, which are PoPs in the operator's order, and a
// policy that picks among the usable ones:
//
//   - nearest takes the PoP at the least great circle distance from the
//     client's network;
//   - weighted takes one by lot, in proportion to the weights;
//   - failover takes the first;
//   - sticky takes one by weighted rendezvous hashing of the client's subnet;
//   - latency takes the one with the least measured round-trip time;
//   - capacity takes what a plan has assigned to the client's network, see
//     package gslb/steer/assign.
//
// Each of the last three knows some networks only. A client is decided by the
// longest network around it that any source knows; of several with one prefix a
// plan goes before a measurement, and that before a place on the map. So capacity
// falls back to latency, latency to nearest, and nearest to a lot.
//
// Before the policy come filters, in this order: overrides of the operator, health
// and drain, address family. Table.Explain says what each did.
//
// # Subnets
//
// Sticky answers, and those of a network that a plan divides among PoPs, differ by
// subnet: /24 and /48. The hash depends on the subnet and the PoP's name alone, so
// all nodes agree, and a change of shares moves no subnet whose PoP does not lose.
//
// # Usable
//
// A PoP that is Down or drained is not usable. Known-good comes first: while a
// candidate is Up, Unknown ones are left out; when none is Up, Unknown ones are
// usable, because unknown is not down. When no candidate is usable the reply is
// all of them, whatever the policy: an answer that may fail beats none that
// surely does.
//
// A usable PoP without an address of the asked family is passed over if another
// usable one has it. If none has, there is no address to give, although the
// name exists; a PoP that is not usable is not dragged in for that, because the
// client can still reach a usable one over the other family.
//
// # Clients in no network
//
// A client that no network of the map covers has no place, so nearest cannot
// measure. It then picks by lot in proportion to the weights. The first in
// order, or every PoP at once, would be simpler, but the part of the Internet
// that the map does not know can be large, and the operator's weights are the
// only word on who should carry it.
//
// # Scope
//
// Reply.Scope is for EDNS Client Subnet (RFC 7871): the length of the widest
// prefix around the client in which every address gets the same decision. It is
// exact, not the length of the network that matched: neighboring networks with
// one decision count as one, and a hole inside them keeps them apart. A lot is
// one decision, whoever wins it; where subnets differ, each is one.
//
// # Concurrency
//
// A Table is immutable; any number of goroutines may call its methods.
package steer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"anyedge/internal/cidr"
)

// State is what is known about a PoP's health.
type State uint8

// The states. The zero State is Unknown.
const (
	Unknown State = iota
	Up
	Down
)

// String returns "unknown", "up" or "down".
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Policy says how a name picks among its usable candidates.
type Policy uint8

// The policies. The zero Policy is Nearest.
const (
	Nearest Policy = iota
	Weighted
	Failover
	Sticky
	Latency
	Capacity
)

// policies are the names of the policies.
var policies = [...]string{"nearest", "weighted", "failover", "sticky", "latency", "capacity"}

// String returns the policy as the config spells it.
func (p Policy) String() string {
	if int(p) < len(policies) {
		return policies[p]
	}
	return fmt.Sprintf("Policy(%d)", uint8(p))
}

// ParsePolicy is the inverse of Policy.String.
func ParsePolicy(text string) (Policy, error) {
	if i := slices.Index(policies[:], text); i >= 0 {
		return Policy(i), nil
	}
	return 0, fmt.Errorf("policy %q is not one of %s", text, strings.Join(policies[:], ", "))
}

// Family is the address family of an answer.
type Family uint8

// The families.
const (
	IPv4 Family = iota
	IPv6
	families
)

// Input is everything a Table is built from.
type Input struct {
	// Pops are the points of presence. Names are unique.
	Pops []Pop
	// Clients says where networks are; the longest match counts. Prefixes are
	// unique and masked. Build sorts a copy unless they are in order already, as
	// CompareClients defines it.
	Clients []Client
	// Names are the steered names.
	Names []Name
	// Measured are the networks with measured round-trip times, sorted and unique
	// by prefix. Rows are the times they refer to.
	Measured []Measured
	Rows     [][]int32
	// Assigned are the networks that a plan gives PoPs, sorted and unique by
	// prefix. Shares are the parts they refer to.
	Assigned []Assigned
	Shares   [][]Share
	// Overrides are the operator's word on names; those that have expired at Now do
	// nothing.
	Overrides []Override
	Now       time.Time
}

// Measured is a network whose round-trip times are known.
type Measured struct {
	Prefix cidr.Prefix
	// Row is an index of Input.Rows. A row has an entry for each of Input.Pops, in
	// µs, below 0 for a PoP that nothing is known of.
	Row int32
}

// Assigned is a network and the PoPs that a plan gives it.
type Assigned struct {
	Prefix cidr.Prefix
	// Shares is an index of Input.Shares, whose entries are of distinct PoPs. Those
	// of PoPs that a name cannot use are passed over.
	Shares int32
}

// Share is a PoP's part of a network.
type Share struct {
	Pop   int     // index of Input.Pops
	Share float64 // above 0, relative to the others
}

// Override is an operator's word on some answers of some names. It goes before
// health: of what it leaves, unhealthy PoPs are used if there is nothing else.
type Override struct {
	// Names and Pops are patterns in the syntax of path.Match, of canonical names
	// and of PoPs. In names, "*" matches dots too.
	Names, Pops string
	// Only keeps the matching PoPs and drops all others; else the matching ones are
	// dropped. An override that would leave none does nothing.
	Only bool
	// Until is when it expires; never if zero.
	Until time.Time
	// Why is told by Explain.
	Why string
}

// Pop is a point of presence.
type Pop struct {
	Name string
	// Lat and Lon are degrees north and east, -90 to 90 and -180 to 180.
	Lat, Lon float64
	// Addresses are given out together, those of one family per answer.
	Addresses []netip.Addr
	State     State
	// Drained takes the PoP out of answers whatever its State.
	Drained bool
	// Note says where State is from, such as "report 12s old"; Explain tells it.
	Note string
}

// Client is a network and its place.
type Client struct {
	Prefix cidr.Prefix
	// Lat and Lon are degrees north and east, -90 to 90 and -180 to 180.
	Lat, Lon float64
}

// CompareClients orders clients by address family, address and prefix length.
func CompareClients(a, b Client) int { return a.Prefix.Compare(b.Prefix) }

// Name is a steered name.
type Name struct {
	// Name is a domain name; case and a final dot do not matter.
	Name   string
	Policy Policy
	// TTL is in whole seconds, 0 to one day.
	TTL time.Duration
	// Answers are the candidates, at least one; for Failover in order of
	// preference.
	Answers []Answer
}

// Answer is one candidate of a name.
type Answer struct {
	// Pop names an entry of Input.Pops; no two answers of a name share it.
	Pop string
	// Weight is the share under the Weighted policy, and for clients in no
	// network under Nearest. It is not negative; 0 means only when no usable
	// candidate weighs more.
	Weight int
}

// Query is one question to a Table.
type Query struct {
	// Name is a steered name in the form that Canonical returns.
	Name   string
	Family Family
	// Client is the network that asks, an address with its full length or a
	// wider prefix. The zero Prefix and any of length 0 mean that the client
	// does not say where it is.
	Client netip.Prefix
	// Random decides lots. Equal values decide alike: asked for both families
	// with one value, a name gives one PoP as far as that PoP has both.
	Random uint64
}

// Reply is the decision on a Query. Its slices are the table's own: callers
// must not change them.
type Reply struct {
	// Pops are the chosen PoPs: one, or every candidate when none is usable.
	Pops []string
	// Addrs are their addresses in the asked family. None means that the name
	// exists and has no address to give in it.
	Addrs []netip.Addr
	// Scope is the length of the widest prefix around Query.Client with the same
	// decision. It may exceed the length of Query.Client, whose first address
	// then stands for all. It is 0 if the client made no difference.
	Scope  int
	TTL    time.Duration
	Reason Reason
}

// Reason says what made a decision.
type Reason uint8

// The reasons. NoPlace is a lot for clients in no network, under a policy that
// needs one; where such a lot can have one winner only, and it is the nearest PoP
// of the networks around, the two are one decision and ByDistance is given.
// ByLatency and ByPlan name the policy: for networks that it does not know they
// stand for what it falls back to; Explain says which.
const (
	ByDistance Reason = iota
	ByWeight
	ByOrder
	NoPlace
	NoneUsable
	NoAddress
	BySubnet
	ByLatency
	ByPlan
)

// String returns the reason as a short snake_case word.
func (r Reason) String() string {
	switch r {
	case ByDistance:
		return "nearest"
	case ByWeight:
		return "weighted"
	case ByOrder:
		return "failover"
	case NoPlace:
		return "no_place"
	case NoneUsable:
		return "none_usable"
	case NoAddress:
		return "no_address"
	case BySubnet:
		return "sticky"
	case ByLatency:
		return "latency"
	case ByPlan:
		return "capacity"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Canonical returns the form of a domain name that Query.Name has: ASCII lower
// case without the final dot.
func Canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
