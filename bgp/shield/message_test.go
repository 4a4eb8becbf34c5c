package shield

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"
	"time"
)

func TestNotificationText(t *testing.T) {
	tests := []struct {
		msg  []byte
		sent bool
		want string
	}{
		{notification(6, 2, 4, 'd', 'o', 'w', 'n'), false, `peer sent notification: cease, administrative shutdown: "down"`},
		{notification(6, 4, 200, 'x', 0xff, '\n'), false, `peer sent notification: cease, administrative reset: "x�\n"`},
		{notification(6, 2, 0), true, `sent notification: cease, administrative shutdown`},
		{notification(2, 2), true, `sent notification: open message error, bad peer AS`},
		{notification(99, 98), false, `peer sent notification: code 99, subcode 98`},
	}
	for _, test := range tests {
		if got := parseNotification(test.msg, test.sent).Error(); got != test.want {
			t.Errorf("% x: %q, want %q", test.msg[headerLength:], got, test.want)
		}
	}
}

func TestStateText(t *testing.T) {
	for s := Idle; s <= Established; s++ {
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back State
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%q is read as %v, %v", text, back, err)
		}
	}
	var s State
	if err := s.UnmarshalText([]byte("gone")); err == nil {
		t.Error("an unknown state was read")
	}
}

// pass is what the shield lets through of a peer's stream, and why it stops.
func pass(r io.Reader) (through [][]byte, dropped int, err error) {
	f := filter{asn: peerASN}
	now := time.Unix(1, 0)
	in := bufio.NewReaderSize(r, maxLength)
	for {
		msg, err := readMessage(in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return through, dropped, err
		}
		was := f.open
		fate, err := f.check(msg, now)
		switch {
		case err != nil:
			return through, dropped, err
		case f.open != was:
			through = append(through, f.open.message(engineSide))
		case fate == relayed:
			through = append(through, bytes.Clone(msg))
		default:
			dropped++
		}
	}
}

// FuzzStream feeds a peer's byte stream and checks what may follow from it.
func FuzzStream(f *testing.F) {
	handshake := append(openMessage(9), keepalive...)
	f.Add([]byte{})
	f.Add(handshake)
	f.Add(append(bytes.Clone(handshake), updateMessage()...))
	f.Add(append(bytes.Clone(handshake), updateMessage()[:20]...))
	f.Add(append(bytes.Clone(handshake), openMessage(9)...))
	f.Add(append(bytes.Clone(handshake), notification(6, 2, 255, 'x')...))
	f.Add(append(bytes.Clone(handshake), encode(TypeRouteRefresh, []byte{0, 1, 0, 1})...))
	f.Add(encode(TypeUpdate, make([]byte, maxLength)))
	f.Add(encode(9, nil))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, stream []byte) {
		through, dropped, err := pass(bytes.NewReader(stream))

		// How the bytes arrive makes no difference.
		slowly, slowlyDropped, slowlyErr := pass(iotest.OneByteReader(bytes.NewReader(stream)))
		if !equal(through, slowly) || dropped != slowlyDropped || err.Error() != slowlyErr.Error() {
			t.Fatalf("by bytes: %d messages, %d dropped, %v; at once: %d, %d, %v",
				len(slowly), slowlyDropped, slowlyErr, len(through), dropped, err)
		}
		// The stream ends with its own end or with a violation that can be told.
		var v *violation
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		case errors.As(err, &v):
			if _, err := readMessage(bufio.NewReader(bytes.NewReader(v.message()))); err != nil {
				t.Errorf("our own notification is malformed: %v", err)
			}
		default:
			t.Errorf("unexpected end: %v", err)
		}
		// What passed is an OPEN, a KEEPALIVE, then at this one instant a
		// ROUTE-REFRESH of each family at most, and never an UPDATE. A
		// NOTIFICATION may come at any time. All but the OPEN are a part of the
		// stream in its order.
		rest, step, refreshes := stream, 0, 0
		for _, msg := range through {
			typ := TypeOf(msg)
			if typ != TypeOpen {
				at := bytes.Index(rest, msg)
				if at < 0 {
					t.Fatalf("% x is not in the stream", msg)
				}
				rest = rest[at+len(msg):]
			}
			switch {
			case typ == TypeNotification:
				parseNotification(msg, false)
			case step == 0 && typ == TypeOpen, step == 1 && typ == TypeKeepalive:
				step++
			case step == 2 && typ == TypeRouteRefresh && refreshes < 2:
				refreshes++
			default:
				t.Fatalf("%v passed at step %d", typ, step)
			}
		}
		if dropped > 0 && step < 2 {
			t.Error("a message was taken before the session was established")
		}
	})
}

// drip is a stream that arrives in pieces, with an expired deadline between any
// two: the sizes of the pieces come round and round.
type drip struct {
	rest  []byte
	sizes []byte
	turn  int
}

func (d *drip) Read(b []byte) (int, error) {
	d.turn++
	if len(d.rest) == 0 {
		return 0, io.EOF
	}
	if d.turn%2 == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := 1
	if len(d.sizes) > 0 {
		n += int(d.sizes[d.turn/2%len(d.sizes)])
	}
	n = copy(b, d.rest[:min(n, len(d.rest))])
	d.rest = d.rest[n:]
	return n, nil
}

// FuzzDrip cuts a peer's byte stream into pieces, with expired deadlines between
// them: not a byte may be lost, and the end is the same.
func FuzzDrip(f *testing.F) {
	session := bytes.Join([][]byte{bothFamilies, keepalive, updateMessage(), refreshMessage, encode(TypeUpdate, make([]byte, 400)), keepalive}, nil)
	f.Add(session, []byte{})
	f.Add(session, []byte{17, 0, 255})
	f.Add(session[:len(session)-1], []byte{18})
	f.Add(append(bytes.Clone(session), 0), []byte{22, 3})
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		through, dropped, err := pass(bytes.NewReader(stream))
		slowly, slowlyDropped, slowlyErr := pass(&drip{rest: stream, sizes: sizes})
		if !equal(through, slowly) || dropped != slowlyDropped || err.Error() != slowlyErr.Error() {
			t.Fatalf("in pieces: %d messages, %d dropped, %v; at once: %d, %d, %v",
				len(slowly), slowlyDropped, slowlyErr, len(through), dropped, err)
		}
	})
}

func equal(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}
