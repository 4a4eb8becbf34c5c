package watch

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	node   = netip.MustParseAddrPort("10.1.0.11:40000")
	router = netip.MustParseAddrPort("10.1.0.1:179")
)

// message is a BGP message with its header.
func message(kind MessageType, body ...byte) []byte {
	m := append(slices.Clone(marker), 0, 0, byte(kind))
	m = append(m, body...)
	binary.BigEndian.PutUint16(m[16:], uint16(len(m)))
	return m
}

// update has IPv4 withdrawals, attributes and IPv4 announcements.
func update(withdrawn, attributes, announced []byte) []byte {
	var body []byte
	body = binary.BigEndian.AppendUint16(body, uint16(len(withdrawn)))
	body = append(body, withdrawn...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(attributes)))
	body = append(body, attributes...)
	return message(Update, append(body, announced...)...)
}

func wireOf(segments ...segment) []Message {
	w := Wire{streams: make(map[direction]*stream)}
	for _, s := range segments {
		w.take(s)
	}
	return w.Messages.All()
}

func TestUpdatesOfBothFamilies(t *testing.T) {
	four, six := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")
	service4, service6 := []byte{24, 192, 0, 2}, []byte{48, 0x20, 0x01, 0x0d, 0xb8, 0, 1}
	reach := append([]byte{0x80, mpReach, 0, 0, 2, 1, 16}, make([]byte, 17)...)
	reach = append(reach, service6...)
	reach[2] = byte(len(reach) - 3)
	unreach := append([]byte{0x90, mpUnreach, 0, 0, 0, 2, 1}, service6...) // with a 16-bit length
	unreach[3] = byte(len(unreach) - 4)
	origin := []byte{0x40, 1, 1, 0}
	for name, c := range map[string]struct {
		message              []byte
		announced, withdrawn []netip.Prefix
	}{
		"announce IPv4":  {update(nil, origin, service4), []netip.Prefix{four}, nil},
		"withdraw IPv4":  {update(service4, nil, nil), nil, []netip.Prefix{four}},
		"announce IPv6":  {update(nil, slices.Concat(origin, reach), nil), []netip.Prefix{six}, nil},
		"withdraw IPv6":  {update(nil, unreach, nil), nil, []netip.Prefix{six}},
		"both":           {update(service4, reach, nil), []netip.Prefix{six}, []netip.Prefix{four}},
		"end of RIB":     {update(nil, nil, nil), nil, nil},
		"cut short":      {update(nil, unreach[:8], nil), nil, nil},
		"too many bits":  {update([]byte{33, 1, 2, 3, 4, 5}, nil, nil), nil, nil},
		"default route":  {update(nil, origin, []byte{0}), []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, nil},
		"lengths do lie": {message(Update, 0xff, 0xff, 0, 0), nil, nil},
	} {
		got := wireOf(segment{From: node, To: router, Payload: c.message})
		if len(got) != 1 || got[0].Type != Update || !slices.Equal(got[0].Announced, c.announced) || !slices.Equal(got[0].Withdrawn, c.withdrawn) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// However TCP cuts and repeats a stream, its messages are noted once each.
func TestSegmentsAreJoined(t *testing.T) {
	stream := slices.Concat(message(Open, make([]byte, 10)...), message(Keepalive), update([]byte{24, 192, 0, 2}, nil, nil), message(Notification, 6, 2))
	want := []MessageType{Open, Keepalive, Update, Notification}
	const first = 0xfffffff0 // sequence numbers wrap
	syn := segment{From: node, To: router, Sequence: first - 1, Syn: true}
	for size := 1; size <= len(stream); size++ {
		segments := []segment{syn}
		for at := 0; at < len(stream); at += size {
			s := segment{From: node, To: router, Sequence: first + uint32(at), Payload: stream[at:min(at+size, len(stream))]}
			segments = append(segments, s, s) // every one is sent twice
		}
		var got []MessageType
		for _, m := range wireOf(segments...) {
			got = append(got, m.Type)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("in pieces of %d: %v, want %v", size, got, want)
		}
	}
}

func TestWireBeginsAnywhere(t *testing.T) {
	whole := segment{From: node, To: router, Sequence: 100, Payload: message(Keepalive)}
	middle := segment{From: node, To: router, Sequence: 90, Payload: []byte("half a message")}
	later := whole
	later.Sequence = 500 // what came between was missed
	other := segment{From: netip.MustParseAddrPort("10.1.0.11:8600"), To: netip.MustParseAddrPort("10.1.0.1:443"), Payload: message(Keepalive)}
	for name, c := range map[string]struct {
		segments []segment
		want     int
	}{
		"at a message":       {[]segment{whole}, 1},
		"within a message":   {[]segment{middle, whole}, 1},
		"after a gap":        {[]segment{whole, later, later}, 2},
		"no BGP":             {[]segment{other}, 0},
		"both directions":    {[]segment{whole, {From: router, To: node, Sequence: 7, Payload: message(Keepalive)}}, 2},
		"nonsense":           {[]segment{{From: node, To: router, Payload: append(slices.Clone(marker), 0, 3, 4)}}, 0},
		"after the nonsense": {[]segment{{From: node, To: router, Payload: append(slices.Clone(marker), 0, 3, 4)}, whole}, 1},
	} {
		if got := wireOf(c.segments...); len(got) != c.want {
			t.Errorf("%s: %v, want %d messages", name, got, c.want)
		}
	}
}

// frame4 is a TCP segment over IPv4, padded as Ethernet does.
func frame4(payload string) []byte {
	f := make([]byte, etherHeader+20+20)
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[etherHeader:]
	ip[0], ip[9] = 0x45, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], uint16(40+len(payload)))
	copy(ip[12:], []byte{10, 1, 0, 11, 10, 1, 0, 1})
	tcp(ip[20:])
	return append(append(f, payload...), make([]byte, 6)...)
}

