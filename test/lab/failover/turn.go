package main

import "sync"

// turns has the labs take turns on one machine: one event is measured at a
// time, while other labs may recover from theirs. What is measured in
// milliseconds is measured alone: a node that starts again elsewhere on two
// cores would be in the figure.
type turns struct {
	mu         sync.Mutex
	changed    sync.Cond
	measuring  bool
	alone      int // how many wait to measure alone
	recovering int
}

func newTurns() *turns {
	t := new(turns)
	t.changed.L = &t.mu
	return t
}

// measure waits for the turn and calls f, in which the lab is at work: it
// recovers until calm is called, once.
func (t *turns) measure(alone bool, f func()) (calm func()) {
	t.mu.Lock()
	if alone {
		t.alone++
	}
	for t.measuring || alone && t.recovering > 0 || !alone && t.alone > 0 {
		t.changed.Wait()
	}
	if alone {
		t.alone--
	}
	t.measuring = true
	t.mu.Unlock()
	f()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.measuring = false
	return t.recoverLocked()
}

// recovers says that a lab is at work until calm is called, once.
func (t *turns) recovers() (calm func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.recoverLocked()
}

func (t *turns) recoverLocked() (calm func()) {
	t.recovering++
	t.changed.Broadcast()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.recovering--
		t.changed.Broadcast()
	}
}
