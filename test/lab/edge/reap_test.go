package edge

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"anyedge/test/lab/netns"
)

const reapVariable = "ANYEDGE_TEST_REAP"

// TestReap: what a program leaves behind that was killed is taken away when its
// end of the pipe is closed, and not before.
func TestReap(t *testing.T) {
	if prefix := os.Getenv(reapVariable); prefix != "" { // the reaper of the test
		if err := Reap(prefix, os.Stdin); err != nil {
			t.Fatal(err)
		}
		return
	}
	if os.Getenv("ANYEDGE_LAB") == "" || os.Geteuid() != 0 {
		t.Skip("namespaces need root: set ANYEDGE_LAB=1")
	}
	const prefix = "aereap-"
	space := netns.Space(prefix + "left")
	if err := netns.Space("").IP(t.Context(), "netns add "+string(space)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Remove(context.WithoutCancel(t.Context()), prefix) })
	ended, err := space.Start(t.TempDir(), os.DevNull, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	reaper := exec.Command(os.Args[0], "-test.run=^TestReap$")
	reaper.Env = append(os.Environ(), reapVariable+"="+prefix)
	reaper.Stderr = os.Stderr
	alive, err := reaper.StdinPipe()
	if err == nil {
		err = reaper.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
		t.Error("reaped while the program lived")
	default:
	}
	alive.Close()
	if err := reaper.Wait(); err != nil {
		t.Error(err)
	}
	<-ended
	if left, err := netns.List(prefix); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
