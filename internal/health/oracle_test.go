package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// oracle says what a Judge must, slowly and from the whole history: it walks
// through every tick since the beginning and works out every check anew at
// each. Time is in ticks; one tick is one second.
type oracle struct {
	cfg    Config
	events []event
	clock  int // the latest tick given
}

// event is one call that told the Judge something.
type event struct {
	at    int
	set   []string // the new set of checks, if check is empty
	check string
	ok    bool
	text  string
}

func (o *oracle) add(e event) {
	o.clock = max(o.clock, e.at)
	e.at = o.clock
	o.events = append(o.events, e)
}

// result is one result of a check that was in the set then.
type result struct {
	at   int
	ok   bool
	text string
}

// checksAt returns the checks after the first n events, as of a tick.
func (o *oracle) checksAt(tick, n int) []CheckStatus {
	var names []string
	results := make(map[string][]result)
	for _, e := range o.events[:n] {
		if e.check != "" {
			if slices.Contains(names, e.check) {
				results[e.check] = append(results[e.check], result{e.at, e.ok, e.text})
			}
			continue
		}
		names = nil
		for _, name := range e.set {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		for name := range results {
			if !slices.Contains(names, name) {
				delete(results, name)
			}
		}
	}
	all := []CheckStatus{}
	for _, name := range names {
		all = append(all, o.status(name, results[name], tick))
	}
	return all
}

func (o *oracle) status(name string, results []result, tick int) CheckStatus {
	s := CheckStatus{Name: name}
	stale := int(o.cfg.Stale / time.Second)
	set := func(state State, when int) {
		if s.State != state {
			s.State, s.Since = state, at(float64(when))
		}
	}
	streak := 0 // the first result of the present streak
	for i, r := range results {
		if i > 0 && o.cfg.Stale >= 0 && r.at-results[i-1].at >= stale {
			set(Unknown, results[i-1].at+stale)
			streak = i
		}
		if results[streak].ok != r.ok {
			streak = i
		}
		switch length := i - streak + 1; {
		case r.ok && length >= o.cfg.Rise:
			set(Healthy, r.at)
		case !r.ok && length >= o.cfg.Fall:
			set(Unhealthy, r.at)
		}
		s.Observed = at(float64(r.at))
		if s.State != Unhealthy || !r.ok {
			s.Detail = r.text
		}
	}
	if n := len(results); n > 0 && o.cfg.Stale >= 0 && tick-results[n-1].at >= stale {
		set(Unknown, results[n-1].at+stale)
	}
	return s
}

// verdict returns the verdict as of a tick, without Reason and Next.
func (o *oracle) verdict(tick int) Verdict {
	tick = max(tick, o.clock)
	var v Verdict
	var seen, evidence State
	var flaps, flapped int
	hold := time.Duration(-1) // no hold-down yet
	moment := func(now, n int) {
		checks := o.checksAt(now, n)
		has := func(s State) bool {
			return slices.ContainsFunc(checks, func(c CheckStatus) bool { return c.State == s })
		}
		switch {
		case has(Unhealthy):
			seen = Unhealthy
		case has(Unknown) || len(checks) == 0:
			seen = Unknown
		default:
			seen = Healthy
		}
		if seen == Unhealthy && evidence != Unhealthy {
			for quiet := now - flapped; flaps > 0 && o.cfg.FlapMemory > 0 && quiet >= int(o.cfg.FlapMemory/time.Second); {
				quiet -= int(o.cfg.FlapMemory / time.Second)
				flaps--
			}
			flapped, flaps, hold = now, flaps+1, o.cfg.HoldDown
			for n := 1; n < flaps; n++ {
				if hold >= o.cfg.HoldDownMax {
					flaps = n // more make no difference
				}
				hold *= 2
			}
			hold = min(hold, o.cfg.HoldDownMax)
		}
		if seen != Unknown {
			evidence = seen
		}
		v.HoldUntil = time.Time{}
		if hold > 0 && now < flapped+int(hold/time.Second) {
			v.HoldUntil = at(float64(flapped)).Add(hold)
			seen = Unhealthy
		}
		if seen != v.State {
			v.State, v.Since = seen, at(float64(now))
		}
		v.Checks = checks
	}
	n := 0
	for now := 0; now <= tick; now++ {
		moment(now, n)
		for n < len(o.events) && o.events[n].at == now {
			n++
			moment(now, n)
		}
	}
	return v
}

// same compares what the oracle knows.
func same(a, b Verdict) bool {
	return a.State == b.State && a.Since.Equal(b.Since) && a.HoldUntil.Equal(b.HoldUntil) && slices.Equal(a.Checks, b.Checks)
}

// compare plays the calls that data describes to a Judge and to the oracle.
func compare(t *testing.T, data []byte) {
	take := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	seconds := func(from, span int) time.Duration { return time.Duration(from+take()%span) * time.Second }
	cfg := Config{
		Rise: 1 + take()%3, Fall: 1 + take()%3,
		Stale: seconds(2, 20), HoldDown: seconds(1, 6), HoldDownMax: seconds(4, 40), FlapMemory: seconds(5, 60),
	}
	switch take() % 8 {
	case 0:
		cfg.Stale = -1
	case 1:
		cfg.HoldDown = -1
	case 2:
		cfg.FlapMemory = -1
	}
	names := []string{"a", "b", "c"}
	j := NewJudge(cfg, "a", "b")
	o := &oracle{cfg: cfg, events: []event{{set: []string{"a", "b"}}}}

	now := 0
	for step := 0; len(data) > 1 && step < 40; step++ {
		op, arg := take(), take()
		if now += arg % 8; arg%16 == 8 {
			now -= 5 // a clock that is set back
		}
		now = max(now, 0)
		switch op % 8 {
		case 0:
			var set []string
			for i := range 3 {
				if op>>(3+i)&1 == 1 {
					set = append(set, names[(i+arg)%3])
				}
			}
			if op&0xc0 == 0xc0 && len(set) > 0 {
				set = append(set, set[0]) // a name given twice
			}
			j.SetChecks(at(float64(now)), set...)
			o.add(event{at: now, set: set})
		case 1:
			now += 13 // silence
		default:
			e := event{at: now, check: names[op>>3%3], ok: op%8 > 3, text: fmt.Sprint(step)}
			j.Observe(at(float64(e.at)), e.check, e.ok, e.text)
			o.add(e)
		}
		if op>>6 == 1 {
			continue // what nobody asks for must not matter
		}
		got, want := j.Verdict(at(float64(now))), o.verdict(now)
		o.clock = max(o.clock, now)
		if !same(got, want) {
			t.Fatalf("step %d, tick %d, %+v:\ngot  %+v\nwant %+v", step, now, cfg, got, want)
		}
		if wrong := excuse(got); wrong != "" {
			t.Fatalf("step %d: %s: %+v", step, wrong, got)
		}
	}

	// Until Next nothing changes; at Next a hold-down or a check's patience ends.
	v := j.Verdict(at(float64(o.clock)))
	until := o.clock + 100
	if !v.Next.IsZero() {
		until = int(v.Next.Sub(epoch) / time.Second)
	}
	if until <= o.clock {
		t.Fatalf("Next %v is not after now, tick %d", v.Next, o.clock)
	}
	for tick := o.clock; tick < until; tick++ {
		if want := o.verdict(tick); !same(v, want) {
			t.Fatalf("tick %d, before Next %v:\nhas  %+v\nwant %+v", tick, v.Next, v, want)
		}
	}
	ends := v.Next.IsZero() || v.Next.Equal(v.HoldUntil)
	for _, c := range v.Checks {
		ends = ends || v.Next.Equal(c.Observed.Add(cfg.Stale))
	}
	if !ends {
		t.Fatalf("nothing ends at Next %v: %+v", v.Next, v)
	}
}

// excuse checks what the oracle does not: that there is a reason, and that it
// names a check unless there is none to name.
func excuse(v Verdict) string {
	switch {
	case v.Reason == "":
		return "no reason"
	case v.State == Healthy && v.Reason != "every check passes":
		return "healthy with an odd reason"
	case v.State == Healthy && slices.ContainsFunc(v.Checks, func(c CheckStatus) bool { return c.State != Healthy }):
		return "healthy with a check that is not"
	case v.State != Healthy && v.Reason == "every check passes":
		return "not healthy without a reason"
	}
	return ""
}

// The Judge agrees with the oracle on random histories.
func TestJudgeAgainstOracle(t *testing.T) {
	histories := 120
	if testing.Short() {
		histories = 30
	}
	for seed := range histories {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		data := make([]byte, 8+r.IntN(80))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		compare(t, data)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// FuzzJudge looks for a history on which Judge and oracle disagree.
func FuzzJudge(f *testing.F) {
	f.Add([]byte{0, 0, 5, 2, 30, 20, 7, 0x04, 1, 0x0c, 1, 0x02, 3, 0x04, 1, 0x02, 1, 0x04, 9})
	f.Add([]byte{1, 2, 1, 5, 9, 3, 0, 0x38, 2, 0x01, 0, 0x14, 8, 0x00, 3, 0xf8, 24})
	f.Fuzz(compare)
}
