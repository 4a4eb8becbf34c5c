package termination

import (
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/tickets"
)

// bench is what the tests of resumption share.
type bench struct {
	t       *testing.T
	version uint16
	ca      *authority
	cert    CertPEM // for shop.example and other.example
	counts  *Counters
}

// eachVersion runs a test for both versions of TLS.
func eachVersion(t *testing.T, f func(b *bench)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			b := &bench{t: t, version: version, ca: newAuthority(t, "servers"), counts: new(Counters)}
			b.cert = b.ca.server("shop.example", "other.example")
			f(b)
		})
	}
}

// terminator makes one with the given domain, authorities and keys.
func (b *bench) terminator(domain string, clientCAs []byte, keys ...tickets.Key) *Terminator {
	b.t.Helper()
	t, err := New(Config{Certificates: []CertPEM{b.cert}, ClientCAs: clientCAs, Domain: domain, Counters: b.counts})
	if err != nil {
		b.t.Fatal(err)
	}
	t.SetKeys(keys)
	return t
}

// client makes a client with a memory for sessions.
func (b *bench) client(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{
		RootCAs: b.ca.pool(), ServerName: "shop.example", MaxVersion: b.version, Certificates: certs,
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
}

// meet connects, and checks that both ends agree on whether a session resumed.
func (b *bench) meet(t *Terminator, client *tls.Config) result {
	b.t.Helper()
	r := connect(b.t, t.TLSConfig(), client)
	if r.err != nil {
		b.t.Fatal(r.err)
	}
	if r.client.Version != b.version || r.client.DidResume != r.server.DidResume {
		b.t.Fatalf("%s, resumed %v and %v", tls.VersionName(r.client.Version), r.client.DidResume, r.server.DidResume)
	}
	return r
}

// expect connects, and checks whether the session resumed.
func (b *bench) expect(resumed bool, t *Terminator, client *tls.Config) {
	b.t.Helper()
	if got := b.meet(t, client).server.DidResume; got != resumed {
		b.t.Errorf("resumed %v, want %v", got, resumed)
	}
}

func TestResumesAtAnotherNode(t *testing.T) {
	eachVersion(t, func(b *bench) {
		clients := newAuthority(b.t, "clients")
		fra := b.terminator("edge", clients.pem(), newKey(1), newKey(2))
		iad := b.terminator("edge", clients.pem(), newKey(1), newKey(2))
		client := b.client(clients.client("alice", 0))
		b.expect(false, fra, client)
		r := b.meet(iad, client)
		if !r.server.DidResume {
			b.t.Fatal("did not resume")
		}
		// The session brings the client's verified identity along.
		if len(r.server.VerifiedChains) == 0 || r.server.PeerCertificates[0].Subject.CommonName != "alice" {
			b.t.Errorf("resumed without the client's identity: %v", r.server.PeerCertificates)
		}
		// And again from what the resumed connection gave.
		b.expect(true, fra, client)
		if opened, issued := b.counts.Tickets(Opened), b.counts.Tickets(Issued); opened != 2 || issued != 3 {
			b.t.Errorf("%d opened, %d issued", opened, issued)
		}
	})
}

// A session must not be of use outside the trust domain in which it was made;
// the package comment says why. Ticket keys and server name are the same
// everywhere here, so nothing else keeps it in.
func TestSessionStaysInItsTrustDomain(t *testing.T) {
	eachVersion(t, func(b *bench) {
		staff, public := newAuthority(b.t, "staff"), newAuthority(b.t, "public")
		both := append(public.pem(), staff.pem()...)
		for _, tt := range []struct {
			name         string
			fromDomain   string
			from         []byte // client authorities where the session was made
			toDomain     string
			to           []byte // client authorities where it is offered
			resumes      bool
			wantIdentity bool // at the second, after a full handshake
		}{
			{"same domain, same authorities", "a", public.pem(), "a", public.pem(), true, true},
			{"authorities in another order, twice, with white space", "a", both, "a", append(append(staff.pem(), "\n \n"...), append(both, both...)...), true, true},
			{"other domain", "a", public.pem(), "b", public.pem(), false, true},
			{"other authorities", "a", public.pem(), "a", staff.pem(), false, false},
			{"one authority more", "a", public.pem(), "a", both, false, true},
			{"one authority less", "a", both, "a", public.pem(), false, true},
			{"no authorities any more", "a", public.pem(), "a", nil, false, false},
			{"domain and authorities", "a", public.pem(), "b", staff.pem(), false, false},
		} {
			b.t.Run(tt.name, func(t *testing.T) {
				b := &bench{t: t, version: b.version, ca: b.ca, cert: b.cert, counts: new(Counters)}
				from := b.terminator(tt.fromDomain, tt.from, newKey(1))
				to := b.terminator(tt.toDomain, tt.to, newKey(1))
				client := b.client(public.client("mallory", 0))
				if r := b.meet(from, client); len(r.server.VerifiedChains) == 0 {
					t.Fatal("the client was not verified in the first place")
				}
				r := b.meet(to, client)
				if r.server.DidResume != tt.resumes {
					t.Errorf("resumed %v, want %v", r.server.DidResume, tt.resumes)
				}
				if got := len(r.server.PeerCertificates) > 0; got != tt.wantIdentity {
					t.Errorf("has an identity: %v, want %v", got, tt.wantIdentity)
				}
				if !tt.resumes && b.counts.Tickets(Invalid) != 1 {
					t.Errorf("%d invalid tickets, want the one", b.counts.Tickets(Invalid))
				}
			})
		}
	})
}

// RFC 6066, section 3: a session resumes only under the name it was made for.
func TestSessionStaysWithItsServerName(t *testing.T) {
	eachVersion(t, func(b *bench) {
		term := b.terminator("edge", nil, newKey(1))
		client := b.client()
		b.expect(false, term, client)
		// The client's memory goes by name, so the session is moved by hand.
		session, ok := client.ClientSessionCache.Get("shop.example")
		if !ok {
			b.t.Fatal("the client has no session")
		}
		other := b.client()
		other.ServerName = "other.example"
		other.ClientSessionCache.Put("other.example", session)
		b.expect(false, term, other)
		b.expect(true, term, other) // with its own
		if n := b.counts.Tickets(Invalid); n != 1 {
			b.t.Errorf("%d invalid tickets, want 1", n)
		}
	})
}

func TestRotation(t *testing.T) {
	eachVersion(t, func(b *bench) {
		k1, k2, k3 := newKey(1), newKey(2), newKey(3)
		fra := b.terminator("edge", nil, k1, k2)
		iad := b.terminator("edge", nil, k1, k2)
		early, late := b.client(), b.client()
		b.expect(false, fra, early)

		// iad's clock is ahead: it encrypts with the next key already.
		iad.SetKeys([]tickets.Key{k2, k3, k1})
		b.expect(false, iad, late)
		b.expect(true, fra, late)
		b.expect(true, iad, early) // and gets a ticket of the second key

		keep := b.client()
		b.expect(false, fra, keep)
		fra.SetKeys([]tickets.Key{k2, k3})
		iad.SetKeys([]tickets.Key{k2, k3})
		b.expect(true, fra, early)
		b.expect(false, iad, keep) // its key was erased
		if n := b.counts.Tickets(UnknownKey); n != 1 {
			b.t.Errorf("%d tickets of unknown keys, want 1", n)
		}
		b.expect(true, fra, keep)
	})
}

// Configs that were handed out before see the keys that come later, and so do
// their clones: a config that misses them would seal with an erased key.
func TestConfigsFollowTheKeys(t *testing.T) {
	eachVersion(t, func(b *bench) {
		term := b.terminator("edge", nil, newKey(1))
		for name, config := range map[string]*tls.Config{"config": term.TLSConfig(), "clone": term.TLSConfig().Clone()} {
			term.SetKeys([]tickets.Key{newKey(2)})
			client := b.client()
			if r := connect(b.t, config, client); r.err != nil || r.server.DidResume {
				b.t.Fatalf("%s: %v, resumed %v", name, r.err, r.server.DidResume)
			}
			if r := connect(b.t, config, client); r.err != nil || !r.server.DidResume {
				b.t.Fatalf("%s: %v, resumed %v", name, r.err, r.server.DidResume)
			}
			term.SetKeys([]tickets.Key{newKey(3)})
			if r := connect(b.t, config, client); r.err != nil || r.server.DidResume {
				b.t.Fatalf("%s: %v, resumed %v with an erased key", name, r.err, r.server.DidResume)
			}
		}
	})
}

func TestWithoutKeys(t *testing.T) {
	eachVersion(t, func(b *bench) {
		term := b.terminator("edge", nil)
		client := b.client()
		b.expect(false, term, client)
		b.expect(false, term, client)
		if blank, issued := b.counts.Tickets(Blank), b.counts.Tickets(Issued); blank != 2 || issued != 0 {
			b.t.Errorf("%d blank, %d issued", blank, issued)
		}
		term.SetKeys([]tickets.Key{newKey(1)})
		b.expect(false, term, client)
		b.expect(true, term, client)
		term.SetKeys(nil)
		b.expect(false, term, client)
	})
}

func TestTicketsAge(t *testing.T) {
	eachVersion(t, func(b *bench) {
		synctest.Test(b.t, func(t *testing.T) {
			b := &bench{t: t, version: b.version, ca: b.ca, cert: b.cert, counts: new(Counters)}
			term := b.terminator("edge", nil, newKey(1))
			young, old := b.client(), b.client()
			b.expect(false, term, young)
			b.expect(false, term, old)
			time.Sleep(maxAge)
			b.expect(true, term, young)
			time.Sleep(2 * time.Second)
			b.expect(false, term, old)
			if n := b.counts.Tickets(Expired); n != 1 {
				t.Errorf("%d expired, want 1", n)
			}
		})
	})
}

// A client with a huge certificate is served, if without resumption: its ticket
// would not fit into a handshake message.
func TestHugeSession(t *testing.T) {
	eachVersion(t, func(b *bench) {
		clients := newAuthority(b.t, "clients")
		term := b.terminator("edge", clients.pem(), newKey(1))
		client := b.client(clients.client("huge", 100_000))
		b.expect(false, term, client)
		b.expect(false, term, client)
		if n := b.counts.Tickets(Blank); n != 2 {
			b.t.Errorf("%d blank tickets, want 2", n)
		}
	})
}

// Keys change while handshakes run.
func TestKeysChangeUnderLoad(t *testing.T) {
	eachVersion(t, func(b *bench) {
		term := b.terminator("edge", nil, newKey(1), newKey(2))
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 200 {
				term.SetKeys([]tickets.Key{newKey(byte(1 + i%2)), newKey(byte(2 - i%2))})
				time.Sleep(time.Millisecond / 4)
			}
		}()
		client := b.client()
		b.meet(term, client)
		for resumed := 0; resumed < 20; resumed++ {
			b.expect(true, term, client)
		}
		<-done
	})
}
