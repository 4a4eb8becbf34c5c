package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// step is one event of the story and what must follow from it. It returns a
// few words on what was seen.
type step struct {
	name string
	// failures is how many requests of the load may fail meanwhile: none,
	// those in flight when the step began, or any number, which is shown.
	failures tolerance
	run      func(context.Context) (string, error)
}

type tolerance int

const (
	none tolerance = iota
	inFlight
	shown
)

// settle is how long the load goes on before a step, with new connections, and
// after it, so that a late failure is counted where it belongs.
const settle = 300 * time.Millisecond

// play runs the steps under the steady load and prints a line for each. It
// goes on after a failed step and returns an error that names all of them.
func (l *Lab) play(ctx context.Context, steps []step) error {
	loadCtx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.load.Run(loadCtx)
	}()
	defer func() { stop(); <-ended }()

	start, first := time.Now(), l.load.mark()
	fmt.Fprintf(l.Out, "%-6s %-34s %9s  %-22s %s\n", "", "step", "took", "requests failed", "seen")
	var failed []string
	for _, s := range steps {
		if err := l.playStep(ctx, s); err != nil {
			failed = append(failed, s.name)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	total, took := l.load.since(first), time.Since(start)
	fmt.Fprintf(l.Out, "\n%d requests in %.0f s (%.0f a second), %d failed.\n",
		total.sent, took.Seconds(), float64(total.sent)/took.Seconds(), total.failed)
	if rate := float64(total.sent) / took.Seconds(); rate < 200 && l.cfg.Rate >= 200 {
		failed = append(failed, fmt.Sprintf("load of %.0f requests a second, under 200", rate))
	}
	if len(failed) > 0 {
		return errors.New("failed: " + strings.Join(failed, "; "))
	}
	fmt.Fprintln(l.Out, "Every step held.")
	return nil
}

func (l *Lab) playStep(ctx context.Context, s step) error {
	// Kept connections go to where the route leads now, so that whatever
	// happens there happens to them.
	l.load.reconnect()
	select {
	case <-time.After(settle):
	case <-ctx.Done():
	}
	before, flying := l.load.mark(), l.load.inFlight.Load()
	start := time.Now()
	seen, err := s.run(ctx)
	took := time.Since(start)
	select {
	case <-time.After(settle):
	case <-ctx.Done():
	}
	n := l.load.since(before)
	switch {
	case err != nil:
	case s.failures == none && n.failed > 0:
		err = fmt.Errorf("%d requests failed, none may: %s", n.failed, l.load.lastFailure())
	case s.failures == inFlight && n.failed > max(flying, 1):
		err = fmt.Errorf("%d requests failed, at most the %d in flight may: %s", n.failed, max(flying, 1), l.load.lastFailure())
	}
	word := "ok"
	if err != nil {
		word, seen = "FAILED", err.Error()
	}
	fmt.Fprintf(l.Out, "%-6s %-34s %6d ms  %-22s %s\n", word, s.name, took.Milliseconds(), fmt.Sprintf("%d of %d", n.failed, n.sent), seen)
	return err
}
