package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"anyedge/bgp/shield"
)

// toldOfUpdate is what GoBGP logs about each UPDATE that it gets.
const toldOfUpdate = "received update"

// TestHostileNeighbors gives a Speaker one good router and many that are
// hostile. Those that end their sessions, with OPENs, frames and orders of all
// wrong kinds, must get exactly the NOTIFICATION that the RFC asks for, and the
// next session must open. One that stays in session sends thousands of UPDATEs,
// malformed in every way, which must be counted and change nothing: whoever
// wants no routes need not reset a session that could not carry them (RFC 7606
// section 2, "AFI/SAFI disable"). The good router must not notice any of it, and
// what is Set meanwhile must reach it soon.
func TestHostileNeighbors(t *testing.T) {
	adversaries, sessions, messages := 20, 6, 6000
	if testing.Short() {
		adversaries, sessions, messages = 8, 2, 3000
	}
	// The good session must not end for want of a KEEPALIVE on a busy machine.
	const hold = 30 * time.Second
	l := newLab(t, 1, func(_ *testing.T, c *RouterConfig) { c.HoldTime = hold })
	cfg := l.speakerConfig(0)
	cfg.HoldTime = hold
	flooder := newHostilePeer(t)
	cfg.Neighbors = append(cfg.Neighbors, flooder.neighbor())
	var peers []*hostilePeer
	for range adversaries {
		p := newHostilePeer(t)
		peers = append(peers, p)
		cfg.Neighbors = append(cfg.Neighbors, p.neighbor())
	}
	reg := prometheus.NewRegistry()
	lines := &counter{Handler: slog.DiscardHandler, messages: make(map[string]int)}
	s, err := NewSpeaker(cfg, slog.New(lines), reg)
	if err != nil {
		t.Fatal(err)
	}
	set(t, s, twoPrefixes()...)
	stop := startSpeaker(t, s)
	l.waitBest(prefix4)
	l.waitBest(prefix6)

	calm, worst := make(chan struct{}), make(chan time.Duration, 1)
	go func() { worst <- changesReach(t, l, s, calm) }()
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 4271))
			attacks := append(openAttacks(rng, (sessions+1)/2), framingAttacks(rng, sessions/2)...)
			if err := p.playAll(attacks); err != nil {
				t.Errorf("seed %d: %v", i, err)
			}
		})
	}
	all.Go(func() {
		if err := flooder.flood(t, s, rand.New(rand.NewPCG(7606, 0)), messages); err != nil {
			t.Error(err)
		}
	})
	all.Wait()
	close(calm)
	slowest := <-worst
	t.Logf("%d sessions and %d messages of %d hostile neighbors; a change took at most %v to reach the good one",
		adversaries*sessions, messages, adversaries+1, slowest.Round(time.Millisecond))
	if slowest > 5*time.Second {
		t.Errorf("a change took %v to reach the good router", slowest)
	}

	good := s.Status().Neighbors[0]
	if good.State != Established || good.Sessions != 1 || good.RefusedUpdates != 0 || good.LastError != "" || len(good.AdjRIBOut) != 2 {
		t.Errorf("the good router's session suffered: %+v", good)
	}
	set(t, s, twoPrefixes()...)
	l.waitRouter("the first path", func(r *Router) bool { p, _ := r.Best(prefix4); return p.MED == announcement4().MED })
	comparePath(t, l.waitBest(prefix4), announcement4())
	comparePath(t, l.waitBest(prefix6), announcement6())
	if n := lines.count(toldOfUpdate); n != 0 {
		t.Errorf("GoBGP got %d UPDATEs", n)
	}
	stop()
	l.stop()
	awaitNoGoroutines(t)
}

// changesReach announces one change after the other until calm is closed, and
// returns the longest time that one took to reach the router.
func changesReach(t *testing.T, l *lab, s *Speaker, calm <-chan struct{}) (worst time.Duration) {
	a := announcement4()
	for {
		select {
		case <-calm:
			return worst
		case <-time.After(20 * time.Millisecond):
		}
		a.MED++
		start := time.Now()
		if err := s.Set(t.Context(), []Announcement{a, announcement6()}); err != nil {
			t.Error(err)
			return worst
		}
		for deadline := time.After(eventually); ; {
			changed := l.router.Changed()
			if p, ok := l.router.Best(prefix4); ok && p.MED == a.MED {
				break
			}
			select {
			case <-changed:
				continue
			case <-deadline:
				t.Error("a change did not reach the good router")
				return worst
			}
		}
		worst = max(worst, time.Since(start))
	}
}

