package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"anyedge/test/bench/rig"
)

// row is one line of the table.
type row struct {
	scenario, proxy             string
	rate, p50, p99, cost, span  string
	agent, ratio, against, goal string
}

var header = row{
	scenario: "scenario", proxy: "proxy", rate: "per second", p50: "p50", p99: "p99",
	cost: "cost", span: "least to most", agent: "agent", ratio: "ratio", against: "to", goal: "bar",
}

func (r row) cells() []string {
	return []string{r.scenario, r.proxy, r.rate, r.p50, r.p99, r.cost, r.span, r.agent, r.ratio, r.against, r.goal}
}

// leftAligned tells the columns of words from those of figures.
var leftAligned = map[int]bool{0: true, 1: true, 9: true, 10: true}

// peers are the proxies that anyedge is held against.
var peers = []rig.Kind{rig.HAProxy, rig.Nginx}

// table turns measurements into rows of medians.
func table(scenarios []scenario, proxies []rig.Kind, results map[key][]result) []row {
	var rows []row
	for _, s := range scenarios {
		for i, kind := range proxies {
			all := results[key{s.name, kind}]
			r := row{proxy: string(kind), cost: amount(median(all, costOf), s.unit)}
			if i == 0 {
				r.scenario = s.title
			}
			costs := sorted(all, costOf)
			r.span = amount(costs[0], s.unit) + " to " + amount(costs[len(costs)-1], s.unit)
			if s.unit == perRequest {
				r.rate = fmt.Sprintf("%.0f", median(all, func(r result) float64 { return r.rate }))
				r.p50 = latency(median(all, func(r result) float64 { return float64(r.p50) }))
				r.p99 = latency(median(all, func(r result) float64 { return float64(r.p99) }))
			}
			if kind == rig.Anyedge {
				if s.unit == perRequest {
					r.agent = amount(median(all, func(r result) float64 { return r.agent }), s.unit)
				}
				r.compare(s, results)
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// compare fills in anyedge's ratio to the better peer, if one was measured.
func (r *row) compare(s scenario, results map[key][]result) {
	best := math.Inf(1)
	for _, kind := range peers {
		if all := results[key{s.name, kind}]; len(all) > 0 {
			if m := median(all, costOf); m < best {
				best, r.against = m, string(kind)
			}
		}
	}
	if math.IsInf(best, 1) {
		return
	}
	ratio := median(results[key{s.name, rig.Anyedge}], costOf) / best
	r.ratio = fmt.Sprintf("%.2f", ratio)
	if s.bar != 0 {
		verdict := "met"
		// Compared as printed, so that the table does not contradict itself.
		if math.Round(ratio*100) > math.Round(s.bar*100) {
			verdict = "missed"
		}
		r.goal = fmt.Sprintf("≤ %.2f %s", s.bar, verdict)
	}
}

func costOf(r result) float64 { return r.cost }

func sorted(all []result, of func(result) float64) []float64 {
	values := make([]float64, 0, len(all))
	for _, r := range all {
		values = append(values, of(r))
	}
	slices.SortFunc(values, cmp.Compare)
	return values
}

// median of an even number of values is the mean of the middle two.
func median(all []result, of func(result) float64) float64 {
	values := sorted(all, of)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// amount prints a cost with its unit.
func amount(v float64, unit string) string {
	if unit == perConnection {
		return fmt.Sprintf("%.1f kB", v/1000)
	}
	return fmt.Sprintf("%.1f %s", math.Round(v*10)/10+0, unit) // plus 0: no "-0.0"
}

// latency prints nanoseconds to three digits.
func latency(ns float64) string {
	d := time.Duration(ns)
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f µs", d.Seconds()*1e6)
}

// legend says what the columns mean.
const legend = `Cost is user and system time of the proxy's processes per request, less what they spend without load; for idle
connections it is resident memory per connection. Of anyedge it is the worker's; the agent, which takes no part in requests,
has a column of its own. The ratio is anyedge's cost to that of the better of HAProxy and nginx. All figures are medians.
`

// writeText prints rows in aligned columns: words to the left, figures to the
// right, a blank line before each scenario.
func writeText(w io.Writer, rows []row) error {
	rows = append([]row{header}, rows...)
	widths := make([]int, len(header.cells()))
	for _, r := range rows {
		for i, cell := range r.cells() {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		if r.scenario != "" && r != header {
			b.WriteByte('\n')
		}
		var line strings.Builder
		for i, cell := range r.cells() {
			fill := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if leftAligned[i] {
				line.WriteString(cell + fill + "  ")
			} else {
				line.WriteString(fill + cell + "  ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := fmt.Fprint(w, b.String(), "\n", legend)
	return err
}

// writeMarkdown prints the same as a Markdown table.
func writeMarkdown(w io.Writer, facts string, rows []row) {
	line := func(cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintf(w, "%s\n", facts)
	line(header.cells())
	rule := slices.Repeat([]string{"---:"}, len(header.cells()))
	for i := range leftAligned {
		rule[i] = ":---"
	}
	line(rule)
	for _, r := range rows {
		line(r.cells())
	}
	fmt.Fprintf(w, "\n%s", legend)
}
