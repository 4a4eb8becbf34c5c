package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"anyedge/internal/daemon"
)

// process is one part of the lab that runs as a process of its own, as in
// production, so that it can be killed, stopped and started like one.
type process struct {
	name string // also of its log and pid file
	path string
	args []string
	dir  string

	mu    sync.Mutex
	child *daemon.Child
	log   *os.File
}

// stopGrace bounds the orderly end of one process.
const stopGrace = 10 * time.Second

// start runs the process. Its output goes to NAME.log, its id to NAME.pid.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(filepath.Join(p.dir, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.path, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	child, err := daemon.Start(cmd)
	if err != nil {
		log.Close()
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.child, p.log = child, log
	pid := []byte(strconv.Itoa(child.Pid()) + "\n")
	return os.WriteFile(filepath.Join(p.dir, p.name+".pid"), pid, 0o600)
}

// kill ends the process as a crash would, and waits for its end.
func (p *process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return errors.New(p.name + " does not run")
	}
	if err := p.child.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	p.child.Wait()
	p.endLocked()
	return nil
}

// signal sends a signal to the process.
func (p *process) signal(s os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return errors.New(p.name + " does not run")
	}
	return p.child.Signal(s)
}

// freeze stops the process where it is, as a hang would; thaw lets it go on.
func (p *process) freeze() error { return p.signal(syscall.SIGSTOP) }
func (p *process) thaw() error   { return p.signal(syscall.SIGCONT) }

// stop ends the process in order. One that does not run is left alone.
func (p *process) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	p.child.Stop(ctx)
	p.endLocked()
}

func (p *process) endLocked() {
	p.child = nil
	p.log.Close()
	os.Remove(filepath.Join(p.dir, p.name+".pid"))
}

// ended returns the exit of a process that ended by itself, or nil. The
// channel is nil, and blocks for ever, when the process does not run.
func (p *process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return nil
	}
	return p.child.Done()
}

// stopAll ends processes side by side.
func stopAll(log *slog.Logger, processes []*process) {
	var wg sync.WaitGroup
	for _, p := range processes {
		wg.Go(func() {
			start := time.Now()
			p.stop()
			log.Debug("stopped", "process", p.name, "took", time.Since(start))
		})
	}
	wg.Wait()
}
