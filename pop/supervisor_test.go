package pop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"anyedge/configs"
	"anyedge/internal/health"
	"anyedge/origin"
	"anyedge/pop/proxy"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// crew is a supervisor of tiny workers on one socket.
type crew struct {
	*testing.T
	s       *supervisor
	set     *sockets
	address string
	events  chan workerEvent
	stop    func() // joins the supervisor
	done    chan struct{}
}

func newCrew(t *testing.T, grace time.Duration) *crew {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	set, err := bind(t.Context(), []configs.Listener{{Name: "web", Address: netip.MustParseAddrPort("127.0.0.1:0")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &crew{T: t, set: set, events: make(chan workerEvent, 100), done: make(chan struct{})}
	_, files, err := set.list()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFiles(files)
	l, err := net.FileListener(files[0])
	if err != nil {
		t.Fatal(err)
	}
	c.address = l.Addr().String()
	l.Close()

	c.s = newSupervisor(self, []string{tinyWorkerRole}, quiet, c.events)
	c.s.patience = patience
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(c.done)
		if err := c.s.run(ctx, func() time.Duration { return grace }); err != nil {
			t.Error(err)
		}
	}()
	c.stop = func() { cancel(); <-c.done }
	t.Cleanup(func() { c.stop(); set.closeExcept(nil) })
	return c
}

func (c *crew) apply(generation uint64, region string) error {
	return c.s.apply(c.Context(), proxy.Apply{Snapshot: &proxy.Snapshot{
		Generation: generation, Region: region, Pools: tinyPools(),
	}}, c.set)
}

func tinyPools() []proxy.Pool {
	return []proxy.Pool{{Config: configs.Pool{Name: "api"}, Backends: origin.Set{{Address: netip.MustParseAddrPort("127.0.0.1:9000")}}}}
}

func (c *crew) mustApply(generation uint64, region string) {
	c.Helper()
	if err := c.apply(generation, region); err != nil {
		c.Fatalf("generation %d: %v", generation, err)
	}
}

// await returns the next event that fits.
func (c *crew) await(what string, fits func(workerEvent) bool) workerEvent {
	c.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e := <-c.events:
			if fits(e) {
				return e
			}
		case <-deadline:
			c.Fatalf("no %s", what)
		}
	}
}

func (c *crew) exit() workerEvent {
	c.Helper()
	return c.await("exit", func(e workerEvent) bool { return e.vitals == nil })
}

// client is a connection to whoever serves the socket.
type client struct {
	*testing.T
	net.Conn
	lines *bufio.Reader
}

func (c *crew) dial() *client {
	c.Helper()
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &client{c.T, conn, bufio.NewReader(conn)}
}

