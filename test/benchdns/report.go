package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// bars are the most that anyedge may cost, as ratios to the best peer.
var bars = map[string]float64{anyedge: 1.1, driver: 0.3}

// result is one measurement.
type result struct {
	rate float64 // answers per second
	cost float64 // µs of CPU per answer
	lost int     // queries that got no answer
}

// report is a Markdown table of the medians, with what was measured where.
func report(o options, results map[string][]result) string {
	var b strings.Builder
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // a report without it is one too
	fmt.Fprintf(&b, "%d cores, Linux %s, %s. Rounds: %d, of %s each, in turns. dnsperf, %d sockets. Measured on %s.\n\n",
		runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), o.Rounds, o.Length, sockets, time.Now().UTC().Format(time.DateOnly))
	b.WriteString("| server | queries/s | CPU per query | least to most | lost | ratio | bar |\n| :--- | ---: | ---: | ---: | ---: | ---: | :--- |\n")
	best, bestName := math.Inf(1), ""
	for _, s := range o.servers {
		if c := median(results[s.name], costOf); bars[s.name] == 0 && c < best {
			best, bestName = c, s.name
		}
	}
	for _, s := range o.servers {
		all := results[s.name]
		cost, lost := median(all, costOf), 0
		for _, r := range all {
			lost += r.lost
		}
		least := slices.MinFunc(all, func(a, b result) int { return int(math.Copysign(1, a.cost-b.cost)) })
		most := slices.MaxFunc(all, func(a, b result) int { return int(math.Copysign(1, a.cost-b.cost)) })
		ratio, verdict := "", ""
		if bar := bars[s.name]; bar != 0 && bestName != "" {
			r := math.Round(cost/best*100) / 100 // compared as printed
			ratio = fmt.Sprintf("%.2f to %s", r, bestName)
			verdict = fmt.Sprintf("≤ %.1f met", bar)
			if r > bar {
				verdict = fmt.Sprintf("≤ %.1f missed", bar)
			}
		}
		fmt.Fprintf(&b, "| %s | %.0f | %.2f µs | %.2f to %.2f µs | %d | %s | %s |\n", s.name,
			median(all, func(r result) float64 { return r.rate }), cost, least.cost, most.cost, lost, ratio, verdict)
	}
	b.WriteString("\nCPU is user and system time of the server's processes; of " + driver + " also that of the program in the kernel, by its statistics, and the way there is a veth pair. All figures are medians, but for the sum of the queries lost.\n")
	return b.String()
}

func costOf(r result) float64 { return r.cost }

// median of an even number of values is the mean of the middle two.
func median(all []result, of func(result) float64) float64 {
	var values []float64
	for _, r := range all {
		values = append(values, of(r))
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
