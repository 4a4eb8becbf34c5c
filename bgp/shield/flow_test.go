package shield

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// establishWith completes the handshake with a peer that sends an OPEN.
func (s *session) establishWith(open []byte) {
	s.t.Helper()
	s.expect(s.peer, openMessage(9))
	s.write(s.peer, open)
	opened := s.await("opened", func(e event) bool { return e.kind == "opened" })
	s.expect(s.engine, opened.open.message(engineSide))
	s.write(s.engine, keepalive)
	s.expect(s.peer, keepalive)
	s.write(s.peer, keepalive)
	s.expect(s.engine, keepalive)
	s.awaitState(Established)
}

var bothFamilies = openWith(90, capabilities(1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1)...)

// TestEndOfRIB has the markers sent between two messages of the engine, also
// while half of the second one has come.
func TestEndOfRIB(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		open []byte
		want []byte
	}{
		{"IPv4", openMessage(90), encode(TypeUpdate, []byte{0, 0, 0, 0})},
		{"both families", bothFamilies, append(encode(TypeUpdate, []byte{0, 0, 0, 0}),
			encode(TypeUpdate, []byte{0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1})...)},
		{"no family", openWith(90, capabilities(1, 4, 0, 25, 0, 70)...), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{})
			s.shield.EndOfRIB() // too early: there is no session
			s.establishWith(test.open)
			update := encode(TypeUpdate, make([]byte, 40))
			s.write(s.engine, update)
			s.expect(s.peer, update)
			s.write(s.engine, update[:25])
			s.shield.EndOfRIB()
			if test.want != nil {
				s.expect(s.peer, test.want)
			}
			s.write(s.engine, update[25:])
			s.expect(s.peer, update)
			s.write(s.engine, keepalive)
			s.expect(s.peer, keepalive)
		})
	}
}

// TestRefreshesArePaced asks again and again: the engine is asked at once, then
// once more, and never for a family or a kind of request that it does not know.
func TestRefreshesArePaced(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	s.establishWith(bothFamilies)
	began := time.Now()
	for _, body := range [][]byte{
		{0, 1, 0, 2}, {0, 25, 0, 70}, {0, 1, 1, 1}, {0, 1, 2, 1}, {0, 1, 255, 1}, // multicast, EVPN, enhanced
		{0, 1, 0, 1}, {0, 1, 0, 1}, {0, 1, 0, 1}, {0, 2, 0, 1}, {0, 1, 0, 1},
	} {
		s.write(s.peer, encode(TypeRouteRefresh, body))
	}
	second := encode(TypeRouteRefresh, []byte{0, 2, 0, 1})
	s.expect(s.engine, refreshMessage)
	s.expect(s.engine, second)
	s.expect(s.engine, refreshMessage)
	if took := time.Since(began); took < refreshInterval {
		t.Errorf("asked again after %v", took)
	}
	s.write(s.peer, second)
	s.expect(s.engine, second)
	// Nothing else was on its way.
	s.write(s.peer, keepalive)
	s.expect(s.engine, keepalive)
}

// TestFlood sends KEEPALIVEs as fast as the shield takes them: the engine gets
// few, the peer is held up, and the session still ends at once when it must.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	s.establish()
	began := time.Now()
	var flood sync.WaitGroup
	flood.Go(func() {
		for many := bytes.Repeat(keepalive, 500); ; {
			if _, err := s.peer.Write(many); err != nil {
				return
			}
		}
	})
	const enough = 3 * paceMessages
	n := 0
	s.await("many keepalives", func(e event) bool {
		if e.kind == "received" {
			n++
		}
		return n == enough
	})
	took := time.Since(began)
	if took < 2*paceInterval {
		t.Errorf("%d messages in %v", n, took)
	}
	s.engine.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	buf := make([]byte, 1<<20)
	got, _ := s.engine.Read(buf)
	if most := int(time.Since(began)/keepaliveInterval) + 2; got > most*len(keepalive) {
		t.Errorf("the engine got %d keepalives in %v", got/len(keepalive), time.Since(began))
	}
	ending := time.Now()
	s.cancel(&Cease{Subcode: CeaseShutdown})
	s.expect(s.peer, notification(codeCease, CeaseShutdown, 0))
	if took := time.Since(ending); took > paceInterval+farewellTimeout {
		t.Errorf("the farewell took %v", took)
	}
	s.peer.(*net.TCPConn).SetLinger(0)
	s.peer.Close()
	s.wait()
	flood.Wait()
}

// TestDripWithinSession sends a header byte by byte in an established session:
// the rest of it works on, and the engine, whose hold timer it is, can end it.
func TestDripWithinSession(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	s.establish()
	for _, b := range updateMessage()[:headerLength-1] {
		s.write(s.peer, []byte{b})
	}
	s.write(s.engine, updateMessage())
	s.expect(s.peer, updateMessage())
	s.write(s.engine, notification(codeHoldTimer, 0))
	s.expect(s.peer, notification(codeHoldTimer, 0))
	s.engine.Close()
	s.expectEnd(s.peer)
	s.peer.Close()
	s.wait()
}

// TestStuckPeer lets the peer read nothing: the session must not wait for it for
// ever.
func TestStuckPeer(t *testing.T) {
	t.Parallel()
	s := start(t, Config{SendTimeout: 200 * time.Millisecond})
	s.establish()
	var helpers sync.WaitGroup
	helpers.Go(func() {
		for many := bytes.Repeat(encode(TypeUpdate, make([]byte, 4000)), 100); ; {
			if _, err := s.engine.Write(many); err != nil {
				return
			}
		}
	})
	ended := make(chan struct{})
	helpers.Go(func() {
		for {
			select {
			case <-s.events: // one for each message sent
			case <-ended:
				return
			}
		}
	})
	if err := s.wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Serve returned %v", err)
	}
	close(ended)
	helpers.Wait()
}

func TestSendTimeout(t *testing.T) {
	ours := &engine{open: openMessage(90)}
	for _, test := range []struct {
		open *Open
		want time.Duration
	}{
		{nil, minSendTimeout},
		{&Open{HoldTime: 9}, minSendTimeout},
		{&Open{HoldTime: 30}, 60 * time.Second},
		{&Open{HoldTime: 65535}, 180 * time.Second},
	} {
		r := &relay{cfg: &Config{}, engine: ours, open: test.open}
		if got := r.sendTimeout(); got != test.want {
			t.Errorf("%+v: %v, want %v", test.open, got, test.want)
		}
	}
}
