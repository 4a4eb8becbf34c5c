package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"anyedge/test/lab/vrrp"
)

// takeoverBar is how long clients of a small PoP may be without service.
const takeoverBar = time.Second

// takeovers are the events of a PoP of two nodes that the table shows: what a
// master dies of without a word, and a worker that hangs.
var takeovers = []vrrp.Event{vrrp.Hang, vrrp.Kill, vrrp.PowerOff}

// takeOver plays the takeovers of every pair of nodes.
func (b *bench) takeOver(ctx context.Context) error {
	for _, pair := range vrrp.Pairs() {
		pair.Binary, pair.Consul, pair.Log = b.options.Binary, b.options.Consul, b.log
		if err := b.pair(ctx, pair); err != nil {
			return fmt.Errorf("%s and %s: %w", pair.First, pair.Second, err)
		}
	}
	return nil
}

func (b *bench) pair(ctx context.Context, o vrrp.Options) (err error) {
	l, err := vrrp.Up(ctx, o)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
		defer cancel()
		err = errors.Join(err, l.Down(ctx))
	}()
	if err != nil {
		return err
	}
	possible := vrrp.Events(o.First)
	for _, e := range takeovers {
		rows := make(map[vrrp.Family]*vrrp.Row)
		for _, f := range vrrp.Families() {
			rows[f] = &vrrp.Row{First: o.First, Second: o.Second, Event: e, Family: f}
		}
		if !slices.Contains(possible, e) {
			continue
		}
		for n := range b.runs {
			seen, err := l.Play(ctx, e)
			if err != nil {
				return fmt.Errorf("run %d: %w", n+1, err)
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
