package bfd

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// realtimePriority is above every ordinary thread and below the kernel's own
// interrupt threads, which run at 50 (sched(7)).
const realtimePriority = 10

// raiseThread gives the calling thread real-time priority, and nothing that it
// starts.
func raiseThread() error {
	return raise(0, unix.SCHED_FLAG_RESET_ON_FORK)
}

// raiseProcess gives every thread of the process real-time priority, and those
// that come later: the engine's thread waits for others of its runtime.
func raiseProcess() error {
	for range 2 { // a thread may have begun another just before it was raised
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			id, err := strconv.Atoi(task.Name())
			if err != nil {
				return fmt.Errorf("list threads: %w", err)
			}
			if err := raise(id, 0); err != nil && err != unix.ESRCH {
				return err
			}
		}
	}
	return nil
}

func raise(thread int, flags uint64) error {
	return unix.SchedSetAttr(thread, &unix.SchedAttr{
		Size:     unix.SizeofSchedAttr,
		Policy:   unix.SCHED_FIFO,
		Flags:    flags,
		Priority: realtimePriority,
	}, 0)
}
