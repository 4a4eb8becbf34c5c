// Package watch notes, with times, what happens on a machine of a lab: changes
// of the kernel's routes ([FIB]), BGP messages on a cable ([Wire]), and the
// connections that pass over it ([Flows]).
//
// Watchers only listen: nothing that is watched can tell. Each is opened first,
// from which moment on nothing is missed, then Run notes until its context
// ends. What was noted is in a [Record].
//
// # Concurrency
//
// A Record may be read and awaited by many goroutines while Run runs.
package watch

import (
	"context"
	"sync"
)

// Record is a list that only grows. The zero Record is empty and ready.
type Record[T any] struct {
	mu    sync.Mutex
	all   []T
	grown chan struct{} // closed and replaced when something is added; nil until somebody waits
}

func (r *Record[T]) add(t T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, t)
	if r.grown != nil {
		close(r.grown)
		r.grown = nil
	}
}

// All returns what was noted so far, the oldest first. The caller does not change
// it.
func (r *Record[T]) All() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[:len(r.all):len(r.all)]
}

// Await returns the first entry, from the oldest on, that matches, and waits for
// it if it is not there yet. When ctx ends first it returns its cause.
func (r *Record[T]) Await(ctx context.Context, match func(T) bool) (T, error) {
	for seen := 0; ; {
		r.mu.Lock()
		fresh := r.all[seen:]
		if len(fresh) == 0 && r.grown == nil {
			r.grown = make(chan struct{})
		}
		grown := r.grown
		r.mu.Unlock()
		for _, t := range fresh {
			if match(t) {
				return t, nil
			}
		}
		if seen += len(fresh); len(fresh) > 0 {
			continue
		}
		select {
		case <-grown:
		case <-ctx.Done():
			var zero T
			return zero, context.Cause(ctx)
		}
	}
}
