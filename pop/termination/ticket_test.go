package termination

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"testing"
	"time"

	"anyedge/internal/tickets"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestOpen(t *testing.T) {
	trust := trustOf("edge", nil)
	s := newSealers([]tickets.Key{newKey(1), newKey(2)}, trust)
	plain := []byte("a session")
	good := seal(s.byID[s.current], s.current, now, "shop.example", plain)
	if s.current != newKey(1).ID || good[0] != ticketVersion || tickets.ID(good[1:9]) != s.current {
		t.Fatalf("sealed with %v: %x", s.current, good)
	}
	if again := seal(s.byID[s.current], s.current, now, "shop.example", plain); bytes.Equal(good[headLen:headLen+nonceLen], again[headLen:headLen+nonceLen]) {
		t.Fatal("a nonce was used twice")
	}
	for _, tt := range []struct {
		name   string
		change func(ticket []byte) []byte
		at     time.Duration
		server string
		keys   []tickets.Key
		want   Outcome
	}{
		{name: "good", want: Opened},
		{name: "name in another case", server: "SHOP.example", want: Opened},
		{name: "other name", server: "shop.example2", want: Invalid},
		{name: "no name", server: "-", want: Invalid},
		{name: "a day old", at: maxAge, want: Opened},
		{name: "older", at: maxAge + time.Second, want: Expired},
		{name: "from a clock ahead", at: -maxAge, want: Opened},
		{name: "from a clock far ahead", at: -maxAge - time.Second, want: Expired},
		{name: "key in another place", keys: []tickets.Key{newKey(2), newKey(1)}, want: Opened},
		{name: "key erased", keys: []tickets.Key{newKey(2)}, want: UnknownKey},
		{name: "no keys", keys: []tickets.Key{}, want: UnknownKey},
		{name: "other secret under the id", keys: []tickets.Key{{ID: newKey(1).ID, Secret: newKey(9).Secret}}, want: Invalid},
		{name: "the first of two with one id counts", keys: []tickets.Key{newKey(1), {ID: newKey(1).ID, Secret: newKey(9).Secret}}, want: Opened},
		{name: "other version", change: func(b []byte) []byte { b[0]++; return b }, want: Invalid},
		{name: "other key's id", change: func(b []byte) []byte { b[8] = 2; return b }, want: Invalid},
		{name: "something more", change: func(b []byte) []byte { return append(b, 0) }, want: Invalid},
		{name: "nothing", change: func([]byte) []byte { return nil }, want: Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ticket, server, sealers := bytes.Clone(good), "shop.example", s
			if tt.change != nil {
				ticket = tt.change(ticket)
			}
			if tt.keys != nil {
				sealers = newSealers(tt.keys, trust)
			}
			switch tt.server {
			case "":
			case "-":
				server = ""
			default:
				server = tt.server
			}
			got, outcome := sealers.open(ticket, now.Add(tt.at), server)
			if outcome != tt.want || (outcome == Opened) != bytes.Equal(got, plain) {
				t.Errorf("%v, %q; want %v", outcome, got, tt.want)
			}
		})
	}

	// No single bit can be changed, no byte left out at the end.
	for i := range 8 * len(good) {
		ticket := bytes.Clone(good)
		ticket[i/8] ^= 1 << (i % 8)
		if got, outcome := s.open(ticket, now, "shop.example"); outcome == Opened || got != nil {
			t.Errorf("opened with bit %d changed", i)
		}
	}
	for n := range len(good) {
		if got, outcome := s.open(good[:n], now, "shop.example"); outcome == Opened || got != nil {
			t.Errorf("opened after %d bytes", n)
		}
	}
}

// What differs in the name of a trust domain, or in its authorities, has
// another key.
func TestTrustOf(t *testing.T) {
	a, b := newAuthority(t, "a").cert, newAuthority(t, "b").cert
	seen := make(map[string]int)
	for i, trust := range [][]byte{
		trustOf("", nil), trustOf("x", nil), trustOf("xy", nil),
		trustOf("x", certs(a)), trustOf("x", certs(b)), trustOf("x", certs(a, b)), trustOf("xy", certs(a)),
		trustOf("x"+string(a.Raw), nil),
	} {
		if j, ok := seen[string(trust)]; ok {
			t.Errorf("domains %d and %d are the same", i, j)
		}
		seen[string(trust)] = i
	}
}

// The bound on a ticket's length holds just so.
func TestTicketLength(t *testing.T) {
	term, err := New(Config{Certificates: []CertPEM{newAuthority(t, "ca").server("shop.example")}})
	if err != nil {
		t.Fatal(err)
	}
	term.SetKeys([]tickets.Key{newKey(1)})
	length := func(extra int) int {
		ticket, err := term.wrap(tls.ConnectionState{}, session(t, extra))
		if err != nil {
			t.Fatal(err)
		}
		return len(ticket)
	}
	empty := length(0)
	if got := length(maxTicket - empty); got != maxTicket {
		t.Errorf("the longest ticket has %d bytes, want %d", got, maxTicket)
	}
	if got := length(maxTicket - empty + 1); got != headLen {
		t.Errorf("a ticket that is too long became one of %d bytes", got)
	}
}

// Whatever a client sends as a ticket, unwrap neither fails nor finds a session
// in it that was not sealed.
func FuzzUnwrap(f *testing.F) {
	term, err := New(Config{Certificates: []CertPEM{newAuthority(f, "ca").server("shop.example")}})
	if err != nil {
		f.Fatal(err)
	}
	// Each fuzzing process has keys of its own, so none opens what another sealed.
	ring, err := tickets.New(time.Now(), tickets.Schedule{}, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	term.SetKeys(ring.Keys)
	good, err := term.wrap(tls.ConnectionState{ServerName: "shop.example"}, session(f, 0))
	if err != nil {
		f.Fatal(err)
	}
	s := term.sealers.Load()
	f.Add(good)
	f.Add(good[:headLen])
	f.Add([]byte{})
	f.Add([]byte{ticketVersion})
	f.Add(seal(s.byID[s.current], s.current, time.Now(), "shop.example", []byte("not a session")))
	f.Fuzz(func(t *testing.T, ticket []byte) {
		got, err := term.unwrap(ticket, tls.ConnectionState{ServerName: "shop.example"})
		if err != nil {
			t.Fatal(err)
		}
		if got != nil && !bytes.Equal(ticket, good) {
			t.Fatalf("a session came out of %x", ticket)
		}
	})
}
