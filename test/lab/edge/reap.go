package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"anyedge/test/program"
)

// reapCommand is the first argument of a program that has been started to reap:
// see [StartReaper].
const reapCommand = "reap"

// reapTimeout bounds the end of a lab.
const reapTimeout = 20 * time.Second

// Main is [program.Main] for a program that calls [StartReaper].
func Main(name string, run program.Run) {
	program.Main(name, func(ctx context.Context, args []string, out, errOut io.Writer) error {
		if len(args) != 2 || args[0] != reapCommand {
			return run(ctx, args, out, errOut)
		}
		signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		if err := Reap(args[1], os.Stdin); err != nil {
			return fmt.Errorf("clean up: %w", err)
		}
		return nil
	})
}

// StartReaper starts the calling program once more, to reap the prefix, in a
// session of its own. The caller's main function is [Main]: there that process
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
	cmd := exec.Command(program, reapCommand, prefix)
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
