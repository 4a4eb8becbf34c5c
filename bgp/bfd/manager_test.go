package bfd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
)

// engineArgument makes the test binary an engine.
const engineArgument = "bfd-engine"

func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], engineArgument) {
		if err := Serve(os.NewFile(3, "control")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// eventually bounds waits for what must happen; machines are busy.
const eventually = 20 * time.Second

// modes are the two ways to run the engine.
var modes = map[string]Config{
	"thread":  {},
	"process": {Engine: []string{"/proc/self/exe", engineArgument}},
}

// edge is a running Manager.
type edge struct {
	*Manager
	t    *testing.T
	stop func()
}

func startEdge(t *testing.T, cfg Config, reg prometheus.Registerer) *edge {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	m := NewManager(cfg, log, reg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(eventually):
			t.Errorf("Run does not return")
		}
	})
	t.Cleanup(stop)
	return &edge{m, t, stop}
}

func (e *edge) set(peers ...Peer) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), eventually)
	defer cancel()
	if err := e.Set(ctx, peers); err != nil {
		e.t.Fatal(err)
	}
}

// await polls: reports come at most a second apart.
func (e *edge) await(what string, peer netip.Addr, ok func(Status) bool) Status {
	e.t.Helper()
	for deadline := time.Now().Add(eventually); ; time.Sleep(5 * time.Millisecond) {
		s := e.session(peer)
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("not within %v: %s: %+v", eventually, what, s)
		}
	}
}

func (e *edge) session(peer netip.Addr) Status {
	for _, s := range e.Status() {
		if s.Peer == peer {
			return s
		}
	}
	return Status{}
}

func is(state State) func(Status) bool { return func(s Status) bool { return s.State == state } }

var lastAddress struct {
	sync.Mutex
	n byte
}

// twoAddresses are loopback addresses that no other test has.
func twoAddresses() (a, b netip.Addr) {
	lastAddress.Lock()
	defer lastAddress.Unlock()
	lastAddress.n += 2
	return netip.AddrFrom4([4]byte{127, 66, byte(os.Getpid()), lastAddress.n}), netip.AddrFrom4([4]byte{127, 66, byte(os.Getpid()), lastAddress.n + 1})
}

// relaxed are timers that a busy machine keeps.
func relaxed(local, peer netip.Addr) Peer {
	return Peer{Address: peer, LocalAddress: local, TransmitInterval: 200 * time.Millisecond, Multiplier: 10}
}

// TestTwoManagers follows a session from the first packet to the planned end.
func TestTwoManagers(t *testing.T) {
	for name, cfg := range modes {
		for _, auth := range []Auth{{}, {Keys: []Key{{1, "one"}}}, {Meticulous: true, Keys: []Key{{1, "one"}, {2, "two"}}}} {
			t.Run(fmt.Sprintf("%s/%d_keys", name, len(auth.Keys)), func(t *testing.T) {
				t.Parallel()
				addrA, addrB := twoAddresses()
				a, b := startEdge(t, cfg, nil), startEdge(t, cfg, nil)
				pa, pb := relaxed(addrA, addrB), relaxed(addrB, addrA)
				pa.Auth, pb.Auth = auth, auth
				changes := make(chan Change, 100)
				b.Watch(addrA, func(c Change) { changes <- c })
				a.set(pa)
				b.set(pb)
				sa, sb := a.await("up", addrB, is(Up)), b.await("up", addrA, is(Up))
				if sa.RemoteDiscriminator != sb.LocalDiscriminator || sb.RemoteDiscriminator != sa.LocalDiscriminator {
					t.Errorf("discriminators %+v and %+v", sa, sb)
				}
				a.await("fast timers", addrB, func(s Status) bool {
					return s.TransmitInterval == 200*time.Millisecond && s.DetectionTime == 2*time.Second
				})

				// Slower one way, by a Poll Sequence, without a new session.
				pa.TransmitInterval, pa.ReceiveInterval = 400*time.Millisecond, 300*time.Millisecond
				a.set(pa)
				b.await("the changed timers", addrA, func(s Status) bool {
					return s.ReceiveInterval == 400*time.Millisecond && s.DetectionTime == 4*time.Second && s.TransmitInterval == 300*time.Millisecond
				})
				// Held, released, removed, watched again.
				pa.AdminDown = true
				a.set(pa)
				b.await("down by an operator", addrA, func(s Status) bool { return s.State == Down && s.RemoteState == AdminDown })
				pa.AdminDown = false
				a.set(pa)
				b.await("up again", addrA, is(Up))
				flaps, want := uint64(2), []State{Up, Down, Up, Down, AdminDown}
				if len(auth.Keys) == 0 { // another session, and sequence numbers could not begin anew so soon
					a.set()
					b.await("down by removal", addrA, is(Down))
					a.set(pa)
					b.await("up once more", addrA, is(Up))
					flaps, want = 3, []State{Up, Down, Up, Down, Up, Down, AdminDown}
				}
				a.stop()
				last := b.await("a planned end", addrA, func(s Status) bool { return s.State == Down && s.Flaps == flaps })
				if last.Failures != 0 || last.Diagnostic != SignaledDown {
					t.Errorf("planned ends left %+v", last)
				}
				if s := a.session(addrB); s.State != AdminDown {
					t.Errorf("after Run: %v", s.State)
				}
				b.stop()
				close(changes)
				var states []State
				for c := range changes {
					if c.Failure || c.Peer != addrA || c.At.IsZero() {
						t.Errorf("change %+v", c)
					}
					if c.To != Init { // passed through, may be skipped
						states = append(states, c.To)
					}
				}
				if !slices.Equal(states, want) {
					t.Errorf("changes %v, want %v", states, want)
				}
			})
		}
	}
}

