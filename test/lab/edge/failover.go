package edge

import (
	"fmt"
	"slices"
	"time"

	"anyedge/test/lab/topology"
)

// Failover is one event, and when who noticed. A time is zero when that did not
// happen, or not while the drill looked on.
type Failover struct {
	// At is when the event happened.
	At time.Time
	// Verdict is when the node's own judge found it unhealthy.
	Verdict time.Time
	// Decided is when the node's agent wanted the route less attractive or
	// gone, and Why is its reason.
	Decided time.Time
	Why     string
	// Update is when the first UPDATE that says so was on the node's cable: a
	// withdrawal, or an announcement that replaces the one before.
	Update time.Time
	// Gone is when the kernel of the PoP's router no longer had the node as a
	// next hop of the service prefix, and Back is when it had it again.
	Gone, Back time.Time
	// Turned is when the kernel of the core router that the client is attached
	// to changed its route to the service prefix, each time.
	Turned []time.Time
	// LastPacket is the last that a client sent to the old PoP after the event.
	LastPacket time.Time
	// Served is the end of the first request that another PoP served.
	Served time.Time
	// Moved is the first end of a request from which on every new one was
	// served by another PoP; Returned the same for the old PoP, after another
	// one had served or a request had failed. One that lost its first segment
	// takes longer than those that began after it, and does not count against
	// them: see Slowest.
	Moved, Returned time.Time
	// Results are the requests from the event on that opened connections, Kept
	// those over connections that the client keeps.
	Results, Kept Results
}

// String is the times in milliseconds after the event.
func (f Failover) String() string {
	since := func(at time.Time) string {
		if at.IsZero() {
			return "-"
		}
		return fmt.Sprintf("%.1f", float64(at.Sub(f.At).Microseconds())/1000)
	}
	text := fmt.Sprintf("verdict %s, decided %s, update %s, gone %s, last packet %s, served elsewhere %s, moved %s, back %s, returned %s, last failing began %.1f ms; %s",
		since(f.Verdict), since(f.Decided), since(f.Update), since(f.Gone), since(f.LastPacket), since(f.Served), since(f.Moved),
		since(f.Back), since(f.Returned), float64(f.Results.Recovery(f.At).Microseconds())/1000, f.Results)
	if len(f.Kept) > 0 {
		text += "; over kept connections " + f.Kept.String()
	}
	return text
}

// turnTime is how far from the moment at which a core's change of route was
// noted packets may have begun to take the new one: other routers change theirs
// a little earlier or later, and netlink has no time stamps of the kernel's.
const turnTime = 200 * time.Millisecond

// CutOff returns those requests that were repeated although no change of routes
// was to blame: none happened while their first connection was open.
func (f Failover) CutOff() Results {
	var cut Results
	for _, r := range slices.Concat(f.Results, f.Kept).Repeated() {
		turned := func(at time.Time) bool {
			return r.Opened.Before(at.Add(turnTime)) && r.BrokenAt.After(at.Add(-turnTime))
		}
		if !slices.ContainsFunc(f.Turned, turned) {
			cut = append(cut, r)
		}
	}
	return cut
}

// read fills in what the results say; the old PoP is the one that the event
// happens to.
func (f *Failover) read(results, kept Results, old string) {
	f.Results, f.Kept = results.After(f.At), kept.After(f.At)
	elsewhere := func(a Answer) bool { return a.Pop != old }
	f.Served, _ = f.Results.FirstServed(elsewhere)
	f.Moved = f.Results.from(elsewhere)
	if !f.Served.IsZero() || len(f.Results.Failed()) > 0 {
		f.Returned = f.Results.from(func(a Answer) bool { return a.Pop == old })
	}
}

// from returns the earliest end of those requests from which on all that began
// were served by whom match accepts; zero if the last that began was not.
func (rs Results) from(match func(Answer) bool) (end time.Time) {
	begun := slices.SortedStableFunc(slices.Values(rs), func(a, b Result) int { return a.Start.Compare(b.Start) })
	for _, r := range slices.Backward(begun) {
		if r.Err != nil || !match(r.Answer) {
			break
		}
		if end.IsZero() || r.End.Before(end) {
			end = r.End
		}
	}
	return end
}

// Slowest returns how long the slowest request took that was served.
func (rs Results) Slowest() time.Duration {
	var most time.Duration
	for _, r := range rs {
		if r.Err == nil {
			most = max(most, r.End.Sub(r.Start))
		}
	}
	return most
}

// Standing reports whether at, a time of this Failover such as Moved, has come
// and is at least so long ago.
func (f Failover) Standing(at time.Time, settle time.Duration) bool {
	return !at.IsZero() && time.Since(at) >= settle
}

// core is the core router that a client is attached to.
func (l *Lab) core(client string) (*topology.Machine, error) {
	for _, c := range l.Plan.Clients {
		if c.Name == client {
			return l.Plan.Machine(c.Core), nil
		}
	}
	return nil, fmt.Errorf("%s is no client", client)
}
