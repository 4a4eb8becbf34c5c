package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newProcess is this test binary in a role.
func newProcess(t *testing.T, role string) *process {
	t.Helper()
	t.Setenv(roleVariable, role)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each end takes a second under -race
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: "part", path: binary, dir: t.TempDir()}
	t.Cleanup(p.stop)
	return p
}

func (p *process) mustStart(t *testing.T) (pid int) {
	t.Helper()
	before := strings.Count(p.logged(), "ready")
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	await(t, p.name+" is ready", func() bool { return strings.Count(p.logged(), "ready") > before })
	text, err := os.ReadFile(filepath.Join(p.dir, p.name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || signal(pid, syscall.Signal(0)) != nil {
		t.Fatalf("%q is not the id of a process: %v", text, err)
	}
	return pid
}

func (p *process) logged() string {
	text, _ := os.ReadFile(filepath.Join(p.dir, p.name+".log"))
	return string(text)
}

// stateOf is a process's state letter; T is stopped.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

func expectGone(t *testing.T, p *process, pid int) {
	t.Helper()
	if signal(pid, syscall.Signal(0)) == nil {
		t.Errorf("process %d lives", pid)
	}
	if _, err := os.Stat(filepath.Join(p.dir, p.name+".pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its pid file is still there: %v", err)
	}
	if p.ended() != nil {
		t.Error("ended blocks not for ever")
	}
}

func TestProcessIsKilledAndStartsAgain(t *testing.T) {
	p := newProcess(t, "obedient")
	first := p.mustStart(t)
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	expectGone(t, p, first)
	if strings.Contains(p.logged(), "ended in order") {
		t.Error("it ended in order; a crash does not")
	}
	for what, f := range map[string]func() error{"kill": p.kill, "freeze": p.freeze, "thaw": p.thaw} {
		if err := f(); err == nil || err.Error() != "part does not run" {
			t.Errorf("%s of a dead process: %v", what, err)
		}
	}
	if second := p.mustStart(t); second == first {
		t.Errorf("the same process %d", second)
	}
	if n := strings.Count(p.logged(), "ready"); n != 2 {
		t.Errorf("the log has %d starts, want both", n)
	}
}

func TestProcessStopsInOrder(t *testing.T) {
	p := newProcess(t, "obedient")
	pid := p.mustStart(t)
	within(t, stopGrace/2, "an orderly end", p.stop)
	expectGone(t, p, pid)
	if !strings.Contains(p.logged(), "ended in order") {
		t.Errorf("log %q", p.logged())
	}
	p.stop() // one that does not run is left alone
}

func TestProcessFreezesAndThaws(t *testing.T) {
	p := newProcess(t, "obedient")
	pid := p.mustStart(t)
	for range 2 {
		if err := p.freeze(); err != nil {
			t.Fatal(err)
		}
		await(t, "it stands still", func() bool { return stateOf(t, pid) == "T" })
		if err := p.thaw(); err != nil {
			t.Fatal(err)
		}
		await(t, "it goes on", func() bool { return stateOf(t, pid) != "T" })
	}
	if err := p.freeze(); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "a frozen process is killed", func() {
		if err := p.kill(); err != nil {
			t.Error(err)
		}
	})
	expectGone(t, p, pid)
}

func TestProcessThatEndsByItselfIsSeen(t *testing.T) {
	p := newProcess(t, "brief")
	if p.ended() != nil {
		t.Error("not started, and ended")
	}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the end shows", func() { <-p.ended() })
	if !strings.Contains(p.logged(), "ready") {
		t.Errorf("log %q", p.logged())
	}
}

func TestProcessThatCannotStartIsNamed(t *testing.T) {
	p := &process{name: "part", path: filepath.Join(t.TempDir(), "nothing"), dir: t.TempDir()}
	if err := p.start(); err == nil || !strings.HasPrefix(err.Error(), "start part: ") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if p.ended() != nil || p.kill() == nil {
		t.Error("it is said to run")
	}
}

func TestStopAllStopsSideBySide(t *testing.T) {
	var all []*process
	for _, name := range []string{"a", "b", "c"} {
		p := newProcess(t, "obedient")
		p.name = name
		p.mustStart(t)
		all = append(all, p)
	}
	within(t, stopGrace/2, "all end", func() { stopAll(quiet, all) })
	for _, p := range all {
		if p.child != nil || !strings.Contains(p.logged(), "ended in order") {
			t.Errorf("%s: log %q", p.name, p.logged())
		}
	}
}
