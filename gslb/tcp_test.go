package gslb

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// frame puts the length before a message, as TCP carries it.
func frame(t testing.TB, q *dns.Msg) []byte {
	t.Helper()
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
}

// readFrame reads one answer.
func readFrame(t testing.TB, conn net.Conn) *dns.Msg {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		t.Fatal(err)
	}
	wire := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, wire); err != nil {
		t.Fatal(err)
	}
	return unpack(t, wire)
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// expectEnd waits for the server to close a connection.
func expectEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("read %d bytes, %v; want the end", n, err)
	}
}

// Many queries in one segment, one query in many, and one of the greatest size.
func TestPipelinedQueries(t *testing.T) {
	_, address, _ := start(t, Config{})
	conn := dial(t, address)
	var all []byte
	var ids []uint16
	for range 20 {
		q := asker("mail.edge.example", dns.TypeA)
		q.Id = uint16(len(ids) + 1)
		ids = append(ids, q.Id)
		all = append(all, frame(t, q)...)
	}
	if _, err := conn.Write(all); err != nil {
		t.Fatal(err)
	}
	for range ids { // in any order
		got := readFrame(t, conn)
		at := slices.Index(ids, got.Id)
		if at < 0 || len(got.Answer) != 1 {
			t.Fatalf("got %v", got)
		}
		ids[at] = 0
	}
	for _, b := range frame(t, asker("mail.edge.example", dns.TypeA)) {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if got := readFrame(t, conn); len(got.Answer) != 1 {
		t.Errorf("byte by byte: got %v", got)
	}
	padded := asker("mail.edge.example", dns.TypeA)
	padded.SetEdns0(1232, false)
	padded.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 65535-padded.Len()-4)}}
	if _, err := conn.Write(frame(t, padded)); err != nil {
		t.Fatal(err)
	}
	if got := readFrame(t, conn); got.Rcode != 0 || len(got.Answer) != 1 {
		t.Errorf("padded: got %v", got)
	}
	// What is no query ends the connection.
	if _, err := conn.Write([]byte{0, 3, 1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	expectEnd(t, conn)
}

func TestIdleConnectionsEnd(t *testing.T) {
	_, address, _ := start(t, Config{IdleTimeout: 300 * time.Millisecond})
	silent, slow, served := dial(t, address), dial(t, address), dial(t, address)
	q := frame(t, asker("mail.edge.example", dns.TypeA))
	slow.Write(q[:5])
	served.Write(q)
	readFrame(t, served)
	expectEnd(t, silent)
	expectEnd(t, slow)
	expectEnd(t, served)
}

func TestConnectionsAreBounded(t *testing.T) {
	_, address, reg := start(t, Config{MaxConnections: 16})
	q := frame(t, asker("mail.edge.example", dns.TypeA))
	first, second := dial(t, address), dial(t, address)
	for _, conn := range []net.Conn{first, second} {
		conn.Write(q)
		readFrame(t, conn)
	}
	expectEnd(t, dial(t, address)) // the third of one client
	if got := value(t, reg, metricConnections); got != 2 {
		t.Errorf("%v connections, want 2", got)
	}
	first.Close()
	// The server learns of the close on its own time.
	for deadline := time.Now().Add(5 * time.Second); ; {
		conn := dial(t, address)
		conn.Write(q)
		conn.SetReadDeadline(deadline)
		if _, err := io.ReadFull(conn, make([]byte, 2)); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no room was made")
		}
	}
}

func TestGate(t *testing.T) {
	g := newGate(16)
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for _, tt := range []struct {
		from netip.Addr
		want bool
	}{{a, true}, {a, true}, {a, false}, {b, true}, {c, true}, {b, false}, {c, false}} {
		if got := g.enter(tt.from); got != tt.want {
			t.Errorf("%v let in: %v", tt.from, got)
		}
	}
	g.leave(c)
	if !g.enter(b) {
		t.Error("leaving makes no room")
	}
	for i := range 12 {
		if !g.enter(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})) {
			t.Errorf("no room for %d of 16", 5+i)
		}
	}
	if g.enter(netip.MustParseAddr("10.0.1.0")) {
		t.Error("room for 17 of 16")
	}
	for i := range 12 {
		g.leave(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	for _, each := range []netip.Addr{a, a, b, b} {
		g.leave(each)
	}
	if g.in != 0 || len(g.each) != 0 {
		t.Errorf("%d in, %v left", g.in, g.each)
	}
}

// A stop answers what was read, and ends idle connections at once.
func TestStopEndsConnections(t *testing.T) {
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Zones: testZones(), IdleTimeout: time.Hour},
		slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Addresses() != nil {
		t.Error("addresses before Run")
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Ready()
	conn := dial(t, s.Addresses()[0].String())
	conn.Write(frame(t, asker("mail.edge.example", dns.TypeA)))
	readFrame(t, conn)
	stop()
	expectEnd(t, conn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