// TestSilence ends one engine the hard way: the neighbor must see a failure
// within the Detection Time, and the owner none.
func TestSilence(t *testing.T) {
	t.Parallel()
	addrA, addrB := twoAddresses()
	// The engine's process is found by an argument of its own.
	mark := fmt.Sprintf("%s-%d", addrA, os.Getpid())
	a := startEdge(t, Config{Engine: []string{"/proc/self/exe", engineArgument, mark}}, nil)
	b := startEdge(t, Config{}, nil)
	failed := make(chan Change, 10)
	b.Watch(addrA, func(c Change) {
		if c.Failure {
			failed <- c
		}
	})
	own := make(chan Change, 10)
	a.Watch(addrB, func(c Change) { own <- c })
	a.set(relaxed(addrA, addrB))
	b.set(relaxed(addrB, addrA))
	b.await("up", addrA, is(Up))
	a.await("up", addrB, is(Up))
	if err := unix.Kill(findProcess(t, mark), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case c := <-failed:
		if c.From != Up || c.Diagnostic != TimeExpired && c.Diagnostic != SignaledDown {
			t.Errorf("change %+v", c)
		}
	case <-time.After(eventually):
		t.Fatal("no failure reported")
	}
	// The engine is started again, and the session comes back.
	b.await("up again", addrA, is(Up))
	a.await("up again", addrB, is(Up))
	a.stop()
	close(own)
	for c := range own {
		if c.Failure {
			t.Errorf("the loss of the own engine became a failure: %+v", c)
		}
	}
}

// findProcess returns the process that has mark as its last argument.
func findProcess(t *testing.T, mark string) int {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		var pid int
		if _, err := fmt.Sscan(d.Name(), &pid); err != nil {
			continue
		}
		line, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if strings.HasSuffix(string(line), "\x00"+mark+"\x00") {
			return pid
		}
	}
	t.Fatalf("no process %s", mark)
	return 0
}

