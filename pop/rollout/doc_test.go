package rollout

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// good is a rollout of two PoPs with three nodes.
func good() Rollout {
	node := func(name string) Node { return Node{name, Sum([]byte("old " + name)), Sum([]byte("new " + name))} }
	return Rollout{
		Generation: 3, Phase: Running, By: "kim", Note: "more room", At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		Soak: Span(2 * time.Minute), Take: Span(time.Minute),
		Steps: []Step{{"fra", []Node{node("fra-1"), node("fra-2")}}, {"iad", []Node{node("iad-1")}}},
		Past:  []Outcome{{2, Failed}, {1, Done}},
	}
}

func TestRolloutRoundTrip(t *testing.T) {
	data, err := good().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(data); err != nil || !reflect.DeepEqual(got, good()) {
		t.Errorf("%+v, %v", got, err)
	}
	if !strings.Contains(string(data), `"soak":"2m0s"`) {
		t.Errorf("%s", data)
	}
	if _, err := Decode([]byte(strings.Replace(string(data), "{", `{"brand_new":1,`, 1))); err != nil {
		t.Error(err)
	}
}

func TestValidation(t *testing.T) {
	for want, change := range map[string]func(*Rollout){
		"":                        func(*Rollout) {},
		"generation:":             func(r *Rollout) { r.Generation = 0 },
		"phase:":                  func(r *Rollout) { r.Phase = "on" },
		"note:":                   func(r *Rollout) { r.Note = strings.Repeat("x", maxText+1) },
		"soak:":                   func(r *Rollout) { r.Soak = 0 },
		"take:":                   func(r *Rollout) { r.Take = Span(MaxSoak + 1) },
		"steps: none":             func(r *Rollout) { r.Steps = nil },
		"turn: 2":                 func(r *Rollout) { r.Turn = 2 },
		"turn: 0":                 func(r *Rollout) { r.Phase = Done },
		"steps[1].pop: fra again": func(r *Rollout) { r.Steps[1].Pop = "fra" },
		"steps[1].nodes: none":    func(r *Rollout) { r.Steps[1].Nodes = nil },
		"steps[1].pop: \"a/b\"":   func(r *Rollout) { r.Steps[1].Pop = "a/b" },
		"name: fra-2 again":       func(r *Rollout) { r.Steps[1].Nodes[0].Name = "fra-2" },
		"nodes[0].new: not a sum": func(r *Rollout) { r.Steps[0].Nodes[0].New = "x" },
		"nodes[0].old: not a sum": func(r *Rollout) { r.Steps[0].Nodes[0].Old = "" },
		"past: more than 16":      func(r *Rollout) { r.Past = make([]Outcome, 17) },
		"nodes: 259, more than 256": func(r *Rollout) {
			for i := range 256 {
				r.Steps[0].Nodes = append(r.Steps[0].Nodes, Node{fmt.Sprintf("n%d", i), Sum(nil), Sum(nil)})
			}
		},
	} {
		r := good()
		change(&r)
		if err := r.Validate(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestOperatorsWishes(t *testing.T) {
	pause := func(r Rollout) (Rollout, error) { return Pause(r, "kim") }
	abort := func(r Rollout) (Rollout, error) { return Abort(r, "kim") }
	for _, c := range []struct {
		from, to Phase // to is "" for a wish that is refused
		wish     func(Rollout) (Rollout, error)
	}{
		{Running, Paused, pause}, {Paused, "", pause}, {Returning, "", pause}, {Done, "", pause}, {Failed, "", pause},
		{Running, "", Resume}, {Paused, Running, Resume}, {Returning, "", Resume}, {Aborted, "", Resume},
		{Running, Returning, abort}, {Paused, Returning, abort}, {Returning, "", abort}, {Done, "", abort},
	} {
		r := good()
		r.Phase = c.from
		got, err := c.wish(r)
		if c.to == "" {
			if !errors.Is(err, ErrState) {
				t.Errorf("%s: became %s, %v", c.from, got.Phase, err)
			}
			continue
		}
		if err != nil || got.Phase != c.to || got.Aborted != (c.to == Returning) {
			t.Errorf("%s: became %+v, %v, want %s", c.from, got, err, c.to)
		}
	}
}

func TestStartFollowsARolloutThatHasEnded(t *testing.T) {
	first, err := Start(nil, good())
	if err != nil || first.Generation != 1 || len(first.Past) != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	if _, err := Start(&first, good()); !errors.Is(err, ErrState) {
		t.Errorf("started beside one that runs: %v", err)
	}
	prev := first
	for i := range maxPast + 3 {
		prev.Phase = Failed
		if prev, err = Start(&prev, good()); err != nil || prev.Generation != uint64(i+2) || prev.Phase != Running {
			t.Fatalf("%+v, %v", prev, err)
		}
	}
	if len(prev.Past) != maxPast || prev.Past[0] != (Outcome{prev.Generation - 1, Failed}) {
		t.Errorf("past %v", prev.Past)
	}
}

// A node that was away meets a rollout that is not the one it knew.
func TestWhatBecomesOfAnEarlierGeneration(t *testing.T) {
	for taken, want := range map[uint64]Action{1: Settle, 2: Return, 9: Stay, 0: Stay} {
		l := Local{Config: good().Steps[1].Nodes[0].Old, Taken: taken}
		if got := NewFollower("iad-1").Next(good(), l); got != want {
			t.Errorf("generation %d: %v, want %v", taken, got, want)
		}
	}
}

// A node that was replaced in the middle of a rollout comes back with the old
// config. It takes the new one if its PoP has soaked.
func TestNodeThatCameBackWithoutItsDocument(t *testing.T) {
	r := good()
	r.Turn = 1
	for name, want := range map[string]Action{"fra-1": Take, "iad-1": Stay, "sin-1": Stay} {
		_, n := r.find(name)
		if got := NewFollower(name).Next(r, Local{Config: n.Old}); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	r.Open = true
	_, n := r.find("iad-1")
	f := NewFollower("iad-1")
	if got := f.Next(r, Local{Config: n.Old}); got != Take {
		t.Errorf("its turn: %v", got)
	}
	f.Refused(r.Generation, "not valid")
	if got := f.Next(r, Local{Config: n.Old}); got != Stay {
		t.Errorf("what it refused: %v", got)
	}
	if got := NewFollower("iad-1").Next(r, Local{Config: Sum([]byte("by hand"))}); got != Stay {
		t.Errorf("with a config of the operator's own: %v", got)
	}
}
