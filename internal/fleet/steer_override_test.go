package fleet

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func steerOverrideOf(names, pops string) SteerOverride {
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	return SteerOverride{Names: names, Pops: pops, By: "ann", Reason: "flood", At: at, Until: at.Add(time.Hour)}
}

func TestSteerOverrideValidate(t *testing.T) {
	good := steerOverrideOf("*.edge.example", "fra*")
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*SteerOverride){
		"names: \"\" is not a pattern":   func(o *SteerOverride) { o.Names = "" },
		"pops: \"[\" is not a pattern":   func(o *SteerOverride) { o.Pops = "[" },
		"by: an override says who":       func(o *SteerOverride) { o.By = "" },
		"reason: an override says who":   func(o *SteerOverride) { o.Reason = "" },
		"a begin and an end":             func(o *SteerOverride) { o.Until = time.Time{} },
		"the end is not after the begin": func(o *SteerOverride) { o.Until = o.At },
		"is longer than":                 func(o *SteerOverride) { o.Until = o.At.Add(MaxOverride + 1) },
		"more than 1024":                 func(o *SteerOverride) { o.Reason = strings.Repeat("x", 1025) },
	} {
		o := good
		spoil(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %q", err, want)
		}
	}
	if !good.Active(good.At) || good.Active(good.Until) {
		t.Error("active until its end, not at it")
	}
}

func TestSteerOverridesReachTheView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemory()
		f, err := New(Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		go f.Run(ctx)
		settle := func() []SteerOverride {
			time.Sleep(time.Second)
			synctest.Wait()
			return f.View().SteerOverrides
		}
		first, second := steerOverrideOf("*.edge.example", "fra"), steerOverrideOf("www.edge.example", "iad")
		second.At = second.At.Add(time.Minute)
		for _, o := range []SteerOverride{second, first} {
			if err := f.SetSteerOverride(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
		if got := settle(); len(got) != 2 || got[0] != first || got[1] != second {
			t.Fatalf("%+v", got)
		}
		first.Only = true // in place of the one before, however the name is spelled
		first.Names = "*.EDGE.example."
		if err := f.SetSteerOverride(ctx, first); err != nil {
			t.Fatal(err)
		}
		if got := settle(); len(got) != 2 || !got[0].Only {
			t.Fatalf("%+v", got)
		}
		// A value under the key of another, or spoiled, changes nothing.
		for _, value := range []string{"{}", `{"names":"a","pops":"b","by":"x","reason":"y","at":"2026-03-01T00:00:00Z","until":"2026-03-01T01:00:00Z"}`} {
			e, err := store.Get(ctx, steerOverrideKey(first))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := store.CompareAndSwap(ctx, e.Key, []byte(value), e.Index); err != nil {
				t.Fatal(err)
			}
			if got := settle(); len(got) != 2 || !got[0].Only || len(f.View().Rejected) != 1 {
				t.Fatalf("%+v, rejected %v", got, f.View().Rejected)
			}
		}
		for range 2 {
			if err := f.ClearSteerOverride(ctx, SteerOverride{Names: "*.edge.example", Pops: "fra"}); err != nil {
				t.Fatal(err)
			}
		}
		if got := settle(); len(got) != 1 || got[0] != second {
			t.Fatalf("%+v", got)
		}
	})
}
