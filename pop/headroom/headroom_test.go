package headroom

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func conns(used, ceiling float64) Usage { return Usage{"connections", used, ceiling} }
func cpu(used, ceiling float64) Usage   { return Usage{"cpu", used, ceiling} }

func TestUtilizationAndLevel(t *testing.T) {
	for _, tt := range []struct {
		used, ceiling, want float64
		level               Level
	}{
		{0, 100, 0, OK},
		{69.9, 100, 0.699, OK},
		{70, 100, 0.7, Warn},
		{89.9, 100, 0.899, Warn},
		{90, 100, 0.9, Shed},
		{250, 100, 2.5, Shed},
		{-5, 100, 0, OK},
		{0, 0, 0, OK},
		{1, 0, 1, Shed},
		{1, -7, 1, Shed},
		{math.NaN(), 100, 0, OK},
	} {
		u := conns(tt.used, tt.ceiling)
		if got := u.Utilization(); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("utilization of %v/%v = %v, want %v", tt.used, tt.ceiling, got, tt.want)
		}
		if got := LevelOf(u); got != tt.level {
			t.Errorf("level of %v/%v = %v, want %v", tt.used, tt.ceiling, got, tt.level)
		}
	}
}

func TestFits(t *testing.T) {
	for _, tt := range []struct {
		name      string
		displaced []Usage
		remaining [][]Usage
		want      string // of the shortfall; empty if it fits
	}{
		{"nothing onto nothing", nil, nil, ""},
		{"idle onto nothing", []Usage{conns(0, 100)}, nil, ""},
		{"something onto nothing", []Usage{conns(1, 100)}, nil, "connections: 1 needed, 0 free below 90%"},
		{"exactly", []Usage{conns(50, 100)}, [][]Usage{{conns(40, 100)}}, ""},
		{"one too many", []Usage{conns(51, 100)}, [][]Usage{{conns(40, 100)}}, "connections: 51 needed, 50 free below 90%"},
		{"spread over two", []Usage{conns(70, 100)}, [][]Usage{{conns(60, 100)}, {conns(40, 100)}}, ""},
		{"one beyond the mark lends no debt", []Usage{conns(50, 100)}, [][]Usage{{conns(99, 100)}, {conns(40, 100)}}, ""},
		{"and offers nothing", []Usage{conns(51, 100)}, [][]Usage{{conns(99, 100)}, {conns(40, 100)}}, "connections: 51 needed, 50 free below 90%"},
		{"who does not list it offers nothing", []Usage{conns(10, 100)}, [][]Usage{{cpu(0, 8)}}, "connections: 10 needed, 0 free below 90%"},
		{"a resource that is not displaced is no matter", []Usage{conns(10, 100)}, [][]Usage{{conns(0, 100), cpu(8, 8)}}, ""},
		{"the worst is named", []Usage{conns(100, 100), cpu(8, 8)}, [][]Usage{{conns(0, 100), cpu(6.4, 8)}}, "cpu: 8 needed, 0.8 free below 90%"},
		{"none at all is worst", []Usage{conns(1e6, 1e6), cpu(1, 8)}, [][]Usage{{conns(0, 10)}}, "cpu: 1 needed, 0 free below 90%"},
		{"several nodes of a PoP add up", []Usage{conns(30, 100), conns(30, 100)}, [][]Usage{{conns(50, 100)}}, "connections: 60 needed, 40 free below 90%"},
		{"negative use is none", []Usage{conns(-10, 100)}, [][]Usage{{conns(-10, 100)}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ok, short := Fits(tt.displaced, tt.remaining)
			want := tt.want
			if want == "" {
				want = "nothing is lacking"
			}
			if ok != (tt.want == "") || short.String() != want {
				t.Errorf("fits %v, %s; want %s", ok, short, want)
			}
		})
	}
}

