package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"anyedge/internal/daemon"
	"anyedge/internal/fleet"
)

// store is where the lab's fleet keeps its state. The story takes it away and
// gives it back.
type store interface {
	daemon.Task
	// cut makes the store unreachable, restore reachable again.
	cut() error
	restore() error
}

// newStore returns the store and the client that every part reaches it with.
func (l *Lab) newStore() (store, fleet.Store, error) {
	client, err := fleet.NewConsul(fleet.ConsulConfig{Address: l.fleetURL})
	if err != nil {
		return nil, nil, err
	}
	if l.Consul == "" {
		return &memoryStore{address: l.layout.fleet(), handler: fleet.Handler(fleet.NewMemory())}, client, nil
	}
	s, err := l.newConsulStore()
	return s, client, err
}

// memoryStore serves a store in this process to the agents, which speak to it
// as they would to Consul.
type memoryStore struct {
	address netip.AddrPort
	handler http.Handler

	mu     sync.Mutex
	server *http.Server
	ended  chan error // the result of server.Serve
}

func (s *memoryStore) String() string { return "fleet store" }

// Run serves until ctx ends.
func (s *memoryStore) Run(ctx context.Context) error {
	if err := s.restore(); err != nil {
		return err
	}
	<-ctx.Done()
	return s.cut()
}

func (s *memoryStore) restore() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := net.Listen("tcp", s.address.String())
	if err != nil {
		return err
	}
	s.server = &http.Server{Handler: s.handler, ReadHeaderTimeout: 5 * time.Second}
	s.ended = make(chan error, 1)
	go func(server *http.Server, ended chan<- error) { ended <- server.Serve(l) }(s.server, s.ended)
	return nil
}

// cut closes the listener and every connection.
func (s *memoryStore) cut() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	s.server.Close()
	err := <-s.ended
	s.server = nil
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// consulStore is a real Consul server, run as a process of the lab.
type consulStore struct {
	process *process
}

// newConsulStore describes a Consul server whose HTTP API has the fleet's
// address. Its data lie in memory (-dev), so it is stopped, not killed, to make
// it unreachable.
func (l *Lab) newConsulStore() (*consulStore, error) {
	ports, err := freePorts(l.layout.fleet().Addr(), 3)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`{
  "bind_addr": %[1]q, "client_addr": %[1]q,
  "ports": {"http": %d, "dns": -1, "server": %d, "serf_lan": %d, "serf_wan": %d, "grpc": -1, "grpc_tls": -1, "https": -1},
  "disable_update_check": true, "ui_config": {"enabled": false}
}`, l.layout.fleet().Addr(), portFleet, ports[0], ports[1], ports[2])
	if err := l.write("consul.json", []byte(config)); err != nil {
		return nil, err
	}
	p := l.process("consul", "agent", "-dev", "-node=lab", "-log-level=warn", "-config-file="+l.path("consul.json"))
	p.path = l.Consul
	return &consulStore{process: p}, nil
}

func (s *consulStore) String() string { return "consul" }

// Run keeps the server until ctx ends.
func (s *consulStore) Run(ctx context.Context) error {
	if err := s.process.start(); err != nil {
		return err
	}
	defer s.process.stop()
	select {
	case <-ctx.Done():
		return s.restore() // a stopped process takes no SIGTERM
	case <-s.process.ended():
		return errors.New("consul ended; see consul.log")
	}
}

func (s *consulStore) cut() error     { return s.process.freeze() }
func (s *consulStore) restore() error { return s.process.thaw() }

// freePorts returns ports of an address that nobody listens on.
func freePorts(addr netip.Addr, n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
