package preflight

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// neighbors reads "A=OWN" words: A is the last number of the address, OWN "-" for
// withheld, a MED, or nothing.
func neighbors(words string) (list []Neighbor) {
	for _, w := range strings.Fields(words) {
		number, own, _ := strings.Cut(w, "=")
		n := Neighbor{Address: netip.MustParseAddr("10.0.0." + number)}
		switch {
		case own == "-":
			n.Own = &Own{Withheld: true}
		case own != "":
			n.Own = &Own{Attributes: Attributes{Communities: []string{"64500:1", "64500:2"}}}
			fmt.Sscan(own, &n.Own.MED)
		}
		list = append(list, n)
	}
	return list
}

func TestNeighborsAreCompared(t *testing.T) {
	for name, tc := range map[string]struct{ before, after, want string }{
		"nothing changes":       {"1 2=7 3=-", "3=- 2=7 1", ""},
		"an action more":        {"1 2", "1 2=7", "changed 10.0.0.2: as for all neighbors -> MED 7, prepend 0, 64500:1 64500:2"},
		"an action less":        {"1 2=7", "1 2", "changed 10.0.0.2: MED 7, prepend 0, 64500:1 64500:2 -> as for all neighbors"},
		"another action":        {"1=7", "1=8", "changed 10.0.0.1: MED 7, prepend 0, 64500:1 64500:2 -> MED 8, prepend 0, 64500:1 64500:2"},
		"withheld":              {"1 2", "1=- 2", "changed 10.0.0.1: as for all neighbors -> withheld"},
		"another neighbor":      {"1", "2=-", "removed 10.0.0.1: as for all neighbors -> as for all neighbors; added 10.0.0.2: as for all neighbors -> withheld"},
		"all gone":              {"1", "", "removed 10.0.0.1: as for all neighbors -> as for all neighbors"},
		"a node that says none": {"", "1=7", ""},
	} {
		node, plan := fleetOf("fraA:1")[0], setOf(1, "fraA:1")[0]
		node.Neighbors, plan.Neighbors = neighbors(tc.before), neighbors(tc.after)
		r := Judge([]Node{node}, []Plan{plan}, nil)
		var got []string
		for _, c := range r.Neighbors {
			if c.Node != "fraA" || c.Pop != "fra" {
				t.Errorf("%s: %+v", name, c)
			}
			got = append(got, fmt.Sprintf("%s %v: %v -> %v", c.Kind, c.Neighbor, c.From, c.To))
		}
		if got := strings.Join(got, "; "); got != tc.want || !r.OK {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tc.want)
		}
	}
	one, other := neighbors("1=7")[0].Own, neighbors("1=7")[0].Own
	if slices.Reverse(other.Communities); !one.equal(other) {
		t.Error("the order of communities counts")
	}
}

func TestRestartsAreListedByNode(t *testing.T) {
	set := setOf(1, "iadA:1 fraA:1 sinA:1")
	set[0].Restart, set[1].Restart = []string{"bgp.asn"}, []string{"guard", "health"}
	r := Judge(fleetOf("fraA:1 iadA:1 sinA:1"), set, nil)
	if got := fmt.Sprint(r.Restarts); got != "[{fraA fra [guard health]} {iadA iad [bgp.asn]}]" || !r.OK {
		t.Errorf("%s, OK %v", got, r.OK)
	}
}