func frame6(payload string) []byte {
	f := make([]byte, etherHeader+40+20)
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IPV6)
	ip := f[etherHeader:]
	ip[0], ip[6] = 0x60, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[4:], uint16(20+len(payload)))
	ip[23], ip[39] = 11, 1
	tcp(ip[40:])
	return append(append(f, payload...), make([]byte, 6)...)
}

func tcp(b []byte) {
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 179)
	binary.BigEndian.PutUint32(b[4:], 77)
	b[12], b[13] = 5<<4, 2
}

func TestParseSegment(t *testing.T) {
	for name, frame := range map[string][]byte{"IPv4": frame4("hello"), "IPv6": frame6("hello")} {
		s, ok := parseSegment(frame)
		if !ok || string(s.Payload) != "hello" || s.Sequence != 77 || !s.Syn || s.From.Port() != 40000 || s.To.Port() != 179 {
			t.Errorf("%s: %+v, %v", name, s, ok)
		}
		for n := range frame[:len(frame)-7] { // cut into the payload and further
			if s, ok := parseSegment(frame[:n]); ok {
				t.Fatalf("%s: %d bytes of %d made %+v", name, n, len(frame), s)
			}
		}
	}
	udp := frame4("hello")
	udp[etherHeader+9] = unix.IPPROTO_UDP
	if s, ok := parseSegment(udp); ok {
		t.Errorf("UDP made %+v", s)
	}
}

