package proxy

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/pop/link"
	"anyedge/pop/proxy/exchange"
)

func TestRTTsTravel(t *testing.T) {
	var sent RTTs
	want := []RTT{
		{netip.MustParseAddr("203.0.113.7"), 12345 * time.Microsecond, 1},
		{netip.MustParseAddr("2001:db8::7"), time.Microsecond, rttStride},
		{netip.MustParseAddr("198.51.100.1"), math.MaxUint32 * time.Microsecond, math.MaxUint32},
	}
	for _, r := range want {
		sent.Add(r)
	}
	body, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	var got RTTs
	if err := (link.Message{Body: body}).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if all := slices.Collect(got.All()); !slices.Equal(all, want) {
		t.Errorf("got %v, want %v", all, want)
	}
	for range got.All() {
		break // whoever has enough may stop
	}
	got.Packed = got.Packed[:2*rttSize-1]
	if all := slices.Collect(got.All()); !slices.Equal(all, want[:1]) {
		t.Errorf("of half a record came %v", all)
	}
}

// Requests travel in the same records, told apart by having no round-trip time: an
// agent of before takes those for errors of measurement.
func TestRequestsTravel(t *testing.T) {
	client, other := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")
	var sent RTTs
	sent.AddRequests(client, requestStride)
	sent.Add(RTT{other, time.Nanosecond, 1}) // is one all the same
	sent.AddRequests(other, math.MaxUint32)
	var got RTTs
	body, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	if err := (link.Message{Body: body}).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if all := slices.Collect(got.All()); !slices.Equal(all, []RTT{{other, time.Microsecond, 1}}) {
		t.Errorf("round-trip times %v", all)
	}
	if all := maps.Collect(got.Requests()); !maps.Equal(all, map[netip.Addr]int{client: requestStride, other: math.MaxUint32}) {
		t.Errorf("requests %v", all)
	}
	for range got.Requests() {
		break
	}
	for range rttMost {
		sent.AddRequests(client, 1)
	}
	if sent.Dropped != 3 {
		t.Errorf("%d dropped", sent.Dropped)
	}
}

// Requests of clients count, those of hops and of the machine itself do not.
func TestWhichRequestsCount(t *testing.T) {
	hops := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tc := range []struct {
		client string
		on     bool
		want   bool
	}{
		{"203.0.113.7:1", true, true}, {"[2001:db8::7]:1", true, true}, {"203.0.113.7:1", false, false},
		{"10.1.2.3:1", true, false}, {"127.0.0.1:1", true, false}, {"192.0.2.1:1", true, false},
	} {
		var s rttSampler
		s.on.Store(tc.on)
		conn := &exchange.Conn{Client: netip.MustParseAddrPort(tc.client), Local: netip.MustParseAddrPort("192.0.2.1:443")}
		const made = 300 * requestStride
		for range made {
			s.requested(conn, hops)
		}
		got := 0
		for client, n := range s.take().Requests() {
			if client != conn.Client.Addr() {
				t.Errorf("%+v: of %v", tc, client)
			}
			got += n
		}
		if tc.want != (got > 0) || tc.want && math.Abs(float64(got-made)) > 0.3*made {
			t.Errorf("%+v: %d requests count as %d", tc, made, got)
		}
	}
}

// answered is a client that takes any response.
type answered struct{ exchange.Client }

func (answered) Respond(*exchange.Response) error { return nil }

// What every codec's handler takes notice of: valid requests, routed or not.
func TestHandlerTakesNoticeOfRequests(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	e.mustApply(func(s *Snapshot) { s.MeasureRTT = true })
	var served *codec
	for _, l := range e.worker.listeners {
		served = l.face.Load().codec
	}
	far := &exchange.Conn{Client: netip.MustParseAddrPort("203.0.113.7:1"), Local: netip.MustParseAddrPort("192.0.2.1:443")}
	noticed := func(refusal exchange.Refusal) bool {
		for range 20 * requestStride {
			served.serve(t.Context(), &exchange.Exchange{
				Conn: far, Client: answered{}, Start: time.Now(), Refusal: refusal,
				Request: exchange.Request{Protocol: exchange.HTTP2, Method: "GET", Authority: "nobody.example", Path: "/"},
			})
		}
		return len(maps.Collect(e.worker.rtts.take().Requests())) > 0
	}
	if !noticed(exchange.Refusal{}) {
		t.Error("no request was noticed")
	}
	if noticed(exchange.Refusal{Status: 400}) {
		t.Error("what is no request was noticed")
	}
}

// However many there are, a message is bounded, and says what it leaves out.
func TestRTTsAreBounded(t *testing.T) {
	s := rttSampler{kernel: func(net.Conn) time.Duration { return time.Millisecond }}
	conn := fakeConn("203.0.113.7:1", "192.0.2.1:443")
	for range rttMost + 10 {
		s.ask(conn, 1)
	}
	taken := s.take()
	if n := len(slices.Collect(taken.All())); n != rttMost || taken.Dropped != 10 {
		t.Errorf("%d taken, %d dropped", n, taken.Dropped)
	}
	if body, err := json.Marshal(taken); err != nil || len(body) > 256<<10 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if again := s.take(); len(again.Packed) > 0 || again.Dropped != 0 {
		t.Error("taken twice")
	}
}

// addressed is a connection that has addresses and nothing else.
type addressed struct {
	net.Conn
	remote, local net.Addr
}

func (c *addressed) RemoteAddr() net.Addr { return c.remote }
func (c *addressed) LocalAddr() net.Addr  { return c.local }
func (c *addressed) Close() error         { return nil }

func fakeConn(remote, local string) *addressed {
	return &addressed{
		remote: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(remote)),
		local:  net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local)),
	}
}

// Only a client's own connections are asked about, each sixteenth as it begins,
// and each for about as many minutes as it stays.
func TestWhichConnectionsAreAskedAbout(t *testing.T) {
	hops := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:f::/48")}
	for name, tc := range map[string]struct {
		remote, local string
		want          bool
	}{
		"a client":           {"203.0.113.7:1", "192.0.2.1:443", true},
		"a client of IPv6":   {"[2001:db8::7]:1", "[2001:db8:1::1]:443", true},
		"a mapped client":    {"[::ffff:203.0.113.7]:1", "192.0.2.1:443", true},
		"a hop":              {"10.1.2.3:1", "192.0.2.1:443", false},
		"a hop of IPv6":      {"[2001:db8:f::7]:1", "[2001:db8:1::1]:443", false},
		"loopback":           {"127.0.0.1:1", "192.0.2.1:443", false},
		"loopback of IPv6":   {"[::1]:1", "[2001:db8:1::1]:443", false},
		"the machine itself": {"192.0.2.1:1", "192.0.2.1:443", false},
	} {
		w := New(slog.New(slog.DiscardHandler), nil)
		w.state.Store(&state{maxConnections: 1000})
		s := &w.rtts
		s.kernel = func(net.Conn) time.Duration { return 20 * time.Millisecond }
		s.on.Store(true)
		l := configs.Listener{TrustedHops: hops}
		count := func() (n int) {
			for r := range s.take().All() {
				if r.Client != netip.MustParseAddrPort(tc.remote).Addr().Unmap() || r.RTT != 20*time.Millisecond {
					t.Errorf("%s: measured %v", name, r)
				}
				n += r.Connections
			}
			return n
		}
		around := func(what string, got, want int) {
			t.Helper()
			if !tc.want {
				want = 0
			}
			if math.Abs(float64(got-want)) > 0.2*float64(want) {
				t.Errorf("%s: %s: %d connections, want about %d", name, what, got, want)
			}
		}
		const open = 600
		var conns []*addressed
		for range open {
			conns = append(conns, fakeConn(tc.remote, tc.local))
			if result := w.admit(conns[len(conns)-1], l); result != admitted {
				t.Fatal(result)
			}
		}
		for range 20 {
			for _, c := range conns {
				s.begun(c, hops)
			}
		}
		around("begun", count(), 20*open)
		for range 6 { // a minute
			s.look(&w.conns)
		}
		around("open for a minute", count(), open)
		for _, c := range conns[:open-2] {
			w.conns.remove(c)
		}
		for range 6 * 360 { // six hours
			s.look(&w.conns)
		}
		around("two that stay", count(), 2*360)
		s.on.Store(false)
		for _, c := range conns {
			s.begun(c, hops)
			s.look(&w.conns)
		}
		if count() != 0 {
			t.Errorf("%s: measured while it is turned off", name)
		}
	}
}

// A QUIC connection counts once, and once more for each minute that it lasted.
func TestWhichQUICConnectionsCount(t *testing.T) {
	hops := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tc := range []struct {
		client      string
		rtt, lasted time.Duration
		on          bool
		want        int
	}{
		{"203.0.113.7", 20 * time.Millisecond, 0, true, 1},
		{"203.0.113.7", 20 * time.Millisecond, 5 * time.Minute, true, 6},
		{"2001:db8::7", 20 * time.Millisecond, time.Minute, true, 2},
		{"203.0.113.7", 0, time.Minute, true, 0},
		{"203.0.113.7", 20 * time.Millisecond, 0, false, 0},
		{"10.1.2.3", 20 * time.Millisecond, 0, true, 0},
		{"127.0.0.1", 20 * time.Millisecond, 0, true, 0},
	} {
		var s rttSampler
		s.on.Store(tc.on)
		s.ended(netip.MustParseAddr(tc.client), hops, tc.rtt, tc.lasted)
		got := 0
		for r := range s.take().All() {
			got += r.Connections
		}
		if got != tc.want {
			t.Errorf("%+v: counts as %d", tc, got)
		}
	}
}

// A node with very many connections is asked about few of them at a time.
func TestLooksAreBounded(t *testing.T) {
	w := New(slog.New(slog.DiscardHandler), nil)
	asked := 0
	w.rtts.kernel = func(net.Conn) time.Duration { asked++; return time.Millisecond }
	w.rtts.on.Store(true)
	const open = 20000
	far := visitor{client: netip.MustParseAddr("203.0.113.7"), distant: true}
	for range open {
		w.conns.add(fakeConn("203.0.113.7:1", "192.0.2.1:443"), far, limits{all: open})
	}
	w.rtts.look(&w.conns)
	stands := 0
	for r := range w.rtts.take().All() {
		stands += r.Connections
	}
	if asked != rttLooks || math.Abs(float64(stands)-open/6) > open/60 {
		t.Errorf("%d asked about, for %d connections", asked, stands)
	}
}

// The kernel has an RTT for a connection that was just made, and none for what is
// closed or no TCP.
func TestKernelRTT(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if rtt := kernelRTT(served); rtt <= 0 || rtt > time.Second {
		t.Errorf("RTT %v over loopback", rtt)
	}
	served.Close()
	if rtt := kernelRTT(served); rtt != 0 {
		t.Errorf("RTT %v of a closed connection", rtt)
	}
	if rtt := kernelRTT(fakeConn("203.0.113.7:1", "192.0.2.1:443")); rtt != 0 {
		t.Errorf("RTT %v of no connection", rtt)
	}
}

// Connections over loopback are the machine's own, and none is asked about.
func TestOwnConnectionsAreNotMeasured(t *testing.T) {
	e := newEdge(t, serveHTTP(t, hello))
	e.mustApply(func(s *Snapshot) { s.MeasureRTT = true })
	if !e.worker.rtts.on.Load() {
		t.Fatal("not turned on")
	}
	for _, v := range variants {
		client := e.client(v.listener, v.protocol)
		for range 4 * rttStride {
			tracedGet(t, client, v.url)
			client.CloseIdleConnections()
		}
	}
	if taken := e.worker.rtts.take(); len(taken.Packed) > 0 {
		t.Errorf("measured %v", slices.Collect(taken.All()))
	}
	e.mustApply(func(s *Snapshot) { s.MeasureRTT = false })
	if e.worker.rtts.on.Load() {
		t.Error("not turned off")
	}
}

// What the worker has measured reaches the other end of the link, once.
func TestRTTsReachTheAgent(t *testing.T) {
	agent, file, err := link.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	conn, err := link.FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w := New(slog.New(slog.DiscardHandler), nil)
	want := RTT{netip.MustParseAddr("203.0.113.7"), 30 * time.Millisecond, 16}
	w.rtts.taken.Add(want)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&control{worker: w, conn: conn}).measure(ctx)
	}()
	m, err := agent.Receive()
	if err != nil {
		t.Fatal(err)
	}
	var got RTTs
	if err := m.Decode(&got); err != nil || m.Kind != KindRTT || !slices.Equal(slices.Collect(got.All()), []RTT{want}) {
		t.Errorf("got %s %v, %v", m.Kind, got, err)
	}
	cancel()
	<-ended
}

// What a new connection costs on average, the system calls of those that are asked
// about included; the bound is 0.1 µs.
func BenchmarkNewConnection(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	far := fakeConn("203.0.113.7:1", "192.0.2.1:443")
	s := rttSampler{kernel: func(net.Conn) time.Duration { return kernelRTT(conn) }}
	s.on.Store(true)
	b.ReportAllocs()
	for b.Loop() {
		s.begun(far, nil)
		if len(s.taken.Packed) > rttMost*rttSize/2 {
			s.take()
		}
	}
}

// What each request costs on average for being counted; 1/64 of them are recorded.
func BenchmarkRequest(b *testing.B) {
	conn := &exchange.Conn{Client: netip.MustParseAddrPort("203.0.113.7:1"), Local: netip.MustParseAddrPort("192.0.2.1:443")}
	hops := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	var s rttSampler
	s.on.Store(true)
	b.ReportAllocs()
	for b.Loop() {
		s.requested(conn, hops)
		if len(s.taken.Packed) > rttMost*rttSize/2 {
			s.take()
		}
	}
}
