package pop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"anyedge/pop/link"
	"anyedge/pop/proxy"
)

// workerEvent is something that happened to the worker. Exactly one of vitals
// and exited is set.
type workerEvent struct {
	at     time.Time // when it happened, not when it is looked at
	pid    int
	vitals *proxy.Vitals
	exited string // how the process ended, in words
}

// supervisor keeps one worker process running, in the state last asked for.
//
// It restarts a worker that ends, at once the first time and then at a growing
// pace. It knows nothing of routes: it reports what happens, and the agent
// decides.
type supervisor struct {
	path   string   // the binary
	args   []string // its arguments
	log    *slog.Logger
	events chan<- workerEvent
	// measured takes the round-trip times that a worker reports. It does not block.
	measured func(proxy.RTTs)
	// patience bounds the wait for a worker's answer to a snapshot.
	patience time.Duration

	gathering sync.Mutex // held through one question for metrics
	gathered  uint64     // the number of the newest question

	sending sync.Mutex // held while a worker is sent the desired state

	mu      sync.Mutex // held for moments only
	desired proxy.Apply
	sockets *sockets
	vitals  *proxy.Vitals // the newest of any worker, for its successor
	running *worker       // nil while no worker runs
	changed chan struct{} // closed and replaced when running or an answer changes
}

// worker is one worker process.
type worker struct {
	cmd     *exec.Cmd
	conn    *link.Conn
	has     *sockets      // what it was sent; guarded by supervisor.sending
	answer  proxy.Applied // the newest; guarded by supervisor.mu
	metrics chan proxy.Metrics
	exited  chan struct{}
}

const (
	// applyTimeout is a supervisor's patience.
	applyTimeout = 10 * time.Second
	// respawnMax bounds the pause before a worker is started again.
	respawnMax = 5 * time.Second
)

var errNoWorker = errors.New("no worker is running")

func newSupervisor(path string, args []string, log *slog.Logger, events chan<- workerEvent) *supervisor {
	return &supervisor{
		path: path, args: args, log: log, events: events, patience: applyTimeout,
		measured: func(proxy.RTTs) {},
		changed:  make(chan struct{}),
	}
}

// run starts workers until ctx ends, then closes the link, which makes the
// worker drain, and waits for it as long as grace says then.
func (s *supervisor) run(ctx context.Context, grace func() time.Duration) error {
	var starts []time.Time // of the last minute
	for {
		now := time.Now()
		starts = append(slices.DeleteFunc(starts, func(t time.Time) bool { return now.Sub(t) > time.Minute }), now)
		w, err := s.start()
		if err != nil {
			s.log.Error("worker did not start", "error", err)
			s.emit(ctx, workerEvent{at: time.Now(), exited: err.Error()})
		} else {
			s.serve(ctx, w, grace)
		}
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(respawnPause(len(starts))):
		}
	}
}

// respawnPause is the pause after so many starts within the last minute.
func respawnPause(starts int) time.Duration {
	if starts <= 1 {
		return 0
	}
	return min(50*time.Millisecond<<min(starts-2, 10), respawnMax)
}

// start runs a new process and gives it the desired state.
func (s *supervisor) start() (*worker, error) {
	conn, theirs, err := link.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(s.path, s.args...)
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A process group of its own keeps the terminal's interrupt from the
	// worker: it drains when its agent goes, not before.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	w := &worker{
		cmd: cmd, conn: conn,
		metrics: make(chan proxy.Metrics, 1),
		exited:  make(chan struct{}),
	}
	s.mu.Lock()
	s.running = w
	s.notifyLocked()
	s.mu.Unlock()
	s.log.Info("worker started", "pid", cmd.Process.Pid)
	s.sync(w)
	return w, nil
}

// serve follows one worker until it has exited.
func (s *supervisor) serve(ctx context.Context, w *worker, grace func() time.Duration) {
	received := make(chan struct{})
	go func() {
		defer close(received)
		s.receive(ctx, w)
	}()
	var state error
	go func() {
		state = w.cmd.Wait()
		close(w.exited)
	}()
	select {
	case <-w.exited:
	case <-ctx.Done():
		w.conn.Close()
		select {
		case <-w.exited:
		case <-time.After(grace()):
			s.log.Warn("worker did not drain in time, killed", "pid", w.cmd.Process.Pid)
			w.cmd.Process.Kill()
			<-w.exited
		}
	}
	w.conn.Close()
	<-received
	s.mu.Lock()
	s.running = nil
	s.notifyLocked()
	s.mu.Unlock()
	how := "exit status 0"
	if state != nil {
		how = state.Error()
	}
	s.log.Info("worker exited", "pid", w.cmd.Process.Pid, "how", how)
	s.emit(ctx, workerEvent{at: time.Now(), pid: w.cmd.Process.Pid, exited: how})
}

// emit reports an event unless the agent is stopping.
func (s *supervisor) emit(ctx context.Context, e workerEvent) {
	select {
	case s.events <- e:
	case <-ctx.Done():
	}
}

// receive handles one worker's messages until its link ends.
func (s *supervisor) receive(ctx context.Context, w *worker) {
	for {
		m, err := w.conn.Receive()
		if err == nil {
			err = s.handle(ctx, w, m)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				s.log.Warn("worker link failed", "pid", w.cmd.Process.Pid, "error", err)
				w.cmd.Process.Kill() // out of step: only a new one helps
			}
			return
		}
	}
}

