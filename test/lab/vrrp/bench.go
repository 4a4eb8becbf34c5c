package vrrp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Pairs are the pairs of nodes to be tried: the product with itself, and with
// keepalived on either side. The files are the caller's to name.
func Pairs() []Options {
	return []Options{
		{First: Anyedge, Second: Anyedge},
		{First: Anyedge, Second: Keepalived},
		{First: Keepalived, Second: Anyedge},
	}
}

// Row is what a client saw of one event over one family, time after time.
type Row struct {
	First, Second Daemon
	Event         Event
	Family        Family
	Runs          []Takeover
}

// Median returns the median of a figure, and Worst the largest. Both are 0
// without runs.
func (r Row) Median(figure func(Takeover) time.Duration) time.Duration {
	all := r.sorted(figure)
	if len(all) == 0 {
		return 0
	}
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// Worst returns the largest of a figure: see Median.
func (r Row) Worst(figure func(Takeover) time.Duration) time.Duration {
	all := r.sorted(figure)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1]
}

func (r Row) sorted(figure func(Takeover) time.Duration) []time.Duration {
	var all []time.Duration
	for _, t := range r.Runs {
		all = append(all, figure(t))
	}
	slices.Sort(all)
	return all
}

// The figures of a row.
func served(t Takeover) time.Duration { return t.Served }
func gap(t Takeover) time.Duration    { return t.Gap }

// Header is over the columns of [Row.String].
const Header = "first      -> second     event             family  runs | moved: median   worst | no service: median   worst"

// String is a line of a table, times in milliseconds.
func (r Row) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d.Microseconds())/1000) }
	return fmt.Sprintf("%-10s -> %-10s %-17s %-6s %5d | %13s %7s | %18s %7s", r.First, r.Second, r.Event, r.Family, len(r.Runs),
		ms(r.Median(served)), ms(r.Worst(served)), ms(r.Median(gap)), ms(r.Worst(gap)))
}

// Bench brings the LAN of one pair up, plays every event so many times, passes the
// rows to each as they are complete, and takes the LAN away.
func Bench(ctx context.Context, o Options, runs int, each func(Row)) (err error) {
	l, err := Up(ctx, o)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err = errors.Join(err, l.Down(ctx))
	}()
	if err != nil {
		return err
	}
	for _, e := range Events(o.First) {
		rows := make(map[Family]*Row)
		for _, f := range Families() {
			rows[f] = &Row{First: o.First, Second: o.Second, Event: e, Family: f}
		}
		for n := range runs {
			seen, err := l.Play(ctx, e)
			if err != nil {
				return fmt.Errorf("%s and %s, run %d: %w", o.First, o.Second, n+1, err)
			}
			for f, t := range seen {
				rows[f].Runs = append(rows[f].Runs, t)
			}
		}
		for _, f := range Families() {
			each(*rows[f])
		}
	}
	return nil
}
