package bgp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// TestPathRoundTrip sends announcements through GoBGP's own form and back.
func TestPathRoundTrip(t *testing.T) {
	for _, a := range twoPrefixes() {
		encoded, err := encodePath(a, speakerASN)
		if err != nil {
			t.Fatal(err)
		}
		path, err := decodePath(encoded)
		if err != nil {
			t.Fatal(err)
		}
		// GoBGP adds the own ASN once more when it sends.
		path.ASPath = append(path.ASPath, speakerASN)
		comparePath(t, path, a)
	}
}

func TestAdjRIBOut(t *testing.T) {
	attrs := []bgp.PathAttributeInterface{
		bgp.NewPathAttributeOrigin(0),
		bgp.NewPathAttributeNextHop(next4.String()),
		bgp.NewPathAttributeMultiExitDisc(5),
	}
	v4 := bgp.NewIPAddrPrefix(24, "192.0.2.0")
	v4b := bgp.NewIPAddrPrefix(24, "198.51.100.0")
	v6 := []bgp.AddrPrefixInterface{bgp.NewIPv6AddrPrefix(48, "2001:db8:1::")}
	reach := bgp.NewPathAttributeMpReachNLRI(next6.String(), v6)
	steps := []struct {
		msg  *bgp.BGPMessage
		want []netip.Prefix
	}{
		{bgp.NewBGPUpdateMessage(nil, attrs, []*bgp.IPAddrPrefix{v4, v4b}), []netip.Prefix{prefix4, prefix4b}},
		{bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{reach}, nil), []netip.Prefix{prefix4, prefix4b, prefix6}},
		{bgp.NewBGPUpdateMessage([]*bgp.IPAddrPrefix{v4}, attrs, []*bgp.IPAddrPrefix{v4b}), []netip.Prefix{prefix4b, prefix6}},
		{bgp.NewBGPUpdateMessage(nil, nil, nil), []netip.Prefix{prefix4b, prefix6}}, // End-of-RIB
		{bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{bgp.NewPathAttributeMpUnreachNLRI(v6)}, nil), []netip.Prefix{prefix4b}},
	}
	rib := make(adjRIBOut)
	for i, step := range steps {
		msg, err := step.msg.Serialize()
		if err != nil {
			t.Fatal(err)
		}
		if err := rib.update(msg, time.Now()); err != nil {
			t.Fatal(err)
		}
		paths := rib.sorted()
		if len(paths) != len(step.want) {
			t.Fatalf("step %d: %v, want %v", i, paths, step.want)
		}
		for j, p := range paths {
			if p.Prefix != step.want[j] {
				t.Errorf("step %d: %v, want %v", i, p.Prefix, step.want[j])
			}
			if want := p.Prefix.Addr().Is4(); p.NextHop.Is4() != want {
				t.Errorf("step %d: %v has next hop %v", i, p.Prefix, p.NextHop)
			}
		}
	}
	if err := rib.update(make([]byte, 5), time.Now()); err == nil {
		t.Error("a truncated message was taken")
	}
}

// FuzzEngineParser feeds GoBGP the bodies of the messages the shield lets
// through. It must neither crash on them nor return an error that is not a
// *bgp.MessageError, for on such an error it panics on purpose.
func FuzzEngineParser(f *testing.F) {
	open, err := bgp.NewBGPOpenMessage(64500, 9, "10.0.0.1", []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{
			bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC),
			bgp.NewCapFourOctetASNumber(speakerASN),
			bgp.NewCapFQDN("router", "example"),
			bgp.NewCapAddPath([]*bgp.CapAddPathTuple{bgp.NewCapAddPathTuple(bgp.RF_IPv4_UC, bgp.BGP_ADD_PATH_BOTH)}),
			bgp.NewCapExtendedNexthop([]*bgp.CapExtendedNexthopTuple{bgp.NewCapExtendedNexthopTuple(bgp.RF_IPv4_UC, bgp.AFI_IP6)}),
			bgp.NewCapGracefulRestart(true, true, 120, []*bgp.CapGracefulRestartTuple{bgp.NewCapGracefulRestartTuple(bgp.RF_IPv4_UC, true)}),
			bgp.NewCapSoftwareVersion("1"),
		}),
	}).Serialize()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(bgp.BGP_MSG_OPEN), open[bgp.BGP_HEADER_LENGTH:])
	f.Add(uint8(bgp.BGP_MSG_NOTIFICATION), []byte{6, 2, 200, 'x'})
	f.Add(uint8(bgp.BGP_MSG_KEEPALIVE), []byte{})
	f.Add(uint8(bgp.BGP_MSG_ROUTE_REFRESH), []byte{0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, typ uint8, body []byte) {
		switch {
		case typ == bgp.BGP_MSG_OPEN && len(body) >= 10:
		case typ == bgp.BGP_MSG_NOTIFICATION && len(body) >= 2:
		case typ == bgp.BGP_MSG_KEEPALIVE && len(body) == 0:
		case typ == bgp.BGP_MSG_ROUTE_REFRESH && len(body) == 4:
		default:
			t.Skip("not let through")
		}
		if len(body) > bgp.BGP_MAX_MESSAGE_LENGTH-bgp.BGP_HEADER_LENGTH {
			t.Skip("not let through")
		}
		header := &bgp.BGPHeader{Type: typ, Len: uint16(len(body) + bgp.BGP_HEADER_LENGTH)}
		msg, err := bgp.ParseBGPBody(header, body)
		var known *bgp.MessageError
		if err != nil {
			if msg == nil || !errors.As(err, &known) {
				t.Fatalf("type %d: message %v, error %v", typ, msg, err)
			}
			return
		}
		if open, ok := msg.Body.(*bgp.BGPOpen); ok {
			if _, err := bgp.ValidateOpenMsg(open, 64500, speakerASN, net.IPv4(10, 0, 0, 2)); err != nil && !errors.As(err, &known) {
				t.Fatal(err)
			}
		}
	})
}
