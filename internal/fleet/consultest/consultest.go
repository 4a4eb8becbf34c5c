// Package consultest starts a real Consul server for a test: one agent in -dev
// mode on loopback, with nothing on disk.
//
// The environment variable ANYEDGE_CONSUL holds the absolute path of the binary;
// "make test" builds it and sets it. Without it, tests skip and say so.
package consultest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Env holds the absolute path of the Consul binary.
const Env = "ANYEDGE_CONSUL"

// Token is the ACL token of Start's own questions. A config that turns ACLs on
// makes it the initial_management token.
const Token = "a1b9f0de-0000-4000-8000-000000000001"

// startTimeout bounds the wait for a leader, and attempts how often other ports
// are tried: another process may take a free port before Consul does.
const (
	startTimeout = 30 * time.Second
	attempts     = 3
)

// Server is a running Consul. Its methods are for one goroutine.
type Server struct {
	t      testing.TB
	binary string
	config string
	ports  ports
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
	output *tail
}

type ports struct{ http, server, serf int }

// Start starts a server, waits until it leads, and stops it when the test
// ends. Each config is a piece of Consul's configuration language, added to
// what is set here. Start skips the test if no binary is named.
func Start(t testing.TB, config ...string) *Server {
	t.Helper()
	binary := os.Getenv(Env)
	if binary == "" {
		t.Skipf("needs a Consul server: %s is not set (make test sets it)", Env)
	}
	if !filepath.IsAbs(binary) {
		t.Fatalf("%s is %s: a test runs in its package's folder, so the path must be absolute", Env, binary)
	}
	s := &Server{t: t, binary: binary, config: strings.Join(config, "\n")}
	t.Cleanup(s.Kill)
	var err error
	for range attempts {
		s.ports = freePorts(t)
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("consul did not start: %v\n%s", err, s.output)
	return nil
}

// Address is where the HTTP API listens, as host:port.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.ports.http) }

// Kill ends the server at once. To kill it twice is fine.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may be gone already
	<-s.exited
	s.cmd = nil
}

// Restart starts a killed server again, at the same address. It has forgotten
// everything.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatalf("consul did not start again: %v\n%s", err, s.output)
	}
}

// Pause stops the server in its tracks: its sockets stay open and silent.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("%v: %v", sig, err)
	}
}

func (s *Server) start() error {
	file := filepath.Join(s.t.TempDir(), "consul.hcl")
	config := fmt.Sprintf(`
bind_addr = "127.0.0.1"
client_addr = "127.0.0.1"
disable_update_check = true
ui_config { enabled = false }
ports { http = %d, server = %d, serf_lan = %d, serf_wan = -1, dns = -1, grpc = -1, grpc_tls = -1, https = -1 }
%s
`, s.ports.http, s.ports.server, s.ports.serf, s.config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	s.output = new(tail)
	cmd := exec.Command(s.binary, "agent", "-dev", "-node=test", "-config-file="+file)
	cmd.Stdout, cmd.Stderr = s.output, s.output
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed: always an error
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	if err := s.await(); err != nil {
		s.Kill()
		return err
	}
	return nil
}

// await waits until the server leads and its catalog knows its own node, which
// sessions need.
func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.ready(ctx) {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it exited: %v", s.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("no leader within %v", startTimeout)
		case <-tick.C:
		}
	}
}

func (s *Server) ready(ctx context.Context) bool {
	return strings.Contains(s.get(ctx, "/v1/status/leader"), ":") &&
		strings.Contains(s.get(ctx, "/v1/catalog/nodes"), `"test"`)
}

func (s *Server) get(ctx context.Context, path string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Address()+path, nil)
	if err != nil {
		return ""
	}
	req.Header.Set("X-Consul-Token", Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// freePorts finds three different ports that nobody listens on, over TCP; Serf
// also uses its port over UDP.
func freePorts(t testing.TB) ports {
	t.Helper()
	var found [3]int
	var listeners []io.Closer
	for i := range found {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		found[i] = l.Addr().(*net.TCPAddr).Port
	}
	for _, l := range slices.Backward(listeners) {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return ports{found[0], found[1], found[2]}
}

// tail keeps the last part of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if extra := len(t.data) - tailSize; extra > 0 {
		t.data = bytes.Clone(t.data[extra:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}
