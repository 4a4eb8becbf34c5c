package daemon

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// outputDelay bounds the wait for the output of a child that has ended, which a
// grandchild may hold open. It does not apply to output that goes to a file.
const outputDelay = time.Second

// A Child is a process that this one started and that does not outlive it: the
// kernel kills it when this process dies, however that happens.
//
// It is only ever signalled through its process handle, so a signal cannot hit
// a stranger that got its process id.
type Child struct {
	process *os.Process
	done    chan struct{}
	exit    Exit // written before done is closed
}

// An Exit is how a child ended.
type Exit struct {
	// State is what the kernel said; nil if it could not be learned.
	State *os.ProcessState
	// Err is what went wrong around the child: it could not be waited for, or
	// its input or output could not be copied. A failure of the child itself is
	// not in here.
	Err error
}

// Start starts cmd, which the caller has set up and does not touch again.
//
// The child runs in a process group of its own: an interrupt typed at the
// terminal reaches this process only, which then ends its children in order.
func Start(cmd *exec.Cmd) (*Child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = cmp.Or(cmd.WaitDelay, outputDelay)

	c := &Child{done: make(chan struct{})}
	started := make(chan error)
	go c.run(cmd, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// run starts the child and follows it to its end on one thread. What the kernel
// calls the parent in PR_SET_PDEATHSIG is the thread that forked, not the
// process, and the Go runtime may end a thread at any time. Only a locked
// goroutine keeps its thread.
func (c *Child) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	c.process = cmd.Process
	started <- err
	if err != nil {
		return
	}
	err = cmd.Wait()
	if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
		err = nil // in words by State
	}
	c.exit = Exit{cmd.ProcessState, err}
	close(c.done)
}

// Pid returns the process id, for logs.
func (c *Child) Pid() int { return c.process.Pid }

// Done is closed when the child has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Wait blocks until the child has ended and says how. It may be called often.
func (c *Child) Wait() Exit {
	<-c.done
	return c.exit
}

// Signal sends a signal to the child. The error is os.ErrProcessDone when it
// has ended.
func (c *Child) Signal(s os.Signal) error { return c.process.Signal(s) }

// Stop asks the child to end with SIGTERM, kills it when ctx ends first, and
// returns how it ended. The deadline of ctx is the grace. It may be called at
// any time and more than once.
func (c *Child) Stop(ctx context.Context) Exit {
	// An error of Signal means that the child has ended, or that the kernel
	// refuses us, and then waiting and SIGKILL are what is left.
	if ctx.Err() == nil {
		_ = c.Signal(syscall.SIGTERM)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		_ = c.Signal(syscall.SIGKILL)
	}
	return c.Wait()
}

// Success reports whether the child ended with status 0.
func (e Exit) Success() bool { return e.State != nil && e.State.Success() && e.Err == nil }

// String says how the child ended in words, such as "exit status 2" or
// "signal: killed".
func (e Exit) String() string {
	switch {
	case e.Err == nil:
		return e.State.String()
	case e.State == nil:
		return e.Err.Error()
	}
	return e.State.String() + " (" + e.Err.Error() + ")"
}
