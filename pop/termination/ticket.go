package termination

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"anyedge/internal/tickets"
)

const (
	// ticketVersion is the first byte of every ticket.
	ticketVersion = 1
	// headLen is version, key id and time of issue.
	headLen = 1 + len(tickets.ID{}) + 8
	// nonceLen follows the head.
	nonceLen = chacha20poly1305.NonceSizeX

	// maxAge is how old a ticket may be, and how far in the future it may seem
	// to be made when clocks differ. The ring usually erases its key sooner;
	// this bound holds also while nobody rotates.
	maxAge = 24 * time.Hour
	// maxTicket bounds a ticket's length. A client sends it in a ClientHello,
	// where it has to share 64 KiB with everything else, and could not connect
	// again with one that is too long. Only chains of client certificates get
	// that big.
	maxTicket = 32 << 10
)

// trustOf names a trust domain: what differs in it does not share sessions.
func trustOf(domain string, authorities []*x509.Certificate) []byte {
	name := sha256.Sum256([]byte(domain))
	roots := sha256.New()
	for _, cert := range authorities {
		sum := sha256.Sum256(cert.Raw)
		roots.Write(sum[:])
	}
	return roots.Sum(name[:])
}

// sealers are the keys of one trust domain. They are never mutated.
type sealers struct {
	current tickets.ID // of byID, unless that is empty
	byID    map[tickets.ID]cipher.AEAD
}

func newSealers(keys []tickets.Key, trust []byte) *sealers {
	s := &sealers{byID: make(map[tickets.ID]cipher.AEAD, len(keys))}
	for i, k := range keys {
		if i == 0 {
			s.current = k.ID
		}
		if s.byID[k.ID] == nil {
			s.byID[k.ID] = newSealer(k.Secret, trust)
		}
	}
	return s
}

func newSealer(secret tickets.Secret, trust []byte) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, secret[:], nil, "anyedge session ticket 1"+string(trust), chacha20poly1305.KeySize)
	if err != nil {
		panic("termination: derive ticket key: " + err.Error()) // the length is right
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("termination: ticket cipher: " + err.Error()) // the length is right
	}
	return aead
}

// wrap seals a session into a ticket. It implements [tls.Config.WrapSession].
//
// When it cannot, it returns one that opens nowhere: crypto/tls promised the
// client a ticket, and TLS 1.3 has no empty ones (RFC 8446, section 4.6.1). An
// error would end a handshake that is fine.
func (t *Terminator) wrap(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	s := t.sealers.Load()
	aead := s.byID[s.current]
	plain, err := session.Bytes()
	if aead == nil || err != nil || headLen+nonceLen+len(plain)+chacha20poly1305.Overhead > maxTicket {
		blank := make([]byte, headLen)
		rand.Read(blank[1:])
		t.counters.ticket(Blank)
		return blank, nil
	}
	t.counters.ticket(Issued)
	return seal(aead, s.current, time.Now(), cs.ServerName, plain), nil
}

// unwrap opens a ticket that a client offers. It implements
// [tls.Config.UnwrapSession] and never fails: a ticket that is not good makes a
// full handshake.
func (t *Terminator) unwrap(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	if len(ticket) == 0 { // a TLS 1.2 client that wants one but has none (RFC 5077, section 3.1)
		return nil, nil
	}
	plain, outcome := t.sealers.Load().open(ticket, time.Now(), cs.ServerName)
	if outcome != Opened {
		t.counters.ticket(outcome)
		return nil, nil
	}
	session, err := tls.ParseSessionState(plain)
	if err != nil { // another release of Go sealed it
		t.counters.ticket(Invalid)
		return nil, nil
	}
	t.counters.ticket(Opened)
	return session, nil
}

// seal makes a ticket for a server name.
func seal(aead cipher.AEAD, id tickets.ID, now time.Time, serverName string, plain []byte) []byte {
	ticket := make([]byte, 0, headLen+nonceLen+len(plain)+aead.Overhead())
	ticket = append(ticket, ticketVersion)
	ticket = append(ticket, id[:]...)
	ticket = binary.BigEndian.AppendUint64(ticket, uint64(now.Unix()))
	bound := bind(ticket, serverName)
	nonce := ticket[headLen : headLen+nonceLen]
	rand.Read(nonce)
	return aead.Seal(ticket[:headLen+nonceLen], nonce, plain, bound)
}

// open reverses seal. The outcome is Opened, or why there is no plain text.
func (s *sealers) open(ticket []byte, now time.Time, serverName string) ([]byte, Outcome) {
	if len(ticket) < headLen || ticket[0] != ticketVersion {
		return nil, Invalid
	}
	head, rest := ticket[:headLen], ticket[headLen:]
	aead := s.byID[tickets.ID(head[1:])]
	if aead == nil {
		return nil, UnknownKey
	}
	if len(rest) < nonceLen {
		return nil, Invalid
	}
	plain, err := aead.Open(nil, rest[:nonceLen], rest[nonceLen:], bind(head, serverName))
	if err != nil {
		return nil, Invalid
	}
	issued := time.Unix(int64(binary.BigEndian.Uint64(head[headLen-8:])), 0)
	if now.Sub(issued).Abs() > maxAge {
		return nil, Expired
	}
	return plain, Opened
}

// bind returns what a ticket authenticates besides the session.
func bind(head []byte, serverName string) []byte {
	bound := make([]byte, 0, headLen+len(serverName))
	return append(append(bound, head...), strings.ToLower(serverName)...)
}
