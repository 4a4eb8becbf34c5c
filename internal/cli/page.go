package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"anyedge/gslb"
	"anyedge/internal/ops"
	"anyedge/pop"
)

// popPage shows a node's status in a browser.
func popPage(a *pop.Agent) http.Handler {
	return ops.StatusPage("anyedge "+a.Node().Name, func(context.Context) (ops.Page, error) {
		section := ops.Section{Title: "This node", Columns: []string{"Part", "State"}}
		for _, r := range statusRows(time.Now(), a.Status(), a.Routes(), a.Pools()) {
			section.Rows = append(section.Rows, []ops.Cell{{Text: r.name}, {Text: r.text, Tone: r.tone}})
		}
		return ops.Page{Sections: []ops.Section{section}}, nil
	})
}

// gslbPage shows a DNS node's zones, its PoPs and its plan in a browser.
func gslbPage(name string, n *gslb.Node) http.Handler {
	return ops.StatusPage("anyedge "+name, func(context.Context) (ops.Page, error) {
		now := time.Now()
		o := dnsNode{n.Overview(), n.Plan(), n.Keys(), n.Overrides()}
		node := ops.Section{Title: "This node", Columns: []string{"Part", "State"}}
		for _, r := range dnsRows(now, o) {
			if !slices.Contains([]string{"pop", "plan", "override"}, r.name) { // which have sections
				node.Rows = append(node.Rows, []ops.Cell{{Text: r.name}, {Text: r.text, Tone: r.tone}})
			}
		}
		pops := ops.Section{Title: "PoPs as answers see them", Columns: []string{"PoP", "State", "Addresses", "Why"}}
		for _, p := range o.DNS.Pops {
			pops.Rows = append(pops.Rows, []ops.Cell{{Text: p.Name}, popCell(p), {Text: join(p.Addresses)}, {Text: p.Note}})
		}
		plan := ops.Section{Title: "Plan", Note: o.plan.Summary, Columns: []string{"PoP", "Load", "Planned", "Ceiling", "Full", "If it were lost"}}
		for i, row := range planRows(o.plan) {
			cells := make([]ops.Cell, len(row))
			for j, text := range row {
				cells[j].Text = text
			}
			if l := o.plan.Pops[i].Lost; l != nil {
				cells[len(cells)-1].Tone = map[bool]ops.Tone{true: ops.ToneOK, false: ops.ToneBad}[l.Holds]
			}
			plan.Rows = append(plan.Rows, cells)
		}
		overrides := ops.Section{Title: "Overrides", Columns: []string{"Names", "Override", "Until", "By", "Why"}}
		for _, o := range o.overrides {
			overrides.Rows = append(overrides.Rows, []ops.Cell{{Text: o.Names}, {Text: steerAction(o) + " " + o.Pops, Tone: ops.ToneWarn},
				{Text: o.Until.UTC().Format(time.DateTime)}, {Text: o.By}, {Text: o.Reason}})
		}
		return ops.Page{Sections: []ops.Section{node, pops, plan, keysSection(o.keys), overrides}}, nil
	})
}

// keysSection shows the keys of signed zones.
func keysSection(zones []gslb.ZoneKeysStatus) ops.Section {
	s := ops.Section{Title: "Keys of signed zones", Columns: []string{"Zone", "Key", "Algorithm", "State", "Next"}}
	for _, z := range zones {
		for i, k := range z.Keys {
			next := ops.Cell{}
			if i == 0 && z.Waiting != "" {
				next = ops.Cell{Text: "waits " + z.Waiting, Tone: ops.ToneWarn}
			} else if i == 0 && len(z.Next) > 0 {
				next.Text = z.Next[0].At.UTC().Format(time.DateTime) + "  " + z.Next[0].What
			}
			s.Rows = append(s.Rows, []ops.Cell{{Text: z.Zone}, {Text: fmt.Sprintf("%s %d", k.Role, k.Tag)}, {Text: algorithmNames[k.Algorithm]}, {Text: k.State}, next})
		}
	}
	return s
}

func join(addresses []netip.Addr) string {
	words := make([]string, len(addresses))
	for i, a := range addresses {
		words[i] = a.String()
	}
	return strings.Join(words, " ")
}
