package fleet

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func goodOverride() Override {
	at := time.Unix(1000, 0).UTC()
	return Override{Scope: ScopePop, Name: "fra", Action: ActionWithdraw, By: "ada", Reason: "test", At: at, Until: at.Add(time.Hour)}
}

func TestOverrideValidation(t *testing.T) {
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	for _, test := range []struct {
		want   string // in the error; empty: valid
		change func(*Override)
	}{
		{"", func(*Override) {}},
		{"", func(o *Override) { o.Scope, o.Name = ScopeFleet, FleetName }},
		{"", func(o *Override) { o.Prefix, o.Action = prefix, ActionAnnounce }},
		{"", func(o *Override) { o.Prefix, o.Action = prefix, ActionDepreference }},
		{"", func(o *Override) { o.Prefix, o.Force = prefix, true }},
		{"", func(o *Override) { o.Until = o.At.Add(MaxOverride) }},
		{"scope:", func(o *Override) { o.Scope = "planet" }},
		{"name:", func(o *Override) { o.Name = "a/b" }},
		{"name:", func(o *Override) { o.Scope = ScopeFleet }},
		{"action:", func(o *Override) { o.Action = "blackhole" }},
		{"by:", func(o *Override) { o.By = "" }},
		{"reason:", func(o *Override) { o.Reason = "" }},
		{"reason:", func(o *Override) { o.Reason = strings.Repeat("x", maxText+1) }},
		{"until:", func(o *Override) { o.Until = time.Time{} }},
		{"until:", func(o *Override) { o.At = time.Time{} }},
		{"until:", func(o *Override) { o.Until = o.At }},
		{"until:", func(o *Override) { o.Until = o.At.Add(MaxOverride + 1) }},
		{"prefix:", func(o *Override) { o.Prefix, o.Force = netip.MustParsePrefix("192.0.2.1/24"), true }},
		{"to withdraw one takes force", func(o *Override) { o.Prefix = prefix }},
		{"only a withdrawal is forced", func(o *Override) { o.Prefix, o.Action, o.Force = prefix, ActionAnnounce, true }},
		{"whole fleet is not withdrawn by force", func(o *Override) { o.Scope, o.Name, o.Force = ScopeFleet, FleetName, true }},
	} {
		o := goodOverride()
		test.change(&o)
		if err := o.Validate(); test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

func TestOverridesTheNarrowestCounts(t *testing.T) {
	now := time.Unix(2000, 0)
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	override := func(scope, name, reason string, until time.Time, prefix netip.Prefix) Override {
		return Override{Scope: scope, Name: name, Reason: reason, Until: until, Prefix: prefix, Action: ActionAnnounce}
	}
	later, over := now.Add(time.Hour), now.Add(time.Minute)
	view := &View{
		Drains: []Drain{{Scope: ScopePop, Name: "fra"}, {Scope: ScopePop, Name: "iad"}},
		Overrides: []Override{
			override(ScopeFleet, FleetName, "1", over, netip.Prefix{}),
			override(ScopeFleet, FleetName, "2", later, prefix),
			override(ScopeNode, "fra-1", "3", over, netip.Prefix{}),
			override(ScopePop, "fra", "4", later, netip.Prefix{}),
			override(ScopeRegion, "eu", "5", over, prefix),
		},
	}
	for _, test := range []struct {
		node, pop, region string
		at                time.Time
		want              string // reasons, that of the prefix last
		drained           bool
	}{
		{"fra-1", "fra", "eu", now, "3 5", false},
		{"fra-1", "fra", "eu", over, "4 2", false},
		{"fra-1", "fra", "eu", later, " ", true},
		{"iad-1", "iad", "us", now, "1 2", false},
		{"iad-1", "iad", "us", over, " 2", true},
	} {
		o := view.Orders(test.node, test.pop, test.region, test.at)
		whole, one := "", ""
		if o.Override != nil {
			whole = o.Override.Reason
		}
		if len(o.PrefixOverrides) > 0 {
			one = o.PrefixOverrides[0].Reason
		}
		_, drained := view.Drained(test.node, test.pop, test.region, test.at)
		if whole+" "+one != test.want || len(o.PrefixOverrides) > 1 || drained != test.drained || o.Leaving() != drained || o.Drain == nil {
			t.Errorf("%s: %q, drained %v, leaving %v, want %q, %v", test.node, whole+" "+one, drained, o.Leaving(), test.want, test.drained)
		}
	}
	o := view.Orders("fra-1", "fra", "eu", now)
	if at := o.At(later); at.Override != nil || len(at.PrefixOverrides) != 0 || o.Override == nil {
		t.Errorf("%+v", at)
	}
	if both := (Orders{}).Or(o); both.Override != o.Override || len(both.PrefixOverrides) != 1 || both.None() || !(Orders{}).None() {
		t.Errorf("%+v", both)
	}
	o.Override.Action = ActionWithdraw
	if !o.Leaving() {
		t.Error("to be withdrawn, and not leaving")
	}
}

func TestOverridesAndTheirKeys(t *testing.T) {
	f := &Fleet{}
	for key, change := range map[string]func(*Override){
		"state/overrides/pop/fra":              func(*Override) {},
		"state/overrides/pop/fra/192.0.2.0_24": func(o *Override) { o.Prefix, o.Force = netip.MustParsePrefix("192.0.2.0/24"), true },
	} {
		o := goodOverride()
		change(&o)
		value, err := encode(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{key, key + "x", "state/overrides/pop/iad"} {
			kind, got, err := f.decode(Entry{Key: at, Value: value})
			if kind != kindOverride || (err == nil) != (at == key) || err == nil && got != o {
				t.Errorf("%s: %s, %v, %v", at, kind, got, err)
			}
		}
	}
	if _, _, err := f.decode(Entry{Key: "state/overrides/pop/fra", Value: []byte(`{"scope":"pop","name":"fra","action":"withdraw"}`)}); err == nil {
		t.Error("an override without an end was taken")
	}
}
