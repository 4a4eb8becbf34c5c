package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Start starts a program in the namespace, in a session of its own and with its
// output added to a file. It outlives the caller. The channel is closed when it
// has ended, for as long as the caller lives to see that.
func (s Space) Start(dir, output string, argv ...string) (<-chan struct{}, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", filepath.Base(argv[0]), s, err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() // how it ended is in its output
		close(ended)
	}()
	return ended, nil
}

// Run runs a program in the namespace and returns what it printed.
func (s Space) Run(ctx context.Context, argv ...string) ([]byte, error) {
	var out strings.Builder
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.Do(cmd.Start); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s in %s: %w: %s", strings.Join(argv, " "), s, err, strings.TrimSpace(out.String()))
	}
	return []byte(out.String()), nil
}

// Process is a running process of a namespace.
type Process struct {
	PID  int
	Args []string // the command line
}

// Name is the base name of the program.
func (p Process) Name() string { return filepath.Base(p.Args[0]) }

// Signal sends a signal.
func (p Process) Signal(sig syscall.Signal) error { return syscall.Kill(p.PID, sig) }

// Processes returns what runs in some namespaces, but for the caller's own
// process. A process that ended and was not waited for does not run.
func Processes(spaces ...Space) (map[Space][]Process, error) {
	inodes := make(map[uint64]Space)
	for _, s := range spaces {
		if st, err := os.Stat(s.path()); err == nil {
			inodes[st.Sys().(*syscall.Stat_t).Ino] = s
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := make(map[Space][]Process)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process may end between any two of these.
		st, err := os.Stat(filepath.Join("/proc", e.Name(), "ns/net"))
		if err != nil {
			continue
		}
		s, ok := inodes[st.Sys().(*syscall.Stat_t).Ino]
		if !ok {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue
		}
		found[s] = append(found[s], Process{pid, strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")})
	}
	return found, nil
}

// Kill kills everything in some namespaces and returns when it is gone.
func Kill(ctx context.Context, spaces ...Space) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		// What was found a moment ago may have had children since.
		found, err := Processes(spaces...)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, all := range found {
			for _, p := range all {
				if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("kill %s (%d): %w", p.Name(), p.PID, err)
				}
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("processes that do not end: %v", found)
		}
	}
}

// Remove kills everything in the namespaces whose names begin with prefix and
// deletes them, their links included.
func Remove(ctx context.Context, prefix string) error {
	if prefix == "" {
		return errors.New("no prefix: that would be every namespace")
	}
	spaces, err := List(prefix)
	if err != nil || len(spaces) == 0 {
		return err
	}
	if err := Kill(ctx, spaces...); err != nil {
		return err
	}
	lines := make([]string, len(spaces))
	for i, s := range spaces {
		lines[i] = "netns del " + string(s)
	}
	if err := Space("").IP(ctx, lines...); err != nil {
		return err
	}
	left, err := List(prefix)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: %v", fs.ErrExist, left)
	}
	return err
}

// Find returns the processes of a namespace that match.
func (s Space) Find(match func(Process) bool) ([]Process, error) {
	found, err := Processes(s)
	return slices.DeleteFunc(found[s], func(p Process) bool { return !match(p) }), err
}
