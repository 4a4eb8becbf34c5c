package termination

import (
	"bytes"
	"context"
	"crypto/tls"
	"slices"
	"testing"

	"anyedge/internal/tickets"
)

// handshake makes a QUIC handshake in memory, in which the client offers early
// data if it can. It returns what the client ended with, and whether the server
// took the early data.
func handshake(t *testing.T, server, client *tls.Config, extra [][]byte) (tls.ConnectionState, bool) {
	t.Helper()
	c := tls.QUICClient(&tls.QUICConfig{TLSConfig: client})
	s := tls.QUICServer(&tls.QUICConfig{TLSConfig: server})
	defer c.Close()
	defer s.Close()
	c.SetTransportParameters(nil)
	s.SetTransportParameters(nil)
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	early, done := false, 0
	for quiet := 0; quiet < 2; {
		quiet = 0
		for _, ends := range [][2]*tls.QUICConn{{c, s}, {s, c}} {
			from, to := ends[0], ends[1]
			switch e := from.NextEvent(); e.Kind {
			case tls.QUICNoEvent:
				quiet++
			case tls.QUICWriteData:
				if err := to.HandleData(e.Level, e.Data); err != nil {
					t.Fatal(err)
				}
			case tls.QUICSetReadSecret:
				early = early || from == s && e.Level == tls.QUICEncryptionLevelEarly
			case tls.QUICHandshakeDone:
				if done++; from == s {
					if err := s.SendSessionTicket(tls.QUICSessionTicketOptions{EarlyData: true, Extra: extra}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	if done != 2 {
		t.Fatal("the handshake is not complete")
	}
	return c.ConnectionState(), early
}

// Early data is good at another node with the same keys, and what QUIC keeps in
// a session comes back; elsewhere, neither happens.
func TestEarlyDataAtAnotherNode(t *testing.T) {
	ca := newAuthority(t, "servers")
	cert := ca.server("shop.example", "other.example")
	node := func(domain string, keys ...byte) *Terminator {
		term, err := New(Config{Certificates: []CertPEM{cert}, Domain: domain, NextProtos: []string{"h3"}, MinVersion: tls.VersionTLS13})
		if err != nil {
			t.Fatal(err)
		}
		var ring []tickets.Key
		for _, k := range keys {
			ring = append(ring, newKey(k))
		}
		term.SetKeys(ring)
		return term
	}
	for _, tt := range []struct {
		name   string
		to     *Terminator
		server string
		good   bool
	}{
		{"same keys", node("edge", 1, 2), "shop.example", true},
		{"rotated once", node("edge", 3, 1), "shop.example", true},
		{"key erased", node("edge", 3, 4), "shop.example", false},
		{"other trust domain", node("other", 1, 2), "shop.example", false},
		{"other server name", node("edge", 1, 2), "other.example", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cache := &oneSession{}
			client := &tls.Config{
				RootCAs: ca.pool(), ServerName: "shop.example", NextProtos: []string{"h3"}, MinVersion: tls.VersionTLS13, ClientSessionCache: cache,
			}
			extra := [][]byte{[]byte("transport parameters"), []byte("settings")}
			if _, early := handshake(t, node("edge", 1).TLSConfig(), client, extra); early || cache.last == nil {
				t.Fatal("early data at once, or no ticket")
			}
			// What the server finds in the ticket.
			var found [][]byte
			server := tt.to.TLSConfig()
			unwrap := server.UnwrapSession
			server.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
				session, err := unwrap(ticket, cs)
				if session != nil {
					found = session.Extra
				}
				return session, err
			}
			client.ServerName = tt.server
			state, early := handshake(t, server, client, nil)
			if state.DidResume != tt.good || early != tt.good {
				t.Errorf("resumed %v, early data %v", state.DidResume, early)
			}
			if same := slices.EqualFunc(found, extra, bytes.Equal); same != tt.good {
				t.Errorf("found %q", found)
			}
		})
	}
}

// oneSession offers the last session to whatever server.
type oneSession struct{ last *tls.ClientSessionState }

func (s *oneSession) Get(string) (*tls.ClientSessionState, bool)    { return s.last, s.last != nil }
func (s *oneSession) Put(_ string, session *tls.ClientSessionState) { s.last = session }
