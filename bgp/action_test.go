package bgp

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestActions(t *testing.T) {
	med := uint32(500)
	table := Actions{
		"prepend-2":            {Prepend: 2},
		"prepend-15":           {Prepend: 15},
		"backup":               {MED: &med},
		"no-export-to-AS64501": {Communities: Communities{64500<<16 | 64501}},
		"not-in-asia":          {LargeCommunities: LargeCommunities{{64500, 0, 3}}},
		"customer":             {ExtendedCommunities: ExtendedCommunities{0x0002fbf400000001}},
		"not-here":             {Withhold: true},
	}
	a := announcement6() // prepend 2
	got, err := table.Apply(a, "prepend-2", "backup", "no-export-to-AS64501", "not-in-asia", "customer")
	if err != nil {
		t.Fatal(err)
	}
	want := a
	want.Prepend, want.MED = 4, 500
	want.Communities = Communities{64512<<16 | 7, 64500<<16 | 64501}
	want.LargeCommunities = LargeCommunities{{64500, 0, 3}}
	want.ExtendedCommunities = ExtendedCommunities{0x0002fbf400000001}
	if !got.equal(&want) || len(a.Communities) != 1 {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, err := table.Apply(a, "prepend-15"); err != nil || got.Prepend != maxPrepend {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := table.Apply(a, "not-here"); err != nil || got.Withheld != "action not-here" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := table.Apply(a, "prepend-3"); err == nil || !strings.Contains(err.Error(), `"prepend-3"`) {
		t.Errorf("an unknown action: %v", err)
	}
}

func TestLargeAndExtendedCommunities(t *testing.T) {
	large := map[string]LargeCommunity{
		"0:0:0":              {},
		"4294967295:1:65536": {4294967295, 1, 65536},
	}
	for text, want := range large {
		if got, err := ParseLargeCommunity(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1:2", "1:2:3:4", "1:2:4294967296", "01:2:3", "+1:2:3", "1::3"} {
		if got, err := ParseLargeCommunity(text); err == nil {
			t.Errorf("ParseLargeCommunity(%q) = %v", text, got)
		}
	}
	extended := map[string]ExtendedCommunity{
		"rt:64500:70000":     0x0002fbf400011170,
		"ro:64500:1":         0x0003fbf400000001,
		"rt:4200000001:7":    0x0202fa56ea010007,
		"ro:192.0.2.1:65535": 0x0103c0000201ffff,
		"0x0202000000050007": 0x0202000000050007, // AS 5 in four octets
		"0x030b000000000064": 0x030b000000000064,
		"0xffffffffffffffff": 0xffffffffffffffff,
	}
	for text, want := range extended {
		if got, err := ParseExtendedCommunity(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %v (%#x), %v", text, got, uint64(got), err)
		}
	}
	for _, text := range []string{"", "rt", "rt:1", "rt:1:", "rt:65536:65536", "rt:4294967296:1", "rt:1:4294967296", "rt:2001:db8::1:1",
		"ro:192.0.2.1:65536", "soo:1:1", "0x1", "0x030b00000000006g", "0X030b000000000064", "rt:1:2:3"} {
		if got, err := ParseExtendedCommunity(text); err == nil {
			t.Errorf("ParseExtendedCommunity(%q) = %v", text, got)
		}
	}
	in := Path{LargeCommunities: LargeCommunities{{1, 2, 3}}, ExtendedCommunities: ExtendedCommunities{0x0002fbf400011170}}
	text, err := json.Marshal(in)
	if err != nil || !strings.Contains(string(text), `"large_communities":["1:2:3"],"extended_communities":["rt:64500:70000"]`) {
		t.Errorf("%s, %v", text, err)
	}
	var back Path
	if err := json.Unmarshal(text, &back); err == nil && (back.LargeCommunities[0] != in.LargeCommunities[0] || back.ExtendedCommunities[0] != in.ExtendedCommunities[0]) {
		t.Errorf("%+v", back)
	}
}

// FuzzExtendedCommunity checks that every one has a text, and that what is
// called representable is the same after GoBGP had it.
func FuzzExtendedCommunity(f *testing.F) {
	for _, c := range []uint64{0, 0x0002fbf400011170, 0x0202fa56ea010007, 0x030b000000000064, 0x0601020000000001, 0x8009000000000000, 0x4004fbf47fc00001} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, v uint64) {
		c := ExtendedCommunity(v)
		if back, err := ParseExtendedCommunity(c.String()); err != nil || back != c {
			t.Fatalf("%#x is %q, and that %#x, %v", v, c, uint64(back), err)
		}
		a := announcement4()
		a.ExtendedCommunities = ExtendedCommunities{c}
		if a.normalize() != nil {
			return
		}
		encoded, err := encodePath(a, speakerASN)
		if err != nil {
			t.Fatal(err)
		}
		path, err := decodePath(encoded)
		if err != nil || len(path.ExtendedCommunities) != 1 || path.ExtendedCommunities[0] != c {
			t.Fatalf("%#x came back as %+v, %v", v, path, err)
		}
	})
}
