package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"anyedge/test/lab/edge"
)

// figure is a time of a run, if there is one.
type figure func(edge.Failover) (time.Duration, bool)

// between is the time from one point of a run to another.
func between(from, to func(edge.Failover) time.Time) figure {
	return func(f edge.Failover) (time.Duration, bool) {
		a, b := from(f), to(f)
		return b.Sub(a), !a.IsZero() && !b.IsZero()
	}
}

func at(f edge.Failover) time.Time { return f.At }

// verdict is when the node had judged: its health, or what an operator wants.
func verdict(f edge.Failover) time.Time {
	if f.Verdict.IsZero() {
		return f.Decided
	}
	return f.Verdict
}

func decided(f edge.Failover) time.Time { return f.Decided }

func update(f edge.Failover) time.Time { return f.Update }

func elsewhere(f edge.Failover) time.Time { return f.Moved }

// slowest is how long a request took that was served at last: about a second
// when its first segment was lost in a gap between two routes.
func slowest(f edge.Failover) (time.Duration, bool) {
	d := f.Results.Slowest()
	return d, d > 0
}

// columns are the figures of the table.
var columns = []struct {
	title string
	of    figure
}{
	{"verdict", between(at, verdict)},
	{"to decision", between(verdict, decided)},
	{"to UPDATE", between(verdict, update)},
	{"route gone", between(at, func(f edge.Failover) time.Time { return f.Gone })},
	{"last packet", between(at, func(f edge.Failover) time.Time { return f.LastPacket })},
	{"first served elsewhere", between(at, func(f edge.Failover) time.Time { return f.Served })},
	{"all served elsewhere", between(at, elsewhere)},
	{"slowest request", slowest},
	{"route back", between(at, func(f edge.Failover) time.Time { return f.Back })},
	{"client back", between(at, func(f edge.Failover) time.Time { return f.Returned })},
}

// bar is what an event must keep to.
type bar struct {
	text string
	met  func([]outcome) bool
}

var updateSoon = bar{"verdict to UPDATE ≤ 5 ms median", func(all []outcome) bool {
	values := values(all, between(verdict, update))
	return len(values) > 0 && median(values) <= 5*time.Millisecond
}}

func movedWithin(limit time.Duration) bar {
	return bar{fmt.Sprintf("served elsewhere ≤ %s worst", limit), func(all []outcome) bool {
		values := values(all, between(at, elsewhere))
		return len(values) == len(all) && slices.Max(values) <= limit
	}}
}

// requests are those over new and over kept connections.
func (o outcome) requests() edge.Results { return slices.Concat(o.Results, o.Kept) }

var noneFailed = bar{"0 failed requests", func(all []outcome) bool {
	return !slices.ContainsFunc(all, func(o outcome) bool { return len(o.requests().Failed()) > 0 })
}}

// values are the figures of those runs that have one, sorted.
func values(all []outcome, of figure) []time.Duration {
	var some []time.Duration
	for _, o := range all {
		if v, ok := of(o.Failover); ok {
			some = append(some, v)
		}
	}
	slices.Sort(some)
	return some
}

// median of sorted values; of an even number it is the mean of the middle two.
func median(sorted []time.Duration) time.Duration {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

const legend = `
Times in milliseconds, median / worst. They count from the event, but for "to decision" and "to UPDATE", which count from
the verdict: the node's own judgment of its health, or in a drain its decision. Between verdict and decision is the lease
that the fleet's store grants. "Route gone" and "route back" are the kernel's of the PoP's router. A client of the PoP
opens 100 connections a second with one request each. "Last packet" is its last to the old PoP, and "all served
elsewhere" the first end of a request from which on no new one failed or reached the old PoP. The slowest request is one
that was served; about a second means that its SYN was lost on the way and TCP sent it again.

In the drain, the client sends 400 more requests a second over 20 connections that it keeps. "Broken" are requests whose
connection was open while the client's path changed: to anycast without state another PoP's node is a stranger, and
resets it, whatever the old one does. The client of the drain repeats such a request once over a new connection, as
browsers do (RFC 9110 section 9.2.2). "Failed" is what failed for good; a connection that broke at any other time makes
the run wrong.
`

// render prints the table in Markdown.
func render(events []event, results map[key][]outcome) string {
	header := []string{"event", "router"}
	for _, c := range columns {
		header = append(header, c.title)
	}
	rows := [][]string{append(header, "requests", "failed", "broken", "bar")}
	for _, e := range events {
		for _, d := range daemons {
			all := results[key{e.name, d}]
			if len(all) == 0 {
				continue
			}
			rows = append(rows, row(e, string(d), all))
		}
	}
	return layout(rows) + legend
}

func row(e event, daemon string, all []outcome) []string {
	cells := []string{e.title, daemon}
	for _, c := range columns {
		cells = append(cells, spread(values(all, c.of)))
	}
	requests, failed, broken := 0, 0, 0
	var verdicts []string
	for _, o := range all {
		every := o.requests()
		requests += len(every)
		failed += len(every.Failed())
		broken += len(every.Repeated())
		if o.wrong != nil {
			verdicts = append(verdicts, "WRONG: "+strings.ReplaceAll(o.wrong.Error(), "\n", "; "))
		}
	}
	for _, b := range e.bars {
		word := "missed"
		if b.met(all) {
			word = "met"
		}
		verdicts = append(verdicts, b.text+": "+word)
	}
	return append(cells, fmt.Sprint(requests), fmt.Sprint(failed), fmt.Sprint(broken), strings.Join(verdicts, "; "))
}

// spread prints median and worst.
func spread(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "–"
	}
	return milliseconds(median(sorted)) + " / " + milliseconds(sorted[len(sorted)-1])
}

// milliseconds prints to three digits or so.
func milliseconds(d time.Duration) string {
	ms := float64(d.Microseconds()) / 1000
	if ms < 100 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// layout pads the cells of a Markdown table.
func layout(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var s strings.Builder
	line := func(cell func(i int) string) {
		for i := range widths {
			s.WriteString("| " + cell(i) + " ")
		}
		s.WriteString("|\n")
	}
	for n, r := range rows {
		line(func(i int) string { return r[i] + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(r[i])) })
		if n == 0 {
			line(func(i int) string { return strings.Repeat("-", widths[i]) })
		}
	}
	return s.String()
}

// judge is the error for what is not as it must be.
func judge(events []event, results map[key][]outcome) error {
	var errs []error
	for _, e := range events {
		for _, d := range daemons {
			all := results[key{e.name, d}]
			for _, b := range e.bars {
				if len(all) > 0 && !b.met(all) {
					errs = append(errs, fmt.Errorf("%s behind %s: missed: %s", e.title, d, b.text))
				}
			}
			for i, o := range all {
				if o.wrong != nil {
					errs = append(errs, fmt.Errorf("%s behind %s, run %d: %w", e.title, d, i+1, o.wrong))
				}
			}
		}
	}
	return errors.Join(errs...)
}
