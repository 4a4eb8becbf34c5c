package gslb

import (
	"runtime"
	"testing"

	"anyedge/gslb/steer"

	"golang.org/x/sys/unix"
)

func TestGiveWay(t *testing.T) {
	nice := make(chan int)
	go func() {
		runtime.LockOSThread() // and the thread ends here
		giveWay()
		attr, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Error(err)
		}
		nice <- int(attr.Nice)
	}()
	if got := <-nice; got < 10 {
		t.Errorf("nice %d, want 10 at least", got)
	}
}

func TestBuildTable(t *testing.T) {
	if table, err := BuildTable(steering()); err != nil || len(table.Names()) != len(steering().Names) {
		t.Errorf("%v, %v", table, err)
	}
	if table, err := BuildTable(steer.Input{Pops: []steer.Pop{{}}}); err == nil || table != nil {
		t.Error("a bad input makes a table")
	}
}
