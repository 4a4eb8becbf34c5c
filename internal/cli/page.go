package cli

import (
	"context"
	"fmt"
	"net/http"
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

// gslbPage shows a DNS node's PoPs and its plan in a browser.
func gslbPage(name string, n *gslb.Node) http.Handler {
	return ops.StatusPage("anyedge "+name, func(context.Context) (ops.Page, error) {
		pops := ops.Section{Title: "PoPs as answers see them", Columns: []string{"PoP", "State", "Addresses"}}
		for _, p := range n.Status().Pops {
			state := ops.Cell{Text: p.State, Tone: map[string]ops.Tone{"up": ops.ToneOK, "unknown": ops.ToneWarn, "down": ops.ToneBad}[p.State]}
			if p.Drained {
				state = ops.Cell{Text: p.State + ", drained", Tone: ops.ToneWarn}
			}
			pops.Rows = append(pops.Rows, []ops.Cell{{Text: p.Name}, state, {Text: fmt.Sprint(p.Addresses)}})
		}
		r := n.Plan()
		plan := ops.Section{Title: "Plan", Note: r.Summary, Columns: []string{"PoP", "Load", "Planned", "Ceiling", "Full", "If it were lost"}}
		for i, row := range planRows(r) {
			cells := make([]ops.Cell, len(row))
			for j, text := range row {
				cells[j].Text = text
			}
			if l := r.Pops[i].Lost; l != nil {
				cells[len(cells)-1].Tone = map[bool]ops.Tone{true: ops.ToneOK, false: ops.ToneBad}[l.Holds]
			}
			plan.Rows = append(plan.Rows, cells)
		}
		overrides := ops.Section{Title: "Overrides", Columns: []string{"Names", "Override", "Until", "By", "Why"}}
		for _, o := range n.Overrides() {
			action := actionWithout
			if o.Only {
				action = actionOnly
			}
			overrides.Rows = append(overrides.Rows, []ops.Cell{{Text: o.Names}, {Text: action + " " + o.Pops, Tone: ops.ToneWarn},
				{Text: o.Until.UTC().Format(time.DateTime)}, {Text: o.By}, {Text: o.Reason}})
		}
		return ops.Page{Sections: []ops.Section{pops, plan, overrides}}, nil
	})
}
