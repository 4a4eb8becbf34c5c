package gslb

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"anyedge/gslb/steer"
)

func TestParseClients(t *testing.T) {
	got, err := ParseClients(strings.NewReader(`# networks

2001:db8::/32, 35.68, 139.7   # Tokyo
10.0.0.0/8,-33.87,+151.2
 10.0.0.0/16 ,48,2
`), "clients.csv")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"10.0.0.0/8", "10.0.0.0/16", "2001:db8::/32"}
	for i, c := range got {
		if c.Prefix.String() != want[i] {
			t.Errorf("%d: got %v, want %s", i, c.Prefix, want[i])
		}
	}
	if len(got) != 3 || got[0].Lat != -33.87 || got[0].Lon != 151.2 || !slices.IsSortedFunc(got, steer.CompareClients) {
		t.Errorf("got %v", got)
	}
	if got, err := ParseClients(strings.NewReader(""), "clients.csv"); len(got) != 0 || err != nil {
		t.Errorf("empty map: %v, %v", got, err)
	}
}

func TestParseClientsRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8,1":                             "c:1: 2 fields, want prefix,latitude,longitude",
		"10.0.0.0/8,1,2,3":                         "c:1: 4 fields, want prefix,latitude,longitude",
		"10.0.0.1,1,2":                             `c:1: "10.0.0.1" is not a network`,
		"\n10.0.0.0/33,1,2":                        `c:2: "10.0.0.0/33" is not a network`,
		"10.0.0.1/8,1,2":                           "c:1: 10.0.0.1/8 has bits set beyond its length; the network is 10.0.0.0/8",
		"::ffff:10.0.0.0/104,1,2":                  "c:1: ::ffff:10.0.0.0/104 is an IPv4 network in IPv6 form",
		"10.0.0.0/8,90.1,2":                        `c:1: latitude "90.1" is not a number from -90 to 90`,
		"10.0.0.0/8,x,2":                           `c:1: latitude "x" is not a number from -90 to 90`,
		"10.0.0.0/8,1,NaN":                         `c:1: longitude "NaN" is not a number from -180 to 180`,
		"10.0.0.0/8,1,-Inf":                        `c:1: longitude "-Inf" is not a number from -180 to 180`,
		"::/0,1,2\n10.0.0.0/8,1,2\n10.0.0.0/8,1,2": "c:3: 10.0.0.0/8 is on line 2 already",
		"x\n10.0.0.0/8,1,2\n" + strings.Repeat("a", 2000): "c:1: 1 fields, want prefix,latitude,longitude\nc:3: longer than 1024 bytes",
	} {
		got, err := ParseClients(strings.NewReader(text), "c")
		if err == nil || got != nil || err.Error() != want {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
	}
	_, err := ParseClients(strings.NewReader(strings.Repeat("x\n", 1000)), "c")
	if n := strings.Count(err.Error(), "\n") + 1; n != maxClientErrors {
		t.Errorf("%d errors, want %d", n, maxClientErrors)
	}
	broken := io.MultiReader(strings.NewReader("10.0.0.0/8,1,2\n"), iotest.ErrReader(errors.New("disk on fire")))
	if _, err := ParseClients(broken, "c"); err == nil || err.Error() != "c:2: disk on fire" {
		t.Errorf("got %v", err)
	}
}

func FuzzParseClients(f *testing.F) {
	f.Add("10.0.0.0/8,1,2\n2001:db8::/32,-90,180 # comment\n")
	f.Fuzz(func(t *testing.T, text string) {
		clients, err := ParseClients(strings.NewReader(text), "c")
		if err != nil {
			return
		}
		if _, err := steer.Build(steer.Input{Clients: clients}); err != nil {
			t.Errorf("parsed what cannot be built: %v", err)
		}
	})
}
