package cli

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"

	"anyedge/bgp"
	"anyedge/pop"
)

// runRoutes prints what a node should announce, and what it does, to whom.
func runRoutes(c *invocation) error {
	address := c.adminFlag()
	asJSON := c.jsonFlag()
	if err := c.parse(0); err != nil {
		return err
	}
	var routes pop.Routes
	if printed, err := c.fetch(*address, "/v1/routes", *asJSON, &routes); printed || err != nil {
		return err
	}
	return printRoutes(c.out, time.Now(), routes)
}

// printRoutes writes a node's routes for people.
func printRoutes(out io.Writer, now time.Time, routes pop.Routes) error {
	a := routes.Announcement
	fmt.Fprintf(out, "%s for %s: %s\n\n", a.State, now.Sub(a.Since).Round(time.Second), a.Reason)
	if routes.BGP == nil {
		_, err := fmt.Fprintln(out, "The node has no BGP sessions.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PREFIX\tNEIGHBOR\tSHOULD BE\tIS\tWHY")
	for _, r := range routes.Routes {
		is := describePath(r.Announced)
		if r.Announced != nil && reflect.DeepEqual(r.Announced, r.Desired) {
			is = "so"
		}
		prefix := r.Prefix.String()
		if r.Blackhole {
			prefix += " (blackhole)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", prefix, r.Neighbor, describePath(r.Desired), is, why(now, r))
	}
	return w.Flush()
}

// describePath puts what a neighbor sees of a route into words.
func describePath(p *bgp.Path) string {
	if p == nil {
		return "nothing"
	}
	words := []string{fmt.Sprintf("MED %d, prepend %d", p.MED, len(p.ASPath)-1)}
	if len(p.Communities) > 0 {
		words = append(words, p.Communities.String())
	}
	for _, c := range p.LargeCommunities {
		words = append(words, c.String())
	}
	for _, c := range p.ExtendedCommunities {
		words = append(words, c.String())
	}
	return strings.Join(words, " ")
}

// why puts the reason of a route into words.
func why(now time.Time, r bgp.Route) string {
	text := strings.ReplaceAll(string(r.Reason), "_", " ")
	if !r.Since.IsZero() {
		text += " for " + now.Sub(r.Since).Round(time.Second).String()
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}
