package gslb

import (
	"errors"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// policyNow is the scheduling policy of the calling thread.
func policyNow(t *testing.T) uint32 {
	t.Helper()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return attr.Policy
}

// An idle thread has real-time priority, a busy one has not, and a thread that is
// idle again has it again.
func TestRealtimeFollowsTheLoad(t *testing.T) {
	runtime.LockOSThread() // and the thread ends with the test
	start := time.Now()
	r := newRealtime(start)
	if errors.Is(r.refused, syscall.EPERM) {
		t.Skip("no right to real-time priority")
	}
	if r.refused != nil || policyNow(t) != unix.SCHED_FIFO {
		t.Fatalf("at first policy %d: %v", policyNow(t), r.refused)
	}
	// The thread's time is its own; that of the clock is what adapt is told.
	burn := func(d time.Duration) {
		for until := threadTime() + d; threadTime() < until; {
		}
	}
	now := start
	for _, step := range []struct {
		busy, of time.Duration
		want     uint32
	}{
		{20 * time.Millisecond, 400 * time.Millisecond, unix.SCHED_FIFO},
		{20 * time.Millisecond, 142 * time.Millisecond, unix.SCHED_FIFO}, // between the two shares
		{20 * time.Millisecond, 100 * time.Millisecond, unix.SCHED_NORMAL},
		{20 * time.Millisecond, 142 * time.Millisecond, unix.SCHED_NORMAL},
		{20 * time.Millisecond, 400 * time.Millisecond, unix.SCHED_FIFO},
	} {
		burn(step.busy)
		now = now.Add(step.of)
		r.adapt(now)
		if got := policyNow(t); got != step.want || r.raised != (got == unix.SCHED_FIFO) {
			t.Errorf("after %v of %v the policy is %d, want %d", step.busy, step.of, got, step.want)
		}
	}
}

// A thread begun by one with the priority does not get it (sched(7)).
func TestRealtimeResetsOnFork(t *testing.T) {
	attr := make(chan uint32)
	go func() {
		runtime.LockOSThread() // and the thread ends here
		if newRealtime(time.Now()).refused != nil {
			close(attr)
			return
		}
		own, err := unix.SchedGetAttr(0, 0)
		if err != nil || own.Flags&unix.SCHED_FLAG_RESET_ON_FORK == 0 {
			t.Errorf("flags %#x: %v", own.Flags, err)
		}
		attr <- own.Policy
	}()
	if _, ok := <-attr; !ok {
		t.Skip("no right to real-time priority")
	}
}

// Without the right to it the thread stays as it is, and nothing is tried again.
func TestRealtimeRefused(t *testing.T) {
	r := &realtime{refused: syscall.EPERM, looked: time.Now()}
	later := r.looked.Add(time.Second)
	r.adapt(later)
	if r.raised || r.looked != later {
		t.Errorf("%+v", r)
	}
}
