package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// View is what one reader knows of the fleet, all of it valid. It is immutable,
// its slices and maps included. The zero View knows nothing and is not
// connected.
type View struct {
	// Connected says that the store answers and that the rest of the View is
	// what it holds now, give or take a moment. When it is false, the rest is
	// the last that was known.
	Connected bool
	// ConnectedSince is when Connected last became true; zero if never.
	ConnectedSince time.Time
	// LostSince is when Connected last became false; at first, when the Fleet
	// was made.
	LostSince time.Time

	Reports []Seen  // by Node
	Drains  []Drain // by Scope, then Name; those that have run out included
	// PrefixDrains are the drains of single prefixes, by Scope, Name and Prefix.
	PrefixDrains []Drain
	// Overrides are by Scope, Name and Prefix; those that have run out included.
	Overrides []Override
	// SteerOverrides are by At; those that have run out included.
	SteerOverrides []SteerOverride
	Leases         Leases // only those that are alive
	Inventory      map[string][]Backend

	// Ring is the ring of ticket keys in clear; nil if there is none. It is a
	// secret: it goes into no log and no answer.
	Ring []byte
	// RingIndex is the prev to give to PutRing; 0 if there is no ring.
	RingIndex uint64

	// ZoneKeys are the rings of DNSSEC keys by zone, if they are followed: see
	// Config.ValidZoneKeys.
	ZoneKeys map[string]ZoneKeys

	// Rollout is the newest rollout of configs as it is stored; nil if there was
	// none.
	Rollout []byte

	// Plan is the DNS nodes' plan, nil if there is none, and PlanSeen when this
	// reader saw it change, by its own monotonic clock; see [View.PlanAge].
	Plan     *Plan
	PlanSeen time.Time

	// RTT is what the nodes have measured, by Node; nil without
	// [Config].FollowRTT. It comes later than the rest, and so do Queries: what the
	// DNS nodes were asked.
	RTT     []RTT
	Queries []Queries

	// Rejected are the keys whose present value is not valid, in order. What
	// the View has of them is the last good one, if there was any.
	Rejected []string

	// leasesIndex is the index of the document of leases, 0 if there is none, and
	// damaged says that it cannot be read.
	leasesIndex uint64
	damaged     bool

	outages []outage // the newest that were over before LostSince, in order
	changed chan struct{}
}

// Seen is a report and when it came.
type Seen struct {
	Report
	// At is when this reader saw the report change, by its own monotonic
	// clock: time.Since(At) compares no clocks of two hosts. While the View is
	// not connected no report changes, so an age says nothing then.
	At time.Time
}

// Changed returns a channel that is closed when there is a newer View. Take it
// from the View that was acted on, and no change is missed:
//
//	for {
//		view := f.View()
//		act(view)
//		select {
//		case <-view.Changed():
//		case <-ctx.Done():
//			return
//		}
//	}
//
// For a View that no Fleet made it is nil.
func (v *View) Changed() <-chan struct{} { return v.changed }

// Report returns node's report.
func (v *View) Report(node string) (Seen, bool) {
	i, ok := slices.BinarySearchFunc(v.Reports, node, func(s Seen, node string) int {
		return strings.Compare(s.Node, node)
	})
	if !ok {
		return Seen{}, false
	}
	return v.Reports[i], true
}

// Fresh reports whether s, a report of this View, counts at now: whether it
// changed no longer than ttl ago. Time without the store does not count, for
// nobody's report can change in it: what was fresh when the store was lost stays
// so until it is back, and then for another ttl, however often that happens.
func (v *View) Fresh(s Seen, now time.Time, ttl time.Duration) bool {
	since := s.At
	for _, o := range v.outages {
		since = o.bridge(since, ttl)
	}
	if !v.Connected {
		return v.LostSince.Sub(since) <= ttl
	}
	return now.Sub(outage{v.LostSince, v.ConnectedSince}.bridge(since, ttl)) <= ttl
}

// outage is a time without the store that is over.
type outage struct{ lost, back time.Time }

// bridge returns since when a report counts that has counted since then: if it
// was fresh when the store was lost, since the store is back.
func (o outage) bridge(since time.Time, ttl time.Duration) time.Time {
	if since.Before(o.back) && o.lost.Sub(since) <= ttl {
		return o.back
	}
	return since
}

// Drained returns the drain that takes a node of this name, PoP and region out of
// service at now, the narrowest if there are several. There is none while an
// override has the node announced, or de-preferred, all the same.
func (v *View) Drained(node, pop, region string, now time.Time) (Drain, bool) {
	if o, _ := v.override(scopesOf(node, pop, region), now); o != nil && o.Action != ActionWithdraw {
		return Drain{}, false
	}
	return v.drain(node, pop, region, now)
}

// drain is Drained, whatever overrides say.
func (v *View) drain(node, pop, region string, now time.Time) (Drain, bool) {
	for _, at := range [...]Drain{{Scope: ScopeNode, Name: node}, {Scope: ScopePop, Name: pop}, {Scope: ScopeRegion, Name: region}} {
		i, ok := slices.BinarySearchFunc(v.Drains, at, compareDrains)
		if ok && v.Drains[i].Active(now) {
			return v.Drains[i], true
		}
	}
	return Drain{}, false
}

func compareDrains(a, b Drain) int {
	return cmp.Or(strings.Compare(a.Scope, b.Scope), strings.Compare(a.Name, b.Name))
}