func TestNMinusOne(t *testing.T) {
	got, err := json.Marshal(NMinusOne(map[string][]Usage{
		"sin": {conns(100, 1000), cpu(1, 8)},
		"fra": {conns(500, 1000), cpu(2, 8)},
		"iad": {conns(300, 1000), cpu(5, 8)},
		"lhr": {},
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := `[` +
		`{"pop":"fra","resource":"cpu","utilization":0.5,"level":"ok"},` +
		`{"pop":"iad","resource":"cpu","utilization":0.5,"level":"ok"},` +
		`{"pop":"lhr","resource":"cpu","utilization":0.3333333333333333,"level":"ok"},` +
		`{"pop":"sin","resource":"cpu","utilization":0.5,"level":"ok"}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	for _, tt := range []struct {
		name string
		pops map[string][]Usage
		want []Loss
	}{
		{"no PoPs", nil, []Loss{}},
		{"the only one, in use", map[string][]Usage{"a": {conns(1, 100)}}, []Loss{
			{Pop: "a", Resource: "connections", Utilization: 1, Level: Shed, Shortfall: Shortfall{"connections", 1, 0}},
		}},
		{"the only one, idle", map[string][]Usage{"a": {conns(0, 100)}}, []Loss{{Pop: "a", Level: OK}}},
		{"a small one cannot take a big one's load", map[string][]Usage{"big": {conns(800, 1000)}, "small": {conns(0, 500)}}, []Loss{
			{Pop: "big", Resource: "connections", Utilization: 1.6, Level: Shed, Shortfall: Shortfall{"connections", 800, 450}},
			{Pop: "small", Resource: "connections", Utilization: 0.8, Level: Warn},
		}},
		{"room on average is not room where it counts", map[string][]Usage{"a": {conns(60, 100)}, "b": {conns(100, 100)}, "c": {conns(40, 100)}, "d": {conns(81, 100)}}, []Loss{
			{Pop: "a", Resource: "connections", Utilization: 281. / 300, Level: Shed, Shortfall: Shortfall{"connections", 60, 59}},
			{Pop: "b", Resource: "connections", Utilization: 281. / 300, Level: Shed, Shortfall: Shortfall{"connections", 100, 89}},
			{Pop: "c", Resource: "connections", Utilization: 281. / 300, Level: Shed, Shortfall: Shortfall{"connections", 40, 39}},
			{Pop: "d", Resource: "connections", Utilization: 281. / 300, Level: Shed, Shortfall: Shortfall{"connections", 81, 80}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := NMinusOne(tt.pops); !slices.EqualFunc(got, tt.want, sameLoss) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func sameLoss(a, b Loss) bool {
	near := func(x, y float64) bool { return math.Abs(x-y) < 1e-9 }
	return a.Pop == b.Pop && a.Resource == b.Resource && a.Level == b.Level && near(a.Utilization, b.Utilization) &&
		a.Shortfall.Resource == b.Shortfall.Resource && near(a.Shortfall.Needed, b.Shortfall.Needed) && near(a.Shortfall.Free, b.Shortfall.Free)
}

// What fits leaves no resource that it uses beyond the shed mark on the whole,
// and more room never makes load fit less.
func TestFitsIsSound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	usage := func() []Usage {
		return []Usage{conns(float64(r.IntN(120)), float64(r.IntN(150))), cpu(float64(r.IntN(9)), 8)}
	}
	fitted := 0
	for range 20_000 {
		displaced := usage()
		var remaining [][]Usage
		for range r.IntN(5) {
			remaining = append(remaining, usage())
		}
		ok, short := Fits(displaced, remaining)
		if !ok {
			if !(short.Needed > short.Free) || strings.Contains(short.String(), "nothing") {
				t.Fatalf("%v onto %v does not fit, but lacks nothing: %+v", displaced, remaining, short)
			}
			continue
		}
		fitted++
		for _, d := range displaced {
			free := 0.0
			for _, node := range remaining {
				for _, u := range node {
					if u.Resource == d.Resource && u.Used < ShedAt*u.Ceiling {
						free += ShedAt*u.Ceiling - u.Used
					}
				}
			}
			if d.Used > free+1e-9 {
				t.Fatalf("%v onto %v fits, but %s has only %v free", displaced, remaining, d.Resource, free)
			}
		}
		if more, _ := Fits(displaced, append(remaining, usage())); !more {
			t.Fatalf("%v onto %v fits, but not with one more", displaced, remaining)
		}
	}
	if fitted < 2000 {
		t.Fatalf("only %d of 20000 fitted: the test sees too little", fitted)
	}
}