// attribute is a netlink attribute, padded.
func attribute(kind uint16, value ...byte) []byte {
	b := native.AppendUint16(nil, uint16(4+len(value)))
	b = append(native.AppendUint16(b, kind), value...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

// hop is an rtnexthop with a gateway.
func hop(address ...byte) []byte {
	a := attribute(unix.RTA_GATEWAY, address...)
	return slices.Concat(native.AppendUint16(nil, uint16(8+len(a))), make([]byte, 6), a)
}

func TestParseRoute(t *testing.T) {
	header := func(family, bits, table, kind byte) []byte {
		return []byte{family, bits, 0, 0, table, 0, 0, kind, 0, 0, 0, 0}
	}
	service := attribute(unix.RTA_DST, 192, 0, 2, 0)
	main4 := header(unix.AF_INET, 24, unix.RT_TABLE_MAIN, unix.RTN_UNICAST)
	one, two := attribute(unix.RTA_GATEWAY, 10, 1, 0, 11), attribute(unix.RTA_MULTIPATH, slices.Concat(hop(10, 1, 0, 12), hop(10, 1, 0, 11))...)
	for name, c := range map[string]struct {
		kind uint16
		data []byte
		ok   bool
		want string
		hops int
	}{
		"one hop":     {unix.RTM_NEWROUTE, slices.Concat(main4, service, one), true, "192.0.2.0/24", 1},
		"two hops":    {unix.RTM_NEWROUTE, slices.Concat(main4, service, two), true, "192.0.2.0/24", 2},
		"gone":        {unix.RTM_DELROUTE, slices.Concat(main4, service, one), true, "192.0.2.0/24", 0},
		"default":     {unix.RTM_NEWROUTE, slices.Concat(header(unix.AF_INET, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST), one), true, "0.0.0.0/0", 1},
		"IPv6":        {unix.RTM_NEWROUTE, slices.Concat(header(unix.AF_INET6, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST), attribute(unix.RTA_GATEWAY, make([]byte, 16)...)), true, "::/0", 1},
		"local table": {unix.RTM_NEWROUTE, slices.Concat(header(unix.AF_INET, 24, unix.RT_TABLE_LOCAL, unix.RTN_UNICAST), service), false, "", 0},
		"an address":  {unix.RTM_NEWADDR, slices.Concat(main4, service), false, "", 0},
		"short":       {unix.RTM_NEWROUTE, main4[:8], false, "", 0},
		"short hop":   {unix.RTM_NEWROUTE, slices.Concat(main4, service, attribute(unix.RTA_MULTIPATH, 200, 0, 0, 0, 0, 0, 0, 0)), true, "192.0.2.0/24", 0},
	} {
		got, ok := parseRoute(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: c.kind}, Data: c.data})
		if ok != c.ok || ok && (got.Prefix.String() != c.want || len(got.NextHops) != c.hops || got.Gone() != (c.hops == 0)) {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
		if c.hops == 2 && !slices.IsSortedFunc(got.NextHops, netip.Addr.Compare) {
			t.Errorf("%s: %v is not sorted", name, got.NextHops)
		}
	}
}

func TestRecordAwaits(t *testing.T) {
	var r Record[int]
	found := make(chan int)
	go func() {
		n, err := r.Await(t.Context(), func(n int) bool { return n > 2 })
		if err != nil {
			t.Error(err)
		}
		found <- n
	}()
	for n := range 5 {
		r.add(n)
	}
	if n := <-found; n != 3 {
		t.Errorf("found %d, want 3, the first that matches", n)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("enough"))
	defer cancel()
	if _, err := r.Await(ctx, func(n int) bool { return n > 9 }); err == nil || err.Error() != "enough" {
		t.Errorf("the wait ended with %v", err)
	}
	if got := r.All(); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
		t.Errorf("noted %v", got)
	}
}

func FuzzWire(f *testing.F) {
	f.Add(update([]byte{24, 192, 0, 2}, []byte{0x40, 1, 1, 0}, []byte{0}), uint8(7))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		step := int(size) + 1
		var pieces []segment
		for at := 0; at < len(stream); at += step {
			pieces = append(pieces, segment{From: node, To: router, Sequence: uint32(at), Payload: stream[at:min(at+step, len(stream))]})
		}
		if len(pieces) > 0 {
			pieces = append([]segment{{From: node, To: router, Sequence: ^uint32(0), Syn: true}}, pieces...)
		}
		for _, m := range wireOf(pieces...) {
			for _, p := range slices.Concat(m.Announced, m.Withdrawn) {
				if !p.IsValid() {
					t.Errorf("%v", m)
				}
			}
		}
	})
}
