package bfd

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is two engines without threads that talk over loopback, one pass at a
// time.
func pair(t testing.TB, auth Auth) [2]*engine {
	t.Helper()
	if b, ok := t.(*testing.B); ok {
		b.ReportAllocs()
	}
	a, b := twoAddresses()
	var both [2]*engine
	for i, addrs := range [2][2]netip.Addr{{a, b}, {b, a}} {
		manager, fd, err := controlPair()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(manager) })
		e := &engine{
			control:  control{fd: fd, buf: make([]byte, maxMessage)},
			random:   rand.New(rand.NewPCG(1, uint64(i))),
			byDiscr:  make(map[uint32]*peer),
			bySource: make(map[source]*peer),
			ports:    make(map[uint16]bool),
		}
		t.Cleanup(e.close)
		peers, err := normalizeSet([]Peer{{LocalAddress: addrs[0], Address: addrs[1], TransmitInterval: minInterval, Multiplier: 255, Auth: auth}})
		if err != nil {
			t.Fatal(err)
		}
		e.apply(peers, time.Now())
		both[i] = e
	}
	for range 10 {
		for _, e := range both {
			e.pass(time.Now())
		}
	}
	for _, e := range both {
		if s := e.peers[0].session; s.state != Up {
			t.Fatalf("%v after ten passes: %v", s.state, e.peers[0].sender.err)
		}
	}
	return both
}

// pass is what run does between two waits, without reports.
func (e *engine) pass(now time.Time) {
	for _, l := range e.listeners {
		e.read(l, now)
	}
	for _, p := range e.peers {
		p.session.advance(now)
		e.transmit(p, now)
	}
}

// TestNoAllocation sends and receives packets on virtual time over real
// sockets.
func TestNoAllocation(t *testing.T) {
	for name, auth := range map[string]Auth{"plain": {}, "sha1": testKeys(true)} {
		t.Run(name, func(t *testing.T) {
			both := pair(t, auth)
			now := time.Now()
			before := both[0].peers[0].packetsIn
			n := testing.AllocsPerRun(200, func() {
				now = now.Add(minInterval)
				both[0].pass(now)
				both[1].pass(now)
				if err := both[0].wait(); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations per packet", n)
			}
			if got := both[0].peers[0].packetsIn - before; got < 150 {
				t.Errorf("%d packets received", got)
			}
		})
	}
}

// TestDemultiplexing is which session a packet belongs to (RFC 5880 section
// 6.3, RFC 5881 section 3).
func TestDemultiplexing(t *testing.T) {
	global, local := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")
	other := netip.MustParseAddr("192.0.2.2")
	tests := []struct {
		name string
		from source
		your uint32
		to   int // peer 0 or 1, or -1
		drop drop
	}{
		{"first contact", source{global, 0}, 0, 0, kept},
		{"first contact on the link", source{local, 5}, 0, 1, kept},
		{"first contact on another link", source{local, 6}, 0, -1, unknownSession},
		{"first contact of a stranger", source{other, 0}, 0, -1, unknownSession},
		{"by discriminator", source{global, 0}, 100, 0, kept},
		{"by discriminator, another address", source{other, 0}, 100, 0, kept},
		{"by discriminator on the link", source{local, 5}, 101, 1, kept},
		{"by discriminator on another link", source{local, 6}, 101, 1, unknownSession},
		{"another discriminator", source{global, 0}, 102, 0, unknownSession},
		{"another discriminator of a stranger", source{other, 0}, 102, -1, unknownSession},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := &engine{byDiscr: make(map[uint32]*peer), bySource: make(map[source]*peer)}
			peers := [2]*peer{}
			for i, from := range []source{{global, 0}, {local, 5}} {
				s := newSession(Peer{TransmitInterval: time.Second, ReceiveInterval: time.Second, Multiplier: 3}, uint32(100+i), 0, rand.New(rand.NewPCG(1, 2)), epoch)
				peers[i] = &peer{session: s, source: from}
				e.byDiscr[s.local], e.bySource[from] = peers[i], peers[i]
			}
			p := neighborPacket(Down)
			p.your = test.your
			e.receive(p.append(nil), test.from, epoch)
			for i, peer := range peers {
				if got, want := peer.packetsIn == 1, i == test.to && test.drop == kept; got != want {
					t.Errorf("peer %d received: %v", i, got)
				}
				if got, want := peer.drops[unknownSession] == 1, i == test.to && test.drop != kept; got != want {
					t.Errorf("peer %d dropped: %v", i, got)
				}
			}
			if got, want := e.strays.drops[unknownSession] == 1, test.to < 0; got != want {
				t.Errorf("stray: %v", got)
			}
		})
	}
}

