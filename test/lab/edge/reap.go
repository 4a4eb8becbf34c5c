package edge

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ReapCommand is the first argument of a program that has been started to reap:
// see [StartReaper].
const ReapCommand = "reap"

// reapTimeout bounds the end of a lab.
const reapTimeout = 20 * time.Second

// StartReaper starts the calling program once more, with the arguments "reap" and
// the prefix, in a session of its own. That process has to call [Reap]: it
// takes the lab away when the caller dies, however that happens, unless the
// caller has said that it is done.
func StartReaper(prefix string) (done func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// The caller alone holds the writing end: the kernel closes it for the dead.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command(program, ReapCommand, prefix)
	cmd.Stdin, cmd.Stderr = read, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, err
	}
	return func() {
		write.WriteString("done\n")
		write.Close()
		cmd.Wait()
	}, nil
}

// Reap waits until alive ends, and then takes a lab away, unless alive had a
// word to say, or somebody else has claimed the prefix, who has done it then.
func Reap(prefix string, alive io.Reader) error {
	word, err := io.ReadAll(alive)
	if len(word) > 0 || err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), reapTimeout)
	defer cancel()
	// Who died may be about to lose the claim.
	for range claimTries {
		release, err := Claim(prefix)
		if err == nil {
			defer release()
			return Down(ctx, prefix)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		if err := pause(ctx, claimPause); err != nil {
			return err
		}
	}
	return nil
}

const (
	claimTries = 50
	claimPause = 20 * time.Millisecond
)