// playAll plays one attack after the other, each in a session of its own.
func (p *hostilePeer) playAll(attacks []attack) error {
	for i := range attacks {
		a := &attacks[i]
		s, err := p.accept()
		if err != nil {
			return fmt.Errorf("no session for %v: %w", a, err)
		}
		err = s.play(a)
		s.Close()
		if err != nil {
			return fmt.Errorf("%v: %w", a, err)
		}
	}
	return nil
}

// flood sends generated messages that must not end the session, and checks the
// counters.
func (p *hostilePeer) flood(t *testing.T, s *Speaker, rng *rand.Rand, messages int) error {
	session, err := p.accept()
	if err != nil {
		return err
	}
	defer session.Close()
	if err := session.enter(Established, plainOpen()); err != nil {
		return err
	}
	sent := MessageCounts{Open: 1, Keepalive: 1}
	wrong, deadly := 0, 0
	var batch []byte
	for i := range messages {
		switch rng.IntN(8) {
		case 0:
			batch = append(batch, keepaliveMessage...)
			sent.Keepalive++
		case 1: // of any family, and of any kind (RFC 7313)
			body := []byte{0, byte(1 + rng.IntN(2)), 0, 1}
			if rng.IntN(2) == 0 {
				body = randomBytes(rng, 4)
			}
			batch = append(batch, frame(shield.TypeRouteRefresh, body...)...)
			sent.RouteRefresh++
		default:
			msg := malformedUpdate(rng)
			switch parses(msg) {
			case refusedByParser:
				wrong++
			case crashesParser:
				wrong, deadly = wrong+1, deadly+1
			}
			batch = append(batch, msg...)
			sent.Update++
		}
		// Now one by one, now many at once, cut anywhere.
		for len(batch) > 0 && (i == messages-1 || rng.IntN(20) == 0) {
			n := min(len(batch), 1+rng.IntN(20000))
			if _, err := session.Write(batch[:n]); err != nil {
				return fmt.Errorf("after %d messages: %w", i, err)
			}
			batch = batch[n:]
		}
	}
	// The messages are worth sending.
	t.Logf("of %d UPDATEs GoBGP's parser would refuse %d, and crash on %d of them", sent.Update, wrong, deadly)
	if wrong < int(sent.Update)/4 {
		return fmt.Errorf("only %d of %d UPDATEs have faults that GoBGP would see", wrong, sent.Update)
	}
	status := func() NeighborStatus {
		for _, n := range s.Status().Neighbors {
			if n.Address == p.address.Addr() {
				return n
			}
		}
		return NeighborStatus{}
	}
	for deadline := time.Now().Add(eventually); status().Received != sent; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("sent %+v, status %+v", sent, status())
		}
	}
	n := status()
	refused := testutil.ToFloat64(s.metrics.refused.WithLabelValues(n.Address.String()))
	if n.State != Established || n.Sessions != 1 || n.RefusedUpdates != sent.Update || refused != float64(sent.Update) || len(n.AdjRIBOut) != 2 {
		return fmt.Errorf("sent %+v, status %+v, %v refused by the metric", sent, n, refused)
	}
	return session.play(&attack{name: "the end of the flood", then: stays, state: Idle})
}

// parses is what GoBGP's parser makes of a message.
func parses(msg []byte) (v parserVerdict) {
	defer func() {
		if recover() != nil {
			v = crashesParser
		}
	}()
	if _, err := bgp.ParseBGPMessage(msg); err != nil {
		return refusedByParser
	}
	return takenByParser
}

type parserVerdict uint8

const (
	takenByParser parserVerdict = iota
	refusedByParser
	crashesParser
)

