package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"anyedge/test/lab/edge"
	"anyedge/test/lab/topology"
	"anyedge/test/lab/vrrp"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at0 is so many milliseconds after the event; negative: never.
func at0(ms int) time.Time {
	if ms < 0 {
		return time.Time{}
	}
	return start.Add(time.Duration(ms) * time.Millisecond)
}

// ran is a run with a verdict, an UPDATE and a client that moved.
func ran(verdict, update, moved int) outcome {
	return outcome{Failover: edge.Failover{At: start, Verdict: at0(verdict), Update: at0(update), Gone: at0(update), Moved: at0(moved)}}
}

func TestBars(t *testing.T) {
	failed := ran(-1, -1, 100)
	failed.Kept = edge.Results{{Err: errors.New("reset")}}
	for name, c := range map[string]struct {
		bar  bar
		all  []outcome
		want bool
	}{
		"update in time":             {updateSoon, []outcome{ran(100, 104, 0), ran(100, 105, 0), ran(100, 900, 0)}, true},
		"update late":                {updateSoon, []outcome{ran(100, 104, 0), ran(100, 106, 0), ran(100, 900, 0)}, false},
		"no update at all":           {updateSoon, []outcome{ran(-1, -1, 0)}, false},
		"moved in time":              {movedWithin(time.Second), []outcome{ran(-1, -1, 10), ran(-1, -1, 1000)}, true},
		"moved late once":            {movedWithin(time.Second), []outcome{ran(-1, -1, 10), ran(-1, -1, 1001)}, false},
		"not moved once":             {movedWithin(time.Second), []outcome{ran(-1, -1, 10), ran(-1, -1, -1)}, false},
		"none failed":                {noneFailed, []outcome{ran(-1, -1, 10)}, true},
		"one over a kept one failed": {noneFailed, []outcome{ran(-1, -1, 10), failed}, false},
	} {
		if got := c.bar.met(c.all); got != c.want {
			t.Errorf("%s: met %v, want %v", name, got, c.want)
		}
	}
}

func TestMedianAndWorst(t *testing.T) {
	moved := between(at, elsewhere)
	for want, all := range map[string][]outcome{
		"–":           {ran(-1, -1, -1)},
		"7.0 / 7.0":   {ran(-1, -1, 7), ran(-1, -1, -1)},
		"15.0 / 20.0": {ran(-1, -1, 20), ran(-1, -1, 10)},
		"20.0 / 1500": {ran(-1, -1, 20), ran(-1, -1, 1500), ran(-1, -1, 10)},
	} {
		if got := spread(values(all, moved)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What must hold of a run is looked at for every event.
func TestHolds(t *testing.T) {
	stayed := edge.Failover{At: start}
	away := edge.Failover{At: start, Gone: at0(10), Moved: at0(20), Served: at0(20)}
	told := away
	told.Verdict, told.Update = at0(1), at0(2)
	back := away
	back.Back, back.Returned = at0(30), at0(40)
	cut := away
	cut.Turned = []time.Time{at0(10)}
	cut.Results = edge.Results{{Start: at0(900), Opened: at0(900), BrokenAt: at0(910), Broken: errors.New("reset")}}
	turned := cut
	turned.Results = edge.Results{{Start: at0(900), Opened: at0(5), BrokenAt: at0(910), Broken: errors.New("reset")}}
	said := stayed
	said.Update = at0(5)
	for name, c := range map[string]struct {
		holds func(edge.Failover) error
		f     edge.Failover
		want  bool
	}{
		"moved":                      {moved, away, true},
		"not moved":                  {moved, stayed, false},
		"withdrawn":                  {withdrawn, told, true},
		"withdrawn without a word":   {withdrawn, away, false},
		"drained":                    {drained, turned, true},
		"cut off while drained":      {drained, cut, false},
		"untouched":                  {untouched, stayed, true},
		"an UPDATE without a reason": {untouched, said, false},
		"moved without a reason":     {untouched, away, false},
		"returned":                   {returned, back, true},
		"not returned":               {returned, away, false},
	} {
		if err := c.holds(c.f); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, e := range events {
		if e.holds == nil || e.play == nil {
			t.Errorf("%s: nothing to play, or to hold", e.name)
		}
	}
}

func TestTable(t *testing.T) {
	wrong := ran(-1, -1, 2000)
	wrong.wrong = errors.New("the route stayed")
	chosen, withVRRP, err := choose("kill-agent,vrrp")
	if err != nil || len(chosen) != 1 || !withVRRP {
		t.Fatalf("%v, %v, %v", chosen, withVRRP, err)
	}
	results := map[key][]outcome{
		{"kill-agent", topology.FRR}:  {ran(-1, -1, 100), ran(-1, -1, 300)},
		{"kill-agent", topology.BIRD}: {wrong},
	}
	got := render(chosen, results)
	for _, want := range []string{"| agent SIGKILL | frr ", "200 / 300", "≤ 1s worst: met", "| bird ", "WRONG: the route stayed; served elsewhere ≤ 1s worst: missed"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if err := judge(chosen, results); err == nil || strings.Contains(err.Error(), "behind frr") || strings.Count(err.Error(), "behind bird") != 2 {
		t.Errorf("judged %v", err)
	}
	rows := []vrrp.Row{
		{First: "a", Event: vrrp.Kill, Runs: []vrrp.Takeover{{Gap: time.Second}}},
		{First: "b", Event: vrrp.Kill, Runs: []vrrp.Takeover{{Gap: time.Second + 1}}},
	}
	if err := judgeTakeovers(rows); err == nil || strings.Contains(err.Error(), "of a,") {
		t.Errorf("judged %v", err)
	}
	if table := renderTakeovers(rows); strings.Count(table, ": met") != 1 || strings.Count(table, ": missed") != 1 {
		t.Errorf("the table is\n%s", table)
	}
	if _, _, err := choose("drain,earthquake"); err == nil {
		t.Error("an event that is none was chosen")
	}
}