func (c *client) ask(line string) string {
	c.Helper()
	fmt.Fprintln(c, line)
	answer, err := c.lines.ReadString('\n')
	if err != nil {
		c.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSpace(answer)
}

// who returns the process and generation that answer.
func (c *client) who() (pid int, generation uint64) {
	c.Helper()
	if _, err := fmt.Sscan(c.ask("who"), &pid, &generation); err != nil {
		c.Fatal(err)
	}
	return pid, generation
}

func TestSuccessorServesTheQueuedConnection(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	first, _ := c.dial().who()

	// A stopped process accepts nothing: the connection waits in the kernel
	// when the process ends.
	syscall.Kill(first, syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, first, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	queued := c.dial()
	c.s.kill(first)
	second, generation := queued.who()
	if second == first || generation != 1 {
		t.Errorf("served by process %d on generation %d, the first was %d", second, generation, first)
	}
	if e := c.exit(); e.pid != first || e.exited != "signal: killed" {
		t.Errorf("process %d ended by %q, want %d killed", e.pid, e.exited, first)
	}
	c.await("vitals of the successor", func(e workerEvent) bool { return e.vitals != nil && e.pid == second })
}

func TestKillSparesASuccessor(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	pid, _ := c.dial().who()
	c.s.kill(pid + 1)
	c.mustApply(2, tinyServes)
	if now, generation := c.dial().who(); now != pid || generation != 2 {
		t.Errorf("process %d on generation %d, want %d on 2", now, generation, pid)
	}
}

func TestCrashIsReportedWithItsStatus(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	fmt.Fprintln(c.dial(), "crash")
	if e := c.exit(); e.exited != "exit status 7" || e.at.IsZero() {
		t.Errorf("%+v", e)
	}
}

func TestSuccessorIsToldWhatBackendsWere(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	// The newest vitals are the ones that count: they are set here because a
	// tiny worker probes nobody.
	c.await("vitals", func(e workerEvent) bool { return e.vitals != nil })
	address := netip.MustParseAddrPort("127.0.0.1:9000")
	c.s.mu.Lock()
	c.s.vitals = &proxy.Vitals{Pools: []origin.Status{{Name: "api", Backends: []origin.BackendStatus{
		{Backend: origin.Backend{Address: address}, State: health.Unhealthy},
	}}}}
	c.s.mu.Unlock()

	if got := c.dial().ask("states"); got != "" {
		t.Errorf("the first worker was told %q", got)
	}
	fmt.Fprintln(c.dial(), "crash")
	c.exit()
	if got, want := c.dial().ask("states"), "api/127.0.0.1:9000=unhealthy"; got != want {
		t.Errorf("the successor was told %q, want %q", got, want)
	}
	// It finds out for itself from then on.
	c.mustApply(2, tinyServes)
	if got := c.dial().ask("states"); got != "" {
		t.Errorf("a running worker was told %q", got)
	}
}

func TestRefusedSnapshotIsNotTheDesiredOne(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	pid, _ := c.dial().who()
	err := c.apply(2, tinyRefuses)
	var refused *refusedError
	if !errors.As(err, &refused) || refused.reason != "no such thing" {
		t.Fatalf("%v, want the worker's refusal", err)
	}
	if now, generation := c.dial().who(); now != pid || generation != 1 {
		t.Errorf("process %d on generation %d, want %d on 1", now, generation, pid)
	}
	c.s.kill(pid) // the successor gets what was good
	c.exit()
	if _, generation := c.dial().who(); generation != 1 {
		t.Errorf("the successor is on generation %d, want 1", generation)
	}
	c.mustApply(3, tinyServes)
}

func TestWorkerThatDoesNotAnswerIsReplacedOnTheOldState(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	pid, _ := c.dial().who()
	c.s.patience = 50 * time.Millisecond
	err := c.apply(2, tinySilent)
	var refused *refusedError
	if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "did not answer within 50ms") {
		t.Fatalf("%v, want that it did not answer", err)
	}
	if e := c.exit(); e.pid != pid || e.exited != "signal: killed" {
		t.Errorf("process %d: %s, want %d killed", e.pid, e.exited, pid)
	}
	if now, generation := c.dial().who(); now == pid || generation != 1 {
		t.Errorf("process %d on generation %d, want a new one on 1", now, generation)
	}
}

// Who gives up waiting says nothing about the worker.
func TestCancelledApplySparesTheWorker(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	pid, _ := c.dial().who()
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("caller is gone")
	cancel(gone)
	if err := c.s.apply(ctx, proxy.Apply{Snapshot: &proxy.Snapshot{Generation: 2, Region: tinySilent}}, c.set); !errors.Is(err, gone) {
		t.Errorf("%v, want %v", err, gone)
	}
	c.mustApply(3, tinyServes)
	if now, generation := c.dial().who(); now != pid || generation != 3 {
		t.Errorf("process %d on generation %d, want %d on 3", now, generation, pid)
	}
}

// A snapshot that brings the worker down is a bad one: it does not become the
// desired one, and the successor does not get it.
func TestSnapshotThatCrashesTheWorkerIsNotKept(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	pid, _ := c.dial().who()
	var refused *refusedError
	if err := c.apply(2, tinyCrashes); !errors.As(err, &refused) {
		t.Fatalf("%v, want it refused", err)
	}
	if e := c.exit(); e.pid != pid || e.exited != "exit status 7" {
		t.Errorf("process %d: %s", e.pid, e.exited)
	}
	if _, generation := c.dial().who(); generation != 1 {
		t.Errorf("the successor is on generation %d, want 1", generation)
	}
}

func TestBinaryThatDoesNotStartIsReportedAndTriedAgain(t *testing.T) {
	events := make(chan workerEvent, 10)
	s := newSupervisor("/nonexistent/anyedge", nil, quiet, events)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.run(ctx, func() time.Duration { return 0 }) }()
	for range 2 {
		if e := <-events; !strings.Contains(e.exited, "no such file") {
			t.Errorf("%+v", e)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRespawnPauseGrows(t *testing.T) {
	for starts, want := range map[int]time.Duration{
		1: 0, 2: 50 * time.Millisecond, 3: 100 * time.Millisecond, 8: 3200 * time.Millisecond, 9: respawnMax, 1000: respawnMax,
	} {
		if got := respawnPause(starts); got != want {
			t.Errorf("after %d starts %s, want %s", starts, got, want)
		}
	}
}

func TestOrderlyStopWaitsForClients(t *testing.T) {
	c := newCrew(t, patience)
	c.mustApply(1, tinyServes)
	last := c.dial()
	pid, _ := last.who()
	stopped := make(chan struct{})
	go func() { c.stop(); close(stopped) }()
	// The worker closes its sockets once the link is closed; the agent's copy
	// would queue connections for ever, so it goes first.
	c.set.closeExcept(nil)
	for refused := false; !refused; {
		conn, err := net.Dial("tcp", c.address)
		if refused = err != nil; !refused {
			conn.Close()
		}
	}
	if now, _ := last.who(); now != pid { // still served
		t.Errorf("served by %d, want %d", now, pid)
	}
	select {
	case <-stopped:
		t.Error("did not wait for the last client")
	default:
	}
	last.Close()
	<-stopped
}

func TestOrderlyStopKillsAfterTheGrace(t *testing.T) {
	c := newCrew(t, 100*time.Millisecond)
	c.mustApply(1, tinyStubborn)
	pid, _ := c.dial().who()
	c.stop()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	if got := c.s.running; got != nil {
		t.Error("a worker counts as running after the end")
	}
}

func TestGather(t *testing.T) {
	c := newCrew(t, patience)
	if _, err := c.s.gather(t.Context()); err != nil && !errors.Is(err, errNoWorker) {
		t.Errorf("before the first worker: %v", err)
	}
	c.mustApply(1, tinyServes)
	families, err := c.s.gather(t.Context())
	if err != nil || len(families) != 1 || families[0].GetName() != "tiny_total" {
		t.Fatalf("%v, %v", families, err)
	}
	if got, want := families[0].GetMetric()[0].GetCounter().GetValue(), float64(c.s.gathered); got != want {
		t.Errorf("the answer to question %v, want %v", got, want)
	}

	c.mustApply(2, tinyMute)
	gone := errors.New("scrape is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if _, err := c.s.gather(ctx); !errors.Is(err, gone) {
		t.Errorf("from a worker that does not answer: %v, want %v", err, gone)
	}

	// A worker that ends while it is asked.
	pid, _ := c.dial().who()
	asked := make(chan error, 1)
	go func() {
		_, err := c.s.gather(context.WithoutCancel(t.Context()))
		asked <- err
	}()
	c.s.kill(pid)
	if err := <-asked; err == nil {
		t.Error("metrics of a dead worker")
	}
	c.exit()
	c.dial().who() // there is a successor
	c.mustApply(3, tinyServes)
	if families, err := c.s.gather(t.Context()); err != nil || len(families) != 1 {
		t.Errorf("of the successor: %v, %v", families, err)
	}
}
