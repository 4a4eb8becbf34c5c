package fleet_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/fleettest"
)

// planEvery is the interval of the plans here.
const planEvery = 30 * time.Second

// plan is one that a DNS node made some time after the first.
func plan(by string, after time.Duration) fleet.Plan {
	return fleet.Plan{
		By: by, At: time.Unix(0, 0).UTC().Add(after), Interval: int(planEvery.Seconds()), Unit: "connections",
		Pops: []fleet.PlanPop{
			{Pop: "fra", Utilization: 0.5, Lost: &fleet.PlanLoss{Worst: "iad", Utilization: 0.8, Holds: true}},
			{Pop: "iad", Utilization: 0.3, Lost: &fleet.PlanLoss{Worst: "fra", Utilization: 1.2}},
			{Pop: "sin"},
		},
	}
}

var errStands = errors.New("another plan stands")

// publish wants the plan to be taken.
func publish(ctx context.Context, f *fleet.Fleet, p fleet.Plan) error {
	published, err := f.PublishPlan(ctx, p)
	if err == nil && !published {
		err = errStands
	}
	return err
}

func TestPlanValidation(t *testing.T) {
	f := newFleet(t, fleet.NewMemory())
	for want, change := range map[string]func(*fleet.Plan){
		"by:":                       func(p *fleet.Plan) { p.By = "" },
		"interval_seconds:":         func(p *fleet.Plan) { p.Interval = 0 },
		"unit:":                     func(p *fleet.Plan) { p.Unit = strings.Repeat("x", 2000) },
		"pops[1].pop:":              func(p *fleet.Plan) { p.Pops[1].Pop = "a/b" },
		`pops[2].pop: "fra" again`:  func(p *fleet.Plan) { p.Pops[2].Pop = "fra" },
		"pops[0].utilization:":      func(p *fleet.Plan) { p.Pops[0].Utilization = -1 },
		"pops[0].lost.utilization:": func(p *fleet.Plan) { p.Pops[0].Lost.Utilization = 2 * fleet.MaxUtilization },
		"pops[0].lost.worst:":       func(p *fleet.Plan) { p.Pops[0].Lost.Worst = "a b" },
		"pops: 1025":                func(p *fleet.Plan) { p.Pops = make([]fleet.PlanPop, 1025) },
	} {
		p := plan("ns-1", 0)
		change(&p)
		if err := publish(t.Context(), f, p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// planners are DNS nodes on one store.
func planners(t *testing.T, names ...string) (store *fleettest.Faults, fleets map[string]*fleet.Fleet) {
	store, fleets = fleettest.NewFaults(fleet.NewMemory()), make(map[string]*fleet.Fleet)
	for _, name := range names {
		f := newFleet(t, store)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		await(t, f, "the store", time.Minute, func(v *fleet.View) bool { return v.Connected })
		fleets[name] = f
	}
	return store, fleets
}

// One node publishes for as long as it goes on to; then another one does, at most
// three intervals and one later.
func TestOneNodePublishesThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, fleets := planners(t, "ns-1", "ns-2", "ns-3")
		var by []string // of each round, who published
		for round := range 20 {
			after := time.Duration(round) * planEvery
			for _, name := range []string{"ns-1", "ns-2", "ns-3"} {
				if name == "ns-1" && round >= 8 { // it has died
					continue
				}
				published, err := fleets[name].PublishPlan(t.Context(), plan(name, after))
				if err != nil {
					t.Fatal(err)
				}
				if published {
					by = append(by, name)
				}
			}
			time.Sleep(planEvery)
		}
		first, second := strings.Count(strings.Join(by, " "), "ns-1"), strings.Count(strings.Join(by, " "), "ns-2")
		if first != 8 || second < 20-8-4 || len(by) != first+second {
			t.Errorf("published by %v", by)
		}
	})
}

// Of many that find the old one abandoned at once, one takes its place.
func TestOnePublisherFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, fleets := planners(t, "ns-1", "ns-2", "ns-3", "ns-4")
		if err := publish(t.Context(), fleets["ns-1"], plan("ns-1", 0)); err != nil {
			t.Fatal(err)
		}
		delete(fleets, "ns-1")
		time.Sleep(4 * planEvery)
		results := make(chan bool, len(fleets))
		for name, f := range fleets {
			go func() {
				published, err := f.PublishPlan(t.Context(), plan(name, time.Minute))
				if err != nil {
					t.Error(err)
				}
				results <- published
			}()
		}
		won := 0
		for range fleets {
			if <-results {
				won++
			}
		}
		if won != 1 {
			t.Errorf("%d nodes took its place", won)
		}
	})
}

// A plan counts from its first change after the store was reached, for three of
// its intervals, and not while the store is away.
func TestPlanCountsWhileItIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, fleets := planners(t, "ns-1")
		writer := fleets["ns-1"]
		must := func(after time.Duration) {
			t.Helper()
			if err := publish(t.Context(), writer, plan("ns-1", after)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		fresh := func(f *fleet.Fleet) bool {
			_, fresh := f.View().PlanAge(time.Now())
			return fresh
		}
		if fresh(writer) {
			t.Error("there is none")
		}
		must(0)
		if age, ok := writer.View().PlanAge(time.Now()); !ok || age > 5*time.Second {
			t.Errorf("one that just came is %v old, fresh %v", age, ok)
		}
		late := newFleet(t, store)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- late.Run(ctx) }()
		defer func() { cancel(); <-done }()
		if v := await(t, late, "the plan", time.Minute, func(v *fleet.View) bool { return v.Plan != nil && v.Connected }); fresh(late) {
			t.Errorf("one of unknown age counts: %+v", v.Plan)
		}
		must(time.Minute)
		if v := late.View(); !fresh(late) || !v.Plan.Without("fra").Holds || v.Plan.Without("iad").Holds || v.Plan.Without("sin") != nil || v.Plan.Without("nrt") != nil {
			t.Errorf("%+v", v.Plan)
		}
		time.Sleep(3*planEvery - 6*time.Second)
		if !fresh(late) {
			t.Error("it was to count for three intervals")
		}
		time.Sleep(3 * time.Second)
		if fresh(late) {
			t.Error("a silent publisher's plan counts")
		}
		must(2 * time.Minute)
		if !fresh(late) {
			t.Error("the next one does not count")
		}
		store.Set(func(fleettest.Op, string) fleettest.Fault { return fleettest.Lost })
		await(t, late, "the loss", time.Minute, func(v *fleet.View) bool { return !v.Connected })
		if fresh(late) {
			t.Error("it counts without the store")
		}
		store.Set(nil)
		if v := await(t, late, "the store again", time.Minute, func(v *fleet.View) bool { return v.Connected }); fresh(late) || v.Plan == nil {
			t.Error("after an outage it is of unknown age again")
		}
	})
}

// What is damaged in the store is replaced by whoever comes first.
func TestDamagedPlanIsReplaced(t *testing.T) {
	memory := fleet.NewMemory()
	f := newFleet(t, memory)
	if _, err := memory.CompareAndSwap(t.Context(), "plan", []byte("{"), 0); err != nil {
		t.Fatal(err)
	}
	if err := publish(t.Context(), f, plan("ns-1", 0)); err != nil {
		t.Error(err)
	}
	if err := publish(t.Context(), f, plan("ns-2", 0)); !errors.Is(err, errStands) {
		t.Errorf("a node that knows nothing replaced a plan: %v", err)
	}
}
