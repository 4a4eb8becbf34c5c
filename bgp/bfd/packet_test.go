package bfd

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// goodPacket is a packet by the layout of RFC 5880 section 4.1: version 1, diag 3,
// state Up, Poll and Control Plane Independent, multiplier 5, discriminators 1
// and 2, intervals of 50 ms, 300 ms and 0.
const goodPacket = "23e80518" + "00000001" + "00000002" + "0000c350" + "000493e0" + "00000000"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPacketLayout(t *testing.T) {
	want := packet{
		diag: SignaledDown, state: Up, flags: flagPoll | flagIndependent, multiplier: 5, my: 1, your: 2,
		desiredTx: 50 * time.Millisecond, requiredRx: 300 * time.Millisecond,
	}
	b := unhex(t, goodPacket)
	got, raw, why := decode(append(slices.Clone(b), "trailer"...))
	if why != kept || got != want || !bytes.Equal(raw, b) {
		t.Errorf("decode: %+v %x %v, want %+v", got, raw, dropNames[why], want)
	}
	if b := want.append(nil); hex.EncodeToString(b) != goodPacket {
		t.Errorf("append: %x, want %s", b, goodPacket)
	}
}

// TestPacketChecks breaks one rule of section 6.8.6 after the other.
func TestPacketChecks(t *testing.T) {
	tests := []struct {
		name   string
		change func(b []byte) []byte
		want   drop
	}{
		{"empty", func(b []byte) []byte { return nil }, badLength},
		{"short", func(b []byte) []byte { return b[:23] }, badLength},
		{"version 0", func(b []byte) []byte { b[0] = 0x03; return b }, badVersion},
		{"version 2", func(b []byte) []byte { b[0] = 0x43; return b }, badVersion},
		{"version before length", func(b []byte) []byte { b[0] = 0x43; return b[:5] }, badVersion},
		{"length 23", func(b []byte) []byte { b[3] = 23; return b }, badLength},
		{"length beyond the payload", func(b []byte) []byte { b[3] = 25; return b }, badLength},
		{"length 24 with authentication", func(b []byte) []byte { b[1] |= flagAuth; return append(b, 1, 2) }, badLength},
		{"length 26 with authentication", func(b []byte) []byte { b[1] |= flagAuth; b[3] = 26; return append(b, 1, 2) }, kept},
		{"multiplier", func(b []byte) []byte { b[2] = 0; return b }, badMultiplier},
		{"multipoint", func(b []byte) []byte { b[1] |= flagMultipoint; return b }, multipoint},
		{"my discriminator", func(b []byte) []byte { b[7] = 0; return b }, noSender},
		{"your discriminator, up", func(b []byte) []byte { b[11] = 0; return b }, badState},
		{"your discriminator, init", func(b []byte) []byte { b[11] = 0; b[1] = 0x80; return b }, badState},
		{"your discriminator, down", func(b []byte) []byte { b[11] = 0; b[1] = 0x40; return b }, kept},
		{"your discriminator, admin down", func(b []byte) []byte { b[11] = 0; b[1] = 0; return b }, kept},
		{"multiplier before multipoint", func(b []byte) []byte { b[2] = 0; b[1] |= flagMultipoint; b[7] = 0; return b }, badMultiplier},
		{"multipoint before discriminator", func(b []byte) []byte { b[1] |= flagMultipoint; b[7] = 0; return b }, multipoint},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, _, why := decode(test.change(unhex(t, goodPacket))); why != test.want {
				t.Errorf("%q, want %q", dropNames[why], dropNames[test.want])
			}
		})
	}
}

// FuzzPacket gives bytes to decoding and to sessions in every state, with and
// without keys. What is decoded must encode to the same bytes, and no packet
// may bring a session into a state that contradicts it.
func FuzzPacket(f *testing.F) {
	good := unhex(f, goodPacket)
	f.Add(good)
	f.Add(good[:20])
	down := slices.Clone(good)
	copy(down[1:], []byte{0x40})
	copy(down[8:], []byte{0, 0, 0, 0})
	f.Add(down)
	signer := authenticator{}
	signer.configure(testKeys(true))
	f.Add(signer.sign(slices.Clone(good)))
	f.Add(signer.sign(slices.Clone(down)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, raw, why := decode(b)
		if why != kept {
			return
		}
		if again := p.append(nil); !bytes.Equal(again[4:], raw[4:headerLength]) || again[0] != raw[0] || again[1] != raw[1] || again[2] != raw[2] {
			t.Fatalf("%x became %x", raw, again)
		}
		for _, state := range []State{AdminDown, Down, Init, Up} {
			for _, auth := range []Auth{{}, testKeys(false), testKeys(true)} {
				now := time.Unix(1e9, 0)
				s := sessionIn(t, state, auth, now)
				if s.receive(now, p, raw) == kept {
					if len(auth.Keys) > 0 != p.has(flagAuth) {
						t.Fatalf("%x: authentication ignored", raw)
					}
					if p.state == AdminDown && s.state != Down || p.state == Down && s.state == Up {
						t.Fatalf("%x: %v became %v", raw, state, s.state)
					}
				} else if s.state != state {
					t.Fatalf("%x: dropped, and %v became %v", raw, state, s.state)
				}
				n := 0
				for s.next(now, nil) != nil {
					if n++; n > 2 {
						t.Fatalf("%x: more than an answer and news", raw)
					}
				}
				if at := s.deadline(); !at.IsZero() && at.Before(now) {
					t.Fatalf("%x: deadline %v ago", raw, now.Sub(at))
				}
			}
		}
	})
}

func testKeys(meticulous bool) Auth {
	return Auth{Meticulous: meticulous, Keys: []Key{{ID: 7, Secret: "correct horse"}}}
}

// sessionIn is a session with discriminator 2 in the given state with a neighbor
// of discriminator 1, as it is after it has sent what it had to.
func sessionIn(t testing.TB, state State, auth Auth, now time.Time) *session {
	t.Helper()
	cfg := Peer{TransmitInterval: 50 * time.Millisecond, ReceiveInterval: 50 * time.Millisecond, Multiplier: 3, Auth: auth, AdminDown: state == AdminDown}
	s := newSession(cfg, 2, 100, rand.New(rand.NewPCG(1, 2)), now)
	s.auth.kind = 0 // the neighbor's packets here are not signed
	hear := func(from State, flags uint8) {
		p := neighborPacket(from)
		p.flags = flags
		s.receive(now, p, nil)
		drain(s, now)
	}
	switch state {
	case Init:
		hear(Down, 0)
	case Up:
		hear(Init, 0)
		hear(Up, 0)
		s.poll = pollIdle
	}
	s.auth.configure(auth)
	if len(auth.Keys) > 0 {
		s.auth.kind = authKeyed
		if auth.Meticulous {
			s.auth.kind = authMeticulous
		}
	}
	drain(s, now)
	if s.state != state {
		t.Fatalf("state %v, want %v", s.state, state)
	}
	return s
}

// neighborPacket is from discriminator 1, at 50 ms, or a second while not Up.
func neighborPacket(state State) packet {
	p := packet{state: state, multiplier: 3, my: 1, your: 2, desiredTx: time.Second, requiredRx: 50 * time.Millisecond}
	if state == Up {
		p.desiredTx = 50 * time.Millisecond
	}
	return p
}

// drain returns what the session sends now.
func drain(s *session, now time.Time) []packet {
	var sent []packet
	for {
		b := s.next(now, nil)
		if b == nil {
			return sent
		}
		p, _, _ := decode(b)
		sent = append(sent, p)
	}
}
