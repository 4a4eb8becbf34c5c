package daemon

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminate returns a context that ends when parent does, or at the first
// SIGINT or SIGTERM; its cause then names the signal. A second such signal ends
// the process at once, with status 128 plus the signal's number, for an operator
// who will not wait for the orderly end.
//
// The caller calls stop to give both signals back their usual effect. It ends
// the context too, and returns when nothing runs any more.
func Terminate(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for first := true; ; first = false {
			select {
			case <-quit:
				return
			case s := <-signals:
				if !first {
					os.Exit(128 + int(s.(syscall.Signal)))
				}
				cancel(fmt.Errorf("received %s", unix.SignalName(s.(syscall.Signal))))
			}
		}
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(quit)
		<-done
		cancel(context.Canceled)
	})
}

// Hangups returns a channel that gets a value when SIGHUP asks for a reload.
// Several signals that nobody has taken yet count as one. A process that does
// not call it keeps the usual effect of SIGHUP, which is to end with its
// terminal. The caller calls stop to give the signal that effect back.
func Hangups() (hangups <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP)
	return signals, func() { signal.Stop(signals) }
}
