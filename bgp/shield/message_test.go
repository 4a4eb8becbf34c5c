package shield

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
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
func pass(r io.Reader) (through [][]byte, refused int, err error) {
	var f filter
	buf := make([]byte, maxLength)
	for {
		msg, err := readMessage(r, buf)
		if err != nil {
			return through, refused, err
		}
		ok, err := f.check(msg)
		switch {
		case err != nil:
			return through, refused, err
		case ok:
			through = append(through, bytes.Clone(msg))
		default:
			refused++
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
		through, refused, err := pass(bytes.NewReader(stream))

		// How the bytes arrive makes no difference.
		slowly, slowlyRefused, slowlyErr := pass(iotest.OneByteReader(bytes.NewReader(stream)))
		if !equal(through, slowly) || refused != slowlyRefused || err.Error() != slowlyErr.Error() {
			t.Fatalf("by bytes: %d messages, %d refused, %v; at once: %d, %d, %v",
				len(slowly), slowlyRefused, slowlyErr, len(through), refused, err)
		}
		// The stream ends with its own end or with a violation that can be told.
		var v *violation
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		case errors.As(err, &v):
			if _, err := readMessage(bytes.NewReader(v.message()), make([]byte, maxLength)); err != nil {
				t.Errorf("our own notification is malformed: %v", err)
			}
		default:
			t.Errorf("unexpected end: %v", err)
		}
		// What passed is a part of the stream in its order: an OPEN, a
		// KEEPALIVE, then no OPEN, and never an UPDATE. A NOTIFICATION may come
		// at any time.
		rest, step := stream, 0
		for _, msg := range through {
			at := bytes.Index(rest, msg)
			if at < 0 {
				t.Fatalf("% x is not in the stream", msg)
			}
			rest = rest[at+len(msg):]
			switch typ := TypeOf(msg); {
			case typ == TypeNotification:
				parseNotification(msg, false)
			case step == 0 && typ == TypeOpen, step == 1 && typ == TypeKeepalive:
				step++
			case step == 2 && (typ == TypeKeepalive || typ == TypeRouteRefresh):
			default:
				t.Fatalf("%v passed at step %d", typ, step)
			}
		}
		if refused > 0 && step < 2 {
			t.Error("an UPDATE was taken before the session was established")
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
