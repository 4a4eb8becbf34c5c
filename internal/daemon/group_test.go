package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var discard = slog.New(slog.DiscardHandler)

// obey runs until told to stop, then returns err.
func obey(name string, err error) Task {
	return NewTask(name, func(ctx context.Context) error {
		<-ctx.Done()
		return err
	})
}

func TestGroupErrors(t *testing.T) {
	boom := errors.New("boom")
	fail := NewTask("bgp", func(context.Context) error { return boom })
	for _, tt := range []struct {
		name  string
		tasks []Task
		want  string
		is    error
	}{
		{"empty", nil, "", nil},
		{"first failure names its task", []Task{obey("dns", nil), fail}, "bgp: boom", boom},
		{"cancellation is no failure", []Task{obey("dns", context.Canceled), fail}, "bgp: boom", boom},
		{"wrapped cancellation is no failure", []Task{obey("dns", fmt.Errorf("read: %w", context.Canceled)), fail}, "bgp: boom", boom},
		{"failure to end is told too", []Task{obey("dns", errors.New("file lost")), fail}, "bgp: boom\ndns: file lost", boom},
		{"silent end", []Task{obey("dns", nil), NewTask("admin", func(context.Context) error { return nil })}, "admin: ended by itself", ErrEnded},
		{"cancellation of its own making", []Task{NewTask("fleet", func(context.Context) error { return context.Canceled })}, "fleet: context canceled", context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewGroup(discard)
			g.Add(tt.tasks...)
			err := g.Run(t.Context())
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want || !errors.Is(err, tt.is) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestGroupCauseReachesTheOthers(t *testing.T) {
	boom := errors.New("boom")
	g := NewGroup(discard)
	g.Add(
		NewTask("bgp", func(context.Context) error { return boom }),
		NewTask("dns", func(ctx context.Context) error {
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), boom) {
				t.Errorf("cause %v", context.Cause(ctx))
			}
			return context.Cause(ctx)
		}),
	)
	if err := g.Run(t.Context()); err.Error() != "bgp: boom" {
		t.Errorf("got %v", err)
	}
}

func TestGroupEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("received SIGTERM")
	cancel(cause)
	g := NewGroup(discard)
	g.Add(obey("a", nil), obey("b", context.Canceled), obey("c", cause))
	if err := g.Run(ctx); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestGroupJoinsAndNamesWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := NewGroup(slog.New(slog.NewTextHandler(&log, nil)))
		ended := false
		g.Add(
			obey("quick", nil),
			NewTask("drain", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(slowStop + time.Second)
				ended = true
				return nil
			}),
		)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			time.Sleep(time.Second)
			cancel(errors.New("received SIGTERM"))
		}()
		if err := g.Run(ctx); err != nil {
			t.Errorf("got %v", err)
		}
		if !ended {
			t.Error("returned before its task did")
		}
		if got := log.String(); strings.Count(got, "\n") != 2 ||
			!strings.Contains(got, `msg=stopping cause="received SIGTERM"`) ||
			!strings.Contains(got, `msg="still waiting for tasks to end" tasks=drain`) {
			t.Errorf("log:\n%s", got)
		}
	})
}
