package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestChildStops(t *testing.T) {
	child, out := launch(t, "obedient")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	exit := child.Stop(ctx)
	out.expect("received SIGTERM")
	if got := exit.String(); got != "exit status 7" || exit.Success() {
		t.Errorf("exit %q, success %v", got, exit.Success())
	}
	if err := child.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v, want os.ErrProcessDone", err)
	}
	if again := child.Stop(t.Context()); again != exit || child.Wait() != exit {
		t.Errorf("a second Stop says %v, Wait says %v, want %v", again, child.Wait(), exit)
	}
}

func TestChildIsKilledAfterTheGrace(t *testing.T) {
	child, out := launch(t, "stubborn")
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan Exit)
	go func() { stopped <- child.Stop(ctx) }()
	out.expect("terminated") // it had its SIGTERM
	select {
	case exit := <-stopped:
		t.Fatalf("ended within its grace: %v", exit)
	default:
	}
	cancel()
	if got := (<-stopped).String(); got != "signal: killed" {
		t.Errorf("exit %q, want signal: killed", got)
	}
}

func TestChildIsKilledAtOnceWithoutGrace(t *testing.T) {
	child, out := launch(t, "stubborn")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := child.Stop(ctx).String(); got != "signal: killed" {
		t.Errorf("exit %q, want signal: killed", got)
	}
	out.ended()
}

func TestStoppedChildIsKilled(t *testing.T) {
	child, _ := launch(t, "obedient")
	if err := child.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := child.Stop(ctx).String(); got != "signal: killed" {
		t.Errorf("exit %q, want signal: killed", got)
	}
}

func TestChildGetsExtraFiles(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command("descriptor")
	cmd.ExtraFiles = []*os.File{r}
	out := capture(t, cmd)
	child, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	started(cmd)
	r.Close()
	fmt.Fprint(w, "hello")
	w.Close()
	out.expect("ready hello <nil>")
	if exit := child.Wait(); !exit.Success() || exit.String() != "exit status 0" {
		t.Errorf("exit %v", exit)
	}
}

func TestStartFails(t *testing.T) {
	child, err := Start(exec.Command("/does/not/exist"))
	if child != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start: %v, %v", child, err)
	}
}

// A grandchild that holds on to the output must not hide that the child ended.
func TestExitIsReportedWhileTheOutputIsHeldOpen(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd := exec.Command("/bin/sh", "-c", "cat <&3 >&1 & exit 3")
	cmd.ExtraFiles = []*os.File{r}
	cmd.Stdout = new(strings.Builder) // not a file: copied through a pipe
	cmd.WaitDelay = 10 * time.Millisecond
	child, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if got := child.Wait().String(); got != "exit status 3" {
		t.Errorf("exit %q, want exit status 3", got)
	}
}

// A SIGKILLed parent takes its child along: the pipe that the child inherited
// ends only when both are gone.
func TestChildDiesWithItsParent(t *testing.T) {
	cmd := command("parent")
	out := capture(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started(cmd)
	// The parent and the grandchild each say one thing, whoever gets to it first.
	said, ready := out.line(), out.line()
	if said == "ready" {
		said, ready = ready, said
	}
	if ready != "ready" {
		t.Fatalf("the grandchild said %q, want ready", ready)
	}
	grandchild, err := os.FindProcess(pidOf(t, said)) // a handle: never a stranger
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { grandchild.Kill() })
	if err := grandchild.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("the grandchild does not run: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	out.ended()
}

// The thread of the goroutine that called Start may end; the child must not.
func TestChildOutlivesTheCallersThread(t *testing.T) {
	cmd := command("echo")
	out := capture(t, cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var child *Child
	caller := onEndingThread(func() { child, err = Start(cmd) })
	if err != nil {
		t.Fatal(err)
	}
	started(cmd)
	out.expect("ready")
	for deadline := time.Now().Add(20 * time.Second); threadExists(caller); {
		if time.Now().After(deadline) {
			t.Fatal("the caller's thread does not end")
		}
		runtime.Gosched()
	}
	fmt.Fprintln(stdin, "alive")
	out.expect("alive")
	stdin.Close()
	if exit := child.Wait(); !exit.Success() {
		t.Errorf("exit %v", exit)
	}
}

// onEndingThread calls f on a thread that ends after it, and returns the
// thread's id.
func onEndingThread(f func()) int {
	threads := make(chan int)
	go func() {
		runtime.LockOSThread()
		if syscall.Gettid() == syscall.Getpid() { // the main thread never ends
			defer runtime.UnlockOSThread()
			threads <- onEndingThread(f)
			return
		}
		f()
		threads <- syscall.Gettid() // still locked: the thread ends with us
	}()
	return <-threads
}

func threadExists(tid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
	return err == nil
}

func TestExitInWords(t *testing.T) {
	for _, tt := range []struct {
		exit Exit
		want string
	}{
		{Exit{Err: errors.New("wait: no child processes")}, "wait: no child processes"},
		{Exit{State: new(os.ProcessState)}, "exit status 0"},
		{Exit{State: new(os.ProcessState), Err: errors.New("copy: broken pipe")}, "exit status 0 (copy: broken pipe)"},
	} {
		if got := tt.exit.String(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
