package daemon

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

func TestFirstSignalEndsTheContext(t *testing.T) {
	for sig, want := range map[syscall.Signal]string{
		syscall.SIGINT:  "received SIGINT",
		syscall.SIGTERM: "received SIGTERM",
	} {
		child, out := launch(t, "obedient")
		child.Signal(sig)
		out.expect(want)
		if got := child.Wait().String(); got != "exit status 7" {
			t.Errorf("%v: exit %q, want exit status 7", sig, got)
		}
	}
}

func TestSecondSignalExits(t *testing.T) {
	child, out := launch(t, "slow")
	child.Signal(syscall.SIGTERM)
	out.expect("received SIGTERM")
	child.Signal(syscall.SIGINT)
	if got := child.Wait().String(); got != "exit status 130" {
		t.Errorf("exit %q, want exit status 130", got)
	}
}

func TestHangups(t *testing.T) {
	child, out := launch(t, "hangups")
	child.Signal(syscall.SIGHUP)
	out.expect("reload")
	child.Signal(syscall.SIGHUP)
	if got := child.Wait().String(); got != "signal: hangup" {
		t.Errorf("exit %q, want signal: hangup", got)
	}
}

func TestTerminateFollowsItsParent(t *testing.T) {
	cause := errors.New("the parent's cause")
	parent, cancel := context.WithCancelCause(t.Context())
	ctx, stop := Terminate(parent)
	cancel(cause)
	<-ctx.Done()
	if got := context.Cause(ctx); got != cause {
		t.Errorf("cause %v", got)
	}
	stop()
	stop() // twice does no harm

	ctx, stop = Terminate(t.Context())
	stop()
	if ctx.Err() == nil {
		t.Error("the context outlives stop")
	}
}
