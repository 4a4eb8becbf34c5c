package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"anyedge/test/program"

	"github.com/miekg/dns"
)

const perfReport = `Statistics:

  Queries sent:         267583
  Queries completed:    267580 (100.00%)
  Queries lost:         3 (0.00%)

  Response codes:       NOERROR 240822 (90.00%), NXDOMAIN 26758 (10.00%)
  Average packet size:  request 52, response 75
  Run time (s):         3.002133
  Queries per second:   89129.9
`

func TestParse(t *testing.T) {
	w := world{missing: 0.1}
	got, err := w.parse([]byte(perfReport))
	if want := (load{267580, 3, 3002133 * time.Microsecond}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for about, change := range map[string][2]string{
		"refusals":    {"NXDOMAIN", "REFUSED"},
		"a third":     {"(10.00%)", "(9.00%), SERVFAIL 10 (1.00%)"},
		"many lost":   {"lost:         3", "lost:         300"},
		"no answers":  {"completed:    267580", "completed:    0"},
		"other share": {"NOERROR 240822 (90.00%), NXDOMAIN 26758", "NOERROR 230822 (90.00%), NXDOMAIN 36758"},
	} {
		if got, err := w.parse([]byte(strings.Replace(perfReport, change[0], change[1], 1))); err == nil {
			t.Errorf("%s: got %+v, want an error", about, got)
		}
	}
}

func TestReport(t *testing.T) {
	o := options{Comparison: program.Comparison{Rounds: 3, Length: time.Second}, servers: servers[:3]}
	results := map[string][]result{
		anyedge: {{rate: 1000, cost: 4}, {rate: 3000, cost: 5.5}, {rate: 2000, cost: 9}},
		"gdnsd": {{cost: 5}, {cost: 4}, {cost: 6}},
		"knot":  {{cost: 7}, {cost: 8}, {cost: 6, lost: 2}},
	}
	got := report(o, results)
	for _, want := range []string{
		"| anyedge | 2000 | 5.50 µs | 4.00 to 9.00 µs | 0 | 1.10 to gdnsd | ≤ 1.1 met |",
		"| knot | 0 | 7.00 µs | 6.00 to 8.00 µs | 2 |  |  |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	results["gdnsd"][0].cost = 4.9
	if got := report(o, results); !strings.Contains(got, "1.12 to gdnsd | ≤ 1.1 missed") {
		t.Error(got)
	}
}

// The load is what the package says it is.
func TestMix(t *testing.T) {
	var w world
	mix := w.mix()
	all, subnets := 0, 0
	for len(mix) > 0 {
		length := int(mix[0])<<8 | int(mix[1])
		var q dns.Msg
		if err := q.Unpack(mix[2 : 2+length]); err != nil {
			t.Fatal(err)
		}
		all++
		subnets += len(q.IsEdns0().Option)
		mix = mix[2+length:]
	}
	if all != queries || subnets != queries/2 || w.missing < 0.08 || w.missing > 0.12 {
		t.Errorf("%d queries, %d with subnet, %v missing", all, subnets, w.missing)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"--rounds", "0"}, {"--seconds", "61"}, {"--only", "bind"}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
