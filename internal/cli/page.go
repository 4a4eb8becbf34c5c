package cli

import (
	"context"
	"net/http"
	"time"

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
