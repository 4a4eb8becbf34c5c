package bgp

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"

	"anyedge/bgp/shield"
)

// TestTwoSpeakers moves the best path between two speakers of one prefix, as a
// drain does, and by stopping one, as a failure does.
func TestTwoSpeakers(t *testing.T) {
	t.Parallel()
	l := newLab(t, 2)
	first := newSpeaker(t, l.speakerConfig(0), nil)
	second := newSpeaker(t, l.speakerConfig(1), nil)
	set(t, first, announcement4())
	set(t, second, announcement4())
	stopFirst := startSpeaker(t, first)
	startSpeaker(t, second)
	waitOrder := func(best, other int, otherIs Announcement) {
		t.Helper()
		l.waitRouter(fmt.Sprintf("speaker %d is best", best), func(r *Router) bool {
			paths := r.Paths(prefix4)
			return len(paths) == 2 &&
				paths[0].Neighbor == l.cfg.Peers[best].Address && paths[0].MED == announcement4().MED && len(paths[0].ASPath) == 1 &&
				paths[1].Neighbor == l.cfg.Peers[other].Address && paths[1].MED == otherIs.MED && len(paths[1].ASPath) == otherIs.Prepend+1
		})
		if p, ok := l.router.Best(prefix4); !ok || p.Neighbor != l.cfg.Peers[best].Address {
			t.Errorf("best is %+v", p)
		}
	}
	l.waitRouter("two paths", func(r *Router) bool { return len(r.Paths(prefix4)) == 2 })

	longer, higher := announcement4(), announcement4()
	longer.Prepend = 3
	higher.MED++
	set(t, first, longer)
	waitOrder(1, 0, longer)
	set(t, second, longer)
	set(t, first, announcement4())
	waitOrder(0, 1, longer)
	set(t, second, announcement4())
	set(t, first, higher)
	waitOrder(1, 0, higher)

	for _, p := range l.router.Peers() {
		if p.State != Established || p.ASN != speakerASN {
			t.Errorf("peer %+v, want it established", p)
		}
	}
	stopFirst()
	l.waitRouter("only the second", func(r *Router) bool {
		paths := r.Paths(prefix4)
		return len(paths) == 1 && paths[0].Neighbor == l.cfg.Peers[1].Address
	})

	// A speaker that comes back is taken back soon, although GoBGP would
	// ignore the peer for five seconds.
	back := newSpeaker(t, l.speakerConfig(0), nil)
	set(t, back, announcement4())
	start := time.Now()
	startSpeaker(t, back)
	l.waitRouter("two paths again", func(r *Router) bool { return len(r.Paths(prefix4)) == 2 })
	took := time.Since(start)
	t.Logf("from the speaker's return to the router's RIB: %v", took.Round(time.Millisecond))
	if took > 4*time.Second {
		t.Errorf("took %v", took)
	}

	changed := l.router.Changed()
	l.stop()
	<-changed
	if paths := l.router.Paths(prefix4); len(paths) != 0 {
		t.Errorf("a stopped router has %v", paths)
	}
}

// TestOpen reads what a speaker offers: IPv4 and IPv6, its four-octet ASN, its
// hold time, and neither graceful restart (RFC 4724) nor its long-lived form
// (RFC 9494).
func TestOpen(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().(*net.TCPAddr).AddrPort()
	s := newSpeaker(t, Config{
		ASN: speakerASN, RouterID: netip.MustParseAddr("10.0.0.1"),
		Neighbors: []Neighbor{{Address: address.Addr(), Port: address.Port(), ASN: routerASN}},
	}, nil)
	startSpeaker(t, s)
	c, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(eventually))
	header := make([]byte, bgp.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(c, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(header[16])<<8+int(header[17])-len(header))
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	msg, err := bgp.ParseBGPMessage(append(header, body...))
	if err != nil {
		t.Fatal(err)
	}
	open := msg.Body.(*bgp.BGPOpen)
	if open.HoldTime != uint16(defaultHoldTime/time.Second) || open.MyAS != bgp.AS_TRANS {
		t.Errorf("hold time %d and AS %d offered", open.HoldTime, open.MyAS)
	}
	offered := make(map[bgp.BGPCapabilityCode]bool)
	families := make(map[bgp.RouteFamily]bool)
	for _, p := range open.OptParams {
		for _, capability := range p.(*bgp.OptionParameterCapability).Capability {
			offered[capability.Code()] = true
			switch c := capability.(type) {
			case *bgp.CapMultiProtocol:
				families[c.CapValue] = true
			case *bgp.CapFourOctetASNumber:
				if c.CapValue != speakerASN {
					t.Errorf("AS %d offered", c.CapValue)
				}
			}
		}
	}
	if len(families) != 2 || !families[bgp.RF_IPv4_UC] || !families[bgp.RF_IPv6_UC] {
		t.Errorf("families %v offered", families)
	}
	if !offered[bgp.BGP_CAP_FOUR_OCTET_AS_NUMBER] {
		t.Error("no four-octet ASN offered")
	}
	for _, code := range []bgp.BGPCapabilityCode{bgp.BGP_CAP_GRACEFUL_RESTART, bgp.BGP_CAP_LONG_LIVED_GRACEFUL_RESTART} {
		if offered[code] {
			t.Errorf("capability %v offered", code)
		}
	}

	// The wrong AS: GoBGP refuses it through the shield.
	wrong, err := bgp.NewBGPOpenMessage(64666, 9, "10.0.0.2", nil).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(wrong); err != nil {
		t.Fatal(err)
	}
	waitStatus(t, s, "the refusal", func(n NeighborStatus) bool {
		return n.LastError == "sent notification: open message error, bad peer AS"
	})
	if n := s.Status().Neighbors[0]; n.Sessions != 0 || n.Sent.Notification != 1 || n.State > shield.OpenSent {
		t.Errorf("status %+v", n)
	}
}
