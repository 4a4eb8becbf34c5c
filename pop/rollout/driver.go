package rollout

import (
	"cmp"
	"fmt"
	"time"
)

// Health is a node's own verdict.
type Health int

// The verdicts.
const (
	Unknown Health = iota
	Healthy
	Unhealthy
)

// Report is what the fleet knows of one node.
type Report struct {
	Node string
	// Fresh is true while the report counts. A node without a fresh report is
	// one that nobody hears of.
	Fresh bool
	// At is when the observer saw the report change, by its own clock.
	At        time.Time
	Config    string // sum of the config in force
	Health    Health
	Announced bool // in full: neither de-preferred nor withdrawn
	Draining  bool // an operator takes it, or keeps it, out of service
	// Taken is the generation that the node took and has not settled; 0 if none.
	Taken uint64
	// Failed is what has gone wrong at the node with the generation Tried,
	// even if all is well again by now.
	Tried  uint64
	Failed string
}

// Driver finds out when a rollout moves on. The zero Driver is ready.
type Driver struct {
	at    position
	since time.Time // when the wait that Take bounds began
	good  time.Time // since when the open step has been well; zero while it is not
	// met are the nodes heard of at this position. What is read of reports may
	// be older than what is read of the rollout, so a node that was never heard
	// of here has not died here.
	met map[string]bool
}

// position is a stage of a rollout at which something is measured.
type position struct {
	generation uint64
	turn       int
	open       bool
}

// Lost says that the store is out of reach: what went on meanwhile is not known,
// so measuring begins anew.
func (d *Driver) Lost() { *d = Driver{} }

// Step returns what becomes of r, given every report that the fleet has, and
// whether that is a change. The caller writes it in place of r, and only of r.
func (d *Driver) Step(now time.Time, r Rollout, fleet []Report) (Rollout, bool) {
	if r.Phase.Final() {
		return r, false
	}
	if at := (position{r.Generation, r.Turn, r.Open}); d.at != at {
		*d = Driver{at: at, since: now, met: make(map[string]bool)}
	}
	reports := byNode(fleet)
	switch {
	case r.Phase == Returning:
		return finish(r, reports)
	case !r.Open:
		return open(r, reports)
	}
	return d.soak(now, r, reports)
}

func byNode(fleet []Report) map[string]Report {
	reports := make(map[string]Report, len(fleet))
	for _, rep := range fleet {
		reports[rep.Node] = rep
	}
	return reports
}

// back turns the rollout.
func back(r Rollout, format string, args ...any) (Rollout, bool) {
	r.Phase, r.Reason = Returning, shorten(fmt.Sprintf(format, args...))
	return r, true
}

// open lets the next step begin once all is well.
func open(r Rollout, reports map[string]Report) (Rollout, bool) {
	if r.Phase != Running || r.waits(reports) != "" {
		return r, false
	}
	r.Open = true
	return r, true
}

// Waits says what keeps the next PoP from its turn; "" if nothing does, or if
// that is not what the rollout waits for.
func (r Rollout) Waits(fleet []Report) string {
	if r.Phase != Running || r.Open {
		return ""
	}
	return r.waits(byNode(fleet))
}

// waits looks at the PoPs that have the generation, and at the one to come: who
// is not well before cannot be seen to stay well.
func (r Rollout) waits(reports map[string]Report) string {
	for i, s := range r.Steps[:r.Turn+1] {
		for _, n := range s.Nodes {
			rep, next := reports[n.Name], i == r.Turn
			switch {
			case !rep.Fresh:
				return n.Name + " is not heard of"
			case rep.Health != Healthy:
				return n.Name + " is not healthy"
			case next && rep.Config != n.Old:
				return n.Name + " has another config than when the rollout began"
			case next && rep.Draining:
				return n.Name + " is being drained"
			case next && !rep.Announced:
				return n.Name + " is not announced"
			case !next && rep.Config != n.New && n.Old == rep.Config:
				return n.Name + " has yet to take its document again"
			}
		}
	}
	return ""
}

// soak watches the step that is open.
func (d *Driver) soak(now time.Time, r Rollout, reports map[string]Report) (Rollout, bool) {
	hold, drained, oldest := "", false, now
	for _, n := range r.Steps[r.Turn].Nodes {
		rep := reports[n.Name]
		if !rep.Fresh && d.met[n.Name] {
			return back(r, "%s: died while the config soaked", n.Name)
		}
		d.met[n.Name] = rep.Fresh
		if why := trouble(r, n, rep); why != "" {
			return back(r, "%s: %s", n.Name, why)
		}
		if rep.At.Before(oldest) {
			oldest = rep.At
		}
		switch {
		case !rep.Fresh:
			hold = cmp.Or(hold, n.Name+" is not heard of")
		case rep.Config != n.Old && rep.Config != n.New:
			hold = cmp.Or(hold, n.Name+" has another config than when the rollout began")
		case rep.Draining:
			hold, drained = n.Name+" is being drained", true
		case !n.has(r.Generation, rep):
			hold = cmp.Or(hold, n.Name+" has not taken its document")
		case rep.Health != Healthy:
			hold = cmp.Or(hold, n.Name+" does not know its health")
		}
	}
	if hold != "" {
		if !d.good.IsZero() || drained || r.Phase == Paused {
			d.since, d.good = now, time.Time{}
		}
		if now.Sub(d.since) > time.Duration(r.Take) {
			return back(r, "%s, and %v have passed", hold, time.Duration(r.Take))
		}
		return r, false
	}
	if d.good.IsZero() {
		d.good = now
	}
	// A report counts for a while after its node has died. What ends the soak is
	// word from every node that is younger than the soak is long.
	if r.Phase != Running || oldest.Sub(d.good) < time.Duration(r.Soak) {
		return r, false
	}
	r.Turn, r.Open = r.Turn+1, false
	if r.Turn == len(r.Steps) {
		r.Phase, r.Reason = Done, ""
	}
	return r, true
}

// has reports whether a node runs its new document because of this generation.
func (n Node) has(generation uint64, rep Report) bool {
	return rep.Config == n.New && (n.New == n.Old || rep.Taken == generation)
}

// trouble is why a report on the open step turns the rollout back.
func trouble(r Rollout, n Node, rep Report) string {
	switch {
	case rep.Failed != "" && rep.Tried == r.Generation:
		return rep.Failed
	case !n.has(r.Generation, rep):
		return "" // whatever ails it, this generation does not
	case rep.Health == Unhealthy:
		return "is unhealthy on the new config"
	case !rep.Announced && !rep.Draining:
		return "is not announced any more on the new config"
	}
	return ""
}

// finish ends a return once no node that is heard of has the generation any
// more. One that is away goes back when it comes back.
func finish(r Rollout, reports map[string]Report) (Rollout, bool) {
	for _, s := range r.Steps {
		for _, n := range s.Nodes {
			if rep := reports[n.Name]; rep.Fresh && rep.Taken == r.Generation {
				return r, false
			}
		}
	}
	r.Phase = Failed
	if r.Aborted {
		r.Phase = Aborted
	}
	return r, true
}
