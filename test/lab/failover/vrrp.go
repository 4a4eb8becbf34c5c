package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"anyedge/test/lab/vrrp"
)

// takeoverBar is how long clients of a small PoP may be without service.
const takeoverBar = time.Second

// takeovers are the events of a PoP of two nodes that the table shows: what the
// other one has to notice by itself. "make bench-vrrp" has more, and keepalived.
var takeovers = []vrrp.Event{vrrp.Kill, vrrp.PowerOff}

// takeOver plays the takeovers between two nodes of the product.
func (b *bench) takeOver(ctx context.Context) (err error) {
	o := vrrp.Options{First: vrrp.Anyedge, Second: vrrp.Anyedge, Binary: b.options.Binary, Consul: b.options.Consul, Log: b.log}
	l, err := vrrp.Up(ctx, o)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
		defer cancel()
		err = errors.Join(err, l.Down(ctx))
	}()
	if err != nil {
		return err
	}
	for _, e := range takeovers {
		rows := make(map[vrrp.Family]*vrrp.Row)
		for _, f := range vrrp.Families() {
			rows[f] = &vrrp.Row{First: o.First, Second: o.Second, Event: e, Family: f}
		}
		for n := range b.runs {
			seen, err := l.Play(ctx, e)
			if err != nil {
				return fmt.Errorf("VRRP takeover, run %d: %w", n+1, err)
			}
			for f, t := range seen {
				rows[f].Runs = append(rows[f].Runs, t)
			}
		}
		for _, f := range vrrp.Families() {
			b.takeovers = append(b.takeovers, *rows[f])
		}
	}
	return nil
}

const takeoverLegend = `
Two nodes on one LAN, VRRPv3 with 100 ms between advertisements; clients on the LAN open connections all the time. The
longest gap is without any request served.
`

// renderTakeovers prints the second table in Markdown.
func renderTakeovers(rows []vrrp.Row) string {
	if len(rows) == 0 {
		return ""
	}
	cells := [][]string{{"VRRP takeover", "from", "to", "family", "served by the other", "longest gap", "failed", "bar"}}
	for _, r := range rows {
		failed := 0
		for _, t := range r.Runs {
			failed += t.Failed
		}
		word := "missed"
		if takenOver(r) {
			word = "met"
		}
		both := func(figure func(vrrp.Takeover) time.Duration) string {
			return milliseconds(r.Median(figure)) + " / " + milliseconds(r.Worst(figure))
		}
		cells = append(cells, []string{
			string(r.Event), string(r.First), string(r.Second), string(r.Family),
			both(func(t vrrp.Takeover) time.Duration { return t.Served }), both(gap), fmt.Sprint(failed),
			fmt.Sprintf("gap ≤ %s worst: %s", takeoverBar, word),
		})
	}
	return "\n" + layout(cells) + takeoverLegend
}

func gap(t vrrp.Takeover) time.Duration { return t.Gap }

func takenOver(r vrrp.Row) bool { return r.Worst(gap) <= takeoverBar }

// judgeTakeovers is the error for bars that were missed.
func judgeTakeovers(rows []vrrp.Row) error {
	var missed []string
	for _, r := range rows {
		if !takenOver(r) {
			missed = append(missed, fmt.Sprintf("%s of %s, %s: no service for %s", r.Event, r.First, r.Family, r.Worst(gap)))
		}
	}
	if missed == nil {
		return nil
	}
	return errors.New("VRRP takeover: missed: " + strings.Join(missed, "; "))
}
