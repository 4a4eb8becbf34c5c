package cli

import (
	"context"
	"net/http"
	"strings"
	"time"

	"anyedge/internal/ops"
	"anyedge/pop"
)

// popPage shows a node's status in a browser.
func popPage(a *pop.Agent) http.Handler {
	return ops.StatusPage("anyedge "+a.Node().Name, func(context.Context) (ops.Page, error) {
		var text strings.Builder
		if err := printStatus(&text, time.Now(), a.Status(), a.Routes(), a.Pools()); err != nil {
			return ops.Page{}, err
		}
		section := ops.Section{Title: "Node", Note: "GET /v1/ lists the API.", Columns: []string{"", ""}}
		for line := range strings.Lines(text.String()) {
			name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "  ")
			section.Rows = append(section.Rows, []ops.Cell{{Text: name}, {Text: strings.TrimSpace(value)}})
		}
		return ops.Page{Sections: []ops.Section{section}}, nil
	})
}
