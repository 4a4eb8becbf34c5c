package gslb

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// realtime keeps the thread that answers a UDP socket before all ordinary ones,
// of this process and of others, as long as it needs little of its core: a query
// then waits for no time slice of somebody else's, and so not for a table that is
// being built or for the garbage collector. A busier thread is an ordinary one: a
// flood of queries starves nothing, and more of them come together in a batch.
//
// It takes CAP_SYS_NICE or RLIMIT_RTPRIO (sched(7)); where that is refused, the
// thread is an ordinary one for good.
type realtime struct {
	raised  bool
	refused error
	looked  time.Time
	used    time.Duration // CPU time of the thread when looked at
}

// The shares of its core, as divisors, above which a thread becomes an ordinary
// one, and below which it is raised again. An ordinary thread needs less of its
// core for the same queries, therefore the distance.
const (
	lowerAbove = 6
	raiseBelow = 8
)

// newRealtime raises the thread. The calling goroutine stays on the thread, which
// ends with it: no other goroutine ever has the priority.
func newRealtime(now time.Time) *realtime {
	runtime.LockOSThread()
	r := &realtime{looked: now, used: threadTime()}
	r.raise()
	return r
}

// adapt raises or lowers the thread by its share of the core since the last time.
// It costs a system call, and is for every few milliseconds.
func (r *realtime) adapt(now time.Time) {
	elapsed := now.Sub(r.looked)
	r.looked = now
	if r.refused != nil {
		return
	}
	used := threadTime()
	share := used - r.used
	r.used = used
	switch {
	case r.raised && share > elapsed/lowerAbove:
		r.raised = setScheduler(unix.SCHED_NORMAL, 0) != nil
	case !r.raised && share < elapsed/raiseBelow:
		r.raise()
	}
}

func (r *realtime) raise() {
	r.refused = setScheduler(unix.SCHED_FIFO, 1)
	r.raised = r.refused == nil
}

// setScheduler sets the policy of the calling thread, and of none that it starts.
func setScheduler(policy, priority uint32) error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
}

// threadTime is the CPU time of the calling thread.
func threadTime() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // has no way to fail
	return time.Duration(t.Nano())
}