func (s *supervisor) handle(ctx context.Context, w *worker, m link.Message) error {
	defer m.CloseFiles()
	switch m.Kind {
	case proxy.KindApplied:
		var a proxy.Applied
		if err := m.Decode(&a); err != nil {
			return err
		}
		s.mu.Lock()
		w.answer = a
		s.notifyLocked()
		s.mu.Unlock()
	case proxy.KindVitals:
		v := new(proxy.Vitals)
		if err := m.Decode(v); err != nil {
			return err
		}
		s.mu.Lock()
		s.vitals = v
		s.mu.Unlock()
		s.emit(ctx, workerEvent{at: time.Now(), pid: w.cmd.Process.Pid, vitals: v})
	case proxy.KindRTT:
		var r proxy.RTTs
		if err := m.Decode(&r); err != nil {
			return err
		}
		s.measured(r)
	case proxy.KindMetrics:
		var metrics proxy.Metrics
		if err := m.Decode(&metrics); err != nil {
			return err
		}
		select {
		case <-w.metrics: // an answer that nobody waits for any more
		default:
		}
		w.metrics <- metrics
	default:
		return fmt.Errorf("unknown message %q from the worker", m.Kind)
	}
	return nil
}

// refusedError is a worker's word that it cannot take a state.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return e.reason }

// apply makes a the desired state and waits until a worker has it in force. A
// [*refusedError] says why the worker cannot take it; to end over it is to
// refuse it. On any error the state before is the desired one again, and a
// worker that did not answer in time is killed. Callers take turns.
func (s *supervisor) apply(ctx context.Context, a proxy.Apply, set *sockets) error {
	patience, cancel := context.WithTimeoutCause(ctx, s.patience, fmt.Errorf("worker did not answer within %s", s.patience))
	defer cancel()
	s.mu.Lock()
	before, beforeSockets := s.desired, s.sockets
	s.desired, s.sockets = a, set
	w := s.running
	s.mu.Unlock()
	if w != nil {
		s.sync(w)
	}
	sent := w
	if before.Snapshot == nil {
		sent = nil // there is nothing to go back to: whoever comes next may take it
	}
	err := s.await(patience, a.Snapshot.Generation, sent)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	s.desired, s.sockets = before, beforeSockets
	w = s.running
	s.mu.Unlock()
	var refused *refusedError
	switch {
	case w == nil:
	case errors.As(err, &refused), ctx.Err() != nil:
		s.sync(w) // one that took the state, or started with it, needs the old one
	default:
		s.log.Warn("worker did not answer, killed", "pid", w.cmd.Process.Pid)
		w.cmd.Process.Kill()
	}
	return err
}

// await blocks until w, or if it is nil any worker, has answered for a
// generation, or w has ended without an answer.
func (s *supervisor) await(ctx context.Context, generation uint64, w *worker) error {
	for {
		s.mu.Lock()
		ended := w != nil && s.running != w
		var answer proxy.Applied
		switch {
		case w != nil:
			answer = w.answer
		case s.running != nil:
			answer = s.running.answer
		}
		changed := s.changed
		s.mu.Unlock()
		if answer.Generation == generation {
			if answer.Error != "" {
				return &refusedError{answer.Error}
			}
			return nil
		}
		if ended {
			return &refusedError{"worker ended while it took the state"}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sync sends w the newest desired state, and the sockets if it lacks them. A
// worker that does not take it is of no use and is killed.
func (s *supervisor) sync(w *worker) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	a, set, vitals := s.desired, s.sockets, s.vitals
	s.mu.Unlock()
	if a.Snapshot == nil {
		return
	}
	if w.has == nil && vitals != nil {
		a.Snapshot = a.Snapshot.WithStates(vitals.Pools)
	}
	var files []*os.File
	var err error
	if set != w.has {
		a.Sockets, files, err = set.list()
	}
	if err == nil {
		err = w.conn.Send(proxy.KindApply, a, files...)
		closeFiles(files)
	}
	if err != nil {
		s.log.Warn("worker did not take its state, killed", "pid", w.cmd.Process.Pid, "error", err)
		w.cmd.Process.Kill()
		return
	}
	w.has = set
}

// kill ends the worker with the given process id, if it still runs.
func (s *supervisor) kill(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil && s.running.cmd.Process.Pid == pid {
		s.running.cmd.Process.Kill()
	}
}

// gather asks the worker for its metrics. Callers take turns.
func (s *supervisor) gather(ctx context.Context) ([]*dto.MetricFamily, error) {
	s.gathering.Lock()
	defer s.gathering.Unlock()
	s.gathered++
	id := s.gathered
	s.mu.Lock()
	w := s.running
	s.mu.Unlock()
	if w == nil {
		return nil, errNoWorker
	}
	if err := w.conn.Send(proxy.KindGather, proxy.Gather{ID: id}); err != nil {
		return nil, err
	}
	for {
		select {
		case m := <-w.metrics:
			if m.ID == id {
				return decodeFamilies(m.Families)
			}
		case <-w.exited:
			return nil, errNoWorker
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func decodeFamilies(data []byte) ([]*dto.MetricFamily, error) {
	dec := expfmt.NewDecoder(bytes.NewReader(data), expfmt.NewFormat(expfmt.TypeProtoDelim))
	var families []*dto.MetricFamily
	for {
		f := new(dto.MetricFamily)
		switch err := dec.Decode(f); {
		case errors.Is(err, io.EOF):
			return families, nil
		case err != nil:
			return nil, fmt.Errorf("decode the worker's metrics: %w", err)
		}
		families = append(families, f)
	}
}

// notifyLocked wakes those who wait for a change. The caller holds mu.
func (s *supervisor) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}
