package gslb

import (
	"runtime"

	"anyedge/gslb/steer"

	"golang.org/x/sys/unix"
)

// SpareProcessors is how many processors (P) of the runtime a process with a Node
// needs beside those of the sockets: one for who builds a table, one for who makes
// a plan, and one for the garbage collector, which takes a quarter of all. With
// fewer, a thread that comes back from a system call with queries has to wait for
// one, up to the 10 ms of a time slice.
const SpareProcessors = 3

// BuildTable is steer.Build on a thread that gives way to those that answer
// queries: a table of a million networks takes a second of a core.
func BuildTable(in steer.Input) (table *steer.Table, err error) {
	background(func() { table, err = steer.Build(in) })
	return table, err
}

// background runs f on a thread that gives way to those that answer queries, and
// returns when f has.
func background(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not unlocked: the thread ends with the goroutine, because an unprivileged
		// one could not get its priority back.
		runtime.LockOSThread()
		giveWay()
		f()
	}()
	<-done
}

// giveWay lowers the priority of the thread. It gets a tenth of a contended core,
// and not less: a flood of queries must not keep old tables in force. Its time
// slices are long, because a thread with a shorter one need not wait for the end
// of it (Linux 6.12). Where that is refused, the thread is like any other.
func giveWay() {
	const tenth, slice = 10, 100_000_000 // nice, ns
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: tenth, Runtime: slice}, 0)
}
