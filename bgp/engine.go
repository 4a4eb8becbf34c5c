package bgp

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
)

// families are announced and accepted on every session.
var families = []*api.Family{
	{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST},
	{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST},
}

// engine is an embedded GoBGP server. Every call goes through GoBGP's one loop
// and blocks until that loop has handled it. Calls must not follow stop.
// A Speaker runs one for each neighbor.
//
// GoBGP offers no way to end its loop, so the loop's goroutine is ended from
// the timing hook, which GoBGP calls on it after every operation.
type engine struct {
	server *server.BgpServer
	// processed, if set, is called on GoBGP's loop after a session changed its
	// state or delivered routes. It must not block or call the engine.
	processed func()
	gate      atomic.Pointer[gate] // where the loop is to stop next
	done      chan struct{}        // closed when the loop has ended
}

// gate is where a loop stops, and goes on or ends.
type gate struct {
	reached, open chan struct{}
	end           bool // set before open is closed
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

// enginePeer is one session of an engine.
type enginePeer struct {
	address     netip.Addr
	asn         uint32
	holdTime    time.Duration
	keepalive   time.Duration // 0: a third of holdTime
	port        uint16        // dialled; 0: the engine waits for the peer
	password    string
	ttlSecurity bool
}

// startEngine starts GoBGP. It listens at listen unless that is the zero
// AddrPort.
func startEngine(asn uint32, id netip.Addr, listen netip.AddrPort, processed func(), log *slog.Logger) (*engine, error) {
	e := &engine{processed: processed, done: make(chan struct{})}
	e.server = server.NewBgpServer(
		server.LoggerOption(engineLogger{log}),
		server.TimingHookOption(e),
	)
	go e.loop()
	global := &api.Global{Asn: asn, RouterId: id.String(), ListenPort: -1}
	if listen.IsValid() {
		global.ListenPort = int32(listen.Port())
		global.ListenAddresses = []string{listen.Addr().String()}
	}
	err := e.joinWorld(func() error {
		defer plainTCP()()
		return e.server.StartBgp(context.Background(), &api.StartBgpRequest{Global: global})
	})
	if err != nil {
		e.endLoop()
		return nil, fmt.Errorf("start bgp: %w", err)
	}
	return e, nil
}

// plainTCP makes the listeners of this process plain TCP until the returned
// function is called. Go makes them Multipath TCP by default, on which Linux
// refuses both TCP MD5 and a TTL, and GoBGP does not let its caller choose.
func plainTCP() (restore func()) {
	const name = "GODEBUG"
	old, set := os.LookupEnv(name)
	os.Setenv(name, strings.TrimPrefix(old+",multipathtcp=0", ","))
	return func() {
		if set {
			os.Setenv(name, old)
		} else {
			os.Unsetenv(name)
		}
	}
}

func (e *engine) loop() {
	defer close(e.done)
	e.server.Serve()
}

// Observe is GoBGP's timing hook; it runs on GoBGP's loop.
func (e *engine) Observe(op server.FSMOperation, _, _ time.Duration) {
	if g := e.gate.Swap(nil); g != nil {
		close(g.reached)
		<-g.open
		if g.end {
			runtime.Goexit()
		}
	}
	if op == server.FSMMessage && e.processed != nil {
		e.processed()
	}
}

// stop closes the listener and every session and joins GoBGP's loop. GoBGP
// frees a deleted peer later, and StopBgp waits for that only if there is a peer
// left. Hence there always is: one that nobody will ever connect to.
func (e *engine) stop() {
	e.disconnect()
	e.addPeer(enginePeer{address: netip.IPv4Unspecified().Next(), asn: 1, holdTime: minHoldTime})
	e.server.StopBgp(context.Background(), &api.StopBgpRequest{}) // its error is always nil
	e.leaveWorld(e.endLoop)
}

// disconnect ends all sessions, and waits a moment for that: StopBgp overwrites
// what the goroutine of a session reads when an UPDATE comes.
func (e *engine) disconnect() {
	e.awaitSilence(func(p *api.Peer) bool {
		if p.State.SessionState == api.PeerState_ESTABLISHED && p.State.AdminState == api.PeerState_UP {
			e.server.DisablePeer(context.Background(), &api.DisablePeerRequest{Address: p.Conf.NeighborAddress})
		}
		return true
	})
}

// awaitSilence waits until no session has a connection, for a second at most.
// It asks f whether one that has matters.
func (e *engine) awaitSilence(f func(*api.Peer) bool) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		busy := false
		e.peers(func(p *api.Peer) {
			switch p.State.SessionState {
			case api.PeerState_OPENSENT, api.PeerState_OPENCONFIRM, api.PeerState_ESTABLISHED:
				busy = f(p) || busy
			}
		})
		if !busy {
			return
		}
	}
}

