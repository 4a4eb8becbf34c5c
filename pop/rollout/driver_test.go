package rollout

import (
	"strings"
	"testing"
	"time"
)

// fleetOf is a fleet in which every node is well; those of the PoPs before turn
// have the new documents.
func fleetOf(r Rollout) map[string]*Report {
	fleet := make(map[string]*Report)
	for i, s := range r.Steps {
		for _, n := range s.Nodes {
			rep := &Report{Node: n.Name, Fresh: true, Config: n.Old, Health: Healthy, Announced: true}
			if i < r.Turn {
				rep.Config, rep.Taken = n.New, r.Generation
			}
			fleet[n.Name] = rep
		}
	}
	return fleet
}

func list(fleet map[string]*Report) (reports []Report) {
	for _, r := range fleet {
		reports = append(reports, *r)
	}
	return reports
}

func TestTurnBeginsOnlyWhenAllIsWell(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(map[string]*Report)
		waits  string
	}{
		"all is well":                 {func(map[string]*Report) {}, ""},
		"one of the PoP is sick":      {func(f map[string]*Report) { f["iad-1"].Health = Unhealthy }, "iad-1 is not healthy"},
		"one of the PoP is not known": {func(f map[string]*Report) { f["iad-1"].Health = Unknown }, "iad-1 is not healthy"},
		"one of the PoP is silent":    {func(f map[string]*Report) { f["iad-1"].Fresh = false }, "iad-1 is not heard of"},
		"one of the PoP is missing":   {func(f map[string]*Report) { delete(f, "iad-1") }, "iad-1 is not heard of"},
		"one of the PoP is drained":   {func(f map[string]*Report) { f["iad-1"].Draining = true }, "iad-1 is being drained"},
		"one of the PoP is out":       {func(f map[string]*Report) { f["iad-1"].Announced = false }, "iad-1 is not announced"},
		"one was changed by hand":     {func(f map[string]*Report) { f["iad-1"].Config = Sum(nil) }, "iad-1 has another config"},
		"one before has turned sick":  {func(f map[string]*Report) { f["fra-2"].Health = Unhealthy }, "fra-2 is not healthy"},
		"one before has died":         {func(f map[string]*Report) { f["fra-2"].Fresh = false }, "fra-2 is not heard of"},
		"one before is drained":       {func(f map[string]*Report) { f["fra-2"].Draining, f["fra-2"].Announced = true, false }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			r.Turn = 1
			fleet := fleetOf(r)
			tc.change(fleet)
			waits := r.Waits(list(fleet))
			if !strings.HasPrefix(waits, tc.waits) || (waits == "") != (tc.waits == "") {
				t.Errorf("waits for %q, want %q", waits, tc.waits)
			}
			next, changed := new(Driver).Step(time.Unix(1, 0), r, list(fleet))
			if open := tc.waits == ""; changed != open || next.Open != open {
				t.Errorf("changed %v, open %v", changed, next.Open)
			}
			r.Phase = Paused
			if _, changed := new(Driver).Step(time.Unix(1, 0), r, list(fleet)); changed {
				t.Error("opened while paused")
			}
		})
	}
}

// A turn is never begun by the change that ends the one before: the next PoP may
// be unwell.
func TestTurnEndsWithNobodyAtIt(t *testing.T) {
	r := good()
	r.Open = true
	fleet := fleetOf(r)
	for _, n := range r.Steps[0].Nodes {
		fleet[n.Name].Config, fleet[n.Name].Taken = n.New, r.Generation
	}
	var d Driver
	now := time.Unix(1, 0)
	if _, changed := d.Step(now, r, list(fleet)); changed {
		t.Error("soaked at once")
	}
	if _, changed := d.Step(now.Add(time.Duration(r.Soak)-1), r, list(fleet)); changed {
		t.Error("soaked too soon")
	}
	if _, changed := d.Step(now.Add(2*time.Duration(r.Soak)), r, list(fleet)); changed {
		t.Error("soaked although nobody has been heard of since")
	}
	for _, rep := range fleet {
		rep.At = now.Add(time.Duration(r.Soak))
	}
	next, changed := d.Step(now.Add(time.Duration(r.Soak)), r, list(fleet))
	if !changed || next.Turn != 1 || next.Open || next.Phase != Running {
		t.Errorf("became %+v", next)
	}
	for _, rep := range fleet {
		rep.At = now.Add(2 * time.Duration(r.Soak))
	}
	d.Lost()
	if _, changed := d.Step(now.Add(2*time.Duration(r.Soak)), r, list(fleet)); changed {
		t.Error("counted the time without the store")
	}
}
