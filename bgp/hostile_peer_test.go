package bgp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"anyedge/bgp/shield"
)

const (
	hostilePort = 11180
	hostileASN  = 64666
)

// frame makes a message with a right header.
func frame(t shield.Type, body ...byte) []byte {
	return frameAs(byte(t), 19+len(body), body)
}

// frameAs makes a message whose header says what it is told to say.
func frameAs(t byte, length int, body []byte) []byte {
	msg := append(bytes.Repeat([]byte{0xff}, 16), byte(length>>8), byte(length), t)
	return append(msg, body...)
}

var keepaliveMessage = frame(shield.TypeKeepalive)

// attack is one session with a hostile peer.
type attack struct {
	name string
	// state is where the session is when the input comes: OpenSent, OpenConfirm
	// or Established.
	state State
	// input is what the peer sends then, at once or byte by byte.
	input []byte
	drip  bool
	// then is what must happen.
	then outcome
	// notification is the body of the message that must end the session, if then
	// is notified.
	notification []byte
}

// outcome is what becomes of a session.
type outcome uint8

const (
	stays    outcome = iota // and is, or can be, Established
	notified                // ends with a NOTIFICATION of ours
	closed                  // ends without one
)

func (a *attack) String() string {
	input := a.input
	if len(input) > 64 {
		input = input[:64]
	}
	return fmt.Sprintf("%s, in %v: %d bytes % x", a.name, a.state, len(a.input), input)
}

// hostilePeer is a router that plays attacks.
type hostilePeer struct {
	address  netip.AddrPort
	listener *net.TCPListener
}

func newHostilePeer(t *testing.T) *hostilePeer {
	t.Helper()
	p := &hostilePeer{address: netip.AddrPortFrom(loopback(), hostilePort)}
	l, err := net.Listen("tcp4", p.address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p.listener = l.(*net.TCPListener)
	return p
}

// neighbor is the peer as a Speaker's neighbor.
func (p *hostilePeer) neighbor() Neighbor {
	return Neighbor{Address: p.address.Addr(), Port: p.address.Port(), ASN: hostileASN}
}

// hostileSession is one connection of the shield to a hostile peer.
type hostileSession struct {
	*net.TCPConn
	in      *bufio.Reader
	updates int // taken from us
}

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

// accept waits for the next session and reads our OPEN.
func (p *hostilePeer) accept() (*hostileSession, error) {
	p.listener.SetDeadline(time.Now().Add(eventually))
	c, err := p.listener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(eventually))
	s := &hostileSession{TCPConn: c, in: newReader(c)}
	if err := s.expect(shield.TypeOpen); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// read returns the next message of ours.
func (s *hostileSession) read() ([]byte, error) {
	header := make([]byte, 19)
	if _, err := io.ReadFull(s.in, header); err != nil {
		return nil, err
	}
	msg := append(header, make([]byte, int(binary.BigEndian.Uint16(header[16:]))-19)...)
	_, err := io.ReadFull(s.in, msg[19:])
	if shield.TypeOf(msg) == shield.TypeUpdate {
		s.updates++
	}
	return msg, err
}

// expect reads up to a message of a type.
func (s *hostileSession) expect(t shield.Type) error {
	for {
		msg, err := s.read()
		if err != nil {
			return fmt.Errorf("instead of %v: %w", t, err)
		}
		switch shield.TypeOf(msg) {
		case t:
			return nil
		case shield.TypeNotification:
			return fmt.Errorf("instead of %v: notification % x", t, msg[19:])
		}
	}
}

// enter brings the session to a state. The peer's OPEN is what it is given.
func (s *hostileSession) enter(state State, open []byte) error {
	if state >= OpenConfirm {
		if _, err := s.Write(open); err != nil {
			return err
		}
		if err := s.expect(shield.TypeKeepalive); err != nil {
			return err
		}
	}
	if state == Established {
		if _, err := s.Write(keepaliveMessage); err != nil {
			return err
		}
	}
	return nil
}

// play carries one attack out and says in what the result differs from what it
// must be.
func (s *hostileSession) play(a *attack) error {
	if err := s.enter(a.state, plainOpen()); err != nil {
		return err
	}
	if err := s.send(a); err != nil {
		return err
	}
	switch a.then {
	case closed:
		s.CloseWrite()
		return s.expectNotification(nil)
	case stays:
		// A second OPEN tells the state by its answer (RFC 6608), and that the
		// two still agree where a message begins.
		probe := plainOpen()
		if a.state == OpenSent { // the input was an OPEN
			if err := s.expect(shield.TypeKeepalive); err != nil {
				return err
			}
			probe = append(bytes.Clone(keepaliveMessage), probe...)
		}
		if _, err := s.Write(probe); err != nil {
			return err
		}
		return s.expectNotification([]byte{5, 3, 1})
	}
	return s.expectNotification(a.notification)
}

func (s *hostileSession) send(a *attack) error {
	if !a.drip {
		_, err := s.Write(a.input)
		return err
	}
	for i := range a.input {
		if _, err := s.Write(a.input[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (s *hostileSession) expectNotification(want []byte) error {
	last, err := s.lastWords()
	if err != nil {
		return err
	}
	if !bytes.Equal(last, want) {
		return fmt.Errorf("notification % x, want % x", last, want)
	}
	return nil
}

// lastWords reads until the end of the session and returns the body of the
// NOTIFICATION that came last, nil if none did.
func (s *hostileSession) lastWords() (last []byte, err error) {
	for {
		msg, err := s.read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), last != nil && err == nil:
			return nil, fmt.Errorf("the session did not end: % x, %v", msg, err)
		case err == io.EOF, last != nil && errors.Is(err, syscall.ECONNRESET):
			return last, nil
		case err != nil:
			return nil, err
		}
		if shield.TypeOf(msg) == shield.TypeNotification {
			last = msg[19:]
		}
	}
}
