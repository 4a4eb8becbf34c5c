package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"

	"anyedge/internal/ops"
	"anyedge/pop"
)

// explain answers a GET /v1/explain.
func explain(a *pop.Agent) func(context.Context, ops.Request) (any, error) {
	return func(_ context.Context, r ops.Request) (any, error) {
		var prefix netip.Prefix
		if text := r.Query("prefix"); text != "" {
			var err error
			if prefix, err = netip.ParsePrefix(text); err != nil {
				return nil, ops.BadRequest("prefix: %w", err)
			}
		}
		n, err := last(r, 20)
		if err != nil {
			return nil, err
		}
		return a.Explain(prefix, n), nil
	}
}

// last is how many of the newest a request asks for, a number of its own or n.
func last(r ops.Request, n int) (int, error) {
	text := r.Query("last")
	if text == "" {
		return n, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, ops.BadRequest("last: %.40q is not a number of entries", text)
	}
	return n, nil
}

// runExplain prints why a route is or is not announced.
func runExplain(c *invocation) error {
	address := c.adminFlag()
	var prefix netip.Prefix
	c.flags.TextVar(&prefix, "prefix", prefix, "only this service `prefix`")
	count := c.flags.Int("last", 5, "print so many of the last decisions")
	asJSON := c.flags.Bool("json", false, "print the API's JSON, with all that went into each decision")
	if err := c.parse(0); err != nil {
		return err
	}
	if *count < 0 {
		return usagef("--last: %d is negative", *count)
	}
	query := url.Values{"last": {strconv.Itoa(*count)}}
	if prefix.IsValid() {
		query.Set("prefix", prefix.String())
	}
	var e pop.Explanation
	if printed, err := c.fetch(*address, "/v1/explain?"+query.Encode(), *asJSON, &e); printed || err != nil {
		return err
	}
	printExplanation(c.out, e)
	return nil
}

func printExplanation(out io.Writer, e pop.Explanation) {
	for _, s := range e.Sentences {
		fmt.Fprintln(out, s)
	}
	if len(e.Decisions) > 0 {
		fmt.Fprintln(out, "\nLast decisions:")
	}
	for _, d := range e.Decisions {
		wanted := ""
		if d.Wanted != d.Announced {
			wanted = fmt.Sprintf(" (wanted %s, guard %s)", d.Wanted, d.Guard.Answer)
		}
		fmt.Fprintf(out, "  %s  %s%s: %s\n", d.At.UTC().Format("2006-01-02 15:04:05.000"), d.Announced, wanted, d.Reason)
	}
}
