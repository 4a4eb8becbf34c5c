package health

import (
	"cmp"
	"slices"
	"time"
)

// Config is how a [Judge] judges. Zero fields mean the documented defaults.
type Config struct {
	// Rise is how many passes in a row make a check healthy. Default 3.
	Rise int
	// Fall is how many failures in a row make a check unhealthy. Default 2.
	Fall int
	// Stale is the silence after which a check's results no longer count: it
	// is unknown, and has to rise or fall anew. Default 10s; negative means
	// never.
	Stale time.Duration
	// HoldDown is the least time from turning unhealthy to anything else. It
	// doubles with every flap that is remembered. Default 5s; negative means
	// none.
	HoldDown time.Duration
	// HoldDownMax bounds the doubling. Default 5m.
	HoldDownMax time.Duration
	// FlapMemory is how long without a flap forgets one flap. Default 10m;
	// negative means that none is forgotten.
	FlapMemory time.Duration
}

func (c Config) withDefaults() Config {
	c.Rise = cmp.Or(c.Rise, 3)
	c.Fall = cmp.Or(c.Fall, 2)
	c.Stale = cmp.Or(c.Stale, 10*time.Second)
	c.HoldDown = cmp.Or(c.HoldDown, 5*time.Second)
	c.HoldDownMax = cmp.Or(c.HoldDownMax, 5*time.Minute)
	c.FlapMemory = cmp.Or(c.FlapMemory, 10*time.Minute)
	return c
}

// Judge joins checks into one [Verdict].
//
// The evidence is unhealthy if any check is; else unknown if any check is, or
// if there is none; else healthy. The state follows the evidence, with one
// exception: evidence that turns unhealthy holds the state at [Unhealthy] for
// the hold-down, whatever it says meanwhile.
//
// A flap is evidence that turns unhealthy when it was healthy before. It counts
// also while the state is held, and starts the hold-down anew. Unhealthy
// evidence that goes silent and comes back unhealthy is no flap. With n flaps
// remembered the hold-down is HoldDown·2ⁿ⁻¹, at most HoldDownMax; each
// FlapMemory since the latest flap forgets one of them.
//
// Time never runs backwards for a Judge: an earlier time than the latest it
// was given counts as that one.
type Judge struct {
	cfg    Config
	checks []*check // in the order given

	at    time.Time // the latest time given
	state State     // as of at
	since time.Time // since when state

	evidence State         // the latest evidence that was not Unknown
	flapped  time.Time     // when the evidence last turned unhealthy; zero if never
	flaps    int           // remembered as of flapped
	hold     time.Duration // the hold-down from flapped on
	cause    string        // why the evidence last was unhealthy
}

// NewJudge returns a Judge over the named checks; see [Judge.SetChecks].
func NewJudge(cfg Config, checks ...string) *Judge {
	j := &Judge{cfg: cfg.withDefaults()}
	j.SetChecks(time.Time{}, checks...)
	return j
}

// SetChecks replaces the set of checks from now on. Checks that stay keep their
// state, new ones start unknown, and a name given twice counts once. With no
// checks at all the evidence is unknown.
func (j *Judge) SetChecks(now time.Time, names ...string) {
	now = j.advance(now)
	old := j.checks
	j.checks = make([]*check, 0, len(names))
	for _, name := range names {
		if find(j.checks, name) != nil {
			continue
		}
		c := find(old, name)
		if c == nil {
			c = &check{name: name, counter: Counter{Rise: j.cfg.Rise, Fall: j.cfg.Fall}}
		}
		j.checks = append(j.checks, c)
	}
	j.weigh(now)
}

// Observe records one result of a check. The detail says why a check failed,
// for humans. Results of checks that are not in the set are ignored: a probe
// may end after its subject was removed.
func (j *Judge) Observe(now time.Time, name string, ok bool, detail string) {
	now = j.advance(now)
	c := find(j.checks, name)
	if c == nil {
		return
	}
	c.observe(now, j.cfg.Stale, ok, detail)
	j.weigh(now)
}

// weigh takes in new evidence at now, which j has advanced to.
func (j *Judge) weigh(now time.Time) {
	evidence := j.weighed(now)
	if evidence == Unhealthy {
		if j.evidence != Unhealthy {
			j.flap(now)
		}
		j.cause = j.reasons(now, Unhealthy)
	}
	if evidence != Unknown {
		j.evidence = evidence
	}
	j.settle(now)
}

// flap starts a hold-down.
func (j *Judge) flap(now time.Time) {
	if j.cfg.FlapMemory > 0 {
		j.flaps -= int(min(now.Sub(j.flapped)/j.cfg.FlapMemory, time.Duration(j.flaps)))
	}
	j.flapped = now
	j.hold = 0
	if j.cfg.HoldDown < 0 {
		return
	}
	// Flaps that no longer lengthen the hold-down are not counted, so that
	// forgetting starts from the bound.
	limit := j.flaps + 1
	j.flaps, j.hold = 1, min(j.cfg.HoldDown, j.cfg.HoldDownMax)
	for j.flaps < limit && j.hold < j.cfg.HoldDownMax {
		j.flaps++
		j.hold += min(j.hold, j.cfg.HoldDownMax-j.hold)
	}
}

// advance lets time pass up to now, through everything that silence and the
// end of a hold-down change on the way. It returns the time that counts.
func (j *Judge) advance(now time.Time) time.Time {
	for {
		next := j.next(j.at)
		if next.IsZero() || next.After(now) {
			break
		}
		j.at = next
		j.settle(next)
	}
	if now.After(j.at) {
		j.at = now
	}
	return j.at
}

// settle brings the state up to date with the evidence at now.
func (j *Judge) settle(now time.Time) {
	state := j.weighed(now)
	if now.Before(j.holdUntil()) {
		state = Unhealthy
	}
	if state != j.state {
		j.state, j.since = state, now
	}
}

// weighed returns the evidence at now.
func (j *Judge) weighed(now time.Time) State {
	evidence := Healthy
	if len(j.checks) == 0 {
		evidence = Unknown
	}
	for _, c := range j.checks {
		switch c.state(now, j.cfg.Stale) {
		case Unhealthy:
			return Unhealthy
		case Unknown:
			evidence = Unknown
		}
	}
	return evidence
}

// holdUntil is the end of the latest hold-down, zero if there was none.
func (j *Judge) holdUntil() time.Time {
	if j.flapped.IsZero() || j.hold == 0 {
		return time.Time{}
	}
	return j.flapped.Add(j.hold)
}

// next returns the earliest time after now at which anything changes without
// new evidence, zero if nothing does.
func (j *Judge) next(now time.Time) time.Time {
	var next time.Time
	consider := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	consider(j.holdUntil())
	for _, c := range j.checks {
		consider(c.staleAt(j.cfg.Stale))
	}
	return next
}

func find(checks []*check, name string) *check {
	i := slices.IndexFunc(checks, func(c *check) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return checks[i]
}
