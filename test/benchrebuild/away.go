package main

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A virtual machine's cores are taken away by its host now and then, for up to
// tens of milliseconds, and nothing that runs on them can help it. watch finds out
// when: on each core a thread that goes before all others of the machine wakes up
// every beat, and notes when it was late.
const (
	beat = 500 * time.Microsecond
	// late is more than such a thread waits for anything else.
	late = 250 * time.Microsecond
	// recovery is how long what had to wait for a core meanwhile is in the way of
	// others.
	recovery = 5 * time.Millisecond
)

// interval is from one time to another, in Unix nanoseconds.
type interval struct{ from, to int64 }

// watch notes when cores are away, until stop is called, which returns the
// intervals in order and disjoint. Without the right to real-time priority it
// knows of none: a thread that is late may have waited for the server.
func watch() (stop func() []interval) {
	done := make(chan struct{})
	var mutex sync.Mutex
	var all []interval
	var group sync.WaitGroup
	var allowed unix.CPUSet
	unix.SchedGetaffinity(0, &allowed) // none, if that fails
	for cpu := range 1024 {
		if !allowed.IsSet(cpu) {
			continue
		}
		group.Go(func() {
			found := beatOn(cpu, done)
			mutex.Lock()
			defer mutex.Unlock()
			all = append(all, found...)
		})
	}
	return func() []interval {
		close(done)
		group.Wait()
		return merged(all)
	}
}

// beatOn is the thread for one core.
func beatOn(cpu int, done <-chan struct{}) (found []interval) {
	runtime.LockOSThread() // and the thread ends here
	var one unix.CPUSet
	one.Set(cpu)
	if unix.SchedSetaffinity(0, &one) != nil || raise(2) != nil {
		return nil
	}
	pause := unix.NsecToTimespec(int64(beat))
	for before := time.Now(); ; {
		unix.Nanosleep(&pause, nil) // early is no harm
		now := time.Now()
		if now.Sub(before) > beat+late {
			found = append(found, interval{before.UnixNano(), now.UnixNano()})
		}
		before = now
		select {
		case <-done:
			return found
		default:
		}
	}
}

// raise gives the thread real-time priority, above that of the server's.
func raise(priority uint32) error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: priority}, 0)
}

// merged returns the intervals, each with its recovery, in order and disjoint.
func merged(all []interval) (list []interval) {
	slices.SortFunc(all, func(a, b interval) int { return int(a.from - b.from) })
	for _, i := range all {
		i.to += int64(recovery)
		if n := len(list); n > 0 && i.from <= list[n-1].to {
			list[n-1].to = max(list[n-1].to, i.to)
			continue
		}
		list = append(list, i)
	}
	return list
}

// touches reports whether any of the intervals, which are in order and disjoint,
// has a time in common with another.
func touches(away []interval, with interval) bool {
	i, _ := slices.BinarySearchFunc(away, with.from, func(a interval, from int64) int {
		if a.to < from {
			return -1
		}
		return 1
	})
	return i < len(away) && away[i].from <= with.to
}