// TestPorts are the sending ports: within RFC 5881 section 4, each session its
// own, and the same after the socket was opened anew.
func TestPorts(t *testing.T) {
	local, peer := twoAddresses()
	e := pair(t, Auth{})[0]
	set, err := normalizeSet([]Peer{{LocalAddress: local, Address: peer}, {LocalAddress: local, Address: peer.Next()}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	e.apply(set, now)
	seen := make(map[uint16]bool)
	for _, p := range e.peers {
		if p.leaving {
			continue
		}
		n := p.sender.port
		if n < minPort || seen[n] {
			t.Errorf("port %d", n)
		}
		seen[n] = true
		e.openSender(p, now)
		if p.sender.port != n || p.sender.err != nil {
			t.Errorf("port %d became %d, %v", n, p.sender.port, p.sender.err)
		}
	}
	if len(seen) != 2 {
		t.Errorf("ports %v", seen)
	}
}

// TestBacklog fills the Manager's side with reports it does not read.
func TestBacklog(t *testing.T) {
	e := pair(t, Auth{})[0]
	p := e.peers[0]
	now := time.Now()
	for i := 0; e.backlog.IsZero(); i++ {
		if i == 1e6 {
			t.Fatal("never full")
		}
		p.reportAt = time.Time{}
		e.reportAll(now)
	}
	reported := p.reported
	p.session.enter(Down, TimeExpired)
	e.reportAll(now.Add(backlogInterval))
	if p.reported != reported {
		t.Error("a change was taken for reported")
	}
}

func TestSetIsChecked(t *testing.T) {
	addr := netip.MustParseAddr
	ok := addr("192.0.2.1")
	tests := []struct {
		peer Peer
		want string
	}{
		{Peer{}, "address: invalid IP is not"},
		{Peer{Address: addr("0.0.0.0")}, "address: 0.0.0.0 is not"},
		{Peer{Address: addr("ff02::1")}, "address: ff02::1 is not"},
		{Peer{Address: addr("fe80::1")}, "needs a zone"},
		{Peer{Address: addr("2001:db8::1%eth0")}, "needs a zone"},
		{Peer{Address: ok, LocalAddress: addr("::1")}, "different families"},
		{Peer{Address: ok, LocalAddress: addr("0.0.0.0")}, "local_address: 0.0.0.0"},
		{Peer{Address: addr("2001:db8::1"), LocalAddress: addr("fe80::1")}, "is link-local and"},
		{Peer{Address: ok, TransmitInterval: 9 * time.Millisecond}, "transmit_interval: 9ms"},
		{Peer{Address: ok, ReceiveInterval: 2 * time.Minute}, "receive_interval: 2m0s"},
		{Peer{Address: ok, Auth: Auth{Keys: []Key{{1, ""}}}}, "auth.keys[0]: a secret"},
		{Peer{Address: ok, Auth: Auth{Keys: []Key{{1, strings.Repeat("s", 21)}}}}, "auth.keys[0]: a secret"},
		{Peer{Address: ok, Auth: Auth{Keys: []Key{{1, "a"}, {1, "b"}}}}, "auth.keys[1]: id 1"},
	}
	for _, test := range tests {
		_, err := normalizeSet([]Peer{{Address: addr("192.0.2.9")}, test.peer})
		if err == nil || !strings.Contains(err.Error(), "peers[1]") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.peer, err, test.want)
		}
	}
	if _, err := normalizeSet([]Peer{{Address: ok}, {Address: addr("::ffff:192.0.2.1")}}); err == nil || !strings.Contains(err.Error(), "listed twice") {
		t.Errorf("the same neighbor twice: %v", err)
	}
	set, err := normalizeSet([]Peer{{Address: addr("fe80::1%eth0"), LocalAddress: addr("fe80::2"), TransmitInterval: time.Second}})
	if err != nil || set[0].LocalAddress != addr("fe80::2%eth0") || set[0].ReceiveInterval != time.Second || set[0].Multiplier != 3 {
		t.Errorf("%+v, %v", set, err)
	}
}

// TestNames pass through JSON, those of other implementations too.
func TestNames(t *testing.T) {
	for d := range Diagnostic(32) {
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var again Diagnostic
		if err := json.Unmarshal(b, &again); err != nil || again != d {
			t.Errorf("%d became %d by %s, %v", d, again, b, err)
		}
	}
	for s := range State(4) {
		b, _ := s.MarshalText()
		var again State
		if err := again.UnmarshalText(b); err != nil || again != s {
			t.Errorf("%v became %v, %v", s, again, err)
		}
	}
	if err := new(State).UnmarshalText([]byte("sideways")); err == nil {
		t.Error("sideways is a state")
	}
}

func BenchmarkPacket(b *testing.B) {
	both := pair(b, Auth{})
	now := time.Now()
	for b.Loop() {
		now = now.Add(minInterval)
		both[0].pass(now)
		both[1].pass(now)
	}
}
