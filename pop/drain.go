package pop

import (
	"time"

	"anyedge/configs"
)

// DrainStage is how far a node has been taken out of service.
type DrainStage string

// The stages, in order. Each is entered only when what the one before asked
// for has happened.
const (
	DrainNone      DrainStage = "none"
	DrainDeprefer  DrainStage = "deprefer" // announced, made unattractive (RFC 8326)
	DrainWithdraw  DrainStage = "withdraw" // asking for the route to be withdrawn, then waiting
	DrainClose     DrainStage = "close"    // clients are asked to go
	DrainCompleted DrainStage = "drained"
)

// DrainStages lists every stage.
func DrainStages() []DrainStage {
	return []DrainStage{DrainNone, DrainDeprefer, DrainWithdraw, DrainClose, DrainCompleted}
}

// drainFacts is what the stages wait for.
type drainFacts struct {
	requested   bool
	withdrawn   time.Time // since when the route has been withdrawn; zero while it is not
	connections int64     // client connections of the worker
}

// drain is the pure state machine of a drain: announce less, withdraw, close,
// in that order and at the configured pace.
type drain struct {
	stage DrainStage
	since time.Time
}

// step advances the drain to now. It takes one stage at a time past the
// withdrawal, so that the worker is asked before its connections are counted.
func (d *drain) step(now time.Time, pace configs.Drain, f drainFacts) {
	if d.stage == "" {
		d.enter(now, DrainNone)
	}
	if !f.requested {
		if d.stage != DrainNone {
			d.enter(now, DrainNone)
		}
		return
	}
	for {
		var next DrainStage
		var due time.Time
		switch d.stage {
		case DrainNone:
			next, due = DrainDeprefer, now
		case DrainDeprefer:
			next, due = DrainWithdraw, d.since.Add(pace.Deprefer.Std())
		case DrainWithdraw:
			if f.withdrawn.IsZero() {
				return // the guard has not agreed yet
			}
			next, due = DrainClose, f.withdrawn.Add(pace.Withdraw.Std())
		case DrainClose:
			next, due = DrainCompleted, d.since.Add(pace.Close.Std())
			if f.connections == 0 {
				due = now
			}
		case DrainCompleted:
			return
		}
		if due.After(now) {
			return
		}
		d.enter(now, next)
		if next == DrainClose {
			return
		}
	}
}

func (d *drain) enter(now time.Time, s DrainStage) { d.stage, d.since = s, now }

// closing reports whether clients are being asked to go.
func (d *drain) closing() bool { return d.stage == DrainClose || d.stage == DrainCompleted }