// TestOnlyTheChangedPeer changes one of two sessions, and takes one away.
func TestOnlyTheChangedPeer(t *testing.T) {
	t.Parallel()
	hub, one := twoAddresses()
	two, _ := twoAddresses()
	reg := prometheus.NewPedanticRegistry()
	h := startEdge(t, Config{}, reg)
	e1, e2 := startEdge(t, Config{}, nil), startEdge(t, Config{}, nil)
	e1.set(relaxed(one, hub))
	e2.set(relaxed(two, hub))
	p1, p2 := relaxed(hub, one), relaxed(hub, two)
	h.set(p1, p2)
	first := h.await("one up", one, is(Up))
	h.await("two up", two, is(Up))
	p2.Multiplier = 20
	h.set(p2, p1)
	h.await("the multiplier", two, func(s Status) bool { return s.Multiplier == 20 })
	e2.await("the multiplier", hub, func(s Status) bool { return s.RemoteMultiplier == 20 })
	h.set(p1)
	e2.await("removed", hub, is(Down))
	now := h.await("a later report", one, func(s Status) bool { return s.PacketsOut > first.PacketsOut+2 })
	if now.LocalDiscriminator != first.LocalDiscriminator || now.Flaps != 0 || !now.Since.Equal(first.Since) {
		t.Errorf("the unchanged session went from %+v to %+v", first, now)
	}
	if n := len(h.Status()); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
	if n, err := testutil.GatherAndCount(reg, metricSessionState); n != 1 || err != nil {
		t.Errorf("%d states, %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); len(problems) > 0 || err != nil {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

// TestHopLimit sends packets that claim everything right but came through a
// router.
func TestHopLimit(t *testing.T) {
	t.Parallel()
	addrA, addrB := twoAddresses()
	reg := prometheus.NewRegistry()
	a := startEdge(t, Config{}, reg)
	a.set(relaxed(addrA, addrB))
	a.await("a socket", addrB, func(s Status) bool { return s.PacketsOut > 0 })
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addrB, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(addrA, port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := packet{state: Down, multiplier: 3, my: 5, desiredTx: time.Second, requiredRx: time.Second}
	send := func(ttl int) {
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(p.append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		send(254)
	}
	for deadline := time.Now().Add(eventually); testutil.ToFloat64(a.metrics.kernel) != 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the kernel dropped %v packets, want 3", testutil.ToFloat64(a.metrics.kernel))
		}
	}
	if s := a.session(addrB); s.PacketsIn != 0 || s.State != Down {
		t.Errorf("a packet from afar was taken: %+v", s)
	}
	send(255)
	a.await("init", addrB, func(s Status) bool { return s.State == Init && s.PacketsIn == 1 })
	p.multiplier = 0
	send(255)
	p.multiplier, p.your = 3, 1
	send(255)
	a.await("drops", addrB, func(s Status) bool { return s.Drops["multiplier"] == 1 && s.Drops["unknown_session"] == 1 })
}

// TestNoSocket watches a neighbor from an address that the host does not have
// and then, by another set, from one it has.
func TestNoSocket(t *testing.T) {
	t.Parallel()
	addrA, addrB := twoAddresses()
	a := startEdge(t, Config{}, nil)
	a.set(Peer{Address: netip.MustParseAddr("198.51.100.1"), LocalAddress: netip.MustParseAddr("198.51.100.2")})
	a.await("an error", netip.MustParseAddr("198.51.100.1"), func(s Status) bool { return strings.Contains(s.LastError, "bind") })
	a.set(Peer{Address: netip.MustParseAddr("fe80::1%no-such-link")})
	a.await("an error", netip.MustParseAddr("fe80::1%no-such-link"), func(s Status) bool { return strings.Contains(s.LastError, "no-such-link") })
	b := startEdge(t, Config{}, nil)
	a.set(relaxed(addrA, addrB))
	b.set(relaxed(addrB, addrA))
	a.await("up", addrB, func(s Status) bool { return s.State == Up && s.LastError == "" })
}

// TestSetOfTheLargestSize fits the messages between Manager and engine.
func TestSetOfTheLargestSize(t *testing.T) {
	t.Parallel()
	local, _ := twoAddresses()
	var peers []Peer
	for i := range maxPeers {
		p := relaxed(local, netip.AddrFrom4([4]byte{127, 67, byte(i >> 8), byte(i)}))
		for id := range uint8(2) {
			p.Auth.Keys = append(p.Auth.Keys, Key{ID: id, Secret: strings.Repeat("\xff", hashLength)})
		}
		peers = append(peers, p)
	}
	a := startEdge(t, Config{}, nil)
	a.set(peers...)
	for _, p := range peers {
		a.await("packets", p.Address, func(s Status) bool { return s.PacketsOut > 0 })
	}
	if err := a.Set(t.Context(), append(peers, relaxed(local, netip.MustParseAddr("127.68.0.1")))); err == nil {
		t.Error("a set too large was taken")
	}
}

func TestSetWithoutRun(t *testing.T) {
	t.Parallel()
	addrA, addrB := twoAddresses()
	m := NewManager(Config{}, slog.New(slog.DiscardHandler), nil)
	if err := m.Set(t.Context(), []Peer{relaxed(addrA, addrB)}); err != nil {
		t.Fatal(err)
	}
	if s := m.Status(); len(s) != 1 || s[0].State != Down || s[0].Peer != addrB {
		t.Errorf("status %+v", s)
	}
	stop := m.Watch(addrA, func(Change) {})
	if n := len(m.Status()); n != 1 {
		t.Errorf("a watched address makes %d sessions", n)
	}
	stop()
	if len(m.sessions) != 1 {
		t.Errorf("%d entries left", len(m.sessions))
	}
}
