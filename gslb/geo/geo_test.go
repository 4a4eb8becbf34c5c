package geo

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"anyedge/gslb/steer"
	"anyedge/internal/cidr"
)

var update = flag.Bool("update", false, "write the golden files")

const tab = "# comment\n" +
	"DE,DK\t+5230+01322\tEurope/Berlin\tmost of it\n" +
	"DK\t+5540+01235\tEurope/Copenhagen\n" +
	"US\t+404251-0740023\tAmerica/New_York\n" +
	"US\t+340308-1181434\tAmerica/Los_Angeles\n" +
	"NZ,AQ\t-3652+17446\tPacific/Auckland\n"

func testPoints(t testing.TB) *Points {
	t.Helper()
	p, err := ReadPoints(strings.NewReader(tab), "tab")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// lines is a map of clients as text, one line each.
func lines(clients []steer.Client) string {
	var b strings.Builder
	for _, c := range clients {
		fmt.Fprintf(&b, "%v %v %v\n", c.Prefix, c.Lat, c.Lon)
	}
	return b.String()
}

func TestRead(t *testing.T) {
	tests := []struct {
		about    string
		version  int // 0: both
		networks map[string]any
		aliases  map[string]string
		want     string
	}{
		{"coordinates go before the rest, in tenths", 0, map[string]any{
			"10.0.0.0/8":    city(50.1109, 8.6821),
			"192.0.2.1/32":  city(-33.87, -0.04),
			"198.51.0.0/16": city(90, -180),
		}, nil, "10.0.0.0/8 50.1 8.7\n192.0.2.1/32 -33.9 0\n198.51.0.0/16 90 -180\n"},
		{"time zone before country, country by its own first point", 0, map[string]any{
			"10.0.0.0/8": zoneOnly("America/Los_Angeles", "US"),
			"11.0.0.0/8": zoneOnly("America/Unheard_Of", "US"),
			"12.0.0.0/8": country("DK"),
			"13.0.0.0/8": flat("AQ"),
			"14.0.0.0/8": country("DE"),
		}, nil, "10.0.0.0/8 34.1 -118.2\n11.0.0.0/8 40.7 -74\n12.0.0.0/8 55.7 12.6\n13.0.0.0/8 -36.9 174.8\n14.0.0.0/8 52.5 13.4\n"},
		{"without a place", 0, map[string]any{
			"10.0.0.0/8": country("XX"), "11.0.0.0/8": map[string]any{"autonomous_system_number": uint32(64500)}, "12.0.0.0/8": country("DE"),
		}, nil, "12.0.0.0/8 52.5 13.4\n"},
		{"neighbors in one place are one", 0, map[string]any{
			"10.0.0.0/10": country("US"), "10.64.0.0/10": flat("US"), "10.128.0.0/9": country("US"),
			"11.0.0.0/9": country("US"), "11.128.0.0/9": country("DE"),
			"12.0.0.0/16": country("US"), // no neighbor
			"12.2.0.0/16": country("US"),
			"13.1.0.0/16": country("US"), // in one place, but not halves of one network
			"13.2.0.0/16": country("US"),
		}, nil, "10.0.0.0/8 40.7 -74\n11.0.0.0/9 40.7 -74\n11.128.0.0/9 52.5 13.4\n12.0.0.0/16 40.7 -74\n12.2.0.0/16 40.7 -74\n13.1.0.0/16 40.7 -74\n13.2.0.0/16 40.7 -74\n"},
		{"all addresses", 4, map[string]any{"0.0.0.0/1": flat("DE"), "128.0.0.0/1": flat("DE")}, nil, "0.0.0.0/0 52.5 13.4\n"},
		{"IPv6, and IPv4 once", 6, map[string]any{
			"10.0.0.0/8": country("DE"), "2001:db8::/33": country("US"), "2001:db8:8000::/33": country("US"), "2a00::/12": city(1, 2),
		}, map[string]string{"::ffff:0:0/96": "::/96", "2002::/16": "::/96"}, "10.0.0.0/8 52.5 13.4\n2001:db8::/32 40.7 -74\n2a00::/12 1 2\n"},
	}
	for _, tt := range tests {
		for _, version := range []int{4, 6} {
			for _, size := range []int{24, 28, 32} {
				if tt.version != 0 && tt.version != version {
					continue
				}
				db := database{size, version, tt.networks, tt.aliases}
				got, err := Read(db.bytes(t), "x.mmdb", testPoints(t))
				if err != nil {
					t.Errorf("%s: %v", tt.about, err)
				} else if lines(got) != tt.want {
					t.Errorf("%s, IPv%d, records of %d bits: got\n%swant\n%s", tt.about, version, size, lines(got), tt.want)
				}
			}
		}
	}
}

// The database that the reference config names is made here.
func TestReferenceDatabase(t *testing.T) {
	const file = "../../configs/reference/places.mmdb"
	db := (&database{24, 6, map[string]any{
		"198.51.100.0/24": country("FR"), "203.0.113.0/24": zoneOnly("Asia/Tokyo", "JP"), "2001:db8::/32": city(50.11, 8.68),
	}, map[string]string{"::ffff:0:0/96": "::/96"}}).bytes(t)
	if *update {
		if err := os.WriteFile(file, db, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, db) {
		t.Errorf("%s is not as this test makes it; -update writes it: %v", file, err)
	}
}

func TestReadRefuses(t *testing.T) {
	whole := (&database{24, 6, map[string]any{"10.0.0.0/8": city(1, 2)}, nil}).bytes(t)
	for _, tt := range []struct {
		about string
		db    []byte
		want  string
	}{
		{"empty", nil, "x.mmdb: "},
		{"not a database", []byte("prefix,latitude,longitude\n"), "x.mmdb: "},
		{"cut off", whole[:len(whole)/2], "x.mmdb: "},
		{"not on Earth", (&database{24, 4, map[string]any{"10.0.0.0/8": city(90.5, 0)}, nil}).bytes(t), "x.mmdb: 10.0.0.0/8: 90.5,0 is not a latitude and a longitude"},
		{"not a number", (&database{24, 4, map[string]any{"10.0.0.0/8": city(0, math.NaN())}, nil}).bytes(t), "x.mmdb: 10.0.0.0/8: 0,NaN is not a latitude and a longitude"},
		{"another type", (&database{24, 4, map[string]any{"10.0.0.0/8": map[string]any{"location": "Paris"}}, nil}).bytes(t), "x.mmdb: 10.0.0.0/8: "},
		{"no places", (&database{24, 4, map[string]any{"10.0.0.0/8": map[string]any{"autonomous_system_number": uint32(64500)}}, nil}).bytes(t),
			"x.mmdb: no network of the Test database has coordinates, or a time zone or country with a point"},
		{"a part of the tree twice", (&database{24, 4, map[string]any{"10.0.0.0/9": city(1, 2), "10.128.0.0/9": city(3, 4)},
			map[string]string{"11.0.0.0/8": "10.0.0.0/8", "12.0.0.0/7": "10.0.0.0/7", "64.0.0.0/2": "0.0.0.0/2", "128.0.0.0/1": "0.0.0.0/1"}}).bytes(t), "x.mmdb: the search tree is not a tree"},
		{"a part of the tree twice, by way of IPv4", (&database{24, 6, map[string]any{"10.0.0.0/9": city(1, 2), "10.128.0.0/9": city(3, 4)},
			map[string]string{"2000::/16": "::/96", "3000::/16": "2000::/15"}}).bytes(t), "x.mmdb: the search tree is not a tree"},
		{"IPv4 addresses in themselves", (&database{24, 6, map[string]any{"10.0.0.0/9": city(1, 2)},
			map[string]string{"128.0.0.0/2": "::/96", "192.0.0.0/2": "::/96"}}).bytes(t), "x.mmdb: "},
	} {
		got, err := Read(tt.db, "x.mmdb", testPoints(t))
		if err == nil || got != nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v, want %s", tt.about, got, err, tt.want)
		}
	}
	if _, err := Read((&database{24, 4, map[string]any{"10.0.0.0/8": flat("DE")}, nil}).bytes(t), "x", nil); err == nil {
		t.Error("a country has a place without points")
	}
}

// What does not fit gets a coarser grid, and what does not fit there is refused.
func TestReadIsBounded(t *testing.T) {
	networks := make(map[string]any)
	for i := range 64 {
		networks[fmt.Sprintf("10.0.%d.0/24", i)] = city(50.2+0.1*float64(i%2), 8)
	}
	db := (&database{24, 4, networks, nil}).bytes(t)
	for limit, want := range map[int]string{64: "10.0.0.0/24 50.2 8\n10.0.1.0/24 50.3 8\n", 63: "10.0.0.0/18 50.4 8\n", 10: "10.0.0.0/18 50.4 8\n"} {
		got, err := read(db, nil, limit)
		if err != nil || !strings.HasPrefix(lines(got), want) || len(got) > limit {
			t.Errorf("limit %d: %v\n%s", limit, err, lines(got))
		}
	}
	apart := (&database{24, 4, map[string]any{"10.0.0.0/8": city(1, 1), "20.0.0.0/8": city(1, 1)}, nil}).bytes(t)
	if _, err := read(apart, nil, 1); err == nil || err.Error() != "more than 1 networks, however coarse their places" {
		t.Errorf("got %v", err)
	}
}

func TestReadPoints(t *testing.T) {
	for text, want := range map[string]string{
		"DE +5230+01322 Europe/Berlin":      "tab:1: 1 fields, want country codes, coordinates and a time zone with tabs between",
		"\n# x\nde\t+5230+01322\tx":         `tab:3: "de" is not a country code`,
		"DE,\t+5230+01322\tx":               `tab:1: "" is not a country code`,
		"DE\t+5230+01322\t":                 "tab:1: no time zone",
		"DE\t+523+01322\tx":                 `tab:1: "+523+01322" are not coordinates such as +4830+01130`,
		"DE\t+5260+01322\tx":                `tab:1: "+5260+01322" are not coordinates such as +4830+01130`,
		"DE\t5230+01322\tx":                 `tab:1: "5230+01322" are not coordinates such as +4830+01130`,
		"DE\t+9001+01322\tx":                `tab:1: "+9001+01322" are not coordinates such as +4830+01130`,
		"DE\t+52a0+01322\tx":                `tab:1: "+52a0+01322" are not coordinates such as +4830+01130`,
		"DE\t\tx":                           `tab:1: "" are not coordinates such as +4830+01130`,
		"":                                  "tab: no points",
		"x\n" + strings.Repeat("a", 100000): "tab:1: 1 fields, want country codes, coordinates and a time zone with tabs between\ntab:2: bufio.Scanner: token too long",
	} {
		if _, err := ReadPoints(strings.NewReader(text), "tab"); err == nil || err.Error() != want {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
	}
	_, err := ReadPoints(strings.NewReader(strings.Repeat("x\n", 1000)), "tab")
	if n := strings.Count(err.Error(), "\n") + 1; n != maxPointErrors {
		t.Errorf("%d errors, want %d", n, maxPointErrors)
	}
}

func TestOverride(t *testing.T) {
	parse := func(list ...string) (all []steer.Client) {
		for i, p := range list {
			all = append(all, steer.Client{Prefix: cidr.MustParse(p), Lat: float64(i)})
		}
		return all
	}
	base := parse("10.0.0.0/8", "10.0.0.0/16", "2001:db8::/32")
	over := []steer.Client{{Prefix: cidr.MustParse("10.0.0.0/16"), Lat: 50}, {Prefix: cidr.MustParse("10.1.0.0/16"), Lat: 51}, {Prefix: cidr.MustParse("2001:db9::/32"), Lat: 52}}
	got := Override(over, base)
	if want := "10.0.0.0/8 0 0\n10.0.0.0/16 50 0\n10.1.0.0/16 51 0\n2001:db8::/32 2 0\n2001:db9::/32 52 0\n"; lines(got) != want {
		t.Errorf("got\n%swant\n%s", lines(got), want)
	}
	if lines(Override(nil, base)) != lines(base) || lines(Override(over, nil)) != lines(over) {
		t.Error("one map is not itself")
	}
}

// FuzzRead reads any bytes as a database: what is taken can be built.
func FuzzRead(f *testing.F) {
	points := testPoints(f)
	for _, version := range []int{4, 6} {
		for _, size := range []int{24, 28, 32} {
			f.Add((&database{size, version, map[string]any{
				"10.0.0.0/8": city(50, 8), "11.0.0.0/24": country("US"), "11.0.1.0/24": flat("US"), "192.0.2.0/24": zoneOnly("Europe/Berlin", "DE"),
			}, nil}).bytes(f))
		}
	}
	f.Fuzz(func(t *testing.T, db []byte) {
		clients, err := read(db, points, 1000)
		if err != nil {
			return
		}
		if !slices.IsSortedFunc(clients, steer.CompareClients) {
			t.Errorf("not in order: %v", clients)
		}
		if _, err := steer.Build(steer.Input{Clients: clients}); err != nil {
			t.Errorf("read what cannot be built: %v", err)
		}
	})
}
