package preflight

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var (
	one = netip.MustParsePrefix("192.0.2.0/24")
	two = netip.MustParsePrefix("2001:db8:1::/48")
)

// words builds a route of "PREFIX[*MED]": 1 and 2 are the prefixes above.
func route(word string) Route {
	r := Route{one, Attributes{Communities: []string{"65000:1", "no-export"}}}
	if word[0] == '2' {
		r.Prefix = two
	}
	if _, med, ok := strings.Cut(word, "*"); ok {
		fmt.Sscan(med, &r.MED)
	}
	return r
}

// fleetOf reads "node[?][!]:routes" words; "?" is not fresh, "!" does not serve, and
// a route with "-" in front is not announced. The PoP is the node's name
// without its last letter.
func fleetOf(words string) (nodes []Node) {
	for _, w := range strings.Fields(words) {
		name, routes, _ := strings.Cut(w, ":")
		n := Node{Fresh: !strings.Contains(name, "?"), Serving: !strings.Contains(name, "!")}
		n.Name = strings.Trim(name, "?!")
		n.Pop = n.Name[:len(n.Name)-1]
		for _, r := range strings.FieldsFunc(routes, func(r rune) bool { return r == ',' }) {
			n.Routes = append(n.Routes, Held{route(strings.Trim(r, "-")), r[0] != '-'})
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func setOf(minPops int, words string) (set []Plan) {
	for _, n := range fleetOf(words) {
		p := Plan{Node: n.Name, Pop: n.Pop, MinPops: minPops}
		for _, h := range n.Routes {
			p.Routes = append(p.Routes, h.Route)
		}
		set = append(set, p)
	}
	return set
}

// show puts a result into one line for each prefix.
func show(r Result) string {
	var lines []string
	for _, p := range r.Prefixes {
		line := fmt.Sprintf("%v %s->%s", p.Prefix, strings.Join(p.Before, "+"), strings.Join(p.After, "+"))
		for _, c := range p.Changes {
			line += fmt.Sprintf(" %s@%s", c.Kind, c.Node)
		}
		if p.Refused != "" {
			line += " REFUSED " + strings.Join(p.Culprits, "+")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestJudge(t *testing.T) {
	const three = "fraA:1 iadA:1 sinA:1"
	for name, tc := range map[string]struct {
		fleet, set string
		min        int
		retire     []netip.Prefix
		want       string
	}{
		"nothing changes":                    {three, three, 3, nil, "192.0.2.0/24 fra+iad+sin->fra+iad+sin"},
		"one less":                           {three, "fraA:", 2, nil, "192.0.2.0/24 fra+iad+sin->iad+sin removed@fraA"},
		"one too few":                        {three, "fraA:", 3, nil, "192.0.2.0/24 fra+iad+sin->iad+sin removed@fraA REFUSED fraA"},
		"each alone would do, together not":  {three, "fraA: iadA:", 2, nil, "192.0.2.0/24 fra+iad+sin->sin removed@fraA removed@iadA REFUSED fraA+iadA"},
		"moved between PoPs":                 {"fraA:1 iadA:", "fraA: iadA:1", 1, nil, "192.0.2.0/24 fra->iad removed@fraA added@iadA"},
		"the other node of the PoP stays":    {"fraA:1 fraB:1", "fraA:", 1, nil, "192.0.2.0/24 fra->fra removed@fraA"},
		"the other PoP is sick":              {"fraA:1 iadA!:1", "fraA:", 1, nil, "192.0.2.0/24 fra-> removed@fraA REFUSED fraA"},
		"the other PoP is silent":            {"fraA:1 iadA?:1", "fraA:", 1, nil, "192.0.2.0/24 fra-> removed@fraA REFUSED fraA"},
		"the other PoP drains the prefix":    {"fraA:1 iadA:-1", "fraA:", 1, nil, "192.0.2.0/24 fra-> removed@fraA REFUSED fraA"},
		"a drained prefix stays drained":     {"fraA:-1", "fraA:1", 1, nil, "192.0.2.0/24 -> REFUSED fraA"},
		"attributes":                         {"fraA:1*10", "fraA:1*20", 1, nil, "192.0.2.0/24 fra->fra changed@fraA"},
		"a new prefix at too few":            {three, "fraA:1,2", 2, nil, "192.0.2.0/24 fra+iad+sin->fra+iad+sin\n2001:db8:1::/48 ->fra added@fraA REFUSED fraA"},
		"a new prefix everywhere":            {three, "fraA:1,2 iadA:1,2 sinA:1,2", 3, nil, "192.0.2.0/24 fra+iad+sin->fra+iad+sin\n2001:db8:1::/48 ->fra+iad+sin added@fraA added@iadA added@sinA"},
		"a node that nobody knows":           {"iadA:1", "fraA:1", 2, nil, "192.0.2.0/24 iad->iad added@fraA REFUSED fraA"},
		"taken away everywhere":              {"fraA:1 iadA:1", "fraA: iadA:", 1, nil, "192.0.2.0/24 fra+iad-> removed@fraA removed@iadA REFUSED fraA+iadA"},
		"retired":                            {"fraA:1 iadA:1", "fraA: iadA:", 1, []netip.Prefix{one}, "192.0.2.0/24 fra+iad-> removed@fraA removed@iadA"},
		"retired in half is no retirement":   {three, "fraA: iadA:", 2, []netip.Prefix{one}, "192.0.2.0/24 fra+iad+sin->sin removed@fraA removed@iadA REFUSED fraA+iadA"},
		"what the set does not touch":        {"fraA:1 iadA!:2", "fraA:1", 1, nil, "192.0.2.0/24 fra->fra"},
		"no bound":                           {"fraA:1", "fraA:", 0, nil, "192.0.2.0/24 fra-> removed@fraA"},
		"no fleet, no set":                   {"", "", 1, nil, ""},
		"a fleet of one that is not serving": {"fraA!:1", "fraA:1*5", 1, nil, "192.0.2.0/24 -> changed@fraA REFUSED fraA"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Judge(fleetOf(tc.fleet), setOf(tc.min, tc.set), tc.retire)
			if got := show(r); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if r.OK == strings.Contains(tc.want, "REFUSED") {
				t.Errorf("OK is %v", r.OK)
			}
		})
	}
}

func TestStrictestBoundOfTheSetCounts(t *testing.T) {
	set := append(setOf(1, "fraA:1"), setOf(3, "iadA:1")...)
	if r := Judge(fleetOf("fraA:1 iadA:1"), set, nil); r.MinPops != 3 || r.OK {
		t.Errorf("min_pops %d, OK %v", r.MinPops, r.OK)
	}
}

func TestNotesSayWhatTheComparisonCannotKnow(t *testing.T) {
	fleet := fleetOf("fraA:1 iadA?:1 sinA!:1 amsA:1")
	fleet[1].Neighbors = []Neighbor{{}}
	fleet[0].Omitted = 7
	set := setOf(0, "fraA:1 iadA:1 sinA:1 newA:1 amsA:1")
	set[4].Pop = "lhr"
	got := strings.Join(Judge(fleet, set, nil).Notes, "\n")
	for _, want := range []string{
		"fraA announces 7 prefixes more", "iadA has not been heard of", "sinA does not serve",
		"newA is not part of the fleet", "fraA does not say who its neighbors are", "amsA moves from PoP ams to lhr",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("notes\n%s\ndo not say %q", got, want)
		}
	}
}

func TestOrderOfCommunitiesIsNoChange(t *testing.T) {
	a, b := route("1"), route("1")
	slices.Reverse(b.Communities)
	if !a.Equal(b.Attributes) {
		t.Error("not equal")
	}
	b.Communities = b.Communities[:1]
	if a.Equal(b.Attributes) {
		t.Error("equal")
	}
}
