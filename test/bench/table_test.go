package main

import (
	"strings"
	"testing"
	"time"

	"anyedge/test/bench/rig"
)

func costs(values ...float64) []result {
	var all []result
	for _, v := range values {
		all = append(all, result{rate: 1000, p50: time.Millisecond, p99: 2 * time.Second, cost: v, agent: 0.5})
	}
	return all
}

func TestTableComparesWithTheBetterPeer(t *testing.T) {
	limited := scenario{name: "h1", title: "H1", unit: perRequest, bar: 1.15}
	free := scenario{name: "h1", title: "H1", unit: perRequest}
	for _, tt := range []struct {
		name               string
		s                  scenario
		own, haproxy, peer []result
		ratio, to, bar     string
	}{
		{"the median counts, not the mean", limited, costs(11, 100, 10), costs(20), costs(10), "1.10", "nginx", "≤ 1.15 met"},
		{"even numbers", limited, costs(9, 10), costs(10), costs(20), "0.95", "haproxy", "≤ 1.15 met"},
		{"at the bar as printed", limited, costs(11.54), costs(10), costs(20), "1.15", "haproxy", "≤ 1.15 met"},
		{"over the bar", limited, costs(11.6), costs(10), costs(20), "1.16", "haproxy", "≤ 1.15 missed"},
		{"no bar", free, costs(30), costs(10), costs(20), "3.00", "haproxy", ""},
		{"one peer only", limited, costs(20), nil, costs(20), "1.00", "nginx", "≤ 1.15 met"},
		{"no peer", limited, costs(20), nil, nil, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			results := map[key][]result{{"h1", rig.Anyedge}: tt.own}
			proxies := []rig.Kind{rig.Anyedge}
			for kind, r := range map[rig.Kind][]result{rig.HAProxy: tt.haproxy, rig.Nginx: tt.peer} {
				if r != nil {
					results[key{"h1", kind}] = r
					proxies = append(proxies, kind)
				}
			}
			rows := table([]scenario{tt.s}, proxies, results)
			if len(rows) != len(proxies) {
				t.Fatalf("%d rows for %d proxies", len(rows), len(proxies))
			}
			if r := rows[0]; r.ratio != tt.ratio || r.against != tt.to || r.goal != tt.bar {
				t.Errorf("ratio %q to %q, bar %q; want %q to %q, %q", r.ratio, r.against, r.goal, tt.ratio, tt.to, tt.bar)
			}
			for _, r := range rows[1:] {
				if r.ratio != "" || r.agent != "" || r.scenario != "" {
					t.Errorf("a peer's row says %+v", r)
				}
			}
		})
	}
}

func TestTextIsAligned(t *testing.T) {
	results := map[key][]result{
		{"h1", rig.Anyedge}:   costs(9.96, 12.3),
		{"h1", rig.HAProxy}:   costs(10),
		{"idle", rig.Anyedge}: {{cost: 13_579}},
		{"idle", rig.HAProxy}: {{cost: 14_000}},
	}
	s := []scenario{
		{name: "h1", title: "H1 keep-alive", unit: perRequest, bar: 1.15},
		{name: "idle", title: "idle", unit: perConnection, bar: 1},
	}
	rows := table(s, []rig.Kind{rig.Anyedge, rig.HAProxy}, results)
	var text strings.Builder
	if err := writeText(&text, rows); err != nil {
		t.Fatal(err)
	}
	const want = `
scenario       proxy    per second      p50     p99     cost       least to most   agent  ratio  to       bar

H1 keep-alive  anyedge        1000  1.00 ms  2.00 s  11.1 µs  10.0 µs to 12.3 µs  0.5 µs   1.11  haproxy  ≤ 1.15 met
               haproxy        1000  1.00 ms  2.00 s  10.0 µs  10.0 µs to 10.0 µs

idle           anyedge                               13.6 kB  13.6 kB to 13.6 kB           0.97  haproxy  ≤ 1.00 met
               haproxy                               14.0 kB  14.0 kB to 14.0 kB
`
	got, _, _ := strings.Cut("\n"+text.String(), "\n\n"+legend)
	if got+"\n" != want {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
}

func TestMarkdownHasAsManyCellsInEveryLine(t *testing.T) {
	var b strings.Builder
	writeMarkdown(&b, "facts\n", []row{{scenario: "H1", proxy: "anyedge"}, {proxy: "nginx"}})
	lines := 0
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		lines++
		if got, want := strings.Count(line, "|"), len(header.cells())+1; got != want {
			t.Errorf("%d bars in %q, want %d", got, line, want)
		}
	}
	if lines != 4 {
		t.Errorf("%d lines of table, want header, rule and two rows", lines)
	}
}

func TestAmount(t *testing.T) {
	for _, tt := range []struct {
		v          float64
		unit, want string
	}{
		{15.44, perRequest, "15.4 µs"},
		{-0.04, perRequest, "0.0 µs"},
		{-0.6, perRequest, "-0.6 µs"},
		{13_649, perConnection, "13.6 kB"},
	} {
		if got := amount(tt.v, tt.unit); got != tt.want {
			t.Errorf("amount(%v) = %q, want %q", tt.v, got, tt.want)
		}
	}
}
