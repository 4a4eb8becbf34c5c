package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"anyedge/configs"
	"anyedge/internal/audit"
	"anyedge/internal/ops"
)

// auditEntries is the answer of GET /v1/audit.
type auditEntries struct {
	Entries []audit.Entry `json:"entries"`
}

// auditEndpoint is the part of a node's admin API that shows what operators did.
func auditEndpoint(entries func(audit.Query) []audit.Entry) ops.Endpoint {
	return ops.Endpoint{
		Method: http.MethodGet, Path: "/v1/audit", Doc: "what operators did to this node; ?last=N&since=TIME&by=NAME&act=ACT",
		Handle: func(_ context.Context, r ops.Request) (any, error) {
			q, err := auditQuery(r)
			if err != nil {
				return nil, err
			}
			return auditEntries{entries(q)}, nil
		},
	}
}

// actor is who a request comes from, by their own account and in fact.
func actor(r ops.Request, by string) audit.Actor {
	return audit.Actor{By: by, From: r.Remote.String()}
}

func auditQuery(r ops.Request) (q audit.Query, err error) {
	if q.Last, err = last(r, 100); err != nil {
		return q, err
	}
	if text := r.Query("since"); text != "" {
		if q.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return q, ops.BadRequest("since: %.40q is not a time such as 2026-01-02T15:04:05Z", text)
		}
	}
	q.By, q.Act = r.Query("by"), audit.Act(r.Query("act"))
	if q.Act != "" && !slices.Contains(audit.Acts(), q.Act) {
		return q, ops.BadRequest("act: %.40q is none of %s", q.Act, acts())
	}
	return q, nil
}

// acts lists the kinds of acts for people.
func acts() string {
	var names []string
	for _, a := range audit.Acts() {
		names = append(names, string(a))
	}
	return strings.Join(names, ", ")
}

// runAudit prints what operators did to a node.
func runAudit(c *invocation) error {
	address := c.adminFlag()
	count := c.flags.Int("last", 20, "print so many, the newest")
	var since configs.Duration
	c.flags.TextVar(&since, "since", since, "only of the last `duration`, such as 24h")
	by := c.flags.String("by", "", "only what this `person` did, by their own account")
	act := c.flags.String("act", "", "only acts of a `kind`: "+acts())
	asJSON := c.jsonFlag()
	if err := c.parse(0); err != nil {
		return err
	}
	if *count < 0 {
		return usagef("--last: %d is negative", *count)
	}
	query := url.Values{"last": {strconv.Itoa(*count)}}
	if since > 0 {
		query.Set("since", time.Now().Add(-since.Std()).UTC().Format(time.RFC3339))
	}
	if *by != "" {
		query.Set("by", *by)
	}
	if *act != "" {
		query.Set("act", *act)
	}
	node, err := c.thisNode(*address)
	if err != nil {
		return err
	}
	var answer auditEntries
	if done, err := c.fetch(node, "/v1/audit?"+query.Encode(), *asJSON, &answer); done || err != nil {
		return err
	}
	return printAudit(c.out, answer.Entries)
}

// printAudit writes acts for people, the newest last.
func printAudit(out io.Writer, entries []audit.Entry) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(out, "No such act of an operator is on record.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "AT\tBY\tFROM\tACT\tON\tWHAT")
	for _, e := range entries {
		what := []string{e.What}
		if e.Forced {
			what = append(what, "by force")
		}
		if !e.Until.IsZero() {
			what = append(what, "until "+e.Until.UTC().Format(time.DateTime))
		}
		if e.Error != "" {
			what = append(what, "FAILED: "+e.Error)
		}
		what = slices.DeleteFunc(what, func(s string) bool { return s == "" })
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.At.UTC().Format(time.DateTime),
			oneLine(e.By), oneLine(e.From), e.Act, oneLine(e.On), oneLine(strings.Join(what, ", ")))
	}
	return w.Flush()
}

// oneLine keeps what somebody wrote from adding lines and columns of its own.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
