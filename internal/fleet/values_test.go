package fleet

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func goodReport() Report {
	return Report{
		Node: "fra-1", Pop: "fra", Region: "eu", Latitude: 50.11, Longitude: 8.68,
		State: StateHealthy, Announcement: Announced, Reason: "serving",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		Usage:     []Usage{{Resource: "cpu", Used: 0.5, Ceiling: 2}},
		Prefixes: []Prefix{{
			Prefix: netip.MustParsePrefix("192.0.2.0/24"), Announcement: Announced, MED: 10, Prepend: 1, Communities: []string{"65000:1"},
		}},
		Sequence: 7,
	}
}

func TestReportValidation(t *testing.T) {
	tests := []struct {
		want   string // in the error; empty: valid
		change func(*Report)
	}{
		{"", func(*Report) {}},
		{"", func(r *Report) { r.Region = ""; r.Addresses = nil; r.Usage = nil; r.Reason = "" }},
		{"node:", func(r *Report) { r.Node = "" }},
		{"node:", func(r *Report) { r.Node = "a/b" }},
		{"node:", func(r *Report) { r.Node = ".." }},
		{"pop:", func(r *Report) { r.Pop = strings.Repeat("x", 64) }},
		{"region:", func(r *Report) { r.Region = "e u" }},
		{"latitude:", func(r *Report) { r.Latitude = 90.01 }},
		{"longitude:", func(r *Report) { r.Longitude = math.NaN() }},
		{"state:", func(r *Report) { r.State = "fine" }},
		{"announcement:", func(r *Report) { r.Announcement = "" }},
		{"reason:", func(r *Report) { r.Reason = strings.Repeat("x", maxText+1) }},
		{"addresses[0]:", func(r *Report) { r.Addresses = []netip.Addr{{}} }},
		{"more than 256", func(r *Report) { r.Usage = make([]Usage, 257) }},
		{"", func(r *Report) {
			r.Prefixes = append(r.Prefixes, Prefix{Prefix: netip.MustParsePrefix("2001:db8::/48"), Announcement: Withdrawn})
		}},
		{"prefixes: more than 128", func(r *Report) { r.Prefixes = make([]Prefix, MaxPrefixes+1) }},
		{"prefixes[0]: not a prefix", func(r *Report) { r.Prefixes[0].Prefix = netip.Prefix{} }},
		{"prefixes[0].announcement:", func(r *Report) { r.Prefixes[0].Announcement = "up" }},
		{"prefixes[0].communities: more than 32", func(r *Report) { r.Prefixes[0].Communities = make([]string, 33) }},
		{"neighbors: more than 64", func(r *Report) { r.Neighbors = make([]Neighbor, 65) }},
		{"neighbors[0].address: not an address", func(r *Report) { r.Neighbors = []Neighbor{{}} }},
		{"neighbors[0].own.communities: more than 32", func(r *Report) {
			r.Neighbors = []Neighbor{{Address: netip.MustParseAddr("10.0.0.1"), Own: &NeighborRoute{Communities: make([]string, 33)}}}
		}},
		{"fixed:", func(r *Report) { r.Fixed = map[string]string{"bgp": strings.Repeat("x", maxText+1)} }},
		{"prefixes[0].communities:", func(r *Report) { r.Prefixes[0].Communities = []string{strings.Repeat("x", maxText+1)} }},
		{"usage[0].resource:", func(r *Report) { r.Usage = []Usage{{}} }},
		{"usage[0].used:", func(r *Report) { r.Usage[0].Used = -1 }},
		{"usage[0].ceiling:", func(r *Report) { r.Usage[0].Ceiling = math.Inf(1) }},
	}
	for _, test := range tests {
		r := goodReport()
		test.change(&r)
		err := r.validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

func TestReportRoundTrip(t *testing.T) {
	r := goodReport()
	r.UnhealthySince = time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	data, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeReport("fra-1", data)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := decodeReport("iad-1", data); err == nil {
		t.Error("decoded under another node's key")
	}
}

// A newer version may add fields. An older one must still read the report.
func TestDecodePassesOverUnknownFields(t *testing.T) {
	var doc map[string]any
	data, err := encode(goodReport())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	doc["brand_new"] = []int{1}
	if data, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeReport("fra-1", data); err != nil {
		t.Fatal(err)
	}
}

func TestEncodeRefusesWhatJSONCannotSay(t *testing.T) {
	if _, err := encode(Drain{Until: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}); err == nil {
		t.Error("the year 10000 was encoded")
	}
	if _, err := encode(strings.Repeat("x", MaxValue)); err == nil {
		t.Error("a value above MaxValue was encoded")
	}
}

func TestNormalizeInventory(t *testing.T) {
	at := netip.MustParseAddrPort
	in := []Backend{
		{Address: at("10.0.0.2:80"), Weight: 3, Zone: "b"},
		{Address: at("[::ffff:10.0.0.1]:80")},
		{Address: at("10.0.0.1:8080")},
	}
	want := []Backend{
		{Address: at("10.0.0.1:80"), Weight: 1},
		{Address: at("10.0.0.1:8080"), Weight: 1},
		{Address: at("10.0.0.2:80"), Weight: 3, Zone: "b"},
	}
	got, err := normalize(in)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	if in[1].Weight != 0 {
		t.Error("the caller's slice was changed")
	}
	for name, bad := range map[string][]Backend{
		"[0].address: no":     {{}},
		"[0].address: no ":    {{Address: at("10.0.0.1:0")}},
		"[1].address: 10.0.0": {{Address: at("10.0.0.1:80")}, {Address: at("10.0.0.1:80")}},
		"[0].weight":          {{Address: at("10.0.0.1:80"), Weight: 1001}},
		"[0].weight: -1":      {{Address: at("10.0.0.1:80"), Weight: -1}},
		"[0].zone":            {{Address: at("10.0.0.1:80"), Zone: strings.Repeat("z", maxText+1)}},
		"1025 backends":       make([]Backend, maxBackends+1),
	} {
		if _, err := normalize(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
}

// The largest set that validates also fits into a store.
func TestLargestInventoryFits(t *testing.T) {
	set := make([]Backend, maxBackends)
	for i := range set {
		addr := netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0xff, 4: 0xff, 6: 0xff, 8: 0xff, 10: 0xff, 12: 0xff, 14: byte(i >> 8), 15: byte(i)})
		set[i] = Backend{Address: netip.AddrPortFrom(addr, 65535), Weight: 1000, Zone: strings.Repeat("z", 120)}
	}
	if data, err := encode(inventory{set}); err != nil {
		t.Fatalf("%d bytes: %v", len(data), err)
	}
}

func TestDecodeInventory(t *testing.T) {
	for in, want := range map[string]int{
		`{"backends":[]}`: 0,
		`{"backends":[{"address":"10.1.0.4:8080"}]}`:                            1,
		`{"backends":[{"address":"10.1.0.4:8080","weight":2},{"address":"x"}]}`: -1,
		`{"backends":[{"address":"origin.example:80"}]}`:                        -1,
		`{"backend":[]}`:                      -1,
		`{"backends":null}`:                   -1,
		`{}`:                                  -1,
		`[]`:                                  -1,
		``:                                    -1,
		`{"backends":[]} trailing`:            -1,
		`{"backends":[{"address":5}]}`:        -1,
		`{"backends":[{"weight":1}]}`:         -1,
		`{"backends":"10.0.0.1:80"}`:          -1,
		`{"backends":[{"address":""}]}`:       -1,
		`{"backends":[{"address":"[::]:0"}]}`: -1,
	} {
		got, err := decodeInventory([]byte(in))
		if (err != nil) != (want < 0) || err == nil && (len(got) != want || got == nil) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
}

func TestDecodeLeases(t *testing.T) {
	const one = `{"node":"fra-1","pop":"fra","session":"s"}`
	for in, ok := range map[string]bool{
		`{"holders":[]}`:                                                  true,
		`{"holders":[` + one + `]}`:                                       true,
		`{"holders":[` + one + `,` + one + `]}`:                           false,
		`{"holders":[{"node":"fra-1","pop":"fra"}]}`:                      false,
		`{"holders":[{"node":"","pop":"fra","session":"s"}]}`:             false,
		`{"holders":[],"waiting":[` + one + `]}`:                          true,
		`{"holders":[` + one + `],"waiting":[` + one + `]}`:               true,
		`{"holders":[],"waiting":[` + one + `,` + one + `]}`:              false,
		`{"holders":[],"waiting":[{"node":"fra-1"}]}`:                     false,
		`{"holders":[],"freeze":{"pops":["fra"],"known":3,"by":"fra-1"}}`: true,
		`{"holders":[],"freeze":{"pops":[""],"known":3,"by":"fra-1"}}`:    false,
		`{"holders":[],"freeze":{"pops":["fra"],"known":3}}`:              false,
		`{`: false,
	} {
		if _, err := decodeLeases([]byte(in)); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestDrainKeyMustMatch(t *testing.T) {
	value := []byte(`{"scope":"pop","name":"fra"}`)
	if _, err := decodeDrain(ScopePop, "fra", value); err != nil {
		t.Error(err)
	}
	if _, err := decodeDrain(ScopePop, "iad", value); err == nil {
		t.Error("decoded under another name")
	}
	if _, err := decodeDrain("planet", "x", []byte(`{"scope":"planet","name":"x"}`)); err == nil {
		t.Error("decoded a scope that does not exist")
	}
}

// What decodes is valid, and survives being written and read again.
func FuzzDecode(f *testing.F) {
	report, err := encode(goodReport())
	if err != nil {
		f.Fatal(err)
	}
	f.Add("reports/fra-1", report)
	f.Add("state/drains/pop/fra", []byte(`{"scope":"pop","name":"fra","until":"2026-01-01T00:00:00Z"}`))
	f.Add("state/inventory/api", []byte(`{"backends":[{"address":"10.1.0.4:8080","weight":2,"zone":"a"}]}`))
	f.Add("state/leases", []byte(`{"holders":[{"node":"n","pop":"p","session":"s"}]}`))
	f.Add("state/holders/n", []byte(`i`))
	f.Add("state/ring", []byte(`{}`))
	f.Add("rtt/fra-1", []byte(`{"node":"fra-1","pop":"fra","at":"2026-01-01T00:00:00Z","data":"AQID"}`))
	f.Add("plan", []byte(`{"by":"ns-1","interval_seconds":30,"pops":[{"pop":"fra","lost":{"worst":"iad","utilization":0.5,"holds":true}}]}`))
	fl, err := New(Config{Store: NewMemory()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		_, good, err := fl.decode(Entry{Key: key, Value: value, Index: 1})
		if err != nil {
			return
		}
		switch v := good.(type) {
		case []Backend:
			again(t, fl, key, inventory{v}, good)
		case Report, Drain, Leases, RTT:
			again(t, fl, key, v, good)
		}
	})
}

func again(t *testing.T, fl *Fleet, key string, wire, want any) {
	t.Helper()
	data, err := encode(wire)
	if err != nil {
		t.Skip("grew above MaxValue or has a time that JSON cannot say")
	}
	_, got, err := fl.decode(Entry{Key: key, Value: data, Index: 1})
	if err != nil {
		t.Fatalf("%s does not decode: %v", data, err)
	}
	once, twice := fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)
	if once != twice {
		t.Fatalf("%s became %s", once, twice)
	}
}

func TestDrained(t *testing.T) {
	now := time.Unix(1000, 0)
	view := &View{Drains: []Drain{
		{Scope: ScopeNode, Name: "fra-1", Until: now},
		{Scope: ScopeNode, Name: "fra-2", Until: now.Add(1)},
		{Scope: ScopePop, Name: "fra", Reason: "pop", Until: now.Add(1)},
		{Scope: ScopePop, Name: "iad", Until: now.Add(-time.Hour)},
		{Scope: ScopeRegion, Name: "us"},
	}}
	for _, test := range []struct {
		node, pop, region string
		want              string
	}{
		{"fra-1", "fra", "eu", "pop/fra"},
		{"fra-2", "fra", "eu", "node/fra-2"},
		{"iad-1", "iad", "us", "region/us"},
		{"sin-1", "sin", "ap", ""},
		{"fra", "eu", "fra-2", ""},
	} {
		d, ok := view.Drained(test.node, test.pop, test.region, now)
		got := ""
		if ok {
			got = d.Scope + "/" + d.Name
		}
		if got != test.want {
			t.Errorf("%s: drained by %q, want %q", test.node, got, test.want)
		}
	}
	if _, ok := new(View).Drained("a", "b", "c", now); ok {
		t.Error("the zero view drains")
	}
}

func TestReportLookup(t *testing.T) {
	view := &View{Reports: []Seen{{Report: Report{Node: "a"}}, {Report: Report{Node: "b"}}}}
	if r, ok := view.Report("b"); !ok || r.Node != "b" {
		t.Errorf("got %v %v", r, ok)
	}
	if _, ok := view.Report("aa"); ok {
		t.Error("found a node that is not there")
	}
}
