// Package bfd proves package bgp/bfd against other implementations, FRR's bfdd
// and BIRD, in two network namespaces with a link between them. It needs root
// and skips what it cannot run.
package bfd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"anyedge/bgp/bfd"
)

// engineArgument makes the test binary an engine.
const engineArgument = "bfd-engine"

func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], engineArgument) {
		if err := bfd.Serve(os.NewFile(3, "control")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// eventually bounds waits for what must happen; machines are busy.
const eventually = 20 * time.Second

// The two ends of the link.
var (
	ourSpace   = fmt.Sprintf("bfdt-%d-a", os.Getpid())
	theirSpace = fmt.Sprintf("bfdt-%d-b", os.Getpid())
)

const ourLink, theirLink = "bfdt-va", "bfdt-vb"

var (
	our4, their4         = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")
	our6, their6         = netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fd77::2")
	ourLocal, theirLocal = netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b")
)

// removeSpaces deletes the namespaces of the process pid, and those that tests
// have left that were killed.
func removeSpaces(pid int) {
	left, _ := filepath.Glob("/run/netns/bfdt-*")
	for _, path := range left {
		var owner int
		if _, err := fmt.Sscanf(filepath.Base(path), "bfdt-%d-", &owner); err != nil {
			continue
		}
		if owner == pid || errors.Is(syscall.Kill(owner, 0), syscall.ESRCH) {
			exec.Command("ip", "netns", "delete", filepath.Base(path)).Run()
		}
	}
}

// newLink makes the namespaces.
func newLink(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip here: install Debian's iproute2")
	}
	removeSpaces(os.Getpid())
	t.Cleanup(func() { removeSpaces(os.Getpid()) })
	for _, command := range []string{
		"ip netns add " + ourSpace,
		"ip netns add " + theirSpace,
		fmt.Sprintf("ip -n %s link add %s type veth peer name %s netns %s", ourSpace, ourLink, theirLink, theirSpace),
	} {
		run(t, strings.Fields(command)...)
	}
	for _, end := range []struct {
		space, link string
		addresses   []netip.Prefix
	}{
		{ourSpace, ourLink, []netip.Prefix{netip.PrefixFrom(our4, 24), netip.PrefixFrom(our6, 64), netip.PrefixFrom(ourLocal, 64)}},
		{theirSpace, theirLink, []netip.Prefix{netip.PrefixFrom(their4, 24), netip.PrefixFrom(their6, 64), netip.PrefixFrom(theirLocal, 64)}},
	} {
		run(t, "ip", "-n", end.space, "link", "set", "lo", "up")
		run(t, "ip", "-n", end.space, "link", "set", end.link, "addrgenmode", "none")
		run(t, "ip", "-n", end.space, "link", "set", end.link, "up")
		for _, p := range end.addresses {
			command := []string{"ip", "-n", end.space, "address", "add", p.String(), "dev", end.link}
			if p.Addr().Is6() {
				command = append(command, "nodad")
			}
			run(t, command...)
		}
	}
}

func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// look finds a program where Debian puts it.
func look(t *testing.T, packageName, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/lib/frr", "/usr/sbin", "/usr/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	t.Skipf("no %s here: install Debian's %s", name, packageName)
	return ""
}

// daemon is a program in their namespace, in the foreground.
type daemon struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	kill   func() // SIGKILL, and wait
}

func startDaemon(t *testing.T, command ...string) *daemon {
	t.Helper()
	// With real-time priority as our engine has: what is judged here is not how
	// a busy machine schedules the other side.
	prefix := []string{"-f", "10", "ip", "netns", "exec", theirSpace}
	d := &daemon{cmd: exec.Command("chrt", append(prefix, command...)...)}
	d.cmd.Stdout, d.cmd.Stderr = &d.output, &d.output
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.kill = sync.OnceFunc(func() {
		d.cmd.Process.Kill()
		d.cmd.Wait()
	})
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("%s:\n%s", command[0], &d.output)
		}
	})
	return d
}

// edge is a Manager whose engine is in our namespace.
type edge struct {
	*bfd.Manager
	t       *testing.T
	mark    string // the last argument of the engine
	stop    func()
	mu      sync.Mutex
	changes map[netip.Addr][]bfd.Change
}

func startEdge(t *testing.T, peers ...bfd.Peer) *edge {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t, mark: fmt.Sprintf("bfdt-engine-%d-%d", os.Getpid(), time.Now().UnixNano()), changes: make(map[netip.Addr][]bfd.Change)}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e.Manager = bfd.NewManager(bfd.Config{
		Engine: []string{"ip", "netns", "exec", ourSpace, self, engineArgument, e.mark},
	}, log, nil)
	for _, p := range peers {
		e.Watch(p.Address, func(c bfd.Change) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.changes[c.Peer] = append(e.changes[c.Peer], c)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(e.stop)
	e.set(peers...)
	return e
}

func (e *edge) set(peers ...bfd.Peer) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), eventually)
	defer cancel()
	if err := e.Set(ctx, peers); err != nil {
		e.t.Fatal(err)
	}
}

func (e *edge) session(peer netip.Addr) bfd.Status {
	for _, s := range e.Status() {
		if s.Peer == peer {
			return s
		}
	}
	return bfd.Status{}
}

func (e *edge) await(what string, peer netip.Addr, ok func(bfd.Status) bool) bfd.Status {
	e.t.Helper()
	var s bfd.Status
	await(e.t, what, func() bool { s = e.session(peer); return ok(s) }, func() string { return fmt.Sprintf("%+v", s) })
	return s
}

// failure waits for a failure of the session after the given time and returns
// how long it took.
func (e *edge) failure(peer netip.Addr, since time.Time) time.Duration {
	e.t.Helper()
	var found bfd.Change
	await(e.t, "a failure of "+peer.String(), func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		i := slices.IndexFunc(e.changes[peer], func(c bfd.Change) bool { return c.Failure && c.At.After(since) })
		if i >= 0 {
			found = e.changes[peer][i]
		}
		return i >= 0
	}, func() string { return fmt.Sprintf("%+v", e.session(peer)) })
	return found.At.Sub(since)
}

// kill ends the engine without a word. The Manager will start another.
func (e *edge) kill() {
	e.t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		e.t.Fatal(err)
	}
	for _, d := range dirs {
		var pid int
		if _, err := fmt.Sscan(d.Name(), &pid); err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if strings.HasSuffix(string(line), "\x00"+e.mark+"\x00") {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				e.t.Fatal(err)
			}
			return
		}
	}
	e.t.Fatal("no engine to kill")
}

// await polls, for the others have no notifications.
func await(t *testing.T, what string, ok func() bool, detail func() string) {
	t.Helper()
	for deadline := time.Now().Add(eventually); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s\n%s", eventually, what, detail())
		}
	}
}

// awaitSpeed waits until the session is Up and both send at p's interval.
func (e *edge) awaitSpeed(p bfd.Peer) {
	e.t.Helper()
	e.await("up at full speed", p.Address, func(s bfd.Status) bool {
		return up(s) && s.ReceiveInterval == p.TransmitInterval && s.TransmitInterval == p.TransmitInterval
	})
}

func up(s bfd.Status) bool { return s.State == bfd.Up }

// within checks a time that a detection took. It is generous, for other tests
// may be running; the figure itself is logged.
func within(t *testing.T, what string, took, detection time.Duration) {
	t.Helper()
	t.Logf("%s: noticed after %v, detection time %v", what, took.Round(100*time.Microsecond), detection)
	if took > detection+time.Second {
		t.Errorf("%s: noticed after %v, detection time %v", what, took, detection)
	}
}