// endLoop ends the loop. The caller of an operation is let go just before the
// hook runs, so one that came next might find no loop and wait for ever. Hence
// the loop ends only where it has stopped and no operation is left.
func (e *engine) endLoop() {
	const patience = 10 * time.Millisecond
	for {
		g := newGate()
		e.gate.Store(g)
		served := make(chan struct{})
		go func() {
			defer close(served)
			e.nudge()
		}()
		<-g.reached
		select {
		case <-served: // so the loop has stopped after this very operation
			g.end = true
			close(g.open)
			<-e.done
			return
		case <-time.After(patience): // after an earlier one, it seems
			close(g.open)
			<-served
		}
	}
}

// nudge makes the loop do something harmless, so that the hook runs.
func (e *engine) nudge() {
	e.server.ListPeer(context.Background(), &api.ListPeerRequest{}, func(*api.Peer) {})
}

// acceptLocalOnly refuses every route that is not this engine's own.
func (e *engine) acceptLocalOnly() error {
	ctx := context.Background()
	policy := &api.Policy{Name: "local-only", Statements: []*api.Statement{{
		Name:       "local",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT},
	}}}
	if err := e.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: policy}); err != nil {
		return fmt.Errorf("add import policy: %w", err)
	}
	err := e.server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name:          "global",
		Direction:     api.PolicyDirection_IMPORT,
		Policies:      []*api.Policy{policy},
		DefaultAction: api.RouteAction_REJECT,
	}})
	if err != nil {
		return fmt.Errorf("set import policy: %w", err)
	}
	return nil
}

// addPeer configures a session. GoBGP dials one to two seconds later.
func (e *engine) addPeer(p enginePeer) error {
	seconds, keepalive := uint64(p.holdTime/time.Second), uint64(p.keepalive/time.Second)
	peer := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.address.String(),
			PeerAsn:         p.asn,
			AuthPassword:    p.password,
		},
		Transport: &api.Transport{RemotePort: uint32(p.port), PassiveMode: p.port == 0},
		Timers: &api.Timers{Config: &api.TimersConfig{
			ConnectRetry:           1,
			HoldTime:               seconds,
			KeepaliveInterval:      cmp.Or(keepalive, seconds/3),
			IdleHoldTimeAfterReset: 1,
		}},
		// Graceful restart would keep routes to a dead host alive.
		GracefulRestart: &api.GracefulRestart{Enabled: false},
		TtlSecurity:     &api.TtlSecurity{Enabled: p.ttlSecurity, TtlMin: 255},
	}
	for _, f := range families {
		peer.AfiSafis = append(peer.AfiSafis, &api.AfiSafi{Config: &api.AfiSafiConfig{Family: f, Enabled: true}})
	}
	if err := e.server.AddPeer(context.Background(), &api.AddPeerRequest{Peer: peer}); err != nil {
		return fmt.Errorf("add peer %v: %w", p.address, err)
	}
	return nil
}

// deletePeer removes a peer whose connection has been closed. It waits until
// GoBGP knows: one that is deleted before it has read its last message leaves a
// goroutine behind, and a peer could have that happen again and again.
func (e *engine) deletePeer(address netip.Addr) error {
	e.awaitSilence(func(p *api.Peer) bool { return p.Conf.NeighborAddress == address.String() })
	err := e.server.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: address.String()})
	if err != nil {
		return fmt.Errorf("delete peer %v: %w", address, err)
	}
	return nil
}

// peers calls f for every session.
func (e *engine) peers(f func(*api.Peer)) error {
	return e.server.ListPeer(context.Background(), &api.ListPeerRequest{}, f)
}

// announce adds a local route or replaces the one with the same prefix.
func (e *engine) announce(a Announcement, asn uint32) error {
	path, err := encodePath(a, asn)
	if err == nil {
		_, err = e.server.AddPath(context.Background(), &api.AddPathRequest{Path: path})
	}
	if err != nil {
		return fmt.Errorf("announce %v: %w", a.Prefix, err)
	}
	return nil
}

// withdraw removes the local route that announce added.
func (e *engine) withdraw(a Announcement, asn uint32) error {
	// A request without a path would delete every local route.
	path, err := encodePath(a, asn)
	if err == nil {
		err = e.server.DeletePath(context.Background(), &api.DeletePathRequest{Path: path})
	}
	if err != nil {
		return fmt.Errorf("withdraw %v: %w", a.Prefix, err)
	}
	return nil
}

// paths returns every accepted path by prefix, the best one first.
func (e *engine) paths() (map[netip.Prefix][]Path, error) {
	world.RLock()
	defer world.RUnlock()
	all := make(map[netip.Prefix][]Path)
	for _, f := range families {
		var bad error
		err := e.server.ListPath(context.Background(), &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: f},
			func(d *api.Destination) {
				for _, p := range d.Paths {
					path, err := decodePath(p)
					if err != nil {
						bad = err
						return
					}
					all[path.Prefix] = append(all[path.Prefix], path)
				}
			})
		if err == nil {
			err = bad
		}
		if err != nil {
			return nil, fmt.Errorf("list paths: %w", err)
		}
	}
	return all, nil
}