// TestHostileOpens puts thousands of generated OPENs and frames before a shield
// alone, whose engine answers like GoBGP, but at once.
func TestHostileOpens(t *testing.T) {
	t.Parallel()
	const workers = 4
	sessions := 750 // of each worker
	if testing.Short() {
		sessions = 150
	}
	for i := range workers {
		t.Run(fmt.Sprintf("seed_%d", i), func(t *testing.T) {
			t.Parallel()
			p := newHostilePeer(t)
			sh, err := shield.Listen(shield.Config{
				Peer: p.address, ASN: hostileASN, Listen: netip.MustParseAddr("127.0.0.1"),
			}, noEvents{})
			if err != nil {
				t.Fatal(err)
			}
			defer sh.Close()
			rng := rand.New(rand.NewPCG(uint64(i), 9072))
			attacks := slices.Concat(openAttacks(rng, sessions/2), framingAttacks(rng, sessions/2))
			for _, a := range attacks {
				ended := make(chan error, 1)
				go func() { ended <- sh.Serve(context.Background()) }()
				engine := answerAsEngine(t, sh.Addr())
				if err := p.playAll([]attack{a}); err != nil {
					t.Fatal(err)
				}
				if err := <-ended; err == nil {
					t.Fatalf("%v: Serve returned nil", &a)
				}
				engine.Close()
			}
		})
	}
}

// noEvents observes nothing.
type noEvents struct{}

func (noEvents) State(State, error)         {}
func (noEvents) Opened(shield.Open)         {}
func (noEvents) Received(shield.Type, bool) {}
func (noEvents) Sent([]byte)                {}

// answerAsEngine sends an OPEN, and a KEEPALIVE for each OPEN, until the shield
// closes the connection.
func answerAsEngine(t *testing.T, address netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(plainOpen()); err != nil {
		t.Fatal(err)
	}
	go func() {
		s := &hostileSession{TCPConn: c.(*net.TCPConn), in: newReader(c)}
		for {
			msg, err := s.read()
			if err != nil {
				return
			}
			if _, err := bgp.ParseBGPMessage(msg); err != nil {
				t.Errorf("the engine got % x: %v", msg, err)
			}
			if shield.TypeOf(msg) == shield.TypeOpen {
				c.Write(keepaliveMessage)
			}
		}
	}()
	return c
}

// TestEngineTellsOfUpdates is the reverse of what TestHostileNeighbors concludes
// from a log without this message.
func TestEngineTellsOfUpdates(t *testing.T) {
	t.Parallel()
	a := newAnnouncer(t, netip.MustParseAddr("127.0.0.1"))
	lines := &counter{Handler: slog.DiscardHandler, messages: make(map[string]int)}
	worked := make(chan struct{}, 1)
	e, err := startEngine(speakerASN, netip.MustParseAddr("10.0.0.1"), netip.AddrPort{}, func() {
		select {
		case worked <- struct{}{}:
		default:
		}
	}, slog.New(lines))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.stop)
	if err := e.addPeer(enginePeer{address: a.listen.Addr(), port: a.listen.Port(), asn: routerASN, holdTime: testHold}); err != nil {
		t.Fatal(err)
	}
	awaitEngine(t, worked, "both UPDATEs", func() bool { return lines.count(toldOfUpdate) == 2 })
}

// TestTwoOctetNeighbor is a router that has never heard of four-octet AS
// numbers: ours reaches it in AS4_PATH (RFC 6793 section 4.2.2), and Routes must
// find there what was announced.
func TestTwoOctetNeighbor(t *testing.T) {
	t.Parallel()
	p := newHostilePeer(t)
	s := newSpeaker(t, Config{
		ASN: speakerASN, RouterID: netip.MustParseAddr("10.0.0.1"), HoldTime: testHold,
		Neighbors: []Neighbor{p.neighbor()},
	}, nil)
	longer := announcement4()
	longer.Prepend = 3
	set(t, s, longer)
	startSpeaker(t, s)
	session, err := p.accept()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	open := rightOpen()
	open.parameters = parameters(capability(1, 0, 1, 0, 1))
	if err := session.enter(Established, open.message()); err != nil {
		t.Fatal(err)
	}
	n := waitStatus(t, s, "a path", func(n NeighborStatus) bool { return len(n.AdjRIBOut) == 1 })
	comparePath(t, n.AdjRIBOut[0], longer)
	if r := s.Routes()[0]; r.Reason != RouteAnnounced {
		t.Errorf("%+v, want it announced", r)
	}
	if n.Negotiated.FourOctetAS {
		t.Error("four octets were negotiated")
	}
}
