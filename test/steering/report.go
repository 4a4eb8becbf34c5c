package main

import (
	"fmt"
	"strings"

	"anyedge/gslb/steer/world"
)

// report is what a page is written from.
type report struct {
	cfg      world.Config
	world    *world.World
	outages  []world.Outage
	outcomes []*world.Outcome
}

const heading = `# Ways of steering, compared

A day of a synthetic Internet, played by "make simulate-steering". How it is made, and what it leaves out, is in the
comment of package gslb/steer/world.
`

// table has a line for each way of steering.
func (r *report) table() string {
	var b strings.Builder
	b.WriteString("| steering | mean RTT | median | p90 | p99 | PoP minutes above the ceiling | demand above it | fullest PoP | demand sent to a failed PoP |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|\n")
	for _, o := range r.outcomes {
		fmt.Fprintf(&b, "| %s | %.1f ms | %.1f | %.1f | %.1f | %d | %.2f %% | %.0f %% | %.3f %% |\n", o.Steering,
			o.RTT.Mean(), o.RTT.Quantile(0.5), o.RTT.Quantile(0.9), o.RTT.Quantile(0.99),
			o.OverloadMinutes, 100*o.Overflow, 100*o.Worst, 100*o.Unserved)
	}
	return b.String()
}

// text explains the table.
func (r *report) text() string {
	capacity, optimum := r.outcomes[world.Capacity], r.outcomes[world.Optimum]
	var failed []string
	for _, o := range r.outages {
		failed = append(failed, fmt.Sprintf("%s %s to %s", r.world.Pops[o.Pop].Name, clock(o.From), clock(o.To)))
	}
	return fmt.Sprintf(`![distribution of round trips, and the fullest PoP over the day](steering.svg)

%d PoPs, %d client networks, ceilings of %.2f times the greatest demand in all, %d failures: %s (UTC).

- **anycast only** is what routing does alone; it learns of a failure at once.
- **nearest** is the least great circle distance.
- **measured latency** takes the least RTT known, with an error of 5 %%; a tenth of all pairs is estimated by distance.
- **capacity-aware** has the same measurements and divides clients so that no PoP is above 85 %% of its ceiling, by demand
  that it knows two minutes late with an error of 5 %%. It makes a plan every two minutes and moves at most 5 %% of demand
  by choice each time; %.1f times all demand moved over the day.
- **latency optimum** is a bound: every client at the PoP of least true RTT, known at once, whatever the ceilings.

The p90 of capacity-aware steering is %.1f %% above that of the bound. DNS learns of a failure a minute late, TTL included.
`, len(r.world.Pops), len(r.world.Clients), r.cfg.Spare, len(r.outages), strings.Join(failed, ", "),
		capacity.Moved, 100*(capacity.RTT.Quantile(0.9)/optimum.RTT.Quantile(0.9)-1))
}

func clock(minute int) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }
