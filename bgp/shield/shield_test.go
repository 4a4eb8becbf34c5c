package shield

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	peerASN   = 64500
	patience  = 10 * time.Second
	envDialer = "ANYEDGE_SHIELD_TEST_DIAL"
)

var engineSide = netip.MustParseAddr("127.0.0.1")

// TestMain dials an address and reports whether the connection was kept, when
// a test started this process for that.
func TestMain(m *testing.M) {
	address := os.Getenv(envDialer)
	if address == "" {
		os.Exit(m.Run())
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		os.Exit(3)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		os.Exit(4)
	}
}

// event is one call of Events.
type event struct {
	kind    string // state, received or sent
	state   State
	err     error
	message Type
	refused bool
	open    Open
}

type recorder chan event

func (r recorder) State(s State, err error) { r <- event{kind: "state", state: s, err: err} }
func (r recorder) Opened(o Open)            { r <- event{kind: "opened", open: o} }
func (r recorder) Received(t Type, refused bool) {
	r <- event{kind: "received", message: t, refused: refused}
}
func (r recorder) Sent(msg []byte) { r <- event{kind: "sent", message: TypeOf(msg)} }

// session is a shield with a fake engine and a fake peer.
type session struct {
	t            *testing.T
	shield       *Shield
	events       recorder
	engine, peer net.Conn
	cancel       context.CancelCauseFunc
	result       chan error
}

// start runs Serve, connects the engine and sends its OPEN.
func start(t *testing.T, cfg Config) *session {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg.Peer = l.Addr().(*net.TCPAddr).AddrPort()
	s := serve(t, cfg)
	s.dialEngine()
	s.write(s.engine, openMessage(9))
	s.peer, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.peer.Close() })
	return s
}

func serve(t *testing.T, cfg Config) *session {
	t.Helper()
	cfg.Listen = engineSide
	cfg.ASN = peerASN
	s := &session{t: t, events: make(recorder, 100_000), result: make(chan error, 1)}
	var err error
	if s.shield, err = Listen(cfg, s.events); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s.cancel = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.result <- s.shield.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel(nil)
		<-done
		s.shield.Close()
	})
	return s
}

func (s *session) dialEngine() {
	s.t.Helper()
	var err error
	if s.engine, err = net.Dial("tcp", s.shield.Addr().String()); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.engine.Close() })
}

// establish completes the handshake of a started session.
func (s *session) establish() {
	s.t.Helper()
	s.expect(s.peer, openMessage(9))
	s.write(s.peer, openMessage(90))
	s.expect(s.engine, plainOpen(90).message(engineSide))
	s.write(s.engine, keepalive)
	s.expect(s.peer, keepalive)
	s.write(s.peer, keepalive)
	s.expect(s.engine, keepalive)
	s.awaitState(Established)
}

func (s *session) write(c net.Conn, msg []byte) {
	s.t.Helper()
	if _, err := c.Write(msg); err != nil {
		s.t.Fatal(err)
	}
}

// expect reads exactly one message.
func (s *session) expect(c net.Conn, want []byte) {
	s.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		s.t.Fatalf("read: %v, want % x", err, want)
	}
	if !bytes.Equal(got, want) {
		s.t.Fatalf("read % x, want % x", got, want)
	}
}

func (s *session) expectEnd(c net.Conn) {
	s.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Fatalf("read %d bytes, error %v; want the end", n, err)
	}
}

// await takes events until one fulfils the condition.
func (s *session) await(what string, condition func(event) bool) event {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-s.events:
			if condition(e) {
				return e
			}
		case <-timeout:
			s.t.Fatalf("no event: %s", what)
		}
	}
}

func (s *session) awaitState(want State) {
	s.t.Helper()
	s.await(want.String(), func(e event) bool { return e.kind == "state" && e.err == nil && e.state == want })
}

func (s *session) wait() error {
	s.t.Helper()
	select {
	case err := <-s.result:
		return err
	case <-time.After(patience):
		s.t.Fatal("Serve did not return")
		return nil
	}
}

// openMessage is an OPEN of AS 64500 with the hold time in seconds.
func openMessage(hold uint16) []byte {
	body := []byte{4, 0xfb, 0xf4, 0, 0, 10, 0, 0, 1, 0}
	binary.BigEndian.PutUint16(body[3:], hold)
	return encode(TypeOpen, body)
}

// plainOpen is what openMessage says.
func plainOpen(hold uint16) *Open {
	return &Open{ASN: peerASN, HoldTime: hold, ID: netip.AddrFrom4([4]byte{10, 0, 0, 1}), IPv4: true}
}

// updateMessage is an empty UPDATE, which is an End-of-RIB marker.
func updateMessage() []byte { return encode(TypeUpdate, make([]byte, 4)) }

// refreshMessage asks for IPv4 unicast.
var refreshMessage = encode(TypeRouteRefresh, []byte{0, 1, 0, 1})

func notification(code, subcode byte, data ...byte) []byte {
	return encode(TypeNotification, append([]byte{code, subcode}, data...))
}

func TestRelay(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	s.establish()
	// Outbound everything passes unchanged.
	for _, msg := range [][]byte{updateMessage(), keepalive, encode(TypeUpdate, make([]byte, maxLength-headerLength))} {
		s.write(s.engine, msg)
		s.expect(s.peer, msg)
		s.await("sent", func(e event) bool { return e.kind == "sent" && e.message == TypeOf(msg) })
	}
	s.write(s.peer, refreshMessage)
	s.expect(s.engine, refreshMessage)
	s.write(s.peer, notification(codeCease, CeaseShutdown, 3, 'b', 'y', 'e'))
	s.expect(s.engine, notification(codeCease, CeaseShutdown, 3, 'b', 'y', 'e'))
	var n *Notification
	if err := s.wait(); !errors.As(err, &n) || n.Sent || n.Text != "bye" {
		t.Errorf("Serve returned %v", err)
	}
	s.expectEnd(s.engine)
	s.expectEnd(s.peer)
}

// TestUpdatesBecomeKeepalives floods UPDATEs: none may reach the engine, and
// one KEEPALIVE must, or its hold timer would expire under a busy peer.
func TestUpdatesBecomeKeepalives(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	s.establish()
	time.Sleep(keepaliveInterval) // the engine has not been told for so long
	const flood = 100
	for range flood {
		s.write(s.peer, updateMessage())
	}
	refused := 0
	s.await("refused updates", func(e event) bool {
		if e.kind == "received" && e.message == TypeUpdate && e.refused {
			refused++
		}
		return refused == flood
	})
	s.write(s.peer, refreshMessage)
	if n := s.keepalivesBefore(refreshMessage); n == 0 || n > flood/10 {
		t.Errorf("%d updates became %d keepalives", flood, n)
	}
}

// keepalivesBefore counts the KEEPALIVEs that the engine gets before another
// message, which must be the given one.
func (s *session) keepalivesBefore(want []byte) (n int) {
	s.t.Helper()
	s.engine.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReaderSize(s.engine, maxLength)
	for {
		msg, err := readMessage(in)
		switch {
		case err != nil:
			s.t.Fatal(err)
		case bytes.Equal(msg, want):
			return n
		case !bytes.Equal(msg, keepalive):
			s.t.Fatalf("the engine got % x", msg)
		}
		n++
	}
}

func TestViolations(t *testing.T) {
	t.Parallel()
	badMarker := bytes.Clone(keepalive)
	badMarker[7] = 0
	tooLong := bytes.Clone(keepalive)
	binary.BigEndian.PutUint16(tooLong[markerLength:], maxLength+1)
	tooShort := bytes.Clone(keepalive)
	binary.BigEndian.PutUint16(tooShort[markerLength:], headerLength-1)
	fatKeepalive := encode(TypeKeepalive, []byte{0})
	unknown := encode(9, nil)
	tests := []struct {
		name      string
		handshake bool // before the input
		input     []byte
		want      []byte
	}{
		{"bad marker", true, badMarker, notification(1, 1)},
		{"too long", true, tooLong, notification(1, 2, 0x10, 0x01)},
		{"too short", true, tooShort, notification(1, 2, 0, 18)},
		{"keepalive with a body", true, fatKeepalive, notification(1, 2, 0, 20)},
		{"unknown type", true, unknown, notification(1, 3, 9)},
		{"second open", true, openMessage(9), notification(5, 3, 1)},
		{"keepalive before open", false, keepalive, notification(5, 1, 4)},
		{"update before open", false, updateMessage(), notification(5, 1, 2)},
		{"update before keepalive", false, append(openMessage(9), updateMessage()...), notification(5, 2, 2)},
		{"no hold time", false, openMessage(0), notification(2, 6)},
		{"hold time 1", false, openMessage(1), notification(2, 6)},
		{"garbage", false, []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), notification(1, 1)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{})
			if test.handshake {
				s.establish()
			} else {
				s.expect(s.peer, openMessage(9))
			}
			s.write(s.peer, test.input)
			s.expect(s.peer, test.want)
			s.expectEnd(s.peer)
			s.peer.Close()
			want := parseNotification(test.want, true)
			var n *Notification
			if err := s.wait(); !errors.As(err, &n) || n.Code != want.Code || n.Subcode != want.Subcode || !n.Sent {
				t.Errorf("Serve returned %v, want %v", err, want)
			}
			s.awaitState(Idle)
		})
	}
}

// TestEnds lets one end stop in the ways it can.
func TestEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		end  func(*session)
		last []byte // what the peer reads last
		want string // within the error
	}{
		{"cancelled", func(s *session) { s.cancel(errors.New("stopped")) }, notification(codeCease, CeaseShutdown, 0), "stopped"},
		{"shut down with a text", func(s *session) { s.cancel(&Cease{CeaseShutdown, "ciao"}) },
			notification(codeCease, CeaseShutdown, append([]byte{4}, "ciao"...)...), `cease, administrative shutdown: "ciao"`},
		{"path down", func(s *session) { s.cancel(&Cease{CeaseBFDDown, "no text in this one"}) },
			notification(codeCease, CeaseBFDDown), "cease, BFD down"},
		{"engine closes", func(s *session) { s.engine.Close() }, nil, "engine ended the session"},
		{"engine notifies", func(s *session) { s.write(s.engine, notification(codeHoldTimer, 0)) },
			notification(codeHoldTimer, 0), "sent notification: hold timer expired"},
		{"peer closes", func(s *session) { s.peer.Close() }, nil, "peer closed the connection"},
		{"peer resets", func(s *session) { s.peer.(*net.TCPConn).SetLinger(0); s.peer.Close() }, nil, "connection reset"},
		{"peer closes within a message", func(s *session) {
			s.write(s.peer, updateMessage()[:10])
			s.peer.(*net.TCPConn).CloseWrite()
		}, nil, "unexpected EOF"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{})
			s.establish()
			test.end(s)
			if test.last != nil {
				s.expect(s.peer, test.last)
				s.expectEnd(s.peer)
				s.peer.Close()
			}
			if err := s.wait(); !strings.Contains(err.Error(), test.want) {
				t.Errorf("Serve returned %q, want %q", err, test.want)
			}
			s.awaitState(Idle)
			s.expectEnd(s.engine)
		})
	}
}

// TestSlowDrip has the peer send its OPEN byte by byte: a whole message must
// pass, and an unfinished one must not hold the session for ever.
func TestSlowDrip(t *testing.T) {
	t.Parallel()
	s := start(t, Config{OpenTimeout: 300 * time.Millisecond})
	s.expect(s.peer, openMessage(9))
	for _, b := range openMessage(9) {
		s.write(s.peer, []byte{b})
	}
	s.expect(s.engine, plainOpen(9).message(engineSide))
	s.awaitState(OpenConfirm)
	s.write(s.peer, keepalive[:headerLength-1])
	s.expect(s.peer, notification(codeHoldTimer, 0))
	s.peer.Close()
	if err := s.wait(); !strings.Contains(err.Error(), "hold timer expired") {
		t.Errorf("Serve returned %v", err)
	}
}

// TestEstablishedHasNoDeadline checks that the deadline of the handshake ends
// with it.
func TestEstablishedHasNoDeadline(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	s := start(t, Config{OpenTimeout: timeout})
	s.establish()
	time.Sleep(2 * timeout)
	s.write(s.peer, keepalive)
	s.expect(s.engine, keepalive)
}

// TestForeignProcess has another process connect to the engine side.
func TestForeignProcess(t *testing.T) {
	t.Parallel()
	s := serve(t, Config{Peer: netip.MustParseAddrPort("127.0.0.1:1")})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envDialer+"="+s.shield.Addr().String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the foreign connection was not closed: %v\n%s", err, out)
	}
	s.await("foreign", func(e event) bool { return errors.Is(e.err, errForeign) })
	// The engine itself is still welcome.
	s.dialEngine()
	s.write(s.engine, openMessage(9))
	s.await("an attempt to reach the peer", func(e event) bool {
		return e.err != nil && strings.Contains(e.err.Error(), "connection refused")
	})
	s.cancel(context.Canceled)
	if err := s.wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
}

// TestSocketOptions connects to a listener that asks for more, or less, than
// the shield gives.
func TestSocketOptions(t *testing.T) {
	t.Parallel()
	const password = "correct horse"
	peer := netip.MustParseAddr("127.0.0.1")
	tests := []struct {
		name     string
		cfg      Config
		listener Config // its options on the peer's side
		ok       bool
	}{
		{"plain", Config{}, Config{}, true},
		{"same password", Config{Password: password}, Config{Password: password}, true},
		{"other password", Config{Password: password + "."}, Config{Password: password}, false},
		{"password on this side only", Config{Password: password}, Config{}, false},
		{"password on the other side only", Config{}, Config{Password: password}, false},
		{"TTL on both sides", Config{TTLSecurity: true}, Config{TTLSecurity: true}, true},
		{"TTL on this side only", Config{TTLSecurity: true}, Config{}, false},
		{"TTL on the other side only", Config{}, Config{TTLSecurity: true}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.listener.Peer = netip.AddrPortFrom(peer, 0)
			lc := net.ListenConfig{Control: test.listener.control}
			lc.SetMultipathTCP(false)
			l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
			if errors.Is(err, unix.ENOPROTOOPT) {
				t.Skip("this kernel knows no TCP MD5")
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			test.cfg.Peer = l.Addr().(*net.TCPAddr).AddrPort()
			test.cfg.LocalAddress = peer
			test.cfg.DialTimeout = time.Second
			if test.ok {
				test.cfg.DialTimeout = patience
			}
			s := &Shield{cfg: test.cfg}
			c, err := s.dialOnce(t.Context())
			if err == nil {
				c.Close()
			}
			if ok := err == nil; ok != test.ok {
				t.Errorf("dial returned %v, want success %t", err, test.ok)
			}
			if err != nil && strings.Contains(err.Error(), password) {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestListenWantsLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0", "::1"} {
		if s, err := Listen(Config{Listen: netip.MustParseAddr(address)}, nil); err == nil {
			s.Close()
			t.Errorf("Listen took %s", address)
		}
	}
}
