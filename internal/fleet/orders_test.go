package fleet

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestOrdersTheNarrowestCounts(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")
	view := &View{
		Drains: []Drain{{Scope: ScopePop, Name: "fra", Reason: "1"}, {Scope: ScopeRegion, Name: "eu", Reason: "2"}},
		PrefixDrains: []Drain{
			{Scope: ScopeNode, Name: "fra-1", Prefix: a, Reason: "3", Until: now.Add(time.Minute)},
			{Scope: ScopePop, Name: "fra", Prefix: a, Reason: "4"},
			{Scope: ScopeRegion, Name: "eu", Prefix: b, Reason: "5"},
			{Scope: ScopeRegion, Name: "us", Prefix: b, Reason: "6"},
		},
	}
	for _, test := range []struct {
		node, pop, region string
		at                time.Time
		want              string // reasons
	}{
		{"fra-1", "fra", "eu", now, "1 3 5"},
		{"fra-1", "fra", "eu", now.Add(time.Minute), "1 4 5"},
		{"fra-2", "fra", "eu", now, "1 4 5"},
		{"ams-1", "ams", "eu", now, "2 5"},
		{"iad-1", "iad", "us", now, "6"},
		{"sin-1", "sin", "asia", now, ""},
	} {
		o := view.Orders(test.node, test.pop, test.region, test.at)
		var got []string
		if o.Drain != nil {
			got = append(got, o.Drain.Reason)
		}
		for _, d := range o.Prefixes {
			got = append(got, d.Reason)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %q, want %q", test.node, got, test.want)
		}
	}
	o := view.Orders("fra-1", "fra", "eu", now)
	if later := o.At(now.Add(time.Minute)); later.Drain == nil || len(later.Prefixes) != 1 || len(o.Prefixes) != 2 {
		t.Errorf("later %+v", later)
	}
	if both := (Orders{}).Or(o); !reflect.DeepEqual(both, o) {
		t.Errorf("nothing or %+v is %+v", o, both)
	}
	less := Orders{Prefixes: []Drain{{Scope: ScopeNode, Name: "x", Prefix: b}}}
	if both := less.Or(o); both.Drain != o.Drain || len(both.Prefixes) != 2 || both.Prefixes[1].Name != "x" {
		t.Errorf("%+v", both)
	}
}

// A drain of a prefix must never be taken for one of the whole, nor the reverse.
func TestDrainsAndTheirKeys(t *testing.T) {
	prefix := netip.MustParsePrefix("2001:db8:1::/48")
	f := &Fleet{}
	for _, test := range []struct {
		key, value string
		want       string // of the error; empty: fine
	}{
		{"state/drains/pop/fra", `{"scope":"pop","name":"fra"}`, ""},
		{"state/drains/pop/fra", `{"scope":"pop","name":"fra","prefix":"192.0.2.0/24"}`, "under the key"},
		{"state/prefix-drains/pop/fra/192.0.2.0_24", `{"scope":"pop","name":"fra","prefix":"192.0.2.0/24"}`, ""},
		{"state/prefix-drains/pop/fra/192.0.2.0_24", `{"scope":"pop","name":"fra","prefix":"192.0.2.0/25"}`, "under the key"},
		{"state/prefix-drains/pop/fra/192.0.2.0_24", `{"scope":"pop","name":"fra"}`, "under the key"},
		{"state/prefix-drains/pop/fra", `{"scope":"pop","name":"fra"}`, "under the key"},
		{"state/prefix-drains/pop/fra/192.0.2.1_24", `{"scope":"pop","name":"fra","prefix":"192.0.2.1/24"}`, "bits behind its length"},
		{"state/prefix-drains/pop/fra/x", `{"scope":"pop","name":"fra","prefix":"x"}`, "ParsePrefix"},
	} {
		kind, _, err := f.decode(Entry{Key: test.key, Value: []byte(test.value)})
		if kind != kindDrain || (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %s, %v, want %q", test.key, test.value, kind, err, test.want)
		}
	}
	if key := drainKey(Drain{Scope: ScopeNode, Name: "fra-1", Prefix: prefix}); key != "state/prefix-drains/node/fra-1/2001:db8:1::_48" {
		t.Error(key)
	}
}
