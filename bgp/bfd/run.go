package bfd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

const (
	restartPause = time.Second
	// stopPatience is how long an engine that was told to end may take. It
	// ends by itself after stopTimeout.
	stopPatience = 3 * time.Second
	writeTimeout = 5 * time.Second
)

// errEngineEnded is why an engine process that gave no reason is started again.
var errEngineEnded = errors.New("engine ended")

// Run watches the set until ctx ends; then it tells every neighbor that its
// session is AdminDown and returns nil. It waits for the neighbors to know it,
// at most a second. An engine process that ends is started again, and meanwhile
// sessions are Down without a failure. Any other return means that the host
// would not let the engine work: no socket pair, no thread.
//
// Run may be called once.
func (m *Manager) Run(ctx context.Context) error {
	m.report(func() { m.running = true })
	defer m.report(func() { m.running = false })
	for {
		err := m.runEngine(ctx)
		m.lost()
		if ctx.Err() != nil {
			return nil
		}
		if len(m.cfg.Engine) == 0 {
			return err
		}
		m.metrics.restarts.Inc()
		m.log.Error("bfd engine ended", slog.Any("error", err))
		select {
		case <-time.After(restartPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// runEngine starts an engine and talks to it until it has ended.
func (m *Manager) runEngine(ctx context.Context) error {
	ours, theirs, err := controlPair()
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(ours), "bfd control")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		os.NewFile(uintptr(theirs), "bfd control").Close()
		return fmt.Errorf("control socket: %w", err)
	}
	defer conn.Close()
	ended, kill, err := m.start(theirs)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { m.read(conn) })

	stopping := ctx.Done()
	var patience <-chan time.Time
	m.writePlan(conn)
	for {
		select {
		case err := <-ended:
			// The engine's end is closed, so the reader ends when it has read
			// everything, unless a wrapper around the engine lives on.
			conn.SetReadDeadline(time.Now().Add(time.Second))
			return err
		case <-m.poke:
			m.writePlan(conn)
		case <-stopping:
			stopping = nil
			m.write(conn, &plan{Stop: true})
			patience = time.After(stopPatience)
		case <-patience:
			kill()
		}
	}
}

// start starts an engine on one end of the control pair, which it takes over.
func (m *Manager) start(control int) (ended <-chan error, kill func(), err error) {
	done := make(chan error, 1)
	if len(m.cfg.Engine) == 0 {
		go func() {
			// Never unlocked, so the thread and its priority end with this
			// goroutine.
			runtime.LockOSThread()
			done <- runEngine(control, raiseThread())
		}()
		return done, func() {}, nil
	}
	file := os.NewFile(uintptr(control), "bfd control")
	defer file.Close()
	cmd := exec.Command(m.cfg.Engine[0], m.cfg.Engine[1:]...)
	cmd.ExtraFiles = []*os.File{file} // descriptor 3
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start engine: %w", err)
	}
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = errEngineEnded
		}
		done <- err
	}()
	return done, func() { cmd.Process.Kill() }, nil
}

func (m *Manager) writePlan(conn net.Conn) {
	m.mu.Lock()
	p := plan{Generation: m.wanted, Peers: m.peers}
	m.mu.Unlock()
	m.write(conn, &p)
}

// write sends a plan. An engine that does not take it ends soon, or is stuck
// and will be killed when Run ends.
func (m *Manager) write(conn net.Conn, p *plan) {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // no type in a plan can fail
	}
	conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := conn.Write(b); err != nil {
		m.log.Error("bfd engine does not listen", slog.Any("error", err))
	}
}

// read takes the engine's reports until the connection ends.
func (m *Manager) read(conn net.Conn) {
	buf := make([]byte, maxMessage)
	for {
		n, err := conn.Read(buf)
		if err != nil || n == 0 {
			return
		}
		r := new(report)
		if err := json.Unmarshal(buf[:n], r); err != nil {
			m.log.Error("bfd engine report is malformed", slog.Any("error", err))
			continue
		}
		m.took(r)
	}
}
