package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// A Task is one part of a process that runs for as long as the process does.
type Task interface {
	// Run blocks until ctx ends, joins all that it started and returns nil or
	// the context's error. It returns earlier only when it cannot go on.
	Run(ctx context.Context) error
	// String names the task in logs and errors.
	String() string
}

// NewTask makes a Task of a function.
func NewTask(name string, run func(context.Context) error) Task {
	return task{name, run}
}

type task struct {
	name string
	run  func(context.Context) error
}

func (t task) Run(ctx context.Context) error { return t.run(ctx) }
func (t task) String() string                { return t.name }

// ErrEnded is the error of a task that returned nil while its context was still
// alive. A process that lost a part without a word must not look healthy.
var ErrEnded = errors.New("ended by itself")

// slowStop is the pace at which a group that is ending names the tasks it still
// waits for.
const slowStop = 5 * time.Second

// A Group runs tasks that live and end together.
type Group struct {
	log   *slog.Logger
	tasks []Task
}

// NewGroup returns a group with no tasks.
func NewGroup(log *slog.Logger) *Group { return &Group{log: log} }

// Add puts tasks into the group. It must not be called once the group runs.
func (g *Group) Add(tasks ...Task) { g.tasks = append(g.tasks, tasks...) }

// Run starts every task and returns when all have returned. The first task that
// fails, or ends while ctx is alive, cancels the others. A group without tasks
// returns nil at once.
//
// It returns nil when ctx ended and no task failed. Otherwise the error names
// the tasks that failed, the first to do so in front; what a task says about its
// own cancellation is not a failure.
func (g *Group) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	type result struct {
		index int
		err   error
	}
	results := make(chan result)
	for i, t := range g.tasks {
		go func() { results <- result{i, t.Run(ctx)} }()
	}

	var failures []error
	running := make(map[int]Task, len(g.tasks))
	for i, t := range g.tasks {
		running[i] = t
	}
	ending := ctx.Done()
	var remind <-chan time.Time // once the group is ending
	for len(running) > 0 {
		select {
		case r := <-results:
			t := running[r.index]
			delete(running, r.index)
			if err := verdict(ctx, r.err); err != nil {
				failures = append(failures, fmt.Errorf("%s: %w", t, err))
				cancel(failures[0])
			}
		case <-ending:
			ending = nil
			g.log.Info("stopping", "cause", context.Cause(ctx))
			ticker := time.NewTicker(slowStop)
			defer ticker.Stop()
			remind = ticker.C
		case <-remind:
			g.log.Warn("still waiting for tasks to end", "tasks", names(g.tasks, running))
		}
	}
	return errors.Join(failures...)
}

// verdict tells a failure from the orderly end of a task.
func verdict(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil && err == nil:
		return ErrEnded
	case ctx.Err() == nil:
		return err
	case errors.Is(err, ctx.Err()), errors.Is(err, context.Cause(ctx)):
		return nil
	}
	return err
}

// names lists the tasks that still run, in the order they were added.
func names(tasks []Task, running map[int]Task) string {
	var list []string
	for i := range tasks {
		if t, ok := running[i]; ok {
			list = append(list, t.String())
		}
	}
	return strings.Join(list, ", ")
}
